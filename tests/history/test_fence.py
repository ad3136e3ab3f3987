"""The fence of a lake on S3: what a collection may delete while writers are on other machines."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import garbage
import psycopg
import pytest
from buckets import Bucket, make_bucket
from garbage import gc, needs, numbers_in, on_disk
from histories import STEPS_OF_MACHINES, Compaction, History, Steps
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instep import faults
from instep.cli.erase_rows import erased_rows
from instep.cli.wholeness import check
from instep.errors import ConflictError, InstepError, UnavailableError
from instep.history.collection import Collected
from instep.history.locks import collecting, oldest_writer, writing
from instep.history.places import here
from instep.history.postgres import PostgresStore
from instep.history.repository import Repository, create_repository, open_repository
from instep.history.retention import Verdict
from instep.history.store import Database
from instep.tables.read import data_files

Machine = Callable[[str], Repository]

WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[6])
import garbage
from instep.clock import system_clock
from instep.history.locks import writing
from instep.history.places import s3_root
from instep.history.repository import open_repository
from instep.history.store import Database
from instep.tables.read import data_files
address, folder, url, database, schema = sys.argv[1:6]
root = s3_root(address, Path(folder), url, None)
repo = open_repository(root, system_clock, Database(database, schema))
with writing(repo.root, repo.store):
    table = garbage.grown(repo, garbage.new_table(repo), "under way")
    blob = garbage.contract(repo, "twice")
    print("at work", flush=True)
    sys.stdin.readline()
    garbage.commit(repo, "main", table__t=table.to_content(), contract__t=blob)
"""


@pytest.fixture
def lake(bucket: Bucket, postgres_url: str) -> Database:
    return Database(postgres_url, f"fence_{bucket.name.replace('-', '_')}")


@pytest.fixture
def machine(bucket: Bucket, lake: Database, tmp_path: Path) -> Machine:
    """Gives the lake as one more machine has it: with a folder and a session of its own."""
    return _machines(bucket, lake, tmp_path)


def _machines(bucket: Bucket, lake: Database, folder: Path) -> Machine:
    instants = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=n) for n in count())
    made: dict[str, Repository] = {}

    def one(name: str) -> Repository:
        root = bucket.root(folder / name)
        if not made:
            made[name] = create_repository(root, lambda: next(instants), "ana", lake)
        elif name not in made:
            made[name] = open_repository(root, lambda: next(instants), lake)
        return made[name]

    return one


