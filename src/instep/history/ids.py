"""Ids of things that happen once: UUIDv7 with a prefix, so that ids sort by time."""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def new_id(prefix: str) -> str:
    """Returns a new id such as "run_0199...", unique and ordered by creation to the millisecond.

    Layout: RFC 9562, section 5.7.
    """
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10))
    value = (milliseconds & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | (random >> 62 & 0xFFF) << 64
    value |= 0b10 << 62 | random & (1 << 62) - 1
    return f"{prefix}_{uuid.UUID(int=value)}"


def created_at(identifier: str) -> datetime:
    """Returns when an id was made, to the millisecond."""
    return _EPOCH + timedelta(milliseconds=uuid.UUID(identifier.split("_", 1)[1]).int >> 80)
