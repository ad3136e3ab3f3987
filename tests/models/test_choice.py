from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_builders import START

from instep.clock import Window
from instep.models.choice import (
    STANDARD_ERRORS,
    CandidateScores,
    WindowScore,
    choose,
    gain,
    worst_window,
)
from instep.models.spec import AcceptableError, Metric, MetricName
from instep.models.windows import Fold

AUC = Metric(MetricName.ROC_AUC)
BRIER = Metric(MetricName.BRIER)
ACCEPTABLE = AcceptableError(Metric(MetricName.PRECISION, 0.5), 0.5, "One in two.")


def scores(
    name: str,
    metrics: list[float | None],
    kept: list[bool] | None = None,
    noise: float | None = None,
) -> CandidateScores:
    windows = []
    for place, metric in enumerate(metrics):
        cut = START + timedelta(days=10 * place)
        fold = Fold(Window(cut - timedelta(days=20), cut), Window(cut, cut + timedelta(days=10)))
        is_kept = kept[place] if kept else True
        windows.append(WindowScore(fold, metric, 0.6, is_kept, 100, 50, 10, 0, 0, noise))
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
    constant = scores("constant", [0.5, 0.5, 0.5], [False] * 3)
    best = scores("best", [0.9, 0.9, 0.9], [True, True, False])
    dull = scores("dull", [0.6, 0.6, 0.6])

    found = choose([constant, best, dull], AUC, ACCEPTABLE)

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


@pytest.mark.parametrize(
    ("metrics", "noise", "beats"),
    [
        # Mean 0.10; standard errors between windows 0.026 and 0.043, of two windows 0.02.
        ([0.55, 0.70, 0.55, 0.65, 0.55, 0.60], None, True),
        ([0.45, 0.75, 0.55, 0.65, 0.55, 0.65], None, False),
        ([0.62, 0.58], None, True),
        # What the rows leave: of two windows 0.021 and 0.057, of four 0.04.
        ([0.62, 0.58], 0.03, True),
        ([0.62, 0.58], 0.08, False),
        ([0.60, 0.60, 0.60, 0.60], 0.08, False),
        ([0.90], None, False),
        ([0.90], 0.10, True),
        ([0.90], 0.15, False),
        ([0.90, None], 0.01, False),
        ([0.50, 0.50], 0.0, False),
        ([0.40, 0.40], 0.0, False),
    ],
)
def test_nothing_is_a_model_unless_it_beats_the_constant_by_more_than_chance(
    metrics: list[float | None], noise: float | None, beats: bool
) -> None:
    constant = scores("constant", [0.5] * len(metrics))
    rich = scores("rich", metrics, noise=noise)

    found = choose([constant, rich], AUC, ACCEPTABLE)

    assert found.is_releasable == found.beats_constant == beats
    assert (found.name == "rich") or not beats
    said = "No model: nothing beats the constant by more than chance"
    assert found.reason.startswith(said) != beats
    assert found.to_json()["beats_constant"] == beats


@pytest.mark.parametrize(
    ("metrics", "noise", "said"),
    [
        ([0.52, 0.48, 0.53], None, '(best "rich" +0.010 ± 0.015 roc_auc).'),
        ([0.62, 0.58], 0.08, "+0.100 ± 0.020 roc_auc; its rows alone leave ± 0.057)."),
        ([0.9], None, "+0.400 roc_auc, in one window, that cannot tell)."),
        ([0.9, None], 0.1, "(roc_auc is undefined in a window)."),
    ],
)
def test_the_best_that_was_no_model_is_told_and_how_far_it_came(
    metrics: list[float | None], noise: float | None, said: str
) -> None:
    constant = scores("constant", [0.5] * len(metrics))

    found = choose([constant, scores("rich", metrics, noise=noise)], AUC, ACCEPTABLE)

    assert found.reason.endswith(said)


def test_what_beats_the_constant_is_chosen_before_what_only_comes_near_it() -> None:
    constant = scores("constant", [0.5] * 6)
    wavering = scores("wavering", [0.80, 0.52, 0.90, 0.50, 0.85, 0.49])
    steady = scores("steady", [0.60, 0.62, 0.61, 0.60, 0.59, 0.60])

    found = choose([constant, wavering, steady], AUC, ACCEPTABLE)

    assert (found.name, found.is_releasable) == ("steady", True)


def test_an_acceptable_error_that_only_chance_kept_makes_no_model() -> None:
    constant = scores("constant", [0.5] * 4, [False] * 4)
    lucky = scores("lucky", [0.52, 0.48, 0.53, 0.47])
    missed = scores("missed", [0.7, 0.7, 0.71, 0.7], [True, True, True, False])

    found = choose([constant, lucky, missed], AUC, ACCEPTABLE)

    assert (found.name, found.is_releasable, found.beats_constant) == ("lucky", False, False)
    assert found.reason.endswith(
        "nothing beats the constant by more than chance and kept precision at 0.5 at least 0.5 in "
        "every window."
    )


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
    assert not eligible or (found.name in eligible and found.best in eligible)
    assert found.is_releasable == (found.name in eligible and found.beats_constant)
    assert ("No model" in found.reason) == (not found.beats_constant)
    if found.is_releasable:
        assert found.gain is not None and found.gain.standard_error is not None
        assert found.gain.mean >= STANDARD_ERRORS * found.gain.standard_error
    assert int(found.name) <= int(found.best)
