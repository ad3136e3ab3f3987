"""Files that a client wrote and did not commit yet are named by nobody: it is told if they went."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rest import make_branch, make_project, people, rows, serving

from instep import faults
from instep.cli.erase_rows import erased_rows
from instep.cli.wholeness import check
from instep.errors import ConflictError, InvalidError, UnavailableError
from instep.history.collection import collect
from instep.history.edits import Edit, publish
from instep.history.locks import writing
from instep.history.repository import Repository
from instep.history.retention import Policy
from instep.lake import Lake, retention_of
from instep.server.reading import find_place
from instep.server.updates import TableChange
from instep.server.writing import Act, commit
from instep.tables.content import TableContent
from instep.tables.reach import added_files, files_of

ACT = Act("ana", "asserted", None, {})


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return make_project(tmp_path)


@pytest.fixture
def change(tmp_path: Path, repo: Repository) -> Iterator[TableChange]:
    """What a client wants to commit on the branch `work`: its files are written."""
    make_branch(repo, "work")
    with serving(tmp_path, "--as", "ana") as server:
        table = server.catalog("work").create_table("default.people", schema=people().schema)
        table.append(people((1, "ana")))
        make_branch(repo, "other", "work")
        server.catalog("other").load_table("default.people").append(people((9, "zoe")))
        wanted = table.transaction()
        wanted.append(people((2, "ben"), (3, "cleo")))
        change = TableChange("people", wanted._requirements, wanted._updates)
    yield change


@pytest.fixture(params=["a file goes", "manifests are merged"])
def without_data(tmp_path: Path, repo: Repository, request: pytest.FixtureRequest) -> TableChange:
    """As `change`, of a client that wrote manifests and no data files."""
    make_branch(repo, "work")
    with serving(tmp_path, "--as", "ana") as server:
        table = server.catalog("work").create_table("default.people", schema=people().schema)
        table.append(people((1, "ana")))
        table.append(people((2, "ben")))
        wanted = table.transaction()
        if request.param == "a file goes":
            wanted.delete("id = 2")
        else:
            wanted.set_properties({"commit.manifest.min-count-to-merge": "2"})
            wanted.update_snapshot().merge_append().commit()
    return TableChange("people", wanted._requirements, wanted._updates)


@pytest.fixture(autouse=True)
def _unwatched() -> Iterator[None]:
    yield
    faults.watch(None)


def collected(repo: Repository) -> None:
    collect(repo, retention_of(repo), Policy(keep_days=0, staging_days=0))


def once_at(place: str, act: Callable[[], object]) -> None:
    """Lets something happen when a place is reached for the first time from now on."""

    def watch(reached: str) -> None:
        if reached == place:
            faults.watch(None)
            act()

    faults.watch(watch)


def doomed(repo: Repository) -> None:
    """Collects twice; what is due the second time stays for a writer at work, but is doomed."""
    collected(repo)
    with writing(repo.root, repo.store):
        collected(repo)


def test_files_that_a_collection_has_seen_are_committed_while_they_are_not_due(
    repo: Repository, change: TableChange
) -> None:
    collect(repo, retention_of(repo), Policy(keep_days=30, staging_days=1))
    collect(repo, retention_of(repo), Policy(keep_days=30, staging_days=1))
    commit(repo, find_place(repo, "work"), ACT, [change])
    collected(repo)
    collected(repo)
    assert [row["id"] for row in rows(repo, "work", "people")] == [1, 2, 3]
    check(repo)


def test_files_that_are_doomed_before_they_are_committed_refuse_the_commit(
    repo: Repository, change: TableChange
) -> None:
    doomed(repo)
    with pytest.raises(ConflictError, match="being deleted") as error:
        commit(repo, find_place(repo, "work"), ACT, [change])
    assert error.value.kind == "condemned-files"
    assert error.value.facts["count"] == 3, "a data file, a manifest and a manifest list"
    assert [row["id"] for row in rows(repo, "work", "people")] == [1]
    collected(repo)
    check(repo)


def test_manifests_that_are_doomed_before_they_are_committed_refuse_the_commit(
    repo: Repository, without_data: TableChange
) -> None:
    doomed(repo)
    with pytest.raises(ConflictError, match=r"such as tables/.*/metadata/.*avro") as error:
        commit(repo, find_place(repo, "work"), ACT, [without_data])
    assert error.value.kind == "condemned-files"
    collected(repo)
    assert [row["id"] for row in rows(repo, "work", "people")] == [1, 2]
    check(repo)


def test_files_that_went_before_they_are_committed_refuse_the_commit(
    repo: Repository, change: TableChange
) -> None:
    collected(repo)
    collected(repo)
    with pytest.raises(InvalidError, match="is not there") as error:
        commit(repo, find_place(repo, "work"), ACT, [change])
    assert error.value.kind == "damaged-file"
    check(repo)


def test_files_that_are_condemned_while_they_are_committed_stay(
    repo: Repository, change: TableChange
) -> None:
    def collect_twice() -> None:
        collected(repo)
        collected(repo)

    once_at("rest.commit.before", collect_twice)
    commit(repo, find_place(repo, "work"), ACT, [change])
    collected(repo)
    assert [row["id"] for row in rows(repo, "work", "people")] == [1, 2, 3]
    check(repo)


def test_files_that_were_committed_before_a_collection_stay(
    repo: Repository, change: TableChange
) -> None:
    commit(repo, find_place(repo, "work"), ACT, [change])
    collected(repo)
    collected(repo)
    assert [row["id"] for row in rows(repo, "work", "people")] == [1, 2, 3]
    check(repo)


def _erasing_nine(repo: Repository) -> None:
    """Erases of every branch's people the row that only `other` has."""
    with repo.store.transaction() as tx:
        others = repo.find(repo.resolve("other"), "table/people")
        edit = Edit(repo.resolve("main"), {"table/people": others}, "ana", "people", "test")
        publish(tx, repo, "main", edit)
    erased_rows(repo, "people", "id = 9", "asked for", "ana", False)


