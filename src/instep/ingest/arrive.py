"""Lets files arrive: each becomes a change of its own kind, merged when it fits, held when not.

Order: keep the raw bytes, read and check them, write good and bad rows, then one transaction that
records the change with its arrival and, when policy allows, moves main. Before it nothing names
what was written; after it everything does. The same bytes never arrive twice in one table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from instep.canonical import Json, JsonObject
from instep.changes import gate
from instep.changes.gate import open_change
from instep.changes.records import Change, Kind, State, end_change, load_change
from instep.contracts.terms import Source
from instep.errors import ConflictError, InvalidError, RefusedError
from instep.faults import reached
from instep.findings import Finding, Severity
from instep.history.edits import Edit
from instep.history.ids import new_id
from instep.history.locks import writing
from instep.history.objects import write_durably
from instep.history.repository import MAIN, Repository
from instep.history.store import Transaction
from instep.ingest.batch import (
    Delivery,
    InForce,
    Outcome,
    changes_of,
    contracts_in_force,
    read_batch,
    rebased,
)
from instep.ingest.files import check_arrived, load_rows, open_raw, sniffed_source
from instep.ingest.records import Arrival, insert_arrival, mappings_of, same_file

ATTEMPTS = 20
"""How often a batch is put on a newer main before the conflict is given back."""

NO_CONTRACT = "no-contract"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Arrived:
    """What became of one file; `state` is that of its change, and it may have been here before."""

    arrival: Arrival
    state: State
    findings: tuple[Finding, ...] = ()
    commit: str | None = None
    was_here: bool = False
    draft: Path | None = None
    broken: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_held(self) -> bool:
        return self.state is State.HELD

    def to_json(self) -> dict[str, Json]:
        return {
            **self.arrival.to_json(),
            "state": self.state.value,
            "commit": self.commit,
            "skipped": self.was_here,
            "broken": dict(self.broken),
            "findings": [finding.to_json() for finding in self.findings],
            "draft": str(self.draft) if self.draft else None,
        }

    def to_text(self) -> str:
        arrival = self.arrival
        if self.was_here and not self.is_held:
            return (
                f"{arrival.file_name}: the same file arrived before, as change {arrival.change} "
                f"({self.state.value}): skipped."
            )
        if self.is_held:
            return held_error(self).message
        good = arrival.rows - arrival.quarantined
        where = f"merged as change {arrival.change}"
        if self.state is State.OPEN:
            where = f"fits, and waits for approval as change {arrival.change}"
        line = f"{arrival.file_name}: {good:,} rows into {arrival.table}, {where}"
        if arrival.quarantined:
            terms = ", ".join(f"{name} {count}" for name, count in self.broken.items())
            line += f"; {arrival.quarantined:,} in quarantine ({terms})"
        return "\n".join([line, *self._notes()])

    def _notes(self) -> list[str]:
        """What is worth a line; columns that moved share one, since seasons move many."""
        told = ("quarantined-rows", "distribution-change")
        lines = [
            f"  {finding.severity}: {finding.message}"
            for finding in self.findings
            if finding.kind not in told
        ]
        moved = dict.fromkeys(
            finding.subject.rpartition(".")[2]
            for finding in self.findings
            if finding.kind == "distribution-change"
        )
        if moved:
            lines.append(
                f"  note: {', '.join(moved)} moved since the last accepted batch "
                f'("instep review {self.arrival.change}")'
            )
        return lines


def held_error(arrived: Arrived) -> RefusedError:
    """Returns why an arrival is held, on what evidence, and what may be done next."""
    arrival = arrived.arrival
    number = arrival.change
    stops = [finding for finding in arrived.findings if finding.severity is Severity.STOP]
    evidence = " ".join(finding.message for finding in stops)
    again = "is still held" if arrived.was_here else "is held"
    return RefusedError(
        f"{arrival.file_name} {again} as change {number}: {evidence} {_next_step(arrival, stops)}",
        kind="arrival-held",
        change=number,
        table=arrival.table,
        held_for=arrival.held_for,
    )


def _next_step(arrival: Arrival, stops: list[Finding]) -> str:
    number = arrival.change
    turn_away = f'"instep refuse {number} --why REASON"'
    match arrival.held_for:
        case "renamed-column":
            pairs = " ".join(
                f"--rename {one.evidence['new']}={one.evidence['old']}"
                for one in stops
                if one.kind == "renamed-column"
            )
            accept = f'"instep accept {number} {pairs} --as SOMEBODY-ELSE"'
        case "missing-column":
            accept = (
                f'"instep accept {number} --rename NEW=OLD --as SOMEBODY-ELSE" if it has '
                "another name"
            )
        case "no-contract":
            return (
                'Correct the draft, then "instep propose", "instep approve" and "instep merge"; '
                f"then ingest the file again, or {turn_away}."
            )
        case _:
            accept = f'"instep accept {number} --why REASON --as SOMEBODY-ELSE"'
    return f"Next: {accept}, or {turn_away}."


def ingest(
    repo: Repository,
    project: Path,
    file: Path,
    actor: str,
    *,
    table: str | None = None,
    say: Say = lambda text: None,
) -> Arrived:
    """Lets one file arrive, by `actor`, in the table that its name leads to, or in `table`.

    Raises:
        InvalidError: the file is missing, empty, cut off, in another encoding, or has no row;
            nothing was recorded.
        ConflictError (kind "keys-moved"): main moved on at every attempt.
    """
    check_arrived(file)
    with writing(repo.root, repo.store):
        return _ingest(repo, project, file, actor, table, say)


def _ingest(
    repo: Repository, project: Path, file: Path, actor: str, table: str | None, say: Say
) -> Arrived:
    head = repo.resolve(MAIN)
    in_force, source = find_contract(contracts_in_force(repo, head), file.name, table)
    name = in_force.contract.table if in_force else table or table_name(file)
    say(f"{file.name}: keeping the file")
    reached("ingest.keep.before")
    digest = repo.objects.put_file(file)
    reached("ingest.keep.after")
    with repo.store.reading() as tx:
        found = same_file(tx, name, digest)
    superseded = None
    if found is not None:
        arrival, state = found
        if arrival.held_for != NO_CONTRACT or in_force is None:
            return _seen_before(repo, arrival, state)
        superseded = arrival
    kept = source or sniffed_source(repo.objects.existing(digest), file.name)
    delivery = Delivery(file.name, digest, file.stat().st_size, kept)
    if in_force is None:
        return _hold_without_contract(repo, project, delivery, name, actor)
    return _arrive(repo, in_force, delivery, actor, superseded, say)


def find_contract(
    contracts: Mapping[str, InForce], file_name: str, table: str | None
) -> tuple[InForce | None, Source | None]:
    """Returns the contract that a file falls under, with the server it comes by.

    Raises:
        InvalidError (kind "ambiguous-file"): its name leads to several tables.
    """
    if table is not None:
        in_force = contracts.get(table)
        if in_force is None:
            return None, None
        sources = in_force.contract.sources
        matching = [one for one in sources if _matches(file_name, one.pattern)]
        return in_force, next(iter([*matching, *sources]), None)
    hits = [
        (in_force, source)
        for in_force in contracts.values()
        for source in in_force.contract.sources
        if _matches(file_name, source.pattern)
    ]
    tables = sorted({in_force.contract.table for in_force, _ in hits})
    if len(tables) > 1:
        raise InvalidError(
            f"File {file_name} matches the contracts of {', '.join(tables)}: expected one. "
            "Name one with --table.",
            kind="ambiguous-file",
            tables=tuple(tables),
        )
    if hits:
        return hits[0]
    stem = re.sub(r"\W+", "_", file_name.split(".")[0].lower())
    in_force = contracts.get(stem)
    if in_force is None:
        return None, None
    return in_force, next(iter(in_force.contract.sources), None)


def table_name(file: Path) -> str:
    """Returns the table name that a file's own name suggests."""
    name = re.sub(r"[^a-z0-9_]+", "_", file.name.split(".")[0].lower()).strip("_")
    return f"t_{name}" if not name or name[0].isdigit() else name


