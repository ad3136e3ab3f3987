"""Labels that are a coin flip make no model; labels of which features tell something make one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from model_builders import PER_DAY, START, trained
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from instep.models.choice import Choice
from instep.models.spec import AcceptableError, Candidate, Metric, MetricName
from instep.models.training import TrainingRows

ANY_ERROR = AcceptableError(Metric(MetricName.BRIER), 0.9, "Any model will do here.")
CANDIDATES = (
    Candidate("linear", {"depth": 0}),
    Candidate("shallow", {"depth": 2}),
    Candidate("deep", {"depth": 6}),
)
EFFECT = 1.95
"""Log odds from calm to storm: the area under the curve of the wind alone is then 0.65."""


def fit(train: TrainingRows, params: dict[str, Any], seed: int) -> Any:  # scikit-learn: no types
    depth = params["depth"]
    estimator = (
        DecisionTreeClassifier(max_depth=depth, random_state=seed)
        if depth
        else make_pipeline(StandardScaler(), LogisticRegression())
    )
    return estimator.fit(train.features, train.target)


def choice(seed: int, windows: int, candidates: int, effect: float = 0.0) -> Choice:
    """Returns the choice among rows of which the wind alone tells anything, and that by `effect`.

    A window trains on 400 rows and tests on 200.
    """
    generator = np.random.default_rng(seed)
    days = 20 + 10 * windows
    rows = days * PER_DAY
    wind = generator.uniform(0, 1, rows)
    at = [START + timedelta(days=n // PER_DAY, hours=n % PER_DAY) for n in range(rows)]
    values: dict[str, Any] = {
        "flight": np.arange(rows),
        "time_hour": pa.array(at, pa.timestamp("us", "UTC")),
        "hour": generator.integers(0, 24, rows),
        "carrier": generator.choice(["A", "B", "C"], rows),
        "wind": wind,
        "known_at": pa.array([one + timedelta(hours=1) for one in at]),
        "late": generator.random(rows) < 1 / (1 + np.exp(-effect * (wind - 0.5))),
    }
    return trained(
        pa.table(values),
        fit,
        days,
        features=("hour", "carrier", "wind"),
        candidates=CANDIDATES[:candidates],
        acceptable_error=ANY_ERROR,
    ).choice


def models_of_chance(seeds: range, windows: int, candidates: int) -> int:
    found = [choice(seed, windows, candidates) for seed in seeds]
    for one in found:
        assert one.is_releasable == one.beats_constant
        assert one.beats_constant == (not one.reason.startswith("No model: nothing beats"))
    return sum(one.is_releasable for one in found)


def models_of_effect(seeds: range, windows: int, candidates: int) -> int:
    return sum(choice(seed, windows, candidates, EFFECT).is_releasable for seed in seeds)


@pytest.mark.parametrize(("windows", "candidates"), [(2, 3), (6, 2)])
def test_labels_of_a_coin_hardly_ever_make_a_model(windows: int, candidates: int) -> None:
    assert models_of_chance(range(20), windows, candidates) <= 2


def test_a_real_effect_makes_a_model() -> None:
    assert models_of_effect(range(10), windows=6, candidates=2) >= 9


@pytest.mark.long
@pytest.mark.parametrize(("windows", "candidates"), [(1, 3), (2, 1), (3, 3), (6, 3)])
def test_of_two_hundred_coins_at_most_twenty_make_a_model(windows: int, candidates: int) -> None:
    assert models_of_chance(range(200), windows, candidates) <= 20


@pytest.mark.long
@pytest.mark.parametrize("candidates", [1, 3])
def test_of_forty_real_effects_nine_in_ten_make_a_model(candidates: int) -> None:
    assert models_of_effect(range(40), windows=6, candidates=candidates) >= 36
