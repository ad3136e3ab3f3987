"""Undo: set the keys of a commit back to what they were before it. Always a new operation.

On main it is a change like any other, with evidence and approval, and it says what it undoes; on a
branch of one's own it is a commit. A key that moved since is a conflict, by name. Whatever was made
from a key that is set back is told: it would stay as if nothing had been undone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from instep.canonical import Json, JsonObject
from instep.changes import records
from instep.changes.branch_merge import BY_ROWS
from instep.changes.evidence import Say
from instep.changes.propose import Proposal, check_types, record
from instep.changes.stale import Stale, stale_after
from instep.changes.table_evidence import contract_at
from instep.errors import ConflictError, InvalidError, RefusedError, some_of
from instep.history import tree
from instep.history.ancestry import is_ancestor
from instep.history.commits import Commit, load_commit
from instep.history.edits import Edit, build, commit_edit, who_moved
from instep.history.locks import writing
from instep.history.refs import Ref, RefKind, get_ref, refuse_protected
from instep.history.repository import MAIN, Repository
from instep.history.store import Transaction
from instep.tables.content import TableContent
from instep.tables.merge import merge_rows
from instep.tables.read import data_files
from instep.tables.write import replace


@dataclass(frozen=True, slots=True)
class Undo:
    """What would be set to what on top of commit `base`, and what that makes stale.

    `reads` are the contracts by which rows were set back.
    """

    undone: Commit
    base: str
    changes: Mapping[str, JsonObject | None]
    stale: tuple[Stale, ...]
    reads: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        """Says what it is, wherever the change or commit is listed."""
        what = self.undone.message or self.undone.origin
        return f"Undoes {self.undone.id[:12]}: {what}"


@dataclass(frozen=True, slots=True)
class Undone:
    """An undo that was proposed for main, or committed on a branch."""

    undo: Undo
    proposal: Proposal | None
    commit: Commit | None


def undo_on_main(
    repo: Repository, undone: str, only: Iterable[str], *, author: str, why: str, say: Say
) -> Undone:
    """Opens a change that undoes a commit of main.

    Raises:
        As `plan_undo`; InvalidError (kind "type-change"): as `propose_project`.
    """
    with writing(repo.root, repo.store):
        found = plan_undo(repo, MAIN, undone, only)
        edit = _edit(found, author, why)
        check_types(repo, edit.changes)
        with repo.store.transaction() as tx:
            head = build(tx, repo, edit).id
        more: dict[str, Json] = {
            "undoes": undone,
            "why": why,
            "stale": [one.to_json() for one in found.stale],
        }
        return Undone(found, record(repo, edit, head, None, say, more), None)


def undo_on_branch(
    repo: Repository, branch: str, undone: str, only: Iterable[str], *, author: str, why: str
) -> Undone:
    """Undoes a commit on an unprotected branch, by a new commit there.

    Raises:
        RefusedError (kind "protected-branch"). As `plan_undo`.
    """
    with repo.store.reading() as tx:
        _check_branch(get_ref(tx, branch))
    with writing(repo.root, repo.store):
        found = plan_undo(repo, branch, undone, only)
        edit = _edit(found, author, why)
        return Undone(found, None, commit_edit(repo, branch, edit, kind="undo"))


def plan_undo(repo: Repository, ref: str, undone: str, only: Iterable[str]) -> Undo:
    """Returns what undoing commit `undone` on `ref` would do; `only` keeps to some of its keys.

    A table that changed again since keeps what came later, where its contract merges rows: only
    the rows that the commit added, changed or removed are set back, in files written for it.

    Raises:
        RefusedError (kind "nothing-to-undo"): it changed nothing, is not there, or is undone.
        InvalidError (kind "key-not-changed"): `only` names a key that the commit did not change.
        ConflictError (kind "keys-moved"): a key was changed again since.
    """
    with repo.store.reading() as tx:
        head = load_commit(tx, get_ref(tx, ref).commit)
        commit = load_commit(tx, undone)
        if not is_ancestor(tx, undone, head.id):
            raise _nothing(undone, f'it is not on "{ref}"')
        if not commit.parents:
            raise _nothing(undone, "the lake began with it")
        before = load_commit(tx, commit.parents[0])
        plan = _plan(repo, head, _wanted(repo, before, commit, tuple(only)))
    # Files are written outside the transaction: rows may be many, and commits never change.
    found = [(one.key, one.before if one.rows is None else _merge(repo, one.rows)) for one in plan]
    changes = {key: content for key, content in found if not isinstance(content, _Moved)}
    moved = [key for key, content in found if isinstance(content, _Moved)]
    with repo.store.reading() as tx:
        if moved:
            raise _moved_since(tx, repo, head, commit, moved)
        if not changes:
            raise _nothing(commit.id, "what it changed is as it was before it")
        stale = stale_after(tx, repo, head.id, changes)
    reads = frozenset(f"contract/{one.key.partition('/')[2]}" for one in plan if one.rows)
    return Undo(commit, head.id, changes, stale, reads)


def commit_of_change(tx: Transaction, number: int) -> str:
    """Returns the commit on main by which a change was merged.

    Raises:
        NotFoundError (kind "no-such-change").
        RefusedError (kind "nothing-to-undo"): it was not merged.
    """
    change = records.load_change(tx, number)
    if change.merged_commit is None:
        raise _nothing(f"change {number}", f"it is {change.state}, and never reached {MAIN}")
    return change.merged_commit


def is_undone(tx: Transaction, commit: str) -> bool:
    """Says whether a merged change undid a commit of main, and was not undone itself."""
    undos = tx.rows(
        "select c.merged_commit from changes c join commits h on h.id = c.head_commit "
        "where c.state = 'merged' and h.origin = ?",
        (_origin(commit),),
    )
    return any(not is_undone(tx, str(undo)) for (undo,) in undos)


def _origin(undone: str) -> str:
    return f"undo of {undone}"


def _wanted(
    repo: Repository, before: Commit, commit: Commit, only: tuple[str, ...]
) -> tuple[tree.Difference, ...]:
    differences = tree.diff(repo.nodes, before.tree, commit.tree)
    changed = [each.key for each in differences]
    for key in only:
        if key not in changed:
            raise InvalidError(
                f"Commit {commit.id[:12]} did not change {key}: expected one of "
                f"{some_of(changed) or 'none'}. Correct the key.",
                kind="key-not-changed",
                key=key,
                commit=commit.id,
            )
    return tuple(each for each in differences if not only or each.key in only)


@dataclass(frozen=True, slots=True)
class _ByRows:
    """A table that changed again since: its states after, now and before, and its contract's key.

    `before` is None where the commit made the table.
    """

    after: TableContent
    now: TableContent
    before: TableContent | None
    key: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Moved:
    """A key that changed again since, and cannot be set back alone."""


@dataclass(frozen=True, slots=True)
class _Step:
    """What is to be done with a key: set back to `before`, by rows where there are `rows`."""

    key: str
    before: JsonObject | _Moved | None
    rows: _ByRows | None = None


def _plan(
    repo: Repository, head: Commit, differences: tuple[tree.Difference, ...]
) -> tuple[_Step, ...]:
    """Returns the keys that are not yet as they were before, and how each is set back."""
    steps = []
    for each in differences:
        now = tree.find(repo.nodes, head.tree, each.key)
        if now == each.after:
            steps.append(_Step(each.key, each.before))
        elif now != each.before:
            steps.append(_Step(each.key, _Moved(), _by_rows(repo, head, each, now)))
    return tuple(steps)


def _by_rows(
    repo: Repository, head: Commit, undone: tree.Difference, now: JsonObject | None
) -> _ByRows | None:
    """Returns what a merge by rows needs; None where table or contract do not allow one."""
    if tree.kind_of(undone.key) != "table":
        return None
    contents = undone.after, now, undone.before
    after, ours, before = (
        TableContent.from_content(one) if one is not None else None for one in contents
    )
    contract = contract_at(repo, head.id, undone.key.partition("/")[2])
    if (
        after is None
        or ours is None
        or after.uuid != ours.uuid
        or (before is not None and before.uuid != after.uuid)
        or contract is None
        or contract.merge_policy not in BY_ROWS
    ):
        return None
    return _ByRows(after, ours, before, tuple(contract.key))


def _merge(repo: Repository, rows: _ByRows) -> JsonObject | _Moved:
    """Writes a table as it is now without what a commit did to it; returns its content.

    It is the merge, by the contract's policy, of what is there now and what was before, both seen
    from the state that the commit left.
    """
    after, before = rows.after, rows.before
    if before is None:  # the commit made the table: before it there were no rows
        files = [file.path for file in data_files(repo.root, after)]
        before = replace(repo.root, after, (), files, at=repo.clock())
    merged = merge_rows(repo.root, after, rows.now, before, rows.key, at=repo.clock())
    return merged.content.to_content() if merged.content else _Moved()


def _moved_since(
    tx: Transaction, repo: Repository, head: Commit, commit: Commit, moved: list[str]
) -> ConflictError:
    movers = who_moved(tx, repo, commit.id, head.id, moved)
    theirs = tuple(
        f'{key} (by {movers[key].author} in {movers[key].id[:12]}: "{movers[key].message}")'
        if key in movers
        else key
        for key in moved
    )
    return ConflictError(
        f"Commit {commit.id[:12]} cannot be undone whole: {some_of(theirs)} changed since, and "
        "going back would lose that too. Undo the later commit first, or name other keys with "
        "--only.",
        kind="keys-moved",
        keys=tuple(moved),
        moved_by=theirs,
    )


def _check_branch(ref: Ref) -> None:
    refuse_protected(ref)
    if ref.kind is not RefKind.BRANCH:
        raise InvalidError(
            f'"{ref.name}" is of kind {ref.kind}: expected a branch. Name one with --on.',
            kind="wrong-ref-kind",
            ref=ref.name,
        )


def _nothing(what: str, reason: str) -> RefusedError:
    name = what if what.startswith("change") else f"Commit {what[:12]}"
    return RefusedError(
        f'{name.capitalize()} cannot be undone: {reason}. See "instep log".',
        kind="nothing-to-undo",
    )


def _edit(undo: Undo, author: str, why: str) -> Edit:
    origin = _origin(undo.undone.id)
    return Edit(undo.base, undo.changes, author, _worded(undo, why), origin, undo.reads)


def _worded(undo: Undo, why: str) -> str:
    return f"{undo.title} ({why})" if why else undo.title
