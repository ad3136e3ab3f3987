"""A backup holds everything, is verified, and becomes a lake again in either database."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from commands import KILLED, run
from databases import on_every
from lakes import commit, fill_lake

from instep.cli.backup import back_up
from instep.cli.restore import restore_backup
from instep.cli.wholeness import check
from instep.clock import Clock
from instep.errors import (
    ConflictError,
    InternalError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from instep.history.dump import dump_lines
from instep.history.erasure import erase
from instep.history.operations import append_operation
from instep.history.repository import Repository, home_of, open_repository
from instep.history.seals import take_seal
from instep.history.store import Database, Store, Transaction
from instep.history.verify import blobs_of

OF_A_PLACE = ("lake", "relocations", "replacements")
"""Tables that tell where a lake is."""


def state(repo: Repository) -> set[str]:
    with repo.store.reading() as tx:
        lines = list(dump_lines(tx))
    return {line for line in lines[1:] if json.loads(line)[0] not in OF_A_PLACE}


@on_every
@pytest.mark.parametrize("into", ["sqlite", "postgres"])
def test_a_lake_is_restored_from_either_database_into_either(
    repo: Repository, tmp_path: Path, clock: Clock, into: str, request: pytest.FixtureRequest
) -> None:
    filled = fill_lake(repo)
    with repo.store.transaction() as tx:
        take_seal(tx, clock(), with_records=True)
    before = state(repo)
    made = back_up(repo, tmp_path / "backup")
    assert made.rows == len(before) + 2
    target = None
    if into == "postgres":
        url = request.getfixturevalue("postgres_url")
        target = Database(url, f"lake_{uuid.uuid4().hex}")
    done = restore_backup(tmp_path / "backup", tmp_path / "again", clock, database=target)
    again = open_repository(tmp_path / "again", clock, target)
    assert state(again) == before
    assert (done.states, done.is_same) == (4, False)
    check(again)
    commit(again, {"contract/new": {"type": "instep.contract.v1", "text": "x"}})
    check(again)
    assert again.commit(filled.commits[-1]) == repo.commit(filled.commits[-1])
    again.store.close()


def test_a_lake_restored_where_it_was_is_the_same_lake(
    repo: Repository, tmp_path: Path, clock: Clock
) -> None:
    fill_lake(repo)
    with repo.store.reading() as tx:
        before = home_of(tx)
    back_up(repo, tmp_path / "backup")
    repo.store.close()
    shutil.rmtree(repo.root)
    done = restore_backup(tmp_path / "backup", repo.root, clock)
    assert (done.is_same, done.identifier, done.states) == (True, before.id, 0)
    check(open_repository(repo.root, clock))


def test_a_restored_lake_that_moved_keeps_its_id(
    repo: Repository, tmp_path: Path, clock: Clock
) -> None:
    fill_lake(repo)
    back_up(repo, tmp_path / "backup")
    done = restore_backup(tmp_path / "backup", tmp_path / "new", clock, moved=True)
    with repo.store.reading() as tx:
        assert done.identifier == home_of(tx).id


def test_nothing_is_written_over(repo: Repository, tmp_path: Path, clock: Clock) -> None:
    fill_lake(repo)
    back_up(repo, tmp_path / "backup")
    with pytest.raises(ConflictError) as conflict:
        back_up(repo, tmp_path / "backup")
    assert conflict.value.kind == "backup-exists"
    with pytest.raises(ConflictError, match="lake"):
        restore_backup(tmp_path / "backup", repo.root, clock)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    for act in (
        lambda: back_up(repo, tmp_path / "full"),
        lambda: restore_backup(tmp_path / "backup", tmp_path / "full", clock),
    ):
        with pytest.raises(InvalidError, match="not empty") as caught:
            act()
        assert caught.value.kind == "folder-not-empty"
    with pytest.raises(NotFoundError) as missing:
        restore_backup(tmp_path / "full", tmp_path / "new", clock)
    assert missing.value.kind == "no-such-backup"


def test_a_byte_that_changed_in_a_backup_is_found_and_makes_no_lake(
    repo: Repository, tmp_path: Path, clock: Clock
) -> None:
    fill_lake(repo)
    place = tmp_path / "backup"
    back_up(repo, place)
    chosen = [
        place / "catalog.jsonl",
        place / "files.jsonl",
        next((place / "lake").glob("objects/??/*")),
        next((place / "lake").glob("tables/*/data/*")),
    ]
    for number, path in enumerate(chosen):
        data = path.read_bytes()
        path.write_bytes(data[:50] + bytes([data[min(50, len(data) - 1)] ^ 1]) + data[51:])
        with pytest.raises(InvalidError, match="damaged") as caught:
            restore_backup(place, tmp_path / f"new{number}", clock)
        assert caught.value.kind == "bad-backup"
        assert not (tmp_path / f"new{number}" / "catalog.sqlite").exists()
        path.write_bytes(data)
    # An interrupted restore goes on where it stopped.
    restore_backup(place, tmp_path / "new2", clock)
    check(open_repository(tmp_path / "new2", clock))


def test_a_damaged_lake_is_not_backed_up_as_if_it_were_whole(
    repo: Repository, tmp_path: Path
) -> None:
    fill_lake(repo)
    path = next(repo.root.glob("tables/*/data/*"))
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"x")
    with pytest.raises(InternalError, match="damaged") as caught:
        back_up(repo, tmp_path / "backup")
    assert caught.value.kind == "damaged-lake"
    assert not (tmp_path / "backup" / "backup.json").exists()


@on_every
def test_a_backup_is_one_state_while_others_write(
    repo: Repository, tmp_path: Path, clock: Clock
) -> None:
    fill_lake(repo)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set() and number < 500:
            number += 1
            text = f"text {number}"
            blob = repo.objects.put(text.encode())
            commit(repo, {f"contract/c{number}": {"type": "instep.contract.v1", "blob": blob}})
        repo.store.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        back_up(repo, tmp_path / "backup")
    finally:
        stop.set()
        writer.join(60)
    restore_backup(tmp_path / "backup", tmp_path / "again", clock)
    check(open_repository(tmp_path / "again", clock))


@dataclass
class Meanwhile:
    """A store in which `act` happens just after its third reading has begun: the snapshot's."""

    store: Store
    act: Callable[[], None]
    readings: int = 0

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        with self.store.reading() as tx:
            tx.rows("select name from refs")
            self.readings += 1
            if self.readings == 3:
                other = threading.Thread(target=self.act)
                other.start()
                other.join()
            yield tx

    def transaction(self, *refs: str) -> AbstractContextManager[Transaction]:
        return self.store.transaction(*refs)

    def close(self) -> None:
        self.store.close()


