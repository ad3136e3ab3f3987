"""Answers how many small files a table has, from its metadata alone: each snapshot counts them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from instep.tables.content import TableContent
from instep.tables.read import current_snapshot, load_metadata

SMALL_FILES = "instep.small-files"
"""How many data files are small, in a snapshot's summary: so nobody has to list them to know."""

SMALL_BYTES = 48 << 20
"""A file below this may be put together with others after appends; see `upkeep.BOUND_BYTES`."""

MANY_FILES = 32
"""So many small files of a table are worth looking whether they can be put together."""

STANDS_FOR = "instep.stands-for"
"""Of a compaction, in its snapshot's summary: which snapshot's rows these are, in other files."""


def small_file_count(root: Path, content: TableContent) -> int:
    """Returns the number of small live files; at most, if older versions did not count them."""
    snapshot = current_snapshot(load_metadata(root, content))
    return small_files(snapshot["summary"]) if snapshot else 0


def has_many_small_files(root: Path, content: TableContent) -> bool:
    """Says whether a table's files may be worth putting together; reads its metadata only."""
    return small_file_count(root, content) >= MANY_FILES


def small_files(summary: Mapping[str, str]) -> int:
    """Returns what the summary of a snapshot says of small files; all are, if it says nothing."""
    return int(summary.get(SMALL_FILES, summary.get("total-data-files", 0)))
