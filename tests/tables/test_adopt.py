"""What other writers made: deletes are honoured or refused, files are checked, ids are settled."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bare import bare_table
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriterV2,
    write_manifest_list,
)
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.update import AddSnapshotUpdate, SetSnapshotRefUpdate
from pyiceberg.typedef import Record
from pyiceberg.types import DoubleType

from instep.errors import InvalidError
from instep.history.places import drop_copy
from instep.history.refs import RefKind, create_ref
from instep.history.repository import MAIN, Repository
from instep.lake import Lake
from instep.tables.adopt import adopt
from instep.tables.content import TableContent
from instep.tables.read import data_files, load_metadata, metadata_path, row_count, table_folder
from instep.tables.verify import required_files

NUMBERS = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "name": ["a", "b", "c"]})

PATH: pa.Field[Any] = pa.field(
    "file_path", pa.string(), nullable=False, metadata={"PARQUET:field_id": "2147483546"}
)
POSITION: pa.Field[Any] = pa.field(
    "pos", pa.int64(), nullable=False, metadata={"PARQUET:field_id": "2147483545"}
)


@pytest.fixture
def lake(repo: Repository) -> Lake:
    with repo.store.transaction() as tx:
        create_ref(tx, "work", RefKind.BRANCH, repo.resolve(MAIN), owner="ana", at=repo.clock())
    return Lake(repo)


def editing(lake: Lake) -> Any:  # a context manager of TableEdit
    return lake.edit("work", message="by others", author="ana")


class _DeleteManifest(ManifestWriterV2):
    """As pyiceberg's, for delete files, which it does not write itself."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


def written(table: Table, name: str, rows: pa.Table) -> str:
    """Writes a file into the table's data folder as its client does; returns its address."""
    path = f"{table.location()}/data/{name}"
    parquet = io.BytesIO()
    pq.write_table(rows, parquet)
    with table.io.new_output(path).create(overwrite=True) as file:
        file.write(parquet.getvalue())
    return path


def deleted(table: Table, kind: DataFileContent, path: str, count: int) -> None:
    """Commits a snapshot that adds one delete file, as engines do that merge on read."""
    parent = table.metadata.current_snapshot()
    assert parent is not None
    folder = f"{table.location()}/metadata"
    files, spec, schema = table.io, table.spec(), table.schema()
    file = DataFile.from_args(
        content=kind,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=count,
        file_size_in_bytes=len(files.new_input(path)),
        equality_ids=[1] if kind is DataFileContent.EQUALITY_DELETES else None,
    )
    number = 900 + len(table.metadata.snapshots)
    sequence = (parent.sequence_number or 0) + 1
    with _DeleteManifest(
        spec, schema, files.new_output(f"{folder}/{number}-d.avro"), number, "deflate"
    ) as writer:
        writer.add_entry(
            ManifestEntry.from_args(
                status=ManifestEntryStatus.ADDED, snapshot_id=number, data_file=file
            )
        )
    manifests: list[ManifestFile] = [*parent.manifests(files), writer.to_manifest_file()]
    output = files.new_output(f"{folder}/snap-{number}.avro")
    with write_manifest_list(2, output, number, parent.snapshot_id, sequence, "deflate") as listing:
        listing.add_manifests(manifests)
    snapshot = Snapshot.model_validate(
        {
            "snapshot-id": number,
            "parent-snapshot-id": parent.snapshot_id,
            "sequence-number": sequence,
            "timestamp-ms": table.metadata.last_updated_ms + 1,
            "manifest-list": output.location,
            "summary": Summary(Operation.DELETE),
            "schema-id": table.schema().schema_id,
        }
    )
    named = SetSnapshotRefUpdate.model_validate(
        {"ref-name": "main", "type": "branch", "snapshot-id": number}
    )
    table._do_commit((AddSnapshotUpdate(snapshot=snapshot), named), ())


def positions(table: Table, found: list[tuple[str, int]]) -> str:
    rows = [{"file_path": file, "pos": at} for file, at in found]
    name = f"deletes-{len(table.metadata.snapshots)}.parquet"
    return written(table, name, pa.Table.from_pylist(rows, schema=pa.schema([PATH, POSITION])))


