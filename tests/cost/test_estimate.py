"""An estimate says on what it rests, and follows what earlier runs took."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instep.cost.estimate import (
    BASE_MEMORY_BYTES,
    Actual,
    Work,
    WorkKind,
    describe,
    describe_bytes,
    describe_seconds,
    estimate,
    money,
    total,
)

SQL = Work(WorkKind.SQL, 1000, 8_000_000)


def test_a_first_run_is_called_a_guess_from_its_bytes() -> None:
    found = estimate(SQL, ())
    assert found.basis == "first run: a guess from 8 MB"
    assert found.seconds > 0 and found.memory_bytes > BASE_MEMORY_BYTES


def test_later_runs_are_scaled_from_the_ones_before() -> None:
    past = [Actual(Work(WorkKind.SQL, 500, 4_000_000), 2.0, BASE_MEMORY_BYTES + 100)]
    found = estimate(SQL, past)
    assert found.seconds == 4.0
    assert found.memory_bytes == BASE_MEMORY_BYTES + 200
    assert found.basis == "scaled from the last run"


def test_work_of_another_kind_tells_nothing() -> None:
    past = [Actual(Work(WorkKind.TRAIN, 1, 4_000_000), 99.0, 1)]
    assert estimate(SQL, past) == estimate(SQL, ())


def test_nothing_to_compute_costs_nothing() -> None:
    nothing = estimate(Work(WorkKind.SQL, 0, 0), ())
    assert (nothing.seconds, describe(nothing)) == (0.0, "nothing to compute")
    assert describe(total([nothing])) == "nothing to compute"


def test_steps_add_up_in_time_and_share_memory() -> None:
    parts = [estimate(SQL, ()), estimate(SQL, ())]
    whole = total(parts)
    assert whole.rows == 2000
    assert whole.seconds == 2 * parts[0].seconds
    assert whole.memory_bytes == parts[0].memory_bytes
    assert whole.basis == "first run: a guess from 16 MB"


def test_figures_have_units_that_keep_them_short() -> None:
    assert [describe_bytes(size) for size in (12, 8_000_000, 3e12)] == ["12 B", "8 MB", "3.0 TB"]
    assert [describe_seconds(s) for s in (0.01, 4.25, 60, 600, 7200)] == [
        "0.1 s", "4.2 s", "60 s", "10 min", "2.0 h",
    ]  # fmt: skip
    assert money(3600, 2, 0.05) == 0.1


@given(st.integers(1, 10**12), st.floats(0.1, 1e5), st.integers(1, 10**12))
def test_the_same_work_again_is_estimated_as_it_was(size: int, seconds: float, rows: int) -> None:
    work = Work(WorkKind.TRAIN, rows, size)
    found = estimate(work, [Actual(work, seconds, BASE_MEMORY_BYTES + size)])
    assert found.seconds == seconds
    assert found.memory_bytes == BASE_MEMORY_BYTES + size
