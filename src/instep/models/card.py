"""The card of a model: when it was made, on what, how it did, and for which period it is meant.

A card is written once, with the bundle, and read by whoever compares, releases, serves or watches.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from instep.canonical import Json, JsonObject
from instep.clock import Window, format_instant, parse_instant
from instep.history.objects import Objects
from instep.models.choice import (
    NO_MODEL,
    CandidateScores,
    Choice,
    Gain,
    WindowScore,
    auc_noise,
    beats,
    no_model,
)
from instep.models.spec import AcceptableError, Metric, MetricName, Outside
from instep.models.windows import Fold


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of the slice: `unknown` have no target; `trained` made the final fit."""

    rows: int
    unknown: int
    trained: int
    positives: int


@dataclass(frozen=True, slots=True)
class Card:
    """What is worth knowing of one model version.

    `intended` is compared with event time. `dropped` is the first test window that was incomplete.
    `digest` is over canonical parameters and arrays. `candidates` begin with the constant.
    """

    model: str
    made_at: datetime
    run: str
    digest: str
    slice: Window
    trained: Window
    dropped: Window
    intended: Window
    target: str
    key: tuple[str, ...]
    time: str
    known_at: str
    outside: Outside
    outside_period: Outside
    seed: int
    metric: Metric
    acceptable_error: AcceptableError
    candidates: tuple[CandidateScores, ...]
    choice: Choice
    counts: Counts

    @property
    def threshold(self) -> float | None:
        """The score from which one acts, where the acceptable error names one."""
        return self.acceptable_error.metric.at

    @property
    def chosen(self) -> CandidateScores:
        return next(scores for scores in self.candidates if scores.name == self.choice.name)

    @property
    def verdict(self) -> str:
        """Why this candidate was chosen, or that there is no model and what may be done."""
        if self.choice.beats_constant:
            return self.choice.reason
        said = self.choice.reason
        if not said.startswith(NO_MODEL):  # a version that did not ask chose it
            said = f"{no_model(self.candidates, self.metric)}."
        unless = " unless that is forced with a reason" if self.chosen.is_eligible else ""
        return (
            f'{said} "{self.choice.name}" is published in its place, and may not be released'
            f"{unless}."
        )

    @property
    def tested(self) -> tuple[Window, ...]:
        return tuple(window.fold.test for window in self.chosen.windows)

    def to_json(self) -> dict[str, Json]:
        return {
            "model": self.model,
            "made_at": format_instant(self.made_at),
            "run": self.run,
            "digest": self.digest,
            "slice": _window_json(self.slice),
            "trained": _window_json(self.trained),
            "dropped": _window_json(self.dropped),
            "intended": _window_json(self.intended),
            "target": self.target,
            "key": list(self.key),
            "time": self.time,
            "known_at": self.known_at,
            "outside": self.outside.value,
            "outside_period": self.outside_period.value,
            "seed": self.seed,
            "metric": self.metric.name.value,
            "metric_at": self.metric.at,
            "acceptable_error": {
                "metric": self.acceptable_error.metric.name.value,
                "at": self.acceptable_error.metric.at,
                "bound": self.acceptable_error.bound,
                "why": self.acceptable_error.why,
                "is_met": self.chosen.is_eligible,
            },
            "candidates": [_candidate_json(scores) for scores in self.candidates],
            "choice": self.choice.to_json(),
            "counts": {
                "rows": self.counts.rows,
                "unknown": self.counts.unknown,
                "trained": self.counts.trained,
                "positives": self.counts.positives,
            },
        }

    @classmethod
    def from_json(cls, json: JsonObject) -> Card:
        metric = Metric(MetricName(str(json["metric"])), _number(json["metric_at"]))
        candidates = tuple(_candidate(_object(one), metric) for one in _list(json["candidates"]))
        acceptable, counts = _object(json["acceptable_error"]), _object(json["counts"])
        return cls(
            model=str(json["model"]),
            made_at=parse_instant(str(json["made_at"])),
            run=str(json["run"]),
            digest=str(json["digest"]),
            slice=_window(json["slice"]),
            trained=_window(json["trained"]),
            dropped=_window(json["dropped"]),
            intended=_window(json["intended"]),
            target=str(json["target"]),
            key=tuple(str(name) for name in _list(json["key"])),
            time=str(json["time"]),
            known_at=str(json["known_at"]),
            outside=Outside(str(json["outside"])),
            outside_period=Outside(str(json.get("outside_period", Outside.ANSWER.value))),
            seed=_int(json["seed"]),
            metric=metric,
            acceptable_error=AcceptableError(
                Metric(MetricName(str(acceptable["metric"])), _number(acceptable["at"])),
                _number(acceptable["bound"]) or 0.0,
                str(acceptable["why"]),
            ),
            candidates=candidates,
            choice=_choice(_object(json["choice"]), candidates, metric),
            counts=Counts(
                rows=_int(counts["rows"]),
                unknown=_int(counts["unknown"]),
                trained=_int(counts["trained"]),
                positives=_int(counts["positives"]),
            ),
        )


