"""Answers whether one state of a table is another with files added, and which these are."""

from __future__ import annotations

from pathlib import Path

from instep.tables.content import TableContent
from instep.tables.read import (
    DataFile,
    data_files,
    file_set,
    layout_of,
    load_metadata,
    schema_of,
)
from instep.tables.shared import unshared


def appended_files(
    root: Path, before: TableContent, after: TableContent
) -> tuple[DataFile, ...] | None:
    """Returns the files that were added, or None where anything else differs between two states."""
    return added_files(root, before, after) if are_laid_out_alike(root, before, after) else None


def added_files(
    root: Path, before: TableContent, after: TableContent
) -> tuple[DataFile, ...] | None:
    """Returns the files that were added, or None where any row went, whatever the columns are."""
    if before.uuid != after.uuid:
        return None
    old = {file.path: file.counts_as for file in data_files(root, before)}
    new = {file.path: file for file in data_files(root, after)}
    # What stood before may have been compacted meanwhile.
    gone, came = unshared(old, {path: file.counts_as for path, file in new.items()})
    deletes = (file_set(root, one, "t").deletes for one in (before, after))
    if gone or next(deletes) != next(deletes):
        return None
    return tuple(file for path, file in new.items() if path in came)


def are_laid_out_alike(root: Path, one: TableContent, two: TableContent) -> bool:
    """Says whether files of one state fit the other: uuid, columns, partitions, properties."""
    first, second = load_metadata(root, one), load_metadata(root, two)
    return (
        one.uuid == two.uuid
        and schema_of(root, one) == schema_of(root, two)
        and layout_of(root, one) == layout_of(root, two)
        and first["properties"] == second["properties"]
    )
