"""Computes profiles: reads rows in DuckDB, and says of each figure how sure it is.

- Up to 1,048,576 rows, and for any column with few different values, a column is counted by value
  (GROUP BY), and everything follows from the counts, exactly.
- Other columns are read once. Rows, nulls, minimum, maximum, mean and deviation are exact. The
  number of values is estimated from the smallest hashes. Quantiles and frequent values come from
  about 131,072 rows, drawn by a hash of the row number: each rank is then within 0.54 points of the
  truth (Dvoretzky-Kiefer-Wolfowitz).

Here is no file and nothing is kept; merging is `profile_merge`.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from instep.engines.schema import Column, free_name, quoted
from instep.tables.profile import (
    DISTINCT_ERROR,
    FIGURES,
    FREQUENT_VALUES,
    GRID,
    KEPT_HASHES,
    SCANNED,
    ColumnProfile,
    Part,
    Sketch,
    is_number,
    known_moments,
)
from instep.tables.profile_counts import Counted, frequent_below, part_of_counts, smallest

if TYPE_CHECKING:
    import duckdb

COUNTED_ROWS = 1 << 20
"""Up to here every column is counted by value: at most some 100 ms for a unique text column."""

SAMPLED_ROWS = 1 << 17
"""The rows looked at for columns with many values: gives the bound in the module's docstring."""

COUNTED_VALUES = 20_000
"""A column with at most this many values in the first sampled rows is counted by value."""

FETCHED_VALUES = 4096
"""Up to here counts are worked on in Python, in a millisecond; SQL needs ten for any number."""

_COUNTED_AT_ONCE = 100
"""How many columns of few rows one statement counts: at most some 400,000 values are fetched."""

HASH_SPACE = 1 << 63
"""Hashes are DuckDB's, halved: every engine's long can hold them."""

_WITHOUT_SIGN = {"-0.0": "0.0", "-nan": "nan"}

_SCANNED_HASHES = "NULL"
"""SQL of a sample's hashes: those of all rows are there."""


def profile_relation(
    connection: duckdb.DuckDBPyConnection, relation: str, columns: Sequence[Column]
) -> tuple[ColumnProfile, ...]:
    """Returns the profile of each of `columns` in a table or view of `connection`.

    Estimates of more than 1,048,576 rows may differ a little from call to call.
    """
    return tuple(part.figures for part in parts_of_relation(connection, relation, columns))


def parts_of_relation(
    connection: duckdb.DuckDBPyConnection, relation: str, columns: Sequence[Column]
) -> tuple[Part, ...]:
    """Returns what `profile_relation` does, ready to be merged."""
    name = quoted(relation)
    rows = _one(connection, f"SELECT count(*) FROM {name}")[0]
    share = SAMPLED_ROWS / max(rows, 1)
    return parts_of_rows(connection, name, f"random() < {share:.12f}", rows, columns)


def parts_of_file(
    connection: duckdb.DuckDBPyConnection,
    source: str,
    row_number: str,
    rows: int,
    columns: Sequence[Column],
) -> tuple[Part, ...]:
    """Returns the profile of each of `columns` in one file; the same each time.

    `source` is SQL that reads the file and gives each row its number.
    """
    if rows <= COUNTED_ROWS:
        names = ", ".join(quoted(column.name) for column in columns)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE _file AS SELECT {names} FROM {source}")
        source = "_file"
    share = min(int(SAMPLED_ROWS / max(rows, 1) * (1 << 32)), 1 << 32)
    picked = f"hash({row_number}) % 4294967296 < {share}"
    return parts_of_rows(connection, source, picked, rows, columns)


def parts_of_rows(
    connection: duckdb.DuckDBPyConnection,
    source: str,
    picked: str,
    rows: int,
    columns: Sequence[Column],
) -> tuple[Part, ...]:
    """Profiles columns; `picked` is SQL that holds for a random share of the rows of `source`."""
    many = _many_valued(connection, source, columns) if rows > COUNTED_ROWS else {}
    found = _counted_at_once(connection, source, columns) if rows <= FETCHED_VALUES else {}
    found |= {
        column.name: _counted(connection, source, column)
        for column in columns
        if column.name not in many and column.name not in found
    }
    if many:
        large = [column for column in columns if column.name in many]
        found |= _estimated(connection, source, picked, rows, large, many)
    return tuple(_with_lasting_texts(found[column.name], column) for column in columns)


