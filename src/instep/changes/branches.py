"""Branches and tags as people handle them: make, rename, delete, protect.

Anybody of the project's people may, and the chain says who did. What others rely on stays: main,
environments, whatever is protected, and a branch while a change proposes it.
"""

from __future__ import annotations

from instep.changes import records
from instep.changes.records import State
from instep.errors import InvalidError, RefusedError
from instep.history import refs
from instep.history.refs import Ref, RefKind, create_ref, get_ref
from instep.history.repository import Repository
from instep.history.store import Transaction
from instep.pipelines.project import refuse_environment_name


def make(
    tx: Transaction,
    repo: Repository,
    kind: RefKind,
    name: str,
    commit: str,
    *,
    actor: str,
    why: str = "",
) -> Ref:
    """Makes a branch or tag at a commit; it is the actor's.

    Raises:
        InvalidError (kind "reserved-ref-name"). As `create_ref`.
    """
    refuse_environment_name(repo, tx, name)
    return create_ref(
        tx, name, kind, commit, owner=actor, at=repo.clock(), why=why or f"made by {actor}"
    )


def rename(
    tx: Transaction,
    repo: Repository,
    kind: RefKind,
    name: str,
    new: str,
    *,
    actor: str,
    why: str = "",
) -> Ref:
    """Renames a branch or tag; changes that propose it follow.

    Raises:
        InvalidError (kind "wrong-ref-kind"). As `rename_ref`.
    """
    _check_kind(get_ref(tx, name), kind)
    refuse_environment_name(repo, tx, new)
    renamed = refs.rename_ref(tx, name, new, actor=actor, at=repo.clock(), why=why)
    records.rename_branch(tx, name, new)
    return renamed


def delete(
    tx: Transaction, repo: Repository, kind: RefKind, name: str, *, actor: str, why: str = ""
) -> Ref:
    """Deletes a branch or tag.

    Raises:
        InvalidError (kind "wrong-ref-kind"). As `delete_ref`.
        RefusedError (kind "branch-proposed"): an open change proposes it.
    """
    _check_kind(get_ref(tx, name), kind)
    proposed = records.list_changes(tx, State.OPEN, State.HELD, branch=name)
    if proposed:
        numbers = ", ".join(str(change.number) for change in proposed)
        raise RefusedError(
            f'Branch "{name}" is what change {numbers} proposes: expected one that no open change '
            f'needs. Merge it, or "instep reject {proposed[0].number}" first.',
            kind="branch-proposed",
            ref=name,
            change=proposed[0].number,
        )
    return refs.delete_ref(tx, name, actor=actor, at=repo.clock(), why=why)


def protect(
    tx: Transaction,
    repo: Repository,
    kind: RefKind,
    name: str,
    is_protected: bool,
    *,
    actor: str,
    why: str = "",
) -> Ref:
    """Protects a branch or tag, or ends that.

    Raises:
        InvalidError (kind "wrong-ref-kind"). As `protect_ref`.
    """
    _check_kind(get_ref(tx, name), kind)
    return refs.protect_ref(tx, name, is_protected, actor=actor, at=repo.clock(), why=why)


def _check_kind(ref: Ref, wanted: RefKind) -> None:
    if ref.kind is not wanted:
        way = {
            RefKind.BRANCH: f'Use "instep branch" for "{ref.name}"',
            RefKind.TAG: f'Use "instep tag" for "{ref.name}"',
            RefKind.ENVIRONMENT: '"instep release" and "instep rollback" move environments',
            RefKind.SYSTEM: "Name another one",
        }[ref.kind]
        raise InvalidError(
            f'"{ref.name}" is of kind {ref.kind}: expected a {wanted}. {way}.',
            kind="wrong-ref-kind",
            ref=ref.name,
        )
