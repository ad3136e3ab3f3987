"""Lets files arrive: each becomes a change of its own kind, merged when it fits, held when not.

Order: keep the raw bytes, read and check them, write good and bad rows, then one transaction that
records the change with its arrival and, when policy allows, moves main. Before it nothing names
what was written; after it everything does. A file that a table has is not taken twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from instep.changes import gate
from instep.changes.gate import open_change
from instep.changes.records import Change, Kind, State, end_change, load_change
from instep.contracts.terms import Format, MergePolicy, Source
from instep.contracts.type_changes import UNFIT
from instep.errors import InvalidError, RefusedError
from instep.faults import reached
from instep.findings import stops
from instep.history.edits import Edit
from instep.history.ids import new_id
from instep.history.locks import writing
from instep.history.repository import MAIN, Repository
from instep.history.store import Transaction
from instep.ingest.arrived import NO_CONTRACT, Arrived, effect_of, findings_of
from instep.ingest.attempts import on_newest_main
from instep.ingest.batch import Delivery, Outcome, Reading
from instep.ingest.files import (
    UNREADABLE,
    check_filled,
    check_there,
    sniffed_source,
    unexpected,
)
from instep.ingest.in_force import find_contract, named_paths, named_table, near_table
from instep.ingest.merge import judge_again
from instep.ingest.records import (
    Arrival,
    arrival_of_change,
    insert_arrival,
    mappings_of,
    same_file,
)
from instep.ingest.unread import hold_without_contract, refuse_unreadable, seen_before
from instep.ingest.upkeep import look_after
from instep.tables.write import check_table_name

Say = Callable[[str], None]


def ingest(
    repo: Repository,
    project: Path,
    file: Path,
    actor: str,
    *,
    table: str | None = None,
    again: bool = False,
    say: Say = lambda text: None,
) -> Arrived:
    """Lets one file arrive, by `actor`, in the table that its name leads to, or in `table`.

    The same bytes are taken once. With `again` they are taken once more by a table in whose rows
    other files took their place, under the policies `keyed` and `replace`.

    Raises:
        InvalidError (kind "bad-name"): no table can be called `table`.
        InvalidError (kind "no-table-name"): the file's own name suggests none.
        InvalidError (kind "which-table"): the file is named like those of another table.
        InvalidError (kind "missing-file"): there is none; nothing was recorded.
        InvalidError (a kind of `UNREADABLE`): the file is empty, cut off, in another encoding, or
            has no row; it is kept and recorded as a refused arrival.
        InvalidError (kind "type-change"): as those, where a column of the table cannot get its
            contract's type.
        ConflictError (kind "keys-moved"): main moved on at every attempt.
        UnavailableError (kind "out-of-memory").
    """
    check_there(file)
    try:
        with writing(repo.root, repo.store):
            arrived = _ingest(repo, project, file, actor, table, again, say)
    except Exception as error:  # of whatever library: `unexpected` tells which are the file's
        told = unexpected(file.name, error)
        if told is None:
            raise
        raise told from error
    if arrived.commit is None or arrived.was_here:
        return arrived
    return replace(arrived, upkeep=look_after(repo, arrived.arrival.table, say))


def _ingest(
    repo: Repository,
    project: Path,
    file: Path,
    actor: str,
    table: str | None,
    again: bool,
    say: Say,
) -> Arrived:
    in_force, _ = find_contract(repo, repo.resolve(MAIN), file.name, table)
    if in_force is None and table is None:
        _check_own_table(repo, project, file.name)
    name = in_force.contract.table if in_force else table or named_table(file.name)
    check_table_name(name)
    say(f"{file.name}: keeping the file")
    reached("ingest.keep.before")
    digest = repo.objects.put_file(file)
    reached("ingest.keep.after")
    policy = in_force.contract.merge_policy if in_force else MergePolicy.APPEND
    with repo.store.reading() as tx:
        found = same_file(tx, name, digest, policy if again else MergePolicy.APPEND)
    if found is not None and not _awaits_contract(*found):
        arrival, state = found
        if state is State.HELD:
            return merge_if_it_fits(repo, arrival, actor)
        with repo.store.reading() as tx:
            is_last = same_file(tx, name, digest, policy) is not None
            return replace(seen_before(tx, arrival, state), is_overtaken=not is_last)
    size = file.stat().st_size

    def delivery(source: Source | None) -> Delivery:
        kept = source or sniffed_source(repo.objects.existing(digest), file.name)
        return Delivery(file.name, digest, size, kept)

    def prepare(base: str) -> Reading | None:
        now, source = find_contract(repo, base, file.name, name)
        if now is None:
            return None
        read = delivery(source)
        with repo.store.reading() as tx:
            mapping = mappings_of(tx, name, read.source.pattern)
        say(f"{file.name}: reading and checking")
        return Reading(now, read, mapping)

    identifier = new_id("arr")
    try:
        check_filled(file, file.name)
        arrived = on_newest_main(
            repo,
            identifier,
            prepare,
            partial(_record, repo, identifier, actor, again),
            lambda: say(f"{file.name}: {name} moved meanwhile, trying again"),
        )
        if arrived is not None:
            return arrived
        say(f"{file.name}: {name} has no contract, drafting one")
        return hold_without_contract(repo, project, delivery(None), name, actor)
    except InvalidError as error:
        if error.kind not in UNREADABLE and error.kind != UNFIT:
            raise
        source = Source(file.name, Format.CSV)  # of which nothing is known but the name
        unread = Delivery(file.name, digest, size, source)
        contract = in_force.digest if in_force else None
        raise refuse_unreadable(repo, unread, name, contract, actor, error) from None


def read_again(repo: Repository, arrival: Arrival) -> Arrived:
    """Reads a held file for what main is now, and returns how it stands; it stays held."""
    judge_again(repo, arrival.change)
    with repo.store.reading() as tx:
        arrival = arrival_of_change(tx, arrival.change)
        return seen_before(tx, arrival, load_change(tx, arrival.change).state)


def merge_if_it_fits(repo: Repository, arrival: Arrival, actor: str) -> Arrived:
    """Reads a held file for what main is now; merges it by `actor` if it fits and policy allows."""
    judge_again(repo, arrival.change)
    with repo.store.transaction() as tx:
        change = load_change(tx, arrival.change)
        arrival = arrival_of_change(tx, arrival.change)
        findings = findings_of(change)
        if change.state is not State.HELD or stops(findings):
            return seen_before(tx, arrival, change.state)
        gate.release_hold(tx, change.number)
        commit = merge_if_allowed(tx, repo, change, actor)
        state = load_change(tx, change.number).state
    return Arrived(arrival, state, findings, commit, effect=effect_of(change))


def _check_own_table(repo: Repository, project: Path, file_name: str) -> None:
    """Holds that a file without a contract is not named like the files of a table that has one."""
    texts = {
        path.stem: path.read_text(encoding="utf-8", errors="replace")
        for path in (project / "contracts").glob("*.yaml")
    }
    for key, content in repo.entries(repo.resolve(MAIN), "contract").items():
        texts[key.partition("/")[2]] = repo.objects.text(str(content["blob"]))
    near = near_table(file_name, {table: named_paths(text) for table, text in texts.items()})
    if near is not None:
        raise InvalidError(
            f"{file_name} comes by no contract, but is named like the files of table "
            f"{near.table}: expected which of both it is. Add --table {near.table} if it is more "
            f"of the same, or --table {near.own} for a table of its own. To let later ones in by "
            f"themselves, write path: {json.dumps(near.pattern)} in contracts/{near.table}.yaml, "
            'then "instep propose".',
            kind="which-table",
            table=near.table,
            own=near.own,
            pattern=near.pattern,
        )


def _record(
    repo: Repository, identifier: str, actor: str, is_again: bool, outcome: Outcome
) -> Arrived:
    """Records a read batch, and merges it when it fits and policy allows; one transaction."""
    reading, seen = outcome.reading, outcome.examined
    table, delivery = reading.contract.table, reading.delivery
    is_held = bool(outcome.stops)
    reached("ingest.record.before")
    with repo.store.transaction() as tx:
        policy = reading.contract.merge_policy if is_again else MergePolicy.APPEND
        again = same_file(tx, table, delivery.digest, policy)
        if again is not None and not _awaits_contract(*again):
            return seen_before(tx, *again)
        change = open_change(
            tx,
            repo,
            kind=Kind.ARRIVAL,
            title=outcome.title,
            edit=Edit(
                base=outcome.base,
                changes=outcome.changes,
                author=actor,
                message=outcome.title,
                origin=identifier,
            ),
            evidence=outcome.evidence(),
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
            contract=reading.in_force.digest,
            rows=seen.rows,
            quarantined=seen.quarantined,
            profile=outcome.profile,
            quarantine=outcome.quarantine,
            held_for=outcome.stops[0].kind if is_held else "",
        )
        insert_arrival(tx, arrival)
        if again is not None:
            why = f"arrived again as change {change.number}"
            refused = again[0].change
            end_change(tx, refused, State.REFUSED, actor=actor, at=repo.clock(), why=why)
        commit = None if is_held else merge_if_allowed(tx, repo, change, actor)
        state = load_change(tx, change.number).state
    reached("ingest.record.after")
    return Arrived(
        arrival, state, seen.findings, commit, broken=dict(seen.broken), effect=outcome.effect
    )


def merge_if_allowed(tx: Transaction, repo: Repository, change: Change, actor: str) -> str | None:
    """Merges a change when its policy says so; else it stays open and waits. Returns the commit."""
    try:
        return gate.merge(tx, repo, change.number, actor).commit.id
    except RefusedError as error:
        if error.kind != "not-mergeable":
            raise
        return None


def _awaits_contract(arrival: Arrival, state: State) -> bool:
    """Whether it was only held because its table had no contract."""
    return arrival.held_for == NO_CONTRACT and state is State.HELD
