"""Propose a branch, or the project's own files: evidence is computed, then a change is recorded."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from instep.canonical import Json, JsonObject
from instep.changes import gate, records
from instep.changes.evidence import Comparison, Say, compare, reads_of
from instep.changes.inputs import inputs_of
from instep.changes.policy import kinds_of_change, main_kind
from instep.changes.records import Change, Listed, State
from instep.contracts.terms import Contract, MergePolicy
from instep.contracts.type_changes import changed_types
from instep.errors import InternalError, RefusedError
from instep.history.ancestry import merge_base
from instep.history.commits import load_commit
from instep.history.edits import Edit, build
from instep.history.locks import writing
from instep.history.refs import RefKind, get_ref
from instep.history.repository import MAIN, Repository
from instep.history.store import Transaction
from instep.pipelines.capture import capture_project
from instep.tables.content import TableContent
from instep.tables.retype import Retyped

_FROM_DISK = ("config", "contract", "pipeline")


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change as it was recorded, with the comparison that is its evidence."""

    change: Change
    comparison: Comparison
    is_update: bool


def propose_project(
    repo: Repository,
    folder: Path,
    author: str,
    title: str,
    say: Say,
    only: Container[str] | None = None,
) -> Proposal:
    """Proposes the contracts, pipelines and configuration on disk, against main.

    What main has and the disk has no more is proposed for removal. With `only`, no other keys are.

    Raises:
        InvalidError: a file is not valid; nothing was recorded.
        InvalidError (kind "type-change"): the rows of a table cannot get a type of its contract.
        RefusedError (kind "nothing-to-propose").
    """
    with writing(repo.root, repo.store):
        return _propose_project(repo, folder, author, title, say, only)


def _propose_project(
    repo: Repository,
    folder: Path,
    author: str,
    title: str,
    say: Say,
    only: Container[str] | None,
) -> Proposal:
    base = repo.resolve(MAIN)
    draft = capture_project(folder, repo.objects)
    held = {key: value for kind in _FROM_DISK for key, value in repo.entries(base, kind).items()}
    changes: dict[str, JsonObject | None] = {
        key: draft.get(key)
        for key in sorted(draft.keys() | held.keys())
        if draft.get(key) != held.get(key) and (only is None or key in only)
    }
    check_types(repo, changes)
    if not changes:
        raise RefusedError(
            f"The project's files are what {MAIN} holds: there is nothing to propose. "
            "Change a file first.",
            kind="nothing-to-propose",
        )
    # Part of the project is another change than all of it, which may be open already.
    origin = "proposal" if only is None else f"proposal of {', '.join(changes)}"
    edit = Edit(base, changes, author, title, origin)
    with repo.store.transaction() as tx:
        head = build(tx, repo, edit).id
    return record(repo, edit, head, None, say)


def propose_branch(repo: Repository, branch: str, author: str, title: str, say: Say) -> Proposal:
    """Proposes what a branch changed since it left main. An open change of it is updated.

    Raises:
        NotFoundError (kind "no-such-ref").
        InvalidError (kind "type-change"): as `propose_project`.
        RefusedError (kind "nothing-to-propose").
    """
    with writing(repo.root, repo.store):
        return _propose_branch(repo, branch, author, title, say)


def _propose_branch(repo: Repository, branch: str, author: str, title: str, say: Say) -> Proposal:
    with repo.store.reading() as tx:
        ref = get_ref(tx, branch)
        base = merge_base(tx, ref.commit, get_ref(tx, MAIN).commit)
    if base is None:
        raise InternalError(
            f'Branch "{branch}" and {MAIN} have no common commit: expected that every branch '
            "begins at one of main. Report this as a fault of Instep.",
            kind="no-common-commit",
        )
    if ref.kind is not RefKind.BRANCH or not repo.diff(base, ref.commit):
        raise RefusedError(
            f'"{branch}" changed nothing since it left {MAIN}: there is nothing to propose. '
            f'Run a pipeline on it first ("instep run PIPELINE --branch {branch}").',
            kind="nothing-to-propose",
            branch=branch,
        )
    check_types(repo, {one.key: one.after for one in repo.diff(base, ref.commit)})
    edit = Edit(base, {}, author, title, "proposal")
    return record(repo, edit, ref.commit, branch, say)


def record(
    repo: Repository,
    edit: Edit,
    head: str,
    branch: str | None,
    say: Say,
    more: Mapping[str, Json] | None = None,
) -> Proposal:
    """Computes the evidence of commit `head` on the edit's base, and opens or updates a change.

    `more` is added to the evidence.
    """
    comparison = compare(repo, edit.base, head, say)
    with repo.store.reading() as tx:
        made = {key.key: repo.find(head, key.key) for key in comparison.keys}
        inputs = inputs_of(tx, repo, made)
    evidence: dict[str, Json] = {
        **comparison.to_json(),
        "reads": list(reads_of(comparison)),
        "inputs": inputs,
        **(more or {}),
    }
    kind = main_kind(kinds_of_change(key.key for key in comparison.keys))
    with repo.store.transaction() as tx:
        same = [
            change
            for change in records.list_changes(tx, State.OPEN, branch=branch)
            if change.author == edit.author and _is_alike(tx, change, branch, edit)
        ]
        if same:
            records.amend_change(
                tx,
                same[0].number,
                kind=kind,
                title=edit.message,
                base=edit.base,
                head=head,
                evidence=evidence,
            )
            return Proposal(records.load_change(tx, same[0].number), comparison, True)
        change = gate.open_change(
            tx,
            repo,
            kind=kind,
            title=edit.message,
            edit=edit,
            evidence=evidence,
            branch=branch,
            head=head,
        )
    return Proposal(change, comparison, False)


def check_types(repo: Repository, changes: Mapping[str, JsonObject | None]) -> None:
    """Holds that tables can have the columns of contracts that are new to main.

    A table that a pipeline makes gets the columns of its step.

    Raises:
        InvalidError (kind "type-change").
    """
    from instep.contracts.document import parse

    main = repo.resolve(MAIN)
    for key, contract in changes.items():
        kind, _, name = key.partition("/")
        if kind != "contract" or contract is None:
            continue
        table = f"table/{name}"
        content = changes[table] if table in changes else repo.find(main, table)
        promised = parse(repo.objects.text(str(contract["blob"])), f"contracts/{name}.yaml")
        if content is not None and promised.merge_policy is not MergePolicy.DERIVED:
            types_to_change(repo, TableContent.from_content(content), promised)


def types_to_change(
    repo: Repository, table: TableContent, contract: Contract
) -> tuple[Retyped, ...]:
    """Returns the columns of a table that its contract gives another type; raises as above."""
    from instep.contracts.checks import LEADING_ZEROS

    def had_zeros(name: str) -> bool:
        with repo.store.reading() as tx:
            return records.has_found(tx, LEADING_ZEROS, f"table/{contract.table}.{name}")

    return changed_types(repo.root, table, contract, had_zeros)


def _is_alike(tx: Transaction, change: Listed, branch: str | None, edit: Edit) -> bool:
    """Says whether a change by the same author proposes the same thing, in another state of it."""
    if branch is not None:
        return change.branch == branch
    return change.branch is None and load_commit(tx, change.head).origin == edit.origin
