"""A bit that a disk changed is refused by whatever would read it first, or write rows from it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from buckets import Bucket
from lakes import commit

from instep import faults
from instep.cli.backup import back_up
from instep.cli.erase_rows import erased_rows
from instep.engines.duckdb import DuckDB
from instep.engines.engine import DeleteFile
from instep.engines.schema import Column
from instep.errors import InternalError
from instep.history.intact import remember_written, written
from instep.history.objects import file_digest
from instep.history.places import drop_copy, here
from instep.history.refs import RefKind, create_ref
from instep.history.repository import MAIN, Repository
from instep.lake import Lake
from instep.tables import merge_target
from instep.tables.content import TableContent
from instep.tables.diff import diff_rows
from instep.tables.edit import TableEdit
from instep.tables.merge import merge_rows
from instep.tables.profile_keep import profile_table
from instep.tables.read import data_files, file_set, row_count
from instep.tables.rows import Rows, append_rows, upsert_rows
from instep.tables.upkeep import compact_table
from instep.tables.write import create_table, data_folder, replace

AT = datetime(2026, 1, 1, tzinfo=UTC)
RANDOM = random.Random(20260101)
NOTES = [RANDOM.randbytes(64) for _ in range(30)]
"""No writer can make them smaller, so each stands in its file as it is."""

Act = Callable[[Lake], object]


def numbered(*ids: int, count: float = 0.0) -> pa.Table:
    notes = pa.array([NOTES[n] for n in ids], pa.binary())
    return pa.table({"id": pa.array(ids, pa.int64()), "note": notes, "count": [count] * len(ids)})


@pytest.fixture
def lake(repo: Repository) -> Lake:
    """A branch with a table of two files; of the second the row 12 is deleted in place."""
    with repo.store.transaction() as tx:
        create_ref(tx, "work", RefKind.BRANCH, repo.resolve(MAIN), owner="ana", at=repo.clock())
    lake = Lake(repo)
    with editing(lake) as edit:
        edit.create("t", numbered(*range(10)))
        edit.append("t", numbered(*range(10, 20)))
        edit.create("u", numbered(20))
    table = content(lake)
    deletes = data_folder(repo.root, table) / "deletes.parquet"
    fields: list[pa.Field[Any]] = [
        pa.field("file_path", pa.string(), metadata={"PARQUET:field_id": "2147483546"}),
        pa.field("pos", pa.int64(), metadata={"PARQUET:field_id": "2147483545"}),
    ]
    second = data_files(repo.root, table)[1].path
    rows = pa.table({"file_path": [second], "pos": [2]}, schema=pa.schema(fields))
    pq.write_table(rows, deletes, compression="none", use_dictionary=False, write_statistics=False)
    file = DeleteFile(str(deletes), 1, deletes.stat().st_size, file_digest(deletes), second)
    without = replace(repo.root, table, (), (), deletes=[file], at=AT)
    commit(repo, {"table/t": without.to_content()}, "work")
    return lake


def editing(lake: Lake) -> Any:  # a context manager of TableEdit
    return lake.edit("work", message="work", author="ana")


def content(lake: Lake) -> TableContent:
    return lake.branch("work").table("t").content


def edited(act: Callable[[TableEdit], object]) -> Act:
    def acting(lake: Lake) -> None:
        with editing(lake) as edit:
            act(edit)

    return acting


def compacted(lake: Lake) -> None:
    assert compact_table(lake.repo, "work", "t", lambda content: False).groups


def changed_by_pyiceberg(edit: TableEdit) -> None:
    edit.catalog.load_table("default.t").delete("id = 1 or id = 11")


WRITERS: dict[str, Act] = {
    "upsert": edited(lambda edit: edit.upsert("t", numbered(1, 11), key="id")),
    "delete": edited(lambda edit: edit.delete("t", where="id = 1 or id = 11")),
    "overwrite": edited(lambda edit: edit.overwrite("t", numbered(1), where="id = 1 or id = 11")),
    "copy": edited(lambda edit: edit.append("u", "select * from t")),
    "pyiceberg": edited(changed_by_pyiceberg),
    "compact": compacted,
    "erase": lambda lake: erased_rows(
        lake.repo, "t", "id = 1 or id = 11", "Request 4711.", "ben", False
    ),
}
"""Acts that write rows from both files, all of which concern others than the damaged one."""

READERS: dict[str, Act] = {
    "arrow": lambda lake: lake.branch("work").table("t").arrow(),
    "polars": lambda lake: lake.branch("work").table("t").polars(),
    "profile": lambda lake: profile_table(lake.repo.root, content(lake)),
    "diff": lambda lake: diff_rows(lake.repo.root, None, content(lake), ["id"]),
}


@dataclass(frozen=True, slots=True)
class Damage:
    """A file with one bit flipped; `restore` puts the byte back."""

    path: Path
    name: str
    right: bytes

    def restore(self) -> None:
        self.path.write_bytes(self.right)


def flipped(root: Path, path: Path, what: bytes, digest: str, *, silently: bool) -> Damage:
    """Flips a bit of a value; silently, as a disk does it, so that no time of the file tells."""
    right = path.read_bytes()
    place = right.index(what)
    path.write_bytes(right[:place] + bytes([right[place] ^ 1]) + right[place + 1 :])
    told = path.stat()
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns + 1_000_000_000))
    if silently:
        remember_written([written(path, digest)])
    return Damage(path, path.relative_to(root).as_posix(), right)


def flipped_data(lake: Lake, *, silently: bool) -> Damage:
    file = data_files(lake.repo.root, content(lake))[0]
    return flipped(lake.repo.root, Path(file.path), NOTES[3], file.digest, silently=silently)


def flipped_deletes(lake: Lake, *, silently: bool) -> Damage:
    """Says that another row is deleted than it was."""
    ((file,),) = file_set(lake.repo.root, content(lake), "t").deletes.values()
    place = (2).to_bytes(8, "little")
    return flipped(lake.repo.root, Path(file.path), place, file.digest, silently=silently)


@contextmanager
def refused(damage: Damage) -> Iterator[None]:
    with pytest.raises(InternalError) as caught:
        yield
    assert caught.value.kind == "damaged-object"
    assert caught.value.facts["path"] == damage.name
    assert damage.name in caught.value.message
    assert '"instep doctor"' in caught.value.message


@pytest.mark.parametrize("damaged", [flipped_data, flipped_deletes])
@pytest.mark.parametrize("act", WRITERS)
def test_no_row_is_written_from_a_file_that_a_disk_changed_since_it_was_read(
    lake: Lake, act: str, damaged: Callable[..., Damage]
) -> None:
    whole = lake.branch("work").table("t").arrow().sort_by("id")
    before = lake.repo.resolve("work")
    damage = damaged(lake, silently=True)

    with refused(damage):
        WRITERS[act](lake)

    assert lake.repo.resolve("work") == before
    damage.restore()
    assert lake.branch("work").table("t").arrow().sort_by("id") == whole
    WRITERS[act](lake)
    found = lake.branch("work").table("u" if act == "copy" else "t").arrow().to_pylist()
    assert all(row["note"] == NOTES[row["id"]] for row in found)
    assert 12 not in {row["id"] for row in found}


@pytest.mark.parametrize("damaged", [flipped_data, flipped_deletes])
@pytest.mark.parametrize("act", [*READERS, *WRITERS])
def test_a_file_that_changed_is_refused_when_it_is_first_read_again(
    lake: Lake, act: str, damaged: Callable[..., Damage]
) -> None:
    before = lake.repo.resolve("work")
    damage = damaged(lake, silently=False)
    acting = {**READERS, **WRITERS}[act]

    with refused(damage):
        acting(lake)
    with refused(damage):  # what was found wrong is not taken for read
        acting(lake)

    assert lake.repo.resolve("work") == before
    damage.restore()
    acting(lake)


def test_rows_are_not_counted_by_a_delete_file_that_changed(lake: Lake) -> None:
    damage = flipped_deletes(lake, silently=False)

    with refused(damage):
        row_count(lake.repo.root, content(lake))

    damage.restore()
    assert row_count(lake.repo.root, content(lake)) == 19


@pytest.mark.parametrize("damaged", [flipped_data, flipped_deletes])
def test_a_backup_has_no_file_that_a_disk_changed(
    lake: Lake, tmp_path: Path, damaged: Callable[..., Damage]
) -> None:
    damage = damaged(lake, silently=True)

    with pytest.raises(InternalError) as caught:
        back_up(lake.repo, tmp_path / "backup")

    assert caught.value.kind == "damaged-lake"
    assert damage.name in caught.value.message
    damage.restore()
    back_up(lake.repo, tmp_path / "backup")


@pytest.mark.parametrize("whose", ["ours", "theirs"])
@pytest.mark.parametrize("least", [0, 1 << 30], ids=["columns", "files"])
def test_no_row_is_merged_from_a_file_that_a_disk_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str, least: int
) -> None:
    monkeypatch.setattr(merge_target, "_TAKEN_APART_BYTES", least)
    base = created(tmp_path)
    ours, theirs = (upserted(tmp_path, base, n, 7.0) for n in (1, 2))
    state = ours if whose == "ours" else theirs
    (file,) = (
        one for one in data_files(tmp_path, state) if NOTES[3] in Path(one.path).read_bytes()
    )
    damage = flipped(tmp_path, Path(file.path), NOTES[3], file.digest, silently=True)

    with refused(damage):
        merge_rows(tmp_path, base, ours, theirs, ["id"], at=AT)

    damage.restore()
    merged = merge_rows(tmp_path, base, ours, theirs, ["id"], at=AT).content
    assert merged is not None
    assert read(tmp_path, merged) == {n: (NOTES[n], 7.0 if n in (1, 2) else 0.0) for n in range(5)}


def test_a_file_is_read_once_to_be_checked_and_not_at_all_by_who_wrote_it(tmp_path: Path) -> None:
    table = upserted(tmp_path, created(tmp_path), 1, 7.0)
    rows = read(tmp_path, table)
    memory = tmp_path / "cache" / "checked" / table.uuid
    with checks() as seen:
        assert read(tmp_path, table) == rows
        assert seen == []
        memory.unlink()  # as on a machine that has not read them yet
        assert read(tmp_path, table) == rows
        assert len(seen) == 2
        assert read(tmp_path, table) == rows
        assert len(seen) == 2
        upserted(tmp_path, table, 1, 8.0)  # writes one of them again
        assert len(seen) == 3


@pytest.mark.parametrize("told", [b"", b"x", b"x" * 16, b"x" * 33, None])
def test_a_memory_that_is_damaged_is_an_empty_one(tmp_path: Path, told: bytes | None) -> None:
    table = upserted(tmp_path, created(tmp_path), 1, 7.0)
    memory = tmp_path / "cache" / "checked" / table.uuid
    memory.unlink()
    if told is None:
        memory.parent.rmdir()
        memory.parent.touch()  # nothing can be written below it, as in a lake that is only read
    else:
        memory.write_bytes(told)
    with checks() as seen:
        for _ in range(2):
            assert len(read(tmp_path, table)) == 5
            assert len(seen) == 2


def test_processes_share_what_they_have_checked(tmp_path: Path) -> None:
    """Each has read the memory before another adds to it."""
    table = upserted(tmp_path, created(tmp_path), 1, 7.0)
    (tmp_path / "cache" / "checked" / table.uuid).unlink()
    script = (
        "import sys\nfrom pathlib import Path\nfrom test_damage import checks, read\n"
        "from instep.tables.content import TableContent\n"
        "table = TableContent(*sys.argv[2:])\n"
        "with checks() as seen:\n    read(Path(sys.argv[1]), table)\nprint(len(seen))\n"
    )
    words = (str(tmp_path), table.metadata, table.digest, table.uuid, table.files)
    with checks() as seen:
        assert told_by(script, *words) == "2"
        read(tmp_path, table)
        assert seen == []
        more = upserted(tmp_path, table, 2, 9.0)
        seen.clear()
        words = (str(tmp_path), more.metadata, more.digest, more.uuid, more.files)
        assert told_by(script, *words) == "0"


def told_by(script: str, *words: str) -> str:
    """Returns what a process of its own prints."""
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@contextmanager
def checks() -> Iterator[list[str]]:
    """Gives a list that grows by one for each file that this process reads to check it."""
    seen: list[str] = []

    def watcher(place: str) -> None:
        if place == "file.check":
            seen.append(place)

    faults.watch(watcher)
    try:
        yield seen
    finally:
        faults.watch(None)


def test_of_a_wrong_copy_another_is_brought_and_a_wrong_object_on_s3_is_refused(
    bucket: Bucket, tmp_path: Path
) -> None:
    root = bucket.root(tmp_path)
    table = created(root)
    rows = read(root, table)
    ((name, digest),) = file_set(root, table, "t").digests.items()
    path = root / name
    copy = here(path)

    with checks() as seen:
        read(root, table)
        assert seen == []  # it was written here, and a link to it changes nothing
    damage = flipped(tmp_path, copy, NOTES[3], digest, silently=False)
    assert read(root, table) == rows
    assert copy.read_bytes() == damage.right

    wrong = damage.right.replace(NOTES[3], NOTES[4])
    bucket.client().put_object(Bucket=bucket.name, Key=f"lake/{damage.name}", Body=wrong)
    drop_copy(path)
    with refused(damage):
        read(root, table)
    with refused(damage):
        upserted(root, table, 1, 7.0)
    bucket.client().put_object(Bucket=bucket.name, Key=f"lake/{damage.name}", Body=damage.right)
    assert read(root, upserted(root, table, 1, 7.0))[3] == rows[3]


def created(root: Path) -> TableContent:
    kinds = {"id": "long", "note": "binary", "count": "double"}
    columns = [Column(0, name, kind) for name, kind in kinds.items()]
    table = create_table(root, "t", columns, at=AT)
    return append_rows(root, table, arriving(numbered(*range(5))), at=AT)


def upserted(root: Path, table: TableContent, number: int, count: float) -> TableContent:
    return upsert_rows(root, table, arriving(numbered(number, count=count)), ["id"], at=AT)


def arriving(rows: pa.Table) -> Rows:
    return Rows("SELECT * FROM arriving", stream=rows.to_reader())


def read(root: Path, table: TableContent) -> dict[int, tuple[bytes, float]]:
    with DuckDB(root / "staging") as engine:
        engine.view(file_set(root, table, "t"))
        return {n: (note, count) for n, note, count in engine.rows("SELECT * FROM t")}
