"""Branches, tags and environments: names that point to one commit, moved by compare-and-swap."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from instep.canonical import from_microseconds, to_microseconds
from instep.clock import parse_instant
from instep.errors import ConflictError, InvalidError, NotFoundError
from instep.history.commits import load_commit
from instep.history.operations import append_operation, last_operation
from instep.history.store import Row, Transaction

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]{0,99}")
_COMMIT_ID = re.compile(r"[0-9a-f]{8,64}")
_COLUMNS = "name, kind, commit_id, is_protected, owner, created_at"


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
    """Makes a ref and the first entry of its chain.

    Raises:
        InvalidError (kind "bad-ref-name").
        ConflictError (kind "ref-exists").
        NotFoundError (kind "no-such-commit"): it does not exist, or not any more.
    """
    if not _NAME.fullmatch(name) or _COMMIT_ID.fullmatch(name) or ".." in name:
        raise InvalidError(
            f'"{name}" cannot name a {kind}: expected a letter or underscore, then letters, '
            "digits and ._/-, at most 100, and not what looks like a commit id. Choose another.",
            kind="bad-ref-name",
            ref=name,
        )
    if find_ref(tx, name) is not None:
        raise ConflictError(
            f'"{name}" exists already: expected a new name. Choose another, or use the one '
            "there is.",
            kind="ref-exists",
            ref=name,
        )
    load_commit(tx, commit)
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


def move_ref(
    tx: Transaction,
    name: str,
    *,
    expected: str,
    commit: str,
    actor: str,
    at: datetime,
    kind: str,
    why: str,
) -> None:
    """Moves a ref from `expected` to `commit`, and says so in its chain.

    Raises:
        ConflictError (kind "ref-moved"): it points to another commit now.
    """
    operation = append_operation(
        tx, ref=name, before=expected, after=commit, actor=actor, at=at, kind=kind, why=why
    )
    moved = tx.execute(
        "update refs set commit_id = ?, head = ?, sequence = ? where name = ? and commit_id = ?",
        (commit, operation.id, operation.sequence, name, expected),
    )
    if moved == 1:
        return
    found = get_ref(tx, name).commit
    raise ConflictError(
        f'"{name}" moved: expected {expected[:12]}, found {found[:12]}. Plan again, then try '
        "again.",
        kind="ref-moved",
        ref=name,
        expected=expected,
        found=found,
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
        raise _missing(tx, name)
    return found


def list_refs(tx: Transaction, kind: RefKind | None = None) -> list[Ref]:
    """Returns the refs, or those of one kind, by name."""
    found = [_from_row(row) for row in tx.rows(f"select {_COLUMNS} from refs order by name")]
    return [ref for ref in found if kind is None or ref.kind is kind]


def resolve(tx: Transaction, text: str) -> str:
    """Returns the id of the commit that `text` names: a ref, `ref@instant`, or a commit id.

    A commit id may be cut to eight digits or more.

    Raises:
        NotFoundError (kind "no-such-ref").
        InvalidError (kind "ambiguous-commit").
    """
    name, _, instant = text.partition("@")
    if instant:
        get_ref(tx, name)
        operation = last_operation(tx, name, parse_instant(instant))
        if operation is None or operation.after is None:
            raise NotFoundError(
                f'"{name}" did not exist at {instant}: expected an instant after it was made. '
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
    raise _missing(tx, text)


def _missing(tx: Transaction, text: str) -> NotFoundError:
    names = ", ".join(ref.name for ref in list_refs(tx) if ref.kind is not RefKind.SYSTEM)
    return NotFoundError(
        f'"{text}" is no branch, tag, environment or commit: expected one of {names}, or a commit '
        'id of 8 digits or more. See "instep log".',
        kind="no-such-ref",
        ref=text,
    )


def _from_row(row: Row) -> Ref:
    name, kind, commit, is_protected, owner, created_at = row
    return Ref(
        name, RefKind(kind), commit, bool(is_protected), owner, from_microseconds(created_at)
    )
