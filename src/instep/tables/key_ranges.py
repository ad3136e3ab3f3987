"""Answers how rows are cut into ranges of one column, so that each range is compared alone.

A cut is only a question of speed and memory: any cuts give the same answer. They are taken from the
row groups' bounds, where those show that rows lie near others of like value; otherwise all rows are
one range, and whatever compares them must spill. A range reads only files that may hold its rows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from instep.engines.engine import FileSet
from instep.engines.reading import paths_sql
from instep.engines.schema import literal, sql_type_of
from instep.tables.apart import Range

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB

CELLS_PER_RANGE = 8_000_000
"""About 200 MB in a hash table, beside the rest under an engine's limit of 1 GiB. Half as many and
twice as many took as long (10 M rows, 10 columns); few row groups would leave threads idle."""

WORST_REREAD = 1.6
"""Rows read in all ranges over rows there are. Row groups that two ranges share are read twice;
above this, one pass that spills was as fast (10 M rows, 10 columns)."""

_ORDERED = ("int", "long", "date", "timestamp", "timestamptz", "string", "decimal")
"""Types whose bounds in Parquet are the order of their values, without NaN."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A column by which rows may be cut: its place, and on each side its Iceberg type and id.

    `sql_type` holds the values of both.
    """

    place: int
    types: tuple[str, str]
    sql_type: str
    field_ids: tuple[int, int]

    @property
    def is_ordered(self) -> bool:
        """Says whether bounds in the files are bounds of the values as they are compared."""
        if self.sql_type == sql_type_of("string"):
            return self.types == ("string", "string")
        return all(one.partition("(")[0] in _ORDERED for one in self.types)


@dataclass(frozen=True, slots=True)
class Span:
    """A row group: ranks of its least and greatest value among all bounds, and its rows."""

    lower: int
    upper: int
    rows: int


def everything(sides: tuple[FileSet, FileSet]) -> tuple[Range]:
    """Returns one range of all rows of two sides, each a view of its name."""
    return (Range("true", *(one.name for one in sides)),)


def ranges_of_key(
    engine: DuckDB,
    sides: tuple[FileSet, FileSet],
    selected: str,
    candidates: Sequence[Candidate],
    rows: int,
) -> tuple[Range, ...]:
    """Returns ranges of the rows of two sides, each a view of its name; each row is in one of them.

    `selected` is SQL of the columns c0, c1, ... of the views, `rows` those of the larger side. The
    files' footers are read only when there are rows enough for two ranges.
    """
    per_range = max(1, CELLS_PER_RANGE // max(1, len(sides[0].schema.columns)))
    if rows <= per_range or not all(one.files for one in sides):
        return everything(sides)
    for candidate in candidates:
        if not candidate.is_ordered:
            continue
        groups = _groups(engine, sides, candidate)
        texts = {one.span.lower: one.lower for one in groups if one.span}
        chosen = cuts([one.span for one in groups if one.span], per_range)
        if chosen:
            parts = zip(
                _conditions(candidate, [texts[rank] for rank in chosen]),
                *(_files(one, number, groups, chosen) for number, one in enumerate(sides)),
                strict=True,
            )
            return tuple(
                Range(
                    condition,
                    *(
                        f"(SELECT {selected} FROM {engine.source_of_some(one, files)})"
                        for one, files in zip(sides, found, strict=True)
                    ),
                )
                for condition, *found in parts
                if any(found)
            )
    return everything(sides)


def cuts(spans: Sequence[Span], per_range: int) -> tuple[int, ...]:
    """Returns the ranks at which new ranges begin, about `per_range` rows of one side apart.

    Empty when the row groups overlap so much that ranges would read them again and again.
    """
    total = sum(span.rows for span in spans)
    found: list[int] = []
    gathered = 0
    for span in sorted(spans, key=lambda span: span.lower):
        # The spans are those of both sides, so a range of one side has twice the rows of it.
        if gathered >= 2 * per_range and (not found or span.lower > found[-1]):
            found.append(span.lower)
            gathered = 0
        gathered += span.rows
    read = sum(
        span.rows * (1 + bisect_right(found, span.upper) - bisect_right(found, span.lower))
        for span in spans
    )
    return tuple(found) if read <= WORST_REREAD * total else ()


def _conditions(candidate: Candidate, values: Sequence[str]) -> tuple[str, ...]:
    name = f"c{candidate.place}"
    bounds = [f"CAST({literal(value)} AS {candidate.sql_type})" for value in values]
    between = [f"{name} >= {lower} AND {name} < {upper}" for lower, upper in pairwise(bounds)]
    return (f"{name} < {bounds[0]}", *between, f"{name} >= {bounds[-1]}", f"{name} IS NULL")


@dataclass(frozen=True, slots=True)
class _Group:
    """A row group of a file of one side; without a span its values may be any.

    `lower` is the text of its least value.
    """

    side: int
    path: str
    span: Span | None
    lower: str
    may_hold_null: bool


def _files(
    side: FileSet, number: int, groups: Iterable[_Group], chosen: Sequence[int]
) -> list[set[str]]:
    """Returns for each condition the files that may hold rows that meet it.

    A file of which no group is known, as it was written before the column, may hold any.
    """
    own = [one for one in groups if one.side == number]
    anywhere = set(side.files) - {one.path for one in own}
    anywhere |= {one.path for one in own if one.span is None}
    found = [set(anywhere) for _ in range(len(chosen) + 2)]
    for one in own:
        if one.may_hold_null:
            found[-1].add(one.path)
        if one.span is not None:
            first, last = (bisect_right(chosen, rank) for rank in (one.span.lower, one.span.upper))
            for place in range(first, last + 1):
                found[place].add(one.path)
    return found


def _groups(engine: DuckDB, sides: tuple[FileSet, FileSet], candidate: Candidate) -> list[_Group]:
    """Returns the row groups of both sides that hold the column."""
    paths = [{engine.at_hand(path): path for path in one.files} for one in sides]
    parts = [
        _bounds_of(number, list(files), field_id, candidate.sql_type)
        for number, (files, field_id) in enumerate(zip(paths, candidate.field_ids, strict=True))
    ]
    found = engine.run(
        f"WITH bounds AS MATERIALIZED ({' UNION ALL '.join(parts)}), ranked AS ("
        "SELECT value, row_number() OVER (ORDER BY value) AS rank FROM ("
        "SELECT lower AS value FROM bounds UNION SELECT upper FROM bounds)) "
        "SELECT side, file_name, l.rank, u.rank, rows, lower::VARCHAR, may_hold_null FROM bounds "
        "LEFT JOIN ranked l ON lower = l.value LEFT JOIN ranked u ON upper = u.value"
    )
    return [
        _Group(
            side,
            paths[side][file],
            None if lower is None or upper is None else Span(lower, upper, rows),
            text,
            may_hold_null,
        )
        for side, file, lower, upper, rows, text, may_hold_null in found
    ]


def _bounds_of(side: int, files: Sequence[str], field_id: int, sql_type: str) -> str:
    paths = paths_sql(files)
    return (
        f"SELECT {side} AS side, m.file_name, TRY_CAST(stats_min_value AS {sql_type}) AS lower, "
        f"TRY_CAST(stats_max_value AS {sql_type}) AS upper, row_group_num_rows AS rows, "
        "coalesce(stats_null_count > 0, true) AS may_hold_null "
        f"FROM parquet_metadata({paths}) m JOIN ("
        f"SELECT file_name, name FROM parquet_schema({paths}) WHERE field_id = {field_id}"
        ") s ON m.file_name = s.file_name AND m.path_in_schema = s.name"
    )
