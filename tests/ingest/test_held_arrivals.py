"""What waits for a decision shows what deciding would do, as main is now; old files stay old."""

from __future__ import annotations

from pathlib import Path

import pytest
from arrival_builders import HEADER, READINGS, merge_contract, month, rows_of, state_of, write
from hypothesis import given
from hypothesis import strategies as st

from instep.changes.records import State, load_change
from instep.cli.accept import PreviewedArrival
from instep.cli.review import review_of
from instep.errors import InternalError, RefusedError
from instep.history.repository import MAIN, Repository
from instep.ingest.accept import accept, preview
from instep.ingest.arrive import ingest
from instep.ingest.arrived import Arrived, held_error
from instep.ingest.base import nearest, nearest_profile
from instep.ingest.batch import table_at
from instep.ingest.in_force import contract_of
from instep.ingest.merge import judge_again
from instep.ingest.records import arrival_of_change
from instep.tables.diff import diff_rows

UNITLESS = READINGS.replace("[{property: unit, value: miles}]", "[]")
LOOSE = READINGS.replace("value: 0.05", "value: 0.2")


def arrive(repo: Repository, file: Path) -> Arrived:
    return ingest(repo, file.parent, file, "ana")


def with_policy(text: str, policy: str) -> str:
    return text.replace("value: append", f"value: {policy}")


def broken(rows: list[list[str]], count: int = 40) -> list[list[str]]:
    """The same rows, the first of which break a term."""
    return [[*row[:2], "-1", row[3]] if n < count else row for n, row in enumerate(rows)]


def rows_apart(repo: Repository, before: str, after: str) -> tuple[int, int, int]:
    """How many rows were added, removed and changed between two commits."""
    old, new = (table_at(repo, commit, "readings") for commit in (before, after))
    found = diff_rows(repo.root, old, new, ("station", "at"))
    return found.added, found.removed, found.changed


def head_of(repo: Repository, number: int) -> str:
    with repo.store.reading() as tx:
        return load_change(tx, number).head


@pytest.mark.parametrize(
    ("policy", "shown"),
    [("append", (360, 0, 0)), ("keyed", (360, 0, 0)), ("replace", (360, 300, 0))],
)
def test_the_commit_of_a_held_change_is_what_accepting_it_makes_of_main(
    repo: Repository, tmp_path: Path, policy: str, shown: tuple[int, int, int]
) -> None:
    merge_contract(repo, with_policy(READINGS, policy))
    arrive(repo, write(tmp_path / "readings-1.csv", month(1)[:300]))
    held = arrive(repo, write(tmp_path / "readings-2.csv", broken(month(2))))
    assert held.state is State.HELD
    head = head_of(repo, held.arrival.change)
    assert rows_apart(repo, repo.resolve(MAIN), head) == shown
    accept(repo, held.arrival.change, "ben", why="a sensor was broken")
    assert rows_apart(repo, head, repo.resolve(MAIN)) == (0, 0, 0)


@pytest.mark.parametrize("policy", ["append", "keyed", "replace"])
def test_what_is_held_is_shown_on_what_main_became(
    repo: Repository, tmp_path: Path, policy: str
) -> None:
    merge_contract(repo, with_policy(READINGS, policy))
    arrive(repo, write(tmp_path / "readings-1.csv", month(1)[:300]))
    held = arrive(repo, write(tmp_path / "readings-3.csv", broken(month(3))))
    arrive(repo, write(tmp_path / "readings-2.csv", month(2)))
    number = held.arrival.change
    judge_again(repo, number)
    assert review_of(repo, number).change.state is State.HELD
    head = head_of(repo, number)
    expected = (360, 400, 0) if policy == "replace" else (360, 0, 0)
    assert rows_apart(repo, repo.resolve(MAIN), head) == expected
    merge_contract(repo, "servers: []", "others")
    judge_again(repo, number)
    assert repo.find(head_of(repo, number), "contract/others") is not None
    assert rows_apart(repo, head, head_of(repo, number)) == (0, 0, 0)


def test_what_is_held_is_judged_by_the_contract_that_main_has_now(
    repo: Repository, tmp_path: Path
) -> None:
    merge_contract(repo, READINGS)
    held = arrive(repo, write(tmp_path / "readings-1.csv", broken(month(1))))
    number = held.arrival.change
    assert "correct contracts/readings.yaml" in held_error(held).message
    merge_contract(repo, LOOSE)
    judge_again(repo, number)
    review = review_of(repo, number)
    assert "it fits by now" in review.to_text()
    with repo.store.reading() as tx:
        assert arrival_of_change(tx, number).held_for == ""
    done = accept(repo, number, "ben")
    assert done.state is State.MERGED
    assert rows_of(repo, "select count(*) from readings") == [(360,)]


