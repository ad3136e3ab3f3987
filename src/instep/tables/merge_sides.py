"""Answers what one side of a merge did to the rows of the base.

Only the files that it dropped and those that it added are read: rows in all others are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as renamed
from functools import partial
from typing import TYPE_CHECKING

from instep.engines.engine import FileSet
from instep.engines.schema import Column, Schema
from instep.tables.apart import Compared, Sides, find_apart, forget_apart
from instep.tables.key_ranges import Candidate, ranges_of_key
from instep.tables.row_merge import DefinitionConflict

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB


@dataclass(frozen=True, slots=True)
class Side:
    """What one side did to the files of the base: those that went, and those that came."""

    before: FileSet
    after: FileSet

    @property
    def is_whole(self) -> bool:
        """Says whether its new files can be taken as they are, without rows deleted in them."""
        return not self.after.deletes and not set(self.before.files) & set(self.after.files)


def find_apart_of(
    engine: DuckDB, columns: Sequence[Column], keys: int, side: Side, *, only_given: bool = False
) -> None:
    """Makes `apart` of what a side did to its files; the first columns are the keys, if any.

    With `only_given` a new file has null, not the default, in what it lacks apart from the key.
    """
    given = list(columns)
    if only_given:
        given[keys:] = (renamed(one, initial_default=None) for one in columns[keys:])
    before = renamed(side.before, name="before", schema=numbered(columns))
    after = renamed(side.after, name="after", schema=numbered(given))
    engine.view(before)
    engine.view(after)
    compared = tuple(Compared(one.sql_type, n < keys) for n, one in enumerate(columns))
    candidates = [
        Candidate(n, (one.type, one.type), one.sql_type, (one.id, one.id))
        for n, one in enumerate(columns[: keys or len(columns)])
    ]
    cut = partial(ranges_of_key, engine, (before, after), "*", candidates)
    find_apart(engine, Sides("before", "after", compared), cut)


def given_where_dropped(
    engine: DuckDB, keys: Sequence[Column], dropped: Sequence[Column], sides: tuple[Side, Side]
) -> tuple[DefinitionConflict, ...]:
    """Returns the columns that one side dropped, while the other gave rows other values in them.

    Without keys it is no other value if a row of the same values went.
    """
    counts = [_rows_given(engine, keys, dropped, side) for side in sides]
    return tuple(
        DefinitionConflict(
            f'column "{column.name}"',
            column.full_type,
            _told(found[0]),
            _told(found[1]),
            by_side=False,
        )
        for column in dropped
        if any(found := [side.get(column.id, 0) for side in counts])
    )


def _told(rows: int) -> str:
    return f"changed in {rows} rows" if rows else "dropped"


def _rows_given(
    engine: DuckDB, keys: Sequence[Column], dropped: Sequence[Column], side: Side
) -> dict[int, int]:
    """Returns, by column that the side still has, in how many rows it gave another value."""
    there = {column.id for column in side.after.schema.columns}
    kept = [column for column in dropped if column.id in there]
    if not kept:
        return {}
    find_apart_of(engine, [*keys, *kept], len(keys), side, only_given=True)
    counts = ", ".join(
        f"count(*) FILTER (o{n} IS DISTINCT FROM n{n} AND n{n} IS NOT NULL)"
        for n in range(len(keys), len(keys) + len(kept))
    )
    (found,) = engine.run(f"SELECT {counts} FROM apart")
    forget_apart(engine)
    return dict(zip((column.id for column in kept), found, strict=True))


def numbered(columns: Sequence[Column]) -> Schema:
    return Schema(tuple(renamed(one, name=f"c{n}") for n, one in enumerate(columns)))
