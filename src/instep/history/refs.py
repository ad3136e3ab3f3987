"""Branches, tags and environments: names that point to one commit.

Making, moving, renaming, protecting and deleting are each an entry of the name's chain, which stays
when the ref goes: what a name pointed to at an instant can always be asked. A tag never moves, nor
does its name ever mean another commit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from instep.canonical import from_microseconds, to_microseconds
from instep.clock import parse_instant
from instep.errors import ConflictError, InvalidError, NotFoundError, RefusedError
from instep.history.commits import load_commit
from instep.history.operations import append_operation, commits_of, last_operation
from instep.history.store import Row, Transaction

_NAME = re.compile(r"(?=.{1,100}$)(?!HEAD$)[A-Za-z_][A-Za-z0-9_.-]*(/[A-Za-z0-9_.-]+)*")
_COMMIT_ID = re.compile(r"[0-9a-f]{8,64}")
_COLUMNS = "name, kind, commit_id, is_protected, owner, created_at"
_TAGGED = "tag"
"""The act by which a tag is made: what a name has been is read from its chain."""

_NAMED = 20
"""How many refs a message names; beyond it nobody reads them."""

MAIN = "main"
"""The reviewed branch: always there, always protected."""


class RefKind(StrEnum):
    BRANCH = "branch"
    TAG = "tag"
    ENVIRONMENT = "environment"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Ref:
    name: str
    kind: RefKind
    commit: str
    is_protected: bool
    owner: str
    created_at: datetime


def create_ref(
    tx: Transaction,
    name: str,
    kind: RefKind,
    commit: str,
    *,
    owner: str,
    at: datetime,
    is_protected: bool = False,
    act: str = "create",
    why: str = "created",
) -> Ref:
    """Makes a ref and the first entry of its chain, or the next one of a name used before.

    Raises:
        InvalidError (kind "bad-ref-name").
        ConflictError (kind "ref-exists").
        RefusedError (kind "tag-would-move"): the name is or was a tag's, or another commit's.
        NotFoundError (kind "no-such-commit"): it does not exist, or not any more.
    """
    is_ours = name.startswith("_") and kind in (RefKind.BRANCH, RefKind.TAG)
    if not _NAME.fullmatch(name) or _COMMIT_ID.fullmatch(name) or ".." in name or is_ours:
        raise InvalidError(
            f'"{name}" cannot name a {kind}: expected a letter, then letters, digits and ._-, in '
            "parts with one / between them, at most 100 signs, and neither HEAD nor what looks "
            "like a commit id. Choose another.",
            kind="bad-ref-name",
            ref=name,
        )
    if find_ref(tx, name) is not None:
        raise _exists(name)
    load_commit(tx, commit)
    _refuse_moving_tag(tx, name, kind, commit)
    act = _TAGGED if kind is RefKind.TAG else act
    operation = append_operation(
        tx, ref=name, before=None, after=commit, actor=owner, at=at, kind=act, why=why
    )
    tx.execute(
        "insert into refs (name, kind, commit_id, head, sequence, is_protected, owner, created_at) "
        "values (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            name,
            kind.value,
            commit,
            operation.id,
            operation.sequence,
            int(is_protected),
            owner,
            to_microseconds(at),
        ),
    )
    return Ref(name, kind, commit, is_protected, owner, at)


def rename_ref(
    tx: Transaction, name: str, new: str, *, actor: str, at: datetime, why: str = ""
) -> Ref:
    """Gives a branch or tag another name; returns it.

    The chain of the old name ends with an entry naming the new one, whose chain begins with one
    naming the old: both stay readable.

    Raises:
        NotFoundError (kind "no-such-ref").
        RefusedError (kind "protected-branch").
        InvalidError (kind "bad-ref-name"), ConflictError (kind "ref-exists").
    """
    ref = get_ref(tx, name)
    refuse_protected(ref)
    if new == name:
        raise _exists(new)
    because = f": {why}" if why else ""
    _remove(tx, ref, actor, at, "rename", f"renamed to {new}{because}")
    return create_ref(
        tx,
        new,
        ref.kind,
        ref.commit,
        owner=ref.owner,
        at=at,
        act="rename",
        why=f"renamed from {name} by {actor}{because}",
    )


def _exists(name: str) -> ConflictError:
    return ConflictError(
        f'"{name}" exists already: expected a new name. Choose another, or use the one there is.',
        kind="ref-exists",
        ref=name,
    )


def delete_ref(tx: Transaction, name: str, *, actor: str, at: datetime, why: str = "") -> Ref:
    """Deletes a branch or tag; its chain stays, its commits until a collection forgets them.

    Raises:
        NotFoundError (kind "no-such-ref").
        RefusedError (kind "protected-branch").
    """
    ref = get_ref(tx, name)
    refuse_protected(ref)
    _remove(tx, ref, actor, at, "delete", why or "deleted")
    return ref


def protect_ref(
    tx: Transaction, name: str, is_protected: bool, *, actor: str, at: datetime, why: str = ""
) -> Ref:
    """Protects a branch or tag, or ends that; returns it.

    Raises:
        NotFoundError (kind "no-such-ref").
        RefusedError (kind "protected-branch"): main and environments stay protected.
    """
    ref = get_ref(tx, name)
    if not is_protected and (name == MAIN or ref.kind not in (RefKind.BRANCH, RefKind.TAG)):
        raise RefusedError(
            f'"{name}" stays protected: expected a branch of your own, because what others rely '
            "on moves through its gates only. Work on another branch.",
            kind="protected-branch",
            ref=name,
        )
    act = "protect" if is_protected else "unprotect"
    operation = append_operation(
        tx, ref=name, before=ref.commit, after=ref.commit, actor=actor, at=at, kind=act,
        why=why or f"{act}ed",
    )  # fmt: skip
    tx.execute(
        "update refs set is_protected = ?, head = ?, sequence = ? where name = ?",
        (int(is_protected), operation.id, operation.sequence, name),
    )
    return replace(ref, is_protected=is_protected)


def refuse_protected(ref: Ref) -> None:
    """Holds that a ref may be written to directly.

    Raises:
        RefusedError (kind "protected-branch"): with the reason, and the way there is.
    """
    if not ref.is_protected and ref.kind in (RefKind.BRANCH, RefKind.TAG):
        return
    if ref.kind is RefKind.ENVIRONMENT:
        what, way = "moves by release only", f'"instep release {ref.name}" moves it'
    elif ref.name == MAIN:
        what, way = "changes by review only", 'Work on another branch, then "instep propose" it'
    else:
        what = f"was closed to changes; {ref.owner} owns it"
        way = f'Work on another branch, or "instep {ref.kind} protect {ref.name} --off" first'
    raise RefusedError(
        f'"{ref.name}" is a protected {ref.kind}: expected a branch of your own, because it '
        f"{what}. {way}.",
        kind="protected-branch",
        ref=ref.name,
    )


def find_ref(tx: Transaction, name: str) -> Ref | None:
    row = tx.row(f"select {_COLUMNS} from refs where name = ?", (name,))
    return _from_row(row) if row else None


def get_ref(tx: Transaction, name: str) -> Ref:
    """Returns a ref by its name.

    Raises:
        NotFoundError (kind "no-such-ref").
    """
    found = find_ref(tx, name)
    if found is None:
        raise missing_ref(tx, name)
    return found


def list_refs(tx: Transaction, kind: RefKind | None = None) -> list[Ref]:
    """Returns the refs, or those of one kind, by name."""
    where, values = ("", ()) if kind is None else ("where kind = ? ", (kind.value,))
    rows = tx.rows(f"select {_COLUMNS} from refs {where}order by name", values)
    return [_from_row(row) for row in rows]


def resolve(tx: Transaction, text: str) -> str:
    """Returns the id of the commit that `text` names: a ref, `ref@instant`, or a commit id.

    A commit id may be cut to eight digits or more. A ref that is gone can be asked about the
    instants at which it was there.

    Raises:
        NotFoundError (kind "no-such-ref").
        InvalidError (kind "ambiguous-commit").
    """
    name, _, instant = text.partition("@")
    if instant:
        if last_operation(tx, name) is None:
            raise missing_ref(tx, name)
        operation = last_operation(tx, name, parse_instant(instant))
        if operation is None or operation.after is None:
            raise NotFoundError(
                f'"{name}" did not exist at {instant}: expected an instant at which it was there. '
                f'See "instep log {name}".',
                kind="no-such-ref",
                ref=text,
            )
        return operation.after
    found = find_ref(tx, text)
    if found is not None:
        return found.commit
    if _COMMIT_ID.fullmatch(text):
        rows = tx.rows(
            "select id from commits where id >= ? and id < ? limit 2", (text, text + "g")
        )
        if len(rows) == 1:
            return str(rows[0][0])
        if rows:
            raise InvalidError(
                f"Commit {text} could be several: expected an id that only one begins with. "
                "Write more of it.",
                kind="ambiguous-commit",
                ref=text,
            )
    raise missing_ref(tx, text)


def _remove(tx: Transaction, ref: Ref, actor: str, at: datetime, act: str, why: str) -> None:
    append_operation(
        tx, ref=ref.name, before=ref.commit, after=None, actor=actor, at=at, kind=act, why=why
    )
    tx.execute("delete from refs where name = ?", (ref.name,))


def _refuse_moving_tag(tx: Transaction, name: str, kind: RefKind, commit: str) -> None:
    """Holds that a tag's name meant no other commit before, and that no tag becomes a branch."""
    before = commits_of(tx, name, None if kind is RefKind.TAG else _TAGGED)
    if kind is RefKind.TAG:
        before -= {commit}
    if before:
        raise tag_would_move(name, min(before))


def tag_would_move(name: str, commit: str) -> RefusedError:
    """Returns what is said to who would make a tag mean another commit."""
    return RefusedError(
        f'"{name}" means commit {commit[:12]}: expected a name that never meant anything else, '
        "because a tag never moves. Choose another name.",
        kind="tag-would-move",
        ref=name,
        commit=commit,
    )


def missing_ref(tx: Transaction, text: str) -> NotFoundError:
    """Returns what is said to who names no ref and no commit: with the refs there are."""
    rows = tx.rows(
        "select name from refs where kind <> 'system' order by name limit ?", (_NAMED + 1,)
    )
    names = [str(row[0]) for row in rows[:_NAMED]]
    more = " and others" if len(rows) > _NAMED else ""
    return NotFoundError(
        f'"{text}" is no branch, tag, environment or commit: expected one of '
        f"{', '.join(names)}{more}, or a commit "
        'id of 8 digits or more. See "instep log".',
        kind="no-such-ref",
        ref=text,
    )


def _from_row(row: Row) -> Ref:
    name, kind, commit, is_protected, owner, created_at = row
    return Ref(
        name, RefKind(kind), commit, bool(is_protected), owner, from_microseconds(created_at)
    )
