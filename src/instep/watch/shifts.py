"""How far the features of new events are from those that trained the model, largest first. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from instep.canonical import Json
from instep.models.profile import FeatureProfile

MATERIAL_DISTANCE = 0.1
"""The distance from which a shift is worth a sentence: a tenth of the rows lie elsewhere."""


@dataclass(frozen=True, slots=True)
class Shift:
    """One feature: `distance` from 0 (the same) to 1 (nothing in common).

    It is the larger of two: Kolmogorov and Smirnov's for numbers (from 101 quantiles, so within
    0.01) or the total variation for categories; and the difference of the shares that are missing.
    `text` says it in the feature's own units.
    """

    feature: str
    distance: float
    text: str

    @property
    def is_material(self) -> bool:
        return self.distance >= MATERIAL_DISTANCE

    def to_json(self) -> dict[str, Json]:
        return {
            "feature": self.feature,
            "distance": self.distance,
            "is_material": self.is_material,
            "text": self.text,
        }


def find_shifts(
    before: Sequence[FeatureProfile], after: Sequence[FeatureProfile]
) -> tuple[Shift, ...]:
    """Returns one shift per feature, the largest first; both describe the same features."""
    shifts = (_shift(old, new) for old, new in zip(before, after, strict=True))
    return tuple(sorted(shifts, key=lambda shift: (-shift.distance, shift.feature)))


def _shift(old: FeatureProfile, new: FeatureProfile) -> Shift:
    missing_before, missing_after = _missing(old), _missing(new)
    missing = abs(missing_after - missing_before)
    values, text = _numbers(old, new) if old.type == "number" else _categories(old, new)
    if missing > values:
        text = f"missing in {missing_before:.1%} before, {missing_after:.1%} now"
    return Shift(old.name, max(values, missing), text)


def _missing(profile: FeatureProfile) -> float:
    return profile.missing / profile.rows if profile.rows else 0.0


def _numbers(old: FeatureProfile, new: FeatureProfile) -> tuple[float, str]:
    if not old.quantiles or not new.quantiles:
        return 0.0, "no values on one side"
    places = np.union1d(old.quantiles, new.quantiles)
    gap = np.abs(_below(old.quantiles, places) - _below(new.quantiles, places))
    text = f"median {old.quantiles[50]:.4g} before, {new.quantiles[50]:.4g} now"
    return float(gap.max()), text


def _below(quantiles: Sequence[float], places: np.ndarray) -> np.ndarray:
    """Returns the share of values at or below each place, as far as the quantiles tell."""
    return np.maximum(np.searchsorted(np.asarray(quantiles), places, side="right") - 1, 0) / 100


def _categories(old: FeatureProfile, new: FeatureProfile) -> tuple[float, str]:
    before, after = dict(old.frequent), dict(new.frequent)
    total_before, total_after = old.rows - old.missing, new.rows - new.missing
    if not total_before or not total_after:
        return 0.0, "no values on one side"
    gaps = {
        name: after.get(name, 0) / total_after - before.get(name, 0) / total_before
        for name in before.keys() | after.keys()
    }
    rest = (total_after - sum(after.values())) / total_after
    rest -= (total_before - sum(before.values())) / total_before
    name = max(sorted(gaps), key=lambda name: abs(gaps[name]))
    text = (
        f"{name} in {before.get(name, 0) / total_before:.1%} before, "
        f"{after.get(name, 0) / total_after:.1%} now"
    )
    return (sum(map(abs, gaps.values())) + abs(rest)) / 2, text
