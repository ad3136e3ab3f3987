"""A model held against events it has not seen: what it promised, what happened, since when.

The baseline is what the bundle carries: the rows of the final fit for features and the share of
positives, and the out-of-sample scores of the test windows for calibration. Rows that serving would
refuse (an unseen category) and rows without a known outcome are counted and left out. Pure: nothing
is read or written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from instep.canonical import Json, to_microseconds
from instep.clock import Window
from instep.errors import InvalidError
from instep.models.bundle import LoadedModel
from instep.models.choice import worst_window
from instep.models.metrics import measure
from instep.models.profile import Day, by_day, profile_features
from instep.models.training import instants_of, outcomes_of
from instep.watch.change_point import ChangePoint, find_change, mean_error
from instep.watch.shifts import Shift, find_shifts

_EPOCH = date(1970, 1, 1)

_NORMAL_95 = 1.96


@dataclass(frozen=True, slots=True)
class Level:
    """Some rows with known outcomes: the share observed and the share promised by the scores.

    `error` is the standard error of their difference with the day as the unit; None when there are
    too few days to say.
    """

    rows: int
    observed: float
    promised: float
    error: float | None

    @property
    def gap(self) -> float:
        return self.observed - self.promised

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the gap."""
        if self.error is None:
            return None
        return self.gap - _NORMAL_95 * self.error, self.gap + _NORMAL_95 * self.error

    def to_json(self) -> dict[str, Json]:
        return {
            "rows": self.rows,
            "observed": self.observed,
            "promised": self.promised,
            "gap": self.gap,
            "interval_95": None if self.interval is None else list(self.interval),
        }


