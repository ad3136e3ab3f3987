"""Small serving records, and a lake whose environment prod has a small real model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from instep.canonical import Json, JsonObject
from instep.clock import Duration, Window
from instep.history.edits import Edit, publish
from instep.history.refs import RefKind, create_ref, find_ref
from instep.history.repository import MAIN, Repository
from instep.history.tips import move_ref
from instep.models.bundle import save_bundle
from instep.models.signature import Feature
from instep.models.spec import (
    AcceptableError,
    Candidate,
    KnownAfter,
    TrainingSpec,
    Windows,
    parse_metric,
)
from instep.models.training import TrainingRows, train
from instep.pipelines.capture import CONTRACT_TYPE, PIPELINE_TYPE
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


JULY = "2013-07-03T10:00:00Z"

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: flights
version: 1.0.0
status: active
schema:
  - name: flights
    properties:
      - {name: hour, logicalType: integer}
      - name: dest
        logicalType: string
        required: true
        logicalTypeOptions: {pattern: "^[A-Z]{3}$"}
      - {name: wind_speed, logicalType: number}
      - {name: late, logicalType: boolean}
      - {name: time_hour, logicalType: timestamp}
      - {name: flight, logicalType: integer}
      - {name: known_at, logicalType: timestamp}
"""

PIPELINE = """\
pipeline: delay
question: Late?
decision: Call.
owner: ops
acceptable_error: {metric: brier, at_most: 0.5, why: A test.}
slice: {from: 2013-04-01, to: 2013-07-01}
steps:
  - step: departures
    sql: steps/departures.sql
    writes: departures
  - step: delay
    train: steps/delay.py:fit
    reads: departures
    model: delay
    target: late
    key: [flight]
    time: time_hour
    known_after: {at_most: 2 hours, column: known_at}
    features: [hour, dest, wind_speed]
    windows: {train: 30 days, test: 15 days, step: 15 days}
    candidates: [{name: trees, params: {}}]
    choose: {metric: roc_auc, by: stability}
    intended_for: 45 days
    seed: 1
"""

DEPARTURES = """\
select hour + 0 as hour, dest, wind_speed, late, time_hour, flight, known_at from flights
"""

SPEC = TrainingSpec(
    model="delay",
    target="late",
    key=("flight",),
    time="time_hour",
    known_after=KnownAfter(Duration(span=timedelta(hours=2)), "known_at"),
    features=("hour", "dest", "wind_speed"),
    windows=Windows(*(Duration(span=timedelta(days=days)) for days in (30, 15, 15))),
    candidates=(Candidate("trees", {}),),
    choose=parse_metric("roc_auc"),
    acceptable_error=AcceptableError(parse_metric("brier"), 0.5, "A test."),
    intended_for=Duration(span=timedelta(days=45)),
)


def put_lake(repo: Repository) -> str:
    """Puts a contract, a pipeline and a model on main, releases them, and returns the commit."""
    put = repo.objects.put
    pipeline: JsonObject = {
        "type": PIPELINE_TYPE,
        "files": {
            "pipelines/delay.yaml": put(PIPELINE.encode()),
            "steps/departures.sql": put(DEPARTURES.encode()),
        },
    }
    contract: JsonObject = {"type": CONTRACT_TYPE, "blob": put(CONTRACT.encode())}
    _publish(repo, {"contract/flights": contract, "pipeline/delay": pipeline})
    commit = learn(repo, version="1", seed=1)
    move(repo, commit)
    return commit


def learn(repo: Repository, version: str, seed: int, spec: TrainingSpec = SPEC) -> str:
    """Trains a small model on made-up departures, publishes it on main, returns the commit."""
    within = Window(datetime(2013, 4, 1, tzinfo=UTC), datetime(2013, 7, 1, tzinfo=UTC))
    training = train(_departures(seed), _fit, spec, within, lambda _: None)
    with tempfile.TemporaryDirectory() as folder:
        saved = save_bundle(training, Path(folder), repo.clock(), "run_test")
        files = {name: repo.objects.put_file(Path(folder) / name) for name in saved.names}
    content: JsonObject = {
        "type": "instep.model.v1",
        "files": files,
        "digest": saved.digest,
        "run": "run_test",
        "version": version,
    }
    return _publish(repo, {"model/delay": content})


def move(repo: Repository, commit: str) -> None:
    """Points prod to `commit`, as a release would after its gates."""
    at = repo.clock()
    with repo.store.transaction() as tx:
        ref = find_ref(tx, "prod")
        if ref is None:
            create_ref(tx, "prod", RefKind.ENVIRONMENT, commit, owner="ana", at=at)
        else:
            move_ref(
                tx,
                "prod",
                expected=ref.commit,
                commit=commit,
                actor="ana",
                at=at,
                kind="release",
                why="a test",
            )


def _publish(repo: Repository, changes: dict[str, JsonObject]) -> str:
    edit = Edit(repo.resolve(MAIN), dict(changes), "ana", "a test", "run_test")
    with repo.store.transaction() as tx:
        return publish(tx, repo, MAIN, edit).id


def _departures(seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    count = 91 * 24
    hour = random.integers(5, 24, count)
    hour[-48:-46] = 5, 23
    wind = random.uniform(0, 40, count)
    time = [datetime(2013, 4, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(count)]
    return pa.table(
        {
            "hour": hour.tolist(),
            "dest": random.choice(["ATL", "BOS", "SFO"], count).tolist(),
            "wind_speed": pa.array(wind, mask=random.random(count) < 0.1),
            "late": (hour + random.normal(0, 5, count) > 16).tolist(),
            "time_hour": time,
            "known_at": [at + timedelta(hours=1) for at in time],
            "flight": list(range(count)),
        }
    )


def _fit(rows: TrainingRows, params: dict[str, Any], seed: int) -> Any:  # scikit-learn
    from sklearn.ensemble import HistGradientBoostingClassifier

    trees = HistGradientBoostingClassifier(
        categorical_features=rows.categorical, max_iter=20, random_state=seed, **params
    )
    return trees.fit(rows.features, rows.target)
