"""What training rows looked like, and how the scores held out of sample: the baseline of watching.

Features and the target rate are of the rows of the final fit. Calibration and days are of the test
windows, scored by models that had not seen them: the only scores that may be compared with those
of new events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from instep.canonical import Json, JsonObject
from instep.models.signature import Feature, Signature

_FREQUENT = 200
"""Categories kept with their count, the most frequent first; others count as one."""

_DAY_MICROSECONDS = 86_400_000_000


@dataclass(frozen=True, slots=True)
class FeatureProfile:
    """One feature over some rows.

    `quantiles` are the 101 of a number, 0 % to 100 %; `frequent` the categories (or false and
    true) with their counts. Missing values are counted apart. Exact, but for categories beyond the
    most frequent.
    """

    name: str
    type: str
    rows: int
    missing: int
    mean: float | None
    deviation: float | None
    quantiles: tuple[float, ...]
    frequent: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Rows whose score is in one tenth of the scores: the mean promised and the share observed."""

    rows: int
    lower: float
    upper: float
    predicted: float
    observed: float


@dataclass(frozen=True, slots=True)
class Day:
    """One UTC day of events: how many, how many happened, how many the scores promised."""

    day: int
    rows: int
    observed: int
    predicted: float


@dataclass(frozen=True, slots=True)
class TrainingProfile:
    """The baseline that a bundle carries; `day` counts days since 1970-01-01."""

    rows: int
    positives: int
    features: tuple[FeatureProfile, ...]
    calibration: tuple[CalibrationBin, ...]
    days: tuple[Day, ...]

    def to_json(self) -> dict[str, Json]:
        return {
            "rows": self.rows,
            "positives": self.positives,
            "features": [_feature_json(feature) for feature in self.features],
            "calibration": [
                [b.rows, b.lower, b.upper, b.predicted, b.observed] for b in self.calibration
            ],
            "days": [[d.day, d.rows, d.observed, d.predicted] for d in self.days],
        }

    @classmethod
    def from_json(cls, json: JsonObject) -> TrainingProfile:
        return cls(
            rows=_int(json["rows"]),
            positives=_int(json["positives"]),
            features=tuple(_feature(f) for f in _list(json["features"]) if isinstance(f, Mapping)),
            calibration=tuple(
                CalibrationBin(_int(rows), *(_float(figure) for figure in rest))
                for rows, *rest in map(_list, _list(json["calibration"]))
            ),
            days=tuple(
                Day(_int(day), _int(rows), _int(observed), _float(predicted))
                for day, rows, observed, predicted in map(_list, _list(json["days"]))
            ),
        )


def profile_training(
    trained: pa.Table,
    signature: Signature,
    target: npt.NDArray[np.int64],
    time: npt.NDArray[np.int64],
    observed: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.float64],
) -> TrainingProfile:
    """Returns the profile of the `trained` rows and their `target`, and of out-of-sample scores.

    `time` (microseconds), `observed` and `predicted` are of the same tested rows.
    """
    return TrainingProfile(
        rows=len(target),
        positives=int(target.sum()),
        features=profile_features(trained, signature),
        calibration=calibrate(observed, predicted),
        days=by_day(time, observed, predicted),
    )


def profile_features(table: pa.Table, signature: Signature) -> tuple[FeatureProfile, ...]:
    """Returns one profile per feature, in the order of the signature."""
    return tuple(_profile(table[feature.name], feature) for feature in signature.features)


def calibrate(
    observed: npt.NDArray[np.int64], predicted: npt.NDArray[np.float64], bins: int = 10
) -> tuple[CalibrationBin, ...]:
    """Returns calibration over `bins` groups of nearly equal size, by rising score."""
    order = np.argsort(predicted, kind="stable")
    return tuple(
        CalibrationBin(
            rows=len(part),
            lower=float(predicted[part[0]]),
            upper=float(predicted[part[-1]]),
            predicted=float(predicted[part].mean()),
            observed=float(observed[part].mean()),
        )
        for part in np.array_split(order, bins)
        if len(part)
    )


def by_day(
    time: npt.NDArray[np.int64],
    observed: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.float64],
) -> tuple[Day, ...]:
    """Returns the days that have rows, in order."""
    days, place = np.unique(time // _DAY_MICROSECONDS, return_inverse=True)
    rows = np.bincount(place)
    happened = np.bincount(place, weights=observed)
    promised = np.bincount(place, weights=predicted)
    return tuple(
        Day(int(day), int(count), round(float(seen)), float(hoped))
        for day, count, seen, hoped in zip(days, rows, happened, promised, strict=True)
    )


def _profile(column: pa.ChunkedArray[Any], feature: Feature) -> FeatureProfile:
    present = pc.drop_null(column)
    mean = deviation = None
    quantiles: tuple[float, ...] = ()
    frequent: tuple[tuple[str, int], ...] = ()
    if feature.type == "number":
        values = present.cast(pa.float64()).to_numpy()
        if len(values):
            mean, deviation = float(values.mean()), float(values.std())
            quantiles = tuple(float(q) for q in np.quantile(values, np.linspace(0, 1, 101)))
    else:
        counts: Any = pc.value_counts(present.cast(pa.string()))  # structs, unknown to the stubs
        found = ((str(count["values"]), int(count["counts"])) for count in counts.to_pylist())
        pairs = sorted(found, key=lambda pair: (-pair[1], pair[0]))
        frequent = tuple(pairs[:_FREQUENT])
    return FeatureProfile(
        name=feature.name,
        type=feature.type,
        rows=len(column),
        missing=column.null_count,
        mean=mean,
        deviation=deviation,
        quantiles=quantiles,
        frequent=frequent,
    )


def _feature_json(feature: FeatureProfile) -> dict[str, Json]:
    return {
        "name": feature.name,
        "type": feature.type,
        "rows": feature.rows,
        "missing": feature.missing,
        "mean": feature.mean,
        "deviation": feature.deviation,
        "quantiles": list(feature.quantiles),
        "frequent": [[value, count] for value, count in feature.frequent],
    }


def _feature(json: JsonObject) -> FeatureProfile:
    mean, deviation = json["mean"], json["deviation"]
    return FeatureProfile(
        name=str(json["name"]),
        type=str(json["type"]),
        rows=_int(json["rows"]),
        missing=_int(json["missing"]),
        mean=None if mean is None else _float(mean),
        deviation=None if deviation is None else _float(deviation),
        quantiles=tuple(_float(q) for q in _list(json["quantiles"])),
        frequent=tuple(
            (str(value), _int(count)) for value, count in map(_list, _list(json["frequent"]))
        ),
    )


def _list(value: Json) -> Sequence[Json]:
    assert isinstance(value, Sequence) and not isinstance(value, str)
    return value


def _int(value: Json) -> int:
    assert isinstance(value, int)
    return value


def _float(value: Json) -> float:
    assert isinstance(value, int | float)
    return float(value)