def _matches(file_name: str, pattern: str) -> bool:
    last = pattern.rsplit("/", 1)[-1]
    return fnmatchcase(file_name, last) or fnmatchcase(file_name, f"{last}.gz")


def _arrive(
    repo: Repository,
    in_force: InForce,
    delivery: Delivery,
    actor: str,
    superseded: Arrival | None,
    say: Say,
) -> Arrived:
    identifier = new_id("arr")
    table = in_force.contract.table
    with repo.store.reading() as tx:
        mapping = mappings_of(tx, table, delivery.source.pattern)
    say(f"{delivery.file_name}: reading and checking")
    outcome: Outcome | None = None
    for attempt in range(ATTEMPTS):
        base = repo.resolve(MAIN)
        outcome = rebased(repo, outcome, in_force.contract, base) if outcome else None
        if outcome is None:
            outcome = read_batch(
                repo, base, in_force, delivery, mapping, repo.root / "staging" / identifier
            )
        reached("ingest.record.before")
        try:
            with repo.store.transaction() as tx:
                arrived = _record(
                    tx, repo, in_force, delivery, identifier, actor, outcome, superseded
                )
        except ConflictError as error:
            if error.kind != "keys-moved" or attempt == ATTEMPTS - 1:
                raise
            say(f"{delivery.file_name}: {table} moved meanwhile, trying again")
            continue
        reached("ingest.record.after")
        return arrived
    raise AssertionError("the last attempt returns or raises")


