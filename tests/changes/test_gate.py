from __future__ import annotations

import itertools

import pytest
from databases import on_both

from instep.canonical import JsonObject
from instep.changes import gate, records
from instep.changes.policy import kinds_of_change, main_kind, needed_approvals
from instep.changes.records import Change, Kind, State, approvals_of
from instep.errors import ConflictError, NotFoundError, RefusedError
from instep.history.edits import Edit, publish
from instep.history.refs import RefKind, create_ref
from instep.history.repository import Repository
from instep.pipelines.project import Approvals

pytestmark = on_both

CONFIG = "lake: lake\npeople: [ana, ben, eve]\nenvironments: {prod: {}}\n"
Contents = dict[str, JsonObject | None]


def propose(
    repo: Repository,
    changes: Contents,
    *,
    kind: Kind = Kind.PIPELINE,
    reads: list[str] | None = None,
    state: State = State.OPEN,
) -> Change:
    edit = Edit(repo.resolve("main"), changes, "ana", "a title", "proposal")
    with repo.store.transaction() as tx:
        return gate.open_change(
            tx,
            repo,
            kind=kind,
            title="a title",
            edit=edit,
            evidence={"reads": reads or [], "rows": 0.5},
            state=state,
        )


def approve(repo: Repository, number: int, actor: str) -> None:
    with repo.store.transaction() as tx:
        gate.approve(tx, repo, number, actor)


def merge(repo: Repository, number: int, actor: str = "ana") -> gate.Merged:
    with repo.store.transaction() as tx:
        return gate.merge(tx, repo, number, actor)


def commit(repo: Repository, changes: Contents) -> None:
    with repo.store.transaction() as tx:
        publish(tx, repo, "main", Edit(repo.resolve("main"), changes, "ben", "m", "test"))


@pytest.fixture
def team(repo: Repository) -> Repository:
    blob = repo.objects.put(CONFIG.encode())
    commit(repo, {"config/instep": {"type": "instep.config.v1", "blob": blob}})
    return repo


def test_a_change_is_merged_once_somebody_else_agreed(team: Repository) -> None:
    change = propose(team, {"table/a": {"n": 1}})
    with pytest.raises(RefusedError, match=r"0 of 1 approvals.*ben, eve may give one"):
        merge(team, change.number)
    approve(team, change.number, "ben")
    merged = merge(team, change.number)
    assert team.content(team.resolve("main"), "table/a") == {"n": 1}
    assert merged.approved_by == ("ben",)
    assert merged.commit.origin == "change 1"
    assert change.head in merged.commit.parents


def test_nobody_approves_their_own_change(team: Repository) -> None:
    change = propose(team, {"table/a": {"n": 1}})
    with pytest.raises(RefusedError, match=r"nobody approves their own.*ben or eve") as caught:
        approve(team, change.number, "ana")
    assert caught.value.kind == "own-change"


def test_an_approval_lapses_when_a_key_that_the_evidence_read_moves(team: Repository) -> None:
    commit(team, {"contract/a": {"v": 1}})
    change = propose(team, {"table/a": {"n": 1}}, reads=["contract/a"])
    approve(team, change.number, "ben")
    commit(team, {"contract/a": {"v": 2}})
    with pytest.raises(RefusedError, match="what ben approved is no longer"):
        merge(team, change.number)


def test_other_keys_of_main_may_move_after_an_approval(team: Repository) -> None:
    change = propose(team, {"table/a": {"n": 1}})
    approve(team, change.number, "ben")
    commit(team, {"table/other": {"n": 9}})
    merge(team, change.number)
    assert team.content(team.resolve("main"), "table/other") == {"n": 9}
    assert team.content(team.resolve("main"), "table/a") == {"n": 1}


def test_an_approval_lapses_when_the_content_is_amended(team: Repository) -> None:
    change = propose(team, {"table/a": {"n": 1}})
    approve(team, change.number, "ben")
    with team.store.transaction() as tx:
        edit = Edit(team.resolve("main"), {"table/a": {"n": 2}}, "ana", "t", "proposal")
        gate.amend(tx, team, change.number, edit, {"reads": []})
    with pytest.raises(RefusedError, match="no longer what would be merged"):
        merge(team, change.number)


