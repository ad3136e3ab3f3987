"""What is recorded of one prediction: who asked what, what answered, and what was said.

A record is written before its answer leaves, so whoever holds a receipt can have it explained. A
refusal is recorded too. Its JSON form is a log line, not a canonical form: features are kept as
they were sent, floats included.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from instep.canonical import Json, from_microseconds, to_microseconds

MODEL_FAILED = "model-failed"
"""The kind of a reason that is the model's fault, not the question's."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """The model answered."""

    value: float


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one part of a request was refused; `kind` is lasting, `subject` a feature or field."""

    kind: str
    subject: str
    message: str

    def to_json(self) -> dict[str, Json]:
        return {"kind": self.kind, "subject": self.subject, "message": self.message}


@dataclass(frozen=True, slots=True)
class Refused:
    """The request was understood and not answered, for every reason that holds."""

    reasons: tuple[Reason, ...]

    @property
    def is_model_fault(self) -> bool:
        return any(reason.kind == MODEL_FAILED for reason in self.reasons)

    @property
    def message(self) -> str:
        return " ".join(reason.message for reason in self.reasons)


Outcome = Predicted | Refused


@dataclass(frozen=True, slots=True)
class Source:
    """What answered: one model version of one commit, in one environment."""

    environment: str
    commit: str
    model: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked; `event_at` is when it happens, not when it was asked."""

    key: Mapping[str, Json]
    event_at: datetime
    features: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer that has no receipt yet."""

    source: Source
    question: Question
    outcome: Outcome
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """An answer as recorded; `at` is processing time, `mode` the promise it was recorded under."""

    receipt: str
    at: datetime
    mode: str
    source: Source
    question: Question
    outcome: Outcome
    flags: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        source, question = self.source, self.question
        return {
            "receipt": self.receipt,
            "at": to_microseconds(self.at),
            "mode": self.mode,
            "environment": source.environment,
            "commit": source.commit,
            "model": source.model,
            "version": source.version,
            "digest": source.digest,
            "key": question.key,
            "event_at": to_microseconds(question.event_at),
            "features": question.features,
            **_outcome_to_json(self.outcome),
            "flags": list(self.flags),
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> PredictionRecord:  # as json.loads gives it
        return cls(
            receipt=line["receipt"],
            at=from_microseconds(line["at"]),
            mode=line["mode"],
            source=Source(
                environment=line["environment"],
                commit=line["commit"],
                model=line["model"],
                version=line["version"],
                digest=line["digest"],
            ),
            question=Question(
                key=line["key"],
                event_at=from_microseconds(line["event_at"]),
                features=line["features"],
            ),
            outcome=_outcome_from_json(line),
            flags=tuple(line["flags"]),
        )


def encode(record: PredictionRecord) -> bytes:
    """Returns the log line of `record`; the receipt always comes first, so it can be searched."""
    return json.dumps(record.to_json(), ensure_ascii=False, separators=(",", ":")).encode()


def decode(line: bytes) -> PredictionRecord:
    """Returns the record that `encode` wrote."""
    return PredictionRecord.from_json(json.loads(line))


def _outcome_to_json(outcome: Outcome) -> dict[str, Json]:
    match outcome:
        case Predicted(value):
            return {"prediction": value}
        case Refused(reasons):
            return {"refused": [reason.to_json() for reason in reasons]}


def _outcome_from_json(line: Mapping[str, Any]) -> Outcome:  # as json.loads gives it
    if "refused" not in line:
        return Predicted(line["prediction"])
    return Refused(
        tuple(Reason(one["kind"], one["subject"], one["message"]) for one in line["refused"])
    )
