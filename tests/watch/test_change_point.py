from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.watch.change_point import MIN_DAYS, find_change, mean_error


def noise(days: int, seed: int, memory: float = 0.0) -> list[float]:
    """Returns days that depend on the day before by `memory`."""
    generator = np.random.default_rng(seed)
    values, last = [], 0.0
    for step in generator.normal(0, 0.1, days):
        last = memory * last + float(step)
        values.append(last)
    return values


@pytest.mark.parametrize("at", [30, 75, 120])
def test_a_clear_change_is_found_on_its_day_and_believed(at: int) -> None:
    values = [value + (0.3 if day >= at else 0.0) for day, value in enumerate(noise(150, 1))]

    found = find_change(values)

    assert found is not None
    assert abs(found.at - at) <= 2
    assert found.earliest <= found.at <= found.latest
    assert found.after - found.before == pytest.approx(0.3, abs=0.05)
    assert found.p_value <= 0.005


def test_days_that_only_wander_are_rarely_believed_to_have_changed() -> None:
    alarms = 0
    for seed in range(40):
        found = find_change(noise(150, seed, memory=0.5))
        assert found is not None
        alarms += found.p_value <= 0.01

    # Two of forty is the 95 % bound for one in a hundred; shuffling single days gives about ten.
    assert alarms <= 2


def test_too_few_days_say_nothing() -> None:
    assert find_change(noise(2 * MIN_DAYS - 1, 1)) is None
    assert mean_error(noise(MIN_DAYS - 1, 1)) is None


def test_equal_days_have_not_changed() -> None:
    found = find_change([0.1] * 60)

    assert found is not None
    assert found.p_value == 1.0


def test_the_same_days_give_the_same_answer() -> None:
    assert find_change(noise(90, 2)) == find_change(noise(90, 2))


@given(st.lists(st.floats(-1, 1), min_size=28, max_size=60), st.floats(-1, 1))
def test_a_change_lies_inside_the_series_and_does_not_depend_on_its_level(
    values: list[float], level: float
) -> None:
    found = find_change(values)

    assert found is not None
    assert MIN_DAYS <= found.at <= len(values) - MIN_DAYS
    assert MIN_DAYS <= found.earliest <= found.latest <= len(values) - MIN_DAYS
    assert 0 < found.p_value <= 1


def test_the_error_of_independent_days_is_the_usual_one_and_more_when_they_depend() -> None:
    alone = noise(2000, 3)
    linked = noise(2000, 3, memory=0.5)

    usual = float(np.std(alone) / np.sqrt(len(alone)))
    assert mean_error(alone) == pytest.approx(usual, rel=0.15)
    plain = float(np.std(linked) / np.sqrt(len(linked)))
    assert (mean_error(linked) or 0) > 1.4 * plain