def _with_lasting_texts(part: Part, column: Column) -> Part:
    """The same where equal values have equal texts, in every state of the table.

    As values, 0.0 and -0.0 are one, and NaN and -NaN; the text of a nested value has the names of
    its fields.
    """
    figures = part.figures
    if column.is_nested:
        return replace(part, figures=figures.without_values())
    if column.type in ("float", "double"):
        return replace(part, figures=figures.with_texts(lambda text: _WITHOUT_SIGN.get(text, text)))
    return part


def part_of_value(
    connection: duckdb.DuckDBPyConnection, column: Column, value: str, rows: int
) -> Part:
    """Returns the profile of a column that holds one value, given as SQL, in all of `rows` rows."""
    number = "v::DOUBLE" if is_number(column.type) else "NULL"
    found = _one(
        connection,
        f"SELECT v::VARCHAR, {number}, {rows}, {hash_of(column.type, 'v')} "
        f"FROM (SELECT {value}::{column.sql_type} AS v)",
    )
    counted = Counted(*found)
    part = part_of_counts(column, [counted], smallest([counted.hash]))
    return _with_lasting_texts(part, column)


def sample_error(rows: int) -> float:
    """Returns how far a rank among `rows` random rows is from the truth, with 99.9 % probability.

    Dvoretzky-Kiefer-Wolfowitz, with Massart's constant.
    """
    return math.sqrt(math.log(2 / 0.001) / (2 * rows)) if rows else 1.0


def _many_valued(
    connection: duckdb.DuckDBPyConnection, source: str, columns: Sequence[Column]
) -> dict[str, tuple[int, float]]:
    """Returns the columns whose first rows already hold many values: counting would not pay.

    With each: about how many values, and their mean.
    """
    asked = ", ".join(
        f"(approx_count_distinct({quoted(one.name)}), {_plain_mean(one)})" for one in columns
    )
    found = _one(connection, f"SELECT {asked} FROM (FROM {source} LIMIT {SAMPLED_ROWS})")
    return {
        column.name: (distinct, mean if mean is not None and math.isfinite(mean) else 0.0)
        for column, (distinct, mean) in zip(columns, found, strict=True)
        if distinct > COUNTED_VALUES
    }


def _plain_mean(column: Column) -> str:
    name = quoted(column.name)
    if not is_number(column.type):
        return "NULL"
    return f"avg({name}::DOUBLE) FILTER (WHERE true{_finite(column.type, name)})"


def _counted(connection: duckdb.DuckDBPyConnection, source: str, column: Column) -> Part:
    """Profiles one column exactly, from the number of rows of each of its values."""
    value = "v::DOUBLE" if is_number(column.type) else "NULL"
    found = connection.execute(
        f"SELECT v::VARCHAR, {value}, n, if(v IS NULL, NULL, {hash_of(column.type, 'v')}) FROM "
        f"(SELECT {quoted(column.name)} AS v, count(*) AS n FROM {source} GROUP BY ALL) "
        f"ORDER BY v LIMIT {FETCHED_VALUES + 1}"
    ).fetchall()
    if len(found) > FETCHED_VALUES:
        return _counted_in_sql(connection, source, column, _smallest_hashes(column))
    counts = [Counted(*row) for row in found]
    return part_of_counts(column, counts, smallest(one.hash for one in counts))


