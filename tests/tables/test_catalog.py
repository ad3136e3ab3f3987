"""pyiceberg over an edit: every act that it has, read back by our engine, by itself, by DuckDB."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
from bare import bare_table
from commands import run_script
from garbage import branch, gc
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.schema import Schema as IcebergSchema
from pyiceberg.table import Table
from pyiceberg.table.sorting import NullOrder, SortDirection
from pyiceberg.table.update import AssertRefSnapshotId
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    Transform,
    TruncateTransform,
    YearTransform,
)
from pyiceberg.types import (
    DoubleType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    StructType,
)
from table_acts import ACTS, Act, Append, Delete, Model, Overwrite, Upsert, as_arrow, written

from instep.cli.erase_rows import erased_rows
from instep.cli.wholeness import examine
from instep.engines.duckdb import DuckDB
from instep.errors import ConflictError, InvalidError, RefusedError
from instep.history.refs import RefKind, create_ref
from instep.history.repository import MAIN, Repository, create_repository
from instep.lake import Lake
from instep.tables.catalog import LakeTable
from instep.tables.content import TableContent
from instep.tables.edit import TableEdit
from instep.tables.read import (
    data_files,
    file_set,
    load_metadata,
    metadata_path,
    row_count,
    size_bytes,
    table_folder,
)
from instep.tables.verify import required_files

NUMBERS = pa.table({"id": pa.array([1, 2, 3], pa.int32()), "name": ["a", "b", "c"]})
MORE = pa.table({"id": pa.array([4, 5], pa.int32()), "name": ["d", None]})


@pytest.fixture
def lake(repo: Repository) -> Lake:
    with repo.store.transaction() as tx:
        create_ref(tx, "work", RefKind.BRANCH, repo.resolve(MAIN), owner="ana", at=repo.clock())
    return Lake(repo)


def editing(lake: Lake) -> Any:  # a context manager of TableEdit
    return lake.edit("work", message="by pyiceberg", author="ana")


def made(catalog: Catalog) -> Table:
    table = catalog.create_table("default.t", schema=NUMBERS.schema)
    table.append(NUMBERS)
    return table


def read(lake: Lake, table: str = "t") -> list[dict[str, Any]]:
    """Returns the rows as our engine, bare pyiceberg and bare DuckDB read them, if they agree."""
    found = lake.branch("work").table(table)
    root, content = found.repo.root, found.content
    ours = sorted(found.sql(f"select * from {table}").to_pylist(), key=_place)
    scan = bare_table(root, metadata_path(root, content)).scan()
    theirs = sorted(scan.to_arrow().to_pylist(), key=_place)
    whole = file_set(root, content, table)
    with DuckDB(root / "staging") as engine:
        engine.view(whole)
        ids = [row for (row,) in engine.rows(f"select id from {table} order by id")]
    assert ours == theirs
    assert ids == [row["id"] for row in ours]
    _check_counts(lake, table)
    return ours


def _place(row: dict[str, Any]) -> tuple[int, str]:
    """Two rows may have one id: then the rest decides."""
    return int(row["id"]), repr(row)


def _check_counts(lake: Lake, table: str) -> None:
    """What planning relies on is exact, and every file is there with its digest recorded."""
    found = lake.branch("work").table(table)
    root, content = found.repo.root, found.content
    files = data_files(root, content)
    assert row_count(root, content) == found.sql(f"select * from {table}").num_rows
    if not file_set(root, content, table).deletes:
        assert size_bytes(root, content) == sum(file.size_bytes for file in files)
    assert all(one.path.exists() for one in required_files(root, content, set()))


def test_a_table_is_created_and_appended_to(lake: Lake) -> None:
    with editing(lake) as edit:
        made(edit.catalog).append(MORE)

    assert [row["id"] for row in read(lake)] == [1, 2, 3, 4, 5]
    assert edit.committed is not None
    assert edit.committed.message == "by pyiceberg"


def test_rows_are_overwritten_deleted_and_upserted(lake: Lake) -> None:
    with editing(lake) as edit:
        made(edit.catalog).append(MORE)

    with editing(lake) as edit:
        table = edit.catalog.load_table("default.t")
        table.overwrite(NUMBERS.slice(0, 1), overwrite_filter="id <= 2")
        table.delete("name is null")
        table.upsert(pa.table({"id": pa.array([3, 9], pa.int32()), "name": ["C", "z"]}), ["id"])

    assert [tuple(row.values()) for row in read(lake)] == [(1, "a"), (3, "C"), (4, "d"), (9, "z")]


def test_columns_are_added_renamed_moved_promoted_and_dropped(lake: Lake) -> None:
    with editing(lake) as edit:
        made(edit.catalog)

    with editing(lake) as edit:
        table = edit.catalog.load_table("default.t")
        with table.update_schema() as change:
            change.add_column(
                "home", StructType(NestedField(1, "city", StringType(), required=False))
            )
            change.add_column("tags", ListType(1, LongType(), element_required=False))
            change.update_column("id", LongType())
            change.rename_column("name", "title")
            change.move_first("name")
        table.append(
            pa.table({"title": ["d"], "id": [4], "home": [{"city": "Oslo"}], "tags": [[1, 2]]})
        )
        with table.update_schema() as change:
            change.delete_column("tags")

    assert read(lake)[2:] == [
        {"title": "c", "id": 3, "home": None},
        {"title": "d", "id": 4, "home": {"city": "Oslo"}},
    ]


def test_a_partition_spec_and_a_sort_order_change(lake: Lake) -> None:
    with editing(lake) as edit:
        table = made(edit.catalog)
        with table.update_spec() as change:
            change.add_identity("name")
        with table.update_sort_order() as change:
            change.desc("id", IdentityTransform(), NullOrder.NULLS_LAST)
        table.append(MORE)
    with editing(lake) as edit:
        edit.append("t", "select 6 as id, 'x*?[y]' as name union all select 7, 'p=q/r'")
        edit.catalog.load_table("default.t").append(
            pa.table({"id": pa.array([8], pa.int32()), "name": ["x*?[y] p=q/r%"]})
        )

    assert [row["id"] for row in read(lake)] == [1, 2, 3, 4, 5, 6, 7, 8]
    table = lake.branch("work").catalog.load_table("default.t")
    assert table.sort_order().fields[0].direction is SortDirection.DESC
    assert [row["id"] for row in table.scan("name == 'p=q/r'").to_arrow().to_pylist()] == [7]


def test_tables_partitioned_by_pyiceberg_are_read_and_appended_to_by_us(lake: Lake) -> None:
    rows = pa.table({"id": [1, 2], "day": [date(2013, 1, 1), None], "x": [0.5, None]})
    with editing(lake) as edit:
        table = edit.catalog.create_table("default.t", schema=rows.schema)
        with table.update_spec() as change:
            change.add_identity("day").add_identity("x")
        table.append(rows)
        assert table.scan().to_arrow().num_rows == 2
        edit.append("t", "select 3 as id, date '2013-01-01' as day, 0.5::double as x")
        edit.delete("t", where="id = 1")

    found_in = lake.branch("work").table("t")
    found = [file.partition for file in data_files(found_in.repo.root, found_in.content)]
    assert found_in.sql("select id from t order by id").column(0).to_pylist() == [2, 3]
    assert ("2013-01-01", "0.5") in found


TIMES = pa.table(
    {
        "id": pa.array([1, 2, 3, 4], pa.int32()),
        "at": pa.array(["1969-12-31T23:59:59.5", "2026-02-28T12:00", "1970-01-01T00:00", None])
        .cast(pa.timestamp("us"))
        .cast(pa.timestamp("us", tz="UTC")),
        "text": ["émile", "é", "", None],
        "number": pa.array([-1, 34, 2**40, None], pa.int64()),
    }
)


@pytest.mark.parametrize(
    ("column", "transform"),
    [
        ("at", YearTransform()),
        ("at", MonthTransform()),
        ("at", DayTransform()),
        ("at", HourTransform()),
        ("text", BucketTransform(7)),
        ("number", BucketTransform(7)),
        ("text", TruncateTransform(2)),
        ("number", TruncateTransform(10)),
    ],
    ids=str,
)
def test_pyiceberg_and_we_put_rows_into_the_same_partitions(
    lake: Lake, column: str, transform: Transform[Any, Any]
) -> None:
    pytest.importorskip("pyiceberg_core", reason="pyiceberg-core is not installed")
    with editing(lake) as edit:
        table = edit.catalog.create_table("default.t", schema=TIMES.schema)
        with table.update_spec() as change:
            change.add_field(column, transform)
        table.append(TIMES)
        theirs = _partitions(edit.find_table("t"), lake)
        edit.overwrite("t", TIMES)
        ours = _partitions(edit.find_table("t"), lake)

    assert ours == theirs
    assert [row["id"] for row in read(lake)] == [1, 2, 3, 4]


def _partitions(content: TableContent | None, lake: Lake) -> Counter[tuple[str | None, ...]]:
    assert content is not None
    return Counter(file.partition for file in data_files(lake.repo.root, content))


def test_the_names_of_folders_are_no_values(lake: Lake) -> None:
    strange = "x*?[y] p=q/r%20"
    with editing(lake) as edit:
        table = edit.catalog.create_table("default.t", schema=NUMBERS.schema)
        with table.update_spec() as change:
            change.add_identity("name")
        table.append(pa.table({"id": pa.array([1], pa.int32()), "name": [strange]}))
        table.append(MORE.slice(1, 1))

    assert read(lake) == [{"id": 1, "name": strange}, {"id": 5, "name": None}]


def test_snapshots_are_kept_for_time_travel_and_metadata_stays_bounded(lake: Lake) -> None:
    with editing(lake) as edit:
        table = made(edit.catalog)
        first = table.current_snapshot()
        table.append(MORE)
        assert first is not None
        old = table.scan(snapshot_id=first.snapshot_id).to_arrow()
        for _ in range(12):
            table.append(MORE)

    assert old.num_rows == 3
    content = lake.branch("work").table("t").content
    metadata = load_metadata(lake.repo.root, content)
    assert len(metadata["snapshots"]) == 10
    assert metadata["metadata-log"] == []
    assert len(read(lake)) == 3 + 13 * 2
    kept = bare_table(lake.repo.root, metadata_path(lake.repo.root, content))
    oldest = metadata["snapshots"][0]["snapshot-id"]
    assert kept.scan(snapshot_id=oldest).to_arrow().num_rows == 29 - 9 * 2


def test_a_rollback_to_an_earlier_snapshot_is_a_state_like_any(lake: Lake) -> None:
    with editing(lake) as edit:
        table = made(edit.catalog)
        first = table.current_snapshot()
        assert first is not None
        table.append(MORE)
        table.manage_snapshots().rollback_to_snapshot(first.snapshot_id).commit()
        table.append(MORE.slice(0, 1))

    assert [row["id"] for row in read(lake)] == [1, 2, 3, 4]


def test_several_changes_in_one_transaction_of_pyiceberg(lake: Lake) -> None:
    with editing(lake) as edit:
        with edit.catalog.create_table_transaction("default.t", schema=NUMBERS.schema) as tx:
            tx.append(NUMBERS)
            tx.set_properties({"owner": "ana"})
        table = edit.catalog.load_table("default.t")
        with table.transaction() as tx:
            tx.delete("id == 1")
            with tx.update_schema() as change:
                change.add_column("more", DoubleType())
            tx.append(pa.table({"id": pa.array([7], pa.int32()), "name": ["g"], "more": [0.5]}))

    assert [row["more"] for row in read(lake)] == [None, None, 0.5]
    assert table.properties["owner"] == "ana"


def test_tables_are_listed_renamed_and_dropped(lake: Lake) -> None:
    with editing(lake) as edit:
        edit.create("kept", NUMBERS)
    with editing(lake) as edit:
        catalog = edit.catalog
        made(catalog)
        catalog.create_table_if_not_exists("default.other", schema=NUMBERS.schema)
        assert catalog.list_namespaces() == [("default",)]
        assert [name for _, name in catalog.list_tables("default")] == ["kept", "other", "t"]
        catalog.rename_table("default.t", "default.renamed")
        catalog.drop_table("default.other")
        assert catalog.list_views("default") == []
        assert not catalog.view_exists("default.v")
        assert catalog.namespace_exists("default")
        assert not catalog.namespace_exists("elsewhere")
        with pytest.raises(TableAlreadyExistsError):
            catalog.create_table("default.renamed", schema=NUMBERS.schema)
        with pytest.raises(NoSuchTableError):
            catalog.load_table("default.t")
        with pytest.raises(NoSuchTableError):
            catalog.load_table("elsewhere.renamed")
        with pytest.raises(NoSuchNamespaceError):
            catalog.list_tables("elsewhere")
        with pytest.raises(RefusedError) as purged:
            catalog.purge_table("default.renamed")
        with pytest.raises(InvalidError) as namespace:
            catalog.create_namespace("more")
        with pytest.raises(InvalidError) as view:
            catalog.register_view("default.v", "/somewhere")
        catalog.register_table(
            "default.again",
            str(metadata_path(lake.repo.root, lake.branch("work").table("kept").content)),
        )

    kinds = [one.value.kind for one in (purged, view, namespace)]
    assert kinds == ["no-purge", "no-views", "one-namespace"]
    assert lake.branch("work").keys("table") == ("table/again", "table/kept", "table/renamed")
    assert lake.branch("work").table("again").rows == 3


def test_a_commit_is_read_and_not_written(lake: Lake) -> None:
    with editing(lake) as edit:
        made(edit.catalog)
    catalog = lake.branch("work").catalog

    table = catalog.load_table("default.t")

    assert table.scan("id > 1", selected_fields=("name",)).to_arrow().to_pylist() == [
        {"name": "b"},
        {"name": "c"},
    ]
    with pytest.raises(RefusedError) as caught:
        table.append(MORE)
    assert caught.value.kind == "commit-is-fixed"
    assert "t" in repr(catalog)


def test_a_handle_that_is_behind_is_told_so(lake: Lake) -> None:
    with editing(lake) as edit:
        table = made(edit.catalog)
        behind = AssertRefSnapshotId.model_validate(
            {"ref": "main", "snapshot-id": table.metadata.current_snapshot_id}
        )
        table.append(MORE)
        with pytest.raises(CommitFailedException):
            edit.catalog.commit_table(table, (behind,), ())
        before = edit.find_table("t")
        edit.catalog.commit_table(table, (), ())
        assert edit.find_table("t") == before

    assert len(read(lake)) == 5


ONE = pa.table({"id": pa.array([9], pa.int32()), "name": ["late"]})


def in_one(*acts: Any) -> Any:  # functions of a transaction of pyiceberg
    """Returns an act that does several in one transaction."""

    def act(table: Table) -> None:
        with table.transaction() as transaction:
            for one in acts:
                one(transaction)

    return act


def appends(transaction: Any) -> None:  # of pyiceberg
    transaction.append(ONE)


def having_seen(look: Any) -> Any:  # a function of a table of pyiceberg
    """Returns an act that appends after a look."""

    def act(table: Table) -> None:
        look(table)
        table.append(ONE)

    return act


@pytest.mark.parametrize(
    ("act", "is_done"),
    [
        (lambda table: table.append(ONE), True),
        (in_one(appends), True),
        (in_one(lambda tx: tx.append(MORE), appends), True),
        (in_one(appends, lambda tx: tx.upsert(MORE, join_cols=["id"])), False),
        (in_one(lambda tx: tx.delete("id == 77"), appends), False),
        (in_one(appends, lambda tx: tx.overwrite(ONE, overwrite_filter="id == 9")), False),
        (in_one(appends, lambda tx: tx.set_properties(owner="ana")), False),
        (in_one(lambda tx: tx._table.scan().to_arrow(), appends), False),
        (lambda table: table.upsert(ONE, join_cols=["id"]), False),
        (lambda table: table.overwrite(ONE, overwrite_filter="id == 9"), False),
        (lambda table: table.append(ONE.slice(0, table.scan().count() - 3 + 1)), False),
        (having_seen(lambda table: table.incremental_append_scan().to_arrow().num_rows), False),
        (having_seen(lambda table: table.inspect.files().num_rows), False),
        (having_seen(lambda table: table.current_snapshot().summary["total-records"]), False),
        (having_seen(lambda table: table.to_polars()), False),
        (lambda table: table.delete("id == 1"), False),
        (lambda table: (table.delete("id == 9"), table.append(ONE)), False),
    ],
    ids=[
        "append",
        "append in one",
        "appends in one",
        "upsert in one",
        "delete nothing in one",
        "overwrite in one",
        "properties in one",
        "scan in one",
        "upsert",
        "overwrite",
        "scan",
        "scan of appends",
        "files",
        "snapshot",
        "polars",
        "delete",
        "delete nothing",
    ],
)
@pytest.mark.filterwarnings("ignore:Delete operation did not match")
@pytest.mark.filterwarnings("ignore:Iceberg scan planning")
def test_only_an_append_is_made_again_on_a_table_that_moved(
    lake: Lake, act: Any, is_done: bool
) -> None:
    with editing(lake) as edit:
        made(edit.catalog)
    late = editing(lake)
    act(late.__enter__().catalog.load_table("default.t"))
    with editing(lake) as first:
        first.append("t", "select 9::int as id, 'first' as name")

    if is_done:
        late.__exit__(None, None, None)
    else:
        with pytest.raises(ConflictError, match="by ana") as caught:
            late.__exit__(None, None, None)
        assert caught.value.kind == "keys-moved"

    _check_counts(lake, "t")
    found = lake.branch("work").table("t").sql("select name from t where id = 9 order by 1")
    assert found.column(0).to_pylist() == (["first", "late"] if is_done else ["first"])


DEFINITIONS = {
    "format_version", "history", "last_partition_id", "last_sequence_number", "location",
    "location_provider", "metadata_location", "name", "name_mapping", "properties", "refs",
    "refresh", "schema", "schemas", "sort_order", "sort_orders", "spec", "specs",
}  # fmt: skip
"""What of pyiceberg's table tells how it is defined, and nothing of its rows."""

