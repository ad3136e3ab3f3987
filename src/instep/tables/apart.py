"""Finds the rows in which two file sets are apart, in DuckDB: exactly, streaming, spilling.

Rows are equal when each value is not distinct from the other's: null equals null, NaN equals NaN,
0.0 equals -0.0. Values themselves are compared, never hashes of them. Both sides are views with
columns c0, c1, ..., keys first. What is found stands in `apart`: change, then o0, n0, o1, n1, ...
for the values before and after; and in `repeated`: keys k0, k1, ..., rows before, rows after.
Not here: what the columns are called, or how differences are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Two floats are equal when |a - b| <= max(absolute, relative * max(|a|, |b|)).

    Infinities and NaN are equal to themselves only.
    """

    absolute: float = 0.0
    relative: float = 0.0


@dataclass(frozen=True, slots=True)
class Compared:
    """How one column is compared: in a type that holds the values of both sides."""

    sql_type: str
    is_key: bool
    tolerance: Tolerance | None = None

    def differs(self, before: str, after: str) -> str:
        """Returns the SQL condition that two values of the column are not equal."""
        if self.tolerance is None:
            return f"{before} IS DISTINCT FROM {after}"
        bound = (
            f"greatest({self.tolerance.absolute!r}::DOUBLE, {self.tolerance.relative!r}::DOUBLE * "
            f"greatest(abs({before}::DOUBLE), abs({after}::DOUBLE)))"
        )
        near = (
            f"isfinite({before}) AND isfinite({after}) "
            f"AND abs({before}::DOUBLE - {after}::DOUBLE) <= {bound}"
        )
        return f"({before} IS DISTINCT FROM {after} AND NOT coalesce({near}, false))"


@dataclass(frozen=True, slots=True)
class Sides:
    """Two views with the same columns; without keys rows are compared as a multiset."""

    before: str
    after: str
    columns: tuple[Compared, ...]

    @property
    def keys(self) -> int:
        return sum(column.is_key for column in self.columns)

    @property
    def names(self) -> list[str]:
        return [f"c{n}" for n in range(len(self.columns))]

    def differs(self, before: str, after: str) -> list[str]:
        """Returns a condition for each column, keys too; `before` and `after` prefix its number."""
        return [c.differs(f"{before}{n}", f"{after}{n}") for n, c in enumerate(self.columns)]


@dataclass(frozen=True, slots=True)
class Range:
    """Rows that are compared alone: those that meet `condition`; the sides are SQL after FROM."""

    condition: str
    before: str
    after: str


Cut = Callable[[int], Sequence[Range]]
"""Given the rows of the larger side, returns ranges; each row is in one of them."""


def make_ready(engine: DuckDB) -> None:
    """Sets what comparisons need, before the first statement of a session.

    DuckDB takes any file set whose schema is given for one row, and would hold the larger side of a
    join in memory; so the side on the right of a join is the one it holds. Footers are read once.
    """
    engine.connection.execute("SET disabled_optimizers = 'build_side_probe_side'")
    engine.connection.execute("SET parquet_metadata_cache = true")


def find_apart(engine: DuckDB, sides: Sides, cut: Cut) -> None:
    """Makes `apart` and `repeated`, in one pass over the rows of each range."""
    rows = _rows(engine, sides)
    ranges = cut(max(rows))
    _make_apart(engine, sides)
    _make_repeated(engine, sides)
    if not sides.keys:
        for one in ranges:
            _insert_multiset(engine, sides, one)
        return
    # DuckDB cannot both count the pairs and return only those that differ; the sequence counts.
    engine.run("CREATE TEMP SEQUENCE pairs")
    for one in ranges:
        _insert_joined(engine, sides, one)
    removed, added, pairs = _outcome(engine)
    # Pairs of a key are its rows before times its rows after, so their sum is that of the rows that
    # met one only where each key stands once on each side.
    if (pairs, pairs) == (rows[0] - removed, rows[1] - added):
        if max(removed, added) > 1:
            _insert_repeated_of_apart(engine, sides)
        return
    engine.run("DELETE FROM apart")
    _insert_repeated(engine, sides)
    for one in ranges:
        _insert_joined(engine, sides, _with_repeated(one, "ANTI", sides.keys))
        _insert_repeated_rows(engine, sides, _with_repeated(one, "SEMI", sides.keys))


def find_one_sided(engine: DuckDB, sides: Sides, *, is_added: bool) -> None:
    """Makes `apart` a view of the only side there is, so that nothing is copied."""
    side = sides.after if is_added else sides.before
    columns = ", ".join(
        f"NULL::{column.sql_type} AS o{n}, c{n} AS n{n}"
        if is_added
        else f"c{n} AS o{n}, NULL::{column.sql_type} AS n{n}"
        for n, column in enumerate(sides.columns)
    )
    change = "added" if is_added else "removed"
    _make_repeated(engine, sides)
    engine.run(f"CREATE TEMP VIEW apart AS SELECT '{change}' AS change, {columns} FROM {side}")
    if sides.keys:
        _insert_repeated(engine, sides)


def forget_apart(engine: DuckDB) -> None:
    """Drops what `find_apart` made, so that it can be asked about two other sides."""
    for kind, name in (("TABLE", "apart"), ("TABLE", "repeated"), ("SEQUENCE", "pairs")):
        engine.run(f"DROP {kind} IF EXISTS {name}")


def _make_apart(engine: DuckDB, sides: Sides) -> None:
    columns = ", ".join(
        f"o{n} {column.sql_type}, n{n} {column.sql_type}" for n, column in enumerate(sides.columns)
    )
    engine.run(f"CREATE TEMP TABLE apart (change VARCHAR, {columns})")


