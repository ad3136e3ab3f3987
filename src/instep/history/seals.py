"""A seal: one chain over the heads of all chains, and over the records that no longer change.

A chain shows a changed entry, but not that its end was cut off; a seal does, because it names where
each chain was. Refs' own rows and finished records (runs, ended changes with their approvals and
arrivals, erasures, forgotten commits) have no digest of their own: a seal keeps one for each. Heads
are sealed by the operation that makes a chain a multiple of `SEALED_EVERY` long; heads and records
by `instep doctor`, after it found the lake whole. Rows that still change (running runs, open
changes) are not covered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from instep.canonical import Json, canonical_bytes, digest_of, to_microseconds
from instep.history.store import Row, Transaction, Value

SEALED_EVERY = 1_000
"""Operations of one chain from one seal to the next: a seal reads the head of every chain."""

_SEAL = "instep.seal.v1"
_RECORD = "instep.record.v1"
_RECORDS = "instep.records.v1"
_PAGE = 1_000
REF_COLUMNS = "name, kind, commit_id, head, sequence, is_protected, owner, created_at"

Head = Sequence[Json]
"""Length of a chain, id of its last entry, digest of the ref's row ("" where it has none)."""


@dataclass(frozen=True, slots=True)
class Seal:
    """`heads` says of each ref where its chain was; `records` is the digest of those it sealed."""

    sequence: int
    id: str
    previous: str
    at: int
    lake: str
    heads: Mapping[str, Head]
    records: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A table of records: what identifies one, and from when on one never changes."""

    table: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    is_final: str

    @property
    def record(self) -> str:
        """The SQL of a record's name, qualified: the table of seals has a column digest, too."""
        return " || '/' || ".join(f"cast({self.table}.{name} as text)" for name in self.key)


_ENDED = "select number from changes where ended_at is not null"
_ERASED = "select id from row_erasures where ended_at is not null"
_OVER = "select id from runs where state <> 'running'"

KEPT: tuple[Kept, ...] = (
    Kept(
        "runs",
        ("id",),
        (
            "id", "pipeline", "branch", "actor", "state", "started_at", "ended_at", "input_commit",
            "output_commit", "slice_from", "slice_to", "configuration", "code", "code_digest",
            "runtime_digest", "runtime_blob", "engine", "steps", "outputs", "metrics", "estimated",
            "actual", "error",
        ),
        "state <> 'running'",
    ),
    Kept(
        "run_pieces",
        ("run", "step", "position"),
        (
            "run", "step", "position", "output", "content_digest", "content", "window_from",
            "window_to", "piece_key", "inputs", "code_digest", "configuration_digest",
            "runtime_digest", "files",
        ),
        f"run in ({_OVER})",
    ),
    # Named by their instant first: doctor tells by it whether one may have been forgotten.
    Kept("tokens", ("at", "token"), ("token", "ref", "digest", "commit_id", "at"), "at >= 0"),
    Kept(
        "erasures", ("digest",), ("digest", "actor", "at", "why", "size_bytes"), "size_bytes >= 0"
    ),
    Kept("forgotten_commits", ("id",), ("id", "generation", "at"), "generation >= 0"),
    Kept("model_versions", ("model", "version"), ("model", "version", "run"), "version > 0"),
    Kept(
        "changes",
        ("number",),
        (
            "number", "kind", "state", "title", "author", "opened_at", "branch", "base_commit",
            "head_commit", "evidence", "evidence_digest", "merged_commit", "ended_by", "ended_at",
            "why",
        ),
        "ended_at is not null",
    ),
    Kept(
        "approvals",
        ("change", "actor", "binding"),
        ("change", "actor", "at", "binding", "why"),
        f"change in ({_ENDED})",
    ),
    Kept(
        "arrivals",
        ("id",),
        (
            "id", "change", "table_name", "source", "file_name", "file_digest", "file_size_bytes",
            "contract", "rows", "quarantined", "profile", "quarantine", "held_for",
        ),
        f"change in ({_ENDED})",
    ),
    Kept(
        "row_erasures",
        ("id",),
        (
            "id", "table_name", "predicate_digest", "actor", "at", "why", "remains", "ended_at",
        ),
        "ended_at is not null",
    ),
    Kept(
        "erased_files",
        ("erasure", "uuid", "path", "deletes"),
        (
            "erasure", "uuid", "path", "digest", "deletes", "replacement", "replacement_digest",
            "erased_rows",
        ),
        f"erasure in ({_ERASED})",
    ),
    Kept(
        "erased_states",
        ("erasure", "uuid", "content", "digest"),
        ("erasure", "uuid", "content", "digest", "replacement_digest"),
        f"erasure in ({_ERASED})",
    ),
)  # fmt: skip


