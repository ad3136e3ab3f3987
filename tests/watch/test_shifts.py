from __future__ import annotations

import pyarrow as pa
import pytest

from instep.models.profile import FeatureProfile, profile_features
from instep.models.signature import learn_signature
from instep.watch.shifts import find_shifts


def profiles(wind: list[float | None], carrier: list[str | None]) -> tuple[FeatureProfile, ...]:
    table = pa.table(
        {"wind": pa.array(wind, pa.float64()), "carrier": pa.array(carrier, pa.string())}
    )
    return profile_features(table, learn_signature(table, ("wind", "carrier")))


CALM: list[float | None] = [float(value) for value in range(100)]
EVEN: list[str | None] = ["A", "B"] * 50


def test_the_same_rows_have_not_shifted() -> None:
    before = profiles(CALM, EVEN)

    assert [shift.distance for shift in find_shifts(before, before)] == [0.0, 0.0]


def test_the_largest_shift_comes_first_and_is_said_in_its_own_units() -> None:
    stormy: list[float | None] = [value + 50 if value is not None else None for value in CALM]
    mostly: list[str | None] = [*["A"] * 60, *["B"] * 40]

    wind, carrier = find_shifts(profiles(CALM, EVEN), profiles(stormy, mostly))

    assert (wind.feature, wind.text) == ("wind", "median 49.5 before, 99.5 now")
    assert wind.distance == pytest.approx(0.5, abs=0.02)
    assert wind.is_material
    assert carrier.distance == pytest.approx(0.1)
    assert carrier.text == "A in 50.0% before, 60.0% now"


def test_values_that_go_missing_are_a_shift() -> None:
    holes: list[float | None] = [None if place % 2 else value for place, value in enumerate(CALM)]

    wind = find_shifts(profiles(CALM, EVEN), profiles(holes, EVEN))[0]

    assert wind.distance == 0.5
    assert wind.text == "missing in 0.0% before, 50.0% now"


def test_a_new_category_counts_with_its_rows() -> None:
    new: list[str | None] = ["A", "Z"] * 50

    carrier = find_shifts(profiles(CALM, EVEN), profiles(CALM, new))[0]

    assert carrier.distance == pytest.approx(0.5)


def test_nothing_on_one_side_is_said_and_is_no_shift_of_values() -> None:
    nothing: list[float | None] = [None] * 100

    wind = find_shifts(profiles(CALM, EVEN), profiles(nothing, EVEN))[0]

    assert wind.text == "missing in 0.0% before, 100.0% now"