def test_a_file_that_went_with_its_branch_makes_the_backup_fail_and_the_next_one_whole(
    repo: Repository, tmp_path: Path
) -> None:
    fill_lake(repo)
    blob = repo.objects.put(b"only on the branch")
    commit(repo, {"contract/idea": {"type": "instep.contract.v1", "blob": blob}}, ref="ideas")

    def drop() -> None:
        with repo.store.transaction() as tx:
            head = repo.resolve("ideas")
            append_operation(
                tx, ref="ideas", before=head, after=None, actor="ana", at=repo.clock(),
                kind="delete", why="Done.",
            )  # fmt: skip
            tx.execute("delete from refs where name = 'ideas'")
        repo.objects.path(blob).unlink()
        repo.store.close()

    watched = replace(repo, store=Meanwhile(repo.store, drop))
    with pytest.raises(UnavailableError, match="ideas") as caught:
        back_up(watched, tmp_path / "backup")
    assert caught.value.kind == "backup-outrun"
    back_up(repo, tmp_path / "backup")


@pytest.mark.parametrize(
    "fault", ["file.rename.before:9", "backup.rows.after", "backup.files.after"]
)
def test_a_backup_that_was_killed_goes_on(repo: Repository, tmp_path: Path, fault: str) -> None:
    fill_lake(repo)
    (tmp_path / "instep.yaml").write_text("lake: lake\n")
    words = ("backup", str(tmp_path / "backup"))
    assert run(*words, at=tmp_path, fault=fault).code == KILLED
    assert not (tmp_path / "backup" / "backup.json").exists()
    assert run(*words, at=tmp_path).code == 0