def _counted_at_once(
    connection: duckdb.DuckDBPyConnection, source: str, columns: Sequence[Column]
) -> dict[str, Part]:
    """Profiles columns of few rows as `_counted` does: many of one type by each statement.

    A statement costs more than the rows do, where a table has thousands of columns.
    """
    found: dict[str, Part] = {}
    for kind in dict.fromkeys(column.type for column in columns if not column.is_nested):
        alike = [column for column in columns if column.type == kind]
        value = "v::DOUBLE" if is_number(kind) else "NULL"
        for start in range(0, len(alike), _COUNTED_AT_ONCE):
            some = alike[start : start + _COUNTED_AT_ONCE]
            values = ", ".join(quoted(column.name) for column in some)
            counts: list[list[Counted]] = [[] for _ in some]
            for place, *row in connection.execute(
                f"SELECT place, v::VARCHAR, {value}, n, if(v IS NULL, NULL, {hash_of(kind, 'v')}) "
                "FROM (SELECT place, v, count(*) AS n FROM (SELECT "
                f"unnest([{values}]) AS v, unnest(range({len(some)})) AS place FROM {source}) "
                "GROUP BY ALL) ORDER BY place, v"
            ).fetchall():
                counts[place].append(Counted(*row))
            for column, counted in zip(some, counts, strict=True):
                hashes = smallest(one.hash for one in counted)
                found[column.name] = part_of_counts(column, counted, hashes)
    return found


def _counted_in_sql(
    connection: duckdb.DuckDBPyConnection, source: str, column: Column, hashes_sql: str
) -> Part:
    name = quoted(column.name)
    number = is_number(column.type)
    moments = "sum(CAST(v AS DOUBLE) * n) / sum(n)" if number else "any_value(NULL)"
    row = _one(
        connection,
        f"""
        WITH g AS MATERIALIZED (SELECT {name} AS v, count(*) AS n FROM {source} GROUP BY ALL),
        k AS MATERIALIZED (SELECT v, n FROM g WHERE v IS NOT NULL{_finite(column.type)}),
        m AS (SELECT {moments} AS mean FROM k)
        SELECT
            (SELECT coalesce(sum(n), 0)::BIGINT FROM g),
            (SELECT coalesce(sum(n), 0)::BIGINT FROM g WHERE v IS NULL),
            (SELECT [min(v)::VARCHAR, max(v)::VARCHAR] FROM k),
            (SELECT count(*) FROM g WHERE v IS NOT NULL),
            (SELECT mean FROM m),
            {_deviation(number)},
            {_ranked(number)},
            (SELECT list([v::VARCHAR, n::VARCHAR] ORDER BY n DESC, v)
             FROM (FROM g WHERE v IS NOT NULL ORDER BY n DESC, v LIMIT {FREQUENT_VALUES + 1})),
            (SELECT coalesce(sum(n), 0)::BIGINT FROM k),
            {hashes_sql}
        """,
    )
    count, nulls, (low, high), distinct, mean, deviation, ranked, frequent, numbers, hashes = row
    mean, deviation = known_moments(mean, deviation)
    quantiles, points = ranked or ((), ())
    listed = tuple((text, int(times)) for text, times in frequent or ())
    figures = ColumnProfile(
        name=column.name,
        type=column.type,
        count=count,
        nulls=nulls,
        minimum=low,
        maximum=high,
        mean=mean,
        deviation=deviation,
        distinct=distinct,
        quantiles=tuple(quantiles or ()),
        frequent=listed[:FREQUENT_VALUES],
        exact=FIGURES,
        frequent_below=frequent_below(listed),
    )
    finite = numbers if number else 0
    return Part(figures, Sketch(array("q", hashes or ()), array("d", points or ()), finite))


def _smallest_hashes(column: Column) -> str:
    return (
        f"(SELECT list(h ORDER BY h) FROM (SELECT DISTINCT {hash_of(column.type, 'v')} AS h "
        f"FROM g WHERE v IS NOT NULL ORDER BY h LIMIT {KEPT_HASHES}))"
    )


def _deviation(number: bool) -> str:
    if not number:
        return "NULL"
    apart = "(CAST(v AS DOUBLE) - m.mean)"
    return f"(SELECT sqrt(sum(n * {apart} * {apart}) / sum(n)) FROM k, m)"


