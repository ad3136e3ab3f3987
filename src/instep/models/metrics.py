"""How good scores were against what happened. A figure that is not defined is None, never 0."""

from __future__ import annotations

from typing import assert_never

import numpy as np
import numpy.typing as npt

from instep.models.choice import auc_noise
from instep.models.spec import Metric, MetricName

Scores = npt.NDArray[np.float64]
Outcomes = npt.NDArray[np.int64]


def measure(metric: Metric, observed: Outcomes, predicted: Scores) -> float | None:
    """Returns `metric`, or None where it is undefined.

    `observed` holds 0 and 1, `predicted` the probability of 1, of the same rows. Undefined are:
    everything of no rows, roc_auc when only one outcome occurs, precision when nothing reaches the
    threshold, recall when nothing was positive.
    """
    from sklearn import metrics

    if not len(observed):
        return None
    match metric.name:
        case MetricName.ROC_AUC:
            if observed.min() == observed.max():
                return None
            return float(metrics.roc_auc_score(observed, predicted))
        case MetricName.LOG_LOSS:
            return float(metrics.log_loss(observed, predicted, labels=[0, 1]))
        case MetricName.BRIER:
            return float(np.mean((predicted - observed) ** 2))
        case MetricName.PRECISION:
            return _share(observed[predicted >= _threshold(metric)])
        case MetricName.RECALL:
            return _share(predicted[observed == 1] >= _threshold(metric))
        case _:
            assert_never(metric.name)


def noise(metric: Metric, observed: Outcomes, predicted: Scores, constant: float) -> float | None:
    """Returns the standard error of `metric`'s lead over a constant score, as the rows tell it.

    None where they cannot, and for metrics that count decisions.
    """
    match metric.name:
        case MetricName.ROC_AUC:
            return auc_noise(len(observed), int(observed.sum()))
        case MetricName.BRIER:
            losses = (constant - observed) ** 2 - (predicted - observed) ** 2
        case MetricName.LOG_LOSS:
            losses = _log_losses(observed, np.full(len(observed), constant))
            losses -= _log_losses(observed, predicted)
        case MetricName.PRECISION | MetricName.RECALL:
            return None
        case _:
            assert_never(metric.name)
    return float(losses.std(ddof=1) / np.sqrt(len(losses))) if len(losses) > 1 else None


def _log_losses(observed: Outcomes, predicted: Scores) -> Scores:
    least = np.finfo(np.float64).eps  # as scikit-learn bounds them
    held = np.clip(predicted, least, 1 - least)
    losses: Scores = -np.log(np.where(observed == 1, held, 1 - held))
    return losses


def _share(hits: npt.NDArray[np.bool_] | Outcomes) -> float | None:
    return float(np.mean(hits)) if len(hits) else None


def _threshold(metric: Metric) -> float:
    assert metric.at is not None, "Metric holds a threshold where one is needed"
    return metric.at
