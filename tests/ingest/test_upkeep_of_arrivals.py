"""After many small arrivals files are put together, whichever way the arrival was merged."""

from __future__ import annotations

from pathlib import Path

import pytest
from arrival_builders import HEADER, READINGS, merge_contract, month, rows_of, write

from instep.changes import gate
from instep.history.edits import Edit, publish
from instep.history.repository import MAIN, Repository
from instep.ingest.accept import accept
from instep.ingest.arrive import ingest
from instep.ingest.merge import merge_arrival
from instep.tables.content import TableContent
from instep.tables.read import data_files, schema_of
from instep.tables.small_files import MANY_FILES
from instep.tables.write import append, data_folder


def nearly_due(repo: Repository, folder: Path) -> None:
    """A table to which all but one of the appends went after which its files are looked at."""
    from instep.engines.duckdb import DuckDB

    ingest(repo, folder, write(folder / "readings-1.csv", month(1, 1)), "ana")
    content = repo.content(repo.resolve(MAIN), "table/readings")
    table = TableContent.from_content(content)
    with DuckDB(repo.root / "staging") as engine:
        for day in range(MANY_FILES - 2):
            sql = (
                f"SELECT 'X' AS station, timestamptz '2012-01-01' + to_days({day}) AS at, "
                "1.0::double AS distance, 1::bigint AS late"
            )
            files = engine.write(sql, schema_of(repo.root, table), data_folder(repo.root, table))
            table = append(repo.root, table, files, at=repo.clock())
    edit = Edit(repo.resolve(MAIN), {"table/readings": table.to_content()}, "ana", "many", "test")
    with repo.store.transaction() as tx:
        publish(tx, repo, MAIN, edit)


def file_count(repo: Repository) -> int:
    content = repo.content(repo.resolve(MAIN), "table/readings")
    return len(data_files(repo.root, TableContent.from_content(content)))


@pytest.mark.parametrize("way", ["merge", "accept"])
def test_an_arrival_that_waited_is_followed_by_upkeep(
    repo: Repository, tmp_path: Path, way: str
) -> None:
    merge_contract(repo, READINGS)
    nearly_due(repo, tmp_path)
    assert file_count(repo) == MANY_FILES - 1
    merge_contract(repo, READINGS, approvals=1)
    header = HEADER.replace("late", "delay") if way == "accept" else HEADER
    file = write(tmp_path / "readings-2.csv", month(2, 1), header)
    number = ingest(repo, tmp_path, file, "ana").arrival.change
    if way == "accept":
        upkeep = accept(repo, number, "ben", rename={"delay": "late"}, why="Seen.").upkeep
    else:
        with repo.store.transaction() as tx:
            gate.approve(tx, repo, number, "ben")
        upkeep = merge_arrival(repo, number, "ben").upkeep
    assert upkeep.startswith(f"readings: {MANY_FILES} files")
    assert file_count(repo) == 1
    assert rows_of(repo, "select count(*) from readings") == [(MANY_FILES,)]
