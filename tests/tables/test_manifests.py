"""Manifests: merged by tiers, bounded after many commits, read no further than needed."""

from __future__ import annotations

import hashlib
import random
import uuid
from collections import Counter
from dataclasses import replace as with_changes
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bare import bare_table
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.clock import Window
from instep.engines.duckdb import DuckDB
from instep.engines.engine import ColumnStatistics, DeleteFile, Slice, WrittenFile
from instep.engines.schema import Column
from instep.errors import ConflictError
from instep.history.objects import file_digest, write_durably
from instep.history.repository import Repository
from instep.tables.content import TableContent
from instep.tables.copies import CACHE, load_counted
from instep.tables.manifest import MERGED_MANIFESTS, Manifest, groups_to_write
from instep.tables.partition import Part
from instep.tables.reach import files_of
from instep.tables.read import (
    DataFile,
    data_files,
    file_count,
    file_set,
    files_digest,
    load_manifests,
    load_metadata,
    row_count,
    schema_of,
    table_folder,
)
from instep.tables.verify import required_files
from instep.tables.write import append, create_table, data_folder, replace, set_columns

AT = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = (Column(0, "n", "long"), Column(0, "at", "timestamptz"))


def _file(root: Path, table: TableContent, number: int) -> WrittenFile:
    """A record of a file that is not there: planning and appending never look."""
    at = (AT + timedelta(hours=number)).isoformat()
    path = data_folder(root, table) / f"{number}.parquet"
    statistics = (
        ColumnStatistics(1, 10, 5, 0, 0, str(number), str(number + 5)),
        ColumnStatistics(2, 10, 5, 0, 0, at, at),
    )
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return WrittenFile(str(path), 5, 100, digest, statistics)


def _manifests(root: Path, table: TableContent) -> tuple[Manifest, ...]:
    return load_manifests(table_folder(root, table), load_metadata(root, table))


def _tier(files: int) -> int:
    return sum(files >= MERGED_MANIFESTS**tier for tier in range(1, 8))


