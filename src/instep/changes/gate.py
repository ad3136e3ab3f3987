"""The one gate to main: open, approve, merge, reject. Each act is one transaction.

An approval binds to the changed contents, the contents of the keys that the evidence read, the
slices of tables that changed tables and models were computed from, and the evidence itself. Other
keys of main, and other rows, may move: the change is rebased silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from instep.canonical import Json, JsonObject, digest_of
from instep.changes import records
from instep.changes.inputs import Moved, moved_inputs
from instep.changes.policy import Decision, Wait, decide, kinds_of_change, needed_approvals
from instep.changes.records import Approval, Change, Kind, State
from instep.errors import ConflictError, RefusedError
from instep.history import tree
from instep.history.commits import Commit, first_parents, load_commit
from instep.history.edits import Edit, build, publish
from instep.history.refs import get_ref
from instep.history.repository import MAIN, Repository
from instep.history.store import Transaction
from instep.pipelines.project import Approvals, lake_config

_BINDING = "instep.approval.v1"

_OWN_COMMITS = 10_000
"""How many commits of a branch are looked through for their authors."""


@dataclass(frozen=True, slots=True)
class Merged:
    """A change and the commit on main that brought it in."""

    change: Change
    commit: Commit
    approved_by: tuple[str, ...]
    upkeep: str = ""
    """What was done to the files of its table after it, in words."""


def open_change(
    tx: Transaction,
    repo: Repository,
    *,
    kind: Kind,
    title: str,
    edit: Edit,
    evidence: Mapping[str, Json],
    state: State = State.OPEN,
    branch: str | None = None,
    head: str | None = None,
) -> Change:
    """Records a proposal by `edit.author`; its content becomes a commit on no ref.

    `head` is given when the commit exists already, as with a branch.
    """
    return records.insert_change(
        tx,
        kind=kind,
        state=state,
        title=title,
        author=edit.author,
        at=repo.clock(),
        branch=branch,
        base=edit.base,
        head=head or build(tx, repo, edit).id,
        evidence=evidence,
    )


def amend(
    tx: Transaction, repo: Repository, number: int, edit: Edit, evidence: Mapping[str, Json]
) -> Change:
    """Replaces the content of a change that has not ended; its approvals lapse."""
    change = records.load_change(tx, number)
    _refuse_ended(change)
    records.amend_change(
        tx,
        number,
        kind=change.kind,
        title=edit.message,
        base=edit.base,
        head=build(tx, repo, edit).id,
        evidence=evidence,
    )
    return records.load_change(tx, number)


def release_hold(tx: Transaction, number: int) -> Change:
    """Makes a held change an open one: somebody decided about its data."""
    tx.execute("update changes set state = 'open' where number = ? and state = 'held'", (number,))
    return records.load_change(tx, number)


def hold(tx: Transaction, number: int) -> Change:
    """Makes an open change a held one: its data, read again, does not fit."""
    tx.execute("update changes set state = 'held' where number = ? and state = 'open'", (number,))
    return records.load_change(tx, number)


def approve(
    tx: Transaction,
    repo: Repository,
    number: int,
    actor: str,
    why: str = "",
    expected: str | None = None,
) -> Approval:
    """Records that `actor` agrees to what change `number` holds now.

    `expected` is the beginning of the binding that they read; another content is refused.

    Raises:
        RefusedError (kinds "own-change", "change-ended", "change-held").
        ConflictError (kind "change-amended"): it is no longer what was read.
    """
    change = records.load_change(tx, number)
    _refuse_ended(change)
    if change.state is State.HELD:
        raise RefusedError(
            f"Change {number} is held: its data does not fit its contract, so there is nothing to "
            f'approve yet. Decide with "instep accept {number}" or "instep refuse {number}".',
            kind="change-held",
            change=number,
        )
    if actor in authors_of(tx, change):
        asked = " or ".join(others(tx, repo, change)) or "somebody else"
        raise RefusedError(
            f"{actor} made change {number} or part of it, and nobody approves their own: expected "
            f"somebody else. Ask {asked}.",
            kind="own-change",
            change=number,
            actor=actor,
        )
    binding = binding_of(tx, repo, change)
    if expected is not None and not binding.startswith(expected):
        raise ConflictError(
            f"Change {number} is now {binding[:12]}: expected {expected}, which was read. "
            f'Read it again ("instep review {number}"), then approve that.',
            kind="change-amended",
            change=number,
        )
    approval = Approval(number, actor, repo.clock(), binding, why)
    records.insert_approval(tx, approval)
    return approval


def judge(tx: Transaction, repo: Repository, change: Change) -> Decision:
    """Returns whether a change may be merged now, and why not.

    The policy is main's own. Before the first is merged it is the built-in one, and the people are
    those whom the change brings. Where its authors are alone, nobody else could agree.
    """
    config = lake_config(repo, get_ref(tx, MAIN).commit)
    brought = config or lake_config(repo, change.head)
    people = tuple(brought.people) if brought else ()
    authors = authors_of(tx, change)
    keys = changed_contents(tx, repo, change)
    kinds = {Kind.ARRIVAL} if change.kind is Kind.ARRIVAL else kinds_of_change(keys)
    needed = needed_approvals(config.approvals if config else Approvals(), kinds)
    # Where nobody else is there, nobody could agree: neither now nor to adding somebody.
    alone = len(people) == 1 if config else len(people) > 0
    return decide(
        change,
        records.approvals_of(tx, change.number),
        binding=binding_of(tx, repo, change),
        needed=0 if alone and authors.issuperset(people) else needed,
        authors=authors,
        people=people,
        moved=moved_of(tx, repo, change),
    )


def moved_of(tx: Transaction, repo: Repository, change: Change) -> tuple[Moved, ...]:
    """Returns the inputs of what a change brings that are others on main now than when read."""
    inputs = change.evidence.get("inputs")
    if change.has_ended or not isinstance(inputs, list):
        return ()
    read = [one for one in inputs if isinstance(one, Mapping)]
    return moved_inputs(tx, repo, change.base, changed_contents(tx, repo, change), read)


def authors_of(tx: Transaction, change: Change) -> frozenset[str]:
    """Returns who proposed a change, and who made the commits that it brings."""
    found = {change.author}
    for commit in first_parents(tx, change.head, _OWN_COMMITS):
        if commit.id == change.base:
            break
        found.add(commit.author)
    return frozenset(found)


def others(tx: Transaction, repo: Repository, change: Change) -> tuple[str, ...]:
    """Returns the people who made no part of a change, so that they may agree to it."""
    config = lake_config(repo, get_ref(tx, MAIN).commit) or lake_config(repo, change.head)
    authors = authors_of(tx, change)
    return tuple(name for name in config.people if name not in authors) if config else ()


def is_alone(repo: Repository, actor: str) -> bool:
    """Says whether `actor` is the only person of the project, so that nobody else could agree."""
    config = lake_config(repo, repo.resolve(MAIN))
    return config is not None and set(config.people) == {actor}


def merge(tx: Transaction, repo: Repository, number: int, actor: str) -> Merged:
    """Brings a change to main as one commit, if its policy says so.

    Raises:
        RefusedError (kind "not-mergeable"): each reason, and who may help.
        ConflictError (kind "keys-moved"): main has another version of a key it changes.
    """
    change = records.load_change(tx, number)
    decision = judge(tx, repo, change)
    if isinstance(decision, Wait):
        raise RefusedError(
            f"Change {number} cannot be merged: {'; '.join(decision.reasons)}.",
            kind="not-mergeable",
            change=number,
            reasons=decision.reasons,
        )
    edit = Edit(
        base=change.base,
        changes=changed_contents(tx, repo, change),
        author=actor,
        message=change.title,
        origin=change.origin,
        reads=_still_relied_on(change, decision.approved_by),
        merged=(change.head,),
    )
    commit = publish(tx, repo, MAIN, _without_what_main_has(tx, repo, edit), kind="merge")
    records.end_change(
        tx,
        number,
        State.MERGED,
        actor=actor,
        at=commit.at,
        why=", ".join(f"approved by {name}" for name in decision.approved_by),
        commit=commit.id,
    )
    return Merged(records.load_change(tx, number), commit, decision.approved_by)


def reject(tx: Transaction, repo: Repository, number: int, actor: str, why: str) -> Change:
    """Ends a change without merging it; `why` is kept.

    Raises:
        RefusedError (kind "change-ended").
    """
    _refuse_ended(records.load_change(tx, number))
    records.end_change(tx, number, State.REFUSED, actor=actor, at=repo.clock(), why=why)
    return records.load_change(tx, number)


def binding_of(tx: Transaction, repo: Repository, change: Change) -> str:
    """Returns the digest of all that an approval of `change` agrees to, as it is now.

    An arrival is its file, read as its evidence tells, whatever its table has become meanwhile.
    """
    main = load_commit(tx, get_ref(tx, MAIN).commit)
    reads = {key: tree.find(repo.nodes, main.tree, key) for key in evidence_reads(change)}
    is_arrival = change.kind is Kind.ARRIVAL
    changes = {} if is_arrival else dict(sorted(changed_contents(tx, repo, change).items()))
    body: dict[str, Json] = {
        "changes": changes,
        "reads": reads,
        "evidence": change.evidence_digest,
    }
    moved = moved_of(tx, repo, change)
    if moved:
        body["moved"] = [one.to_json() for one in moved]
    return digest_of(_BINDING, body)


def changed_contents(
    tx: Transaction, repo: Repository, change: Change
) -> dict[str, JsonObject | None]:
    """Returns what the change sets each key to, None where it removes one."""
    before, after = load_commit(tx, change.base), load_commit(tx, change.head)
    return {each.key: each.after for each in tree.diff(repo.nodes, before.tree, after.tree)}


def evidence_reads(change: Change) -> frozenset[str]:
    """Returns the keys of main that the evidence was computed from, besides those changed."""
    reads = change.evidence.get("reads")
    return frozenset(str(key) for key in reads) if isinstance(reads, list) else frozenset()


def _still_relied_on(change: Change, approved_by: tuple[str, ...]) -> frozenset[str]:
    """The keys that must be as they were: none where somebody agreed with main as it is now.

    An arrival is read by its contract, which an agreement does not do again.
    """
    is_agreed = approved_by and change.kind is not Kind.ARRIVAL
    return frozenset() if is_agreed else evidence_reads(change)


def _without_what_main_has(tx: Transaction, repo: Repository, edit: Edit) -> Edit:
    """Drops changes that main made alike: they are no conflict."""
    main = load_commit(tx, get_ref(tx, MAIN).commit)
    left = {
        key: content
        for key, content in edit.changes.items()
        if tree.find(repo.nodes, main.tree, key) != content
    }
    return Edit(
        edit.base,
        left,
        edit.author,
        edit.message,
        edit.origin,
        edit.reads - left.keys(),
        edit.merged,
    )


def _refuse_ended(change: Change) -> None:
    if change.has_ended:
        raise RefusedError(
            f"Change {change.number} has ended: it was {change.state.value} by {change.ended_by}. "
            "Propose a new one.",
            kind="change-ended",
            change=change.number,
        )
