"""Erasure in a lake of several machines: nothing is left in the store, nor read elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from buckets import Bucket
from commands import KILLED, run_script
from storm import Fault, storm
from traces import holds

from instep import faults
from instep.cli.erase_rows import ErasedRows, erased_rows
from instep.cli.wholeness import check
from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column
from instep.errors import NotFoundError, UnavailableError
from instep.history.edits import Edit, publish
from instep.history.erasure import erase
from instep.history.locks import writing
from instep.history.places import on_s3
from instep.history.repository import Repository, create_repository, open_repository
from instep.history.store import Database
from instep.lake import retention_of
from instep.tables.compact import Compacted, compact_state
from instep.tables.content import TableContent
from instep.tables.erased_copies import forget_erased
from instep.tables.profile_keep import profile_table
from instep.tables.read import data_files, file_set, located, schema_of
from instep.tables.replaced import Why, stand_in
from instep.tables.write import append, create_table, data_folder, rewritten

COLUMNS = (Column(0, "n", "long"), Column(0, "who", "string"))
SECRET = "person-17"
Machine = Callable[[str], Repository]


@pytest.fixture
def database(bucket: Bucket, postgres_url: str) -> Database:
    return Database(postgres_url, f"erase_{bucket.name.replace('-', '_')}")


@pytest.fixture
def machine(bucket: Bucket, database: Database, tmp_path: Path) -> Iterator[Machine]:
    """Gives the lake as one more machine has it."""
    instants = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=n) for n in count())
    made: dict[str, Repository] = {}

    def one(name: str) -> Repository:
        if name not in made:
            root = bucket.root(tmp_path / name)
            made[name] = (
                open_repository(root, lambda: next(instants), database)
                if made
                else create_repository(root, lambda: next(instants), "ana", database)
            )
        return made[name]

    yield one
    for repo in made.values():
        repo.store.close()


def test_erased_rows_are_gone_from_the_store_and_from_what_other_machines_read(
    machine: Machine, bucket: Bucket, tmp_path: Path
) -> None:
    repo, other = machine("one"), machine("two")
    commits = _filled(repo)
    before = [_rows(other, commit) for commit in commits]
    assert holds(other.here, SECRET)
    done = erased_rows(repo, "sales", f"who = '{SECRET}'", "Request.", "ben", False)
    assert isinstance(done, ErasedRows)
    assert done.erasure.ended_at is not None
    for one in (repo, other, machine("three")):
        for commit, rows in zip(commits, before, strict=True):
            assert _rows(one, commit) == [row for row in rows if row[1] != SECRET]
    assert _held_there(bucket, tmp_path) == []
    assert holds(repo.here, SECRET) == []
    assert holds(other.here, SECRET), "this machine does not know yet"
    forget_erased(other)
    assert holds(other.here, SECRET) == []
    check(other)


def test_while_a_writer_on_another_machine_is_at_work_files_stay_and_a_second_act_ends_it(
    machine: Machine, bucket: Bucket, tmp_path: Path
) -> None:
    repo, other = machine("one"), machine("two")
    last = _filled(repo)[-1]
    with writing(other.root, other.store):
        late = _appended(other, _table(other, last), [(50, SECRET)])
        with pytest.raises(UnavailableError) as caught:
            erased_rows(repo, "sales", f"who = '{SECRET}'", "Request.", "ben", False)
        assert caught.value.kind == "writers-at-work"
        last = _commit(other, late)
    erased_rows(repo, "sales", f"who = '{SECRET}'", "Request.", "ben", False)
    assert all(who != SECRET for _, who in _rows(other, last))
    assert _held_there(bucket, tmp_path) == []


_ERASE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from instep.cli.erase_rows import erased_rows
from instep.history.places import s3_root
from instep.history.repository import open_repository
from instep.history.store import Database
address, folder, url, database, schema = sys.argv[1:]
root = s3_root(address, Path(folder), url, None)
repo = open_repository(root, lambda: datetime(2027, 1, 1, tzinfo=UTC), Database(database, schema))
erased_rows(repo, "sales", "who = 'person-17'", "Request.", "ben", False)
"""


@pytest.mark.parametrize(
    "place",
    [
        "erase.rows.delete.before",
        pytest.param("erase.rows.file.after", marks=pytest.mark.long),
        pytest.param("erase.rows.state.after:2", marks=pytest.mark.long),
    ],
)
def test_an_erasure_that_is_killed_is_completed_by_another_machine(
    machine: Machine, bucket: Bucket, database: Database, tmp_path: Path, place: str
) -> None:
    repo = machine("one")
    commits = _filled(repo)
    expected = [[row for row in _rows(repo, one) if row[1] != SECRET] for one in commits]
    words = [bucket.address, str(tmp_path / "two"), bucket.url, database.url, database.schema]
    assert run_script(_ERASE, *words, fault=place).code == KILLED
    for _ in range(1_000):
        # The server may not have noticed yet that the other process is gone.
        try:
            erased_rows(repo, "sales", f"who = '{SECRET}'", "Request.", "ben", False)
            break
        except UnavailableError as error:
            assert error.kind in {"writers-at-work", "collecting"}
    assert [_rows(repo, commit) for commit in commits] == expected
    assert _held_there(bucket, tmp_path) == []