WRITES = {
    "add_files", "append", "delete", "dynamic_partition_overwrite", "maintenance",
    "manage_snapshots", "overwrite", "update_schema", "update_sort_order", "update_spec",
    "update_statistics", "upsert",
}  # fmt: skip
"""What of it commits, and by that says what it looked at."""


def test_all_that_pyiceberg_tells_of_rows_is_known_to_be_a_look_at_them() -> None:
    told = {name for name in vars(Table) if not name.startswith("_")}

    assert told - vars(LakeTable).keys() == DEFINITIONS | WRITES
    assert "__datafusion_table_provider__" in vars(LakeTable)


def test_rows_are_matched_by_the_identifiers_that_a_table_had_before_its_columns_changed(
    lake: Lake,
) -> None:
    columns = (
        NestedField(1, "id", IntegerType(), required=True),
        NestedField(2, "part", StringType(), required=True),
        NestedField(3, "name", StringType()),
    )
    rows = pa.table({"id": [1, 2], "part": ["x", "x"], "name": ["a", "b"]})
    with editing(lake) as edit:
        schema = IcebergSchema(*columns, identifier_field_ids=[1, 2])
        table = edit.catalog.create_table("default.t", schema)
        table.append(rows.cast(table.schema().as_arrow()))
        edit.add_column("t", "more", "double")
        edit.promote_column("t", "id", "long")
        edit.move_column("t", "id", after="part")
        edit.append("t", "select 'y' as part, 1::bigint as id, 'd' as name, 1.0::double as more")

        table = edit.catalog.load_table("default.t")
        new = pa.table(
            {"part": ["x", "x"], "id": [2, 3], "name": ["B", "c"], "more": [0.5, None]},
            schema=table.schema().as_arrow(),
        )
        table.upsert(new)
        assert sorted(table.scan().to_arrow().column("name").to_pylist()) == ["B", "a", "c", "d"]

        edit.rename_column("t", "id", "number")
        edit.drop_column("t", "part")
        schema = edit.catalog.load_table("default.t").schema()
        assert schema.identifier_field_names() == {"number"}


