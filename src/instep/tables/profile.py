"""Profiles of columns: what a batch, a file or a table looks like, without its rows.

Data files never change, so a file is profiled once and the profile kept beside it
(`profiles/<digest of the file>.json`, by field id); the profile of a table is merged from those of
its files. Each figure says whether it is exact (`ColumnProfile.exact`).

How, and how sure:
- Up to 1,048,576 rows, and for any column with few distinct values, a column is counted by value
  (GROUP BY), and everything follows from the counts, exactly.
- Of other columns, rows, nulls, minimum, maximum, mean and deviation are exact; distinct is
  DuckDB's HyperLogLog (about 5 % standard error, seldom beyond 20 %); quantiles and frequent values
  come from about 131,072 rows, spread evenly over the file. Were these drawn at random, each
  quantile's rank would be within 0.6 points of the truth with 99.9 % probability
  (Dvoretzky-Kiefer-Wolfowitz).
- Merged: rows, nulls, minimum, maximum, mean and deviation are exact when their parts are. Merged
  quantiles mix the parts' distributions, known at 101 points: a rank is within 1 point of what the
  parts say. All figures are exact when each part lists all of its values.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instep.canonical import Json
from instep.engines.engine import FileSet
from instep.engines.schema import Column, Schema, quoted
from instep.errors import InternalError
from instep.history.objects import write_durably
from instep.tables.content import TableContent
from instep.tables.read import DataFile, data_files, schema_of, table_folder

if TYPE_CHECKING:
    import duckdb

FREQUENT_VALUES = 50
"""How many frequent values a profile lists."""

QUANTILE_POINTS = 101
"""Quantiles are given at 0, 1, ... 100 %."""

_COUNTED_ROWS = 1 << 20
"""Up to here every column is counted by value: at most some 100 ms for a unique text column."""

_SAMPLED_ROWS = 1 << 17
"""The rows looked at for columns with many values: gives the bound in the module's docstring."""

_COUNTED_VALUES = 20_000
"""A column with at most this many values in the first sampled rows is counted by value."""

_FETCHED_VALUES = 4096
"""Up to here counts are worked on in Python, in a millisecond; SQL needs ten for any number."""

