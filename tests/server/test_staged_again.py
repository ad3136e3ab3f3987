"""A staged table is committed by asking again, where the first time nothing was committed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyiceberg.table.update import AssertCreate
from rest import make_branch, make_project, people, rows, serving

from instep import faults
from instep.cli.wholeness import check
from instep.errors import InvalidError, UnavailableError
from instep.history.repository import Repository
from instep.server.reading import find_place
from instep.server.updates import TableChange
from instep.server.writing import Act, commit

ACT = Act("ana", "asserted", "key", {"of": "the request"})


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    made = make_project(tmp_path)
    make_branch(made, "work")
    make_branch(made, "other")
    yield made
    faults.watch(None)


@pytest.fixture
def staged(tmp_path: Path, repo: Repository) -> TableChange:
    """What a client wants to commit: a new table, with rows."""
    with serving(tmp_path, "--as", "ana") as server:
        catalog = server.catalog("work")
        made = catalog.create_table_transaction("default.people", schema=people().schema)
        made.append(people((1, "ana")))
    return TableChange("people", (AssertCreate(),), made._updates)


def test_a_staged_table_is_made_by_the_request_that_is_sent_again(
    repo: Repository, staged: TableChange
) -> None:
    def away(place: str) -> None:
        if place == "rest.commit.before":
            faults.watch(None)
            raise UnavailableError("Away: expected it here. Wait.", kind="database-unreachable")

    place = find_place(repo, "work")
    for _ in range(2):
        faults.watch(away)
        with pytest.raises(UnavailableError):
            commit(repo, place, ACT, [staged])
    done = commit(repo, place, ACT, [staged])
    assert commit(repo, place, ACT, [staged]).commit == done.commit
    assert [row["id"] for row in rows(repo, "work", "people")] == [1]
    check(repo)


def test_a_staged_table_that_was_committed_is_not_made_on_another_branch(
    repo: Repository, staged: TableChange
) -> None:
    commit(repo, find_place(repo, "work"), ACT, [staged])
    other = Act("ana", "asserted", "another", {"of": "another request"})
    with pytest.raises(InvalidError, match="was not committed yet") as error:
        commit(repo, find_place(repo, "other"), other, [staged])
    assert error.value.kind == "bad-request"
