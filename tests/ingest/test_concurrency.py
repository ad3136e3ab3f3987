"""Processes that ingest into one table at once all succeed; a killed one leaves before or after."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from arrival_builders import READINGS, merge_contract, month, rows_of, write

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


def start(project: Path, file: Path, **environment: str) -> subprocess.Popen[bytes]:
    code = "from instep.cli.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "ingest", str(file), "--as", "ana"],
        cwd=project,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
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
    children = [start(project, file) for file in files]
    outputs = [child.communicate(timeout=120)[0].decode() for child in children]
    assert [child.returncode for child in children] == [0, 0, 0], outputs
    repo = opened(project)
    assert rows_of(repo, "select count(*) from readings") == [(1200,)]


@pytest.mark.parametrize("place", PLACES)
def test_a_killed_ingest_leaves_main_before_or_after(tmp_path: Path, place: str) -> None:
    project = made(tmp_path / "project", True)
    repo = opened(project)
    before = repo.resolve(MAIN)
    file = write(tmp_path / "readings-1.csv", month(1))
    child = start(project, file, INSTEP_FAULT=place)
    output = child.communicate(timeout=60)[0].decode()
    assert child.returncode == -9, output
    if repo.resolve(MAIN) != before:
        assert rows_of(repo, "select count(*) from readings") == [(400,)]
    again = start(project, file)
    output = again.communicate(timeout=60)[0].decode()
    assert again.returncode == 0, output
    assert rows_of(repo, "select count(*) from readings") == [(400,)]


def opened(project: Path) -> Repository:
    return open_repository(project / "lake", system_clock)