def take_seal(tx: Transaction, at: datetime, *, with_records: bool) -> Seal | None:
    """Adds the next seal to the chain; None when another writer did so at the same moment."""
    last = last_seal(tx)
    sequence = last.sequence + 1 if last else 1
    heads = chain_heads(tx)
    fresh = _seal_records(tx, sequence) if with_records else []
    body: dict[str, Json] = {
        "sequence": sequence,
        "previous": last.id if last else "",
        "at": max(to_microseconds(at), last.at if last else 0),
        "lake": lake_id(tx),
        "heads": heads,
        "records": digest_of(_RECORDS, fresh),
    }
    seal = seal_of(body)
    added = tx.execute(
        "insert into seals (sequence, id, previous, at, lake, heads, records) "
        "values (?, ?, ?, ?, ?, ?, ?) on conflict do nothing",
        (
            seal.sequence,
            seal.id,
            seal.previous,
            seal.at,
            seal.lake,
            canonical_bytes(heads).decode(),
            seal.records,
        ),
    )
    return seal if added else None


def seal_of(body: Mapping[str, Json]) -> Seal:
    """Returns the seal that these parts make; its id is the digest of all of them."""
    parts = dict(body)
    return Seal(id=digest_of(_SEAL, parts), **parts)  # type: ignore[arg-type]  # built just above


def last_seal(tx: Transaction) -> Seal | None:
    found = _read(tx, "order by sequence desc limit 1")
    return found[0] if found else None


def seals_after(tx: Transaction, sequence: int, limit: int) -> list[Seal]:
    """Returns at most `limit` seals later than `sequence`, in their order."""
    return _read(tx, "where sequence > ? order by sequence limit ?", (sequence, limit))


def chain_heads(tx: Transaction) -> dict[str, Json]:
    """Returns where the chain of every ref is, deleted refs included."""
    rows = {row[0]: row for row in tx.rows(f"select {REF_COLUMNS} from refs")}
    heads: dict[str, Json] = {}
    for ref, sequence, identifier in tx.rows(
        "select o.ref, o.sequence, o.id from operations o join "
        "(select ref, max(sequence) as last from operations group by ref) h "
        "on h.ref = o.ref and h.last = o.sequence order by o.ref"
    ):
        row = rows.get(ref)
        # Inside a move the chain is one ahead of its row: that row is not sealed.
        heads[ref] = [sequence, identifier, ref_digest(row) if row and row[3] == identifier else ""]
    return heads


def ref_digest(row: Row) -> str:
    """Returns the digest of a ref's row: name, kind, commit_id, head, sequence and the rest."""
    return digest_of(_RECORD, list(row))


def records_digest(tx: Transaction, seal: int) -> str:
    """Returns the digest of the records that a seal names."""
    rows = tx.rows(
        "select table_name, record, digest from sealed_records where seal = ? "
        "order by table_name, record",
        (seal,),
    )
    return digest_of(_RECORDS, [list(row) for row in rows])


def sealed_after(tx: Transaction, table: str, record: str) -> list[Row]:
    """Returns the next sealed records of a table, by name: name, digest."""
    return tx.rows(
        "select record, digest from sealed_records where table_name = ? and record > ? "
        f"order by record limit {_PAGE}",
        (table, record),
    )


def record_digests(tx: Transaction, kept: Kept, names: Sequence[str]) -> dict[str, str]:
    """Returns the digest that each of these records has now; one that is missing is left out."""
    marks = ", ".join("?" for _ in names)
    return {
        str(row[0]): digest_of(_RECORD, list(row[1:]))
        for row in tx.rows(
            f"select {kept.record}, {', '.join(kept.columns)} from {kept.table} "
            f"where {kept.record} in ({marks})",
            tuple(names),
        )
    }


def lake_id(tx: Transaction) -> str:
    row = tx.row("select value from lake where name = 'id'")
    return str(row[0]) if row else ""


def _seal_records(tx: Transaction, seal: int) -> list[Json]:
    """Keeps the digest of every record that became final since the last seal; returns them."""
    fresh: list[tuple[str, str, str]] = []
    for kept in KEPT:
        while True:
            rows = tx.rows(
                f"select {kept.record}, {', '.join(kept.columns)} from {kept.table} "
                f"where {kept.is_final} and not exists (select 1 from sealed_records s "
                f"where s.table_name = '{kept.table}' and s.record = {kept.record}) limit {_PAGE}"
            )
            for record, *values in rows:
                digest = digest_of(_RECORD, values)
                tx.execute(
                    "insert into sealed_records (table_name, record, digest, seal) "
                    "values (?, ?, ?, ?)",
                    (kept.table, record, digest, seal),
                )
                fresh.append((kept.table, str(record), digest))
            if len(rows) < _PAGE:
                break
    return [list(one) for one in sorted(fresh)]


def _read(tx: Transaction, rest: str, values: Sequence[Value] = ()) -> list[Seal]:
    return [
        Seal(
            sequence=row[0],
            id=row[1],
            previous=row[2],
            at=row[3],
            lake=row[4],
            heads=_heads(row[5]),
            records=row[6],
        )
        for row in tx.rows(
            f"select sequence, id, previous, at, lake, heads, records from seals {rest}", values
        )
    ]


def _heads(text: str) -> dict[str, Head]:
    """Returns the heads that a seal names; what cannot be read has none, and so another digest."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {ref: head for ref, head in found.items() if isinstance(head, list) and head}