def _record(
    tx: Transaction,
    repo: Repository,
    in_force: InForce,
    delivery: Delivery,
    identifier: str,
    actor: str,
    outcome: Outcome,
    superseded: Arrival | None,
) -> Arrived:
    """Records a read batch, and merges it when it fits and policy allows; one transaction."""
    table = in_force.contract.table
    again = same_file(tx, table, delivery.digest)
    if again is not None and (superseded is None or again[0].id != superseded.id):
        return Arrived(again[0], again[1], was_here=True)
    seen = outcome.examined
    is_held = bool(outcome.stops)
    change = open_change(
        tx,
        repo,
        kind=Kind.ARRIVAL,
        title=f"{delivery.file_name} arrives in {table}: {seen.rows - seen.quarantined:,} rows",
        edit=Edit(
            base=outcome.base,
            changes={} if is_held else changes_of(in_force, outcome),
            author=actor,
            message=f"{delivery.file_name} arrives in {table}",
            origin=identifier,
        ),
        evidence=outcome.evidence(in_force, delivery),
        state=State.HELD if is_held else State.OPEN,
    )
    arrival = Arrival(
        id=identifier,
        change=change.number,
        table=table,
        source=delivery.source.pattern,
        file_name=delivery.file_name,
        file_digest=delivery.digest,
        file_size_bytes=delivery.size_bytes,
        contract=in_force.digest,
        rows=seen.rows,
        quarantined=seen.quarantined,
        profile=outcome.profile,
        quarantine=outcome.quarantine,
        held_for=outcome.stops[0].kind if is_held else "",
    )
    insert_arrival(tx, arrival)
    if superseded is not None:
        end_change(
            tx,
            superseded.change,
            State.REFUSED,
            actor=actor,
            at=repo.clock(),
            why=f"arrived again as change {change.number}",
        )
    commit = None if is_held else merge_if_allowed(tx, repo, change, actor)
    state = load_change(tx, change.number).state
    return Arrived(arrival, state, seen.findings, commit, broken=dict(seen.broken))


def merge_if_allowed(tx: Transaction, repo: Repository, change: Change, actor: str) -> str | None:
    """Merges a change when its policy says so; else it stays open and waits. Returns the commit."""
    try:
        return gate.merge(tx, repo, change.number, actor).commit.id
    except RefusedError as error:
        if error.kind != "not-mergeable":
            raise
        return None


def _seen_before(repo: Repository, arrival: Arrival, state: State) -> Arrived:
    with repo.store.reading() as tx:
        change = load_change(tx, arrival.change)
    return Arrived(
        arrival,
        state,
        findings_of(change),
        change.merged_commit,
        was_here=True,
    )


def findings_of(change: Change) -> tuple[Finding, ...]:
    """Returns the findings that a change's evidence holds."""
    listed = change.evidence.get("findings")
    found = []
    for one in listed if isinstance(listed, list) else []:
        assert isinstance(one, dict)
        evidence = one.get("evidence")
        found.append(
            Finding(
                str(one["kind"]),
                str(one["subject"]),
                Severity(str(one["severity"])),
                str(one["message"]),
                evidence if isinstance(evidence, dict) else {},
            )
        )
    return tuple(found)


def _hold_without_contract(
    repo: Repository, project: Path, delivery: Delivery, table: str, actor: str
) -> Arrived:
    """Drafts a contract on disk, unless there is one, and holds the file until one is merged."""
    path = project / "contracts" / f"{table}.yaml"
    rows, text = _drafted(repo, delivery, table)
    if not path.exists():
        write_durably(path, text.encode())
        told = f"a draft was written to contracts/{path.name}."
    else:
        told = f"the draft contracts/{path.name} is on disk, but not in the lake."
    finding = Finding(
        NO_CONTRACT,
        f"table/{table}",
        Severity.STOP,
        f'Table "{table}" has no contract: {told}',
        {"draft": f"contracts/{path.name}"},
    )
    identifier = new_id("arr")
    evidence: dict[str, Json] = {
        "keys": [],
        "findings": [finding.to_json()],
        "file": {"name": delivery.file_name, "digest": delivery.digest},
        "reads": [],
    }
    nothing: dict[str, JsonObject | None] = {}
    message = f"{delivery.file_name} arrives in {table}, which has no contract"
    reached("ingest.record.before")
    with repo.store.transaction() as tx:
        change = open_change(
            tx,
            repo,
            kind=Kind.ARRIVAL,
            title=message,
            edit=Edit(repo.resolve(MAIN), nothing, actor, message, identifier),
            evidence=evidence,
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
            contract=None,
            rows=rows,
            quarantined=0,
            profile=None,
            quarantine=None,
            held_for=NO_CONTRACT,
        )
        insert_arrival(tx, arrival)
    reached("ingest.record.after")
    return Arrived(arrival, State.HELD, (finding,), draft=path)


def _drafted(repo: Repository, delivery: Delivery, table: str) -> tuple[int, str]:
    import shutil

    from instep.contracts.infer import draft_contract, guess_columns
    from instep.engines.duckdb import DuckDB
    from instep.ingest.files import RAW

    folder = repo.root / "staging" / new_id("arr")
    try:
        raw = open_raw(
            repo.objects.existing(delivery.digest), delivery.file_name, delivery.source, folder
        )
        with DuckDB(repo.root / "staging") as engine:
            rows = load_rows(engine, raw)
            guesses = guess_columns(engine.connection, RAW, rows.types)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return rows.rows, draft_contract(table, delivery.source, guesses)
