"""What is remembered of arrivals and sources: one row for each file, one for each mapped column."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from instep.canonical import Json, to_microseconds
from instep.changes.records import State
from instep.changes.revert import commit_of_change, is_undone
from instep.contracts.terms import MergePolicy
from instep.errors import NotFoundError
from instep.history.objects import Objects
from instep.history.retention import Named
from instep.history.store import Row, Transaction

if TYPE_CHECKING:
    from instep.tables.profile import ColumnProfile

_COLUMNS = (
    "id, change, table_name, source, file_name, file_digest, file_size_bytes, contract, rows, "
    "quarantined, profile, quarantine, held_for"
)

STARTS = "starts"
"""What the evidence of a change calls the event time at which its good rows start."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One batch; how it stands is the state of its change.

    `source` is the pattern of the contract's server that it came by. `contract`, `profile` and
    `quarantine` are digests of objects. `held_for` names why it was held, or is empty.
    """

    id: str
    change: int
    table: str
    source: str
    file_name: str
    file_digest: str
    file_size_bytes: int
    contract: str | None
    rows: int
    quarantined: int
    profile: str | None
    quarantine: str | None
    held_for: str = ""

    def to_json(self) -> dict[str, Json]:
        return {
            "arrival": self.id,
            "change": self.change,
            "table": self.table,
            "source": self.source,
            "file": self.file_name,
            "file_digest": self.file_digest,
            "size_bytes": self.file_size_bytes,
            "rows": self.rows,
            "quarantined": self.quarantined,
            "quarantine": self.quarantine,
            "held_for": self.held_for,
        }


def insert_arrival(tx: Transaction, arrival: Arrival) -> None:
    tx.execute(
        f"insert into arrivals ({_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            arrival.id,
            arrival.change,
            arrival.table,
            arrival.source,
            arrival.file_name,
            arrival.file_digest,
            arrival.file_size_bytes,
            arrival.contract,
            arrival.rows,
            arrival.quarantined,
            arrival.profile,
            arrival.quarantine,
            arrival.held_for,
        ),
    )


def update_arrival(tx: Transaction, arrival: Arrival) -> None:
    """Replaces what is known of an arrival after it was read again."""
    tx.execute("delete from arrivals where id = ?", (arrival.id,))
    insert_arrival(tx, arrival)


def arrival_of_change(tx: Transaction, number: int) -> Arrival:
    """Returns the arrival that a change brings.

    Raises:
        NotFoundError (kind "no-such-arrival").
    """
    row = tx.row(f"select {_COLUMNS} from arrivals where change = ?", (number,))
    if row is None:
        raise NotFoundError(
            f'Change {number} is not an arrival: expected the number of one. See "instep changes".',
            kind="no-such-arrival",
            change=number,
        )
    return _from_row(row)


def same_file(
    tx: Transaction, table: str, digest: str, policy: MergePolicy
) -> tuple[Arrival, State] | None:
    """Returns the latest arrival of this very file in a table, if the table has it.

    It is open, held, or merged; under the policies `replace` and `keyed` only the last file that
    was merged counts, since its rows took the place of earlier ones. What was undone is not there.
    """
    named = ", ".join(f"a.{name.strip()}" for name in _COLUMNS.split(","))
    row = tx.row(
        f"select {named}, c.state from arrivals a join changes c on c.number = a.change "
        "where a.table_name = ? and a.file_digest = ? and c.state in (?, ?) "
        "order by a.change desc limit 1",
        (table, digest, State.OPEN.value, State.HELD.value),
    )
    if row is not None:
        return _from_row(row[:-1]), State(row[-1])
    is_last = policy is not MergePolicy.APPEND
    merged = last_accepted(tx, table, None if is_last else digest)
    if merged is None or merged.file_digest != digest:
        return None
    if is_undone(tx, commit_of_change(tx, merged.change)):
        return None
    return merged, State.MERGED


def last_accepted(tx: Transaction, table: str, digest: str | None = None) -> Arrival | None:
    """Returns the arrival that was merged last into a table; of the file `digest`, if given."""
    named = ", ".join(f"a.{name.strip()}" for name in _COLUMNS.split(","))
    row = tx.row(
        f"select {named} from arrivals a join changes c on c.number = a.change "
        f"where a.table_name = ? and c.state = ?{' and a.file_digest = ?' if digest else ''} "
        "order by c.ended_at desc, c.number desc limit 1",
        (table, State.MERGED.value, *([digest] if digest else [])),
    )
    return _from_row(row) if row else None


def accepted_kinds(tx: Transaction, table: str) -> frozenset[str]:
    """Returns for what arrivals of a table were held that somebody let in."""
    rows = tx.rows(
        "select distinct a.held_for from arrivals a join changes c on c.number = a.change "
        "where a.table_name = ? and c.state = ?",
        (table, State.MERGED.value),
    )
    return frozenset(str(kind) for (kind,) in rows)


def merged_by_name(tx: Transaction, table: str, file_name: str, digest: str) -> int | None:
    """Returns the last change that merged a file of this name with other bytes, or None."""
    row = tx.row(
        "select max(a.change) from arrivals a join changes c on c.number = a.change "
        "where a.table_name = ? and a.file_name = ? and a.file_digest <> ? and c.state = ?",
        (table, file_name, digest, State.MERGED.value),
    )
    return int(row[0]) if row is not None and row[0] is not None else None


def held_arrivals(tx: Transaction, table: str) -> tuple[Arrival, ...]:
    """Returns the held arrivals of a table, in the order in which they came."""
    named = ", ".join(f"a.{name.strip()}" for name in _COLUMNS.split(","))
    rows = tx.rows(
        f"select {named} from arrivals a join changes c on c.number = a.change "
        "where a.table_name = ? and c.state = ? order by a.change",
        (table, State.HELD.value),
    )
    return tuple(map(_from_row, rows))


def accepted_profiles(tx: Transaction, table: str, limit: int) -> tuple[str, ...]:
    """Returns the profiles of the arrivals merged into a table, the latest to arrive first."""
    return tuple(profile for profile, _ in accepted_starts(tx, table, limit))


def accepted_starts(
    tx: Transaction, table: str, limit: int
) -> tuple[tuple[str, Mapping[str, str]], ...]:
    """Returns the same, each with where its good rows start: its event time column and the value.

    Older arrivals do not tell.
    """
    rows = tx.rows(
        "select a.profile, c.evidence from arrivals a join changes c on c.number = a.change "
        "where a.table_name = ? and c.state = ? and a.profile is not null "
        "order by a.change desc limit ?",
        (table, State.MERGED.value, limit),
    )
    return tuple(
        (str(profile), json.loads(str(evidence)).get(STARTS) or {}) for profile, evidence in rows
    )


def mappings_of(tx: Transaction, table: str, source: str) -> dict[str, str]:
    """Returns the names that a source uses, each with the column of the table it stands for."""
    rows = tx.rows(
        "select new_name, old_name from source_mappings where table_name = ? and source = ? "
        "order by at",
        (table, source),
    )
    return {str(new): str(old) for new, old in rows}


def insert_mappings(
    tx: Transaction, arrival: Arrival, pairs: Mapping[str, str], actor: str, at: datetime
) -> None:
    """Records that this arrival's source calls a column by another name: new name to old."""
    for new, old in pairs.items():
        tx.execute(
            "delete from source_mappings where table_name = ? and source = ? and new_name = ?",
            (arrival.table, arrival.source, new),
        )
        tx.execute(
            "insert into source_mappings "
            "(table_name, source, old_name, new_name, actor, at, change) "
            "values (?, ?, ?, ?, ?, ?, ?)",
            (arrival.table, arrival.source, old, new, actor, to_microseconds(at), arrival.change),
        )


def named_by_arrivals(tx: Transaction) -> Named:
    """Returns the objects that arrivals need kept, unless they were refused."""
    rows = tx.rows(
        "select a.file_digest, a.contract, a.profile, a.quarantine from arrivals a "
        "join changes c on c.number = a.change where c.state <> ?",
        (State.REFUSED.value,),
    )
    return Named(objects=frozenset(str(one) for row in rows for one in row if one is not None))


def save_profile(objects: Objects, profiles: Sequence[ColumnProfile]) -> str:
    """Returns the digest under which the profile of a batch is kept."""
    return objects.put(json.dumps([profile.to_json() for profile in profiles]).encode())


def load_profile(objects: Objects, digest: str) -> tuple[ColumnProfile, ...]:
    return _parsed_profile(objects.get(digest))


@lru_cache(maxsize=256)  # the files of one command are compared with the same batches
def _parsed_profile(data: bytes) -> tuple[ColumnProfile, ...]:
    from instep.tables.profile import ColumnProfile

    return tuple(ColumnProfile.from_json(value) for value in json.loads(data))


def _from_row(row: Row) -> Arrival:
    return Arrival(*row)