def test_what_no_longer_fits_is_shown_as_such(repo: Repository, tmp_path: Path) -> None:
    merge_contract(repo, READINGS)
    held = arrive(repo, write(tmp_path / "readings-1.csv", broken(month(1))))
    number = held.arrival.change
    merge_contract(repo, READINGS.replace("maximum: 5000", "maximum: 200"))
    judge_again(repo, number)
    assert "distance.maximum" in review_of(repo, number).to_text()


@pytest.mark.parametrize("approvals", [0, 1])
def test_a_held_file_that_fits_by_now_enters_when_it_arrives_again(
    repo: Repository, tmp_path: Path, approvals: int
) -> None:
    merge_contract(repo, READINGS, approvals=approvals)
    file = write(tmp_path / "readings-1.csv", broken(month(1)))
    held = arrive(repo, file)
    again = arrive(repo, file)
    assert (again.was_here, again.state) == (True, State.HELD)
    merge_contract(repo, LOOSE, approvals=approvals)
    fits = arrive(repo, file)
    assert fits.arrival.change == held.arrival.change
    assert (fits.was_here, fits.state) == (False, State.OPEN if approvals else State.MERGED)
    assert state_of(repo, held.arrival.change) == fits.state.value


def test_a_file_that_waited_for_a_contract_is_judged_once_there_is_one(
    repo: Repository, tmp_path: Path
) -> None:
    held = arrive(repo, write(tmp_path / "readings.csv", month(1)))
    number = held.arrival.change
    judge_again(repo, number)
    assert state_of(repo, number) == "held"
    merge_contract(repo, READINGS)
    judge_again(repo, number)
    assert rows_apart(repo, repo.resolve(MAIN), head_of(repo, number)) == (400, 0, 0)


def test_a_missing_column_names_the_contract_as_a_way_out(repo: Repository, tmp_path: Path) -> None:
    merge_contract(repo, READINGS)
    file = write(tmp_path / "readings-1.csv", month(1), HEADER.replace("late", "x17"))
    held = arrive(repo, file)
    assert "correct contracts/readings.yaml" in held_error(held).message
    merge_contract(repo, READINGS.replace("      - {name: late, logicalType: integer}\n", ""))
    assert arrive(repo, file).state is State.MERGED


@pytest.mark.parametrize("policy", ["append", "keyed", "replace"])
def test_a_preview_by_other_names_is_what_accepting_does_and_changes_nothing(
    repo: Repository, tmp_path: Path, policy: str
) -> None:
    merge_contract(repo, with_policy(READINGS, policy))
    arrive(repo, write(tmp_path / "readings-1.csv", month(1)))
    renamed = HEADER.replace("late", "x17")
    held = arrive(repo, write(tmp_path / "readings-2.csv", broken(month(2), 4), renamed))
    number, before = held.arrival.change, head_of(repo, held.arrival.change)
    shown = preview(repo, number, {"x17": "late"})
    told = PreviewedArrival(number, shown).to_text()
    assert "would bring 396 rows into readings" in told
    assert "4 rows would stay in quarantine (distance.minimum 4)" in told
    assert (head_of(repo, number), state_of(repo, number)) == (before, "held")
    assert rows_apart(repo, repo.resolve(MAIN), before) == (0, 0, 0)
    assert shown.content is not None and not shown.stops
    accepted = accept(repo, number, "ben", rename={"x17": "late"})
    assert accepted.effect == shown.effect
    assert accepted.arrival.quarantined == shown.examined.quarantined == 4
    now = table_at(repo, repo.resolve(MAIN), "readings")
    assert diff_rows(repo.root, shown.content, now, ("station", "at")).is_empty
    with pytest.raises(RefusedError) as ended:
        preview(repo, number)
    assert ended.value.kind == "not-held"


def in_kilometres(rows: list[list[str]]) -> list[list[str]]:
    return [[*row[:2], repr(float(row[2]) * 1.609344), row[3]] for row in rows]


def test_an_old_file_that_is_accepted_late_is_no_base_of_newer_ones(
    repo: Repository, tmp_path: Path
) -> None:
    merge_contract(repo, UNITLESS)
    old = arrive(repo, write(tmp_path / "readings-01.csv", broken(in_kilometres(month(1)))))
    assert old.state is State.HELD
    for number in (2, 3):
        arrive(repo, write(tmp_path / f"readings-{number:02}.csv", month(number)))
    accept(repo, old.arrival.change, "ben", why="known to be kilometres")
    for number in (4, 5):
        arrived = arrive(repo, write(tmp_path / f"readings-{number:02}.csv", month(number)))
        assert arrived.state is State.MERGED, held_error(arrived).message


def test_a_file_of_an_older_period_is_compared_with_the_one_before_that(
    repo: Repository, tmp_path: Path
) -> None:
    merge_contract(repo, UNITLESS)
    arrive(repo, write(tmp_path / "readings-1.csv", in_kilometres(month(1))))
    held = arrive(repo, write(tmp_path / "readings-3.csv", month(3)))
    assert held.arrival.held_for == "unit-factor"
    accept(repo, held.arrival.change, "ben", why="miles since March")
    late = arrive(repo, write(tmp_path / "readings-2.csv", in_kilometres(month(2))))
    assert late.state is State.MERGED
    assert arrive(repo, write(tmp_path / "readings-4.csv", month(4))).state is State.MERGED


