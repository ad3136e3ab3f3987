"""A model of small departures, loaded from its bundle, and the events that came after it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.tree import DecisionTreeClassifier

from instep.clock import Window, parse_duration, parse_instant
from instep.models.bundle import LoadedModel, load_bundle, save_bundle
from instep.models.spec import (
    AcceptableError,
    Candidate,
    KnownAfter,
    Metric,
    MetricName,
    TrainingSpec,
    Windows,
)
from instep.models.training import TrainingRows, train
from instep.watch.alert import Receipts

START = datetime(2013, 1, 1, tzinfo=UTC)
DAYS = 80
SINCE = START + timedelta(days=DAYS)
PER_DAY = 24

NO_RECEIPTS = Receipts(0, 0, 0, 0, 0)

SPEC = TrainingSpec(
    model="delay",
    target="late",
    key=("flight", "time_hour"),
    time="time_hour",
    known_after=KnownAfter(parse_duration("6 hours"), "known_at"),
    features=("carrier", "wind"),
    windows=Windows(*map(parse_duration, ("20 days", "10 days", "10 days"))),
    candidates=(Candidate("tree", {"max_depth": 2}),),
    choose=Metric(MetricName.ROC_AUC),
    acceptable_error=AcceptableError(Metric(MetricName.PRECISION, 0.5), 0.3, "One in three."),
    intended_for=parse_duration("30 days"),
    seed=7,
)

_TYPES: dict[str, pa.DataType] = {
    "flight": pa.int64(),
    "time_hour": pa.timestamp("us", "UTC"),
    "carrier": pa.string(),
    "wind": pa.float64(),
    "known_at": pa.timestamp("us", "UTC"),
    "late": pa.bool_(),
}


def departures(days: int, start: datetime, seed: int, base: float) -> pa.Table:
    """Returns one row an hour: the share of late ones is `base`, and much more in the wind."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(days * PER_DAY):
        at = start + timedelta(hours=number)
        wind = float(generator.uniform(0, 30))
        is_late = bool(generator.random() < base + (0.5 if wind > 22 else 0.0))
        is_cancelled = generator.random() < 0.03
        rows.append(
            {
                "flight": number % 7,
                "time_hour": at,
                "carrier": str(generator.choice(["A", "B", "C"])),
                "wind": wind,
                "known_at": None if is_cancelled else at + timedelta(hours=3),
                "late": None if is_cancelled else is_late,
            }
        )
    return pa.Table.from_pylist(rows, schema=pa.schema(_TYPES))


def newer(days: int = 30, *, base: float = 0.25, start: datetime = SINCE) -> pa.Table:
    return departures(days, start, seed=2, base=base)


def fit(train: TrainingRows, params: dict[str, Any], seed: int) -> Any:  # scikit-learn: no types
    return DecisionTreeClassifier(random_state=seed, **params).fit(train.features, train.target)


def loaded(folder: Path) -> LoadedModel:
    within = Window(START, SINCE)
    training = train(departures(DAYS, START, 1, 0.25), fit, SPEC, within, lambda text: None)
    save_bundle(training, folder, parse_instant("2013-12-01"), "run_1")
    return load_bundle(folder)