@pytest.mark.parametrize(
    ("place", "is_committed"),
    [("erase.rows.condemn.before", True), ("erase.rows.delete.before", False)],
)
def test_files_that_are_committed_while_rows_are_erased_stay_or_are_refused(
    repo: Repository, change: TableChange, place: str, is_committed: bool
) -> None:
    at = find_place(repo, "work")
    refused: list[str] = []

    def commit_now() -> None:
        try:
            commit(repo, at, ACT, [change])
        except ConflictError as error:
            refused.append(error.kind)

    once_at(place, commit_now)
    _erasing_nine(repo)
    assert refused == ([] if is_committed else ["condemned-files"])
    expected = [1, 2, 3] if is_committed else [1]
    assert [row["id"] for row in rows(repo, "work", "people")] == expected
    assert [row["id"] for row in rows(repo, "other", "people")] == [1]
    check(repo)


def test_while_a_client_commits_an_erasure_deletes_nothing(
    repo: Repository, change: TableChange
) -> None:
    def erase() -> None:
        with pytest.raises(UnavailableError) as error:
            _erasing_nine(repo)
        assert error.value.kind == "writers-at-work"

    once_at("rest.commit.before", erase)
    commit(repo, find_place(repo, "work"), ACT, [change])
    assert [row["id"] for row in rows(repo, "work", "people")] == [1, 2, 3]
    check(repo)


def test_what_is_looked_for_are_the_files_that_a_commit_adds_and_no_others(
    tmp_path: Path, repo: Repository
) -> None:
    make_branch(repo, "work")
    with serving(tmp_path, "--as", "ana") as server:
        table = server.catalog("work").create_table("default.people", schema=people().schema)
        states = [_state(repo)]
        steps: list[Callable[[], object]] = [
            lambda: table.append(people((1, "ana"), (2, "ben"), (3, "cleo"))),
            lambda: table.append(people((4, "dan"))),
            lambda: table.transaction().set_properties(owner="ana").commit_transaction(),
            lambda: table.delete("id = 2"),
            lambda: table.overwrite(people((5, "eve"))),
            lambda: table.delete("id = 5"),
            lambda: table.append(people((6, "fay"))),
        ]
        for step in steps:
            step()
            states.append(_state(repo))
    assert not (repo.here / "cache" / "names").exists(), "what gc keeps is not theirs"
    added = []
    for before, after in zip([None, *states], states, strict=False):
        had, has = (_written(repo, [one] if one else []) for one in (before, after))
        added.append(added_files(repo.root, before, after))
        assert added[-1] == has - had
    data = [[name for name in one if name.startswith("data/")] for one in added]
    assert [len(one) for one in data] == [0, 1, 1, 0, 1, 1, 0, 1]


def _state(repo: Repository) -> TableContent:
    return Lake(repo).branch("work").table("people").content


def _written(repo: Repository, states: list[TableContent]) -> frozenset[str]:
    """Returns what a client writes of states: data files, manifests and their lists."""
    if not states:
        return frozenset()
    names = files_of(repo, states[0].uuid, [one.to_content() for one in states])
    return frozenset(name for name in names if name.startswith("data/") or name.endswith(".avro"))
