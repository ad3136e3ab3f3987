"""Partitioned and sorted tables: Iceberg's own transforms, value for value, and who prunes."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from bare import bare_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.expressions import EqualTo, Reference

from instep.clock import Window
from instep.engines.duckdb import DuckDB
from instep.engines.engine import Slice, WrittenFile
from instep.engines.layout import transformed
from instep.engines.schema import Column
from instep.errors import InvalidError
from instep.tables.content import TableContent
from instep.tables.partition import Order, Part
from instep.tables.read import data_files, file_set, layout_of, row_count, schema_of
from instep.tables.write import append, create_table, data_folder, set_layout

AT = datetime(2026, 1, 1, tzinfo=UTC)

TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1))
VALUES: dict[str, Any] = {  # strategies of different types
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "date": st.dates(date(1900, 1, 1), date(2100, 1, 1)),
    "time": st.times(),
    "timestamp": TIMES,
    "timestamptz": TIMES.map(lambda one: one.replace(tzinfo=UTC)),
    "string": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    "uuid": st.uuids(),
    "binary": st.binary(max_size=20),
    "decimal(9,2)": st.decimals(-9999999, 9999999, places=2),
    "decimal(38,10)": st.integers(-(10**38) + 1, 10**38 - 1).map(
        lambda one: Decimal(one).scaleb(-10, __import__("decimal").Context(prec=60))
    ),
}
TIME_TRANSFORMS = ("year", "month", "day")
CASES = [
    *((kind, "bucket[16]") for kind in VALUES),
    *((kind, "truncate[7]") for kind in ("int", "string", "binary", "decimal(9,2)")),
    *((kind, one) for kind in ("date", "timestamp", "timestamptz") for one in TIME_TRANSFORMS),
    ("timestamp", "hour"),
    ("timestamptz", "hour"),
]


@pytest.fixture(scope="module")
def session() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


@pytest.mark.parametrize(("kind", "transform"), CASES)
@settings(max_examples=5, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_transforms_give_the_values_that_pyiceberg_gives(
    session: duckdb.DuckDBPyConnection, kind: str, transform: str, data: st.DataObject
) -> None:
    values = data.draw(st.lists(VALUES[kind], min_size=1, max_size=20))
    column = Column(1, "c", kind)
    rows = ", ".join([f"(?::{column.sql_type})"] * len(values))
    # In many a statement the plan takes longer than its rows do.
    sql = f"SELECT {transformed(transform, column)} FROM (VALUES {rows}) AS many(c)"
    found = [_value(kind, transform, text) for (text,) in session.execute(sql, values).fetchall()]

    assert found == [_expected(kind, transform, value) for value in values]


def _expected(kind: str, transform: str, value: Any) -> Any:  # values of any type
    from pyiceberg.schema import Schema
    from pyiceberg.transforms import parse_transform
    from pyiceberg.types import NestedField
    from pyiceberg.utils.datetime import (
        date_to_days,
        datetime_to_micros,
        time_to_micros,
    )

    field = NestedField(1, "c", kind, required=False)
    source = Schema(field).find_field(1).field_type
    match value:
        case datetime():
            value = datetime_to_micros(value)
        case date():
            value = date_to_days(value)
        case time():
            value = time_to_micros(value)
        case uuid.UUID() if transform.startswith("bucket"):
            value = value.bytes
    return parse_transform(transform).transform(source)(value)


def _value(kind: str, transform: str, text: str) -> Any:  # as above
    if transform.startswith("truncate"):
        match kind:
            case "string":
                return text
            case "binary":
                return bytes.fromhex(text)
            case "int":
                return int(text)
            case _:
                return Decimal(int(text)).scaleb(-2)
    return int(text)


EVERY = """
    SELECT b, i, l, da, ts, tz, s, u, de, f FROM (VALUES
    (true, 1::INTEGER, -5::BIGINT, DATE '2020-02-29', TIMESTAMP '1969-12-31 23:30:00.5',
        TIMESTAMPTZ '2021-03-04 23:30:00+00', 'é/=%', uuid_one(), 1.25::DECIMAL(9,2),
        1.5::DOUBLE),
    (false, -8, 5, DATE '1969-01-01', TIMESTAMP '2020-01-01', TIMESTAMPTZ '2021-03-05 01:00:00+00',
        '', uuid_two(), -0.05, 'inf'),
    (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)
    ) v(b, i, l, da, ts, tz, s, u, de, f)
