from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_builders import START, slice_of, window

from instep.clock import Duration, Window, parse_duration
from instep.errors import InvalidError
from instep.models.spec import Windows
from instep.models.windows import final_window, walk_forward

days = st.integers(min_value=1, max_value=40)


def _windows(train: str, test: str, step: str) -> Windows:
    return Windows(parse_duration(train), parse_duration(test), parse_duration(step))


def test_eight_months_give_five_windows_and_name_the_one_that_is_dropped() -> None:
    found = walk_forward(
        window("2013-01-01", "2013-09-01"), _windows("90 days", "30 days", "30 days")
    )

    assert [str(fold.test) for fold in found.folds] == [
        "2013-04-01 to 2013-05-01",
        "2013-05-01 to 2013-05-31",
        "2013-05-31 to 2013-06-30",
        "2013-06-30 to 2013-07-30",
        "2013-07-30 to 2013-08-29",
    ]
    assert str(found.folds[1].train) == "2013-01-31 to 2013-05-01"
    assert str(found.dropped) == "2013-08-29 to 2013-09-28"


def test_windows_of_calendar_months_follow_the_calendar() -> None:
    found = walk_forward(
        window("2013-01-01", "2013-06-01"), _windows("2 months", "1 month", "1 month")
    )

    assert [str(fold.test) for fold in found.folds] == [
        "2013-03-01 to 2013-04-01",
        "2013-04-01 to 2013-05-01",
        "2013-05-01 to 2013-06-01",
    ]
    assert str(found.folds[2].train) == "2013-03-01 to 2013-05-01"


@given(length=st.integers(min_value=1, max_value=400), train=days, test=days, more=days)
def test_windows_never_overlap_and_stay_in_the_slice(
    length: int, train: int, test: int, more: int
) -> None:
    within = slice_of(length)
    step = test + more - 1
    windows = Windows(_days(train), _days(test), _days(step))
    if length < train + test:
        with pytest.raises(InvalidError) as error:
            walk_forward(within, windows)
        assert error.value.kind == "no-windows"
        return

    found = walk_forward(within, windows)

    assert len(found.folds) == (length - train - test) // step + 1
    for fold in found.folds:
        assert fold.train.end == fold.test.start
        assert within.start <= fold.train.start
        assert fold.test.end <= within.end
    for before, after in zip(found.folds, found.folds[1:], strict=False):
        assert before.test.end <= after.test.start
        assert (before.test.end == after.test.start) == (step == test)
    assert found.dropped.end > within.end


def test_test_windows_that_would_overlap_are_refused() -> None:
    with pytest.raises(InvalidError) as error:
        walk_forward(slice_of(60), _windows("20 days", "10 days", "5 days"))

    assert error.value.kind == "windows-overlap"


def test_the_final_fit_uses_the_end_of_the_slice() -> None:
    found = final_window(slice_of(60), _windows("20 days", "10 days", "10 days"))

    assert found == Window(START + timedelta(days=40), START + timedelta(days=60))


def _days(count: int) -> Duration:
    return Duration(span=timedelta(days=count))
