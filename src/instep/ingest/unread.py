"""Records files of which no row is taken yet: held without a contract, refused if unreadable."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from instep.changes.gate import open_change
from instep.changes.records import Kind, State, end_change, load_change
from instep.contracts.terms import MergePolicy
from instep.contracts.type_changes import UNFIT
from instep.errors import InvalidError, some_of
from instep.faults import reached
from instep.findings import Finding, Severity
from instep.history.edits import Edit
from instep.history.ids import new_id
from instep.history.objects import write_durably
from instep.history.repository import MAIN, Repository
from instep.history.store import Transaction
from instep.ingest.arrived import NO_CONTRACT, Arrived, effect_of, findings_of
from instep.ingest.batch import Delivery
from instep.ingest.files import durations, load_rows, open_raw, translating
from instep.ingest.records import Arrival, insert_arrival, same_file

if TYPE_CHECKING:
    from instep.contracts.infer import Guess

_TOLD = 10
"""How many columns of an unusual type a message tells of."""


def hold_without_contract(
    repo: Repository, project: Path, delivery: Delivery, table: str, actor: str
) -> Arrived:
    """Drafts a contract on disk, unless there is one, and holds the file until one is merged."""
    from instep.contracts.infer import draft_contract

    path = project / "contracts" / f"{table}.yaml"
    rows, guesses = _looked_at(repo, delivery)
    is_drafted = path.exists()
    if not is_drafted:
        write_durably(path, draft_contract(table, delivery.source, guesses).encode())
    finding = _without_contract(table, delivery.source.encoding, rows, guesses, is_drafted)
    title = f"{delivery.file_name} arrives in {table}, which has no contract"
    reached("ingest.record.before")
    with repo.store.transaction() as tx:
        again = same_file(tx, table, delivery.digest, MergePolicy.APPEND)
        if again is not None:
            return seen_before(tx, *again)
        arrival = _record(tx, repo, delivery, table, actor, title, finding, rows=rows)
    reached("ingest.record.after")
    return Arrived(arrival, State.HELD, (finding,), draft=path)


def refuse_unreadable(
    repo: Repository,
    delivery: Delivery,
    table: str,
    contract: str | None,
    actor: str,
    error: InvalidError,
) -> InvalidError:
    """Records that a file came and why it could not be taken; returns the error that says so."""
    why = "does not fit its columns" if error.kind == UNFIT else "cannot be read"
    title = f"{delivery.file_name} arrives in {table}, and {why}"
    stop = Finding(error.kind, f"table/{table}", Severity.STOP, error.message)
    reached("ingest.record.before")
    with repo.store.transaction() as tx:
        arrival = _record(tx, repo, delivery, table, actor, title, stop, contract=contract)
        at, why = repo.clock(), error.message
        end_change(tx, arrival.change, State.REFUSED, actor=actor, at=at, why=why)
    reached("ingest.record.after")
    return InvalidError(
        f"{error.message} It is recorded as change {arrival.change}, which is refused.",
        kind=error.kind,
        **{**error.facts, "change": arrival.change},
    )


def seen_before(tx: Transaction, arrival: Arrival, state: State) -> Arrived:
    """Returns how an arrival stands whose file came once more."""
    change = load_change(tx, arrival.change)
    return Arrived(
        arrival,
        state,
        findings_of(change),
        change.merged_commit,
        was_here=True,
        effect=effect_of(change),
    )


def _record(
    tx: Transaction,
    repo: Repository,
    delivery: Delivery,
    table: str,
    actor: str,
    title: str,
    stop: Finding,
    *,
    rows: int = 0,
    contract: str | None = None,
) -> Arrival:
    """Records a held arrival that changes nothing, with what stops it."""
    identifier = new_id("arr")
    change = open_change(
        tx,
        repo,
        kind=Kind.ARRIVAL,
        title=title,
        edit=Edit(repo.resolve(MAIN), {}, actor, title, identifier),
        evidence={
            "keys": [],
            "findings": [stop.to_json()],
            "file": {"name": delivery.file_name, "digest": delivery.digest},
            "reads": [],
        },
        state=State.HELD,
    )
    arrival = Arrival(
        id=identifier,
        change=change.number,
        table=table,
        source=delivery.source.pattern,
        file_name=delivery.file_name,
        file_digest=delivery.digest,
        file_size_bytes=delivery.size_bytes,
        contract=contract,
        rows=rows,
        quarantined=0,
        profile=None,
        quarantine=None,
        held_for=stop.kind,
    )
    insert_arrival(tx, arrival)
    return arrival


def _without_contract(
    table: str, encoding: str, rows: int, guesses: tuple[Guess, ...], is_drafted: bool
) -> Finding:
    """Returns what stops a file of a table without a contract, and what was read of it."""
    draft = f"contracts/{table}.yaml"
    kept = [guess.why for guess in guesses if guess.why]
    columns = some_of([f"{guess.name} ({guess.logical})" for guess in guesses])
    told = f"a draft was written to {draft}, from {rows:,} rows of {columns}."
    if is_drafted:
        told = f"the draft {draft} is on disk, but not in the lake."
    if encoding != "utf-8":
        told += (
            f" The file is not UTF-8 and was read as {encoding}: see whether its letters are right."
        )
    if kept:
        more = f"; and {len(kept) - _TOLD:,} more in the draft" if len(kept) > _TOLD else ""
        told += f" So that nothing is lost: {'; '.join(kept[:_TOLD])}{more}."
    return Finding(
        NO_CONTRACT,
        f"table/{table}",
        Severity.STOP,
        f'Table "{table}" has no contract: {told}',
        {"draft": draft, "encoding": encoding, "read_as": list(kept)},
    )


def _looked_at(repo: Repository, delivery: Delivery) -> tuple[int, tuple[Guess, ...]]:
    """Returns how many rows a file has, and what its columns look like."""
    from instep.contracts.infer import guess_columns
    from instep.engines.duckdb import DuckDB
    from instep.ingest.files import RAW

    folder = repo.here / "staging" / new_id("arr")
    try:
        raw = open_raw(
            repo.objects.existing(delivery.digest), delivery.file_name, delivery.source, folder
        )
        with DuckDB(repo.root / "staging") as engine, translating(raw):
            rows = load_rows(engine, raw)
            guesses = guess_columns(
                engine.connection,
                RAW,
                rows.types,
                is_csv=raw.text is not None,
                durations=durations(raw),
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return rows.rows, guesses
