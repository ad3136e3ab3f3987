"""What a training step asks for: the target, its time, the windows, the candidates, the choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from instep.canonical import Json
from instep.clock import Duration
from instep.errors import InvalidError

CONSTANT = "constant"
"""The candidate that is always there: everyone gets the base rate of the training rows."""


Params = Mapping[str, Json]


class MetricName(StrEnum):
    """The figures by which a model of a yes-or-no target may be judged."""

    ROC_AUC = "roc_auc"
    LOG_LOSS = "log_loss"
    BRIER = "brier"
    PRECISION = "precision"
    RECALL = "recall"


_WITH_THRESHOLD = frozenset({MetricName.PRECISION, MetricName.RECALL})
_LOWER_IS_BETTER = frozenset({MetricName.LOG_LOSS, MetricName.BRIER})


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric; `at` is the score from which a row counts as predicted positive."""

    name: MetricName
    at: float | None = None

    def __post_init__(self) -> None:
        if (self.name in _WITH_THRESHOLD) != (self.at is not None):
            wanted = (
                "a threshold, because it counts decisions. Add `at: 0.5`"
                if self.at is None
                else "no threshold, because it judges scores. Remove `at`"
            )
            raise InvalidError(
                f'Metric "{self.name}" with `at: {self.at}`: expected {wanted}.', kind="bad-metric"
            )

    def __str__(self) -> str:
        return self.name if self.at is None else f"{self.name} at {self.at:g}"

    @property
    def lower_is_better(self) -> bool:
        return self.name in _LOWER_IS_BETTER

    def oriented(self, value: float) -> float:
        """Returns `value`, negated when lower is better, so that more is always better."""
        return -value if self.lower_is_better else value


def parse_metric(name: str, at: float | None = None) -> Metric:
    """Returns the metric that a document names.

    Raises:
        InvalidError (kind "bad-metric").
    """
    try:
        known = MetricName(name)
    except ValueError:
        raise InvalidError(
            f'Metric "{name}" is not known: expected one of {", ".join(MetricName)}. '
            "Correct the name.",
            kind="bad-metric",
        ) from None
    return Metric(known, at)


@dataclass(frozen=True, slots=True)
class AcceptableError:
    """The bound that a model must keep in every window: at least, or at most when lower is better.

    A metric that is undefined in a window (nothing was predicted positive) has not kept it.
    """

    metric: Metric
    bound: float
    why: str

    def is_met_by(self, value: float | None) -> bool:
        return value is not None and self.metric.oriented(value) >= self.metric.oriented(self.bound)

    def __str__(self) -> str:
        side = "at most" if self.metric.lower_is_better else "at least"
        return f"{self.metric} {side} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class KnownAfter:
    """When a target becomes known: `column` says, and it is at most `at_most` after the event."""

    at_most: Duration
    column: str


@dataclass(frozen=True, slots=True)
class Windows:
    """Lengths of a walk-forward: train, then test, then move on by `step`."""

    train: Duration
    test: Duration
    step: Duration


@dataclass(frozen=True, slots=True)
class Candidate:
    """One set of parameters under a name; the order of candidates is the order of preference."""

    name: str
    params: Params


class Outside(StrEnum):
    """What serving does with a value outside the range of training, or with an event outside the
    period that the model is intended for: answer and flag, or refuse."""

    ANSWER = "answer"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """A training step, resolved. `candidates` does not list the constant: it is always first."""

    model: str
    target: str
    key: tuple[str, ...]
    time: str
    known_after: KnownAfter
    features: tuple[str, ...]
    windows: Windows
    candidates: tuple[Candidate, ...]
    choose: Metric
    acceptable_error: AcceptableError
    intended_for: Duration
    outside: Outside = Outside.ANSWER
    outside_period: Outside = Outside.ANSWER
    seed: int = 0

    def __post_init__(self) -> None:
        leaks = sorted({self.target, self.known_after.column} & set(self.features))
        if leaks:
            raise InvalidError(
                f'Feature "{leaks[0]}" of model "{self.model}" tells the answer: expected features '
                "that are known before the event. Remove it from `features`.",
                kind="leaking-feature",
                feature=leaks[0],
            )
        names = [CONSTANT, *(candidate.name for candidate in self.candidates)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidError(
                f'Candidate "{twice[0]}" of model "{self.model}" is there twice: expected each '
                f'name once, and "{CONSTANT}" is always a candidate. Rename or remove one.',
                kind="duplicate-candidate",
                candidate=twice[0],
            )