def made(lake: Lake) -> tuple[TableContent, str]:
    """A table with one file of three rows, and one of a row; returns the path of the first."""
    with editing(lake) as edit:
        edit.create("t", NUMBERS)
        edit.append("t", "select 4 as id, 'd' as name")
    content = lake.branch("work").table("t").content
    return content, data_files(lake.repo.root, content)[0].path


def ids(lake: Lake) -> list[Any]:
    """The ids as our engine and bare pyiceberg read them, if they agree."""
    table = lake.branch("work").table("t")
    ours: list[Any] = table.sql("select id from t order by id").column("id").to_pylist()
    static = bare_table(lake.repo.root, metadata_path(lake.repo.root, table.content))
    assert ours == static.scan().to_arrow().sort_by("id").column("id").to_pylist()
    assert row_count(lake.repo.root, table.content) == len(ours)
    return ours


def test_position_deletes_of_others_are_honoured_by_every_reader_of_ours(lake: Lake) -> None:
    _, path = made(lake)
    with editing(lake) as edit:
        table = edit.catalog.load_table("default.t")
        file = positions(table, [(path, 0), (path, 2)])
        deleted(table, DataFileContent.POSITION_DELETES, file, 2)

    assert ids(lake) == [2, 4]
    with editing(lake) as edit:
        edit.append("t", "select 1 as id, 'new' as name")
        edit.upsert("t", "select 2 as id, 'B' as name", key="id")
    assert ids(lake) == [1, 2, 4]
    content = lake.branch("work").table("t").content
    assert all(one.path.exists() for one in required_files(lake.repo.root, content, set()))


def test_rows_that_are_deleted_by_position_are_not_deleted_twice(lake: Lake) -> None:
    _, path = made(lake)
    with editing(lake) as edit:
        table = edit.catalog.load_table("default.t")
        deleted(table, DataFileContent.POSITION_DELETES, positions(table, [(path, 0)]), 1)
        edit.delete("t", where="id <= 2")

    assert ids(lake) == [3, 4]


def test_equality_deletes_are_refused_and_nothing_is_staged(lake: Lake) -> None:
    before, _ = made(lake)
    with editing(lake) as edit:
        table = edit.catalog.load_table("default.t")
        path = written(table, "equal.parquet", pa.table({"id": [1]}))
        with pytest.raises(InvalidError, match="copy-on-write") as caught:
            deleted(table, DataFileContent.EQUALITY_DELETES, path, 1)

    assert caught.value.kind == "equality-deletes"
    assert edit.committed is None
    assert lake.branch("work").table("t").content == before


def test_a_file_outside_the_table_is_refused(lake: Lake, tmp_path: Path) -> None:
    made(lake)
    elsewhere = tmp_path / "elsewhere.parquet"
    pq.write_table(NUMBERS, elsewhere)
    with editing(lake) as edit:
        table = edit.catalog.load_table("default.t")
        with pytest.raises(InvalidError) as caught:
            table.add_files([str(elsewhere)])

    assert caught.value.kind == "foreign-file"


def test_a_file_without_field_ids_is_refused(lake: Lake) -> None:
    made(lake)
    with editing(lake) as edit:
        table = edit.catalog.load_table("default.t")
        path = written(table, "bare.parquet", NUMBERS)
        with pytest.raises(InvalidError) as caught:
            table.add_files([path])

    assert caught.value.kind == "no-field-ids"


