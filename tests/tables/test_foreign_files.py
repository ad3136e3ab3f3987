"""Files as others write them: unknown counts stay unknown, and what cannot be read is refused."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign_files import add_file
from pyiceberg.conversions import to_bytes
from pyiceberg.schema import Schema
from pyiceberg.types import (
    DateType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    NestedField,
    PrimitiveType,
    StringType,
    TimestampType,
    TimestamptzType,
    UUIDType,
)

from instep.clock import Window
from instep.engines.engine import Slice
from instep.errors import InvalidError
from instep.history.refs import RefKind, create_ref
from instep.history.repository import MAIN, Repository
from instep.lake import Lake
from instep.tables.compact import compact_state
from instep.tables.manifest import MERGED_MANIFESTS
from instep.tables.profile_keep import profile_table
from instep.tables.read import data_files

NAN = float("nan")


@pytest.fixture
def lake(repo: Repository) -> Lake:
    with repo.store.transaction() as tx:
        create_ref(tx, "work", RefKind.BRANCH, repo.resolve(MAIN), owner="ana", at=repo.clock())
    return Lake(repo)


def editing(lake: Lake) -> Any:  # a context manager of TableEdit
    return lake.edit("work", message="by others", author="ana")


def made(lake: Lake, rows: pa.Table, **options: Any) -> None:  # as `add_file` has them
    with editing(lake) as edit:
        add_file(edit.catalog.create_table("default.t", schema=rows.schema), rows, **options)


def test_counts_that_nobody_made_stay_unknown_when_manifests_are_merged(lake: Lake) -> None:
    rows = pa.table({"k": [1, 2], "s": ["a", None], "x": [1.0, NAN]})
    made(lake, rows, write_statistics=False)
    for k in range(MERGED_MANIFESTS):
        with editing(lake) as edit:
            edit.append("t", f"select {k + 10}::bigint as k, 'v' as s, 0.0::double as x")

    branch = lake.branch("work")
    table = branch.catalog.load_table("default.t")
    assert len(table.inspect.manifests()) < MERGED_MANIFESTS
    for condition in ("s is null", "x is nan"):
        assert table.scan(condition).to_arrow().column("k").to_pylist() == [2]
    told = {s.field_id: s for s in data_files(lake.repo.root, branch.table("t").content)[0].columns}
    assert [(told[n].nulls, told[n].nans) for n in (1, 2, 3)] == [
        (None, 0),
        (None, 0),
        (None, None),
    ]


def test_a_file_is_counted_as_unknown_if_one_of_its_row_groups_is_not_counted(lake: Lake) -> None:
    rows = pa.table({"k": [1, None], "s": ["a", None]})
    made(lake, rows, write_statistics=["k"], row_group_size=1)

    (file,) = data_files(lake.repo.root, lake.branch("work").table("t").content)
    assert [one.nulls for one in file.columns] == [1, None]


def test_a_file_that_may_hold_nan_is_read_by_a_condition_above_its_bounds(lake: Lake) -> None:
    one = {3: to_bytes(DoubleType(), 1.0)}
    rows = pa.table({"k": [1, 2], "s": ["a", "b"], "x": [1.0, NAN]})
    made(lake, rows, write_statistics=False, lowers=one, uppers=one)

    with editing(lake) as edit:
        edit.delete("t", where="x > 5")  # which NaN is

    found = lake.branch("work").table("t").sql("select k from t").column("k").to_pylist()
    assert found == [1]


def test_the_profile_of_a_slice_leaves_out_a_null_that_nobody_counted(lake: Lake) -> None:
    day = date(2020, 1, 5)
    bound = {2: to_bytes(DateType(), (day - date(1970, 1, 1)).days)}
    rows = pa.table({"k": [1, 2], "day": pa.array([day, None], pa.date32())})
    made(lake, rows, write_statistics=False, lowers=bound, uppers=bound)

    january = Window(datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 2, 1, tzinfo=UTC))
    content = lake.branch("work").table("t").content
    profile = profile_table(lake.repo.root, content, Slice("day", january))
    assert [(one.count, one.nulls) for one in profile] == [(1, 0), (1, 0)]


NESTED = pa.table(
    {
        "k": [1, 2],
        "s": [{"a": 1}, {"a": None}],
        "l": [[1, 2], []],
        "m": pa.array([[("x", 1)], None], pa.map_(pa.string(), pa.int64())),
    }
)


def test_nested_columns_of_others_are_profiled_as_their_rows_are(lake: Lake) -> None:
    with editing(lake) as edit:
        edit.catalog.create_table("default.t", schema=NESTED.schema).append(NESTED)
    with editing(lake) as edit:
        edit.append("t", NESTED)  # a file of Instep beside it

    content = lake.branch("work").table("t").content
    before = profile_table(lake.repo.root, content)
    compact_state(lake.repo, content, at=lake.repo.clock())
    after = profile_table(lake.repo.root, content)

    for found in (before, after):
        assert [(one.count, one.nulls, one.distinct) for one in found] == [
            (4, 0, 2),
            (4, 0, 2),
            (4, 0, 2),
            (4, 2, 1),
        ]
        assert all(one.exact >= {"count", "nulls", "distinct"} for one in found)


def test_a_struct_of_others_is_there_when_all_that_it_held_was_dropped(lake: Lake) -> None:
    rows = pa.table({"k": [1, 2], "s": [{"a": 1}, None]})
    with editing(lake) as edit:
        edit.catalog.create_table("default.t", schema=rows.schema).append(rows)
    with editing(lake) as edit:
        edit.add_column("t", "s.b", "int")
        edit.drop_column("t", "s.a")

    table = lake.branch("work").table("t")
    assert table.arrow().column("s").to_pylist() == [{"b": None}, None]
    _, s = profile_table(lake.repo.root, table.content)
    assert (s.count, s.nulls, s.distinct) == (2, 1, 1)


AT = datetime(2020, 9, 13, 12, 26, 40, 123456, tzinfo=UTC)

UNREADABLE: dict[str, tuple[PrimitiveType, pa.Array[Any]]] = {
    "string in long": (LongType(), pa.array(["a"])),
    "nanoseconds": (TimestampType(), pa.array([1], pa.timestamp("ns"))),
    "UTC in timestamp": (TimestampType(), pa.array([AT], pa.timestamp("us", "UTC"))),
    "double in float": (FloatType(), pa.array([0.1])),
    "binary in string": (StringType(), pa.array([b"a"])),
    "bytes in uuid": (UUIDType(), pa.array([b"0123456789abcdef"], pa.binary(16))),
    "long in int": (IntegerType(), pa.array([1])),
    "unsigned in int": (IntegerType(), pa.array([1], pa.uint32())),
    "unsigned in long": (LongType(), pa.array([1], pa.uint64())),
}
"""The type of a column, and what a file holds under its id."""


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_whose_types_are_not_the_tables_is_refused_and_nothing_is_staged(
    lake: Lake, case: str
) -> None:
    kind, values = UNREADABLE[case]
    with editing(lake) as edit:
        table = edit.catalog.create_table("default.t", Schema(NestedField(1, "x", kind)))
        before = edit.find_table("t")
        with pytest.raises(InvalidError, match='"x"') as caught:
            add_file(table, pa.table({"x": values}))

        assert edit.find_table("t") == before
    assert caught.value.kind in ("type-mismatch", "unsupported-type")


@pytest.mark.parametrize("kind", [TimestampType(), TimestamptzType()])
def test_a_time_as_older_spark_writes_it_is_one_in_utc(lake: Lake, kind: PrimitiveType) -> None:
    rows = pa.table({"seen": pa.array([AT], pa.timestamp("us", "UTC"))})
    with editing(lake) as edit:
        table = edit.catalog.create_table("default.t", Schema(NestedField(1, "seen", kind)))
        add_file(table, rows, use_deprecated_int96_timestamps=True)

    branch = lake.branch("work")
    ours = branch.table("t").sql("select seen from t").column("seen")
    theirs = branch.catalog.load_table("default.t").scan().to_arrow().column("seen")
    assert ours.cast(pa.int64()) == theirs.cast(pa.int64()) == rows.column("seen").cast(pa.int64())


def test_files_of_one_layout_are_checked_against_each_schema_of_their_table(lake: Lake) -> None:
    rows = pa.table({"x": pa.array([1], pa.int32())})
    made(lake, rows)
    with editing(lake) as edit:
        edit.promote_column("t", "x", "long")
    with editing(lake) as edit:
        table = edit.catalog.load_table("default.t")
        add_file(table, rows)
        add_file(table, pa.table({"x": pa.array([2])}))

    assert lake.branch("work").table("t").sql("select sum(x) s from t").to_pylist() == [{"s": 4}]


def test_a_star_in_the_name_of_a_file_is_no_pattern_when_its_columns_are_looked_at(
    lake: Lake,
) -> None:
    beside = io.BytesIO()
    field = pa.field("starred", pa.uint32(), metadata={"PARQUET:field_id": "1"})
    pq.write_table(pa.table([pa.array([1], pa.uint32())], schema=pa.schema([field])), beside)
    rows = pa.table({"starred": pa.array([1], pa.int32())})
    with editing(lake) as edit:
        table = edit.catalog.create_table("default.t", schema=rows.schema)
        with table.io.new_output(f"{table.location()}/data/ab.parquet").create() as output:
            output.write(beside.getvalue())
        add_file(table, rows, name="a*")

    found = lake.branch("work").table("t").sql("select starred from t").to_pylist()
    assert found == [{"starred": 1}]
