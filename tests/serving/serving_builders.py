"""Small serving records for tests; every value can be told apart."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from instep.canonical import Json
from instep.models.signature import Feature
from instep.serving.records import Draft, Outcome, Predicted, Question, Source

START = datetime(2013, 9, 3, 10, tzinfo=UTC)

SOURCE = Source(environment="prod", commit="c" * 64, model="delay", version="1", digest="d" * 64)

HOUR = Feature("hour", "number", (), 5.0, 23.0, False)
DEST = Feature("dest", "category", ("ATL", "BOS", "SFO"), None, None, False)
WIND = Feature("wind_speed", "number", (), 0.0, 40.0, True)


def clock_of(start: datetime = START, step: timedelta = timedelta(0)) -> Callable[[], datetime]:
    """Returns a clock that moves on by `step` each time it is read."""
    at = [start - step]

    def clock() -> datetime:
        at[0] += step
        return at[0]

    return clock


def question(**features: Json) -> Question:
    key: dict[str, Json] = {"carrier": "UA", "flight": 1545}
    asked: dict[str, Json] = {"hour": 9, "dest": "BOS", "wind_speed": 4.5}
    return Question(key=key, event_at=START, features={**asked, **features})


def draft(number: int = 0, outcome: Outcome | None = None) -> Draft:
    return Draft(SOURCE, question(hour=number), outcome or Predicted(number / 8), (f"n{number}",))
