"""An arriving file is laid out as its contract says."""

from __future__ import annotations

from pathlib import Path

import pytest
from arrival_builders import READINGS, merge_contract, month, rows_of, write

from instep.changes import gate
from instep.changes.records import State
from instep.clock import Window, parse_instant
from instep.engines.engine import Slice
from instep.history.repository import MAIN, Repository
from instep.ingest.arrive import ingest
from instep.ingest.merge import merge_arrival
from instep.tables.content import TableContent
from instep.tables.read import DataFile, data_files, layout_of
from instep.tables.write import set_layout

BY_MONTH = READINGS.replace(
    "{name: at, logicalType: timestamp, primaryKey: true}",
    "{name: at, logicalType: timestamp, primaryKey: true, partitioned: true, "
    "customProperties: [{property: partitionTransform, value: month}]}",
)
SORTED = BY_MONTH.replace(
    "customProperties:\n      - {property: eventTime",
    "customProperties:\n      - {property: sortOrder, value: [distance desc]}\n"
    "      - {property: eventTime",
)


def arrive(repo: Repository, file: Path) -> State:
    return ingest(repo, file.parent, file, "ana").state


def table(repo: Repository) -> TableContent:
    return TableContent.from_content(repo.content(repo.resolve(MAIN), "table/readings"))


def files(repo: Repository, part: Slice | None = None) -> tuple[DataFile, ...]:
    return data_files(repo.root, table(repo), part)


def partitions(repo: Repository) -> list[tuple[str | None, ...]]:
    return sorted(one.partition for one in files(repo))


@pytest.mark.parametrize("policy", ["append", "replace", "keyed"])
def test_each_file_of_a_partitioned_table_holds_one_month(
    repo: Repository, tmp_path: Path, policy: str
) -> None:
    merge_contract(repo, BY_MONTH.replace("value: append", f"value: {policy}"))
    arrive(repo, write(tmp_path / "readings-1.csv", month(1, 40) + month(2, 40)))
    arrive(repo, write(tmp_path / "readings-2.csv", month(2, 50)[40:] + month(3, 40)))
    new = [("517",), ("518",)]
    assert partitions(repo) == (new if policy == "replace" else sorted([("516",), ("517",), *new]))
    count = 50 if policy == "replace" else 130
    assert rows_of(repo, "select count(*) from readings") == [(count,)]


def test_planning_of_a_slice_leaves_other_months_out(repo: Repository, tmp_path: Path) -> None:
    merge_contract(repo, BY_MONTH)
    arrive(repo, write(tmp_path / "readings-1.csv", month(1) + month(2) + month(3)))
    window = Window(parse_instant("2013-02-01T00:00:00Z"), parse_instant("2013-03-01T00:00:00Z"))
    assert [one.partition for one in files(repo, Slice("at", window))] == [("517",)]


def test_rows_of_a_file_stand_in_the_order_of_the_contract(
    repo: Repository, tmp_path: Path
) -> None:
    merge_contract(repo, SORTED)
    arrive(repo, write(tmp_path / "readings-1.csv", month(1) + month(2)))
    assert partitions(repo) == [("516",), ("517",)]
    assert rows_of(
        repo,
        "select bool_and(ok) from (select distance <= lag(distance) over (partition by f order by "
        "n) as ok from (select distance, filename as f, file_row_number as n from read_parquet("
        f"{[one.path for one in files(repo)]}, file_row_number = true)))",
    ) == [(True,)]


def test_a_contract_that_changes_lays_out_new_files_only(repo: Repository, tmp_path: Path) -> None:
    merge_contract(repo, READINGS)
    arrive(repo, write(tmp_path / "readings-1.csv", month(1) + month(2)))
    merge_contract(repo, BY_MONTH)
    arrive(repo, write(tmp_path / "readings-2.csv", month(3) + month(4)))
    assert partitions(repo) == [(), ("518",), ("519",)]
    merge_contract(repo, READINGS)
    arrive(repo, write(tmp_path / "readings-3.csv", month(5)))
    assert partitions(repo)[-1] == ("520",), "a contract that says nothing leaves the layout"


def test_an_arrival_that_waited_is_laid_out_as_the_table_is_by_then(
    repo: Repository, tmp_path: Path
) -> None:
    merge_contract(repo, READINGS, approvals=1)
    change = []
    for number in (1, 2):
        file = write(tmp_path / f"readings-{number}.csv", month(number))
        change.append(ingest(repo, tmp_path, file, "ana").arrival.change)
    with repo.store.transaction() as tx:
        gate.approve(tx, repo, change[0], "ben")
        gate.approve(tx, repo, change[1], "ben")
    merge_arrival(repo, change[0], "ben")
    merge_contract(repo, BY_MONTH, approvals=0)
    merge_arrival(repo, change[1], "ben")
    assert partitions(repo) == [(), ("517",)]
    assert rows_of(repo, "select count(*) from readings") == [(800,)]


def test_an_append_is_not_carried_over_to_another_layout(repo: Repository, tmp_path: Path) -> None:
    from instep.history.edits import Edit, publish
    from instep.tables.partition import Part

    merge_contract(repo, READINGS)
    arrive(repo, write(tmp_path / "readings-1.csv", month(1)))
    moved: list[str] = []

    def say(text: str) -> None:
        if "reading and checking" in text and not moved:
            after = set_layout(repo.root, table(repo), [Part("at", "day")], [], at=repo.clock())
            edit = Edit(repo.resolve(MAIN), {"table/readings": after.to_content()}, "ana", "", "t")
            with repo.store.transaction() as tx:
                moved.append(publish(tx, repo, MAIN, edit).id)

    file = write(tmp_path / "readings-2.csv", month(2, 24))
    assert ingest(repo, tmp_path, file, "ana", say=say).state is State.MERGED
    assert len(layout_of(repo.root, table(repo)).partition) == 1
    assert partitions(repo) == [(), ("15737",)]
