"""A change request and its approvals: what is proposed, by whom, and how it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from instep.canonical import Json, digest_of, from_microseconds, to_microseconds
from instep.clock import format_instant
from instep.errors import NotFoundError
from instep.history.store import Row, Transaction

_EVIDENCE = "instep.evidence.v1"
_LISTED = (
    "number, kind, state, title, author, opened_at, branch, base_commit, head_commit, "
    "merged_commit, ended_by, ended_at, why"
)
_COLUMNS = f"{_LISTED}, evidence, evidence_digest"


class Kind(StrEnum):
    """What a change brings; its policy goes by it."""

    ARRIVAL = "arrival"
    PROJECT = "project"
    PIPELINE = "pipeline"
    MODEL = "model"


class State(StrEnum):
    """`open` waits for people, `held` for a decision about its data; the others are ends."""

    OPEN = "open"
    HELD = "held"
    MERGED = "merged"
    REFUSED = "refused"


_Values = tuple[
    int,
    Kind,
    State,
    str,
    str,
    datetime,
    str | None,
    str,
    str,
    str | None,
    str | None,
    datetime | None,
    str,
]


@dataclass(frozen=True, slots=True)
class Listed:
    """A change as a list shows it: without its evidence, which can be long."""

    number: int
    kind: Kind
    state: State
    title: str
    author: str
    opened_at: datetime
    branch: str | None
    base: str
    head: str
    merged_commit: str | None
    ended_by: str | None
    ended_at: datetime | None
    why: str

    def to_json(self) -> dict[str, Json]:
        return {
            "change": self.number,
            "kind": self.kind.value,
            "state": self.state.value,
            "title": self.title,
            "author": self.author,
            "opened_at": format_instant(self.opened_at),
            "branch": self.branch,
            "base": self.base,
            "head": self.head,
            "merged_commit": self.merged_commit,
            "ended_by": self.ended_by,
            "ended_at": format_instant(self.ended_at) if self.ended_at else None,
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class Change(Listed):
    """Commit `head` on top of `base`. `evidence` is JSON computed when it was proposed."""

    evidence: Mapping[str, Json]
    evidence_digest: str

    @property
    def origin(self) -> str:
        """How commits and messages name it."""
        return f"change {self.number}"

    @property
    def has_ended(self) -> bool:
        return self.state in (State.MERGED, State.REFUSED)

    def to_json(self) -> dict[str, Json]:
        return {
            **Listed.to_json(self),
            "evidence": dict(self.evidence),
            "evidence_digest": self.evidence_digest,
        }


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's yes to exactly what `binding` is the digest of."""

    change: int
    actor: str
    at: datetime
    binding: str
    why: str

    def to_json(self) -> dict[str, Json]:
        return {
            "actor": self.actor,
            "at": format_instant(self.at),
            "binding": self.binding,
            "why": self.why,
        }


def evidence_digest(evidence: Mapping[str, Json]) -> str:
    """Returns the digest of evidence; floats in it count by their shortest exact text."""
    return digest_of(_EVIDENCE, json.dumps(evidence, sort_keys=True))


def insert_change(
    tx: Transaction,
    *,
    kind: Kind,
    state: State,
    title: str,
    author: str,
    at: datetime,
    branch: str | None,
    base: str,
    head: str,
    evidence: Mapping[str, Json],
) -> Change:
    """Adds a change under the next number."""
    row = tx.row("select coalesce(max(number), 0) + 1 from changes")
    number = int(row[0]) if row else 1
    digest = evidence_digest(evidence)
    tx.execute(
        f"insert into changes ({_COLUMNS}) "
        "values (?, ?, ?, ?, ?, ?, ?, ?, ?, null, null, null, '', ?, ?)",
        (
            number,
            kind.value,
            state.value,
            title,
            author,
            to_microseconds(at),
            branch,
            base,
            head,
            json.dumps(evidence),
            digest,
        ),
    )
    opened = (number, kind, state, title, author, at, branch, base, head)
    return Change(*opened, None, None, None, "", evidence, digest)


def amend_change(
    tx: Transaction,
    number: int,
    *,
    kind: Kind,
    title: str,
    base: str,
    head: str,
    evidence: Mapping[str, Json],
) -> None:
    """Gives a change that has not ended another content; approvals of the old one lapse."""
    tx.execute(
        "update changes set kind = ?, title = ?, base_commit = ?, head_commit = ?, evidence = ?, "
        "evidence_digest = ? where number = ? and state in ('open', 'held')",
        (
            kind.value,
            title,
            base,
            head,
            json.dumps(evidence),
            evidence_digest(evidence),
            number,
        ),
    )


