"""On which branch a run begins and ends: one that is there, or one that is made for it."""

from __future__ import annotations

import contextlib

from instep.errors import RefusedError
from instep.history.edits import Edit, publish
from instep.history.refs import Ref, RefKind, create_ref, find_ref, refuse_protected
from instep.history.repository import MAIN, Repository
from instep.history.store import Transaction
from instep.pipelines.project import refuse_environment_name
from instep.pipelines.records import Run


def begin_on(repo: Repository, branch: str) -> tuple[str, bool]:
    """Returns the commit on which a run on `branch` begins, and whether the branch is new."""
    with repo.store.reading() as tx:
        ref = find_ref(tx, branch)
    if ref is None:
        _check_name(repo, branch)
        return repo.resolve(MAIN), True
    _refuse_not_a_branch(ref)
    return ref.commit, False


def publish_on(tx: Transaction, repo: Repository, branch: str, edit: Edit, run: Run) -> str:
    """Commits what a run made on its branch, made now if it is missing; returns where that is."""
    ref = find_ref(tx, branch)
    if ref is not None:
        _refuse_not_a_branch(ref)
    else:
        refuse_environment_name(repo, tx, branch)
        create_ref(
            tx,
            branch,
            RefKind.BRANCH,
            edit.base,
            owner=run.actor,
            at=repo.clock(),
            why=f"for run {run.id}",
        )
    if not edit.changes:
        return edit.base
    return publish(tx, repo, branch, edit, kind="run").id


def _refuse_not_a_branch(ref: Ref) -> None:
    refuse_protected(ref)
    if ref.kind is not RefKind.BRANCH:
        raise RefusedError(
            f'"{ref.name}" is a {ref.kind}, and never moves: expected a branch. Run on another '
            'name, then "instep propose" it.',
            kind="protected-branch",
            ref=ref.name,
        )


class _UndoError(Exception):
    """Ends a transaction that was only a trial."""


def _check_name(repo: Repository, branch: str) -> None:
    """Holds that the branch could be made, before any work is done for it."""
    with contextlib.suppress(_UndoError), repo.store.transaction(branch) as tx:
        refuse_environment_name(repo, tx, branch)
        create_ref(tx, branch, RefKind.BRANCH, repo.resolve(MAIN), owner="", at=repo.clock())
        raise _UndoError
