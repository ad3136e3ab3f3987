"""Small departures: two a day, known six hours later, with features that tell a little."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.tree import DecisionTreeClassifier

from instep.clock import Window, parse_duration, parse_instant
from instep.models.spec import (
    AcceptableError,
    Candidate,
    KnownAfter,
    Metric,
    MetricName,
    TrainingSpec,
    Windows,
)
from instep.models.training import Training, TrainingRows, train

START = datetime(2013, 1, 1, tzinfo=UTC)
PER_DAY = 20


def spec(**changes: Any) -> TrainingSpec:  # any field of the record
    base: dict[str, Any] = {
        "model": "delay",
        "target": "late",
        "key": ("flight", "time_hour"),
        "time": "time_hour",
        "known_after": KnownAfter(parse_duration("6 hours"), "known_at"),
        "features": ("hour", "carrier", "wind", "is_holiday"),
        "windows": Windows(*map(parse_duration, ("20 days", "10 days", "10 days"))),
        "candidates": (Candidate("shallow", {"max_depth": 2}), Candidate("deep", {"max_depth": 6})),
        "choose": Metric(MetricName.ROC_AUC),
        "acceptable_error": AcceptableError(Metric(MetricName.PRECISION, 0.5), 0.5, "One in two."),
        "intended_for": parse_duration("30 days"),
        "seed": 7,
    }
    return TrainingSpec(**{**base, **changes})


def slice_of(days: int) -> Window:
    return Window(START, START + timedelta(days=days))


def window(start: str, end: str) -> Window:
    return Window(parse_instant(start), parse_instant(end))


def departures(
    days: int = 60, *, start: datetime = START, seed: int = 1, base: float = 0.25
) -> pa.Table:
    """Returns rows in the order of time; late ones are mostly in the wind, or of carrier B."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(days * PER_DAY):
        at = start + timedelta(days=number // PER_DAY, hours=number % PER_DAY)
        wind = None if generator.random() < 0.05 else float(generator.uniform(0, 30))
        carrier = str(generator.choice(["A", "B", "C"]))
        risk = base + (0.5 if (wind or 0) > 22 else 0.0) + (0.1 if carrier == "B" else -0.1)
        is_cancelled = generator.random() < 0.03
        rows.append(
            {
                "flight": number % 7,
                "time_hour": at,
                "hour": at.hour,
                "carrier": carrier,
                "wind": wind,
                "is_holiday": at.weekday() == 6,
                "known_at": None if is_cancelled else at + timedelta(hours=1 + number % 5),
                "late": None if is_cancelled else bool(generator.random() < risk),
            }
        )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


_TYPES: dict[str, pa.DataType] = {
    "flight": pa.int64(),
    "time_hour": pa.timestamp("us", "UTC"),
    "hour": pa.int32(),
    "carrier": pa.string(),
    "wind": pa.float64(),
    "is_holiday": pa.bool_(),
    "known_at": pa.timestamp("us", "UTC"),
    "late": pa.bool_(),
}
SCHEMA = pa.schema(_TYPES)


def fit(train: TrainingRows, params: dict[str, Any], seed: int) -> Any:  # scikit-learn: no types
    return DecisionTreeClassifier(random_state=seed, **params).fit(train.features, train.target)


def trained(
    table: pa.Table | None = None,
    fit: Callable[[TrainingRows, dict[str, Any], int], Any] = fit,
    days: int = 60,
    **changes: Any,
) -> Training:
    rows = departures(days) if table is None else table
    return train(rows, fit, spec(**changes), slice_of(days), lambda text: None)


def changed(table: pa.Table, row: int, column: str, value: object) -> pa.Table:
    """Returns `table` with one value replaced."""
    values = table.to_pylist()
    values[row][column] = value
    return pa.Table.from_pylist(values, schema=table.schema)
