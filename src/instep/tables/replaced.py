"""Records that other metadata stands for a table state, and why; one who was first wins.

A record is written under a lock that the whole lake shares, and only while the state still stands
as the writer found it. So of two that replace the same state at once one learns that it came late;
its files are garbage.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path

from instep.faults import reached
from instep.history.locks import blobs_locked
from instep.history.objects import write_durably
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
    reached("tables.replacement.before")
    with blobs_locked(root.resolve() / "replacements", alone=True):
        if located(root, content) != before:
            return False
        record = {"metadata": now.metadata, "digest": now.digest, "why": why.value}
        write_durably(path, json.dumps(record).encode())
    reached("tables.replacement.after")
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