def test_bytes_that_were_erased_are_not_served_from_copies_elsewhere(machine: Machine) -> None:
    repo, other = machine("one"), machine("two")
    digest = repo.objects.put(SECRET.encode())
    assert other.objects.get(digest) == SECRET.encode()
    assert holds(other.here, SECRET)
    erase(repo, digest, "ben", "Request.", retention_of(repo).reach.objects)
    for read in (other.objects.get, other.objects.existing):
        with pytest.raises(NotFoundError) as caught:
            read(digest)
        assert caught.value.kind == "erased"
    assert holds(other.here, SECRET) == [], "the note was seen, so the copy went"
    assert repo.objects.files(digest) == ()


def test_copies_of_erased_bytes_go_when_the_lake_is_opened(machine: Machine) -> None:
    repo, other = machine("one"), machine("two")
    digest = repo.objects.put(SECRET.encode())
    other.objects.get(digest)
    erase(repo, digest, "ben", "Request.", retention_of(repo).reach.objects)
    forget_erased(other)
    assert holds(other.here, SECRET) == []
    noted = (other.here / "cache" / "erased").read_bytes()
    forget_erased(other)
    assert (other.here / "cache" / "erased").read_bytes() == noted


def test_of_two_machines_that_replace_a_state_at_once_one_comes_late(machine: Machine) -> None:
    repo, other = machine("one"), machine("two")
    table = _table(repo, _filled(repo)[-1])
    done: list[Compacted] = []

    def first(place: str) -> None:
        if place == "tables.replacement.before" and not done:
            faults.watch(None)
            done.append(compact_state(other, table, at=other.clock()))

    faults.watch(first)
    late = compact_state(repo, table, at=repo.clock())
    assert late.now is None
    assert "another process" in late.why_not
    assert located(repo.root, table) == done[0].now


def test_a_record_that_changed_since_it_was_looked_at_is_not_overwritten(
    bucket: Bucket, tmp_path: Path
) -> None:
    path = on_s3(bucket.root(tmp_path) / "record")
    assert path is not None
    path.swap(b"one", None)
    seen = path.version()
    path.swap(b"two", seen)
    for version in (None, seen):
        with pytest.raises(FileExistsError):
            path.swap(b"three", version)
    assert path.read_bytes() == b"two"


def test_a_replacement_whose_reply_was_lost_counts_as_made(
    machine: Machine, bucket: Bucket, tmp_path: Path
) -> None:
    repo = machine("one")
    table = _table(repo, _filled(repo)[-1])
    gone = [one.path for one in data_files(repo.root, table)][1:]
    now = rewritten(repo.root, table, (), gone, at=repo.clock())
    with storm(bucket.url) as weather:
        far = replace(repo, root=bucket.root(tmp_path / "storm", weather.url))
        weather.faults["PUT"] = [Fault.LOST]
        assert stand_in(far, table, table, now, Why.COMPACTED)
        assert not stand_in(far, table, table, now, Why.COMPACTED)
    assert located(repo.root, table).metadata == now.metadata


def _filled(repo: Repository) -> list[str]:
    """A table that is appended to, each state a commit."""
    table = create_table(repo.root, "sales", COLUMNS, at=repo.clock())
    commits = []
    for first in (0, 10):
        table = _appended(repo, table, [(first, "ana"), (first + 1, SECRET)])
        commits.append(_commit(repo, table))
    profile_table(repo.root, table)
    return commits


def _appended(
    repo: Repository, table: TableContent, rows: Sequence[tuple[int, str]]
) -> TableContent:
    listed = ", ".join(f"({n}::BIGINT, '{who}')" for n, who in rows)
    with DuckDB(repo.root / "staging") as engine:
        files = engine.write(
            f"SELECT * FROM (VALUES {listed}) v(n, who)",
            schema_of(repo.root, table),
            data_folder(repo.root, table),
        )
    return append(repo.root, table, files, at=repo.clock())


def _commit(repo: Repository, table: TableContent) -> str:
    with repo.store.transaction("main") as tx:
        changes = {"table/sales": table.to_content()}
        edit = Edit(repo.resolve("main"), changes, "ana", "More", "run_0")
        return publish(tx, repo, "main", edit).id


def _table(repo: Repository, commit: str) -> TableContent:
    return TableContent.from_content(repo.content(commit, "table/sales"))


def _rows(repo: Repository, commit: str) -> list[tuple[int, str]]:
    with DuckDB(repo.root / "staging") as engine:
        engine.view(file_set(repo.root, _table(repo, commit), "t"))
        return [(n, who) for n, who in engine.rows("SELECT n, who FROM t ORDER BY n")]


def _held_there(bucket: Bucket, folder: Path) -> list[str]:
    """Returns the names of what is in the store and holds the secret."""
    copy = folder / "all-of-the-store"
    for key in bucket.names():
        path = copy / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bucket.client().get_object(Bucket=bucket.name, Key=key)["Body"].read())
    found = [path.name for path in holds(copy / "lake", SECRET)]
    shutil.rmtree(copy)
    return found