""".replace("uuid_one()", "'00000000-0000-4000-8000-000000000001'::UUID").replace(
    "uuid_two()", "'ffffffff-ffff-4fff-8fff-ffffffffffff'::UUID"
)
"""A row of nulls, and values that are hard to write into the name of a folder."""


def _written(root: Path, table: TableContent, sql: str) -> tuple[WrittenFile, ...]:
    with DuckDB(root / "staging") as engine:
        return engine.write(
            sql, schema_of(root, table), data_folder(root, table), layout=layout_of(root, table)
        )


def _arrow(root: Path, table: TableContent, **scan: Any) -> Any:  # an Arrow table

    return bare_table(root, table.metadata).scan(**scan).to_arrow()


def _planned(root: Path, table: TableContent, condition: str) -> int:

    static = bare_table(root, table.metadata)
    return len(list(static.scan(row_filter=condition).plan_files()))


@pytest.mark.parametrize(
    ("column", "transform", "condition"),
    [
        ("b", "identity", "b == true"),
        ("i", "identity", "i == -8"),
        ("i", "bucket[8]", "i == -8"),
        ("i", "truncate[3]", "i == -8"),
        ("l", "identity", "l == -5"),
        ("da", "identity", "da == '2020-02-29'"),
        ("da", "year", "da == '2020-02-29'"),
        ("da", "month", "da == '1969-01-01'"),
        ("ts", "identity", "ts < '1970-01-01T00:00:00'"),
        ("ts", "hour", "ts < '1970-01-01T00:00:00'"),
        ("tz", "identity", "tz < '2021-03-05T00:00:00+00:00'"),
        ("tz", "day", "tz < '2021-03-05T00:00:00+00:00'"),
        ("s", "identity", "s == 'é/=%'"),
        ("s", "truncate[2]", "s == 'é/=%'"),
        ("s", "bucket[64]", "s == 'é/=%'"),
        ("de", "identity", "de < 0"),
        ("de", "truncate[10]", "de < 0"),
        ("f", "identity", "f < 2"),
    ],
)
def test_bare_pyiceberg_reads_a_partitioned_table_and_prunes_by_its_partitions(
    tmp_path: Path, column: str, transform: str, condition: str
) -> None:
    with DuckDB(tmp_path / "staging") as engine:
        columns = engine.describe(EVERY).columns
    table = create_table(tmp_path, "t", columns, at=AT, partition=[Part(column, transform)])
    table = append(tmp_path, table, _written(tmp_path, table, EVERY), at=AT)

    assert len(data_files(tmp_path, table)) == 3
    assert _arrow(tmp_path, table).num_rows == row_count(tmp_path, table) == 3
    assert _arrow(tmp_path, table, row_filter=condition).num_rows == 1
    assert _planned(tmp_path, table, condition) == 1
    assert _planned(tmp_path, table, f"{column} is null") == 1
    with DuckDB(tmp_path / "staging") as engine:
        engine.view(file_set(tmp_path, table, "t"))
        count = engine.rows(f"SELECT count(*), count({column}) FROM t")
    assert count == [(3, 2)]


def test_rows_are_sorted_within_each_file_of_a_partition(tmp_path: Path) -> None:
    columns = (Column(0, "p", "long"), Column(0, "n", "long"))
    table = create_table(
        tmp_path, "t", columns, at=AT,
        partition=[Part("p")], sort=[Order("n", is_descending=True)],
    )  # fmt: skip
    sql = "SELECT range % 3 AS p, (hash(range) % 100000)::BIGINT AS n FROM range(200000)"
    files = _written(tmp_path, table, sql)
    table = append(tmp_path, table, files, at=AT)

    assert {file.partition for file in data_files(tmp_path, table)} == {("0",), ("1",), ("2",)}
    for file in files:
        rows = duckdb.execute(
            f"SELECT p, n FROM read_parquet('{file.path}', file_row_number = true) "
            "ORDER BY file_row_number"
        ).fetchall()
        assert [row[1] for row in rows] == sorted((row[1] for row in rows), reverse=True)
        assert {str(row[0]) for row in rows} == {file.partition[0]}
    assert sum(file.rows for file in files) == 200000


def test_more_partitions_than_files_may_be_open_lose_no_row(tmp_path: Path) -> None:
    columns = (Column(0, "n", "long"),)
    table = create_table(tmp_path, "t", columns, at=AT, partition=[Part("n", "bucket[300]")])
    files = _written(tmp_path, table, "SELECT range AS n FROM range(100000)")
    table = append(tmp_path, table, files, at=AT)

    assert len({file.partition for file in files}) == 300
    assert _arrow(tmp_path, table).num_rows == 100000
    assert _planned(tmp_path, table, "n == 77") <= 2


def test_another_partition_and_order_hold_for_new_files_and_old_ones_stay(tmp_path: Path) -> None:
    columns = (Column(0, "n", "long"), Column(0, "at", "timestamptz"))
    table = create_table(tmp_path, "t", columns, at=AT, partition=[Part("at", "month")])
    first = "SELECT 1::BIGINT AS n, TIMESTAMPTZ '2020-01-01 00:00:00+00' AS at"
    table = append(tmp_path, table, _written(tmp_path, table, first), at=AT)
    old = data_files(tmp_path, table)
    table = set_layout(tmp_path, table, [Part("at", "day"), Part("n")], [Order("at")], at=AT)
    again = set_layout(tmp_path, table, [Part("at", "day"), Part("n")], [Order("at")], at=AT)
    second = "SELECT 2::BIGINT AS n, TIMESTAMPTZ '2020-01-02 00:00:00+00' AS at"
    table = append(tmp_path, table, _written(tmp_path, table, second), at=AT)
    window = Window(datetime(2020, 1, 2, tzinfo=UTC), datetime(2020, 1, 3, tzinfo=UTC))

    assert again.metadata != table.metadata
    assert [file.partition for file in data_files(tmp_path, table)] == [("600",), ("18263", "2")]
    assert data_files(tmp_path, table)[:1] == old
    assert sorted(_arrow(tmp_path, table)["n"].to_pylist()) == [1, 2]
    assert _planned(tmp_path, table, "at >= '2020-01-02T00:00:00+00:00'") == 1
    assert len(data_files(tmp_path, table, Slice("at", window))) == 1
    table = set_layout(tmp_path, table, [], [], at=AT + timedelta(days=1))
    third = "SELECT 3 AS n, NULL::TIMESTAMPTZ AS at"
    table = append(tmp_path, table, _written(tmp_path, table, third), at=AT)
    assert sorted(_arrow(tmp_path, table)["n"].to_pylist()) == [1, 2, 3]


@pytest.mark.parametrize(
    ("column", "transform"),
    [
        ("n", "day"),
        ("u", "identity"),
        ("at", "truncate[3]"),
        ("at", "week"),
        ("n", "bucket[0]"),
        ("d", "hour"),
    ],
)
def test_a_transform_that_a_column_cannot_have_is_refused(
    tmp_path: Path, column: str, transform: str
) -> None:
    columns = (
        Column(0, "n", "long"),
        Column(0, "at", "timestamptz"),
        Column(0, "d", "date"),
        Column(0, "u", "uuid"),
    )
    with pytest.raises(InvalidError) as caught:
        create_table(tmp_path, "t", columns, at=AT, partition=[Part(column, transform)])
    assert caught.value.kind == "bad-transform"


@pytest.mark.parametrize(
    ("kind", "transform", "value", "told"),
    [
        ("int", "truncate[10]", "-2147483648", "-2147483650"),
        ("long", "truncate[7]", "-9223372036854775808", "-9223372036854775814"),
        ("decimal(9,2)", "truncate[10]", "-9999999.99", "-10000000.00"),
        ("decimal(2,0)", "truncate[1000]", "-1", "-1000"),
        ("timestamp", "hour", "TIMESTAMP '290000-01-01'", "2524819128"),
        ("timestamp", "identity", "TIMESTAMP '10000-01-01'", "10000-01-01T00:00:00.000000"),
        ("date", "identity", "DATE '10000-01-01'", "10000-01-01"),
        ("time", "identity", "TIME '24:00:00'", "24:00:00"),
    ],
)
def test_a_value_whose_partition_no_reader_could_know_is_refused(
    tmp_path: Path, kind: str, transform: str, value: str, told: str
) -> None:
    columns = (Column(0, "c", kind),)
    table = create_table(tmp_path, "t", columns, at=AT, partition=[Part("c", transform)])
    with pytest.raises(InvalidError) as caught:
        _written(tmp_path, table, f"SELECT CAST({value} AS {columns[0].sql_type}) AS c")
    assert caught.value.kind == "partition-out-of-range"
    assert f'Column "c" has a value whose {transform} is {told}' in caught.value.message


@pytest.mark.parametrize(
    ("kind", "transform", "value"),
    [
        ("int", "truncate[8]", "-2147483648"),
        ("long", "truncate[8]", "-9223372036854775808"),
        ("int", "truncate[10]", "2147483647"),
        ("decimal(9,2)", "truncate[1]", "-9999999.99"),
        ("timestamp", "identity", "TIMESTAMP '9999-12-31 23:59:59.999999'"),
    ],
)
def test_the_last_values_that_a_partition_can_tell_are_found(
    tmp_path: Path, kind: str, transform: str, value: str
) -> None:
    columns = (Column(0, "c", kind),)
    table = create_table(tmp_path, "t", columns, at=AT, partition=[Part("c", transform)])
    sql = f"SELECT CAST({value} AS {columns[0].sql_type}) AS c"
    table = append(tmp_path, table, _written(tmp_path, table, sql), at=AT)
    (row,) = _arrow(tmp_path, table).to_pylist()
    equal = EqualTo(term=Reference("c"), value=row["c"])
    assert _arrow(tmp_path, table, row_filter=equal).num_rows == 1
