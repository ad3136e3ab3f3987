from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.errors import InvalidError
from instep.models.metrics import measure, noise
from instep.models.spec import AcceptableError, Metric, MetricName, parse_metric

OBSERVED = np.array([1, 0, 1, 0])
PREDICTED = np.array([0.9, 0.6, 0.4, 0.1])


def test_figures_of_four_rows() -> None:
    assert measure(Metric(MetricName.ROC_AUC), OBSERVED, PREDICTED) == 0.75
    assert measure(Metric(MetricName.PRECISION, 0.5), OBSERVED, PREDICTED) == 0.5
    assert measure(Metric(MetricName.RECALL, 0.4), OBSERVED, PREDICTED) == 1.0
    assert measure(Metric(MetricName.BRIER), OBSERVED, PREDICTED) == pytest.approx(0.185)
    expected = -np.mean(np.log([0.9, 0.4, 0.4, 0.9]))
    assert measure(Metric(MetricName.LOG_LOSS), OBSERVED, PREDICTED) == pytest.approx(expected)


def test_what_is_undefined_is_none_and_has_not_kept_the_acceptable_error() -> None:
    nothing_above = measure(Metric(MetricName.PRECISION, 0.95), OBSERVED, PREDICTED)
    one_outcome = measure(Metric(MetricName.ROC_AUC), np.array([1, 1]), np.array([0.2, 0.3]))
    no_rows = measure(Metric(MetricName.BRIER), np.array([], int), np.array([]))

    assert (nothing_above, one_outcome, no_rows) == (None, None, None)
    assert not AcceptableError(Metric(MetricName.PRECISION, 0.95), 0.0, "").is_met_by(None)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1))
def test_precision_and_recall_are_what_counting_gives(rows: list[tuple[bool, float]]) -> None:
    observed = np.array([int(happened) for happened, _ in rows])
    predicted = np.array([score for _, score in rows])
    hits = sum(happened and score >= 0.5 for happened, score in rows)
    called = sum(score >= 0.5 for _, score in rows)

    precision = measure(Metric(MetricName.PRECISION, 0.5), observed, predicted)
    recall = measure(Metric(MetricName.RECALL, 0.5), observed, predicted)

    assert precision == (pytest.approx(hits / called) if called else None)
    assert recall == (pytest.approx(hits / observed.sum()) if observed.sum() else None)


def test_the_bound_turns_round_where_lower_is_better() -> None:
    brier = AcceptableError(Metric(MetricName.BRIER), 0.2, "")

    assert brier.is_met_by(0.1)
    assert brier.is_met_by(0.2)
    assert not brier.is_met_by(0.3)
    assert str(brier) == "brier at most 0.2"


@pytest.mark.parametrize(
    ("name", "at"), [("precision", None), ("roc_auc", 0.5), ("accuracy", None)]
)
def test_a_metric_that_makes_no_sense_is_refused(name: str, at: float | None) -> None:
    with pytest.raises(InvalidError) as error:
        parse_metric(name, at)

    assert error.value.kind == "bad-metric"


@pytest.mark.parametrize("name", [MetricName.ROC_AUC, MetricName.BRIER, MetricName.LOG_LOSS])
def test_noise_is_how_far_the_lead_over_a_constant_strays_where_scores_tell_nothing(
    name: MetricName,
) -> None:
    generator = np.random.default_rng(1)
    metric = Metric(name)
    leads, errors = [], []
    for _ in range(400):
        observed = (generator.random(150) < 0.3).astype(np.int64)
        predicted = generator.uniform(0.25, 0.35, 150)
        ours, theirs = (measure(metric, observed, one) for one in (predicted, np.full(150, 0.3)))
        assert ours is not None and theirs is not None
        leads.append(ours - theirs)
        errors.append(noise(metric, observed, predicted, 0.3))

    assert np.mean([one for one in errors if one is not None]) == pytest.approx(
        np.std(leads), rel=0.1
    )


def test_rows_of_one_outcome_and_metrics_that_count_decisions_have_no_noise() -> None:
    same, scored = np.ones(9, np.int64), np.full(9, 0.5)
    assert noise(Metric(MetricName.ROC_AUC), same, scored, 0.5) is None
    assert noise(Metric(MetricName.PRECISION, 0.5), same, scored, 0.5) is None
    assert noise(Metric(MetricName.BRIER), same[:1], scored[:1], 0.5) is None