def _with(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:  # Iceberg's JSON
    return lambda metadata: {
        **metadata,
        **{key.replace("_", "-"): one for key, one in changes.items()},
    }


@pytest.mark.parametrize(
    "change",
    [
        _with(format_version=1),
        _with(location="/elsewhere"),
        _with(properties={"write.data.path": "/elsewhere"}),
        _with(refs={"audit": {"snapshot-id": 1, "type": "branch"}}),
    ],
)
def test_metadata_that_instep_cannot_keep_is_refused(
    lake: Lake, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    content, _ = made(lake)
    root = lake.repo.root
    with pytest.raises(InvalidError) as caught:
        adopt(root, content, change(load_metadata(root, content)))

    assert caught.value.kind == "foreign-metadata"


def test_columns_that_were_added_at_once_get_other_ids_where_no_file_carries_them(
    lake: Lake,
) -> None:
    content, _ = made(lake)
    root = lake.repo.root
    told = load_metadata(root, content)
    field = {"id": 3, "name": "more", "required": False, "type": "double"}
    schema = {**told["schemas"][0], "schema-id": 1}
    schema["fields"] = [*schema["fields"], field]
    changed = {**told, "schemas": [*told["schemas"], schema], "current-schema-id": 1}

    first, second = adopt(root, content, changed), adopt(root, content, changed)

    ids = [load_metadata(root, one)["schemas"][-1]["fields"][-1]["id"] for one in (first, second)]
    assert ids == [3, 4]


def test_rows_written_under_an_id_that_another_branch_took_are_refused(lake: Lake) -> None:
    made(lake)
    with lake.repo.store.transaction() as tx:
        commit = lake.repo.resolve("work")
        create_ref(tx, "other", RefKind.BRANCH, commit, owner="ana", at=lake.repo.clock())
    rows = pa.table({"id": [9], "name": ["z"], "more": [0.5]})

    with editing(lake) as one, lake.edit("other", message="b", author="ana") as two:
        tables = [each.catalog.load_table("default.t") for each in (one, two)]
        with tables[0].update_schema() as change:
            change.add_column("more", DoubleType())
        with pytest.raises(InvalidError) as caught, tables[1].transaction() as tx:
            with tx.update_schema() as change:
                change.add_column("more", DoubleType())
            tx.append(rows)

    assert caught.value.kind == "field-id-clash"


def test_only_what_is_new_is_read(lake: Lake) -> None:
    content, _ = made(lake)
    folder = table_folder(lake.repo.root, content)
    known = [*folder.glob("data/*.parquet"), *folder.glob("metadata/*-m.avro")]
    away = {path: path.read_bytes() for path in known}
    for path in away:
        path.unlink()
        drop_copy(path)

    with editing(lake) as edit:
        edit.catalog.load_table("default.t").append(NUMBERS)
    for path, data in away.items():
        path.write_bytes(data)

    assert ids(lake) == [1, 1, 2, 2, 3, 3, 4]


def test_columns_without_statistics_prune_no_file(lake: Lake) -> None:
    rows = pa.table({"id": [1], "at": pa.array([0], pa.timestamp("us", "UTC"))})
    with editing(lake) as edit:
        table = edit.catalog.create_table(
            "default.t",
            schema=rows.schema,
            properties={"write.metadata.metrics.default": "none"},
        )
        table.append(rows)
        edit.delete("t", inside=("at", "1970-01-01", "1970-01-02"))

    assert ids(lake) == []


def test_nan_that_others_wrote_is_found_by_every_act(lake: Lake) -> None:
    """Their footers leave NaN out of the bounds by which DuckDB reads."""
    rows = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "x": [1.0, math.nan, 2.0]})
    with editing(lake) as edit:
        edit.catalog.create_table("default.t", schema=rows.schema).append(rows)
        edit.upsert("t", pa.table({"id": pa.array([4], pa.int64()), "x": [math.nan]}), key="x")
    assert ids(lake) == [1, 3, 4]

    with editing(lake) as edit:
        edit.catalog.load_table("default.t").append(rows.slice(1, 1))
        edit.delete("t", where="x > 100")
    assert ids(lake) == [1, 3]


def test_nans_that_another_did_not_count_are_not_told_as_none(lake: Lake) -> None:
    """pyiceberg does not count them; a count of zero would have readers leave the file out."""
    rows = pa.table({"id": [1, 2], "x": [math.nan, 2.0], "part": ["a", "b"]})
    with editing(lake) as edit:
        edit.create(
            "t", columns={"id": "long", "x": "double", "part": "string"}, partition=["part"]
        )
        edit.catalog.load_table("default.t").append(rows)
    with editing(lake) as edit:
        edit.delete("t", where="id = 2")  # the file of the other row is told of anew
    content = lake.branch("work").table("t").content

    table = bare_table(lake.repo.root, metadata_path(lake.repo.root, content))

    assert table.scan(row_filter="x is nan").to_arrow().column("id").to_pylist() == [1]