def test_without_event_time_the_base_is_what_arrived_last(repo: Repository, tmp_path: Path) -> None:
    merge_contract(repo, UNITLESS.replace("      - {property: eventTime, value: at}\n", ""))
    old = arrive(repo, write(tmp_path / "readings-01.csv", broken(in_kilometres(month(1)))))
    arrive(repo, write(tmp_path / "readings-02.csv", month(2)))
    accept(repo, old.arrival.change, "ben", why="known to be kilometres")
    arrived = arrive(repo, write(tmp_path / "readings-03.csv", month(3)))
    assert arrived.state is State.MERGED


STARTS = st.integers(1, 31).map(lambda day: f"2013-01-{day:02}")


@given(st.lists(st.none() | STARTS, max_size=60), STARTS)
def test_the_base_is_the_last_that_starts_before_or_else_the_first_that_starts_later(
    starts: list[str | None], first: str
) -> None:
    found = nearest([(str(n), start) for n, start in enumerate(starts)], first)
    known = [start for start in starts if start is not None]
    fit: list[str] = [start for start in sorted(known) if start <= first][-1:]
    expected = fit or sorted(known)[:1]
    assert found == (str(starts.index(expected[0])) if expected else None)


def bases(repo: Repository, starts: list[str]) -> list[str | None]:
    """Returns which arrivals, by their files' names, new files of such starts are compared with."""
    in_force = contract_of(repo, repo.resolve(MAIN), "readings")
    assert in_force is not None
    with repo.store.reading() as tx:
        rows = tx.rows("select profile, file_name from arrivals")
    names = {str(profile): str(name) for profile, name in rows}
    found = [nearest_profile(repo, in_force.contract, start) for start in starts]
    return [names[digest] if digest else None for digest in found]


def test_a_backfill_does_not_hide_the_batches_that_came_before_it(
    repo: Repository, tmp_path: Path
) -> None:
    merge_contract(repo, UNITLESS)
    for year in (2013, 2012):
        for number in range(1, 13):
            rows = [[one[0], one[1].replace("2013", str(year)), *one[2:]] for one in month(number)]
            arrive(repo, write(tmp_path / f"readings-{year}-{number:02}.csv", rows[:100]))
    assert bases(repo, ["2013-06-15", "2012-03-02", "2011-01-01", "2014-01-01"]) == [
        "readings-2013-06.csv",
        "readings-2012-03.csv",
        "readings-2012-01.csv",
        "readings-2013-12.csv",
    ]


@pytest.mark.parametrize("distance", ["5001", "94"])
def test_a_row_of_long_ago_good_or_not_makes_no_batch_the_oldest(
    repo: Repository, tmp_path: Path, distance: str
) -> None:
    merge_contract(repo, UNITLESS)
    arrive(repo, write(tmp_path / "readings-1.csv", month(1)))
    odd = ["A", "1970-01-01T00:00:00Z", distance, "0"]
    arrive(repo, write(tmp_path / "readings-2.csv", [odd, *month(2)]))
    arrive(repo, write(tmp_path / "readings-3.csv", month(3)))
    assert bases(repo, ["2013-02-20", "2013-01-20", "1990-01-01"]) == [
        "readings-2.csv",
        "readings-1.csv",
        "readings-1.csv",
    ]
    last = arrive(repo, write(tmp_path / "readings-4.csv", [odd, *month(4)]))
    with repo.store.reading() as tx:
        [compared] = [load_change(tx, last.arrival.change).evidence["compared"]]
        [name] = tx.rows("select file_name from arrivals where profile = ?", (str(compared),))
    assert name == ("readings-3.csv",)


def test_a_kept_file_that_a_disk_changed_is_not_accepted(repo: Repository, tmp_path: Path) -> None:
    merge_contract(repo, READINGS)
    arrive(repo, write(tmp_path / "readings-1.csv", month(1)))
    renamed = write(tmp_path / "readings-2.csv", month(2), HEADER.replace("late", "delay"))
    held = arrive(repo, renamed).arrival
    before = repo.resolve(MAIN)
    kept = repo.objects.path(held.file_digest)
    right = kept.read_bytes()
    kept.write_bytes(right[:-3] + bytes([right[-3] ^ 1]) + right[-2:])

    with pytest.raises(InternalError, match=held.file_digest) as caught:
        accept(repo, held.change, "ben", rename={"delay": "late"}, why="the same")

    assert caught.value.kind == "damaged-object"
    assert repo.resolve(MAIN) == before
    kept.write_bytes(right)
    accept(repo, held.change, "ben", rename={"delay": "late"}, why="the same")
    assert rows_of(repo, "select count(*) from readings") == [(800,)]
