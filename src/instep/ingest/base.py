"""With which accepted batch is an arriving one compared?

With that of the nearest earlier period, by the event time at which the good rows of both start, or
the nearest later one where it is the earliest; with the one that arrived last where there is no
event time. In which order batches came or were accepted does not matter: an old file that was held
for a while, or that fills a gap, is no base of newer ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import TYPE_CHECKING

from instep.contracts.terms import Contract
from instep.history.repository import Repository
from instep.ingest.records import accepted_profiles, accepted_starts, load_profile

if TYPE_CHECKING:
    from instep.tables.profile import ColumnProfile

LOOKED_AT = 200
"""How many of the last arrivals of a table may be looked at."""

COMPARED = 13
"""Of how many arrivals the columns say how far they usually move: a year of months."""


def nearest_profile(repo: Repository, contract: Contract, first: str | None) -> str | None:
    """Returns where the profile of the base is kept of a batch that starts at `first`, or None."""
    column = contract.event_time
    with repo.store.reading() as tx:
        if column is None or first is None:
            return next(iter(accepted_profiles(tx, contract.table, 1)), None)
        accepted = accepted_starts(tx, contract.table, LOOKED_AT)
    return nearest(
        (
            (digest, starts.get(column) or _minimum(repo, column, digest))
            for digest, starts in accepted
        ),
        first,
    )


def earlier_profiles(repo: Repository, table: str) -> list[tuple[ColumnProfile, ...]]:
    """Returns the profiles of the last arrivals that were accepted, the latest first."""
    with repo.store.reading() as tx:
        digests = accepted_profiles(tx, table, COMPARED)
    return [load_profile(repo.objects, digest) for digest in digests]


def nearest(batches: Iterable[tuple[str, str | None]], first: str) -> str | None:
    """Returns the batch to compare with of those with their starts; of equal ones the first.

    Times are DuckDB's text of one type, which has their order.
    """
    known = [(start, batch) for batch, start in batches if start is not None]
    earlier = [one for one in known if one[0] <= first]
    if earlier:
        return max(earlier, key=itemgetter(0))[1]
    return min(known, key=itemgetter(0))[1] if known else None


def _minimum(repo: Repository, column: str, digest: str) -> str | None:
    profiles = load_profile(repo.objects, digest)
    return next((one.minimum for one in profiles if one.name == column), None)
