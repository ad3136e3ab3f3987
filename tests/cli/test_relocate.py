"""A lake under another root: refused, made at home by command, and never read from the original."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from bare import bare_table
from buckets import Bucket, make_bucket
from click.testing import CliRunner
from commands import KILLED, run
from databases import on_both, on_every
from lakes import COLUMNS, appended, commit, fill_lake

from instep.cli.doctor import doctor
from instep.cli.relocate import relocate_lake
from instep.cli.wholeness import check
from instep.clock import Clock
from instep.engines.duckdb import DuckDB
from instep.engines.engine import DeleteFile
from instep.engines.schema import Column, Schema
from instep.errors import ConflictError, InternalError, InvalidError, RefusedError
from instep.history.places import on_s3
from instep.history.repository import MARK, Repository, home_of, open_repository
from instep.history.store import Database
from instep.lake import Lake
from instep.tables.content import TableContent
from instep.tables.read import data_files, file_set, metadata_path, row_count
from instep.tables.write import create_table, data_folder, replace


def moved(repo: Repository, tmp_path: Path) -> Path:
    repo.store.close()
    elsewhere = tmp_path / "elsewhere"
    repo.root.rename(elsewhere)
    return elsewhere


def table_at(repo: Repository, commit_id: str) -> TableContent:
    return TableContent.from_content(repo.content(commit_id, "table/sales"))


def arrow(path: Path) -> Any:
    from pyiceberg.table import StaticTable

    return StaticTable.from_metadata(str(path)).scan().to_arrow()


@on_both
def test_a_moved_lake_is_whole_under_its_new_root_and_bare_iceberg_reads_it(
    repo: Repository, tmp_path: Path, clock: Clock, database: Database | None
) -> None:
    filled = fill_lake(repo)
    rows = [len(arrow(metadata_path(repo.root, table_at(repo, one)))) for one in filled.commits]
    before = [repo.commit(one) for one in filled.commits]
    root = moved(repo, tmp_path)
    done = relocate_lake(root, clock, "moved", database)
    there = open_repository(root, clock, database)
    check(there)
    assert done.states == len(rows) == 4
    assert [there.commit(one) for one in filled.commits] == before
    for identifier, count in zip(filled.commits, rows, strict=True):
        path = metadata_path(there.root, table_at(there, identifier))
        assert path.is_relative_to(root)
        assert len(arrow(path)) == count
        assert str(repo.root) not in path.read_text()
    there.store.close()


def test_a_moved_lake_keeps_its_id_and_a_copied_one_gets_its_own(
    repo: Repository, tmp_path: Path, clock: Clock
) -> None:
    fill_lake(repo)
    with repo.store.reading() as tx:
        original = home_of(tx)
    copy = tmp_path / "copy"
    repo.store.close()
    shutil.copytree(repo.root, copy)
    with pytest.raises(RefusedError, match="still in") as caught:
        relocate_lake(copy, clock, "moved")
    assert caught.value.kind == "original-there"
    relocate_lake(copy, clock, "copied")
    there = open_repository(copy, clock)
    check(there)
    with there.store.reading() as tx:
        assert home_of(tx).id != original.id
    root = moved(repo, tmp_path)
    assert relocate_lake(root, clock, "moved").lake == original.id


def test_what_is_written_after_a_move_names_the_new_root_even_upon_a_state_no_ref_reaches(
    repo: Repository, tmp_path: Path, clock: Clock
) -> None:
    filled = fill_lake(repo)
    garbage = appended(repo, filled.table, range(100, 103))
    root = moved(repo, tmp_path)
    relocate_lake(root, clock, "moved")
    there = open_repository(root, clock)
    after = appended(there, garbage, range(200, 203))
    commit(there, {"table/sales": after.to_content()})
    check(there)
    assert len(arrow(metadata_path(root, after))) == 12
    assert str(repo.root) not in metadata_path(root, after).read_text()


def test_a_lake_moved_twice_and_back_is_whole_each_time(
    repo: Repository, tmp_path: Path, clock: Clock
) -> None:
    filled = fill_lake(repo)
    home, place = repo.root, repo.root
    repo.store.close()
    for target in (tmp_path / "b", tmp_path / "c", home):
        place.rename(target)
        relocate_lake(target, clock, "moved")
        there = open_repository(target, clock)
        commit(there, {"table/sales": appended(there, table_at(there, there.resolve("main")),
                                               range(50, 52)).to_content()})  # fmt: skip
        check(there)
        assert len(arrow(metadata_path(target, filled.table))) == 6
        there.store.close()
        place = target


def test_a_flipped_byte_in_what_a_move_wrote_is_found(
    repo: Repository, tmp_path: Path, clock: Clock
) -> None:
    fill_lake(repo)
    before = set(repo.root.rglob("*"))
    names = {path.relative_to(repo.root) for path in before}
    root = moved(repo, tmp_path)
    relocate_lake(root, clock, "moved")
    there = open_repository(root, clock)
    made = [
        path
        for path in (root / "tables").rglob("*")
        if path.is_file() and path.relative_to(root) not in names
    ]
    assert len(made) >= 12
    for path in made:
        data = path.read_bytes()
        path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
        with pytest.raises(InternalError, match="damaged"):
            check(there)
        path.write_bytes(data)
    check(there)


def test_a_lake_at_home_is_not_relocated(repo: Repository, clock: Clock) -> None:
    with pytest.raises(RefusedError) as caught:
        relocate_lake(repo.root, clock, "moved")
    assert caught.value.kind == "lake-at-home"


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_copied_files_do_not_take_over_the_catalog_of_the_original(
    repo: Repository, tmp_path: Path, clock: Clock, database: Database
) -> None:
    shutil.copytree(repo.root, tmp_path / "copy")
    with pytest.raises(RefusedError) as caught:
        relocate_lake(tmp_path / "copy", clock, "copied", database)
    assert caught.value.kind == "shared-catalog"
    assert open_repository(repo.root, clock, database).resolve("main")


def test_a_script_that_does_not_say_which_is_told_to(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "instep.yaml").write_text("lake: elsewhere\n")
    moved(repo, tmp_path)
    ended = CliRunner().invoke(doctor, ["--relocate", "--project", str(tmp_path)])
    assert isinstance(ended.exception, InvalidError)
    assert ended.exception.kind == "moved-or-copied"
    ended = CliRunner().invoke(doctor, ["--project", str(tmp_path)])
    assert isinstance(ended.exception, RefusedError)
    assert "instep doctor --relocate moved" in ended.exception.message
    ended = CliRunner().invoke(doctor, ["--relocate", "moved", "--project", str(tmp_path)])
    assert ended.exit_code == 0, ended.output
    ended = CliRunner().invoke(doctor, ["--project", str(tmp_path)])
    assert "is whole" in ended.output


@pytest.mark.parametrize(
    "fault",
    ["file.rename.before:4", "tables.replacement.before", "tables.replacement.after:3",
     "relocate.record.before"],
)  # fmt: skip
def test_a_move_that_was_killed_is_refused_as_before_and_goes_on(
    repo: Repository, tmp_path: Path, clock: Clock, fault: str
) -> None:
    fill_lake(repo)
    root = moved(repo, tmp_path)
    (tmp_path / "instep.yaml").write_text("lake: elsewhere\n")
    words = ("doctor", "--relocate", "moved")
    assert run(*words, at=tmp_path, fault=fault).code == KILLED
    with pytest.raises(RefusedError, match="--relocate"):
        open_repository(root, clock)
    assert run(*words, at=tmp_path).code == 0
    check(open_repository(root, clock))


def with_deleted_rows(repo: Repository) -> TableContent:
    """Commits a table of six rows, 0 to 5, of which two are deleted by their position."""
    table = create_table(repo.root, "sales", COLUMNS, at=repo.clock())
    for first in (0, 3):
        table = appended(repo, table, range(first, first + 3))
    live = data_files(repo.root, table)[0].path
    columns = (Column(2147483546, "file_path", "string", True), Column(2147483545, "pos", "long"))
    with DuckDB(repo.root / "staging") as engine:
        (made,) = engine.write(
            f"select '{live}' as file_path, unnest([0, 2]) as pos",
            Schema(columns),
            data_folder(repo.root, table),
        )
    delete = DeleteFile(made.path, made.rows, made.size_bytes, made.digest, live)
    table = replace(repo.root, table, (), (), deletes=[delete], at=repo.clock())
    commit(repo, {"table/sales": table.to_content()})
    return table


def test_a_delete_file_that_a_disk_changed_is_not_written_again_for_another_root(
    repo: Repository, tmp_path: Path, clock: Clock
) -> None:
    table = with_deleted_rows(repo)
    ((file,),) = file_set(repo.root, table, "t").deletes.values()
    deletes = Path(file.path).relative_to(repo.root)
    root = moved(repo, tmp_path)
    right = (root / deletes).read_bytes()
    (root / deletes).write_bytes(right[:10] + bytes([right[10] ^ 1]) + right[11:])

    with pytest.raises(InternalError, match=str(deletes)) as caught:
        relocate_lake(root, clock, "moved")

    assert caught.value.kind == "damaged-object"
    (root / deletes).write_bytes(right)
    relocate_lake(root, clock, "moved")
    check(open_repository(root, clock))


@on_every
def test_rows_that_were_deleted_by_position_stay_deleted_wherever_a_lake_goes(
    repo: Repository,
    tmp_path: Path,
    clock: Clock,
    database: Database | None,
    request: pytest.FixtureRequest,
) -> None:
    table = with_deleted_rows(repo)
    repo.store.close()
    if on_s3(repo.root):
        root = make_bucket(request.getfixturevalue("s3_url")).root(tmp_path / "elsewhere")
        for path in repo.root.rglob("*"):
            (root / path.relative_to(repo.root).as_posix()).write_bytes(path.read_bytes())
        (repo.root / MARK).unlink()
    else:
        root = moved(repo, tmp_path)
    relocate_lake(root, clock, "moved", database)
    there = open_repository(root, clock, database)
    check(there)
    rows = Lake(there).branch("main").table("sales").sql("select n from sales order by n")
    assert rows.column("n").to_pylist() == [1, 3, 4, 5]
    assert bare_rows(root, table) == 4
    after = appended(there, table, range(6, 8))
    commit(there, {"table/sales": after.to_content()})
    check(there)
    assert bare_rows(root, after) == row_count(root, after) == 6
    there.store.close()


def test_who_reads_a_state_that_a_move_left_as_it_was_sees_no_deleted_row(
    repo: Repository, tmp_path: Path, clock: Clock
) -> None:
    table = with_deleted_rows(repo)
    repo.store.close()
    root = moved(repo, tmp_path)
    with DuckDB(root / "staging") as engine:
        engine.view(file_set(root, table, "t"))
        assert sorted(engine.rows("select n from t")) == [(1,), (3,), (4,), (5,)]


# On S3


def uploaded(folder: Path, root: Path) -> None:
    """Copies a lake's files to a place on S3, as any tool for it does."""
    for part in ("objects", "tables"):
        for path in (folder / part).rglob("*"):
            if path.is_file():
                (root / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())


