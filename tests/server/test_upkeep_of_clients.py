"""Small commits of REST clients: files stay few, and who holds the table is not disturbed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from rest import make_branch, make_project, people, rows, serving

from instep.history.repository import Repository
from instep.lake import Lake
from instep.tables.compact import compact_state
from instep.tables.content import TableContent
from instep.tables.read import data_files
from instep.tables.small_files import MANY_FILES

TABLE = "default.people"
BRANCH = "small"


def state(lake: Repository) -> TableContent:
    return Lake(lake).branch(BRANCH).table("people").content


def ids(lake: Repository) -> list[int]:
    return [one["id"] for one in rows(lake, BRANCH, "people")]


def test_after_the_answer_to_a_small_commit_many_files_are_put_together(tmp_path: Path) -> None:
    lake = make_project(tmp_path)
    make_branch(lake, BRANCH)
    with serving(tmp_path, "--as", "ana") as server:
        table = server.catalog(BRANCH).create_table(TABLE, schema=people((1, "x")).schema)
        with table.transaction() as several:
            for number in range(MANY_FILES - 1):
                several.append(people((number, "x")))
        early = Lake(lake).branch(BRANCH).commit
        table.append(people((MANY_FILES - 1, "x")))
        assert server.stop() == 0
    assert len(data_files(lake.root, state(lake))) == 1
    assert ids(lake) == list(range(MANY_FILES))
    assert len(rows(lake, early, "people")) == MANY_FILES - 1


@pytest.mark.long
def test_files_of_many_small_commits_stay_few(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Commits go on while files are put together, so that may come some of them late."""
    lake = make_project(tmp_path)
    make_branch(lake, BRANCH)
    numbers = 3 * MANY_FILES
    with serving(tmp_path, "--as", "ana") as server, caplog.at_level(logging.WARNING):
        table = server.catalog(BRANCH).create_table(TABLE, schema=people((1, "x")).schema)
        for number in range(numbers):
            table.append(people((number, "x")))
        assert server.stop() == 0
    assert not [one for one in caplog.records if "Commit failed" in one.message]
    assert len(data_files(lake.root, state(lake))) < 2 * MANY_FILES
    assert ids(lake) == list(range(numbers))


def test_a_client_that_holds_the_table_goes_on_after_its_files_were_put_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lake = make_project(tmp_path)
    make_branch(lake, BRANCH)
    with serving(tmp_path, "--as", "ana") as server:
        catalog = server.catalog(BRANCH)
        table = catalog.create_table(TABLE, schema=people((1, "x")).schema)
        for number in range(6):
            table.append(people((number, "x")))
        behind = catalog.load_table(TABLE)
        done = compact_state(lake, state(lake), at=lake.clock(), keeps_past=True)
        assert (done.before.files, done.after.files) == (6, 1)
        with caplog.at_level(logging.WARNING):
            table.append(people((100, "x")))
            table.append(people((101, "x")))
        assert not caplog.records
        assert len(data_files(lake.root, state(lake))) == 3
        behind.append(people((102, "x")))  # others came between: it loads the table again
        assert len(data_files(lake.root, state(lake))) == 4

        holding = catalog.load_table(TABLE)
        compact_state(lake, state(lake), at=lake.clock(), keeps_past=True)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            holding.delete("id = 3")
        assert not caplog.records
        assert catalog.load_table(TABLE).scan().to_arrow().num_rows == 8
        assert server.stop() == 0
    assert ids(lake) == [0, 1, 2, 4, 5, 100, 101, 102]