def test_columns_added_on_two_branches_get_different_ids(lake: Lake) -> None:
    with editing(lake) as edit:
        made(edit.catalog)
    with lake.repo.store.transaction() as tx:
        commit = lake.repo.resolve("work")
        create_ref(tx, "other", RefKind.BRANCH, commit, owner="ana", at=lake.repo.clock())

    for name in ("work", "other"):
        with lake.edit(name, message="a column", author="ana") as edit:
            table = edit.catalog.load_table("default.t")
            with table.update_schema() as change:
                change.add_column("more", DoubleType())
            nine = pa.array([9], pa.int32())
            table.append(pa.table({"id": nine, "name": ["z"], "more": [0.5]}))

    ids = [lake.branch(one).table("t").schema.column("more").id for one in ("work", "other")]
    assert ids == [3, 4]


def test_collection_keeps_what_is_needed_and_takes_what_was_never_committed(lake: Lake) -> None:
    with editing(lake) as edit:
        table = made(edit.catalog)
        with table.update_spec() as change:
            change.add_identity("name")
        table.append(MORE)
        table.append(MORE)
    with pytest.raises(KeyError), editing(lake) as edit:
        edit.catalog.load_table("default.t").append(MORE)
        raise KeyError
    content = lake.branch("work").table("t").content
    folder = table_folder(lake.repo.root, content) / "data"
    before = set(folder.rglob("*.parquet"))

    for _ in range(3):
        gc(lake.repo)

    after = set(folder.rglob("*.parquet"))
    assert (len(before), len(after)) == (7, 5)
    assert not list(examine(lake.repo, Counter()))
    assert len(read(lake)) == 7


