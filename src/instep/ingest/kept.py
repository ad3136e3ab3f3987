"""By what is the kept file of an arrival read again, and what is then known of it?"""

from __future__ import annotations

from dataclasses import replace

from instep.errors import RefusedError
from instep.history.repository import Repository
from instep.ingest.batch import Delivery, Outcome, Reading
from instep.ingest.files import sniffed_source
from instep.ingest.in_force import contract_of
from instep.ingest.records import Arrival, mappings_of


def reading_again(repo: Repository, base: str, arrival: Arrival) -> Reading | None:
    """Returns by what a kept file is read on top of `base`; None without a contract there."""
    in_force = contract_of(repo, base, arrival.table)
    if in_force is None:
        return None
    sources = in_force.contract.sources
    own = [one for one in sources if one.pattern == arrival.source]
    source = next(iter([*own, *sources]), None) or sniffed_source(
        repo.objects.existing(arrival.file_digest), arrival.file_name
    )
    with repo.store.reading() as tx:
        mapping = mappings_of(tx, arrival.table, arrival.source)
    delivery = Delivery(arrival.file_name, arrival.file_digest, arrival.file_size_bytes, source)
    return Reading(in_force, delivery, mapping)


def read_as(arrival: Arrival, outcome: Outcome) -> Arrival:
    """Returns what is known of an arrival whose file was read again."""
    seen, reading = outcome.examined, outcome.reading
    return replace(
        arrival,
        contract=reading.in_force.digest,
        source=reading.delivery.source.pattern,
        rows=seen.rows,
        quarantined=seen.quarantined,
        profile=outcome.profile,
        quarantine=outcome.quarantine,
    )


def without_contract(arrival: Arrival) -> RefusedError:
    """Returns why an arrival cannot be let in whose table main has no contract of."""
    return RefusedError(
        f'Table "{arrival.table}" has no contract in the lake: expected one before its data. '
        f"Write contracts/{arrival.table}.yaml, or ingest {arrival.file_name} again for a draft; "
        f'then "instep accept {arrival.change}".',
        kind="still-held",
        change=arrival.change,
    )
