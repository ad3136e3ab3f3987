"""What a collection deletes, and what it must never delete."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import garbage
import pytest
from commands import KILLED, run_script
from databases import on_both, on_every
from garbage import AT_ONCE, gc, needs, on_disk
from histories import STEPS, History
from hypothesis import HealthCheck, given, settings

from instep import faults
from instep.canonical import from_microseconds, to_microseconds
from instep.changes.gate import open_change
from instep.changes.records import Kind, State, end_change
from instep.errors import InternalError, NotFoundError, UnavailableError
from instep.history import forgetting
from instep.history.collection import still_there
from instep.history.edits import Edit
from instep.history.forgetting import forgotten_commits
from instep.history.locks import collecting, oldest_writer, writing
from instep.history.log import Filter, entries
from instep.history.refs import RefKind, create_ref, get_ref
from instep.history.repository import Repository, create_repository, open_repository
from instep.history.retention import (
    Condemned,
    Found,
    Policy,
    Verdict,
    decide,
)
from instep.history.store import Database
from instep.history.tokens import TOKEN_DAYS, keep_done

FOUND = Found("objects/aa/aa", "1:2:3", 3)
BEFORE = Condemned("objects/aa/aa", 5, 10, "1:2:3", 3)


@pytest.mark.parametrize(
    ("before", "lived", "keep", "oldest", "verdict"),
    [
        (None, 99, 0, None, Verdict.CONDEMN),
        (Condemned("objects/aa/aa", 5, 10, "1:9:3", 3), 99, 0, None, Verdict.CONDEMN),
        (BEFORE, 40, 30, None, Verdict.WAIT),
        (BEFORE, 41, 30, None, Verdict.DELETE),
        (BEFORE, 41, 30, 4, Verdict.NEEDED),
        (BEFORE, 41, 30, 5, Verdict.DELETE),
        (BEFORE, 41, 30, -1, Verdict.NEEDED),
        (BEFORE, 10, 0, None, Verdict.DELETE),
    ],
)
def test_what_is_done_with_something_unreached(
    before: Condemned | None, lived: int, keep: int, oldest: int | None, verdict: Verdict
) -> None:
    assert decide(FOUND, before, lived=lived, keep_days=keep, oldest=oldest) is verdict


@on_every
def test_what_nothing_names_goes_and_what_is_named_stays(repo: Repository) -> None:
    table = garbage.grown(repo, garbage.new_table(repo), "kept")
    garbage.commit(
        repo, "main", table__t=table.to_content(), contract__t=garbage.contract(repo, "terms")
    )
    left = garbage.grown(repo, table, "never committed")
    lost = repo.objects.put(b"never named")
    first = gc(repo)
    assert first.count(Verdict.CONDEMN) > 1
    assert repo.objects.has(lost)
    second = gc(repo)
    assert second.count(Verdict.DELETE) == first.count(Verdict.CONDEMN)
    assert not repo.objects.has(lost)
    assert not (repo.root / left.metadata).exists()
    assert on_disk(repo) == needs(repo).paths
    third = gc(repo)
    assert third.lines == ()


def test_a_dry_run_tells_the_same_and_changes_nothing(repo: Repository) -> None:
    repo.objects.put(b"never named")
    dry = gc(repo, is_dry=True)
    assert gc(repo, is_dry=True) == dry
    wet = gc(repo)
    assert wet.lines == dry.lines
    assert gc(repo, is_dry=True).count(Verdict.DELETE) == 1
    assert len(on_disk(repo)) == 1


@on_both
def test_a_deleted_branch_is_forgotten_after_its_days_and_its_files_after_more(
    repo: Repository, clock: Any
) -> None:
    garbage.branch(repo, "try")
    content = garbage.contract(repo, "only here")
    made = garbage.commit(repo, "try", contract__t=content)
    garbage.delete_branch(repo, "try")
    gc(repo, Policy())
    garbage.later(repo, clock, 30)
    assert repo.commit(made).id == made
    garbage.later(repo, clock, 1)
    with pytest.raises(NotFoundError, match="was forgotten"):
        repo.commit(made)
    with repo.store.reading() as tx:
        assert forgotten_commits(tx) == {made}
    assert repo.objects.has(content["blob"])
    garbage.later(repo, clock, 31)
    assert repo.objects.has(content["blob"])
    garbage.later(repo, clock, 1)
    assert not repo.objects.has(content["blob"])
    assert repo.resolve("main")


@pytest.mark.parametrize("state", [State.OPEN, State.HELD, State.MERGED, State.REFUSED])
def test_a_change_keeps_its_commits_unless_it_was_refused(repo: Repository, state: State) -> None:
    blob = garbage.contract(repo, "proposed")
    with repo.store.transaction() as tx:
        edit = Edit(get_ref(tx, "main").commit, {"contract/t": blob}, "ana", "terms", "test")
        change = open_change(tx, repo, kind=Kind.PROJECT, title="terms", edit=edit, evidence={})
        if state is not State.OPEN:
            end_change(tx, change.number, state, actor="ben", at=repo.clock(), why="")
    for _ in range(5):
        gc(repo)
    assert repo.objects.has(blob["blob"]) == (state is not State.REFUSED)


@on_every
def test_a_writer_that_began_before_the_condemnation_keeps_what_it_wrote(repo: Repository) -> None:
    with writing(repo.root, repo.store):
        blob = garbage.contract(repo, "under way")
        table = garbage.grown(repo, garbage.new_table(repo), "under way")
        for _ in range(4):
            gc(repo)
        assert gc(repo).count(Verdict.NEEDED) > 0
        garbage.commit(repo, "main", contract__t=blob, table__t=table.to_content())
    gc(repo)
    assert on_disk(repo) == needs(repo).paths


@on_every
def test_a_writer_that_finds_condemned_bytes_makes_them_wanted_again(repo: Repository) -> None:
    repo.objects.put(b"twice")
    gc(repo)
    with writing(repo.root, repo.store):
        blob = garbage.contract(repo, "twice")
        for _ in range(4):
            gc(repo)
        garbage.commit(repo, "main", contract__t=blob)
    assert repo.objects.get(blob["blob"]) == b"twice"


def test_a_dead_writer_holds_nothing_up(repo: Repository) -> None:
    code = (
        "import os, sys; from pathlib import Path; from instep.clock import system_clock\n"
        "from instep.history.repository import open_repository\n"
        "from instep.history.locks import writing\n"
        "repo = open_repository(Path(sys.argv[1]), system_clock)\n"
        "with writing(repo.root, repo.store):\n"
        "    print('at work', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(repo.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert oldest_writer(repo.root, repo.store) == 0
        repo.objects.put(b"left")
        gc(repo)
        assert gc(repo).count(Verdict.NEEDED) == 1
        child.kill()
    assert oldest_writer(repo.root, repo.store) is None
    assert gc(repo).count(Verdict.DELETE) == 1


def test_one_collection_at_a_time(repo: Repository) -> None:
    with collecting(repo.root, repo.store), pytest.raises(UnavailableError) as caught:
        gc(repo)
    assert caught.value.kind == "collecting"


def test_a_clock_that_jumps_a_year_ahead_and_back_deletes_nothing(
    repo: Repository, clock: Any
) -> None:
    lost = repo.objects.put(b"unreached")
    gc(repo, Policy())
    garbage.later(repo, clock, 29)
    for jump in (365, -365, 3650, -3650, 365):
        clock.now += timedelta(days=jump)
        for _ in range(3):
            gc(repo, Policy())
    # Days that were counted once are not counted again, whatever the clock says.
    assert repo.objects.has(lost) == (_lived(repo) <= 31)
    assert _lived(repo) <= 33


def test_one_false_day_never_deletes_before_its_time(repo: Repository, clock: Any) -> None:
    lost = repo.objects.put(b"unreached")
    gc(repo, Policy())
    garbage.later(repo, clock, 29)
    clock.now += timedelta(days=365)
    gc(repo, Policy())
    clock.now -= timedelta(days=365)
    gc(repo, Policy())
    assert repo.objects.has(lost)


def _lived(repo: Repository) -> int:
    with repo.store.reading() as tx:
        row = tx.row("select count(*) from lived_days")
    assert row is not None
    return int(row[0])


def test_a_damaged_table_is_left_alone(repo: Repository) -> None:
    table = garbage.grown(repo, garbage.new_table(repo), "kept")
    garbage.commit(repo, "main", table__t=table.to_content())
    stray = garbage.file_in(repo, table, "stray")
    (repo.root / table.metadata).write_text("{}")
    for _ in range(3):
        found = gc(repo)
    assert len(found.spared) == 1
    assert Path(stray.path).exists()


def test_a_stray_file_among_the_tables_is_left_alone(repo: Repository) -> None:
    garbage.commit(repo, "main", table__t=garbage.new_table(repo).to_content())
    stray = repo.root / "tables" / "notes.txt"
    stray.write_text("mine")
    for _ in range(3):
        gc(repo)
    assert stray.read_text() == "mine"


def test_content_of_an_unknown_type_stops_a_collection(repo: Repository) -> None:
    garbage.commit(repo, "main", view__t={"type": "instep.view.v9", "place": "somewhere"})
    with pytest.raises(InternalError) as caught:
        gc(repo)
    assert caught.value.kind == "wrong-content"


def test_staging_of_a_run_under_way_stays_and_what_was_left_goes(repo: Repository) -> None:
    for name in ("run_1", "run_2"):
        (repo.root / "staging" / name / "tables").mkdir(parents=True)
        (repo.root / "staging" / name / "tables" / "part").write_text("rows")
    _running(repo, "run_1")
    for _ in range(3):
        gc(repo, AT_ONCE)
    assert sorted(path.name for path in (repo.root / "staging").iterdir()) == ["run_1"]


def test_staging_stays_fourteen_days(repo: Repository, clock: Any) -> None:
    folder = repo.root / "staging" / "run_9"
    folder.mkdir(parents=True)
    gc(repo, Policy())
    garbage.later(repo, clock, 14)
    assert folder.exists()
    garbage.later(repo, clock, 1)
    assert not folder.exists()


def _running(repo: Repository, run: str) -> None:
    at = to_microseconds(repo.clock())
    columns = (
        "id, pipeline, actor, state, started_at, lease_until, input_commit, slice_from, slice_to, "
        "configuration, code, code_digest, runtime_digest, runtime_blob, engine, steps, outputs, "
        "metrics, estimated, actual"
    )
    head = repo.resolve("main")
    values = (run, "p", "ana", "running", at, at, head, at, at, "[]", "{}", "", "", "", "", "[]")
    with repo.store.transaction() as tx:
        tx.execute(
            f"insert into runs ({columns}) values ({', '.join('?' * 20)})",
            (*values, "{}", "{}", "{}", "{}"),
        )


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


@_settings(100)
@given(STEPS)
def test_no_history_loses_what_it_needs(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    _live_through(tmp_path_factory.mktemp("lake"), steps)


@pytest.mark.long
@_settings(1000)
@given(STEPS)
def test_no_long_history_loses_what_it_needs(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    _live_through(tmp_path_factory.mktemp("lake"), steps)


def _live_through(folder: Path, steps: list[tuple[str, int, int]]) -> None:
    """Takes the steps; nothing needed is lost after any, and only what is needed stays at last."""
    instants = (datetime(2013, 12, 1, tzinfo=UTC) + timedelta(seconds=n) for n in count())
    repo = create_repository(folder / "lake", lambda: next(instants), "ana")
    history = History(repo)
    for step, one, other in steps:
        history.take(step, one, other)
        needs(repo)
    while history.work:
        history.take("publish", 0, 0)
    history.end(repo)
    history.check(repo)
    for _ in range(4):
        gc(repo)
    kept = needs(repo).paths
    assert on_disk(repo) == kept
    repo.store.close()


COLLECT = """
import sys
from pathlib import Path
import garbage
from instep.clock import system_clock
from instep.history.repository import open_repository
repo = open_repository(Path(sys.argv[1]), system_clock)
garbage.gc(repo)
"""

PLACES = (
    "gc.snapshot.before:1",
    "gc.condemn.before:1",
    "gc.condemn.before:2",
    "gc.condemn.after:1",
    "gc.condemn.after:3",
    "gc.delete.before:1",
    "gc.delete.after:1",
    "gc.delete.after:3",
    "gc.forget.before:1",
    "gc.forget.after:1",
    "transaction.commit.before:2",
    "transaction.commit.after:3",
)


@pytest.mark.parametrize("place", PLACES)
def test_a_killed_collection_loses_nothing_and_the_next_ends_it(
    repo: Repository, place: str
) -> None:
    _with_garbage(repo)
    if not place.startswith(("gc.condemn", "gc.snapshot")):
        gc(repo)
    killed = _collect_elsewhere(repo, place)
    needs(repo)
    assert killed == KILLED, f"{place} was not reached"
    for _ in range(4):
        assert _collect_elsewhere(repo) == 0
    assert on_disk(repo) == needs(repo).paths
    with repo.store.reading() as tx:
        assert tx.rows("select name from condemned") == []


@on_both
def test_what_is_made_of_a_dead_commit_while_it_is_forgotten_keeps_all_of_its_past(
    repo: Repository, database: Database | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    garbage.branch(repo, "try")
    made = [
        garbage.commit(repo, "try", contract__t=garbage.contract(repo, f"terms {number}"))
        for number in range(6)
    ]
    garbage.delete_branch(repo, "try")
    monkeypatch.setattr(forgetting, "_AT_ONCE", 1)
    other, forgotten = open_repository(repo.root, repo.clock, database), count(1)

    def meanwhile(place: str) -> None:
        if place == "gc.forget.after" and next(forgotten) == 2:
            faults.watch(None)
            with other.store.transaction("again") as tx:
                create_ref(tx, "again", RefKind.BRANCH, made[2], owner="ana", at=repo.clock())

    gc(repo)
    faults.watch(meanwhile)
    try:
        gc(repo)
    finally:
        faults.watch(None)
        other.store.close()
    with repo.store.reading() as tx:
        assert forgotten_commits(tx) == {*made[3:]}
    for _ in range(3):
        gc(repo)
    needs(repo)
    assert repo.entries(made[2]).keys() == {"contract/t"}


def _with_garbage(repo: Repository) -> None:
    table = garbage.grown(repo, garbage.new_table(repo), "kept")
    garbage.commit(
        repo, "main", table__t=table.to_content(), contract__t=garbage.contract(repo, "terms")
    )
    garbage.branch(repo, "try")
    garbage.commit(repo, "try", table__t=garbage.rewritten(repo, table, "try").to_content())
    garbage.commit(repo, "try", contract__u=garbage.contract(repo, "only there"))
    garbage.delete_branch(repo, "try")
    garbage.grown(repo, table, "never committed")
    repo.objects.put(b"never named")


def _collect_elsewhere(repo: Repository, fault: str = "") -> int:
    return run_script(COLLECT, str(repo.root), fault=fault).code


def test_what_is_condemned_is_written_down(repo: Repository) -> None:
    digest = repo.objects.put(b"never named")
    gc(repo)
    with repo.store.reading() as tx:
        rows = tx.rows("select name, size_bytes from condemned")
    assert rows == [(f"objects/{digest[:2]}/{digest}", 11)]
    assert json.dumps([line.to_json() for line in gc(repo, is_dry=True).lines])


def test_a_manifest_is_read_once_and_a_damaged_cache_is_not_believed(repo: Repository) -> None:
    table = garbage.grown(repo, garbage.new_table(repo), "kept")
    garbage.commit(repo, "main", table__t=table.to_content())
    first = gc(repo)
    (cache,) = (repo.root / "cache" / "names").iterdir()
    whole = cache.read_bytes()
    assert gc(repo).reached == first.reached
    wrong = whole.replace(b"data/", b"lost/", 1)
    assert wrong != whole
    for damaged in (wrong, whole[:-1], b"", b"\n"):
        cache.write_bytes(damaged)
        found = gc(repo)
        assert found.reached == first.reached
        assert found.lines == ()
        assert cache.read_bytes() == whole


def test_a_staging_folder_is_gone_even_when_its_deletion_was_interrupted(repo: Repository) -> None:
    left = repo.root / "staging" / "run_1"
    half = repo.root / "staging" / ".gone-2"
    for folder in (left, half):
        (folder / "inside").mkdir(parents=True)
        (folder / "inside" / "part").write_bytes(b"x")
    assert gc(repo).count(Verdict.CONDEMN) == 1
    assert left.exists()
    assert gc(repo).count(Verdict.DELETE) == 1
    assert list((repo.root / "staging").iterdir()) == []


@on_both
def test_tokens_are_forgotten_after_days_at_work_and_not_by_a_clock_that_jumps(
    repo: Repository,
) -> None:
    day = 86_400_000_000
    with repo.store.transaction() as tx:
        for token, at in (("old", 10 * day), ("new", 11 * day)):
            keep_done(tx, token, "d", ref="main", commit="c", at=from_microseconds(at))
        tx.execute("insert into lived_days (day) values (?)", (365_000,))
    gc(repo)
    with repo.store.transaction() as tx:
        assert tx.row("select count(*) from tokens") == (2,)
        tx.execute("delete from lived_days")
        for number in range(11, 11 + TOKEN_DAYS):
            tx.execute("insert into lived_days (day) values (?)", (number,))
    found = gc(repo)
    with repo.store.reading() as tx:
        assert tx.rows("select token from tokens") == [("new",)]
        assert tx.row("select keep_days, deleted from collected order by number desc limit 1") == (
            0,
            1,
        )
    assert [(line.kind, line.count) for line in found.lines] == [("token", 1)]


@on_both
def test_the_log_of_a_deleted_branch_outlives_its_commits(repo: Repository) -> None:
    garbage.branch(repo, "try")
    lost = garbage.commit(repo, "try", contract__t=garbage.contract(repo, "tried"))
    then = repo.clock()
    garbage.delete_branch(repo, "try")
    gc(repo)
    gc(repo)
    with repo.store.reading() as tx:
        assert lost in forgotten_commits(tx)
        found = list(entries(tx, repo, "try", Filter()))
        assert [one.operation.kind for one in found if one.operation] == [
            "delete", "commit", "create"
        ]  # fmt: skip
        assert [one.commit is None for one in found] == [True, True, False]
        for wanted in (Filter(key="contract/t"), Filter(run="run_1")):
            assert list(entries(tx, repo, "try", wanted)) == []
    with pytest.raises(NotFoundError, match="was forgotten by garbage collection"):
        repo.commit(repo.resolve(f"try@{then.isoformat()}"))


def test_files_that_writers_take_away_while_they_are_listed_are_passed_over(tmp_path: Path) -> None:
    for name in ("stays", "goes"):
        (tmp_path / name).write_text("x")
    with os.scandir(tmp_path) as listed:
        found = list(listed)
    (tmp_path / "goes").unlink()
    assert [(one.name, one.size_bytes) for one in still_there(found, "objects/")] == [
        ("objects/stays", 1)
    ]
