"""Since when a daily figure is at another level, and how sure that is.

One change of the mean is sought (Page 1955; the CUSUM statistic). Days are not independent: weather
lasts, a late evening makes a late morning. So the unit that is shuffled is a block of consecutive
days, and the assumption is that such blocks would be exchangeable if nothing had changed. Seasons
that the baseline has not seen look like a change; whether they are one is a question for people.
Pure: the same days give the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from instep.canonical import Json

BLOCK_DAYS = 7
"""Days shuffled together: a whole week, longer than weather usually lasts."""

MIN_DAYS = 14
"""Days on each side of a change below which nothing is said."""

_SHUFFLES = 999
_RESAMPLES = 400
_SEED = 0

Days = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """The most likely change of level.

    `at`, and `earliest` to `latest` (the middle 90 % of resamples), are positions in the series;
    `before` and `after` the mean levels; `p_value` the share of shuffles with as large a change.
    """

    at: int
    earliest: int
    latest: int
    before: float
    after: float
    p_value: float

    def to_json(self) -> dict[str, Json]:
        return {
            "at": self.at,
            "earliest": self.earliest,
            "latest": self.latest,
            "before": self.before,
            "after": self.after,
            "p_value": self.p_value,
            "method": f"CUSUM, {_SHUFFLES} shuffles of blocks of {BLOCK_DAYS} days",
        }


def find_change(values: Sequence[float]) -> ChangePoint | None:
    """Returns the most likely change in `values`, one per day in order; None if too few days.

    A series always has a most likely change: `p_value` says whether to believe it.
    """
    series = np.asarray(values, dtype=np.float64)
    if len(series) < 2 * MIN_DAYS:
        return None
    heights = _heights(series[np.newaxis])[0]
    at = int(heights.argmax()) + MIN_DAYS
    generator = np.random.default_rng(_SEED)
    shuffled = np.array([_shuffle(series, generator) for _ in range(_SHUFFLES)])
    # As large but for rounding is as large: shuffles sum in another order.
    as_large = int((_heights(shuffled).max(axis=1) >= heights.max() * (1 - 1e-9)).sum())
    before, after = series[:at], series[at:]
    resampled = np.array(
        [
            np.concatenate([_resample(before, generator), _resample(after, generator)])
            for _ in range(_RESAMPLES)
        ]
    )
    found = _heights(resampled).argmax(axis=1) + MIN_DAYS
    return ChangePoint(
        at=at,
        earliest=int(np.quantile(found, 0.05, method="lower")),
        latest=int(np.quantile(found, 0.95, method="higher")),
        before=float(before.mean()),
        after=float(after.mean()),
        p_value=(1 + as_large) / (1 + _SHUFFLES),
    )


def mean_error(values: Sequence[float]) -> float | None:
    """Returns the standard error of the mean of daily `values`, which may depend on each other.

    Newey and West (1987), with a lag of a week. None for fewer than `MIN_DAYS` days.
    """
    if len(values) < MIN_DAYS:
        return None
    centred = np.asarray(values, dtype=np.float64) - np.mean(values)
    count = len(centred)
    variance = float(centred @ centred) / count
    for lag in range(1, BLOCK_DAYS + 1):
        covariance = float(centred[lag:] @ centred[:-lag]) / count
        variance += 2 * (1 - lag / (BLOCK_DAYS + 1)) * covariance
    return float(np.sqrt(max(variance, 0.0) / count))


def _heights(rows: Days) -> Days:
    """Returns, for each row and possible change, how far the two means are apart, in sizes."""
    count = rows.shape[1]
    split = np.arange(MIN_DAYS, count - MIN_DAYS + 1)
    sums = np.cumsum(rows, axis=1)
    first = sums[:, split - 1]
    gap = (sums[:, -1:] - first) / (count - split) - first / split
    heights: Days = np.abs(gap) * np.sqrt(split * (count - split) / count)
    return heights


def _shuffle(series: Days, generator: np.random.Generator) -> Days:
    blocks = [series[start : start + BLOCK_DAYS] for start in range(0, len(series), BLOCK_DAYS)]
    return np.concatenate([blocks[place] for place in generator.permutation(len(blocks))])


def _resample(part: Days, generator: np.random.Generator) -> Days:
    blocks = -(-len(part) // BLOCK_DAYS)
    starts = generator.integers(0, max(len(part) - BLOCK_DAYS, 0) + 1, size=blocks)
    return np.concatenate([part[start : start + BLOCK_DAYS] for start in starts])[: len(part)]
