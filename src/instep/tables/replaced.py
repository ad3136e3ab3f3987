"""Records that other metadata stands for a table state, and why; one who was first wins.

A record is written only while the state still stands as the writer found it: under a lock that the
whole lake shares, or, on S3, only if the record has not changed since it was looked at. So of two
that replace the same state at once one learns that it came late; its files are garbage.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path

from instep.faults import reached
from instep.history.locks import blobs_locked
from instep.history.objects import write_durably
from instep.history.places import on_s3
from instep.history.s3 import S3Path
from instep.tables.content import TableContent
from instep.tables.read import located, replacement_path


class Why(StrEnum):
    """Why a state has other files than when it was committed."""

    MOVED = "moved"
    COMPACTED = "compacted"
    ERASED = "erased"


def stand_in(
    root: Path, content: TableContent, before: TableContent, now: TableContent, why: Why
) -> bool:
    """Lets `now` stand for `content`, if `before` does so still; says whether it was done."""
    path = replacement_path(root, content)
    record = {"metadata": now.metadata, "digest": now.digest, "why": why.value}
    data = json.dumps(record).encode()
    reached("tables.replacement.before")
    if remote := on_s3(path):
        version = remote.version()
        is_done = located(root, content) == before and _swapped(remote, data, version)
    else:
        with blobs_locked(root.resolve() / "replacements", alone=True):
            is_done = located(root, content) == before
            if is_done:
                write_durably(path, data)
    reached("tables.replacement.after")
    return is_done


def _swapped(path: S3Path, data: bytes, version: str | None) -> bool:
    """Writes a record where none, or that of this version, is; says whether it stands."""
    try:
        path.swap(data, version)
    except FileExistsError:
        # The reply to the first attempt may have been lost; no two records are alike.
        return path.read_bytes() == data
    except FileNotFoundError:
        return False
    return True


def why_replaced(root: Path, content: TableContent) -> Why | None:
    """Returns why other metadata stands for a state; None where its own does.

    A record without a reason was written by an earlier version, which only moved lakes.
    """
    try:
        told = json.loads(replacement_path(root, content).read_bytes())
    except FileNotFoundError:
        return None
    return Why(told.get("why", Why.MOVED))