def test_two_changes_of_one_key_conflict_by_name_and_leave_main_alone(team: Repository) -> None:
    first = propose(team, {"table/a": {"n": 1}})
    second = propose(team, {"table/a": {"n": 2}, "table/b": {"n": 2}})
    for change in (first, second):
        approve(team, change.number, "ben")
    merge(team, first.number)
    head = team.resolve("main")
    with pytest.raises(ConflictError, match="table/a"):
        merge(team, second.number)
    assert team.resolve("main") == head


def test_two_changes_that_say_the_same_are_no_conflict(team: Repository) -> None:
    first = propose(team, {"table/a": {"n": 1}})
    second = propose(team, {"table/a": {"n": 1}, "table/b": {"n": 2}})
    for change in (first, second):
        approve(team, change.number, "ben")
        merge(team, change.number)
    assert set(team.entries(team.resolve("main"), "table")) == {"table/a", "table/b"}


def test_a_held_change_can_be_neither_approved_nor_merged(team: Repository) -> None:
    change = propose(team, {"table/a": {"n": 1}}, kind=Kind.ARRIVAL, state=State.HELD)
    with pytest.raises(RefusedError, match="instep accept 1") as caught:
        approve(team, change.number, "ben")
    assert caught.value.kind == "change-held"
    with pytest.raises(RefusedError, match="it is held"):
        merge(team, change.number)
    with team.store.transaction() as tx:
        gate.release_hold(tx, change.number)
    merge(team, change.number)


def test_a_refused_change_has_ended_for_good(team: Repository) -> None:
    change = propose(team, {"table/a": {"n": 1}})
    with team.store.transaction() as tx:
        ended = gate.reject(tx, team, change.number, "ben", "too early")
    assert (ended.state, ended.why, ended.ended_by) == (State.REFUSED, "too early", "ben")
    with pytest.raises(RefusedError, match="has ended"):
        approve(team, change.number, "ben")
    with pytest.raises(RefusedError, match="has ended"):
        merge(team, change.number)


def test_approving_twice_counts_once(team: Repository) -> None:
    change = propose(team, {"table/a": {"n": 1}})
    approve(team, change.number, "ben")
    approve(team, change.number, "ben")
    with team.store.reading() as tx:
        assert len(approvals_of(tx, change.number)) == 1


NO_APPROVALS = "policies: {approvals: {project: 0, pipeline: 0, model: 0}}\n"


def bring(repo: Repository, config: str) -> Change:
    blob = repo.objects.put(config.encode())
    contents: Contents = {"config/instep": {"type": "instep.config.v1", "blob": blob}}
    return propose(repo, contents, kind=Kind.PROJECT)


def test_the_first_change_is_judged_by_the_built_in_policy_not_by_the_one_it_brings(
    repo: Repository,
) -> None:
    change = bring(repo, CONFIG + NO_APPROVALS)
    with pytest.raises(RefusedError, match=r"0 of 1 approvals.*ben, eve may give one"):
        merge(repo, change.number)
    approve(repo, change.number, "eve")
    merge(repo, change.number)
    merge(repo, propose(repo, {"table/a": {"n": 1}}).number)


def test_somebody_alone_brings_the_first_policy_themselves(repo: Repository) -> None:
    merge(repo, bring(repo, "lake: lake\npeople: [ana]\n" + NO_APPROVALS).number)


def test_the_only_person_of_a_project_needs_nobody_to_agree_until_there_are_two(
    repo: Repository,
) -> None:
    def people(names: str) -> JsonObject:
        blob = repo.objects.put(f"lake: lake\npeople: [{names}]\n".encode())
        return {"type": "instep.config.v1", "blob": blob}

    commit(repo, {"config/instep": people("ana")})
    first = propose(repo, {"table/a": {"n": 1}})
    assert merge(repo, first.number).approved_by == ()
    second = propose(repo, {"config/instep": people("ana, ben")}, kind=Kind.PROJECT)
    merge(repo, second.number)
    third = propose(repo, {"table/a": {"n": 2}})
    with pytest.raises(RefusedError, match="ben may give one"):
        merge(repo, third.number)