def end_change(
    tx: Transaction,
    number: int,
    state: State,
    *,
    actor: str,
    at: datetime,
    why: str,
    commit: str | None = None,
) -> None:
    """Ends a change as merged (with its commit) or refused (with the reason)."""
    tx.execute(
        "update changes set state = ?, merged_commit = ?, ended_by = ?, ended_at = ?, why = ? "
        "where number = ?",
        (state.value, commit, actor, to_microseconds(at), why, number),
    )


def has_found(tx: Transaction, kind: str, subject: str) -> bool:
    """Says whether the evidence of a merged change has a finding of this kind about `subject`."""
    rows = tx.rows(
        "select evidence from changes where state = ? and evidence like ?",
        (State.MERGED.value, f'%"{kind}"%'),
    )
    return any(
        finding["kind"] == kind and finding["subject"] == subject
        for (evidence,) in rows
        for finding in json.loads(str(evidence)).get("findings", ())
    )


def load_change(tx: Transaction, number: int) -> Change:
    """Returns a change by its number.

    Raises:
        NotFoundError (kind "no-such-change").
    """
    row = tx.row(f"select {_COLUMNS} from changes where number = ?", (number,))
    if row is None:
        last = tx.row("select coalesce(max(number), 0) from changes")
        known = f"1 to {last[0]}" if last and last[0] else "none yet"
        raise NotFoundError(
            f'Change {number} does not exist: there are {known}. See "instep changes".',
            kind="no-such-change",
            change=number,
        )
    return _from_row(row)


def commits_of_changes(tx: Transaction) -> frozenset[str]:
    """Returns the commits of every change that was not refused."""
    rows = tx.rows(
        "select base_commit, head_commit, merged_commit from changes where state <> ?",
        (State.REFUSED.value,),
    )
    return frozenset(str(one) for row in rows for one in row if one is not None)


def list_changes(tx: Transaction, *states: State, branch: str | None = None) -> list[Listed]:
    """Returns the changes in these states (all, when none is named), by number.

    With `branch`, those that propose this branch.
    """
    conditions, values = list[str](), list[str]()
    if states:
        conditions.append(f"state in ({', '.join('?' for _ in states)})")
        values += [state.value for state in states]
    if branch is not None:
        conditions.append("branch = ?")
        values.append(branch)
    where = f"where {' and '.join(conditions)} " if conditions else ""
    rows = tx.rows(f"select {_LISTED} from changes {where}order by number", values)
    return [_listed(row) for row in rows]


def rename_branch(tx: Transaction, name: str, new: str) -> None:
    """Lets the changes of a branch that have not ended follow it to its new name."""
    tx.execute(
        "update changes set branch = ? where branch = ? and state in ('open', 'held')", (new, name)
    )


def change_of_commit(tx: Transaction, commit: str) -> Change | None:
    """Returns the change that was merged as `commit`, or None."""
    row = tx.row(f"select {_COLUMNS} from changes where merged_commit = ?", (commit,))
    return _from_row(row) if row else None


def insert_approval(tx: Transaction, approval: Approval) -> None:
    """Records an approval; the same one twice counts once."""
    tx.execute(
        "insert into approvals (change, actor, at, binding, why) values (?, ?, ?, ?, ?) "
        "on conflict do nothing",
        (
            approval.change,
            approval.actor,
            to_microseconds(approval.at),
            approval.binding,
            approval.why,
        ),
    )


def approvals_of(tx: Transaction, number: int) -> list[Approval]:
    """Returns every approval ever given to a change, lapsed ones too, oldest first."""
    rows = tx.rows(
        "select change, actor, at, binding, why from approvals where change = ? order by at",
        (number,),
    )
    return [
        Approval(change, actor, from_microseconds(at), binding, why)
        for change, actor, at, binding, why in rows
    ]


def _from_row(row: Row) -> Change:
    *listed, evidence, digest = row
    return Change(*_values(tuple(listed)), json.loads(evidence), digest)


def _listed(row: Row) -> Listed:
    return Listed(*_values(row))


def _values(row: Row) -> _Values:
    number, kind, state, title, author, opened, branch, base, head, *end = row
    merged, ended_by, ended_at, why = end
    return (
        number,
        Kind(kind),
        State(state),
        title,
        author,
        from_microseconds(opened),
        branch,
        base,
        head,
        merged,
        ended_by,
        from_microseconds(ended_at) if ended_at is not None else None,
        why,
    )
