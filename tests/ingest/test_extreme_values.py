"""Values at the ends of what a type holds arrive like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
from arrival_builders import READINGS, merge_contract, rows_of, write

from instep.changes.records import State
from instep.findings import Severity
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


CODES = """\
apiVersion: v3.1.0
kind: DataContract
id: shops
version: 1.0.0
status: active
servers:
  - {server: shops, type: local, path: "shops-*.csv", format: csv}
schema:
  - name: shops
    customProperties:
      - {property: mergePolicy, value: keyed}
      - {property: maxQuarantined, value: 1}
    properties:
      - {name: id, logicalType: integer, primaryKey: true}
      - {name: zip, logicalType: integer}
      - {name: area, logicalType: number}
      - {name: code, logicalType: string}
"""


def test_leading_zeros_overwrite_no_other_key_and_are_told_of_where_they_are_dropped(
    repo: Repository, tmp_path: Path
) -> None:
    merge_contract(repo, CODES, "shops")
    first, second = tmp_path / "shops-1.csv", tmp_path / "shops-2.csv"
    kept = [f"{number},10115,0.5,1" for number in range(10001, 10010)]
    first.write_text("\n".join(["id,zip,area,code", *kept, ""]))
    assert ingest(repo, tmp_path, first, "ana").findings == ()
    new = ["0010001,80331,1,09", "10010,00100,00.5,07", "10011,00200,-0.5,1", "10012,00x,2,1"]
    second.write_text("\n".join(["id,zip,area,code", *kept, *new, ""]))
    arrived = ingest(repo, tmp_path, second, "ana")
    assert arrived.broken == {"id.type": 1, "zip.type": 1}
    told = {one.subject: one for one in arrived.findings if one.kind == "leading-zeros"}
    assert sorted(told) == ["table/shops.area", "table/shops.zip"]
    found = told["table/shops.zip"]
    assert found.severity is Severity.WARNING and found.message in arrived.to_text()
    assert found.message == (
        'zip: 2 values begin with 0 ("00100") and are read as numbers; if they are codes, make '
        "the column a string."
    )
    assert found.evidence == {"column": "zip", "values": 2, "example": "00100"}
    assert told["table/shops.area"].message.startswith('area: 1 value begins with 0 ("00.5") and')
    rows = "select id, zip, area, code from shops where id = 10001 or id > 10009 order by id"
    assert rows_of(repo, rows, "shops") == [
        (10001, 10115, 0.5, "1"),
        (10010, 100, 0.5, "07"),
        (10011, 200, -0.5, "1"),
    ]