def _make_repeated(engine: DuckDB, sides: Sides) -> None:
    keys = "".join(
        f"k{n} {column.sql_type}, " for n, column in enumerate(sides.columns[: sides.keys])
    )
    engine.run(f"CREATE TEMP TABLE repeated ({keys}before BIGINT, after BIGINT)")


def _with_repeated(one: Range, join: str, keys: int) -> Range:
    """A range with the rows whose key is repeated (SEMI), or with those whose is not (ANTI)."""
    on = " AND ".join(f"c{n} IS NOT DISTINCT FROM k{n}" for n in range(keys))
    before, after = (f"{side} {join} JOIN repeated ON {on}" for side in (one.before, one.after))
    return Range(one.condition, before, after)


def _insert_joined(engine: DuckDB, sides: Sides, one: Range, place: str = "") -> None:
    """Pairs rows by key in one full join, and keeps those that are not equal."""
    keys = [*sides.names[: sides.keys], *([place] if place else [])]
    on = " AND ".join(f"o.{name} IS NOT DISTINCT FROM n.{name}" for name in keys)
    differs = " OR ".join(sides.differs("o.c", "n.c")[sides.keys :]) or "false"
    columns = ", ".join(f"o.c{n}, n.c{n}" for n in range(len(sides.columns)))
    before, after = (
        f"(SELECT *, true AS here FROM (SELECT * FROM {side}) WHERE {one.condition})"
        for side in (one.before, one.after)
    )
    engine.run(
        "INSERT INTO apart SELECT CASE WHEN o.here IS NULL THEN 'added' "
        f"WHEN n.here IS NULL THEN 'removed' ELSE 'changed' END, {columns} "
        f"FROM {before} o FULL JOIN {after} n ON {on} "
        "WHERE CASE WHEN o.here IS NULL OR n.here IS NULL THEN true "
        f"WHEN nextval('pairs') < 0 THEN false ELSE {differs} END"
    )


def _rows(engine: DuckDB, sides: Sides) -> tuple[int, int]:
    ((before, after),) = engine.run(
        f"SELECT (SELECT count(*) FROM {sides.before}), (SELECT count(*) FROM {sides.after})"
    )
    return before, after


def _outcome(engine: DuckDB) -> tuple[int, int, int]:
    """Returns how many rows met none, before and after, and how many pairs there were."""
    ((removed, added, next_pair),) = engine.run(
        "SELECT count(*) FILTER (change = 'removed'), count(*) FILTER (change = 'added'), "
        "(SELECT nextval('pairs')) FROM apart"
    )
    return removed, added, next_pair - 1


def _insert_repeated_of_apart(engine: DuckDB, sides: Sides) -> None:
    """Keys that stand twice on one side and not on the other met no row: they are in `apart`."""
    for prefix, counts in (("o", "count(*), 0"), ("n", "0, count(*)")):
        change = "removed" if prefix == "o" else "added"
        keys = ", ".join(f"{prefix}{n}" for n in range(sides.keys))
        engine.run(
            f"INSERT INTO repeated SELECT {keys}, {counts} FROM apart "
            f"WHERE change = '{change}' GROUP BY {keys} HAVING count(*) > 1"
        )


def _insert_repeated(engine: DuckDB, sides: Sides) -> None:
    keys = ", ".join(sides.names[: sides.keys])
    engine.run(
        f"INSERT INTO repeated SELECT {keys}, sum(old), sum(new) FROM ("
        f"SELECT {keys}, 1 AS old, 0 AS new FROM {sides.before} UNION ALL "
        f"SELECT {keys}, 0, 1 FROM {sides.after}"
        f") GROUP BY {keys} HAVING sum(old) > 1 OR sum(new) > 1"
    )


def _insert_repeated_rows(engine: DuckDB, sides: Sides, one: Range) -> None:
    """Rows of repeated keys: equal ones cancel, the rest are paired in the order of their values.

    Each row has a place among the rest of its key and side, which joins like a key.
    """
    names, keys = ", ".join(sides.names), ", ".join(sides.names[: sides.keys])
    engine.run(
        f"CREATE OR REPLACE TEMP TABLE placed AS SELECT *, row_number() OVER "
        f"(PARTITION BY {keys}, step > 0 ORDER BY {names}) AS place FROM "
        f"({_uncancelled(sides, one)})"
    )
    placed = Range("true", "placed WHERE step < 0", "placed WHERE step > 0")
    _insert_joined(engine, sides, placed, "place")
    engine.run("DROP TABLE placed")


def _insert_multiset(engine: DuckDB, sides: Sides, one: Range) -> None:
    columns = ", ".join(
        f"CASE WHEN step < 0 THEN c{n} END, CASE WHEN step > 0 THEN c{n} END"
        for n in range(len(sides.columns))
    )
    engine.run(
        f"INSERT INTO apart SELECT CASE WHEN step < 0 THEN 'removed' ELSE 'added' END, {columns} "
        f"FROM ({_uncancelled(sides, one)})"
    )


def _uncancelled(sides: Sides, one: Range) -> str:
    """SQL of the rows that remain when equal ones of both sides cancel; step -1 is before."""
    names = ", ".join(sides.names)
    before, after = (
        f"SELECT * FROM (SELECT * FROM {side}) WHERE {one.condition}"
        for side in (one.before, one.after)
    )
    return (
        f"SELECT {names}, sign(total) AS step, unnest(range(abs(total)::BIGINT)) AS copy FROM ("
        f"SELECT {names}, sum(step) AS total FROM (SELECT {names}, -1 AS step FROM ({before}) "
        f"UNION ALL SELECT {names}, 1 FROM ({after})) GROUP BY ALL HAVING sum(step) <> 0)"
    )