_FIGURES = frozenset(
    {"count", "nulls", "minimum", "maximum", "mean", "deviation", "distinct", "quantiles",
     "frequent"}
)  # fmt: skip
_SCANNED = frozenset({"count", "nulls", "minimum", "maximum", "mean", "deviation"})


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """What one column holds.

    `count` counts rows, nulls among them. `minimum`, `maximum` and frequent values are DuckDB's
    text of the value (instants in UTC). `mean`, `deviation` (of the population) and `quantiles` are
    of the finite values of a number column, and absent elsewhere. `frequent` has the most frequent
    values first, nulls left out. `exact` names the figures that are no estimates.
    """

    name: str
    type: str
    count: int
    nulls: int
    minimum: str | None
    maximum: str | None
    mean: float | None
    deviation: float | None
    distinct: int
    quantiles: tuple[float, ...]
    frequent: tuple[tuple[str, int], ...]
    exact: frozenset[str]

    @property
    def null_share(self) -> float:
        """The share of rows that are null, from 0 to 1; 0 when there are no rows."""
        return self.nulls / self.count if self.count else 0.0

    @property
    def lists_all(self) -> bool:
        """Whether `frequent` holds every value there is."""
        return {"distinct", "frequent"} <= self.exact and len(self.frequent) == self.distinct

    def to_json(self) -> dict[str, Json]:
        return {
            "name": self.name,
            "type": self.type,
            "count": self.count,
            "nulls": self.nulls,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "mean": self.mean,
            "deviation": self.deviation,
            "distinct": self.distinct,
            "quantiles": list(self.quantiles),
            "frequent": [[value, count] for value, count in self.frequent],
            "exact": sorted(self.exact),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ColumnProfile:  # what to_json made
        return cls(
            name=value["name"],
            type=value["type"],
            count=value["count"],
            nulls=value["nulls"],
            minimum=value["minimum"],
            maximum=value["maximum"],
            mean=value["mean"],
            deviation=value["deviation"],
            distinct=value["distinct"],
            quantiles=tuple(value["quantiles"]),
            frequent=tuple((text, count) for text, count in value["frequent"]),
            exact=frozenset(value["exact"]),
        )


def profile_table(root: Path, content: TableContent) -> tuple[ColumnProfile, ...]:
    """Returns the profile of each column of a table; reads only files never profiled before."""
    return profile_files(root, content, data_files(root, content))


def profile_files(
    root: Path, content: TableContent, files: Sequence[DataFile]
) -> tuple[ColumnProfile, ...]:
    """Returns the merged profile of some of a table's files, in the order of its columns.

    A file that was never profiled is read, and its profile kept.
    """
    schema = schema_of(root, content)
    folder = table_folder(root, content) / "profiles"
    missing = [file for file in files if _kept(_place(folder, file)) is None]
    if missing:
        _profile_missing(root, folder, schema, missing)
    parts = [_load(_place(folder, file), file, schema) for file in files]
    return tuple(
        merge_profiles([part[index] for part in parts], column)
        for index, column in enumerate(schema.columns)
    )


def profile_relation(
    connection: duckdb.DuckDBPyConnection, relation: str, columns: Sequence[Column]
) -> tuple[ColumnProfile, ...]:
    """Returns the profile of each of `columns` in a table or view of `connection`.

    Estimates of more than 1,048,576 rows may differ a little from call to call.
    """
    name = quoted(relation)
    rows = _one(connection, f"SELECT count(*) FROM {name}")[0]
    share = 100 * _SAMPLED_ROWS / max(rows, 1)
    sample = f"SELECT * FROM {name} USING SAMPLE {share:.9f}% (bernoulli, 42)"
    return _profile(connection, name, sample, rows, columns)


def profile_of_counts(
    column: Column, counts: Sequence[tuple[str | None, float | None, int]]
) -> ColumnProfile:
    """Returns the exact profile of a column from its counts: (text, number, rows), sorted by value.

    The number is None in columns that hold none; the text is None in the entry of nulls.
    """
    known = [(text, number, rows) for text, number, rows in counts if text is not None]
    number_column = _is_number(column.type)
    inside = [
        (text, number, rows)
        for text, number, rows in known
        if not number_column or (number is not None and math.isfinite(number))
    ]
    numbers = [(number, rows) for _, number, rows in inside if number is not None]
    mean, deviation = _moments_of(numbers)
    count = sum(rows for _, _, rows in counts)
    frequent = sorted(((text, rows) for text, _, rows in known), key=lambda one: -one[1])
    return ColumnProfile(
        name=column.name,
        type=column.type,
        count=count,
        nulls=count - sum(rows for _, _, rows in known),
        minimum=inside[0][0] if inside else None,
        maximum=inside[-1][0] if inside else None,
        mean=mean,
        deviation=deviation,
        distinct=len(known),
        quantiles=_quantiles_of(numbers),
        frequent=tuple(frequent[:FREQUENT_VALUES]),
        exact=_FIGURES,
    )


def _moments_of(numbers: Sequence[tuple[float, int]]) -> tuple[float | None, float | None]:
    total = sum(rows for _, rows in numbers)
    if not total:
        return None, None
    mean = math.fsum(number * rows for number, rows in numbers) / total
    squares = math.fsum(rows * (number - mean) ** 2 for number, rows in numbers)
    return mean, math.sqrt(squares / total)


def _quantiles_of(numbers: Sequence[tuple[float, int]]) -> tuple[float, ...]:
    """The 101 quantiles of counted numbers, sorted; interpolated as quantile_cont does."""
    if not numbers:
        return ()
    ends = list(accumulate(rows for _, rows in numbers))
    found = []
    for percent in range(QUANTILE_POINTS):
        whole, rest = divmod((ends[-1] - 1) * percent, QUANTILE_POINTS - 1)
        low = numbers[bisect_right(ends, whole)][0]
        high = numbers[bisect_right(ends, whole + 1)][0] if rest else low
        found.append(low + (high - low) * rest / (QUANTILE_POINTS - 1))
    return tuple(found)


def merge_profiles(parts: Sequence[ColumnProfile], column: Column) -> ColumnProfile:
    """Returns the profile of all rows that `parts` describe; `column` names it, and types it."""
    full = [part for part in parts if part.count]
    if not full:
        return _all_null(column, 0)
    if len(full) == 1:
        return replace(full[0], name=column.name, type=column.type)
    if all(part.lists_all for part in full):
        return profile_of_counts(column, _merged_counts(column, full))
    values = [part for part in full if part.nulls < part.count]
    exact = frozenset.intersection(*(part.exact for part in full))
    frequent = _merged_frequent(values)
    mean, deviation = _merged_moments(values)
    return ColumnProfile(
        name=column.name,
        type=column.type,
        count=sum(part.count for part in full),
        nulls=sum(part.nulls for part in full),
        minimum=_extreme(column.type, (part.minimum for part in values), largest=False),
        maximum=_extreme(column.type, (part.maximum for part in values), largest=True),
        mean=mean,
        deviation=deviation,
        distinct=_merged_distinct(values, len(frequent)),
        quantiles=_merged_quantiles(values),
        frequent=frequent[:FREQUENT_VALUES],
        exact=exact - {"distinct", "quantiles", "frequent"},
    )


def _profile(
    connection: duckdb.DuckDBPyConnection,
    source: str,
    sample: str,
    rows: int,
    columns: Sequence[Column],
) -> tuple[ColumnProfile, ...]:
    many = _many_valued(connection, source, columns) if rows > _COUNTED_ROWS else frozenset()
    found = {
        column.name: _counted(connection, source, column)
        for column in columns
        if column.name not in many
    }
    large = [column for column in columns if column.name in many]
    if large:
        found |= _estimated(connection, source, sample, rows, large)
    return tuple(found[column.name] for column in columns)


def _many_valued(
    connection: duckdb.DuckDBPyConnection, source: str, columns: Sequence[Column]
) -> frozenset[str]:
    """Returns the columns whose first rows already hold many values: counting would not pay."""
    counts = ", ".join(f"count(DISTINCT {quoted(column.name)})" for column in columns)
    found = _one(connection, f"SELECT {counts} FROM (FROM {source} LIMIT {_SAMPLED_ROWS})")
    return frozenset(
        column.name
        for column, distinct in zip(columns, found, strict=True)
        if distinct > _COUNTED_VALUES
    )


def _counted(connection: duckdb.DuckDBPyConnection, source: str, column: Column) -> ColumnProfile:
    """Profiles one column exactly, from the number of rows of each of its values."""
    value = "v::DOUBLE" if _is_number(column.type) else "NULL"
    counts = connection.execute(
        f"SELECT v::VARCHAR, {value}, n FROM "
        f"(SELECT {quoted(column.name)} AS v, count(*) AS n FROM {source} GROUP BY ALL) "
        f"ORDER BY v LIMIT {_FETCHED_VALUES + 1}"
    ).fetchall()
    if len(counts) <= _FETCHED_VALUES:
        return profile_of_counts(column, counts)
    return _counted_in_sql(connection, source, column)


def _counted_in_sql(
    connection: duckdb.DuckDBPyConnection, source: str, column: Column
) -> ColumnProfile:
    name = quoted(column.name)
    number = _is_number(column.type)
    value = "CAST(v AS DOUBLE)"
    moments = f"sum({value} * n) / sum(n)" if number else "any_value(NULL)"
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
            {_quantiles(number)},
            (SELECT list([v::VARCHAR, n::VARCHAR] ORDER BY n DESC, v)
             FROM (FROM g WHERE v IS NOT NULL ORDER BY n DESC, v LIMIT {FREQUENT_VALUES}))
        """,
    )
    count, nulls, (minimum, maximum), distinct, mean, deviation, quantiles, frequent = row
    return ColumnProfile(
        name=column.name,
        type=column.type,
        count=count,
        nulls=nulls,
        minimum=minimum,
        maximum=maximum,
        mean=mean,
        deviation=deviation,
        distinct=distinct,
        quantiles=tuple(quantiles or ()),
        frequent=tuple((text, int(times)) for text, times in frequent or ()),
        exact=_FIGURES,
    )


def _deviation(number: bool) -> str:
    if not number:
        return "NULL"
    apart = "(CAST(v AS DOUBLE) - m.mean)"
    return f"(SELECT sqrt(sum(n * {apart} * {apart}) / sum(n)) FROM k, m)"


def _quantiles(number: bool) -> str:
    """SQL of the 101 quantiles of counted values, as quantile_cont defines them."""
    if not number:
        return "NULL"
    return """(
            WITH c AS (SELECT v::DOUBLE AS v, sum(n) OVER (ORDER BY v) - n AS before FROM k),
            p AS (SELECT i, (SELECT sum(n) - 1 FROM k) * i / 100 AS place FROM range(101) r(i)),
            low AS (SELECT i, place, v FROM p ASOF JOIN c ON floor(place) >= before),
            high AS (SELECT i, v FROM p ASOF JOIN c ON ceil(place) >= before)
            SELECT list(low.v + (high.v - low.v) * (place - floor(place)) ORDER BY low.i)
            FROM low JOIN high ON low.i = high.i)"""


def _estimated(
    connection: duckdb.DuckDBPyConnection,
    source: str,
    sample: str,
    rows: int,
    columns: Sequence[Column],
) -> dict[str, ColumnProfile]:
    """Profiles columns of many values: one scan for the exact figures, a sample for the rest."""
    names = ", ".join(quoted(column.name) for column in columns)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE _sample AS SELECT {names} FROM ({sample})")
    try:
        sampled = {column.name: _counted(connection, "_sample", column) for column in columns}
    finally:
        connection.execute("DROP TABLE _sample")
    asked = ", ".join(_scan_of(column, sampled[column.name].mean) for column in columns)
    found = _one(connection, f"SELECT {asked} FROM {source}")
    return {
        column.name: _scaled(sampled[column.name], rows, figures)
        for column, figures in zip(columns, found, strict=True)
    }


def _scan_of(column: Column, near: float | None) -> str:
    """SQL of one column's exact figures; squares are summed around `near`, close to the mean."""
    name = quoted(column.name)
    only = f"FILTER (WHERE {name} IS NOT NULL{_finite(column.type, name)})"
    moments = "NULL, NULL, NULL"
    if _is_number(column.type):
        apart = f"({name}::DOUBLE - {near or 0.0!r})"
        moments = f"count(*) {only}, sum({apart}) {only}, sum({apart} * {apart}) {only}"
    return (
        f"(count({name}), min({name}) {only}::VARCHAR, max({name}) {only}::VARCHAR, "
        f"approx_count_distinct({name}), {moments})"
    )


def _scaled(sampled: ColumnProfile, rows: int, figures: tuple[Any, ...]) -> ColumnProfile:
    values, minimum, maximum, distinct, finite, total, squares = figures
    mean = deviation = None
    if finite:
        shift = total / finite
        mean = (sampled.mean or 0.0) + shift
        deviation = math.sqrt(max(squares / finite - shift * shift, 0.0))
    weight = rows / max(sampled.count, 1)
    return replace(
        sampled,
        count=rows,
        nulls=rows - values,
        minimum=minimum,
        maximum=maximum,
        mean=mean,
        deviation=deviation,
        distinct=min(max(distinct, sampled.distinct), values),
        frequent=tuple(
            (text, round(times * weight)) for text, times in sampled.frequent if times > 1
        ),
        exact=_SCANNED,
    )


def _profile_missing(root: Path, folder: Path, schema: Schema, files: Sequence[DataFile]) -> None:
    from instep.engines.duckdb import DuckDB
    from instep.engines.scan import scan_with_row_numbers

    with DuckDB(root / "staging") as engine:
        for file in files:
            engine.allow(Path(file.path))
        engine.lock()
        for file in files:
            held = {one.field_id for one in file.columns}
            columns = tuple(column for column in schema.columns if column.id in held)
            source, number = scan_with_row_numbers(FileSet("f", (file.path,), Schema(columns)))
            # Multiplying by an odd number near 2^32 / golden ratio spreads rows evenly, and
            # the same rows are taken each time.
            share = int(_SAMPLED_ROWS / max(file.rows, 1) * (1 << 32))
            sample = f"SELECT * FROM {source} WHERE ({number} * 2654435769) % 4294967296 < {share}"
            if file.rows <= _COUNTED_ROWS:
                engine.connection.execute(f"CREATE OR REPLACE TEMP TABLE _file AS FROM {source}")
                source = "_file"
            found = _profile(engine.connection, source, sample, file.rows, columns)
            kept = {
                str(column.id): profile.to_json()
                for column, profile in zip(columns, found, strict=True)
            }
            text = json.dumps(kept).encode()
            digest = hashlib.sha256(text).hexdigest().encode()
            write_durably(_place(folder, file), digest + b"\n" + text)


def _place(folder: Path, file: DataFile) -> Path:
    return folder / f"{file.digest}.json"


def damaged_profiles(folder: Path) -> Iterator[Path]:
    """Yields the kept profiles whose bytes are not those that were written; each can go."""
    for path in sorted(folder.glob("*.json")):
        if _kept(path) is None and path.exists():
            yield path


def _kept(path: Path) -> dict[str, Any] | None:  # what _profile_missing wrote
    """Returns a kept profile; None where there is none, or not as it was written."""
    try:
        digest, _, text = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    if hashlib.sha256(text).hexdigest().encode() != digest:
        return None
    kept: dict[str, Any] = json.loads(text)
    return kept


def _load(path: Path, file: DataFile, schema: Schema) -> tuple[ColumnProfile, ...]:
    kept = _kept(path)
    if kept is None:
        raise InternalError(
            f"Profile {path} is not there or has other bytes than were just written: expected it "
            "as it was. See whether the disk is sound.",
            kind="damaged-object",
        )
    return tuple(
        replace(ColumnProfile.from_json(kept[str(column.id)]), name=column.name, type=column.type)
        if str(column.id) in kept
        else _all_null(column, file.rows)
        for column in schema.columns
    )


def _all_null(column: Column, rows: int) -> ColumnProfile:
    return ColumnProfile(
        column.name, column.type, rows, rows, None, None, None, None, 0, (), (), _FIGURES
    )


def _merged_counts(
    column: Column, parts: Sequence[ColumnProfile]
) -> list[tuple[str | None, float | None, int]]:
    number = _is_number(column.type)
    counts = [
        (text, float(text) if number else None, rows) for text, rows in _merged_frequent(parts)
    ]
    counts.sort(key=lambda one: (one[1] is not None and math.isnan(one[1]), one[1] or 0.0, one[0]))
    return [*counts, (None, None, sum(part.nulls for part in parts))]


def _merged_frequent(parts: Sequence[ColumnProfile]) -> tuple[tuple[str, int], ...]:
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(dict(part.frequent))
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _merged_moments(parts: Sequence[ColumnProfile]) -> tuple[float | None, float | None]:
    """Mean and deviation of all rows, from those of the parts (Chan, Golub and LeVeque)."""
    known = [
        (part.count - part.nulls, part.mean, part.deviation)
        for part in parts
        if part.mean is not None and part.deviation is not None
    ]
    total = sum(count for count, _, _ in known)
    if not total:
        return None, None
    mean = math.fsum(count * mean for count, mean, _ in known) / total
    squares = math.fsum(
        count * (deviation**2 + (part_mean - mean) ** 2) for count, part_mean, deviation in known
    )
    return mean, math.sqrt(squares / total)


def _merged_distinct(parts: Sequence[ColumnProfile], listed: int) -> int:
    """An estimate: parts of separate ranges add up, others are taken to share their values."""
    most = max((part.distinct for part in parts), default=0)
    ranges = sorted((part.quantiles[0], part.quantiles[-1]) for part in parts if part.quantiles)
    apart = len(ranges) == len(parts) and all(
        before[1] < after[0] for before, after in pairwise(ranges)
    )
    return sum(part.distinct for part in parts) if apart else max(most, listed)


def _merged_quantiles(parts: Sequence[ColumnProfile]) -> tuple[float, ...]:
    """Quantiles of the mixture of the parts' distributions, each piecewise linear.

    The mixture's inverse is read off at the parts' own points: sorted, each with the weight of
    the step that ends in it.
    """
    weighted = [part for part in parts if part.quantiles]
    if not weighted:
        return ()
    points: list[tuple[float, float]] = []
    for part in weighted:
        step = (part.count - part.nulls) / (QUANTILE_POINTS - 1)
        points += [(value, step) for value in part.quantiles[1:]]
    points.sort()
    total = math.fsum(weight for _, weight in points)
    merged = [min(part.quantiles[0] for part in weighted)]
    reached, index = 0.0, 0
    for percent in range(1, QUANTILE_POINTS):
        wanted = total * percent / (QUANTILE_POINTS - 1) * (1 - 1e-12)
        while index < len(points) - 1 and reached + points[index][1] < wanted:
            reached += points[index][1]
            index += 1
        merged.append(points[index][0])
    merged[-1] = max(part.quantiles[-1] for part in weighted)
    return tuple(merged)


def _extreme(kind: str, texts: Iterable[str | None], *, largest: bool) -> str | None:
    """The smallest or largest of values written as text; numbers compare as numbers."""
    from decimal import Decimal

    known = [text for text in texts if text is not None]
    if not known:
        return None
    if _is_number(kind):
        return max(known, key=Decimal) if largest else min(known, key=Decimal)
    return max(known) if largest else min(known)


def _is_number(kind: str) -> bool:
    return kind in ("int", "long", "float", "double") or kind.startswith("decimal")


def _finite(kind: str, name: str = "v") -> str:
    return f" AND isfinite({name})" if kind in ("float", "double") else ""


def _one(connection: duckdb.DuckDBPyConnection, text: str) -> tuple[Any, ...]:
    row = connection.execute(text).fetchone()
    assert row is not None, "an aggregate gives one row"
    return tuple(row)