@pytest.mark.parametrize("way", ["collected", "erased"])
def test_folders_named_after_values_go_with_their_last_file(lake: Lake, way: str) -> None:
    with editing(lake) as edit:
        table = edit.catalog.create_table("default.t", schema=NUMBERS.schema)
        with table.update_spec() as change:
            change.add_identity("name")
        table.append(NUMBERS)
    with pytest.raises(KeyError), editing(lake) as edit:
        edit.catalog.load_table("default.t").append(ONE)
        raise KeyError
    folder = table_folder(lake.repo.root, lake.branch("work").table("t").content) / "data"
    assert {one.name for one in folder.iterdir()} == {"name=a", "name=b", "name=c", "name=late"}

    if way == "erased":
        erased_rows(lake.repo, "t", "name = 'b'", "asked", "ana", is_dry=False)
    for _ in range(3):
        gc(lake.repo)

    left = {one.name for one in folder.iterdir() if one.is_dir()}
    assert left == {"name=a", "name=c"} | ({"name=b"} if way == "collected" else set())


def test_what_was_collected_during_an_edit_is_nothing_that_it_needs(lake: Lake) -> None:
    with editing(lake) as edit:
        made(edit.catalog)
        for _ in range(3):
            gc(lake.repo)

    assert len(read(lake)) == 3


