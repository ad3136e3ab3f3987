"""A project may lie in any folder: what that is called is no value of a row."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import duckdb
from arrival_builders import READINGS, merge_contract, month, rows_of, write

from instep.changes.records import State
from instep.history.repository import MAIN, create_repository
from instep.ingest.arrive import ingest
from instep.ingest.quarantine import quarantined_rows
from instep.tables.content import TableContent
from instep.tables.profile_keep import profile_table

PARQUET = READINGS.replace("readings-*.csv", "readings-*.parquet").replace("csv", "parquet")


def test_a_folder_above_a_project_that_is_called_like_a_value_is_none(
    tmp_path: Path, clock: Callable[[], datetime]
) -> None:
    folder = tmp_path / "distance=7" / "c0=C" / "line=99" / "count=99" / "nulls=5"
    folder.mkdir(parents=True)
    repo = create_repository(folder / "lake", clock, "ana")
    merge_contract(repo, READINGS)
    rows = month(1)
    rows[7][2] = "-1"
    csv = ingest(repo, folder, write(folder / "readings-1.csv", rows), "ana", table=None)
    assert csv.state is State.MERGED
    (aside,) = quarantined_rows(repo, csv.arrival.change)
    assert (aside.line, '"-1"' in aside.raw) == (9, True)

    merge_contract(repo, PARQUET)
    file = folder / "readings-2.parquet"
    duckdb.execute(
        "COPY (SELECT 'D' AS station, TIMESTAMPTZ '2014-01-01 00:00:00+00' AS at, "
        f"range AS distance, NULL::INT AS late FROM range(1, 2)) TO '{file}' (FORMAT parquet)"
    )
    assert ingest(repo, folder, file, "ana", table=None).state is State.MERGED

    del rows[7]
    expected = [(station, float(distance)) for station, _, distance, _ in rows] + [("D", 1.0)]
    found = rows_of(repo, "SELECT station, distance FROM readings")
    assert sorted(map(str, found)) == sorted(map(str, expected))
    table = TableContent.from_content(repo.content(repo.resolve(MAIN), "table/readings"))
    first = profile_table(repo.root, table)
    assert [one.count for one in first] == [400] * 4
    assert profile_table(repo.root, table) == first
