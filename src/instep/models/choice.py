"""Which candidate is chosen: the dullest that is good enough in every window.

A candidate is eligible when it kept the acceptable error in every window. The best of the eligible
is the one whose worst window is best. The first listed, the constant before all, whose scores are
within one standard error of the best's, window by window, wins. If none is eligible, the same rule
chooses among all, and the choice may not be released. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from instep.canonical import Json
from instep.models.spec import AcceptableError, Metric, Params
from instep.models.windows import Fold


@dataclass(frozen=True, slots=True)
class WindowScore:
    """One candidate in one window.

    `metric` is what the choice is made by, `acceptable` the figure of the acceptable error; each is
    None where undefined. `trained` rows were fitted and `tested` rows scored, of which `positives`
    happened. `unknown` rows of the test window have no target, and `unseen` rows a category that
    training had not met, which serving refuses: both are counted and not scored.
    """

    fold: Fold
    metric: float | None
    acceptable: float | None
    is_acceptable: bool
    trained: int
    tested: int
    positives: int
    unknown: int
    unseen: int


@dataclass(frozen=True, slots=True)
class CandidateScores:
    """One candidate in every window, in time order."""

    name: str
    params: Params
    windows: tuple[WindowScore, ...]

    @property
    def is_eligible(self) -> bool:
        return all(window.is_acceptable for window in self.windows)


@dataclass(frozen=True, slots=True)
class Gain:
    """How much better, on average over the windows, with the standard error of that average.

    `standard_error` is None when there is one window only.
    """

    mean: float
    standard_error: float | None


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate that was chosen, and the sentence that says why.

    `best` had the best worst window; `gain` is that of the chosen over the constant.
    """

    name: str
    best: str
    is_releasable: bool
    gain: Gain | None
    reason: str

    def to_json(self) -> dict[str, Json]:
        return {
            "candidate": self.name,
            "best_worst_window": self.best,
            "is_releasable": self.is_releasable,
            "gain_over_constant": None
            if self.gain is None
            else {"mean": self.gain.mean, "standard_error": self.gain.standard_error},
            "reason": self.reason,
        }


def worst_window(scores: CandidateScores, metric: Metric) -> WindowScore:
    """Returns the window in which `metric` was worst; undefined is worst, ties go to the latest."""
    return min(reversed(scores.windows), key=lambda window: _oriented(window, metric))


def choose(
    candidates: Sequence[CandidateScores], metric: Metric, acceptable: AcceptableError
) -> Choice:
    """Returns the choice among `candidates`, listed in order of preference, the constant first.

    All candidates have the same windows, at least one.
    """
    eligible = [candidate for candidate in candidates if candidate.is_eligible]
    among = eligible or list(candidates)
    best = max(among, key=lambda scores: _oriented(worst_window(scores, metric), metric))
    chosen = next(scores for scores in among if _is_close(gain(best, scores, metric)))
    return Choice(
        name=chosen.name,
        best=best.name,
        is_releasable=bool(eligible),
        gain=gain(chosen, candidates[0], metric),
        reason=_reason(chosen, best, bool(eligible), metric, acceptable),
    )


def gain(ours: CandidateScores, theirs: CandidateScores, metric: Metric) -> Gain | None:
    """Returns by how much `ours` is better than `theirs` on the same windows.

    None when a score is undefined in a window, unless the two are the same candidate.
    """
    if ours is theirs:
        return Gain(0.0, 0.0)
    differences = [
        _oriented(mine, metric) - _oriented(other, metric)
        for mine, other in zip(ours.windows, theirs.windows, strict=True)
    ]
    if not all(math.isfinite(difference) for difference in differences):
        return None
    if len(differences) == 1:
        return Gain(differences[0], None)
    return Gain(fmean(differences), stdev(differences) / math.sqrt(len(differences)))


def _is_close(lead: Gain | None) -> bool:
    return lead is not None and lead.mean <= (lead.standard_error or 0.0)


def _oriented(window: WindowScore, metric: Metric) -> float:
    return -math.inf if window.metric is None else metric.oriented(window.metric)


def _reason(
    chosen: CandidateScores,
    best: CandidateScores,
    is_releasable: bool,
    metric: Metric,
    acceptable: AcceptableError,
) -> str:
    worst = worst_window(chosen, metric).metric
    figure = "undefined" if worst is None else f"{worst:.3f}"
    if chosen.name == best.name:
        why = f'"{chosen.name}" has the best worst window ({metric.name} {figure})'
    else:
        why = (
            f'"{chosen.name}" (worst {metric.name} {figure}) is listed before "{best.name}" and '
            "within one standard error of it"
        )
    if is_releasable:
        return f"{why}; {acceptable} was kept in every window."
    return f"{why}, but no candidate kept {acceptable} in every window: it may not be released."
