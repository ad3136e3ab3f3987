"""Values at the ends of what a type holds arrive like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
from arrival_builders import READINGS, merge_contract, rows_of, write

from instep.changes.records import State
from instep.history.repository import Repository
from instep.ingest.arrive import ingest

MOST = "1.7976931348623157e308"


def arrive(repo: Repository, file: Path, rows: list[list[str]]) -> State:
    return ingest(repo, file.parent, write(file, rows), "ana", table=None).state


def test_numbers_whose_sum_is_too_large_arrive(repo: Repository, tmp_path: Path) -> None:
    free = READINGS.replace("        logicalTypeOptions: {minimum: 0, maximum: 5000}\n", "")
    merge_contract(repo, free)
    rows = [
        [f"S{day}", f"2013-01-0{day}T00:00:00Z", f"{'-' if day % 2 else ''}{MOST}", "1"]
        for day in range(1, 9)
    ]
    assert arrive(repo, tmp_path / "readings-1.csv", rows) is State.MERGED
    assert rows_of(repo, "SELECT max(distance), -min(distance) FROM readings") == [
        (float(MOST), float(MOST))
    ]


@pytest.mark.parametrize(
    "far",
    ["9999-12-31T23:59:59Z", "9999-12-31T00:00:00Z", "12000-01-01T00:00:00Z", "0044-03-15 (BC)"],
)
def test_a_key_may_hold_any_time(repo: Repository, tmp_path: Path, far: str) -> None:
    merge_contract(repo, READINGS)
    near = ["A", "2013-01-01T00:00:00Z", "5", "1"]
    assert arrive(repo, tmp_path / "readings-1.csv", [near]) is State.MERGED
    later = ["A", far, "5", "1"]
    assert arrive(repo, tmp_path / "readings-2.csv", [later]) is State.MERGED
    other = ["B", "2013-01-01T00:00:00Z", "5", "1"]
    assert arrive(repo, tmp_path / "readings-3.csv", [other]) is State.MERGED
    assert arrive(repo, tmp_path / "readings-4.csv", [later, near]) is State.HELD
    assert rows_of(repo, "SELECT count(*) FROM readings") == [(3,)]
