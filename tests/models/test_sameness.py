from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from model_builders import departures, trained
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from instep.models.sameness import (
    Different,
    EqualButForSummation,
    Identical,
    compare,
    model_digest,
    relative_difference,
)

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(400, 3))
Y = (X[:, 0] + RANDOM.normal(size=400) > 0).astype(int)


def _boosted(**params: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=5, random_state=1, **params).fit(X, Y)


def test_fitting_twice_gives_one_digest() -> None:
    assert model_digest(_boosted()) == model_digest(_boosted())
    assert compare(_boosted(), _boosted()) == Identical()


def test_another_parameter_or_another_row_gives_another_digest() -> None:
    other = HistGradientBoostingClassifier(max_iter=5, random_state=1).fit(X[1:], Y[1:])

    assert model_digest(_boosted()) != model_digest(_boosted(max_depth=2))
    assert model_digest(_boosted()) != model_digest(other)
    assert isinstance(compare(_boosted(), other), Different)


def test_a_last_digit_is_another_order_of_summing_and_more_is_not() -> None:
    first = LogisticRegression().fit(X, Y)
    near, far = LogisticRegression().fit(X, Y), LogisticRegression().fit(X, Y)
    near.coef_ = first.coef_ * (1 + 1e-12)
    far.coef_ = first.coef_ * (1 + 1e-3)

    found = compare(first, near)

    assert isinstance(found, EqualButForSummation)
    assert found.largest_relative_difference == pytest.approx(1e-12, rel=1e-3)
    assert "summation order" in str(found)
    assert isinstance(compare(first, far), Different)
    assert model_digest(first) != model_digest(near)


def test_a_name_tells_where_two_models_differ() -> None:
    found = compare(LogisticRegression(C=1.0), LogisticRegression(C=2.0))

    assert isinstance(found, Different)
    assert "'C'" in found.where


def test_memory_layout_and_padding_are_not_part_of_a_value() -> None:
    padded = np.zeros(2, dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True))
    packed = padded.astype(np.dtype([("a", "i1"), ("b", "f8")]))
    rows = np.arange(6.0).reshape(2, 3)
    columns = np.asfortranarray(rows)

    assert model_digest({"x": padded}) == model_digest({"x": packed})
    assert model_digest({"x": rows}) == model_digest({"x": columns})
    assert model_digest({"x": rows}) != model_digest({"x": rows.reshape(3, 2)})
    assert model_digest({"x": rows}) != model_digest({"x": rows.astype("f4")})


def test_the_digest_does_not_depend_on_the_order_in_which_state_was_set() -> None:
    assert model_digest({"a": 1, "b": 2.0}) == model_digest({"b": 2.0, "a": 1})
    assert model_digest({"a": 1}) != model_digest({"a": 1.0})
    assert model_digest({"a": True}) != model_digest({"a": 1})


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0, np.nan], [1.0, np.nan], 0.0),
        ([1.0], [np.nan], np.inf),
        ([1.0, 2.0], [1.0], np.inf),
        ([np.inf], [np.inf], 0.0),
        ([np.inf], [1.0], np.inf),
        ([0.0], [-0.0], 0.0),
        ([2.0], [1.0], 0.5),
    ],
)
def test_relative_difference(a: list[float], b: list[float], expected: float) -> None:
    left: npt.NDArray[np.float64] = np.array(a)
    right: npt.NDArray[np.float64] = np.array(b)

    assert relative_difference(left, right) == expected


def test_training_twice_gives_the_same_model() -> None:
    table = departures(60)

    assert compare(trained(table).estimator, trained(table).estimator) == Identical()
