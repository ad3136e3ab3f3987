"""Reads a batch for main as it is, and again for as long as main moves under it.

Every attempt looks up anew what holds on its base: a batch is merged under the contract, and by
the names, that it was checked by.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from instep.errors import ConflictError
from instep.history.repository import MAIN, Repository
from instep.ingest.arrived import Arrived
from instep.ingest.base import nearest_profile
from instep.ingest.batch import Outcome, Reading, read_batch, rebased

ATTEMPTS = 20
"""How often a batch is put on a newer main before the conflict is given back."""


def on_newest_main(
    repo: Repository,
    identifier: str,
    prepare: Callable[[str], Reading | None],
    record: Callable[[Outcome], Arrived],
    moved: Callable[[], None] = lambda: None,
) -> Arrived | None:
    """Returns what `record` made of the batch, or None when `prepare` finds no contract for it.

    `prepare` tells by what the file is read on top of a commit. `record` is one transaction.

    Raises:
        ConflictError (kind "keys-moved"): main moved on at every attempt.
    """
    outcome: Outcome | None = None
    for attempt in range(ATTEMPTS):
        base = repo.resolve(MAIN)
        reading = prepare(base)
        if reading is None:
            return None
        outcome = rebased(repo, outcome, reading, base) if outcome else None
        if outcome is None:
            folder = repo.here / "staging" / identifier
            base_of = partial(nearest_profile, repo, reading.contract)
            outcome = read_batch(repo, base, reading, base_of, folder)
        try:
            return record(outcome)
        except ConflictError as error:
            if error.kind != "keys-moved" or attempt == ATTEMPTS - 1:
                raise
        moved()
    raise AssertionError("the last attempt returns or raises")
