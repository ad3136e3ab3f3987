"""Puts an arrival that waits on the newest main, and merges it, whatever main has become meanwhile.

An append means the same on any state of its table: its files are added to the newest one, and its
approvals stay. Under another policy, another contract or other names, or where a key came in
meanwhile, the kept file is read again; what then is not as it was agreed to needs approval anew.
A held arrival is always read again: its commit is what accepting it would make of main.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from instep.canonical import Json, JsonObject
from instep.changes import gate
from instep.changes.gate import Merged
from instep.changes.records import Change, State, load_change
from instep.errors import ConflictError
from instep.faults import reached
from instep.history.commits import load_commit
from instep.history.edits import Edit, moved_keys
from instep.history.locks import writing
from instep.history.repository import MAIN, Repository
from instep.ingest.attempts import ATTEMPTS
from instep.ingest.base import nearest_profile
from instep.ingest.batch import Reading, appended, read_batch, table_at
from instep.ingest.kept import read_as, reading_again, without_contract
from instep.ingest.records import Arrival, arrival_of_change, update_arrival
from instep.ingest.upkeep import look_after

_AGREED = ("file", "contract", "mapping", "reads")
"""What of the evidence must be the same for a reading to be the same, besides the counts, and the
findings that are more than notes."""


def merge_arrival(repo: Repository, number: int, actor: str) -> Merged:
    """Merges an open arrival, on top of what main is now.

    Raises:
        RefusedError (kind "not-mergeable"): policy says no, perhaps since it was read again.
        RefusedError (kind "still-held"): its contract is gone.
        ConflictError (kind "keys-moved"): main moved on at every attempt.
    """
    merged = _merge(repo, number, actor)
    with repo.store.reading() as tx:
        table = arrival_of_change(tx, number).table
    return replace(merged, upkeep=look_after(repo, table))


def judge_again(repo: Repository, number: int) -> None:
    """Reads a held arrival again where its table, contract or names moved; it stays held.

    Afterwards its commit is on the newest main, and its evidence tells what still stops it.

    Raises:
        InvalidError: the file cannot be read by the contract of now.
    """
    with writing(repo.root, repo.store):
        with repo.store.reading() as tx:
            change = load_change(tx, number)
            if change.state is not State.HELD:
                return
            arrival = arrival_of_change(tx, number)
            changes = gate.changed_contents(tx, repo, change)
        base = repo.resolve(MAIN)
        reading = reading_again(repo, base, arrival)
        if reading is None:
            return
        edit = Edit(change.base, changes, change.author, change.title, arrival.id)
        edit = replace(edit, reads=frozenset((reading.key, reading.in_force.key)))
        with repo.store.reading() as tx:
            moved = moved_keys(tx, repo, edit, load_commit(tx, base))
        edit = replace(edit, base=base, reads=frozenset())
        shows_all = bool(changes) or arrival.profile is None
        if _is_same_reading(change, reading) and not moved and shows_all:
            if base != change.base:
                _amend(repo, change, edit, change.evidence)
            return
        folder = repo.here / "staging" / arrival.id
        base_of = partial(nearest_profile, repo, reading.contract)
        outcome = read_batch(repo, base, reading, base_of, folder)
        edit = replace(edit, changes=outcome.changes, message=outcome.title)
        held_for = outcome.stops[0].kind if outcome.stops else ""
        read = replace(read_as(arrival, outcome), held_for=held_for)
        _amend(repo, change, edit, outcome.evidence(), read, held_for)


def _merge(repo: Repository, number: int, actor: str) -> Merged:
    for attempt in range(ATTEMPTS):
        try:
            with writing(repo.root, repo.store):
                _bring_up_to_date(repo, number)
                with repo.store.transaction() as tx:
                    return gate.merge(tx, repo, number, actor)
        except ConflictError as error:
            if error.kind != "keys-moved" or attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _bring_up_to_date(repo: Repository, number: int) -> None:
    """Puts an open arrival on the newest main, if what it changes or relies on moved there."""
    with repo.store.reading() as tx:
        change = load_change(tx, number)
        arrival = arrival_of_change(tx, number)
        base = repo.resolve(MAIN)
        changes = gate.changed_contents(tx, repo, change)
        edit = Edit(change.base, changes, change.author, change.title, arrival.id)
        edit = replace(edit, reads=gate.evidence_reads(change))
        if change.state is not State.OPEN or not moved_keys(tx, repo, edit, load_commit(tx, base)):
            return
    reading = reading_again(repo, base, arrival)
    if reading is None:
        raise without_contract(arrival)
    is_same = _is_same_reading(change, reading)
    edit = replace(edit, base=base, reads=frozenset())
    content = _appended(repo, change, reading, base) if is_same else None
    if content is not None:
        _amend(repo, change, replace(edit, changes={reading.key: content}), change.evidence)
        return
    was = change.evidence.get("compared")

    def base_of(first: str | None) -> str | None:
        if is_same:
            return str(was) if was else None
        return nearest_profile(repo, reading.contract, first)

    outcome = read_batch(repo, base, reading, base_of, repo.here / "staging" / arrival.id)
    edit = replace(edit, changes=outcome.changes, message=outcome.title)
    read = read_as(arrival, outcome)
    fresh = outcome.evidence()
    if _agreed(fresh) == _agreed(change.evidence):
        _amend(repo, change, edit, change.evidence, read)
    else:
        held_for = outcome.stops[0].kind if outcome.stops else ""
        _amend(repo, change, edit, fresh, read, held_for)


def _is_same_reading(change: Change, reading: Reading) -> bool:
    known = change.evidence
    return (known.get("contract"), known.get("mapping")) == (
        reading.in_force.digest,
        dict(reading.mapping),
    )


def _appended(repo: Repository, change: Change, reading: Reading, base: str) -> JsonObject | None:
    """Returns the table on `base` with the files that the change added, if that can be."""
    table = reading.contract.table
    before, arrived = table_at(repo, change.base, table), table_at(repo, change.head, table)
    if before is None or arrived is None:
        return None
    now = table_at(repo, base, table)
    content = appended(repo, reading.contract, before, arrived, now)
    return content.to_content() if content else None


def _agreed(evidence: Mapping[str, Json]) -> list[Json]:
    keys = evidence.get("keys")
    listed = keys if isinstance(keys, list) else []
    facts: list[Json] = [one.get("facts") for one in listed if isinstance(one, dict)]
    findings = evidence.get("findings")
    told = findings if isinstance(findings, list) else []
    binding: list[Json] = [
        one for one in told if isinstance(one, dict) and one.get("severity") != "note"
    ]
    return [facts, binding, *(evidence.get(name) for name in _AGREED)]


def _amend(
    repo: Repository,
    change: Change,
    edit: Edit,
    evidence: Mapping[str, Json],
    read: Arrival | None = None,
    held_for: str = "",
) -> None:
    """Gives the change its newest content, unless somebody else did or decided meanwhile."""
    reached("merge.amend.before")
    with repo.store.transaction() as tx:
        now = load_change(tx, change.number)
        if (now.state, now.head, now.base) != (change.state, change.head, change.base):
            return
        gate.amend(tx, repo, change.number, edit, evidence)
        if read is not None:
            update_arrival(tx, replace(read, held_for=held_for or read.held_for))
        if held_for:
            gate.hold(tx, change.number)
    reached("merge.amend.after")
