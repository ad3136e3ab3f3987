from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from instep.clock import system_clock
from instep.errors import (
    ConflictError,
    InternalError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from instep.history.ids import created_at, new_id
from instep.history.objects import Objects
from instep.history.repository import CATALOG, Repository, create_repository, open_repository
from instep.history.seals import lake_id
from instep.history.sqlite import create_sqlite
from instep.history.store import Store, Transaction


@pytest.mark.parametrize("act", ["moved", "copied"])
def test_a_lake_that_was_moved_or_copied_is_refused(
    repo: Repository, tmp_path: Path, act: str
) -> None:
    repo.store.close()
    elsewhere = tmp_path / "elsewhere"
    if act == "moved":
        repo.root.rename(elsewhere)
    else:
        shutil.copytree(repo.root, elsewhere)
    with pytest.raises(RefusedError, match="moved or copied") as caught:
        open_repository(elsewhere, system_clock)
    assert caught.value.kind == "lake-moved"


def test_a_second_lake_in_the_same_folder_is_a_conflict(repo: Repository) -> None:
    with pytest.raises(ConflictError, match="There is a lake"):
        create_repository(repo.root, system_clock, "ben")
    assert open_repository(repo.root, system_clock).resolve("main") == repo.resolve("main")


def test_a_lake_of_a_newer_instep_is_refused(repo: Repository) -> None:
    with repo.store.transaction() as tx:
        tx.execute("pragma user_version = 99")
    with pytest.raises(UnavailableError, match="format 99"):
        open_repository(repo.root, system_clock)


def test_a_folder_without_a_lake_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="instep init"):
        open_repository(tmp_path, system_clock)


def test_a_blob_is_read_back_and_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    objects = Objects(tmp_path / "objects")
    data = b"some bytes"
    digest = objects.put(data)
    assert digest == hashlib.sha256(data).hexdigest() == objects.put(data)
    source = tmp_path / "file"
    source.write_bytes(data)
    assert objects.put_file(source) == digest
    assert objects.get(digest) == data
    objects.path(digest).write_bytes(b"some bytez")
    with pytest.raises(InternalError, match="other bytes"):
        objects.get(digest)
    with pytest.raises(NotFoundError, match="not in the lake"):
        objects.get("0" * 64)
    assert [path.name for path in (tmp_path / "objects").rglob(".*")] == []


def test_ids_are_unique_and_ordered_by_time() -> None:
    made = [new_id("run") for _ in range(1000)]
    assert len(set(made)) == 1000
    times = [created_at(identifier) for identifier in made]
    assert times == sorted(times)


def test_of_two_who_make_a_lake_in_one_folder_at_once_one_is_refused(tmp_path: Path) -> None:
    def fill(store: Store, tx: Transaction) -> None:
        with pytest.raises(ConflictError, match="being made") as second:
            create_repository(tmp_path / "lake", system_clock, "ben")
        assert second.value.kind == "lake-exists"
        tx.execute("insert into lake (name, value) values ('id', 'the first')")

    store = create_sqlite(tmp_path / "lake" / CATALOG, fill)
    with store.reading() as tx:
        assert lake_id(tx) == "the first"
