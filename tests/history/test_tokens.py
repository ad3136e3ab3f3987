"""Commits with a token are done once; conflicts say who moved what."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from databases import on_every_at_length

from instep.canonical import JsonObject
from instep.errors import ConflictError, InvalidError
from instep.history.edits import Edit, commit_edit, publish
from instep.history.refs import RefKind, create_ref
from instep.history.repository import Repository

pytestmark = on_every_at_length


@pytest.fixture
def lake(repo: Repository) -> Repository:
    """A lake with two branches, "try" and "other"."""
    with repo.store.transaction() as tx:
        for name in ("try", "other"):
            create_ref(tx, name, RefKind.BRANCH, repo.resolve("main"), owner="ana", at=repo.clock())
    return repo


def edit(repo: Repository, changes: dict[str, JsonObject | None], actor: str = "ana") -> Edit:
    return Edit(repo.resolve("try"), changes, actor, "a message", "test")


def moves(repo: Repository) -> int:
    with repo.store.reading() as tx:
        row = tx.row("select count(*) from operations where ref = 'try'")
    return int(row[0]) if row else 0


def test_what_was_published_under_a_token_is_given_back(lake: Repository) -> None:
    wanted = edit(lake, {"table/a": {"n": 1}})
    first = commit_edit(lake, "try", wanted, token="one")
    commit_edit(lake, "try", edit(lake, {"table/b": {"n": 1}}))
    assert commit_edit(lake, "try", wanted, token="one") == first
    later = replace(wanted, base=lake.resolve("try"))
    assert commit_edit(lake, "try", later, token="one") == first
    assert moves(lake) == 3


def test_a_token_that_stood_for_something_else_is_a_conflict(lake: Repository) -> None:
    wanted = edit(lake, {"table/a": {"n": 1}})
    first = commit_edit(lake, "try", wanted, token="one")
    for other in (replace(wanted, changes={"table/a": {"n": 2}}), replace(wanted, author="ben")):
        with pytest.raises(ConflictError, match=first.id[:12]) as caught:
            commit_edit(lake, "try", other, token="one")
        assert caught.value.kind == "token-reused"
    with pytest.raises(ConflictError) as caught:
        commit_edit(lake, "other", wanted, token="one")
    assert caught.value.kind == "token-reused"
    assert lake.resolve("try") == first.id
    with pytest.raises(InvalidError) as invalid:
        commit_edit(lake, "try", wanted, token="")
    assert invalid.value.kind == "bad-token"


def test_a_token_of_a_transaction_that_failed_stands_for_nothing(lake: Repository) -> None:
    wanted = edit(lake, {"table/a": {"n": 1}})
    with pytest.raises(ZeroDivisionError), lake.store.transaction("try") as tx:
        publish(tx, lake, "try", wanted, token="one")
        raise ZeroDivisionError
    assert moves(lake) == 1
    commit_edit(lake, "try", replace(wanted, message="another"), token="one")
    assert moves(lake) == 2


def test_many_tries_at_once_are_done_once(lake: Repository) -> None:
    wanted = edit(lake, {"table/a": {"n": 1}})
    found: list[str] = []

    def work() -> None:
        for _ in range(5):
            found.append(commit_edit(lake, "try", wanted, token="one").id)
        lake.store.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert set(found) == {lake.resolve("try")}
    assert moves(lake) == 2


def test_one_token_for_two_refs_at_once_is_done_on_one(lake: Repository) -> None:
    wanted = edit(lake, {"table/a": {"n": 1}})
    found: list[str] = []

    def work(ref: str) -> None:
        try:
            commit_edit(lake, ref, wanted, token="one")
            found.append("done")
        except ConflictError as error:
            found.append(error.kind)
        lake.store.close()

    threads = [threading.Thread(target=work, args=(ref,)) for ref in ("try", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["done", "token-reused"]


@pytest.mark.parametrize("many", [1, 100])
def test_a_conflict_names_the_keys_and_who_moved_them(lake: Repository, many: int) -> None:
    mine = {f"table/t{number}": {"n": 1} for number in range(many)}
    begun = edit(lake, {**mine, "table/a": {"n": 1}})
    theirs = edit(lake, {"table/a": {"n": 2}, "table/other": {"n": 2}}, "ben")
    mover = commit_edit(lake, "try", theirs)
    commit_edit(lake, "try", edit(lake, {"table/c": {"n": 3}}, "eve"))
    with pytest.raises(ConflictError, match=r"table/a \(by ben in .*ana \(") as caught:
        commit_edit(lake, "try", begun)
    assert caught.value.kind == "keys-moved"
    assert caught.value.facts["keys"] == ("table/a",)
    moved_by = caught.value.facts["moved_by"]
    assert isinstance(moved_by, tuple)
    assert f'by ben in {mover.id[:12]}, test: "a message"' in moved_by[0]