def card_of(objects: Objects, content: JsonObject) -> Card:
    """Returns the card of the model that a commit holds as `content`."""
    files = _object(content["files"])
    return Card.from_json(json.loads(objects.get(str(files["card.json"]))))


def _candidate_json(scores: CandidateScores) -> Json:
    return {
        "name": scores.name,
        "params": dict(scores.params),
        "is_eligible": scores.is_eligible,
        "windows": [
            {
                "train": _window_json(window.fold.train),
                "test": _window_json(window.fold.test),
                "metric": window.metric,
                "acceptable": window.acceptable,
                "is_acceptable": window.is_acceptable,
                "trained": window.trained,
                "tested": window.tested,
                "positives": window.positives,
                "unknown": window.unknown,
                "unseen": window.unseen,
                "noise": window.noise,
            }
            for window in scores.windows
        ],
    }


def _candidate(json: JsonObject, metric: Metric) -> CandidateScores:
    windows = (_object(window) for window in _list(json["windows"]))
    return CandidateScores(
        name=str(json["name"]),
        params=_object(json["params"]),
        windows=tuple(
            WindowScore(
                fold=Fold(_window(window["train"]), _window(window["test"])),
                metric=_number(window["metric"]),
                acceptable=_number(window["acceptable"]),
                is_acceptable=bool(window["is_acceptable"]),
                trained=_int(window["trained"]),
                tested=_int(window["tested"]),
                positives=_int(window["positives"]),
                unknown=_int(window["unknown"]),
                unseen=_int(window["unseen"]),
                noise=_noise(window, metric),
            )
            for window in windows
        ),
    )


def _noise(window: JsonObject, metric: Metric) -> float | None:
    if "noise" not in window and metric.name is MetricName.ROC_AUC:  # a card from before noise
        return auc_noise(_int(window["tested"]), _int(window["positives"]))
    return _number(window.get("noise"))


def _choice(json: JsonObject, candidates: Sequence[CandidateScores], metric: Metric) -> Choice:
    gain = json["gain_over_constant"]
    name = str(json["candidate"])
    is_better = json.get("beats_constant")
    if is_better is None:  # a card of a version that did not ask: its scores tell
        constant, *others = candidates
        is_better = any(one.name == name and beats(one, constant, metric) for one in others)
    return Choice(
        name=name,
        best=str(json["best_worst_window"]),
        is_releasable=bool(json["is_releasable"]) and bool(is_better),
        beats_constant=bool(is_better),
        gain=None
        if gain is None
        else Gain(_number(_object(gain)["mean"]) or 0.0, _number(_object(gain)["standard_error"])),
        reason=str(json["reason"]),
    )


def _window_json(window: Window) -> Json:
    return {"from": format_instant(window.start), "to": format_instant(window.end)}


def _window(json: Json) -> Window:
    found = _object(json)
    return Window(parse_instant(str(found["from"])), parse_instant(str(found["to"])))


def _object(json: Json) -> JsonObject:
    assert isinstance(json, Mapping)
    return json


def _list(json: Json) -> Sequence[Json]:
    assert isinstance(json, Sequence) and not isinstance(json, str)
    return json


def _int(json: Json) -> int:
    assert isinstance(json, int)
    return json


def _number(json: Json) -> float | None:
    assert json is None or isinstance(json, int | float)
    return None if json is None else float(json)