def test_a_policy_that_loosens_is_judged_by_the_one_before_it(team: Repository) -> None:
    change = bring(team, "lake: lake\npeople: [ana]\n" + NO_APPROVALS)
    with pytest.raises(RefusedError, match="ben, eve may give one"):
        merge(team, change.number)


def test_a_number_that_does_not_exist_is_said_so(team: Repository) -> None:
    with pytest.raises(NotFoundError, match="Change 7 does not exist: there are none yet"):
        approve(team, 7, "ben")


def test_a_change_is_of_every_kind_that_it_touches(database: object) -> None:
    kinds = kinds_of_change(["table/a", "model/m", "config/instep"])
    assert kinds == {Kind.PIPELINE, Kind.MODEL, Kind.PROJECT}
    assert main_kind(kinds) is Kind.PROJECT
    assert main_kind({Kind.PIPELINE, Kind.MODEL}) is Kind.MODEL


@pytest.mark.parametrize("first", list(itertools.permutations(("project", "pipeline", "model"))))
def test_a_change_needs_what_its_most_guarded_part_needs(
    database: object, first: tuple[str, ...]
) -> None:
    policy = Approvals(**{kind: number for number, kind in enumerate(first)})
    kinds = kinds_of_change(["pipeline/p", "model/m", "contract/c"])
    assert needed_approvals(policy, kinds) == 2


def test_what_is_added_to_a_change_counts_when_it_is_merged(team: Repository) -> None:
    policy = CONFIG + "policies: {approvals: {pipeline: 0, model: 1, project: 2}}\n"
    blob = team.objects.put(policy.encode())
    commit(team, {"config/instep": {"type": "instep.config.v1", "blob": blob}})
    change = propose(team, {"pipeline/p": {"n": 1}})
    with team.store.transaction() as tx:
        more: Contents = {"pipeline/p": {"n": 1}, "model/m": {"n": 1}, "contract/c": {"n": 1}}
        gate.amend(tx, team, change.number, Edit(team.resolve("main"), more, "ana", "t", "p"), {})
    with pytest.raises(RefusedError, match="0 of 2 approvals"):
        merge(team, change.number)


def test_who_made_a_commit_of_a_branch_does_not_approve_it(team: Repository) -> None:
    with team.store.transaction() as tx:
        create_ref(tx, "try", RefKind.BRANCH, team.resolve("main"), owner="ben", at=team.clock())
        edit = Edit(team.resolve("main"), {"table/a": {"n": 1}}, "ben", "m", "test")
        head = publish(tx, team, "try", edit).id
        proposal = Edit(team.resolve("main"), {}, "ana", "m", "proposal")
        change = gate.open_change(
            tx, team, kind=Kind.PIPELINE, title="t", edit=proposal, evidence={}, head=head
        )
    with pytest.raises(RefusedError, match="Ask eve"):
        approve(team, change.number, "ben")
    approve(team, change.number, "eve")
    merge(team, change.number)


def test_an_approval_of_what_was_read_is_refused_once_it_was_amended(team: Repository) -> None:
    change = propose(team, {"table/a": {"n": 1}})
    with team.store.reading() as tx:
        read = gate.binding_of(tx, team, change)
    with team.store.transaction() as tx:
        edit = Edit(team.resolve("main"), {"table/a": {"n": 2}}, "ana", "t", "proposal")
        gate.amend(tx, team, change.number, edit, {})
    with pytest.raises(ConflictError) as caught, team.store.transaction() as tx:
        gate.approve(tx, team, change.number, "ben", expected=read[:12])
    assert caught.value.kind == "change-amended"
    with team.store.transaction() as tx:
        now = gate.binding_of(tx, team, records.load_change(tx, change.number))
        gate.approve(tx, team, change.number, "ben", expected=now[:12])
    merge(team, change.number)


def test_the_approval_of_somebody_who_has_left_does_not_count(team: Repository) -> None:
    change = propose(team, {"table/a": {"n": 1}})
    approve(team, change.number, "ben")
    blob = team.objects.put(CONFIG.replace("ben, ", "").encode())
    commit(team, {"config/instep": {"type": "instep.config.v1", "blob": blob}})
    with pytest.raises(RefusedError, match="0 of 1 approvals"):
        merge(team, change.number)