def test_a_process_that_dies_before_the_commit_leaves_nothing_reachable(lake: Lake) -> None:
    with editing(lake) as edit:
        made(edit.catalog)
    before = lake.branch("work").commit
    script = f"""
import os, pyarrow as pa
from pathlib import Path
from instep.clock import system_clock
from instep.history.repository import open_repository
from instep.lake import Lake
lake = Lake(open_repository(Path({str(lake.repo.root)!r}), system_clock))
with lake.edit("work", message="never", author="ana") as edit:
    edit.catalog.load_table("default.t").append(
        pa.table({{"id": pa.array([4], pa.int32()), "name": ["d"]}}))
    edit.append("t", "select 5::integer as id, 'e' as name")
    os._exit(9)
"""

    ended = run_script(script)

    assert ended.code == 9
    assert lake.branch("work").commit == before
    assert not list(examine(lake.repo, Counter()))
    for _ in range(3):
        gc(lake.repo)
    folder = table_folder(lake.repo.root, lake.branch("work").table("t").content)
    assert len(list((folder / "data").iterdir())) == 1


OTHERS = st.sampled_from(["rename", "partition", "ours"])
"""What else is done to a table: the last by our own edit, between those of pyiceberg."""


@settings(max_examples=8)
@given(acts=st.lists(ACTS | OTHERS, max_size=6))
def test_any_acts_of_pyiceberg_leave_the_rows_that_a_dictionary_would(
    tmp_path_factory: pytest.TempPathFactory, acts: list[Act | str]
) -> None:
    repo = create_repository(tmp_path_factory.mktemp("lake") / "lake", _clock, "ana")
    branch(repo, "work")
    lake = Lake(repo)
    model: Model = {}
    name = "name"
    with editing(lake) as edit:
        edit.catalog.create_table("default.t", schema=NUMBERS.schema)
    for number, act in enumerate(acts):
        with editing(lake) as edit:
            name = _apply(edit, model, act, name, number)
        assert {row["id"]: row[name] for row in read(lake)} == model
    assert not list(examine(repo, Counter()))
    repo.store.close()


