"""An edit: staged updates to many keys that become one commit, or nothing.

If the ref moved but none of the keys read or written by the edit moved, the edit is rebased;
otherwise it is a conflict that names the keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from instep.canonical import JsonObject
from instep.errors import ConflictError
from instep.history import tree
from instep.history.commits import Commit, head_commit, load_commit, make_commit, save_commit
from instep.history.refs import get_ref, move_ref
from instep.history.repository import Repository
from instep.history.store import Transaction


@dataclass(frozen=True, slots=True)
class Edit:
    """`changes` on top of commit `base`; None removes a key. `reads` are keys it relied on."""

    base: str
    changes: Mapping[str, JsonObject | None]
    author: str
    message: str
    origin: str
    reads: frozenset[str] = frozenset()
    merged: tuple[str, ...] = ()
    """Commits that this one brings in besides its base: further parents."""


def build(tx: Transaction, repo: Repository, edit: Edit) -> Commit:
    """Stores the edit as a commit on its base, on no ref, and returns it."""
    base = load_commit(tx, edit.base)
    return _commit_on(tx, repo, base, edit)


def publish(
    tx: Transaction, repo: Repository, ref: str, edit: Edit, *, kind: str = "commit"
) -> Commit:
    """Commits the edit on `ref` and returns the commit; all inside the caller's transaction.

    Raises:
        NotFoundError (kind "no-such-ref").
        ConflictError (kind "keys-moved"): a key read or written by the edit changed on the ref.
    """
    head = head_commit(tx, ref) or load_commit(tx, get_ref(tx, ref).commit)
    moved = moved_keys(tx, repo, edit, head)
    if moved:
        raise ConflictError(
            f'"{ref}" moved from {edit.base[:12]} to {head.id[:12]} and with it '
            f"{', '.join(moved)}: expected these keys as they were when the work began. "
            "Do the work again on the new state.",
            kind="keys-moved",
            ref=ref,
            keys=moved,
        )
    commit = _commit_on(tx, repo, head, edit)
    move_ref(
        tx,
        ref,
        expected=head.id,
        commit=commit.id,
        actor=edit.author,
        at=commit.at,
        kind=kind,
        why=edit.message,
    )
    return commit


def moved_keys(tx: Transaction, repo: Repository, edit: Edit, head: Commit) -> tuple[str, ...]:
    """Returns the keys of the edit, read or written, that differ between its base and `head`."""
    if head.id == edit.base:
        return ()
    base = load_commit(tx, edit.base)
    touched = edit.reads | edit.changes.keys()
    return tuple(
        difference.key
        for difference in tree.diff(repo.nodes, base.tree, head.tree)
        if difference.key in touched
    )


def _commit_on(tx: Transaction, repo: Repository, head: Commit, edit: Edit) -> Commit:
    root = tree.update(tx, repo.nodes, head.tree, edit.changes)
    commit = make_commit(
        root, (head.id, *edit.merged), edit.author, repo.clock(), edit.message, edit.origin
    )
    save_commit(tx, commit)
    return commit
