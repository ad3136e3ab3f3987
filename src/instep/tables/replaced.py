"""Lets other metadata stand for a table state, and says why; one who was first wins.

It is *decided* in the database: a row, written only while what stands is what the writer found. So
of two that replace a state at once one learns that it came late, and its files are garbage; and a
writer whose session ended, so that its files may be gone, decides nothing (`history.sessions`).
Then it is *carried out*: the record beside the table changes, only if it still is what the decision
found, and that is what everybody reads. A decision is made upon a record, so the record is never
more than one decision behind: where its writer was killed, whoever comes next carries it out.
Until then the files of both are needed. Where those that were decided are gone all the same, the
decision counts for nothing, and the next takes its row. Only this module knows the table's SQL.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from instep.errors import RefusedError
from instep.faults import reached
from instep.history.locks import blobs_locked
from instep.history.objects import write_durably
from instep.history.places import on_s3
from instep.history.repository import Repository
from instep.history.store import Transaction
from instep.tables.content import TableContent
from instep.tables.read import located, replacement_path


class Why(StrEnum):
    """Why a state has other files than when it was committed."""

    MOVED = "moved"
    COMPACTED = "compacted"
    ERASED = "erased"


@dataclass(frozen=True, slots=True)
class Decision:
    """What shall stand for a state, in the stead of the metadata whose digest is `before`."""

    before: str
    metadata: str
    digest: str
    why: str


def stand_in(
    repo: Repository, content: TableContent, before: TableContent, now: TableContent, why: Why
) -> bool:
    """Lets `now` stand for `content`, if `before` does so still; says whether it was done.

    Raises:
        ConflictError (kind "session-lost"): the files of `now` may have been collected.
        RefusedError (kind "database-permission"): the lake is older, and its owner has to open it.
    """
    reached("tables.replacement.before")
    found = _standing(repo, content)
    if found is None:
        return False
    last, version, standing = found
    decision = Decision(before.digest, now.metadata, now.digest, why.value)
    if standing != before or not _decide(repo, content, last, decision):
        return False
    reached("tables.replacement.decided")
    _carry_out(repo.root, content, decision, version)
    reached("tables.replacement.after")
    return True


def catch_up(repo: Repository, content: TableContent) -> bool:
    """Carries out what was decided of a state by one who was killed; says whether there was such.

    Raises:
        RefusedError (kind "database-permission"): as `stand_in`.
    """
    return _standing(repo, content) is None


def decided(repo: Repository, uuid: str) -> dict[str, Decision]:
    """Returns what was last decided of the states of a table, by the digest of their contents."""
    with repo.store.reading() as tx:
        if not tx.has_table("replacements"):
            return {}
        rows = tx.rows(
            "select content, before_digest, metadata, digest, why from replacements where uuid = ?",
            (uuid,),
        )
    return {str(content): Decision(*row) for content, *row in rows}


def forget_decided(tx: Transaction, states: Sequence[tuple[str, str]]) -> None:
    """Removes what was decided of states that nobody needs, by the table's id and their digest."""
    if states and tx.has_table("replacements"):
        for state in states:
            tx.write("delete from replacements where uuid = ? and content = ?", state)


def is_due(root: Path, standing: TableContent, last: Decision) -> bool:
    """Says whether a decision is still to be carried out: it is upon what stands, and can be.

    An Instep of before the table knew of no decision: it took the files of one for garbage.
    """
    return last.before == standing.digest and (root / last.metadata).is_file()


def why_replaced(root: Path, content: TableContent) -> Why | None:
    """Returns why other metadata stands for a state; None where its own does.

    A record without a reason was written by an earlier version, which only moved lakes.
    """
    try:
        told = json.loads(replacement_path(root, content).read_bytes())
    except FileNotFoundError:
        return None
    return Why(told.get("why", Why.MOVED))


def _standing(
    repo: Repository, content: TableContent
) -> tuple[Decision | None, str | None, TableContent] | None:
    """Returns the last decision, the version of the record, and what stands by it.

    None where the decision had not been carried out, which is done now.
    """
    last = _last(repo, content)
    remote = on_s3(replacement_path(repo.root, content))
    version = remote.version() if remote else None
    standing = located(repo.root, content)
    if last and is_due(repo.root, standing, last):
        _carry_out(repo.root, content, last, version)
        return None
    return last, version, standing


def _last(repo: Repository, content: TableContent) -> Decision | None:
    with repo.store.reading() as tx:
        if not tx.has_table("replacements"):
            raise RefusedError(
                'The lake is of an older format, without the table "replacements", and this role '
                "may not make it: expected one of this format. Nothing was replaced. Have a role "
                'that owns the lake\'s tables run "instep status" once, then try again.',
                kind="database-permission",
            )
        row = tx.row(
            "select before_digest, metadata, digest, why from replacements "
            "where uuid = ? and content = ?",
            (content.uuid, content.digest),
        )
    return Decision(*row) if row else None


def _decide(repo: Repository, content: TableContent, last: Decision | None, new: Decision) -> bool:
    """Writes down a decision, unless another was made since the last that is known."""
    values = (new.before, new.metadata, new.digest, new.why, content.uuid, content.digest)
    with repo.store.transaction() as tx:
        if last is None:
            written = tx.execute(
                "insert into replacements (before_digest, metadata, digest, why, uuid, content) "
                "values (?, ?, ?, ?, ?, ?) on conflict do nothing",
                values,
            )
        else:
            written = tx.execute(
                "update replacements set before_digest = ?, metadata = ?, digest = ?, why = ? "
                "where uuid = ? and content = ? and digest = ?",
                (*values, last.digest),
            )
    return written == 1


def _carry_out(root: Path, content: TableContent, decision: Decision, version: str | None) -> None:
    """Changes the record if it is still what the decision found; else somebody has done so.

    On S3 that is the object of this version, and a request that lands late changes no other.
    """
    path = replacement_path(root, content)
    record = {"metadata": decision.metadata, "digest": decision.digest, "why": decision.why}
    data = json.dumps(record).encode()
    if remote := on_s3(path):
        with suppress(FileExistsError, FileNotFoundError):
            remote.swap(data, version)
        return
    with blobs_locked(root / "replacements", alone=True):
        if located(root, content).digest == decision.before:
            write_durably(path, data)