def bare_rows(root: Path, table: TableContent) -> int:
    return len(bare_table(root, metadata_path(root, table)).scan().to_arrow())


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_a_lake_goes_from_a_folder_to_s3_and_from_there_to_another_bucket(
    repo: Repository, tmp_path: Path, clock: Clock, database: Database, bucket: Bucket
) -> None:
    filled = fill_lake(repo)
    repo.store.close()
    first = bucket.root(tmp_path / "one")
    uploaded(repo.root, first)
    with pytest.raises(RefusedError) as caught:
        relocate_lake(first, clock, "moved", database)
    assert caught.value.kind == "original-there"
    shutil.rmtree(repo.root)
    assert relocate_lake(first, clock, "moved", database).states == 4
    there = open_repository(first, clock, database)
    check(there)
    assert [bare_rows(first, table_at(there, one)) for one in filled.commits] == [3, 6, 9, 6]
    there.store.close()

    second = make_bucket(bucket.url).root(tmp_path / "two")
    for path in first.rglob("*"):
        (second / path.relative_to(first).as_posix()).write_bytes(path.read_bytes())
    with pytest.raises(RefusedError) as refused:
        open_repository(second, clock, database)
    assert refused.value.kind == "lake-moved"
    with pytest.raises(RefusedError) as caught:
        relocate_lake(second, clock, "moved", database)
    assert caught.value.kind == "original-there"
    (first / MARK).unlink()
    relocate_lake(second, clock, "moved", database)
    there = open_repository(second, clock, database)
    check(there)
    after = appended(there, table_at(there, filled.commits[-1]), range(50, 52))
    commit(there, {"table/sales": after.to_content()})
    assert bare_rows(second, after) == 8
    assert bucket.name not in (second / after.metadata).read_text()


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_a_lake_does_not_move_to_the_place_of_another(
    repo: Repository, tmp_path: Path, clock: Clock, database: Database, bucket: Bucket
) -> None:
    repo.store.close()
    shutil.rmtree(repo.root)
    place = bucket.root(tmp_path / "other")
    (place / MARK).write_bytes(b"another")
    with pytest.raises(ConflictError) as caught:
        relocate_lake(place, clock, "moved", database)
    assert caught.value.kind == "lake-exists"