def _ranked(number: bool) -> str:
    """SQL of the 101 quantiles of counted values, as quantile_cont defines them, and the points."""
    if not number:
        return "NULL"
    return f"""(
            WITH c AS (SELECT v::DOUBLE AS v, sum(n) OVER (ORDER BY v) - n AS before FROM k),
            p AS (SELECT i, (SELECT sum(n) - 1 FROM k) * i / 100 AS place FROM range(101) r(i)),
            wanted AS (
              SELECT 'low' AS what, i, floor(place) AS at, place - floor(place) AS rest FROM p
              UNION ALL SELECT 'high', i, ceil(place), 0 FROM p
              UNION ALL SELECT 'step', i,
                greatest(((SELECT sum(n) FROM k) * i + {GRID - 1}) // {GRID} - 1, 0), 0
              FROM range({GRID + 1}) r(i)),
            found AS MATERIALIZED (
              SELECT what, i, rest, v FROM wanted ASOF JOIN c ON wanted.at >= c.before),
            low AS (FROM found WHERE what = 'low'), high AS (FROM found WHERE what = 'high')
            SELECT [
              (SELECT list(if(isfinite(high.v - low.v), low.v + (high.v - low.v) * low.rest,
                              low.v * (1 - low.rest) + high.v * low.rest) ORDER BY low.i)
               FROM low JOIN high ON low.i = high.i),
              (SELECT list(v ORDER BY i) FROM found WHERE what = 'step')])"""


def _estimated(
    connection: duckdb.DuckDBPyConnection,
    source: str,
    picked: str,
    rows: int,
    columns: Sequence[Column],
    about: dict[str, tuple[int, float]],
) -> dict[str, Part]:
    """Profiles columns of many values in one reading: exact figures, hashes, and a sample."""
    names = ", ".join(quoted(column.name) for column in columns)
    is_picked = quoted(free_name("picked", (column.name for column in columns)))
    asked = ", ".join(
        f"{_scan_of(column, *about[column.name])} AS f{place}, "
        f"list({quoted(column.name)}) FILTER (WHERE {is_picked}) AS s{place}"
        for place, column in enumerate(columns)
    )
    sampled = ", ".join(
        f"unnest(s{place}) AS {quoted(column.name)}" for place, column in enumerate(columns)
    )
    figures = ", ".join(f"f{place}" for place, _ in enumerate(columns))
    run = connection.execute
    try:
        run(
            f"CREATE OR REPLACE TEMP TABLE _scan AS SELECT {asked} "
            f"FROM (SELECT {names}, {picked} AS {is_picked} FROM {source})"
        )
        run(f"CREATE OR REPLACE TEMP TABLE _sample AS SELECT {sampled} FROM _scan")
        found = _one(connection, f"SELECT {figures} FROM _scan")
        return {
            column.name: _scaled(
                _counted_in_sql(connection, "_sample", column, _SCANNED_HASHES),
                rows,
                about[column.name][1],
                scanned,
            )
            for column, scanned in zip(columns, found, strict=True)
        }
    finally:
        run("DROP TABLE IF EXISTS _sample")
        run("DROP TABLE IF EXISTS _scan")


