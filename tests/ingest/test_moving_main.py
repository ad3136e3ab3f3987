"""Main moves while a batch is read: what is merged fits what main holds then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from arrival_builders import HEADER, READINGS, merge_contract, month, rows_of, state_of, write

from instep.changes import gate
from instep.changes.records import State, list_changes, load_change
from instep.errors import RefusedError
from instep.history.repository import MAIN, Repository
from instep.ingest.accept import accept
from instep.ingest.arrive import ingest
from instep.ingest.arrived import Arrived
from instep.ingest.batch import table_at
from instep.ingest.merge import merge_arrival
from instep.ingest.records import arrival_of_change
from instep.tables.added import added_files
from instep.tables.read import data_files
from instep.tables.upkeep import compact_table

PLAIN = READINGS.replace(", primaryKey: true", "")
STRICT = "maximum: 1000}"
ACCEPTED = HEADER.replace("late", "x17")


def stricter(text: str) -> str:
    """The same contract with another bound, another column, and any share in quarantine."""
    found = text.replace("maximum: 5000}", STRICT).replace(
        "maxQuarantined, value: 0.05", "maxQuarantined, value: 1"
    )
    return found.replace("name: late", "name: lateness, logicalType: integer}\n      - {name: late")


def meanwhile(repo: Repository, *acts: Callable[[], object]) -> Repository:
    """The same lake, whose main moves by one of `acts` at each look at the clock."""
    left: Iterator[Callable[[], object]] = iter(acts)

    def clock() -> datetime:
        act = next(left, None)
        if act is not None:
            act()
        return repo.clock()

    return replace(repo, clock=clock)


def arrive(repo: Repository, file: Path) -> Arrived:
    return ingest(repo, file.parent, file, "ana")


def approve(repo: Repository, number: int) -> None:
    with repo.store.transaction() as tx:
        gate.approve(tx, repo, number, "ben")


def contract_on_main(repo: Repository) -> object:
    return repo.content(repo.resolve(MAIN), "contract/readings")["blob"]


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        (READINGS, "append"),
        (READINGS, "replace"),
        (READINGS, "keyed"),
        (PLAIN, "append"),
        (PLAIN, "replace"),
    ],
)
def test_a_batch_is_merged_under_the_contract_that_it_was_checked_by(
    repo: Repository, tmp_path: Path, text: str, policy: str
) -> None:
    text = text.replace("value: append", f"value: {policy}")
    merge_contract(repo, text)
    arrive(repo, write(tmp_path / "readings-1.csv", month(1)))
    wide = [[*row, "1"] for row in month(2)]
    file = write(tmp_path / "readings-2.csv", wide, f"{HEADER},lateness")
    moving = meanwhile(repo, lambda: merge_contract(repo, stricter(text)))
    arrived = arrive(moving, file)
    assert arrived.state is State.MERGED
    assert arrived.arrival.contract == contract_on_main(repo)
    assert arrived.broken["distance.maximum"] > 0
    [(above, known)] = rows_of(
        repo,
        "select count(*) filter (distance > 1000), count(lateness) from readings "
        "where \"at\" >= '2013-02-01'",
    )
    assert above == 0 and known == 400 - arrived.arrival.quarantined


def test_a_held_batch_is_accepted_under_the_contract_that_it_was_checked_by(
    repo: Repository, tmp_path: Path
) -> None:
    merge_contract(repo, PLAIN)
    arrive(repo, write(tmp_path / "readings-1.csv", month(1)))
    held = arrive(repo, write(tmp_path / "readings-2.csv", month(2), ACCEPTED))
    strict = PLAIN.replace("maximum: 5000}", STRICT).replace("value: 0.05", "value: 1")
    moving = meanwhile(repo, lambda: merge_contract(repo, strict))
    done = accept(moving, held.arrival.change, "ben", rename={"x17": "late"})
    assert done.state is State.MERGED
    assert done.arrival.contract == contract_on_main(repo)
    assert done.arrival.quarantined > 0


def test_a_batch_is_read_by_the_names_that_its_source_has_when_it_is_merged(
    repo: Repository, tmp_path: Path
) -> None:
    merge_contract(repo, PLAIN)
    arrive(repo, write(tmp_path / "readings-1.csv", month(1)))
    held = arrive(repo, write(tmp_path / "readings-2.csv", month(2), ACCEPTED))
    extra = PLAIN.replace("{name: late,", "{name: x17, logicalType: integer}\n      - {name: late,")

    def decide() -> None:
        accept(repo, held.arrival.change, "ben", rename={"x17": "late"})
        merge_contract(repo, extra)

    moving = meanwhile(repo, decide)
    wide = [[*row, "5"] for row in month(3)]
    arrived = arrive(moving, write(tmp_path / "readings-3.csv", wide, f"{HEADER},x17"))
    assert arrived.state is State.MERGED
    assert rows_of(repo, "select count(x17), min(x17) from readings") == [(400, 5)]


@pytest.mark.parametrize("text", [READINGS, PLAIN], ids=["key", "no key"])
@pytest.mark.parametrize("existed", [True, False])
def test_appends_that_waited_are_all_merged_with_the_approval_they_had(
    repo: Repository, tmp_path: Path, text: str, existed: bool
) -> None:
    merge_contract(repo, text)
    if existed:
        arrive(repo, write(tmp_path / "readings-1.csv", month(1)))
    merge_contract(repo, text, approvals=1)
    numbers = []
    for number in (2, 3, 4):
        arrived = arrive(repo, write(tmp_path / f"readings-{number}.csv", month(number)))
        assert arrived.state is State.OPEN
        numbers.append(arrived.arrival.change)
    for number in numbers:
        approve(repo, number)
    for number in numbers:
        assert merge_arrival(repo, number, "ana").approved_by == ("ben",)
    assert rows_of(repo, "select count(*) from readings") == [(1600 if existed else 1200,)]


@pytest.mark.parametrize("text", [READINGS, PLAIN], ids=["key", "no key"])
def test_an_append_that_waited_is_made_again_though_its_table_was_compacted(
    repo: Repository, tmp_path: Path, text: str
) -> None:
    merge_contract(repo, text)
    for number in (1, 2):
        arrive(repo, write(tmp_path / f"readings-{number}.csv", month(number)))
    merge_contract(repo, text, approvals=1)
    numbers = [
        arrive(repo, write(tmp_path / f"readings-{n}.csv", month(n))).arrival.change for n in (3, 4)
    ]
    for number in numbers:
        approve(repo, number)
    assert not compact_table(repo, MAIN, "readings", lambda content: False).why_not
    own = [one for number in numbers for one in files_of(repo, number)]

    for number in numbers:
        assert merge_arrival(repo, number, "ana").approved_by == ("ben",)

    assert rows_of(repo, "select count(*) from readings") == [(1600,)]
    table = table_at(repo, repo.resolve(MAIN), "readings")
    assert table is not None
    assert set(own) <= {file.path for file in data_files(repo.root, table)}


def files_of(repo: Repository, number: int) -> list[str]:
    """The files that a change adds."""
    with repo.store.reading() as tx:
        change = load_change(tx, number)
    before, after = (table_at(repo, one, "readings") for one in (change.base, change.head))
    assert before is not None and after is not None
    return [file.path for file in added_files(repo.root, before, after) or ()]


def test_two_appends_that_are_merged_at_once_both_enter(repo: Repository, tmp_path: Path) -> None:
    merge_contract(repo, READINGS)
    arrive(repo, write(tmp_path / "readings-1.csv", month(1)))
    merge_contract(repo, READINGS, approvals=1)
    numbers = [
        arrive(repo, write(tmp_path / f"readings-{n}.csv", month(n))).arrival.change
        for n in (2, 3, 4)
    ]
    for number in numbers:
        approve(repo, number)
    merge_arrival(repo, numbers[0], "ana")
    moving = meanwhile(repo, lambda: merge_arrival(repo, numbers[2], "ana"))
    merge_arrival(moving, numbers[1], "ana")
    assert rows_of(repo, "select count(*) from readings") == [(1600,)]


def test_an_approval_lapses_when_a_key_came_in_meanwhile(repo: Repository, tmp_path: Path) -> None:
    merge_contract(repo, READINGS, approvals=1)
    first = arrive(repo, write(tmp_path / "readings-1.csv", month(1))).arrival.change
    rows = [*month(1)[:5], *month(2)]
    second = arrive(repo, write(tmp_path / "readings-2.csv", rows)).arrival.change
    for number in (first, second):
        approve(repo, number)
    merge_arrival(repo, first, "ana")
    with pytest.raises(RefusedError) as lapsed:
        merge_arrival(repo, second, "ana")
    assert lapsed.value.kind == "not-mergeable"
    assert "is no longer what would be merged" in lapsed.value.message
    with repo.store.reading() as tx:
        assert arrival_of_change(tx, second).quarantined == 5
    approve(repo, second)
    merge_arrival(repo, second, "ana")
    assert rows_of(repo, 'select count(*), count(distinct (station, "at")) from readings') == [
        (800, 800)
    ]


@pytest.mark.parametrize("policy", ["replace", "keyed"])
def test_an_approval_of_what_replaces_rows_lapses_when_the_table_moved(
    repo: Repository, tmp_path: Path, policy: str
) -> None:
    merge_contract(repo, READINGS.replace("value: append", f"value: {policy}"), approvals=1)
    numbers = [
        arrive(repo, write(tmp_path / f"readings-{n}.csv", month(n))).arrival.change for n in (1, 2)
    ]
    for number in numbers:
        approve(repo, number)
    merge_arrival(repo, numbers[0], "ana")
    with pytest.raises(RefusedError) as lapsed:
        merge_arrival(repo, numbers[1], "ana")
    assert lapsed.value.kind == "not-mergeable"
    approve(repo, numbers[1])
    merge_arrival(repo, numbers[1], "ana")
    expected = 400 if policy == "replace" else 800
    assert rows_of(repo, "select count(*) from readings") == [(expected,)]


def test_what_waited_is_read_again_by_a_contract_that_moved(
    repo: Repository, tmp_path: Path
) -> None:
    merge_contract(repo, PLAIN)
    arrive(repo, write(tmp_path / "readings-1.csv", month(1)))
    merge_contract(repo, PLAIN, approvals=1)
    number = arrive(repo, write(tmp_path / "readings-2.csv", month(2))).arrival.change
    approve(repo, number)
    looser = PLAIN.replace("maximum: 5000}", STRICT).replace("value: 0.05", "value: 1")
    merge_contract(repo, looser, approvals=1)
    with pytest.raises(RefusedError) as lapsed:
        merge_arrival(repo, number, "ana")
    assert lapsed.value.kind == "not-mergeable"
    approve(repo, number)
    merge_arrival(repo, number, "ana")
    with repo.store.reading() as tx:
        assert arrival_of_change(tx, number).contract == contract_on_main(repo)
        assert arrival_of_change(tx, number).quarantined > 0


def test_what_waited_is_held_when_it_no_longer_fits(repo: Repository, tmp_path: Path) -> None:
    merge_contract(repo, PLAIN, approvals=1)
    number = arrive(repo, write(tmp_path / "readings-2.csv", month(2))).arrival.change
    approve(repo, number)
    merge_contract(repo, PLAIN.replace("maximum: 5000}", STRICT), approvals=1)
    with pytest.raises(RefusedError) as stopped:
        merge_arrival(repo, number, "ana")
    assert "it is held" in stopped.value.message
    assert state_of(repo, number) == "held"
    with repo.store.reading() as tx:
        assert arrival_of_change(tx, number).held_for == "too-many-quarantined"
        assert [one.number for one in list_changes(tx)] == [number]
        assert load_change(tx, number).state is State.HELD
