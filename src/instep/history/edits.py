"""An edit: staged updates to many keys that become one commit, or nothing.

If the ref moved but none of the keys read or written by the edit moved, the edit is rebased;
otherwise it is a conflict that names the keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from instep.canonical import JsonObject
from instep.errors import ConflictError, OutcomeUnknownError, UnavailableError, some_of
from instep.faults import reached
from instep.history import tree
from instep.history.ancestry import Standing
from instep.history.commits import (
    Commit,
    first_parents,
    load_commit,
    make_commit,
    save_commit,
)
from instep.history.erasure import refuse_erased
from instep.history.refs import refuse_protected
from instep.history.repository import Repository
from instep.history.store import Transaction
from instep.history.tips import Tip, advance, get_tip
from instep.history.tokens import act_digest, find_done, keep_done
from instep.history.verify import blobs_of

_LOOKED_UP = 64
"""Up to so many keys are looked up one by one; beyond it, the two trees are compared."""

_LOOKED_BACK = 1000
"""How many commits a conflict looks through for who moved a key."""


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
    tx: Transaction,
    repo: Repository,
    ref: str,
    edit: Edit,
    *,
    kind: str = "commit",
    token: str | None = None,
) -> Commit:
    """Commits the edit on `ref` and returns the commit; all inside the caller's transaction.

    With a `token` that was published under before, that commit is returned and nothing changes.

    Raises:
        NotFoundError (kind "no-such-ref").
        ConflictError (kind "keys-moved"): a key read or written by the edit changed on the ref.
        ConflictError (kind "token-reused"): the token stood for another edit.
        RefusedError (kind "erased"): a content names an object that was erased.
    """
    return publish_at(tx, repo, get_tip(tx, ref), edit, kind=kind, token=token)


def publish_at(
    tx: Transaction,
    repo: Repository,
    tip: Tip,
    edit: Edit,
    *,
    kind: str = "commit",
    token: str | None = None,
) -> Commit:
    """As `publish`, on a ref whose tip was read in this transaction."""
    ref, head = tip.ref.name, tip.commit
    digest = _digest(ref, edit) if token is not None else ""
    done = find_done(tx, token, digest) if token is not None else None
    if done is not None:
        return load_commit(tx, done)
    if tip.root is not None:
        repo.nodes.keep(head.tree, tip.root)
    moved = moved_keys(tx, repo, edit, head)
    if moved:
        raise _keys_moved(tx, repo, ref, edit, head, moved)
    named = (blobs_of(content) for content in edit.changes.values() if content is not None)
    refuse_erased(tx, chain.from_iterable(named))
    commit = _commit_on(tx, repo, head, edit, None if edit.merged else tip.following)
    advance(tx, tip, commit.id, actor=edit.author, at=commit.at, kind=kind, why=edit.message)
    if token is not None:
        keep_done(tx, token, digest, ref=ref, commit=commit.id, at=commit.at)
    return commit


def commit_edit(
    repo: Repository, ref: str, edit: Edit, *, kind: str = "commit", token: str | None = None
) -> Commit:
    """Commits the edit on an unprotected ref, in a transaction of its own, and returns the commit.

    Writers of other refs go on meanwhile, where the store allows it. With a token, an unknown
    outcome is asked about once more: what was done is given back, what was not is done.

    Raises:
        RefusedError (kind "protected-branch").
        As `publish`, and as `Store.transaction`.
    """
    try:
        return _commit_once(repo, ref, edit, kind, token)
    except OutcomeUnknownError as unknown:
        if token is None:
            raise
        try:
            return _commit_once(repo, ref, edit, kind, token)
        except UnavailableError:
            raise unknown from None


def _commit_once(repo: Repository, ref: str, edit: Edit, kind: str, token: str | None) -> Commit:
    reached("edit.commit.before")
    with repo.store.transaction(ref) as tx:
        tip = get_tip(tx, ref)
        refuse_protected(tip.ref)
        commit = publish_at(tx, repo, tip, edit, kind=kind, token=token)
    reached("edit.commit.after")
    return commit


def moved_keys(tx: Transaction, repo: Repository, edit: Edit, head: Commit) -> tuple[str, ...]:
    """Returns the keys of the edit, read or written, that differ between its base and `head`."""
    if head.id == edit.base:
        return ()
    base = load_commit(tx, edit.base)
    touched = edit.reads | edit.changes.keys()
    if len(touched) <= _LOOKED_UP:
        return tuple(sorted(key for key in touched if _differs(repo, base, head, key)))
    return tuple(
        difference.key
        for difference in tree.diff(repo.nodes, base.tree, head.tree)
        if difference.key in touched
    )


def who_moved(
    tx: Transaction, repo: Repository, base: str, head: str, keys: Iterable[str]
) -> dict[str, Commit]:
    """Returns the latest commit that changed each key on the way from `base` to `head`.

    Looks at the last thousand commits; what moved before them is left out.
    """
    left, found = set(keys), dict[str, Commit]()
    newer: Commit | None = None
    for commit in first_parents(tx, head, _LOOKED_BACK):
        if newer is not None:
            for key in [key for key in left if _differs(repo, commit, newer, key)]:
                found[key] = newer
                left.discard(key)
        newer = commit
        if commit.id == base or not left:
            break
    return found


def _differs(repo: Repository, before: Commit, after: Commit, key: str) -> bool:
    old, new = (tree.find(repo.nodes, commit.tree, key) for commit in (before, after))
    return old != new


def _keys_moved(
    tx: Transaction,
    repo: Repository,
    ref: str,
    edit: Edit,
    head: Commit,
    moved: tuple[str, ...],
) -> ConflictError:
    movers = who_moved(tx, repo, edit.base, head.id, moved)
    theirs = tuple(_by(key, movers.get(key)) for key in moved)
    return ConflictError(
        f'"{ref}" moved from {edit.base[:12]} to {head.id[:12]} and with it {some_of(theirs)}: '
        f'{edit.author} ("{edit.message}", {edit.origin}) expected these keys as they were when '
        "the work began. Do the work again on the new state.",
        kind="keys-moved",
        ref=ref,
        keys=moved,
        moved_by=theirs,
    )


def _by(key: str, commit: Commit | None) -> str:
    if commit is None:
        return key
    return f'{key} (by {commit.author} in {commit.id[:12]}, {commit.origin}: "{commit.message}")'


def _digest(ref: str, edit: Edit) -> str:
    """Returns what a token stands for; on which commit the work began is no part of it."""
    return act_digest(
        {
            "ref": ref,
            "changes": edit.changes,
            "author": edit.author,
            "message": edit.message,
            "origin": edit.origin,
            "merged": list(edit.merged),
        }
    )


def _commit_on(
    tx: Transaction, repo: Repository, head: Commit, edit: Edit, place: Standing | None = None
) -> Commit:
    root = tree.update(tx, repo.nodes, head.tree, edit.changes)
    commit = make_commit(
        root, (head.id, *edit.merged), edit.author, repo.clock(), edit.message, edit.origin
    )
    save_commit(tx, commit, place)
    return commit
