"""A run's sign of life, for as long as it is under way, and the record of how one failed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from instep.canonical import JsonObject
from instep.errors import InstepError, UnavailableError
from instep.history.repository import Repository
from instep.pipelines import messages
from instep.pipelines.records import Run, RunState, extend_lease, finish_run

LEASE = timedelta(seconds=60)
"""A run that gave no sign of life for so long may no longer publish."""

LONGEST_RUN_S = 48 * 3600
"""A run is not kept alive beyond it."""

_HEARTBEAT_S = 10.0


def record_failure(repo: Repository, run: Run, error: BaseException) -> None:
    """Writes down how a run failed; what was staged stays readable under the run's id."""
    if isinstance(error, InstepError):
        body: JsonObject = messages.error_json(error)
    else:
        body = {"family": "internal", "kind": "interrupted", "message": repr(error), "facts": {}}
    failed = replace(run, state=RunState.FAILED, ended_at=repo.clock(), error=body)
    with contextlib.suppress(InstepError), repo.store.transaction(run.id) as tx:
        finish_run(tx, failed)


@contextlib.contextmanager
def kept_alive(repo: Repository, run: str) -> Iterator[None]:
    """Keeps the lease of a run while it holds, for at most the longest run there may be."""
    stop = threading.Event()

    def beat() -> None:
        for _ in range(round(LONGEST_RUN_S / _HEARTBEAT_S)):
            if stop.wait(_HEARTBEAT_S):
                break
            with contextlib.suppress(UnavailableError), repo.store.transaction(run) as tx:
                if not extend_lease(tx, run, repo.clock() + LEASE):
                    break
        repo.store.close()

    thread = threading.Thread(target=beat, name=f"lease {run}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(LEASE.total_seconds())
