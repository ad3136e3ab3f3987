"""A process that commits one key at a time to a ref of a lake, and says how long it waited.

It takes its errand as JSON on standard input, says `ready`, waits for a file to appear, and prints
what it did as JSON: when it began and ended (monotonic clock of the machine) and its worst wait.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.processes import environment

if TYPE_CHECKING:
    from instep.history.repository import Repository

POLL_S = 0.005
BEGIN_WAIT_S = 60


@dataclass(frozen=True, slots=True)
class Errand:
    """`number` sets this writer's keys apart from those of others."""

    root: str
    url: str | None
    schema: str
    ref: str
    commits: int
    number: int
    begin: str | None


def begin_writer(
    repo: Repository,
    ref: str,
    commits: int,
    number: int = 0,
    begin: Path | None = None,
    before: Sequence[str] = (),
) -> subprocess.Popen[str]:
    """Starts a writer; with `begin`, it waits for that file. `before` is put before its command."""
    database = getattr(repo.store, "database", None)
    errand = Errand(
        str(repo.root),
        database.url if database else None,
        database.schema if database else "",
        ref,
        commits,
        number,
        str(begin) if begin else None,
    )
    child = subprocess.Popen(
        [*before, sys.executable, "-m", "bench.writer"],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    child.stdin.write(json.dumps(asdict(errand)) + "\n")
    child.stdin.flush()
    return child


def commit(repo: Repository, ref: str, changes: Mapping[str, Mapping[str, str]]) -> str:
    """Commits changes to the ref as it is now; returns the commit's id."""
    from instep.history.edits import Edit, publish_at
    from instep.history.tips import get_tip

    with repo.store.transaction(ref) as tx:
        tip = get_tip(tx, ref)
        return publish_at(tx, repo, tip, Edit(tip.commit.id, changes, "bench", "m", "bench")).id


def main() -> None:
    from instep.clock import system_clock
    from instep.history.repository import open_repository
    from instep.history.store import Database

    errand = Errand(**json.loads(sys.stdin.readline()))
    database = Database(errand.url, errand.schema) if errand.url else None
    repo = open_repository(Path(errand.root), system_clock, database)
    print("ready", flush=True)
    deadline = time.monotonic() + BEGIN_WAIT_S
    while errand.begin and not Path(errand.begin).exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"Nobody said begin for {BEGIN_WAIT_S} seconds.")
        time.sleep(POLL_S)
    began = time.monotonic()
    worst = 0.0
    for number in range(errand.commits):
        start = time.monotonic()
        commit(repo, errand.ref, {f"table/w{errand.number}-{number}": {"n": "1"}})
        worst = max(worst, time.monotonic() - start)
    ended = time.monotonic()
    repo.store.close()
    print(json.dumps({"began": began, "ended": ended, "worst_s": worst}))


if __name__ == "__main__":
    main()
