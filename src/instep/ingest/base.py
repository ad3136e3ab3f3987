"""With which accepted batch is an arriving one compared?

With that of the nearest earlier period, by the first event time of both, or the nearest later one
where it is the earliest; with the one that arrived last where there is no event time. When a batch
was accepted does not matter: an old file that was held for a while is no base of newer ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from instep.contracts.terms import Contract
from instep.history.repository import Repository
from instep.ingest.records import accepted_profiles, load_profile

if TYPE_CHECKING:
    from instep.tables.profile import ColumnProfile

LOOKED_AT = 200
"""How many of the last arrivals of a table may be looked at."""

COMPARED = 13
"""Of how many arrivals the columns say how far they usually move: a year of months."""

PATIENCE = 8
"""After so many in a row, newest first, that are no nearer, the nearest counts as found."""


def nearest_profile(repo: Repository, contract: Contract, first: str | None) -> str | None:
    """Returns where the profile of the base is kept of a batch that begins at `first`, or None."""
    with repo.store.reading() as tx:
        digests = accepted_profiles(tx, contract.table, LOOKED_AT)
    if contract.event_time is None or first is None:
        return next(iter(digests), None)
    starts = partial(_start_of, repo, contract.event_time)
    return nearest(((digest, starts(digest)) for digest in digests), first)


def earlier_profiles(repo: Repository, table: str) -> list[tuple[ColumnProfile, ...]]:
    """Returns the profiles of the last arrivals that were accepted, the latest first."""
    with repo.store.reading() as tx:
        digests = accepted_profiles(tx, table, COMPARED)
    return [load_profile(repo.objects, digest) for digest in digests]


def nearest(batches: Iterable[tuple[str, str | None]], first: str) -> str | None:
    """Returns the batch of those with their first event times, newest first, to compare with.

    Times are DuckDB's text of one type, which has their order. No more batches are asked for than
    it takes.
    """
    found: tuple[str, str] | None = None
    idle = 0
    for digest, start in batches:
        if start is not None and (found is None or _is_nearer(start, found[1], first)):
            found, idle = (digest, start), 0
            continue
        idle += 1
        if found is not None and idle == PATIENCE:
            break
    return found[0] if found else None


def _is_nearer(start: str, than: str, first: str) -> bool:
    if start <= first:
        return start > than or than > first
    return first < start < than


def _start_of(repo: Repository, column: str, digest: str) -> str | None:
    profiles = load_profile(repo.objects, digest)
    return next((one.minimum for one in profiles if one.name == column), None)