def _scan_of(column: Column, values: int, near: float) -> str:
    """SQL of one column's exact figures; squares are summed around `near`, close to the mean.

    Of about `values` or more values, so many hashes pass that those to be kept are among them.
    """
    name = quoted(column.name)
    # A filter costs more than what it filters: only floats can be infinite or no number.
    only = f"FILTER (isfinite({name}))" if column.type in ("float", "double") else ""
    ends = f"min({name}) {only}::VARCHAR, max({name}) {only}::VARCHAR"
    if column.is_nested:
        ends = "NULL, NULL"
    moments = "NULL, NULL, NULL"
    if is_number(column.type):
        apart = f"({name}::DOUBLE - {near!r})"
        moments = f"count({name}) {only}, sum({apart}) {only}, sum({apart} * {apart}) {only}"
    limit = min(HASH_SPACE * 4 * KEPT_HASHES // values, HASH_SPACE - 1)
    is_low = f"{first_of_hash(column.type, name)} <= {limit >> 32} AND {name} IS NOT NULL"
    low = f"CASE WHEN {is_low} THEN {hash_of(column.type, name)} END"  # else hashed twice for all
    passed = f"list({low}) FILTER ({is_low})"
    return (
        f"row(count({name}), {ends}, {moments}, list_sort(list_distinct({passed}))[:{KEPT_HASHES}])"
    )


def _scaled(sampled: Part, rows: int, near: float, scanned: tuple[Any, ...]) -> Part:
    values, minimum, maximum, finite, total, squares, hashes = scanned
    mean = deviation = None
    if finite:
        shift = total / finite
        mean, deviation = known_moments(
            near + shift, math.sqrt(max(squares / finite - shift * shift, 0.0))
        )
    looked = sampled.figures
    weight = rows / max(looked.count, 1)
    # A value's share is the difference of two ranks.
    off = math.ceil(2 * sample_error(looked.count) * rows)
    listed = tuple((text, round(times * weight)) for text, times in looked.frequent if times > 1)
    beyond = looked.frequent_below if len(listed) == len(looked.frequent) else 1
    distinct, error = estimated_distinct(hashes or (), looked.distinct, values)
    figures = replace(
        looked,
        count=rows,
        nulls=rows - values,
        minimum=minimum,
        maximum=maximum,
        mean=mean,
        deviation=deviation,
        distinct=distinct,
        frequent=listed,
        exact=SCANNED if error else SCANNED | {"distinct"},
        distinct_error=error,
        quantile_error=sample_error(sampled.sketch.numbers) if finite else 0.0,
        frequent_error=off,
        frequent_below=round(beyond * weight) + off,
    )
    return Part(figures, Sketch(array("q", hashes or ()), sampled.sketch.points, finite or 0))


def estimated_distinct(hashes: Sequence[int], least: int, most: int) -> tuple[int, float]:
    """Returns how many values have these smallest hashes, and the error; 0 when all are there."""
    if len(hashes) < KEPT_HASHES:
        return len(hashes), 0.0
    estimate = round((KEPT_HASHES - 1) * HASH_SPACE / max(hashes[-1], 1))
    return min(max(estimate, least, KEPT_HASHES), most), DISTINCT_ERROR


def hash_of(kind: str, value: str) -> str:
    """SQL of a value's hash: the same for a number whatever the width of its type.

    DuckDB's hash is another for each value of up to eight bytes. Of longer ones it is not: texts
    that differ in every eighth letter only, the decimals 0 and -0.01, and an empty list and a null
    within a list share theirs. So those are hashed as bytes, twice, and once behind four others:
    the first hash orders them, as `first_of_hash` does, the second tells them apart.
    """
    first, second = _hashes(kind, value)
    if not second:
        return f"({first} >> 1)::BIGINT"
    return f"((({first} >> 33) << 32) | ({second} >> 32))::BIGINT"


def first_of_hash(kind: str, value: str) -> str:
    """SQL of the bits of `hash_of` from the 33rd on, which take less time."""
    return f"({_hashes(kind, value)[0]} >> 33)::BIGINT"


def _hashes(kind: str, value: str) -> tuple[str, str]:
    """The bytes that sort a nested value hold no names of fields, but the width of each number."""
    match kind:
        case "int":
            return f"hash({value}::BIGINT)", ""
        case "float":
            return f"hash({value}::DOUBLE)", ""
        case "string":
            return f"hash({value})", f"hash('four' || {value})"
        case "struct" | "list" | "map":
            sorting = f"create_sort_key({value}, 'ASC NULLS LAST')"
            return f"hash({sorting})", f"hash('four'::BLOB || {sorting})"
        case _ if kind == "uuid" or kind.startswith("decimal"):
            return f"hash({value}::VARCHAR)", f"hash('four' || {value}::VARCHAR)"
        case _ if kind == "binary" or kind.startswith("fixed"):
            return f"hash({value})", f"hash('four'::BLOB || {value})"
        case _:
            return f"hash({value})", ""


def _finite(kind: str, name: str = "v") -> str:
    return f" AND isfinite({name})" if kind in ("float", "double") else ""


def _one(connection: duckdb.DuckDBPyConnection, text: str) -> tuple[Any, ...]:
    row = connection.execute(text).fetchone()
    assert row is not None, "an aggregate gives one row"
    return tuple(row)
