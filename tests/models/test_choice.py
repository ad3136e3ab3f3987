from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_builders import START

from instep.clock import Window
from instep.models.choice import CandidateScores, WindowScore, choose, gain, worst_window
from instep.models.spec import AcceptableError, Metric, MetricName
from instep.models.windows import Fold

AUC = Metric(MetricName.ROC_AUC)
BRIER = Metric(MetricName.BRIER)
ACCEPTABLE = AcceptableError(Metric(MetricName.PRECISION, 0.5), 0.5, "One in two.")


def scores(
    name: str, metrics: list[float | None], kept: list[bool] | None = None
) -> CandidateScores:
    windows = []
    for place, metric in enumerate(metrics):
        cut = START + timedelta(days=10 * place)
        fold = Fold(Window(cut - timedelta(days=20), cut), Window(cut, cut + timedelta(days=10)))
        is_kept = kept[place] if kept else True
        windows.append(WindowScore(fold, metric, 0.6, is_kept, 100, 50, 10, 0, 0))
    return CandidateScores(name, {}, tuple(windows))


def test_the_best_worst_window_wins_over_the_best_average() -> None:
    steady = scores("steady", [0.70, 0.70, 0.70])
    brilliant = scores("brilliant", [0.95, 0.95, 0.55])

    found = choose([scores("constant", [0.5] * 3, [False] * 3), brilliant, steady], AUC, ACCEPTABLE)

    assert found.best == "steady"


def test_an_earlier_candidate_within_one_standard_error_wins() -> None:
    # Differences 0.02, -0.01, 0.02: mean 0.010, standard error 0.010.
    simple = scores("simple", [0.70, 0.71, 0.72])
    rich = scores("rich", [0.72, 0.70, 0.74])
    clearly = scores("clearly", [0.80, 0.81, 0.83])

    assert choose([simple, rich], AUC, ACCEPTABLE).name == "simple"
    assert choose([simple, clearly], AUC, ACCEPTABLE).name == "clearly"


def test_a_constant_that_is_good_enough_is_preferred() -> None:
    constant = scores("constant", [0.20, 0.22, 0.20])
    rich = scores("rich", [0.201, 0.219, 0.199])

    assert choose([constant, rich], BRIER, ACCEPTABLE).name == "constant"


def test_one_bad_window_is_enough_to_be_ineligible() -> None:
    best = scores("best", [0.9, 0.9, 0.9], [True, True, False])
    dull = scores("dull", [0.6, 0.6, 0.6])

    found = choose([best, dull], AUC, ACCEPTABLE)

    assert found.name == "dull"
    assert found.is_releasable


def test_when_none_is_eligible_one_is_chosen_and_may_not_be_released() -> None:
    constant = scores("constant", [0.5, 0.5], [False, False])
    best = scores("best", [0.9, 0.9], [True, False])

    found = choose([constant, best], AUC, ACCEPTABLE)

    assert found.name == "best"
    assert not found.is_releasable
    assert "may not be released" in found.reason


def test_an_undefined_score_is_the_worst() -> None:
    holey = scores("holey", [0.9, None])
    dull = scores("dull", [0.51, 0.52])

    assert choose([holey, dull], AUC, ACCEPTABLE).name == "dull"
    assert worst_window(holey, AUC) is holey.windows[1]


def test_ties_go_to_the_candidate_listed_first() -> None:
    assert choose([scores("a", [0.7, 0.8]), scores("b", [0.7, 0.8])], AUC, ACCEPTABLE).name == "a"


def test_the_worst_of_equal_windows_is_the_latest() -> None:
    found = scores("a", [0.7, 0.8, 0.7])

    assert worst_window(found, AUC) is found.windows[2]


def test_lower_is_better_where_the_metric_says_so() -> None:
    assert choose([scores("a", [0.3, 0.3]), scores("b", [0.1, 0.1])], BRIER, ACCEPTABLE).name == "b"
    found = gain(scores("b", [0.1, 0.1]), scores("a", [0.3, 0.3]), BRIER)
    assert found is not None
    assert found.mean == pytest.approx(0.2)


def test_one_window_gives_no_standard_error_and_the_better_wins() -> None:
    simple, rich = scores("simple", [0.7]), scores("rich", [0.701])

    assert choose([simple, rich], AUC, ACCEPTABLE).name == "rich"
    found = gain(rich, simple, AUC)
    assert found is not None
    assert found.mean == pytest.approx(0.001)
    assert found.standard_error is None


metric_rows = st.lists(
    st.lists(st.none() | st.floats(0.01, 0.99), min_size=3, max_size=3), min_size=1, max_size=5
)


@given(metric_rows, st.lists(st.booleans(), min_size=5, max_size=5))
def test_the_chosen_is_never_listed_after_the_best_and_is_eligible_if_any_is(
    rows: list[list[float | None]], kept: list[bool]
) -> None:
    candidates = [scores(str(i), row, [kept[i]] * 3) for i, row in enumerate(rows)]

    found = choose(candidates, AUC, ACCEPTABLE)

    eligible = [c.name for c in candidates if c.is_eligible]
    assert found.is_releasable == bool(eligible)
    assert not eligible or (found.name in eligible and found.best in eligible)
    assert int(found.name) <= int(found.best)