def _apply(edit: TableEdit, model: Model, act: Act | str, name: str, number: int) -> str:
    """Does an act to the table and to the model; returns the name of the column of texts."""
    if isinstance(act, str):
        return _apply_other(edit, model, act, name, number)
    table = edit.catalog.load_table("default.t")
    new = as_arrow(written(model, act), name, pa.int32())
    match act:
        case Append():
            table.append(new)
        case Upsert():
            table.upsert(new, ["id"])
        case Delete(low, high):
            table.delete(f"id >= {low} and id <= {high}")
        case Overwrite(low, high):
            table.overwrite(new, overwrite_filter=f"id >= {low} and id < {high}")
    return name


def _apply_other(edit: TableEdit, model: Model, act: str, name: str, number: int) -> str:
    table = edit.catalog.load_table("default.t")
    match act:
        case "rename":
            with table.update_schema() as change:
                change.rename_column(name, f"v{number}")
            # pyiceberg's upsert reads by the columns of the last snapshot: it needs one of now.
            new = written(model, Upsert({50 + number: "renamed"}))
            table.append(as_arrow(new, f"v{number}", pa.int32()))
            return f"v{number}"
        case "partition":
            if not table.spec().fields:
                with table.update_spec() as partition:
                    partition.add_identity("id")
        case _:
            new = written(model, Upsert({99: "ours"}))
            edit.upsert("t", as_arrow(new, name, pa.int32()), key="id")
    return name


def _clock() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)
