"""What comes in by a contract: of a draft that is accepted, and of what was held before it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from instep.changes import gate
from instep.changes.propose import propose_project
from instep.changes.records import Change, State, list_changes, load_change
from instep.contracts.terms import MergePolicy
from instep.errors import InstepError, RefusedError
from instep.history.locks import writing
from instep.history.repository import MAIN, Repository
from instep.ingest.arrive import Say, merge_if_it_fits, read_again
from instep.ingest.arrived import Arrived
from instep.ingest.in_force import contract_of
from instep.ingest.records import Arrival, arrival_of_change, held_arrivals, last_accepted
from instep.pipelines.project import KEY as CONFIG
from instep.pipelines.project import lake_config


@dataclass(frozen=True, slots=True)
class AcceptedDraft:
    """A contract that was drafted for a held arrival and is on main now, and what came in by it.

    `settled` has every held arrival of the table by its change: what became of it, or why it cannot
    be read.
    """

    contract: Change
    settled: Mapping[int, Arrived | InstepError]


def has_draft(repo: Repository, project: Path, number: int) -> bool:
    """Says whether a held arrival waits for a contract of which there is only a draft on disk."""
    with repo.store.reading() as tx:
        change, arrival = load_change(tx, number), arrival_of_change(tx, number)
    return (
        change.state is State.HELD
        and (project / "contracts" / f"{arrival.table}.yaml").is_file()
        and repo.find(repo.resolve(MAIN), f"contract/{arrival.table}") is None
    )


def accept_draft(
    repo: Repository, project: Path, number: int, actor: str, why: str, say: Say
) -> AcceptedDraft:
    """Brings the contract that is drafted for a held arrival to main, and then what fits it.

    Raises:
        InvalidError: the draft, or another file of the project, is not right.
        RefusedError (kind "contract-waits"): somebody else has to agree to the contract first.
    """
    with repo.store.reading() as tx:
        arrival = arrival_of_change(tx, number)
    key = f"contract/{arrival.table}"
    only = {key} if lake_config(repo, repo.resolve(MAIN)) else {key, CONFIG}
    open_already = _proposed_otherwise(repo, key, only, actor)
    if open_already is not None:
        agree = f'Agree to it ("instep approve {open_already}"), then merge it.'
        raise _contract_waits(arrival, open_already, agree)
    title = f"The contract of {arrival.table}, as drafted for {arrival.file_name}"
    proposed = propose_project(
        repo, project, actor, f"{title}: {why}" if why else title, say, only
    ).change
    try:
        with repo.store.transaction() as tx:
            merged = gate.merge(tx, repo, proposed.number, actor).change
    except RefusedError as error:
        if error.kind != "not-mergeable":
            raise
        raise _contract_waits(arrival, proposed.number, error.message) from None
    return AcceptedDraft(merged, let_in_what_fits(repo, [arrival.table], actor))


def _proposed_otherwise(repo: Repository, key: str, only: Container[str], actor: str) -> int | None:
    """Returns the open change that brings `key` and is by another, or brings more than `only`."""
    with repo.store.reading() as tx:
        for listed in list_changes(tx, State.OPEN):
            keys = gate.changed_contents(tx, repo, load_change(tx, listed.number))
            is_more = listed.author != actor or any(other not in only for other in keys)
            if key in keys and is_more:
                return listed.number
    return None


def _contract_waits(arrival: Arrival, contract: int, why: str) -> RefusedError:
    return RefusedError(
        f"Change {arrival.change} waits for the contract of {arrival.table}, which change "
        f"{contract} proposes. {why} Once that is merged, {arrival.file_name} comes in by itself "
        "if it fits.",
        kind="contract-waits",
        change=arrival.change,
        contract_change=contract,
    )


def let_in_what_fits(
    repo: Repository, tables: Iterable[str], actor: str
) -> dict[int, Arrived | InstepError]:
    """Judges the held arrivals of tables again, as after a change of their contracts.

    What fits now is merged by `actor`, where policy allows it, unless it would put older rows over
    those of a later arrival: somebody decides about that, and about the rest.

    Returns by change what became of each, or why it cannot even be read.
    """
    found: dict[int, Arrived | InstepError] = {}
    with writing(repo.root, repo.store):
        for table in tables:
            with repo.store.reading() as tx:
                waiting = held_arrivals(tx, table)
            for arrival in waiting:
                try:
                    seen = read_again(repo, arrival) if _is_overtaken(repo, arrival) else None
                    found[arrival.change] = (
                        seen
                        if seen and seen.effect and (seen.effect.changed or seen.effect.gone)
                        else merge_if_it_fits(repo, arrival, actor)
                    )
                except InstepError as error:
                    found[arrival.change] = error
    return found


def _is_overtaken(repo: Repository, arrival: Arrival) -> bool:
    """Says whether a later arrival is in the table, whose rows this one could replace."""
    in_force = contract_of(repo, repo.resolve(MAIN), arrival.table)
    if in_force is None or in_force.contract.merge_policy is MergePolicy.APPEND:
        return False
    with repo.store.reading() as tx:
        last = last_accepted(tx, arrival.table)
    return last is not None and last.change > arrival.change
