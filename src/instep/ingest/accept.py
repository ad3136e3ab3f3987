"""Decides about a held arrival: let it in, perhaps under other names, or turn it away.

Accepting is an approval, so it is never by whoever ingested, unless they are the only person. The
kept file is read again, with the mapping, against the contract that main has now; what then still
stops needs a reason, and a missing column cannot be talked away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from instep.canonical import Json
from instep.changes import gate
from instep.changes.records import Change, State, load_change
from instep.contracts.terms import Contract
from instep.errors import InvalidError, RefusedError
from instep.faults import reached
from instep.findings import Finding
from instep.history.edits import Edit
from instep.history.locks import writing
from instep.history.repository import MAIN, Repository
from instep.ingest.arrive import merge_if_allowed
from instep.ingest.arrived import Arrived, findings_of
from instep.ingest.attempts import on_newest_main
from instep.ingest.base import nearest_profile
from instep.ingest.batch import Outcome, Reading, read_batch
from instep.ingest.effect import EMPTY
from instep.ingest.in_force import contract_of
from instep.ingest.kept import read_as, reading_again, without_contract
from instep.ingest.records import (
    Arrival,
    arrival_of_change,
    insert_mappings,
    update_arrival,
)
from instep.ingest.upkeep import look_after

_FINAL = ("missing-column", "renamed-column", "no-contract")
"""What a reason does not mend."""


def accept(
    repo: Repository,
    number: int,
    actor: str,
    *,
    rename: Mapping[str, str] | None = None,
    why: str = "",
) -> Arrived:
    """Lets a held arrival in, and returns what became of it.

    `rename` maps the file's names to the table's; empty, it means the renames that were recognised;
    None means none. The mapping is kept with the source, for later files.

    Raises:
        RefusedError (kinds "own-arrival", "not-held", "still-held", "empty-result").
        InvalidError (kinds "no-rename", "bad-rename", "needs-reason").
        NotFoundError (kind "erased"): the kept file was erased.
    """
    with writing(repo.root, repo.store):
        arrived = _accept(repo, number, actor, rename, why)
    if arrived.commit is None:
        return arrived
    return replace(arrived, upkeep=look_after(repo, arrived.arrival.table))


def _accept(
    repo: Repository, number: int, actor: str, rename: Mapping[str, str] | None, why: str
) -> Arrived:
    with repo.store.reading() as tx:
        change = load_change(tx, number)
        arrival = arrival_of_change(tx, number)
    if change.state is State.HELD and contract_of(repo, repo.resolve(MAIN), arrival.table) is None:
        raise without_contract(arrival)
    _check_may_accept(repo, change, actor)
    pairs: dict[str, str] = {}

    def prepare(base: str) -> Reading | None:
        return _reading(repo, base, change, arrival, rename, pairs)

    def record(outcome: Outcome) -> Arrived:
        _check_stops(arrival, outcome.stops, why)
        return _record(repo, change, arrival, outcome, pairs, actor, why)

    arrived = on_newest_main(repo, arrival.id, prepare, record)
    if arrived is None:
        raise without_contract(arrival)
    return arrived


def preview(repo: Repository, number: int, rename: Mapping[str, str] | None = None) -> Outcome:
    """Returns what accepting would bring to main as it is now; nothing is recorded.

    Raises: as `accept`, but for who accepts and for what still stops.
    """
    with writing(repo.root, repo.store):
        with repo.store.reading() as tx:
            change = load_change(tx, number)
            arrival = arrival_of_change(tx, number)
        _check_held(change)
        base = repo.resolve(MAIN)
        reading = _reading(repo, base, change, arrival, rename, {})
        if reading is None:
            raise without_contract(arrival)
        base_of = partial(nearest_profile, repo, reading.contract)
        return read_batch(repo, base, reading, base_of, repo.here / "staging" / arrival.id)


def _reading(
    repo: Repository,
    base: str,
    change: Change,
    arrival: Arrival,
    rename: Mapping[str, str] | None,
    pairs: dict[str, str],
) -> Reading | None:
    """Returns by what the kept file is read on top of `base`; adds what is renamed to `pairs`."""
    reading = reading_again(repo, base, arrival)
    if reading is None:
        return None
    pairs.update(_pairs(change, reading.contract, rename))
    return replace(reading, mapping={**reading.mapping, **pairs})


def refuse(repo: Repository, number: int, actor: str, why: str) -> Arrived:
    """Turns a held arrival away, with a reason; its file is kept.

    Raises:
        RefusedError (kinds "not-held", "change-ended").
    """
    reached("refuse.record.before")
    with repo.store.transaction() as tx:
        arrival = arrival_of_change(tx, number)
        change = gate.reject(tx, repo, number, actor, why)
    reached("refuse.record.after")
    return Arrived(arrival, change.state, findings_of(change))


def _record(
    repo: Repository,
    change: Change,
    arrival: Arrival,
    outcome: Outcome,
    pairs: Mapping[str, str],
    actor: str,
    why: str,
) -> Arrived:
    told = [f'"{new}" is "{old}" under another name.' for new, old in pairs.items()]
    told += [f"{actor} accepted in spite of: {stop.message}" for stop in outcome.stops]
    evidence: dict[str, Json] = {
        **outcome.evidence(told),
        "held": [finding.to_json() for finding in findings_of(change)],
        "renamed": dict(pairs),
        "accepted": {"by": actor, "why": why},
        "held_for": arrival.held_for,
    }
    edit = Edit(outcome.base, outcome.changes, change.author, outcome.title, arrival.id)
    read = read_as(arrival, outcome)
    reached("accept.record.before")
    with repo.store.transaction() as tx:
        _check_may_accept(repo, load_change(tx, change.number), actor)
        gate.amend(tx, repo, change.number, edit, evidence)
        gate.release_hold(tx, change.number)
        if actor != change.author:
            gate.approve(tx, repo, change.number, actor, why)
        insert_mappings(tx, read, pairs, actor, repo.clock())
        update_arrival(tx, read)
        commit = merge_if_allowed(tx, repo, change, actor)
        state = load_change(tx, change.number).state
    reached("accept.record.after")
    seen = outcome.examined
    return Arrived(
        read, state, seen.findings, commit, broken=dict(seen.broken), effect=outcome.effect
    )


def _check_held(change: Change) -> None:
    if change.state is not State.HELD:
        raise RefusedError(
            f"Change {change.number} is {change.state.value}, not held: expected a held arrival. "
            'See "instep changes".',
            kind="not-held",
            change=change.number,
        )


def _check_may_accept(repo: Repository, change: Change, actor: str) -> None:
    _check_held(change)
    if change.author == actor and not gate.is_alone(repo, actor):
        raise RefusedError(
            f"{actor} ingested change {change.number}, and nobody accepts their own arrival: "
            "expected somebody else, since accepting is an approval. Ask another person.",
            kind="own-arrival",
            change=change.number,
            actor=actor,
        )


def _pairs(change: Change, contract: Contract, rename: Mapping[str, str] | None) -> dict[str, str]:
    if rename is None:
        return {}
    recognised = {
        str(finding.evidence["new"]): str(finding.evidence["old"])
        for finding in findings_of(change)
        if finding.kind == "renamed-column"
    }
    pairs = dict(rename) or recognised
    if not pairs:
        raise InvalidError(
            f"No rename was recognised in change {change.number}: expected which column is meant. "
            "Name it: --rename NEW=OLD.",
            kind="no-rename",
            change=change.number,
        )
    known = contract.names
    for new, old in pairs.items():
        if contract.column(old) is None:
            raise InvalidError(
                f'"{old}" is no column of {contract.table}: expected one of '
                f"{', '.join(known)}. Write --rename NEW=OLD.",
                kind="bad-rename",
                new=new,
                old=old,
            )
    return pairs


def _check_stops(arrival: Arrival, stops: Sequence[Finding], why: str) -> None:
    number = arrival.change
    final = [finding for finding in stops if finding.kind in _FINAL]
    if final:
        renamed = any(finding.kind == "renamed-column" for finding in final)
        mend = f'"instep accept {number} --rename"' if renamed else "--rename NEW=OLD"
        raise RefusedError(
            f"Change {number} stays held: {' '.join(finding.message for finding in final)} "
            f"Expected every column of the contract. Use {mend}, or refuse it.",
            kind="still-held",
            change=number,
        )
    empty = next((finding for finding in stops if finding.kind == EMPTY), None)
    if empty is not None:
        raise RefusedError(
            f"Change {number} stays held: {empty.message} No reason lets it in. Refuse it, or "
            f"correct contracts/{arrival.table}.yaml if its rows are right, and merge that first.",
            kind="empty-result",
            change=number,
        )
    if stops and not why:
        raise InvalidError(
            f"Change {number} is accepted in spite of this: "
            f"{' '.join(finding.message for finding in stops)} Expected a reason. "
            f'Add --why REASON, or "instep refuse {number} --why REASON".',
            kind="needs-reason",
            change=number,
        )
