"""Erases the bytes of an object through all history; its digest, and who and why, are kept.

Order: the record in the database, a note beside the bytes, then the bytes. A process killed in
between leaves a record, and erasing again carries it out. From the record on the object counts as
erased. Rows of tables are not here: only whole objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from instep.canonical import Json, JsonObject, from_microseconds, to_microseconds
from instep.clock import format_instant
from instep.errors import InvalidError, NotFoundError, RefusedError, UnavailableError
from instep.faults import reached
from instep.history.held import Held, Holding
from instep.history.locks import blobs_locked
from instep.history.objects import sync_folder, write_durably
from instep.history.places import drop_copies
from instep.history.repository import Repository
from instep.history.store import Transaction

_PREFIX = re.compile(r"[0-9a-f]{8,64}")
_COLUMNS = "digest, actor, at, why, size_bytes"
_ASKED_AT_ONCE = 1_000
"""Digests in one question: databases bound how many values a statement may have."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """That an object was erased: by whom, when, why, and how large it was."""

    digest: str
    actor: str
    at: datetime
    why: str
    size_bytes: int

    def to_json(self) -> dict[str, Json]:
        return {
            "digest": self.digest,
            "by": self.actor,
            "at": format_instant(self.at),
            "why": self.why,
            "size_bytes": self.size_bytes,
        }


def erase(
    repo: Repository,
    text: str,
    actor: str,
    why: str,
    objects_of: Callable[[JsonObject], Iterable[str]],
) -> tuple[Erasure, ...]:
    """Erases what `text` names, a digest of 8 digits or more, or a key of main; gives the records.

    `objects_of` gives the objects that a content names. What was erased before keeps its first
    record, and is carried out again where that was cut short.

    Raises:
        NotFoundError (kinds "no-such-object", "no-such-key").
        InvalidError (kinds "ambiguous-object", "not-an-object").
        RefusedError (kind "still-live"): a ref needs it now.
        UnavailableError (kind "disk-failed"): it is on record, and its bytes are there still.
    """
    digests = _named(repo, text, objects_of)
    held = Held(repo.nodes)
    with repo.store.reading() as tx:
        _refuse_live(held.look(tx), _without(digests, tx), objects_of)
    with repo.store.transaction() as tx:
        new = _without(digests, tx)
        _refuse_live(held.look(tx), new, objects_of)
        at = repo.clock()
        for digest in new:
            size = repo.objects.existing(digest).stat().st_size
            tx.execute(
                f"insert into erasures ({_COLUMNS}) values (?, ?, ?, ?, ?)",
                (digest, actor, to_microseconds(at), why, size),
            )
    with repo.store.reading() as tx:
        known = erasures(tx)
    found = tuple(known[digest] for digest in digests)
    for erasure in found:
        try:
            _remove(repo, erasure)
        except OSError as error:
            raise UnavailableError(
                f"The erasure of {erasure.digest} is on record, but its bytes could not be removed "
                f"({error.strerror}): expected a disk that can be written. Mend it, then give the "
                "same command again.",
                kind="disk-failed",
                digest=erasure.digest,
            ) from error
    return found


def erasures(tx: Transaction) -> dict[str, Erasure]:
    """Returns every erasure, by digest."""
    rows = tx.rows(f"select {_COLUMNS} from erasures order by at, digest")
    return {
        str(digest): Erasure(digest, actor, from_microseconds(at), why, size)
        for digest, actor, at, why, size in rows
    }


def erased_digests(tx: Transaction) -> frozenset[str]:
    """Returns the objects whose bytes are gone on purpose."""
    return frozenset(erasures(tx))


def refuse_erased(tx: Transaction, digests: Iterable[str]) -> None:
    """Holds that none of these objects was erased.

    Raises:
        RefusedError (kind "erased").
    """
    wanted = sorted(set(digests))
    for start in range(0, len(wanted), _ASKED_AT_ONCE):
        asked = wanted[start : start + _ASKED_AT_ONCE]
        marks = ", ".join("?" for _ in asked)
        row = tx.row(
            f"select digest, actor, why from erasures where digest in ({marks}) limit 1", asked
        )
        if row is not None:
            raise RefusedError(
                f"Object {row[0]} was erased from the lake by {row[1]} ({row[2]}): expected "
                "contents whose bytes are there. Nothing was changed. Leave it out.",
                kind="erased",
                digest=row[0],
            )


def _remove(repo: Repository, erasure: Erasure) -> None:
    note = repo.objects.note(erasure.digest)
    text = f"by {erasure.actor} at {format_instant(erasure.at)}: {erasure.why}"
    with blobs_locked(repo.objects.folder, alone=True):
        reached("erase.note.before")
        if not note.exists():
            write_durably(note, text.encode())
        reached("erase.bytes.before")
        for path in repo.objects.files(erasure.digest):
            path.unlink(missing_ok=True)
        drop_copies(note.parent, [f"{erasure.digest}*"])
        sync_folder(note.parent)
        reached("erase.bytes.after")


def _named(
    repo: Repository, text: str, objects_of: Callable[[JsonObject], Iterable[str]]
) -> tuple[str, ...]:
    if not _PREFIX.fullmatch(text):
        content = repo.content(repo.resolve("main"), text)
        found = [digest for digest in dict.fromkeys(objects_of(content)) if _is_known(repo, digest)]
        if not found:
            raise InvalidError(
                f'"{text}" is not kept as objects: expected a contract, pipeline, model or the '
                "digest of an object. Name one of these.",
                kind="not-an-object",
                key=text,
            )
        return tuple(found)
    folder = repo.objects.folder / text[:2]
    digests = {path.name[:64] for path in folder.glob(f"{text}*")} if folder.is_dir() else set()
    with repo.store.reading() as tx:
        digests |= {one for one in erased_digests(tx) if one.startswith(text)}
    if len(digests) > 1:
        raise InvalidError(
            f"Digest {text} could be several objects: expected one that only one begins with. "
            "Write more of it.",
            kind="ambiguous-object",
            digest=text,
        )
    if not digests:
        raise NotFoundError(
            f"Object {text} is not in the lake: expected the digest of an object, as "
            '"instep review --json" and "instep show --json" tell. Nothing was erased. Correct it.',
            kind="no-such-object",
            digest=text,
        )
    return tuple(digests)


def _is_known(repo: Repository, digest: str) -> bool:
    return repo.objects.has(digest) or repo.objects.note(digest).exists()


def _without(digests: Iterable[str], tx: Transaction) -> list[str]:
    """Returns the objects whose erasure is not on record yet."""
    asked = "select 1 from erasures where digest = ?"
    return [digest for digest in digests if tx.row(asked, (digest,)) is None]


def _refuse_live(
    held: Iterable[Holding],
    digests: Sequence[str],
    objects_of: Callable[[JsonObject], Iterable[str]],
) -> None:
    """Refuses what a ref holds: everything that reads it would stop."""
    wanted = frozenset(digests)
    for ref, key, content in held if wanted else ():
        if not wanted.isdisjoint(objects_of(content)):
            raise RefusedError(
                f"{key} of {ref} needs this object now: expected one that only history holds. "
                f"Remove or replace {key} on {ref} first, then erase its digest.",
                kind="still-live",
                key=key,
                ref=ref,
            )
