"""The monthly files of the demonstration: real, cut by UTC, and changed only where asked."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from instep.cli.demo import example_folder
from instep.contracts.document import parse

CUT = example_folder() / "cut.py"


def cut(folder: Path, *options: str) -> str:
    child = subprocess.run(
        [sys.executable, str(CUT), str(folder), *options],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return child.stdout


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def january(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("january")
    cut(folder, "--months", "2013-01")
    return folder


def test_a_month_is_a_month_of_utc(january: Path) -> None:
    flights = rows(january / "flights-2013-01.csv")
    assert len(flights) == 26_865
    assert {row["time_hour"][:7] for row in flights} == {"2013-01"}
    assert any(row["arr_delay"] == "NA" for row in flights)


@pytest.mark.parametrize("name", ["flights", "weather", "planes", "airports", "airlines"])
def test_every_file_has_the_columns_of_its_contract(january: Path, name: str) -> None:
    path = example_folder() / "contracts" / f"{name}.yaml"
    contract = parse(path.read_text(), str(path))
    (file,) = january.glob(f"{name}*.csv")
    assert file.match(contract.sources[0].pattern)
    assert tuple(rows(file)[0]) == contract.names


def test_a_column_is_renamed_and_one_multiplied_and_it_is_said(
    january: Path, tmp_path: Path
) -> None:
    said = cut(
        tmp_path,
        *("--tables", "flights", "--months", "2013-01"),
        *("--rename", "dep_delay=departure_delay", "--multiply", "distance=0.868976"),
    )
    assert 'column "dep_delay" renamed to "departure_delay"' in said
    assert 'column "distance" multiplied by 0.868976' in said
    before = rows(january / "flights-2013-01.csv")
    after = rows(tmp_path / "flights-2013-01.csv")
    assert [row["departure_delay"] for row in after] == [row["dep_delay"] for row in before]
    assert after[0]["distance"] == str(round(int(before[0]["distance"]) * 0.868976))


def test_fewer_flights_are_the_same_flight_numbers_in_every_month(tmp_path: Path) -> None:
    options = ("--tables", "flights", "--months", "2013-01..2013-02", "--one-in", "50")
    assert "one flight number in 50 kept" in cut(tmp_path, *options)
    assert len(list(tmp_path.glob("flights-*.csv"))) == 2
    first = rows(tmp_path / "flights-2013-01.csv")
    assert 0 < len(first) < 26_865 / 25
