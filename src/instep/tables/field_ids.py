"""Which field ids a table may use next: each is taken once in its life, whatever the branch.

An id is taken by creating an empty file of its name in the table's folder, which only one process
can do. Others number columns by the metadata that they know, so what they added is settled here:
their numbers are kept where they are free, changed where no file carries them yet, else refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from instep.errors import InvalidError
from instep.history.objects import sync_folder
from instep.tables.columns import parse_schema
from instep.tables.iceberg import Metadata

_ID_KEYS = ("id", "element-id", "key-id", "value-id", "source-id")


def new_ids(folder: Path, last: int) -> Iterator[int]:
    """Yields field ids above `last` that no branch of the table in `folder` has, or will have."""
    for candidate in itertools.count(last + 1):
        if take(folder, candidate):
            yield candidate


def take(folder: Path, field_id: int) -> bool:
    """Takes one id for good; says whether it was free."""
    try:
        _path(folder, field_id).touch(exist_ok=False)
    except FileExistsError:
        return False
    sync_folder(folder / "metadata")
    return True


def last_taken(folder: Path, last: int) -> int:
    """Returns the id from which another writer should go on counting, at least `last`."""
    return next(one for one in itertools.count(last) if not _path(folder, one + 1).exists())


def settled(
    folder: Path, before: Metadata | None, metadata: Metadata, held: Collection[int]
) -> Metadata:
    """Returns metadata whose new columns have ids of their own; `held` are ids inside new files.

    Raises:
        InvalidError (kind "field-id-clash"): a file carries an id that is another column's, or
            nobody's.
    """
    told = _ids_in(metadata)
    known = _ids_in(before) if before else set()
    last: int = before["last-column-id"] if before else 0
    foreign = sorted({one for one in held if one > last} - told)
    revived = sorted(one for one in told - known if one <= last)
    new = sorted(one for one in told if one > last)
    taken = [one for one in new if not take(folder, one)] if before else []
    clashing = foreign or revived or sorted(set(held) & set(taken))
    if clashing:
        raise InvalidError(
            f"Field id {clashing[0]} is not free for a new column of table {folder.name}: expected "
            "one that no column ever had, on any branch. Load the table again, add the column, "
            "and write rows after that.",
            kind="field-id-clash",
            field_id=clashing[0],
        )
    ids = dict(zip(taken, new_ids(folder, max(new, default=last)), strict=False))
    numbered = _renumbered(metadata, ids)
    return {**numbered, "last-column-id": max(last, *_ids_in(numbered), 0)}


def _ids_in(metadata: Metadata) -> set[int]:
    return {one.id for schema in metadata["schemas"] for one in parse_schema(schema).fields()}


def _renumbered(metadata: Metadata, ids: Mapping[int, int]) -> Metadata:
    if not ids:
        return metadata
    parts = ("schemas", "partition-specs", "sort-orders")
    return {**metadata, **{part: _with_ids(metadata[part], ids) for part in parts}}


def _with_ids(told: Any, ids: Mapping[int, int]) -> Any:  # Iceberg's JSON
    match told:
        case list():
            return [_with_ids(one, ids) for one in told]
        case dict():
            return {
                key: ids.get(value, value)
                if key in _ID_KEYS
                else [ids.get(one, one) for one in value]
                if key == "identifier-field-ids"
                else _with_ids(value, ids)
                for key, value in told.items()
            }
        case _:
            return told


def _path(folder: Path, field_id: int) -> Path:
    return folder / "metadata" / f"column-{field_id}"
