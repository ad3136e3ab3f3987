"""A deletion that a suspended machine carries out late takes nothing that a client has committed.

The lake's database is PostgreSQL, which ends sessions while their machines go on.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rest import make_branch, make_shared_project, people, rows, serving
from wire import end_sessions

from instep import faults
from instep.cli.erase_rows import erased_rows
from instep.cli.wholeness import check
from instep.clock import system_clock
from instep.errors import ConflictError, InstepError
from instep.history.collection import collect
from instep.history.edits import Edit, publish
from instep.history.repository import Repository, create_repository, open_repository
from instep.history.retention import Policy
from instep.history.store import Database
from instep.lake import retention_of
from instep.server.reading import find_place
from instep.server.updates import TableChange
from instep.server.writing import Act, commit


@dataclass(frozen=True, slots=True)
class Shared:
    """A lake that machines share, and where in a deletion one of them is suspended."""

    repo: Repository
    other: Callable[[], Repository]
    place: str


@pytest.fixture(params=["s3", "folder"])
def shared(tmp_path: Path, postgres_url: str, request: pytest.FixtureRequest) -> Iterator[Shared]:
    if request.param == "s3":
        bucket = request.getfixturevalue("bucket")
        database = Database(postgres_url, bucket.schema)
        repo = make_shared_project(tmp_path, bucket, postgres_url)
        root, place = bucket.root(tmp_path / "two"), "remove"
    else:
        database = Database(postgres_url, f"lake_{uuid.uuid4().hex}")
        root, place = tmp_path / "lake", "delete"
        url = postgres_url.replace("postgres:@", "postgres@")
        (tmp_path / "instep.yaml").write_text(
            f"lake: {{folder: lake, database: '{url}', schema: {database.schema}}}\n"
        )
        repo = create_repository(root, system_clock, "ana", database)
    make_branch(repo, "work")
    yield Shared(repo, lambda: open_repository(root, system_clock, database), place)
    faults.watch(None)


@pytest.fixture
def change(tmp_path: Path, shared: Shared) -> TableChange:
    """What a client wants to commit on the branch `work`: its files are written."""
    with serving(tmp_path, "--as", "ana") as server:
        table = server.catalog("work").create_table("default.people", schema=people().schema)
        table.append(people((1, "ana")))
        make_branch(shared.repo, "other", "work")
        server.catalog("other").load_table("default.people").append(people((9, "zoe")))
        wanted = table.transaction()
        wanted.append(people((2, "ben"), (3, "cleo")))
    return TableChange("people", wanted._requirements, wanted._updates)


def _collected(repo: Repository) -> None:
    collect(repo, retention_of(repo), Policy(keep_days=0, staging_days=0))


def _late(
    shared: Shared, place: str, url: str, delete: Callable[[], object], new: TableChange
) -> str:
    """Lets another machine commit while one is suspended in a deletion and loses its session.

    Returns the kind of the error by which the commit was refused.
    """
    refused: list[str] = []

    def watch(reached: str) -> None:
        if reached != place:
            return
        faults.watch(None)
        end_sessions(url)
        other = shared.other()
        with pytest.raises(ConflictError) as error:
            commit(other, find_place(other, "work"), Act("ana", "asserted", None, {}), [new])
        refused.append(error.value.kind)
        other.store.close()

    faults.watch(watch)
    with pytest.raises(InstepError):
        delete()
    return "".join(refused)


def test_files_that_a_suspended_collection_deletes_late_are_not_committed(
    shared: Shared, change: TableChange, postgres_url: str
) -> None:
    _collected(shared.repo)
    place = f"gc.{shared.place}.before"
    kind = _late(shared, place, postgres_url, lambda: _collected(shared.repo), change)
    assert kind == "condemned-files"
    assert [row["id"] for row in rows(shared.repo, "work", "people")] == [1]
    check(shared.repo)


def test_files_that_a_suspended_erasure_deletes_late_are_not_committed(
    shared: Shared, change: TableChange, postgres_url: str
) -> None:
    repo = shared.repo
    with repo.store.transaction() as tx:
        others = repo.find(repo.resolve("other"), "table/people")
        edit = Edit(repo.resolve("main"), {"table/people": others}, "ana", "people", "test")
        publish(tx, repo, "main", edit)

    def erase() -> None:
        erased_rows(repo, "people", "id = 9", "asked for", "ana", False)

    kind = _late(shared, "erase.rows.remove.before", postgres_url, erase, change)
    assert kind == "condemned-files"
    erase()
    assert [row["id"] for row in rows(repo, "work", "people")] == [1]
    assert [row["id"] for row in rows(repo, "other", "people")] == [1]
    check(repo)