@pytest.mark.parametrize(
    "fault",
    ["file.rename.before:9", "restore.files.after", "tables.replacement.after:2",
     "transaction.commit.before", "transaction.commit.after"],
)  # fmt: skip
def test_a_restore_that_was_killed_goes_on(
    repo: Repository, tmp_path: Path, clock: Clock, fault: str
) -> None:
    fill_lake(repo)
    back_up(repo, tmp_path / "backup")
    (tmp_path / "instep.yaml").write_text("lake: again\n")
    words = ("restore", str(tmp_path / "backup"))
    assert run(*words, at=tmp_path, fault=fault).code == KILLED
    assert not (tmp_path / "again" / "catalog.sqlite").exists()
    assert run(*words, at=tmp_path).code == 0
    check(open_repository(tmp_path / "again", clock))


def test_what_is_erased_while_a_backup_is_made_outruns_it_and_the_next_is_whole(
    repo: Repository, tmp_path: Path
) -> None:
    fill_lake(repo)
    blob = repo.objects.put(b"old terms")
    for content in ({"type": "instep.contract.v1", "blob": blob}, None):
        commit(repo, {"contract/old": content})

    def drop() -> None:
        erase(repo, blob, "ben", "asked for", blobs_of)
        repo.store.close()

    watched = replace(repo, store=Meanwhile(repo.store, drop))
    with pytest.raises(UnavailableError, match=blob) as caught:
        back_up(watched, tmp_path / "backup")
    assert caught.value.kind == "backup-outrun"
    back_up(repo, tmp_path / "backup")


def test_what_was_erased_before_a_backup_goes_on_is_not_in_it(
    repo: Repository, tmp_path: Path
) -> None:
    fill_lake(repo)
    blob = repo.objects.put(b"old terms")
    for content in ({"type": "instep.contract.v1", "blob": blob}, None):
        commit(repo, {"contract/old": content})
    (tmp_path / "instep.yaml").write_text("lake: lake\n")
    words = ("backup", str(tmp_path / "backup"))
    assert run(*words, at=tmp_path, fault="backup.files.after").code == KILLED
    copied = tmp_path / "backup" / "lake" / repo.objects.path(blob).relative_to(repo.root)
    assert copied.read_bytes() == b"old terms"
    erase(repo, blob, "ben", "asked for", blobs_of)
    assert run(*words, at=tmp_path).code == 0
    assert not copied.exists()


@pytest.mark.parametrize(
    "name", ["../../x", "/x", "objects/../../../x", "catalog.sqlite", "other/x", "objects"]
)
def test_a_backup_that_names_a_file_outside_the_lake_is_refused(
    repo: Repository, tmp_path: Path, clock: Clock, name: str
) -> None:
    fill_lake(repo)
    place = tmp_path / "from" / "backup"
    back_up(repo, place)
    crafted = place / "lake" / name
    if crafted.is_relative_to(place) and not crafted.exists():
        crafted.parent.mkdir(exist_ok=True)
        crafted.write_bytes(b"crafted")
    digest = hashlib.sha256(b"crafted").hexdigest()
    text = json.dumps([name, 7, digest]) + "\n"
    (place / "files.jsonl").write_text(text)
    head = json.loads((place / "backup.json").read_text())
    head["digests"]["files.jsonl"] = hashlib.sha256(text.encode()).hexdigest()
    (place / "backup.json").write_text(json.dumps(head))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidError, match="expected a file below") as caught:
        restore_backup(place, tmp_path / "deep" / "new", clock)
    assert caught.value.kind == "bad-backup"
    assert set(tmp_path.rglob("*")) - set(before) == {
        tmp_path / "deep", tmp_path / "deep/new", tmp_path / "deep/new/unfinished.json",
    }  # fmt: skip
