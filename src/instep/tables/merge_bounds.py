"""Answers which files have room for one of some keys, told by their bounds; no file is read.

Keys are cut into ranges of neighbours for each column, so that a few keys far apart do not reach
for all files between them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from instep.engines.schema import Column
from instep.engines.statistics import bound_text
from instep.tables.condition import statistics_of
from instep.tables.partition import order_key
from instep.tables.read import DataFile

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB

RANGES = 1_000
"""Into so many ranges the keys are cut: fewer keys are compared one by one."""

_ORDERED = frozenset({"int", "long", "date", "timestamp", "timestamptz", "string", "decimal"})
"""Types whose bounds are told as text exactly, and hold all values in their order: no NaN."""

_Ranges = list[tuple[Any, Any]]  # values of one type, in their order


def files_with_room(
    engine: DuckDB, columns: Sequence[Column], keys: str, files: Sequence[DataFile]
) -> tuple[str, ...]:
    """Returns the paths of the files that may hold one of the keys.

    `keys` is SQL from FROM on, with `columns` in it as c0, c1, ...
    """
    left = list(files)
    for n, column in enumerate(columns):
        ranges = _ranges(engine, column, f"c{n}", keys) if left else None
        if ranges is not None:
            left = [file for file in left if _has_room(file, column, ranges)]
    return tuple(file.path for file in left)


def _ranges(engine: DuckDB, column: Column, name: str, keys: str) -> _Ranges | None:
    """Returns ranges of a column's values in their order; None where bounds cannot tell."""
    if column.type.partition("(")[0] not in _ORDERED:
        return None
    found = engine.run(
        f"SELECT min({name})::VARCHAR, max({name})::VARCHAR, count(*) > count({name}) FROM ("
        f"SELECT {name}, ntile({RANGES}) OVER (ORDER BY {name}) AS part {keys}) "
        "GROUP BY part ORDER BY part"
    )
    ranges: _Ranges = []
    for lower, upper, has_null in found:
        texts = [bound_text(column.type, text) for text in (lower, upper) if text is not None]
        if has_null or None in texts or len(texts) < 2:
            return None
        first, last = (order_key(column.type, text) for text in texts if text is not None)
        ranges.append((first, last))
    return ranges


def _has_room(file: DataFile, column: Column, ranges: _Ranges) -> bool:
    found = statistics_of(file, column)
    if found is None:
        return True  # not in this file: null, or its default
    if found.nulls == file.rows:
        return False
    if found.lower is None or found.upper is None:
        return True
    lower: Any = order_key(column.type, found.lower)  # as in the ranges
    upper: Any = order_key(column.type, found.upper)
    place = bisect_left(ranges, lower, key=lambda one: one[1])
    return place < len(ranges) and bool(ranges[place][0] <= upper)
