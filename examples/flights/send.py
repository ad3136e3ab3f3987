"""Sends real departures of a month to a running `instep serve`, as the rebooking desk would.

    python send.py data 2013-09 --url http://127.0.0.1:8731

Then four questions that need care: a destination the model has not seen, a value that breaks the
contract, a value outside the training range, and an hour without weather.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import httpx

Value = str | int | float | None
Row = dict[str, str]
NUMBERS = ("hour", "distance")
WEATHER = ("wind_speed", "precip", "visib")


@dataclass(frozen=True)
class Question:
    """One departure: who, when, and what is known an hour before it."""

    key: dict[str, Value]
    time: str
    features: dict[str, Value]

    def body(self) -> dict[str, object]:
        return {"key": self.key, "time": self.time, "features": self.features}

    def having(self, **features: Value) -> Question:
        return replace(self, features=self.features | features)

    def __str__(self) -> str:
        return (
            f"{self.features['carrier']} {self.key['flight']} {self.features['origin']} to "
            f"{self.features['dest']}, {self.time}"
        )


@dataclass(frozen=True)
class Reply:
    """What came back: an answer, or a refusal with its reason; both have a receipt."""

    status: int
    receipt: str
    body: dict[str, object]

    def __str__(self) -> str:
        if self.status != 200:
            return f"refused: {_message(self.body)}"
        flags = ", ".join(_texts(self.body["flags"]))
        return f"answered: {self.body['prediction']}" + (f"; flagged: {flags}" if flags else "")


def main() -> None:
    options = _options()
    flights = read(options.data / f"flights-{options.month}.csv")
    weather = by_hour(read(options.data / f"weather-{options.month}.csv"))
    real = spread([question for row in flights if (question := ask(row, weather))], options.count)
    proof = {"Authorization": f"Bearer {options.token}"} if options.token else {}
    with httpx.Client(base_url=options.url, headers=proof, timeout=30, trust_env=False) as client:
        replies = [send(client, options.model, question) for question in real]
        special = {
            name: (question, send(client, options.model, question))
            for name, question in cases(real[0], flights, weather, options.unseen)
        }
    answered = [reply for reply in replies if reply.status == 200]
    first = next(iter(answered), replies[0])
    if options.as_json:
        print(json.dumps(_summary(replies, special, first)))
        return
    print(f"{len(replies)} departures of {options.month}: {len(answered)} answered, ", end="")
    print(f"{len(replies) - len(answered)} refused, all with a receipt.")
    print(f"The first: {real[replies.index(first)]}")
    print(f"  {first}")
    print(f"  by {first.body['model']} version {first.body['version']},", end=" ")
    print(f"data commit {str(first.body['commit'])[:12]}")
    print(f"  receipt {first.receipt}")
    for name, (_, reply) in special.items():
        print(f"{name}\n  {reply}")


def ask(row: Row, weather: dict[tuple[str, str], Row]) -> Question | None:
    """Returns the question for one flight, or None where the hour before has no weather."""
    hour_before = datetime.fromisoformat(row["time_hour"]) - timedelta(hours=1)
    found = weather.get((row["origin"], f"{hour_before:%Y-%m-%dT%H:%M:%SZ}"))
    if found is None:
        return None
    return Question(
        key={
            "carrier": row["carrier"],
            "flight": int(row["flight"]),
            "time_hour": row["time_hour"],
        },
        time=row["time_hour"],
        features={
            "origin": row["origin"],
            "dest": row["dest"],
            "carrier": row["carrier"],
            **{name: int(row[name]) for name in NUMBERS},
            **{name: _number(found[name]) for name in WEATHER},
        },
    )


def cases(
    real: Question, flights: Sequence[Row], weather: dict[tuple[str, str], Row], unseen: str
) -> Iterator[tuple[str, Question]]:
    """Yields the four questions that need care; the first is a real flight where there is one."""
    made = replace(real, key=real.key | {"flight": 9999})
    to_unseen = (ask(row, weather) for row in flights if row["dest"] == unseen)
    yield f"A flight to {unseen}", next(filter(None, to_unseen), made.having(dest=unseen))
    yield "A penguin where a distance belongs", made.having(distance="penguin")
    yield "A flight of 9,000 miles", made.having(distance=9000)
    yield "No weather known", made.having(**dict.fromkeys(WEATHER))


def send(client: httpx.Client, model: str, question: Question) -> Reply:
    """Asks once."""
    answer = client.post(f"/models/{model}/predict", json=question.body())
    body = answer.json()
    if answer.status_code not in (200, 422):
        raise SystemExit(f"{question}: HTTP {answer.status_code}: {_message(body)}")
    return Reply(answer.status_code, str(body["receipt"]), body)


def read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def by_hour(rows: Sequence[Row]) -> dict[tuple[str, str], Row]:
    return {(row["origin"], row["time_hour"]): row for row in rows}


def spread(questions: Sequence[Question], count: int) -> list[Question]:
    """Returns `count` of `questions`, evenly spread over the month."""
    every = max(1, len(questions) // count)
    return list(questions[::every][:count])


def _summary(
    replies: Sequence[Reply], special: dict[str, tuple[Question, Reply]], first: Reply
) -> dict[str, object]:
    return {
        "sent": len(replies),
        "answered": sum(reply.status == 200 for reply in replies),
        "receipts": [reply.receipt for reply in replies],
        "first": first.body,
        "special": {
            name: {"status": reply.status, "question": question.body(), **reply.body}
            for name, (question, reply) in special.items()
        },
    }


def _number(text: str) -> float | None:
    return None if text in ("", "NA") else float(text)


def _message(body: dict[str, object]) -> str:
    error = body.get("error")
    return str(error["message"]) if isinstance(error, dict) else str(body)


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Send departures to a running instep serve.")
    parser.add_argument("data", type=Path, help="the folder of the monthly files")
    parser.add_argument("month", help="for example 2013-09")
    parser.add_argument("--url", default="http://127.0.0.1:8731")
    parser.add_argument(
        "--token", help="of a person, or the one that the server printed; needed beyond loopback"
    )
    parser.add_argument("--model", default="delay")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--unseen", default="ILM", help="a destination that is new this month")
    parser.add_argument("--json", action="store_true", dest="as_json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
