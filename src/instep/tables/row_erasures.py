"""The records of erased rows: who, why, when, and which digests now stand for which.

The condition itself is not kept, for it may hold the very value that had to go: only its digest,
salted by the record's own id. Only this module knows the SQL of these tables.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from instep.canonical import Json, digest_of, from_microseconds, to_microseconds
from instep.clock import format_instant
from instep.history.ids import new_id
from instep.history.store import Row, Transaction

_COLUMNS = "id, table_name, predicate_digest, actor, at, why, remains, ended_at"


@dataclass(frozen=True, slots=True)
class RowErasure:
    """That rows of a table were erased; `ended_at` is None until their last byte is gone.

    `rows` are counted in every file that held them, so a row that was compacted counts twice.
    `remains` says in words where rows may be that are not erased by this.
    """

    id: str
    table: str
    predicate_digest: str
    actor: str
    at: datetime
    why: str
    remains: tuple[str, ...]
    ended_at: datetime | None
    rows: int = 0
    files: int = 0
    states: int = 0

    def to_json(self) -> dict[str, Json]:
        return {
            "id": self.id,
            "table": self.table,
            "condition_digest": self.predicate_digest,
            "by": self.actor,
            "at": format_instant(self.at),
            "why": self.why,
            "rows": self.rows,
            "files": self.files,
            "states": self.states,
            "remains": list(self.remains),
            "ended_at": format_instant(self.ended_at) if self.ended_at else None,
        }


@dataclass(frozen=True, slots=True)
class ErasedFile:
    """A data file, as `deletes` (a digest of them) left it, and what was written in its stead.

    Both are names without folders, which may tell values; `replacement` is empty where no row is
    left.
    """

    uuid: str
    path: str
    digest: str
    deletes: str
    replacement: str
    replacement_digest: str
    rows: int


def begin_erasure(
    tx: Transaction, table: str, predicate: str, actor: str, why: str, remains: Sequence[str],
    at: datetime,
) -> RowErasure:  # fmt: skip
    """Returns the record under which rows go: a new one, or that of an act that was cut short."""
    for row in tx.rows(
        f"select {_COLUMNS} from row_erasures where table_name = ? and ended_at is null "
        "order by id",
        (table,),
    ):
        found = _erasure(tx, row)
        if found.predicate_digest == _digest(found.id, predicate):
            return found
    identifier = new_id("era")
    tx.execute(
        f"insert into row_erasures ({_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            identifier, table, _digest(identifier, predicate), actor, to_microseconds(at), why,
            json.dumps(list(remains), ensure_ascii=False), None,
        ),
    )  # fmt: skip
    return load_erasure(tx, identifier)


def load_erasure(tx: Transaction, identifier: str) -> RowErasure:
    """Returns one record with what was counted so far."""
    row = tx.row(f"select {_COLUMNS} from row_erasures where id = ?", (identifier,))
    assert row is not None
    return _erasure(tx, row)


def erasures_of(tx: Transaction, table: str) -> tuple[RowErasure, ...]:
    """Returns the records of a table, oldest first."""
    rows = tx.rows(
        f"select {_COLUMNS} from row_erasures where table_name = ? order by at, id", (table,)
    )
    return tuple(_erasure(tx, row) for row in rows)


def erased_tables(tx: Transaction) -> dict[str, frozenset[str]]:
    """Returns the folders of tables whose rows are gone for good, by the id of the record."""
    found: dict[str, set[str]] = {}
    for identifier, uuid in tx.rows(
        "select id, uuid from row_erasures join erased_files on erasure = id "
        "where ended_at is not null union "
        "select id, uuid from row_erasures join erased_states on erasure = id "
        "where ended_at is not null"
    ):
        found.setdefault(str(identifier), set()).add(str(uuid))
    return {identifier: frozenset(folders) for identifier, folders in found.items()}


def end_erasure(tx: Transaction, identifier: str, at: datetime) -> RowErasure:
    """Records that the last byte is gone."""
    tx.execute(
        "update row_erasures set ended_at = ? where id = ? and ended_at is null",
        (to_microseconds(at), identifier),
    )
    return load_erasure(tx, identifier)


def add_files(tx: Transaction, identifier: str, files: Sequence[ErasedFile]) -> None:
    """Records what was written in the stead of which file; durable before a state names it."""
    for one in files:
        tx.execute(
            "insert into erased_files (erasure, uuid, path, digest, deletes, replacement, "
            "replacement_digest, erased_rows) values (?, ?, ?, ?, ?, ?, ?, ?) "
            "on conflict do nothing",
            (
                identifier, one.uuid, one.path, one.digest, one.deletes, one.replacement,
                one.replacement_digest, one.rows,
            ),
        )  # fmt: skip


def files_of_erasure(tx: Transaction, identifier: str) -> tuple[ErasedFile, ...]:
    rows = tx.rows(
        "select uuid, path, digest, deletes, replacement, replacement_digest, erased_rows "
        "from erased_files where erasure = ? order by digest, deletes",
        (identifier,),
    )
    return tuple(ErasedFile(*row) for row in rows)


def add_state(
    tx: Transaction, identifier: str, uuid: str, content: str, before: str, after: str
) -> None:
    """Records the digests of a state's metadata, of the content, before and after.

    What was recorded by an act that was cut short before it was decided has given way.
    """
    tx.execute(
        "insert into erased_states (erasure, uuid, content, digest, replacement_digest) "
        "values (?, ?, ?, ?, ?) on conflict (erasure, uuid, content, digest) do update "
        "set replacement_digest = excluded.replacement_digest",
        (identifier, uuid, content, before, after),
    )


def explained(tx: Transaction) -> frozenset[str]:
    """Returns the digests of all metadata that stands for a state because rows were erased."""
    return frozenset(str(row[0]) for row in tx.rows("select replacement_digest from erased_states"))


def _digest(identifier: str, predicate: str) -> str:
    return digest_of("instep.condition.v1", {"erasure": identifier, "condition": predicate.strip()})


def _erasure(tx: Transaction, row: Row) -> RowErasure:
    identifier, table, predicate, actor, at, why, remains, ended_at = row
    files = tx.row(
        "select count(*), coalesce(sum(erased_rows), 0) from erased_files where erasure = ?",
        (identifier,),
    )
    states = tx.row(
        "select count(distinct content) from erased_states where erasure = ?", (identifier,)
    )
    assert files is not None
    assert states is not None
    return RowErasure(
        id=identifier,
        table=table,
        predicate_digest=predicate,
        actor=actor,
        at=from_microseconds(at),
        why=why,
        remains=tuple(json.loads(remains)),
        ended_at=from_microseconds(ended_at) if ended_at is not None else None,
        rows=int(files[1]),
        files=int(files[0]),
        states=int(states[0]),
    )
