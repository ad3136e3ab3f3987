"""The operation log of each ref: append-only, each entry holding the digest of the one before.

What a ref knew at an instant is read from here, never from commit times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from instep.canonical import Json, digest_of, from_microseconds, to_microseconds
from instep.clock import format_instant
from instep.history.seals import SEALED_EVERY, take_seal
from instep.history.store import Row, Transaction

_OPERATION = "instep.operation.v1"
_AT_ONCE = 200
"""How many entries are read with one statement."""

_COLUMNS = "id, ref, sequence, previous, before_commit, after_commit, actor, at, kind, why"


@dataclass(frozen=True, slots=True)
class Operation:
    """One move of one ref. `before` is None when it was made, `after` when it was deleted."""

    id: str
    ref: str
    sequence: int
    previous: str
    before: str | None
    after: str | None
    actor: str
    at: datetime
    kind: str
    why: str

    def to_json(self) -> dict[str, Json]:
        return {
            "id": self.id,
            "ref": self.ref,
            "before": self.before,
            "after": self.after,
            "actor": self.actor,
            "at": format_instant(self.at),
            "kind": self.kind,
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class End:
    """Where a chain ends: what its next entry follows. A chain that has none is at 0."""

    id: str
    sequence: int
    at: datetime | None


def append_operation(
    tx: Transaction,
    *,
    ref: str,
    before: str | None,
    after: str | None,
    actor: str,
    at: datetime,
    kind: str,
    why: str,
    end: End | None = None,
) -> Operation:
    """Adds the next entry to the chain of `ref` and returns it.

    `end` is where the chain ends now, looked up where it is not given. Time in one chain never
    runs back: a clock that did is taken as the time of the entry before.
    """
    end = end or _end(tx, ref)
    sequence, previous = end.sequence + 1, end.id
    at = max(at, end.at) if end.at else at
    identifier = operation_id(
        ref, sequence, previous, before, after, actor, to_microseconds(at), kind, why
    )
    tx.write(
        f"insert into operations ({_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            identifier,
            ref,
            sequence,
            previous,
            before,
            after,
            actor,
            to_microseconds(at),
            kind,
            why,
        ),
    )
    if sequence % SEALED_EVERY == 0:
        take_seal(tx, at, with_records=False)
    return Operation(identifier, ref, sequence, previous, before, after, actor, at, kind, why)


def _end(tx: Transaction, ref: str) -> End:
    last = last_operation(tx, ref)
    return End(last.id, last.sequence, last.at) if last else End("", 0, None)


def operation_rows(tx: Transaction, ref: str, after: int, until: int) -> list[Row]:
    """Returns the entries of a chain later than `after` up to `until`, as they are stored."""
    return tx.rows(
        f"select {_COLUMNS} from operations where ref = ? and sequence > ? and sequence <= ? "
        "order by sequence",
        (ref, after, until),
    )


def operation_id(
    ref: str,
    sequence: int,
    previous: str,
    before: str | None,
    after: str | None,
    actor: str,
    at: int,
    kind: str,
    why: str,
) -> str:
    """Returns the digest of an entry's parts, `at` in microseconds."""
    body: dict[str, Json] = {
        "ref": ref,
        "sequence": sequence,
        "previous": previous,
        "before": before,
        "after": after,
        "actor": actor,
        "at": at,
        "kind": kind,
        "why": why,
    }
    return digest_of(_OPERATION, body)


def last_operation(tx: Transaction, ref: str, at: datetime | None = None) -> Operation | None:
    """Returns the latest entry of a chain, or the latest one not after `at`."""
    if at is None:
        row = tx.row(
            f"select {_COLUMNS} from operations where ref = ? order by sequence desc limit 1",
            (ref,),
        )
    else:
        row = tx.row(
            f"select {_COLUMNS} from operations where ref = ? and at <= ? "
            "order by sequence desc limit 1",
            (ref, to_microseconds(at)),
        )
    return _from_row(row) if row else None


def has_been_at(tx: Transaction, ref: str, commit: str) -> bool:
    """Says whether a ref points, or ever pointed, to a commit itself."""
    row = tx.row(
        "select 1 from operations where ref = ? and after_commit = ? limit 1", (ref, commit)
    )
    return row is not None


def operations(tx: Transaction, ref: str) -> list[Operation]:
    """Returns the chain of a ref, oldest first."""
    rows = tx.rows(f"select {_COLUMNS} from operations where ref = ? order by sequence", (ref,))
    return [_from_row(row) for row in rows]


def commits_of(tx: Transaction, ref: str, kind: str | None = None) -> set[str]:
    """Returns the commits that a name ever pointed to, or those that acts of one kind made it."""
    where, values = ("and kind = ?", (ref, kind)) if kind else ("", (ref,))
    rows = tx.rows(
        "select distinct after_commit from operations "
        f"where ref = ? and after_commit is not null {where}",
        values,
    )
    return {str(row[0]) for row in rows}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries of a chain are asked for; half-open, `since` included."""

    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def latest_operations(tx: Transaction, ref: str, wanted: Wanted) -> Iterator[Operation]:
    """Yields the entries of a chain that are wanted, latest first, read as they are taken."""
    conditions, values = ["ref = ?"], list[str | int]([ref])
    if wanted.actor is not None:
        conditions.append("actor = ?")
        values.append(wanted.actor)
    if wanted.since is not None:
        conditions.append("at >= ?")
        values.append(to_microseconds(wanted.since))
    if wanted.until is not None:
        conditions.append("at < ?")
        values.append(to_microseconds(wanted.until))
    before: int | None = None
    while True:
        where = " and ".join([*conditions, *(["sequence < ?"] if before is not None else [])])
        rows = tx.rows(
            f"select {_COLUMNS} from operations where {where} order by sequence desc limit ?",
            (*values, *([before] if before is not None else []), _AT_ONCE),
        )
        yield from map(_from_row, rows)
        if len(rows) < _AT_ONCE:
            return
        before = int(rows[-1][2])


def is_whole(chain: list[Operation]) -> bool:
    """Says whether every entry has its own digest and names the one before it."""
    previous = ""
    for entry in chain:
        identifier = operation_id(
            entry.ref,
            entry.sequence,
            entry.previous,
            entry.before,
            entry.after,
            entry.actor,
            to_microseconds(entry.at),
            entry.kind,
            entry.why,
        )
        if entry.previous != previous or entry.id != identifier:
            return False
        previous = entry.id
    return True


def _from_row(row: Row) -> Operation:
    identifier, ref, sequence, previous, before, after, actor, at, kind, why = row
    return Operation(
        identifier,
        ref,
        sequence,
        previous,
        before,
        after,
        actor,
        from_microseconds(at),
        kind,
        why,
    )
