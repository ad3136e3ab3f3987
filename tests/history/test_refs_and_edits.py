from __future__ import annotations

from datetime import timedelta

import pytest
from databases import on_every_at_length
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instep.canonical import JsonObject
from instep.errors import ConflictError, InvalidError, NotFoundError
from instep.history import operations
from instep.history.ancestry import commits_beyond, merge_base
from instep.history.commits import Commit, load_commit, make_commit, save_commit
from instep.history.edits import Edit, publish
from instep.history.merge import merge
from instep.history.refs import RefKind, create_ref, get_ref, list_refs
from instep.history.repository import Repository

pytestmark = on_every_at_length


def commit(
    repo: Repository,
    ref: str,
    changes: dict[str, JsonObject | None],
    *,
    base: str | None = None,
    reads: frozenset[str] = frozenset(),
) -> Commit:
    edit = Edit(base or repo.resolve(ref), changes, "ana", "a change", "test", reads)
    with repo.store.transaction() as tx:
        return publish(tx, repo, ref, edit)


def branch(repo: Repository, name: str, at: str = "main") -> None:
    with repo.store.transaction() as tx:
        create_ref(tx, name, RefKind.BRANCH, repo.resolve(at), owner="ana", at=repo.clock())


def test_a_commit_holds_every_key_at_once(repo: Repository) -> None:
    made = commit(repo, "main", {"table/a": {"n": 1}, "model/b": {"n": 2}})
    assert repo.resolve("main") == made.id
    assert repo.content(made.id, "table/a") == {"n": 1}
    assert repo.entries(made.id, "model") == {"model/b": {"n": 2}}


def test_an_edit_is_rebased_when_none_of_its_keys_moved(repo: Repository) -> None:
    base = repo.resolve("main")
    commit(repo, "main", {"table/a": {"n": 1}})
    made = commit(repo, "main", {"table/b": {"n": 2}}, base=base)
    assert set(repo.entries(made.id)) == {"table/a", "table/b"}


@pytest.mark.parametrize("reads", [frozenset[str](), frozenset({"table/a"})])
def test_an_edit_conflicts_when_a_key_it_read_or_wrote_moved(
    repo: Repository, reads: frozenset[str]
) -> None:
    base = repo.resolve("main")
    head = commit(repo, "main", {"table/a": {"n": 1}})
    mine: dict[str, JsonObject | None] = {"table/b" if reads else "table/a": {"n": 2}}
    with pytest.raises(ConflictError, match="table/a") as caught:
        commit(repo, "main", mine, base=base, reads=reads)
    assert caught.value.kind == "keys-moved"
    assert repo.resolve("main") == head.id


def test_a_branch_sees_nothing_of_main_after_it_was_made(repo: Repository) -> None:
    branch(repo, "try")
    commit(repo, "main", {"table/a": {"n": 1}})
    assert repo.find(repo.resolve("try"), "table/a") is None


def test_what_main_knew_at_an_instant_is_read_from_its_operations(repo: Repository) -> None:
    first = commit(repo, "main", {"table/a": {"n": 1}})
    second = commit(repo, "main", {"table/a": {"n": 2}})
    between = (first.at + timedelta(microseconds=1)).isoformat()
    assert repo.resolve(f"main@{between}") == first.id
    assert repo.resolve(f"main@{second.at.isoformat()}") == second.id
    with pytest.raises(NotFoundError, match="did not exist at"):
        repo.resolve("main@2000-01-01")


def test_a_commit_may_be_named_by_the_beginning_of_its_id(repo: Repository) -> None:
    made = commit(repo, "main", {"table/a": {"n": 1}})
    assert repo.resolve(made.id[:8]) == made.id
    with pytest.raises(NotFoundError, match="no branch, tag, environment or commit"):
        repo.resolve("0" * 12)


def test_every_move_is_in_a_whole_chain_and_a_changed_entry_breaks_it(repo: Repository) -> None:
    for number in range(3):
        commit(repo, "main", {"table/a": {"n": number}})
    with repo.store.reading() as tx:
        chain = operations.operations(tx, "main")
    assert [entry.kind for entry in chain] == ["create", "commit", "commit", "commit"]
    assert operations.is_whole(chain)
    with repo.store.transaction() as tx:
        tx.execute("update operations set actor = 'eve' where sequence = 2")
        assert not operations.is_whole(operations.operations(tx, "main"))


def test_a_ref_name_is_refused_when_it_could_be_taken_for_a_commit(repo: Repository) -> None:
    for name in ("deadbeef", "a..b", "", "9x", "a b", "x@y"):
        with pytest.raises(InvalidError, match="cannot name"):
            branch(repo, name)
    with pytest.raises(ConflictError, match="exists already"):
        branch(repo, "main")
    with repo.store.reading() as tx:
        assert [ref.name for ref in list_refs(tx)] == ["main"]


@pytest.mark.parametrize("kind", [RefKind.BRANCH, RefKind.TAG])
def test_names_that_begin_with_an_underscore_are_kept_for_the_lake(
    repo: Repository, kind: RefKind
) -> None:
    at, head = repo.clock(), repo.resolve("main")
    with pytest.raises(InvalidError) as refused, repo.store.transaction() as tx:
        create_ref(tx, "_instep", kind, head, owner="ana", at=at)
    assert refused.value.kind == "bad-ref-name"
    with repo.store.transaction() as tx:
        create_ref(tx, "_instep", RefKind.SYSTEM, head, owner="instep", at=at)


@given(data=st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_one_commit_has_beyond_another_is_what_only_it_reaches(
    repo: Repository, data: st.DataObject
) -> None:
    made = [repo.resolve("main")]
    reached = {made[0]: {made[0]}}
    with repo.store.transaction() as tx:
        tree = load_commit(tx, made[0]).tree
        for _ in range(data.draw(st.integers(1, 10))):
            parents = data.draw(
                st.lists(st.sampled_from(made), min_size=1, max_size=2, unique=True)
            )
            one = make_commit(tree, tuple(parents), "ana", repo.clock(), "m", "test")
            save_commit(tx, one)
            made.append(one.id)
            reached[one.id] = {one.id}.union(*(reached[parent] for parent in parents))
        for newer in made:
            for older in made:
                assert commits_beyond(tx, newer, older) == reached[newer] - reached[older]


def test_a_failed_transaction_leaves_the_ref_where_it_was(repo: Repository) -> None:
    before = repo.resolve("main")
    with pytest.raises(ZeroDivisionError), repo.store.transaction() as tx:
        publish(tx, repo, "main", Edit(before, {"table/a": {"n": 1}}, "ana", "m", "test"))
        raise ZeroDivisionError
    assert repo.resolve("main") == before


def test_merge_keeps_both_sides_when_keys_differ_and_names_conflicts(repo: Repository) -> None:
    commit(repo, "main", {"table/a": {"n": 0}, "table/same": {"n": 0}})
    branch(repo, "try")
    theirs = commit(repo, "try", {"table/a": {"n": 1}, "table/b": {"n": 1}, "table/same": {"n": 5}})
    ours = commit(repo, "main", {"table/a": {"n": 2}, "table/c": {"n": 2}, "table/same": {"n": 5}})
    with repo.store.reading() as tx:
        base = merge_base(tx, ours.id, theirs.id)
        assert base is not None
        assert get_ref(tx, "try").commit == theirs.id
    merged = merge(repo.diff(base, ours.id), repo.diff(base, theirs.id))
    assert merged.changes == {"table/b": {"n": 1}}
    (conflict,) = merged.conflicts
    assert (conflict.key, conflict.ours, conflict.theirs) == ("table/a", {"n": 2}, {"n": 1})
