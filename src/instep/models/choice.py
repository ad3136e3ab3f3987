"""Which candidate is chosen: the dullest that is good enough in every window and no accident.

A candidate is good when it kept the acceptable error in every window and beats the constant by more
than chance: by three standard errors of the paired differences from window to window, and by three
of those that the rows within the windows leave. The best of the good is the one whose worst window
is best. The first listed whose scores are within one standard error of the best's, window by
window, wins. If none is good there is no model: the same rule chooses among those that kept the
acceptable error, or else among all, the constant before all, and the choice may not be released.
Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from instep.canonical import Json
from instep.models.spec import AcceptableError, Metric, Params
from instep.models.windows import Fold

STANDARD_ERRORS = 3.0
"""By how many standard errors of the paired differences the constant must be beaten."""

NO_MODEL = "No model: nothing beats the constant by more than chance"


@dataclass(frozen=True, slots=True)
class WindowScore:
    """One candidate in one window.

    `metric` is what the choice is made by, `acceptable` the figure of the acceptable error; each is
    None where undefined. `trained` rows were fitted and `tested` rows scored, of which `positives`
    happened. `unknown` rows of the test window have no target, and `unseen` rows a category that
    training had not met, which serving refuses: both are counted and not scored. `noise` is the
    standard error of the metric's lead over the constant, as the rows of the window tell it; None
    where they cannot.
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
    noise: float | None = None


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

    def to_json(self) -> dict[str, Json]:
        return {"mean": self.mean, "standard_error": self.standard_error}

    def __str__(self) -> str:
        error = "" if self.standard_error is None else f" ± {self.standard_error:.3f}"
        return f"{self.mean:+.3f}{error}"


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate that was chosen, and the sentence that says why.

    `best` had the best worst window; `gain` is that of the chosen over the constant, and
    `beats_constant` says whether that is more than chance. Releasable is what does so and kept the
    acceptable error in every window.
    """

    name: str
    best: str
    is_releasable: bool
    beats_constant: bool
    gain: Gain | None
    reason: str

    def to_json(self) -> dict[str, Json]:
        return {
            "candidate": self.name,
            "best_worst_window": self.best,
            "is_releasable": self.is_releasable,
            "beats_constant": self.beats_constant,
            "gain_over_constant": None if self.gain is None else self.gain.to_json(),
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
    constant, *others = candidates
    beating = [c.name for c in others if beats(c, constant, metric)]
    eligible = [c for c in candidates if c.is_eligible]
    good = [c for c in eligible if c.name in beating]
    among = good or eligible or list(candidates)
    best = max(among, key=lambda scores: _oriented(worst_window(scores, metric), metric))
    chosen = next(scores for scores in among if _is_close(gain(best, scores, metric)))
    return Choice(
        name=chosen.name,
        best=best.name,
        is_releasable=bool(good),
        beats_constant=chosen.name in beating,
        gain=gain(chosen, constant, metric),
        reason=_reason(chosen, best, metric, acceptable)
        if chosen.name in beating
        else _no_model(candidates, bool(beating), bool(eligible), metric, acceptable),
    )


def beats(scores: CandidateScores, constant: CandidateScores, metric: Metric) -> bool:
    """Says whether a candidate is better than the constant by more than chance.

    Few windows are alike by chance too easily, and the rows of one month know nothing of others: so
    both must tell. One window is judged by its rows alone. What nothing can tell is not better.
    """
    lead = gain(scores, constant, metric)
    if lead is None or lead.mean <= 0:
        return False
    errors = [one for one in (lead.standard_error, _noise(scores)) if one is not None]
    return bool(errors) and lead.mean >= STANDARD_ERRORS * max(errors)


def auc_noise(rows: int, positives: int) -> float | None:
    """Returns the standard error of roc_auc where scores tell nothing of the outcomes.

    Source: Mann and Whitney, On a test of whether one of two random variables is stochastically
    larger than the other (1947). Ties make it smaller.
    """
    pairs = positives * (rows - positives)
    return math.sqrt((rows + 1) / (12 * pairs)) if pairs else None


def _noise(scores: CandidateScores) -> float | None:
    """Returns the standard error of the mean lead, as the rows within the windows tell it."""
    squares = [one.noise**2 for one in scores.windows if one.noise is not None]
    if len(squares) < len(scores.windows):
        return None
    return math.sqrt(math.fsum(squares)) / len(squares)


def no_model(candidates: Sequence[CandidateScores], metric: Metric) -> str:
    """Returns that nothing beats the constant, with the best that there was, in words."""
    return f"{NO_MODEL} ({_best_gain(candidates, metric)})"


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
    chosen: CandidateScores, best: CandidateScores, metric: Metric, acceptable: AcceptableError
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
    if chosen.is_eligible:
        return f"{why}; {acceptable} was kept in every window."
    return f"{why}, but no candidate kept {acceptable} in every window: it may not be released."


def _no_model(
    candidates: Sequence[CandidateScores],
    any_beats: bool,
    any_eligible: bool,
    metric: Metric,
    acceptable: AcceptableError,
) -> str:
    """Returns why what was chosen is no model."""
    if any_beats:
        return f"{NO_MODEL} and kept {acceptable} in every window."
    also = "" if any_eligible else f", and no candidate kept {acceptable} in every window"
    return f"{no_model(candidates, metric)}{also}."


def _best_gain(candidates: Sequence[CandidateScores], metric: Metric) -> str:
    constant, *others = candidates
    gains = [(found, c.name) for c in others if (found := gain(c, constant, metric)) is not None]
    if not gains:
        return f"{metric} is undefined in a window"
    best, name = max(gains, key=lambda pair: pair[0].mean)
    shown = f'best "{name}" {best} {metric}'
    noise = _noise(next(one for one in others if one.name == name))
    if noise is not None:
        return f"{shown}; its rows alone leave ± {noise:.3f}"
    return shown if best.standard_error is not None else f"{shown}, in one window, that cannot tell"
