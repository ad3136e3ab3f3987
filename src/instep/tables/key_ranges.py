"""Answers how rows are cut into ranges of one column, so that each range is compared alone.

A cut is only a question of speed and memory: any cuts give the same answer. They are taken from the
row groups' bounds, where those show that rows lie near others of like value; otherwise all rows are
one range, and whatever compares them must spill.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from instep.engines.schema import literal

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB

CELLS_PER_RANGE = 16_000_000
"""About 400 MB in a hash table: it fits beside the rest under an engine's limit of 1 GiB."""

WORST_REREAD = 1.6
"""Rows read in all ranges over rows there are. Row groups that two ranges share are read twice;
above this, one pass that spills was as fast (10 M rows, 10 columns)."""

EVERYTHING = ("true",)
"""One range of all rows."""

_ORDERED = ("int", "long", "date", "timestamp", "timestamptz", "string", "decimal")
"""Types whose bounds in Parquet are the order of their values, without NaN."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A column by which rows may be cut: its place, Iceberg type and field id on each side."""

    place: int
    type: str
    sql_type: str
    field_ids: tuple[int, int]

    @property
    def is_ordered(self) -> bool:
        return self.type.partition("(")[0] in _ORDERED


@dataclass(frozen=True, slots=True)
class Span:
    """A row group: ranks of its least and greatest value among all bounds, and its rows."""

    lower: int
    upper: int
    rows: int


def range_conditions(
    engine: DuckDB,
    sides: tuple[Sequence[str], Sequence[str]],
    candidates: Sequence[Candidate],
    rows: int,
    width: int,
) -> tuple[str, ...]:
    """Returns SQL conditions over columns c0, c1, ...; each row meets exactly one of them.

    `sides` are the files of both sides, `rows` those of the larger, `width` the columns of a row.
    The files' footers are read only when there are rows enough for two ranges.
    """
    per_range = max(1, CELLS_PER_RANGE // max(1, width))
    if rows <= per_range or not all(sides):
        return EVERYTHING
    for candidate in candidates:
        if not candidate.is_ordered:
            continue
        spans, values = _spans(engine, sides, candidate)
        chosen = cuts(spans, per_range)
        if chosen:
            return _conditions(candidate, [values[rank] for rank in chosen])
    return EVERYTHING


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


def _spans(
    engine: DuckDB, sides: tuple[Sequence[str], Sequence[str]], candidate: Candidate
) -> tuple[list[Span], dict[int, str]]:
    """Returns all row groups of both sides, and the text of the value of each rank."""
    parts = [
        _bounds_of([engine.at_hand(path) for path in files], field_id, candidate.sql_type)
        for files, field_id in zip(sides, candidate.field_ids, strict=True)
    ]
    found = engine.run(
        f"WITH bounds AS MATERIALIZED ({' UNION ALL '.join(parts)}), ranked AS ("
        "SELECT value, row_number() OVER (ORDER BY value) AS rank FROM ("
        "SELECT lower AS value FROM bounds UNION SELECT upper FROM bounds)) "
        "SELECT l.rank, u.rank, rows, l.value::VARCHAR FROM bounds "
        "JOIN ranked l ON lower = l.value JOIN ranked u ON upper = u.value"
    )
    spans = [Span(lower, upper, rows) for lower, upper, rows, _ in found]
    return spans, {lower: text for lower, _, _, text in found}


def _bounds_of(files: Sequence[str], field_id: int, sql_type: str) -> str:
    """Row groups without bounds, those of nulls only, are left out: no range reads them."""
    paths = ", ".join(literal(path) for path in files)
    return (
        f"SELECT TRY_CAST(stats_min_value AS {sql_type}) AS lower, "
        f"TRY_CAST(stats_max_value AS {sql_type}) AS upper, row_group_num_rows AS rows "
        f"FROM parquet_metadata([{paths}]) m JOIN ("
        f"SELECT file_name, name FROM parquet_schema([{paths}]) WHERE field_id = {field_id}"
        ") s ON m.file_name = s.file_name AND m.path_in_schema = s.name "
        "WHERE lower IS NOT NULL AND upper IS NOT NULL"
    )