@contextmanager
def _writer(bucket: Bucket, lake: Database, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process on another machine that has written what it will commit when it is told to."""
    support = str(Path(garbage.__file__).parent)
    words = [bucket.address, str(folder), bucket.url, lake.url, lake.schema, support]
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "at work\n"
        yield child
        if child.poll() is None:
            child.communicate("publish\n")


def _cut(repo: Repository) -> None:
    """Ends the session of a machine, as a server that is restarted does."""
    store = repo.store
    assert isinstance(store, PostgresStore)
    number = store.ask("select pg_backend_pid()")[0]
    with psycopg.connect(store.database.url, autocommit=True) as other:
        other.execute("select pg_terminate_backend(%s, 10000)", (number,))


def test_a_writer_on_another_machine_keeps_what_it_wrote_and_found(
    machine: Machine, bucket: Bucket, lake: Database, tmp_path: Path
) -> None:
    repo = machine("one")
    repo.objects.put(b"twice")
    gc(repo)
    with _writer(bucket, lake, tmp_path / "two") as child:
        for _ in range(3):
            found = gc(repo)
        assert found.count(Verdict.NEEDED) > 0
        child.communicate("publish\n")
    assert child.returncode == 0
    for _ in range(3):
        gc(repo)
    assert on_disk(repo) == needs(repo).paths
    (kept,) = repo.objects.files(str(repo.content(repo.resolve("main"), "contract/t")["blob"]))
    assert kept.read_bytes() == b"twice"


def test_a_writer_that_is_killed_holds_nothing_up(
    machine: Machine, bucket: Bucket, lake: Database, tmp_path: Path
) -> None:
    repo = machine("one")
    with _writer(bucket, lake, tmp_path / "two") as child:
        gc(repo)
        assert gc(repo).count(Verdict.NEEDED) > 0
        child.kill()
    for _ in range(100_000):
        if oldest_writer(repo.root, repo.store) is None:
            break
    gc(repo)
    assert on_disk(repo) == frozenset()


def test_a_writer_that_lost_its_session_goes_on_if_nothing_was_condemned(machine: Machine) -> None:
    repo = machine("one")
    with writing(repo.root, repo.store):
        blob = garbage.contract(repo, "terms")
        _cut(repo)
        garbage.commit(repo, "main", contract__t=blob)
        assert oldest_writer(repo.root, machine("two").store) == 0, "it is registered again"
    assert oldest_writer(repo.root, machine("two").store) is None
    needs(repo)


def test_a_writer_that_was_taken_for_dead_publishes_nothing_and_may_try_again(
    machine: Machine,
) -> None:
    repo, other = machine("one"), machine("two")
    main = repo.resolve("main")
    with pytest.raises(ConflictError) as caught, writing(repo.root, repo.store):
        table = garbage.grown(repo, garbage.new_table(repo), "under way").to_content()
        _cut(repo)
        gc(other)
        assert gc(other).count(Verdict.DELETE) > 0
        garbage.commit(repo, "main", table__t=table)
    assert caught.value.kind == "session-lost"
    assert "Nothing was published" in caught.value.message
    assert other.resolve("main") == repo.resolve("main") == main
    with writing(repo.root, repo.store):
        table = garbage.grown(repo, garbage.new_table(repo), "again").to_content()
        garbage.commit(repo, "main", table__t=table)
    gc(other)
    gc(other)
    assert on_disk(repo) == needs(repo).paths


def test_a_machine_goes_on_where_its_session_ended_and_it_held_nothing(machine: Machine) -> None:
    repo = machine("one")
    for act in (
        lambda: repo.resolve("main"),
        lambda: oldest_writer(repo.root, repo.store),
        lambda: _wrote(repo),
        lambda: gc(repo),
    ):
        _cut(repo)
        act()
    needs(repo)


def _wrote(repo: Repository) -> None:
    with writing(repo.root, repo.store):
        garbage.commit(repo, "main", contract__t=garbage.contract(repo, "terms"))


def test_a_compaction_whose_session_ended_and_whose_files_went_stands_for_nothing(
    machine: Machine,
) -> None:
    repo, other = machine("one"), machine("two")
    table = garbage.grown(repo, garbage.grown(repo, garbage.new_table(repo), [1]), [2])
    garbage.commit(repo, "main", table__t=table.to_content())
    with pytest.raises(ConflictError) as caught, Compaction(repo, table) as late:
        _cut(repo)
        gc(other)
        assert gc(other).count(Verdict.DELETE) > 0
        late.swap()
    assert caught.value.kind == "session-lost"
    assert garbage.numbers(other, table) == [1, 2]
    check(other)
    with Compaction(repo, table) as again:
        again.swap()
    assert garbage.numbers(other, table) == [1, 2]
    assert len(data_files(other.root, table)) == 1
    gc(other)
    gc(other)
    assert on_disk(repo) == needs(repo).paths


def test_a_compaction_whose_session_ended_does_not_bring_erased_rows_back(
    machine: Machine,
) -> None:
    repo, other = machine("one"), machine("two")
    table = garbage.grown(repo, garbage.grown(repo, garbage.new_table(repo), [1]), [2])
    garbage.commit(repo, "main", table__t=table.to_content())
    with pytest.raises(ConflictError) as caught, Compaction(repo, table) as late:
        _cut(repo)
        erased_rows(other, "t", "id = 1", "Asked for.", "ben", False)
        late.swap()
    assert caught.value.kind == "session-lost"
    assert garbage.numbers(repo, table) == [2]
    assert numbers_in((repo.root / "tables").rglob("*.parquet")) == [2]
    check(repo)


def test_one_machine_collects_at_a_time(machine: Machine) -> None:
    repo, other = machine("one"), machine("two")
    with collecting(repo.root, repo.store), pytest.raises(UnavailableError) as caught:
        gc(other)
    assert caught.value.kind == "collecting"
    gc(other)


def test_a_collection_that_lost_its_session_stops(machine: Machine) -> None:
    repo = machine("one")
    repo.objects.put(b"lost")
    with pytest.raises(ConflictError) as caught, _at("gc.snapshot.before", lambda: _cut(repo)):
        gc(repo)
    assert caught.value.kind == "session-lost"
    assert gc(repo).count(Verdict.CONDEMN) == 1


def test_a_deletion_that_comes_late_meets_no_bytes_that_are_wanted_again(machine: Machine) -> None:
    """The collector is suspended before its request; its session ends, and life goes on."""
    repo, other, third = machine("one"), machine("two"), machine("three")
    with writing(repo.root, repo.store):
        digest = repo.objects.put(b"twice")
    gc(repo)

    def meanwhile() -> None:
        gc(third)
        with writing(other.root, other.store):
            garbage.commit(other, "main", contract__t=garbage.contract(other, "twice"))

    def suspended() -> None:
        _cut(repo)
        thread = threading.Thread(target=meanwhile)
        thread.start()
        thread.join()

    with pytest.raises(InstepError), _at("gc.remove.before", suspended):
        gc(repo)
    for one in (repo, other, third):
        gc(one)
        needs(one)
    (left,) = other.objects.files(digest)
    assert left.read_bytes() == b"twice"


def test_two_machines_that_store_the_same_bytes_keep_one_copy_of_those_they_find(
    machine: Machine,
) -> None:
    repo, other = machine("one"), machine("two")
    digest = repo.objects.put(b"terms")
    assert other.objects.put(b"terms") == digest
    assert len(repo.objects.files(digest)) == 1
    gc(repo)
    assert other.objects.put(b"terms") == digest
    assert len(repo.objects.files(digest)) == 2, "one is condemned: it counts as not there"
    assert gc(repo).count(Verdict.DELETE) == 1


def test_what_went_from_the_store_goes_from_every_machine_that_collects(machine: Machine) -> None:
    repo, other = machine("one"), machine("two")
    table = garbage.grown(repo, garbage.new_table(repo), "left")
    path = repo.root / table.metadata
    for one in (repo, other):
        one.objects.get(one.objects.put(b"lost"))
    assert here(path).exists()
    gc(other)
    gc(other)
    assert not path.exists()
    assert here(path).exists()
    gc(repo)
    left = [one for one in (repo.here).rglob("*") if one.is_file() and one.name != "machine.id"]
    assert [one for one in left if "cache" not in one.parts] == []


def test_staging_is_each_machines_own(machine: Machine) -> None:
    repo, other = machine("one"), machine("two")
    for one in (repo, other):
        (one.here / "staging" / "run_1").mkdir(parents=True)
    gc(repo)
    gc(other)
    assert (repo.here / "staging" / "run_1").exists()
    gc(repo)
    assert not (repo.here / "staging" / "run_1").exists()
    assert (other.here / "staging" / "run_1").exists()


@contextmanager
def _at(place: str, act: Callable[[], object]) -> Iterator[None]:
    """Acts when this thread first reaches a place, before it goes on; others are not watched."""
    thread = threading.get_ident()

    def watcher(reached: str) -> None:
        if reached == place and threading.get_ident() == thread:
            faults.watch(None)
            act()

    faults.watch(watcher)
    try:
        yield
    finally:
        faults.watch(None)


CUT = st.lists(st.sampled_from([0, 0, 0, 1]), max_size=40)
"""Before which steps the machine that takes it loses its session."""

_QUICK = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@settings(max_examples=5, suppress_health_check=_QUICK)
@given(STEPS_OF_MACHINES, CUT)
def test_no_history_on_several_machines_loses_what_it_needs(
    s3_url: str, postgres_url: str, tmp_path_factory: pytest.TempPathFactory,
    steps: Steps, cuts: list[int],
) -> None:  # fmt: skip
    _live_through(s3_url, postgres_url, tmp_path_factory.mktemp("machines"), steps, cuts)


@pytest.mark.long
@settings(max_examples=40, suppress_health_check=_QUICK)
@given(STEPS_OF_MACHINES, CUT)
def test_no_long_history_on_several_machines_loses_what_it_needs(
    s3_url: str, postgres_url: str, tmp_path_factory: pytest.TempPathFactory,
    steps: Steps, cuts: list[int],
) -> None:  # fmt: skip
    _live_through(s3_url, postgres_url, tmp_path_factory.mktemp("machines"), steps, cuts)


def _live_through(
    s3_url: str, postgres_url: str, folder: Path, steps: Steps, cuts: list[int]
) -> None:
    """Three machines take turns; nothing needed is lost, and only what is needed stays at last."""
    bucket = make_bucket(s3_url)
    machine = _machines(bucket, Database(postgres_url, bucket.name.replace("-", "_")), folder)
    with ExitStack() as at_last:
        machines = [machine(name) for name in ("one", "two", "three")]
        for each in machines:
            at_last.callback(each.store.close)
        history = History(machines[0])
        for number, (step, one, other) in enumerate(steps):
            history.repo = machines[(one + other) % len(machines)]
            try:
                if number < len(cuts) and cuts[number]:
                    _cut(history.repo)
                if step == "vanish":
                    _vanish(history, machines, one)
                history.take(step, one, other)
            except ConflictError as error:
                assert error.kind == "session-lost"
                history.close_on(history.repo)
            if step in {"gc", "swap", "die", "erase"}:
                _look(history, machines[number % len(machines)])
        history.end(machines[0])
        history.check(machines[2])
        kept = (machines[0].root / "tables").rglob("*.parquet")
        assert history.erased.isdisjoint(numbers_in(kept)), "not in the store, whoever named it"
        _end(machines)
        assert on_disk(machines[0]) == needs(machines[1]).paths


def _look(history: History, machine: Repository) -> None:
    """Reads all that is needed; a machine whose session ended is told so once, and begins anew."""
    try:
        needs(machine)
    except ConflictError as error:
        assert error.kind == "session-lost"
        history.close_on(machine)
        needs(machine)


def _vanish(history: History, machines: list[Repository], number: int) -> None:
    """Ends the session of a machine that writes; another deletes what it takes for garbage."""
    writer = history.writer(number)
    if writer is not None:
        _cut(writer)
        history.repo = machines[(machines.index(writer) + 1) % len(machines)]
        for _ in range(2):
            gc(history.repo)


def _end(machines: list[Repository]) -> None:
    told: Collected | None = None
    for _ in range(4):
        for one in machines:
            told = gc(one)
    assert told is not None
    assert told.lines == ()
