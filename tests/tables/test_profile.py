"""Profiles: exact figures against plain Python, merging, and what is kept."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column
from instep.tables import profile_compute as compute
from instep.tables.content import TableContent
from instep.tables.profile import ColumnProfile, Part
from instep.tables.profile_compute import parts_of_relation, profile_relation
from instep.tables.profile_keep import profile_table
from instep.tables.profile_merge import merge_parts
from instep.tables.read import schema_of
from instep.tables.write import append, create_table, data_folder, rename_column, set_columns

AT = datetime(2026, 1, 1, tzinfo=UTC)
NUMBER = Column(1, "x", "double")


def _profile(values: list[float | None]) -> ColumnProfile:
    return _part(values).figures


def _part(values: list[float | None]) -> Part:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE t (x DOUBLE)")
    if values:
        connection.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])
    return parts_of_relation(connection, "t", [NUMBER])[0]


numbers = st.lists(st.integers(-50, 50).map(lambda n: n / 4) | st.none(), max_size=40)


@settings(max_examples=40)
@given(numbers)
def test_a_small_column_is_profiled_exactly(values: list[float | None]) -> None:
    found = _profile(values)
    known = sorted(value for value in values if value is not None)

    assert (found.count, found.nulls) == (len(values), len(values) - len(known))
    assert found.distinct == len(set(known))
    assert dict(found.frequent) == {str(v): n for v, n in Counter(known).items()}
    if not known:
        assert (found.mean, found.minimum, found.quantiles) == (None, None, ())
        return
    assert found.mean == pytest.approx(statistics.fmean(known))
    assert found.deviation == pytest.approx(statistics.pstdev(known), abs=1e-9)
    assert (float(found.minimum or 0), float(found.maximum or 0)) == (known[0], known[-1])
    for percent in (0, 25, 50, 99, 100):
        place = (len(known) - 1) * percent / 100
        low, high = known[math.floor(place)], known[math.ceil(place)]
        assert found.quantiles[percent] == pytest.approx(low + (high - low) * (place % 1))


@settings(max_examples=25)
@given(numbers, numbers, numbers)
def test_merged_parts_that_list_all_values_equal_the_whole(
    one: list[float | None], two: list[float | None], three: list[float | None]
) -> None:
    whole = _profile([*one, *two, *three])
    merged = merge_parts([_part(one), _part(two), _part(three)], NUMBER).figures

    if whole.lists_all and (one or two or three):
        assert merged.exact == whole.exact
    for figure in ("count", "nulls", "minimum", "maximum", "distinct"):
        assert getattr(merged, figure) == getattr(whole, figure)
    assert dict(merged.frequent) == dict(whole.frequent)
    assert merged.quantiles == pytest.approx(whole.quantiles)


def test_merged_quantiles_of_many_values_are_within_their_bound() -> None:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE a AS SELECT range::DOUBLE AS x FROM range(5000)")
    connection.execute("CREATE TABLE b AS SELECT (range * 3)::DOUBLE AS x FROM range(20000)")
    connection.execute("CREATE TABLE w AS SELECT x FROM a UNION ALL SELECT x FROM b")
    parts = [parts_of_relation(connection, name, [NUMBER])[0] for name in ("a", "b")]

    merged = merge_parts(parts, NUMBER).figures
    whole = profile_relation(connection, "w", [NUMBER])[0]

    assert merged.mean == pytest.approx(whole.mean)
    assert merged.deviation == pytest.approx(whole.deviation)
    assert (merged.minimum, merged.maximum) == (whole.minimum, whole.maximum)
    assert merged.exact == {"count", "nulls", "minimum", "maximum", "mean", "deviation"}
    for percent, value in enumerate(merged.quantiles):
        rank = connection.execute("SELECT avg((x <= ?)::INT) FROM w", [value]).fetchone()
        assert rank is not None
        assert rank[0] == pytest.approx(percent / 100, abs=merged.quantile_error + 1e-3)


def test_not_a_number_and_infinity_are_left_out_of_the_figures_of_numbers() -> None:
    found = _profile([1.0, 3.0, math.nan, math.inf, None])

    assert (found.mean, found.minimum, found.maximum) == (2.0, "1.0", "3.0")
    assert (found.count, found.nulls, found.distinct) == (5, 1, 4)
    assert found.quantiles[50] == 2.0


def test_counting_in_sql_and_in_python_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE t AS SELECT (range * 7919 % 1000)::DOUBLE / 8 AS x, "
        "'v' || (range % 70) AS s FROM range(3001)"
    )
    columns = [NUMBER, Column(2, "s", "string")]
    in_python = profile_relation(connection, "t", columns)
    monkeypatch.setattr(compute, "FETCHED_VALUES", 10)
    in_sql = profile_relation(connection, "t", columns)

    for here, there in zip(in_python, in_sql, strict=True):
        assert here.quantiles == pytest.approx(there.quantiles)
        assert here.mean == (None if there.mean is None else pytest.approx(there.mean))
        assert here.deviation == (
            None if there.deviation is None else pytest.approx(there.deviation)
        )
        for figure in ("count", "nulls", "minimum", "maximum", "distinct", "frequent", "exact"):
            assert getattr(here, figure) == getattr(there, figure)


def test_large_columns_of_many_values_say_what_is_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "COUNTED_ROWS", 1000)
    monkeypatch.setattr(compute, "COUNTED_VALUES", 100)
    monkeypatch.setattr(compute, "SAMPLED_ROWS", 20_000)
    sql = (
        "SELECT range::BIGINT AS n, 'k' || range AS s, (range % 5)::INT AS few, "
        "if(range % 4 = 0, NULL, range / 1000)::DOUBLE AS d FROM range(200000)"
    )
    table = _table(tmp_path, sql)

    n, s, few, d = profile_table(tmp_path, table)

    assert few.exact >= {"quantiles", "distinct", "frequent"}
    assert "quantiles" not in n.exact
    assert (n.count, n.minimum, n.maximum) == (200_000, "0", "199999")
    assert n.mean == pytest.approx(99_999.5)
    assert n.deviation == pytest.approx(200_000 / math.sqrt(12), rel=1e-6)
    assert n.quantiles[50] == pytest.approx(100_000, abs=n.quantile_error * 200_000)
    assert d.nulls == 50_000
    assert s.distinct == pytest.approx(200_000, rel=s.distinct_error)
    assert s.minimum == "k0"


def test_a_file_is_read_once_and_its_profile_follows_renames(tmp_path: Path) -> None:
    table = _table(tmp_path, "SELECT 5::BIGINT AS n, 'a' AS s")
    first = profile_table(tmp_path, table)
    for path in data_folder(tmp_path, table).iterdir():
        path.unlink()
    renamed = rename_column(tmp_path, table, "s", "text", at=AT)
    columns = (*schema_of(tmp_path, renamed).columns, Column(0, "new", "date"))
    widened = set_columns(tmp_path, renamed, columns, at=AT)

    assert profile_table(tmp_path, table) == first
    n, text, new = profile_table(tmp_path, widened)
    assert (n.minimum, text.name, text.frequent) == ("5", "text", (("a", 1),))
    assert (new.count, new.nulls) == (1, 1)


def test_an_empty_table_has_empty_profiles(tmp_path: Path) -> None:
    table = create_table(tmp_path, "t", [NUMBER], at=AT)

    (found,) = profile_table(tmp_path, table)

    assert (found.count, found.nulls, found.distinct, found.null_share) == (0, 0, 0, 0.0)


def test_a_profile_survives_being_written_as_json() -> None:
    found = _profile([1.0, 2.5, None])

    assert ColumnProfile.from_json(found.to_json()) == found


def _table(root: Path, sql: str) -> TableContent:
    with DuckDB(root / "staging") as engine:
        table = create_table(root, "t", engine.describe(sql).columns, at=AT)
        files = engine.write(sql, schema_of(root, table), data_folder(root, table))
    return append(root, table, files, at=AT)


@pytest.mark.parametrize("fetched", [4096, 1])
def test_finite_numbers_whose_sum_is_too_large_have_quantiles_but_no_mean(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fetched: int
) -> None:
    monkeypatch.setattr(compute, "FETCHED_VALUES", fetched)
    most = 1.7976931348623157e308
    sql = f"SELECT unnest([{most!r}, {most!r}, -{most!r}, -{most!r}]) AS x"
    with DuckDB(tmp_path / "staging") as engine:
        table = create_table(tmp_path, "t", engine.describe(sql).columns, at=AT)
        schema, folder = schema_of(tmp_path, table), data_folder(tmp_path, table)
        for _ in range(2):
            table = append(tmp_path, table, engine.write(sql, schema, folder), at=AT)

    [found] = profile_table(tmp_path, table)
    assert (found.mean, found.deviation, found.distinct) == (None, None, 2)
    assert found.quantiles[0] == -most and found.quantiles[-1] == most
    assert all(math.isfinite(one) for one in found.quantiles)
    assert all(math.isfinite(one) for one in _profile([-most, most]).quantiles)
