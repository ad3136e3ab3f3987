"""Branches and tags: each act is in the chain of the name, which stays when the ref goes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import timedelta

import pytest
from databases import on_every_at_length

from instep.changes import branches, gate
from instep.changes.records import Kind, list_changes
from instep.errors import ConflictError, InvalidError, NotFoundError, RefusedError
from instep.history.edits import Edit, commit_edit
from instep.history.log import Filter, entries
from instep.history.operations import is_whole, operations
from instep.history.refs import RefKind, create_ref, find_ref, get_ref, list_refs
from instep.history.repository import Repository
from instep.history.store import Transaction
from instep.history.tips import move_ref

pytestmark = on_every_at_length
BRANCH, TAG = RefKind.BRANCH, RefKind.TAG


def transaction(repo: Repository) -> AbstractContextManager[Transaction]:
    return repo.store.transaction()


def make(repo: Repository, name: str, at: str = "main", kind: RefKind = BRANCH) -> None:
    commit = repo.resolve(at)
    with repo.store.transaction() as tx:
        branches.make(tx, repo, kind, name, commit, actor="ana")


def put(repo: Repository, ref: str, key: str, number: int, actor: str = "ana") -> str:
    edit = Edit(repo.resolve(ref), {key: {"n": number}}, actor, f"{key} is {number}", "test")
    return commit_edit(repo, ref, edit).id


def acts(tx: Transaction, name: str) -> list[str]:
    chain = operations(tx, name)
    assert is_whole(chain)
    return [entry.kind for entry in chain]


def test_a_renamed_branch_keeps_its_past_under_the_old_name(repo: Repository) -> None:
    make(repo, "try")
    first = put(repo, "try", "table/a", 1)
    then = repo.clock()
    with repo.store.transaction() as tx:
        renamed = branches.rename(tx, repo, BRANCH, "try", "delays", actor="ben", why="clearer")
        assert (renamed.owner, renamed.commit) == ("ana", first)
        assert find_ref(tx, "try") is None
        assert acts(tx, "try") == ["create", "commit", "rename"]
        (begun,) = operations(tx, "delays")
        assert begun.kind == "rename"
        assert begun.why == "renamed from try by ben: clearer"
        assert operations(tx, "try")[-1].why == "renamed to delays: clearer"
    assert repo.resolve("delays") == first
    assert repo.resolve(f"try@{then.isoformat()}") == first
    with pytest.raises(NotFoundError, match='"try" is no branch'):
        repo.resolve("try")


def test_a_deleted_name_may_be_used_again_and_old_instants_still_resolve(repo: Repository) -> None:
    make(repo, "try")
    first = put(repo, "try", "table/a", 1)
    then = repo.clock()
    with repo.store.transaction() as tx:
        branches.delete(tx, repo, BRANCH, "try", actor="ben", why="done")
    gone = repo.clock()
    make(repo, "try")
    second = put(repo, "try", "table/b", 2)
    with repo.store.reading() as tx:
        assert acts(tx, "try") == ["create", "commit", "delete", "create", "commit"]
    assert repo.resolve(f"try@{then.isoformat()}") == first
    assert repo.resolve("try") == second
    with pytest.raises(NotFoundError, match="did not exist at"):
        repo.resolve(f"try@{gone.isoformat()}")
    with pytest.raises(NotFoundError, match='"never" is no branch'):
        repo.resolve(f"never@{gone.isoformat()}")


def test_a_tag_never_moves_nor_does_its_name(repo: Repository) -> None:
    make(repo, "v1", kind=TAG)
    first = repo.resolve("v1")
    make(repo, "try")
    later = put(repo, "try", "table/a", 1)
    with pytest.raises(RefusedError, match="a tag never moves") as caught:
        put(repo, "v1", "table/a", 1)
    assert caught.value.kind == "tag-would-move"
    with pytest.raises(RefusedError), repo.store.transaction() as tx:
        move_ref(
            tx, "v1", expected=first, commit=later, actor="eve", at=repo.clock(), kind="t", why=""
        )
    with repo.store.transaction() as tx:
        branches.delete(tx, repo, TAG, "v1", actor="ana")
    for kind, at in ((TAG, "try"), (BRANCH, "main")):
        with pytest.raises(RefusedError, match="never meant anything else"):
            make(repo, "v1", at, kind)
    make(repo, "v1", kind=TAG)
    assert repo.resolve("v1") == first
    with repo.store.reading() as tx:
        assert acts(tx, "v1") == ["tag", "delete", "tag"]
        assert [ref.name for ref in list_refs(tx, TAG)] == ["v1"]


def test_a_protected_branch_refuses_writes_with_the_reason_and_the_way(repo: Repository) -> None:
    with pytest.raises(RefusedError, match=r"changes by review only.*instep propose") as caught:
        put(repo, "main", "table/a", 1)
    assert caught.value.kind == "protected-branch"
    make(repo, "try")
    with repo.store.transaction() as tx:
        branches.protect(tx, repo, BRANCH, "try", True, actor="ben", why="frozen")
    with pytest.raises(RefusedError, match=r"ana owns it.*instep branch protect try --off"):
        put(repo, "try", "table/a", 1)
    for act in (branches.delete, branches.rename):
        names = ("try",) if act is branches.delete else ("try", "other")
        with pytest.raises(RefusedError), repo.store.transaction() as tx:
            act(tx, repo, BRANCH, *names, actor="ben")
    with repo.store.transaction() as tx:
        branches.protect(tx, repo, BRANCH, "try", False, actor="ana")
        assert acts(tx, "try") == ["create", "protect", "unprotect"]
    put(repo, "try", "table/a", 1)


def test_main_and_environments_stay_protected(repo: Repository) -> None:
    with repo.store.transaction() as tx:
        create_ref(
            tx, "prod", RefKind.ENVIRONMENT, repo.resolve("main"), owner="ana", at=repo.clock(),
            is_protected=True,
        )  # fmt: skip
    with pytest.raises(RefusedError, match="moves by release only"):
        put(repo, "prod", "table/a", 1)
    with pytest.raises(RefusedError, match="stays protected"), repo.store.transaction() as tx:
        branches.protect(tx, repo, BRANCH, "main", False, actor="ana")
    with pytest.raises(RefusedError, match="review only"), repo.store.transaction() as tx:
        branches.delete(tx, repo, BRANCH, "main", actor="ana")
    with pytest.raises(InvalidError, match="instep release") as caught, transaction(repo) as tx:
        branches.delete(tx, repo, BRANCH, "prod", actor="ana")
    assert caught.value.kind == "wrong-ref-kind"


def test_a_branch_that_an_open_change_proposes_cannot_be_deleted(repo: Repository) -> None:
    make(repo, "try")
    head = put(repo, "try", "table/a", 1)
    edit = Edit(repo.resolve("main"), {}, "ana", "t", "proposal")
    with repo.store.transaction() as tx:
        change = gate.open_change(
            tx, repo, kind=Kind.PIPELINE, title="t", edit=edit, evidence={}, branch="try", head=head
        )
    with pytest.raises(RefusedError, match="change 1 proposes") as caught, transaction(repo) as tx:
        branches.delete(tx, repo, BRANCH, "try", actor="ana")
    assert caught.value.kind == "branch-proposed"
    with repo.store.transaction() as tx:
        branches.rename(tx, repo, BRANCH, "try", "other", actor="ana")
        (listed,) = list_changes(tx, branch="other")
        assert listed.number == change.number
        gate.reject(tx, repo, change.number, "ben", "no")
        branches.delete(tx, repo, BRANCH, "other", actor="ana")


def test_a_rename_to_a_name_that_exists_changes_nothing(repo: Repository) -> None:
    make(repo, "try")
    make(repo, "other")
    with pytest.raises(ConflictError), repo.store.transaction() as tx:
        branches.rename(tx, repo, BRANCH, "try", "other", actor="ana")
    with repo.store.reading() as tx:
        assert get_ref(tx, "try").owner == "ana"
        assert acts(tx, "try") == ["create"]


def test_a_name_is_not_renamed_to_itself(repo: Repository) -> None:
    make(repo, "try")
    with pytest.raises(ConflictError) as caught, transaction(repo) as tx:
        branches.rename(tx, repo, BRANCH, "try", "try", actor="ana")
    assert caught.value.kind == "ref-exists"
    with repo.store.reading() as tx:
        assert acts(tx, "try") == ["create"]


@pytest.mark.parametrize("name", ["a//b", "x/", "/x", "HEAD"])
def test_a_name_that_reads_as_a_path_or_as_head_is_refused(repo: Repository, name: str) -> None:
    for kind in (BRANCH, RefKind.TAG):
        with pytest.raises(InvalidError) as caught, transaction(repo) as tx:
            at = repo.resolve("main")
            branches.make(tx, repo, kind, name, at, actor="ana")
        assert caught.value.kind == "bad-ref-name"


def test_the_log_is_filtered_by_key_actor_time_and_run(repo: Repository) -> None:
    make(repo, "try")
    put(repo, "try", "table/a", 1)
    put(repo, "try", "table/b", 1, "ben")
    then = repo.clock()
    edit = Edit(repo.resolve("try"), {"table/a": {"n": 2}}, "ana", "m", "run_0123")
    made = commit_edit(repo, "try", edit)

    def whys(text: str, wanted: Filter) -> list[str]:
        with repo.store.reading() as tx:
            found = list(entries(tx, repo, text, wanted))
        return [e.operation.why if e.operation else e.commit.message for e in found if e.commit]

    assert whys("try", Filter()) == ["m", "table/b is 1", "table/a is 1", "made by ana"]
    assert whys("try", Filter(key="table/a")) == ["m", "table/a is 1"]
    assert whys("try", Filter(actor="ben")) == ["table/b is 1"]
    assert whys("try", Filter(since=then)) == ["m"]
    assert whys("try", Filter(key="table/a", until=then)) == ["table/a is 1"]
    assert whys("try", Filter(run="run_01")) == ["m"]
    assert whys("try", Filter(run="")) == whys("try", Filter(run="run_")) == []
    assert whys(f"try@{then.isoformat()}", Filter())[0] == "table/b is 1"
    behind = ["m", "table/b is 1", "table/a is 1", "An empty lake"]
    assert whys(made.id[:12], Filter()) == behind
    assert whys(made.id, Filter(key="table/a", actor="ana", until=made.at)) == ["table/a is 1"]
    assert whys(made.id, Filter(since=made.at + timedelta(seconds=1))) == []
    with repo.store.transaction() as tx:
        branches.delete(tx, repo, BRANCH, "try", actor="ana")
    assert whys("try", Filter(run="0123")) == ["m"]


def test_a_long_chain_is_read_in_parts_and_whole(repo: Repository) -> None:
    make(repo, "try")
    for number in range(450):
        put(repo, "try", "table/a", number)
    with repo.store.reading() as tx:
        found = list(entries(tx, repo, "try", Filter(actor="ana")))
        assert len(found) == 451
        assert [e.operation.sequence for e in found if e.operation] == list(range(451, 0, -1))
        some = next(entries(tx, repo, "try", Filter(key="table/none")), None)
        assert some is None