@dataclass(frozen=True, slots=True)
class Since:
    """The change of the daily gap, with its positions turned into days."""

    change: ChangePoint
    day: date
    earliest: date
    latest: date

    def to_json(self) -> dict[str, Json]:
        return {
            **self.change.to_json(),
            "at": self.day.isoformat(),
            "earliest": self.earliest.isoformat(),
            "latest": self.latest.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How many rows are no events of the watched window: `before` it, or at its end or `after`."""

    before: int = 0
    after: int = 0

    def to_json(self) -> dict[str, Json]:
        return {"before": self.before, "after": self.after}


NOTHING_LEFT_OUT = LeftOut()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that was found; figures are None where undefined.

    `share_trained` is the share of positives among the rows of the final fit. `unseen` counts the
    rows with each category that training did not meet. `outside_period` counts rows before or after
    the period for which the model is intended.
    """

    window: Window
    rows: int
    left_out: LeftOut
    unknown: int
    unseen: tuple[tuple[str, str, int], ...]
    outside_period: int
    share_trained: float
    tested: Level
    now: Level
    metric_now: float | None
    metric_worst: float | None
    metric_best: float | None
    acceptable_now: float | None
    is_acceptable: bool
    acting: int
    since: Since | None
    shifts: tuple[Shift, ...]

    def to_json(self) -> dict[str, Json]:
        return {
            "window": str(self.window),
            "rows": self.rows,
            "left_out": self.left_out.to_json(),
            "unknown_outcome": self.unknown,
            "unseen": [
                {"feature": feature, "category": category, "rows": rows}
                for feature, category, rows in self.unseen
            ],
            "outside_intended_period": self.outside_period,
            "share_trained": self.share_trained,
            "tested": self.tested.to_json(),
            "now": self.now.to_json(),
            "metric": {
                "now": self.metric_now,
                "worst_tested": self.metric_worst,
                "best_tested": self.metric_best,
            },
            "acceptable_error": {"now": self.acceptable_now, "is_met": self.is_acceptable},
            "acting": self.acting,
            "since": None if self.since is None else self.since.to_json(),
            "shifts": [shift.to_json() for shift in self.shifts],
        }


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """New events with the model's scores, in the order of the table; NaN where refused."""

    table: pa.Table
    time: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    observed: npt.NDArray[np.int64]
    has_outcome: npt.NDArray[np.bool_]


def cut_events(table: pa.Table, time: str, within: Window) -> tuple[pa.Table, LeftOut]:
    """Returns the rows of `table` whose column `time` lies in `within`, and how many do not.

    A row without a time counts as before.
    """
    at = instants_of(table, time)
    before, after = at < to_microseconds(within.start), at >= to_microseconds(within.end)
    inside = table.filter(pa.array(~before & ~after))
    return inside, LeftOut(int(before.sum()), int(after.sum()))


def score_events(model: LoadedModel, table: pa.Table) -> Scored:
    """Returns the rows of `table`, which has the columns that trained `model`, with scores."""
    scores, _ = model.score(table)
    observed, has_outcome = outcomes_of(table, model.card.target)
    return Scored(table, instants_of(table, model.card.time), scores, observed, has_outcome)


def compare_with_baseline(
    model: LoadedModel, scored: Scored, window: Window, left_out: LeftOut = NOTHING_LEFT_OUT
) -> Comparison:
    """Returns how `scored`, the events of `window`, compare with what `model` was made from.

    `left_out` counts the rows that came with them and are of another time.

    Raises:
        InvalidError (kind "nothing-to-watch"): no event has a known outcome and a score.
    """
    card = model.card
    usable = scored.has_outcome & ~np.isnan(scored.scores)
    if not usable.any():
        raise InvalidError(
            f"Of {scored.table.num_rows} events in {window}, none has both a score of "
            f'"{card.model}" and a known "{card.target}": expected some. Wait until outcomes have '
            "arrived.",
            kind="nothing-to-watch",
        )
    observed, scores = scored.observed[usable], scored.scores[usable]
    days = by_day(scored.time[usable], observed, scores)
    tested = [w.metric for w in card.chosen.windows if w.metric is not None]
    acceptable = measure(card.acceptable_error.metric, observed, scores)
    worst = worst_window(card.chosen, card.metric).metric
    return Comparison(
        window=window,
        rows=scored.table.num_rows,
        left_out=left_out,
        unknown=int((~scored.has_outcome).sum()),
        unseen=_unseen(model, scored.table),
        outside_period=_outside(card.intended, scored.time),
        share_trained=model.profile.positives / model.profile.rows,
        tested=_level(model.profile.days),
        now=_level(days),
        metric_now=measure(card.metric, observed, scores),
        metric_worst=worst,
        metric_best=max(tested, key=card.metric.oriented, default=None),
        acceptable_now=acceptable,
        is_acceptable=card.acceptable_error.is_met_by(acceptable),
        acting=0 if card.threshold is None else int((scores >= card.threshold).sum()),
        since=_since((*model.profile.days, *days)),
        shifts=find_shifts(model.profile.features, profile_features(scored.table, model.signature)),
    )


def _level(days: Sequence[Day]) -> Level:
    rows = sum(day.rows for day in days)
    return Level(
        rows=rows,
        observed=sum(day.observed for day in days) / rows,
        promised=sum(day.predicted for day in days) / rows,
        error=mean_error([_gap(day) for day in days]),
    )


def _since(days: Sequence[Day]) -> Since | None:
    change = find_change([_gap(day) for day in days])
    if change is None:
        return None
    at, earliest, latest = (
        _EPOCH + timedelta(days=days[place].day)
        for place in (change.at, change.earliest, change.latest)
    )
    return Since(change, at, earliest, latest)


def _gap(day: Day) -> float:
    return (day.observed - day.predicted) / day.rows


def _outside(intended: Window, time: npt.NDArray[np.int64]) -> int:
    start, end = to_microseconds(intended.start), to_microseconds(intended.end)
    return int(((time < start) | (time >= end)).sum())


def _unseen(model: LoadedModel, table: pa.Table) -> tuple[tuple[str, str, int], ...]:
    found: list[tuple[str, str, int]] = []
    for feature, profile in zip(
        model.signature.features, profile_features(table, model.signature), strict=True
    ):
        if feature.type == "category":
            known = set(feature.categories)
            found += [(feature.name, c, n) for c, n in profile.frequent if c not in known]
    return tuple(found)
