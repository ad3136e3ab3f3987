"""A contract that changed lets in what fits it, and never puts old rows over newer ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from arrival_builders import READINGS, merge_contract, month, rows_of, write

from instep.changes import gate
from instep.changes.records import State
from instep.errors import InstepError
from instep.history.repository import Repository
from instep.ingest.accept import accept
from instep.ingest.arrive import ingest
from instep.ingest.arrived import Arrived, held_error
from instep.ingest.by_contract import let_in_what_fits

LOOSE = READINGS.replace("value: 0.05", "value: 0.2")
COUNT = "select count(*), count(*) filter (late = 777) from readings"


def arrive(repo: Repository, path: Path, rows: list[list[str]]) -> Arrived:
    return ingest(repo, path.parent, write(path, rows), "ana")


def broken(rows: list[list[str]]) -> list[list[str]]:
    return [[*row[:2], "-1", row[3]] if n < 40 else row for n, row in enumerate(rows)]


def late(rows: list[list[str]]) -> list[list[str]]:
    return [[*row[:3], "777"] for row in rows]


def settled(repo: Repository, number: int) -> Arrived:
    found = let_in_what_fits(repo, ["readings"], "ben")[number]
    assert not isinstance(found, InstepError), found
    return found


@pytest.mark.parametrize("policy", ["keyed", "replace"])
def test_a_held_file_is_not_put_over_a_later_one_by_a_new_contract(
    repo: Repository, tmp_path: Path, policy: str
) -> None:
    def contract(text: str) -> None:
        merge_contract(repo, text.replace("value: append", f"value: {policy}"))

    contract(READINGS)
    arrive(repo, tmp_path / "readings-1.csv", month(1))
    old = arrive(repo, tmp_path / "readings-2.csv", broken(month(1)))
    assert old.state is State.HELD
    assert arrive(repo, tmp_path / "readings-3.csv", late(month(1))).state is State.MERGED
    contract(LOOSE)
    still = settled(repo, old.arrival.change)
    assert still.state is State.HELD
    assert "would take the place of rows that came in after it" in held_error(still).message
    assert rows_of(repo, COUNT) == [(400, 400)]
    accept(repo, old.arrival.change, "ben")  # which is somebody's decision
    assert rows_of(repo, COUNT) == [(400, 40) if policy == "keyed" else (360, 0)]


def test_new_rows_of_an_earlier_period_come_in_by_a_new_contract(
    repo: Repository, tmp_path: Path
) -> None:
    merge_contract(repo, READINGS.replace("value: append", "value: keyed"))
    arrive(repo, tmp_path / "readings-1.csv", month(1))
    held = arrive(repo, tmp_path / "readings-2.csv", broken(month(2)))
    arrive(repo, tmp_path / "readings-3.csv", late(month(3)))
    merge_contract(repo, LOOSE.replace("value: append", "value: keyed"))
    assert settled(repo, held.arrival.change).state is State.MERGED
    assert rows_of(repo, COUNT) == [(1160, 400)]


def test_every_held_file_is_judged_by_a_new_contract(repo: Repository, tmp_path: Path) -> None:
    merge_contract(repo, READINGS)
    held = [
        arrive(repo, tmp_path / f"readings-{number}.csv", broken(month(number)))
        for number in (1, 2)
    ]
    worse = arrive(repo, tmp_path / "readings-3.csv", [[*row[:2], "-1", "1"] for row in month(3)])
    merge_contract(repo, LOOSE)
    found = let_in_what_fits(repo, ["readings"], "ben")
    states = {number: one.state for number, one in found.items() if isinstance(one, Arrived)}
    assert states == {
        **{one.arrival.change: State.MERGED for one in held},
        worse.arrival.change: State.HELD,
    }
    assert rows_of(repo, "select count(*) from readings") == [(720,)]


def test_a_file_that_was_turned_away_does_not_come_in(repo: Repository, tmp_path: Path) -> None:
    merge_contract(repo, READINGS)
    held = arrive(repo, tmp_path / "readings-1.csv", broken(month(1)))
    with repo.store.transaction() as tx:
        gate.reject(tx, repo, held.arrival.change, "ben", "a wrong file")
    merge_contract(repo, LOOSE)
    assert let_in_what_fits(repo, ["readings"], "ben") == {}