def _appended_often(root: Path, appends: int) -> None:

    table = create_table(root, "t", COLUMNS, at=AT)
    files = []
    sizes = []
    for number in range(appends):
        files.append(_file(root, table, number))
        table = append(root, table, files[-1:], at=AT + timedelta(seconds=number))
        if number in (appends // 2, appends - 1):
            sizes.append((root / table.metadata).stat().st_size)
        if number % 10 == 5:
            # A change of columns between appends leaves no schema behind for ever.
            columns = (*COLUMNS, Column(0, f"c{number % 20}", "long"))
            table = set_columns(root, table, columns, at=AT)

    assert data_files(root, table) == tuple(files)
    assert table.files == files_digest([file.digest for file in files])
    assert row_count(root, table) == 5 * appends
    manifests = _manifests(root, table)
    assert len(manifests) <= MERGED_MANIFESTS * (1 + _tier(appends))
    assert sum(one.live_files for one in manifests) == appends
    metadata = load_metadata(root, table)
    assert len(metadata["snapshots"]) == 10
    assert len(metadata["schemas"]) <= 11
    assert len(metadata["snapshot-log"]) == 10
    assert metadata["metadata-log"] == []
    assert sizes[1] < sizes[0] * 1.2 + 500
    static = bare_table(root, table.metadata)
    assert {task.file.file_path for task in static.scan().plan_files()} == {f.path for f in files}


def test_metadata_and_manifests_stay_few_after_a_hundred_appends(tmp_path: Path) -> None:
    _appended_often(tmp_path, 100)


@pytest.mark.long
def test_metadata_and_manifests_stay_few_after_ten_thousand_appends(tmp_path: Path) -> None:
    _appended_often(tmp_path, 10_000)


@given(st.lists(st.tuples(st.integers(1, 3000), st.booleans()), max_size=300))
@settings(max_examples=50)
def test_merging_keeps_every_file_one_tier_at_a_time_until_each_has_few_manifests(
    found: list[tuple[int, bool]],
) -> None:
    files = sum(size for size, _ in found)
    while True:
        sizes, kinds = [size for size, _ in found], [kind for _, kind in found]
        groups = groups_to_write(sizes, kinds)
        assert sorted(index for group in groups for index in group) == list(range(len(found)))
        merged = [group for group in groups if len(group) > 1]
        if not merged:
            break
        (one,) = merged
        assert len({(_tier(sizes[index]), kinds[index]) for index in one}) == 1
        found = [(sum(sizes[index] for index in group), kinds[group[0]]) for group in groups]

    assert sum(sizes) == files
    tiers = Counter((_tier(size), kind) for size, kind in found)
    assert all(count < MERGED_MANIFESTS for count in tiers.values())


def test_what_is_written_anyway_comes_into_the_merge_of_its_kind_alone() -> None:
    sizes, kinds = [*[8] * 8, 1, 70, 1], [*["data"] * 9, "data", "deletes"]

    assert groups_to_write(sizes, kinds, [8, 9, 10]) == [[*range(10)], [10]]
    assert groups_to_write(sizes, kinds, [8]) == [[*range(9)], [9], [10]]
    assert groups_to_write(sizes[1:], kinds[1:], [7, 8, 9]) == [[index] for index in range(10)]


def test_an_append_of_one_file_writes_one_manifest_of_at_most_eight_older_ones() -> None:
    sizes: list[int] = []
    for appends in range(1, 5001):
        new = len(sizes)
        groups = groups_to_write([*sizes, 1], [False] * (new + 1), [new])
        written = [group for group in groups if len(group) > 1 or new in group]
        assert len(written) == 1
        assert len([index for index in written[0] if index != new]) <= MERGED_MANIFESTS
        sizes = [sum([*sizes, 1][index] for index in group) for group in groups]
        assert len(sizes) <= MERGED_MANIFESTS * (1 + _tier(appends))


def test_appends_and_replacements_in_any_order_hold_what_a_plain_list_holds(
    tmp_path: Path,
) -> None:
    rng = random.Random(7)
    table = create_table(tmp_path, "t", COLUMNS, at=AT)
    live: list[DataFile] = []
    for number in range(150):
        gone = rng.sample(live, min(len(live), rng.choice([0, 0, 0, 1, 4])))
        added = [_file(tmp_path, table, number * 100 + n) for n in range(rng.choice([1, 1, 2, 40]))]
        table = replace(tmp_path, table, added, [file.path for file in gone], at=AT)
        live = [file for file in live if file not in gone] + added

    assert data_files(tmp_path, table) == tuple(live)
    assert file_count(tmp_path, table) == len(live)
    assert row_count(tmp_path, table) == 5 * len(live)
    assert table.files == files_digest([file.digest for file in live])
    window = Window(AT + timedelta(hours=300), AT + timedelta(hours=333))
    planned = data_files(tmp_path, table, Slice("at", window))
    assert planned == tuple(file for file in live if 300 <= int(Path(file.path).stem) < 333)


def test_what_a_process_keeps_of_what_it_wrote_is_what_it_would_read(tmp_path: Path) -> None:
    rng = random.Random(7)
    table = create_table(tmp_path, "t", COLUMNS, at=AT, partition=[Part("n", "bucket[4]")])
    live: list[DataFile] = []
    kept = [(table, _told(tmp_path, table))]
    for number in range(80):
        gone = [file.path for file in rng.sample(live, min(len(live), rng.choice([0, 0, 0, 2])))]
        file = _file(tmp_path, table, number)
        origins = tuple(hashlib.sha256(f"{number} {n}".encode()).hexdigest() for n in range(2))
        file = with_changes(file, partition=("1",), origins=origins if number % 3 else ())
        table = replace(tmp_path, table, [file], gone, at=AT)
        live = [*(one for one in live if one.path not in gone), file]
        kept.append((table, _told(tmp_path, table)))
        if number % 10 == 5:
            table = set_columns(tmp_path, table, (*COLUMNS, Column(0, f"c{number}", "long")), at=AT)
            kept.append((table, _told(tmp_path, table)))
    CACHE.clear()

    for table, told in kept:
        assert _told(tmp_path, table) == told


def _told(root: Path, table: TableContent) -> tuple[object, ...]:
    folder, manifests = table_folder(root, table), _manifests(root, table)
    return load_metadata(root, table), manifests, [load_counted(folder, one) for one in manifests]


def test_a_manifest_outside_the_slice_is_not_opened(tmp_path: Path) -> None:
    table = create_table(tmp_path, "t", COLUMNS, at=AT)
    for number in range(3):
        table = append(tmp_path, table, [_file(tmp_path, table, number)], at=AT)
    folder = table_folder(tmp_path, table) / "metadata"
    for one in _manifests(tmp_path, table)[:2]:
        (folder / one.entries).unlink()
    window = Window(AT + timedelta(hours=2), AT + timedelta(hours=3))

    assert len(file_set(tmp_path, table, "t", Slice("at", window)).files) == 1


def _with_deletes(root: Path) -> tuple[TableContent, DeleteFile]:
    """A table of two files of ten rows, and a file that deletes rows 2 and 5 of the first."""
    table = create_table(root, "t", COLUMNS, at=AT)
    for first in (0, 10):
        at = "TIMESTAMPTZ '2020-01-01 00:00:00+00' AS at"
        sql = f"SELECT range + {first} AS n, {at} FROM range(10)"
        with DuckDB(root / "staging") as engine:
            files = engine.write(sql, schema_of(root, table), data_folder(root, table))
        table = append(root, table, files, at=AT)
    data_file = data_files(root, table)[0].path
    return table, _delete_file(root, table, data_file, [2, 5])


def _delete_file(
    root: Path, table: TableContent, data_file: str, positions: list[int]
) -> DeleteFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = data_folder(root, table) / f"{uuid.uuid4().hex}-deletes.parquet"
    ids = {"file_path": "2147483546", "pos": "2147483545"}
    schema = pa.schema(
        [
            pa.field(name, kind, nullable=False, metadata={"PARQUET:field_id": ids[name]})
            for name, kind in (("file_path", pa.string()), ("pos", pa.int64()))
        ]
    )
    rows: dict[str, list[Any]] = {"file_path": [data_file] * len(positions), "pos": positions}
    file = pa.BufferOutputStream()
    pq.write_table(pa.table(rows, schema), file)
    write_durably(path, file.getvalue().to_pybytes())
    size = path.stat().st_size
    return DeleteFile(str(path), len(positions), size, file_digest(path), data_file)


def _numbers(root: Path, table: TableContent) -> list[int]:

    found: Any = bare_table(root, table.metadata).scan().to_arrow()
    return sorted(found["n"].to_pylist())


def test_delete_files_are_named_with_the_data_file_they_apply_to(repo: Repository) -> None:
    before, deletes = _with_deletes(repo.root)
    table = replace(repo.root, before, (), (), deletes=[deletes], at=AT)
    first, second = data_files(repo.root, table)

    assert _numbers(repo.root, table) == [0, 1, 3, 4, *range(6, 20)]
    assert file_set(repo.root, table, "t").deletes == {first.path: (deletes,)}
    assert file_count(repo.root, table) == 2
    assert table.files == files_digest([first.digest, second.digest, deletes.digest])
    assert deletes.path in {str(one.path) for one in required_files(repo.root, table, set())}
    needed = files_of(repo, table.uuid, [table.to_content()])
    assert f"data/{Path(deletes.path).name}" in needed


def test_rows_are_counted_without_those_that_are_deleted(tmp_path: Path) -> None:
    before, deletes = _with_deletes(tmp_path)
    table = replace(tmp_path, before, (), (), deletes=[deletes], at=AT)

    assert row_count(tmp_path, table) == 18


def test_a_delete_file_goes_with_its_data_file_and_stays_with_others(tmp_path: Path) -> None:
    before, deletes = _with_deletes(tmp_path)
    table = replace(tmp_path, before, (), (), deletes=[deletes], at=AT)
    first, second = data_files(tmp_path, table)
    without_second = replace(tmp_path, table, (), [second.path], at=AT)
    without_first = replace(tmp_path, table, (), [first.path], at=AT)

    assert file_set(tmp_path, without_second, "t").deletes == {first.path: (deletes,)}
    assert _numbers(tmp_path, without_second) == [0, 1, 3, 4, 6, 7, 8, 9]
    assert file_set(tmp_path, without_first, "t").deletes == {}
    assert _numbers(tmp_path, without_first) == list(range(10, 20))
    assert without_first.files == files_digest([second.digest])
    assert row_count(tmp_path, without_first) == 10


def test_delete_files_reach_no_newer_file_and_survive_appends(tmp_path: Path) -> None:
    before, deletes = _with_deletes(tmp_path)
    table = replace(tmp_path, before, (), (), deletes=[deletes], at=AT)
    first, _ = data_files(tmp_path, table)
    for number in range(MERGED_MANIFESTS + 3):
        table = append(tmp_path, table, [_file(tmp_path, table, number)], at=AT)

    assert list(file_set(tmp_path, table, "t").deletes) == [first.path]


def test_a_delete_file_of_no_live_file_is_refused(tmp_path: Path) -> None:
    before, deletes = _with_deletes(tmp_path)
    gone = replace(tmp_path, before, (), [data_files(tmp_path, before)[0].path], at=AT)

    with pytest.raises(ConflictError) as caught:
        replace(tmp_path, gone, (), (), deletes=[deletes], at=AT)
    assert caught.value.kind == "file-not-live"
