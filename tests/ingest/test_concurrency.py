"""Processes that ingest into one table at once all succeed; a killed one leaves before or after."""

from __future__ import annotations

from pathlib import Path

import pytest
from arrival_builders import READINGS, merge_contract, month, rows_of, write
from commands import KILLED, must, run, start

from instep.clock import system_clock
from instep.history.repository import MAIN, Repository, create_repository, open_repository

PLACES = (
    "ingest.keep.before",
    "ingest.keep.after",
    "engine.copy.after",
    "tables.metadata.before",
    "ingest.record.before",
    "transaction.commit.before",
    "transaction.commit.after",
    "ingest.record.after",
)


def made(folder: Path, key: bool) -> Path:
    folder.mkdir()
    (folder / "instep.yaml").write_text("lake: lake\npeople: [ana, ben]\n")
    repo = create_repository(folder / "lake", system_clock, "ana")
    merge_contract(repo, READINGS if key else READINGS.replace(", primaryKey: true", ""))
    return folder


@pytest.mark.parametrize("key", [True, False])
def test_files_that_arrive_at_once_all_enter_the_table(tmp_path: Path, key: bool) -> None:
    project = made(tmp_path / "project", key)
    files = [write(tmp_path / f"readings-{number}.csv", month(number)) for number in (1, 2, 3)]
    begun = [start("ingest", str(file), at=project) for file in files]
    ended = [one.done() for one in begun]
    assert [done.code for done in ended] == [0, 0, 0], ended
    repo = opened(project)
    assert rows_of(repo, "select count(*) from readings") == [(1200,)]


@pytest.mark.parametrize("place", PLACES)
def test_a_killed_ingest_leaves_main_before_or_after(tmp_path: Path, place: str) -> None:
    project = made(tmp_path / "project", True)
    repo = opened(project)
    before = repo.resolve(MAIN)
    file = write(tmp_path / "readings-1.csv", month(1))
    killed = run("ingest", str(file), at=project, fault=place)
    assert killed.code == KILLED, killed
    if repo.resolve(MAIN) != before:
        assert rows_of(repo, "select count(*) from readings") == [(400,)]
    must("ingest", str(file), at=project)
    assert rows_of(repo, "select count(*) from readings") == [(400,)]


def opened(project: Path) -> Repository:
    return open_repository(project / "lake", system_clock)
