"""What a model takes: the features, in order, and the one matrix an estimator ever sees of them.

Numbers are themselves, booleans 0 and 1, text is the position of its category among those seen in
training, sorted; a missing value is NaN. Training and serving share this form, so there is no skew
between them, and no data frame is built for a single row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from instep.canonical import Json, JsonObject
from instep.errors import InvalidError

Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature as training saw it.

    `type` is "number", "boolean" or "category"; `categories` are sorted and empty unless it is a
    category; `minimum` and `maximum` are of numbers, None when all were missing; `has_missing`
    says that training saw a missing value.
    """

    name: str
    type: str
    categories: tuple[str, ...]
    minimum: float | None
    maximum: float | None
    has_missing: bool

    def to_json(self) -> dict[str, Json]:
        return {
            "name": self.name,
            "type": self.type,
            "categories": list(self.categories),
            "minimum": self.minimum,
            "maximum": self.maximum,
            "has_missing": self.has_missing,
        }

    @classmethod
    def from_json(cls, json: JsonObject) -> Feature:
        categories, minimum, maximum = json["categories"], json["minimum"], json["maximum"]
        assert isinstance(categories, Sequence)
        return cls(
            name=str(json["name"]),
            type=str(json["type"]),
            categories=tuple(str(category) for category in categories),
            minimum=float(minimum) if isinstance(minimum, int | float) else None,
            maximum=float(maximum) if isinstance(maximum, int | float) else None,
            has_missing=bool(json["has_missing"]),
        )


@dataclass(frozen=True)
class Signature:
    """The features of one model, in the order of the matrix's columns."""

    features: tuple[Feature, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def categorical(self) -> tuple[bool, ...]:
        return tuple(feature.type == "category" for feature in self.features)

    def matrix(self, columns: Mapping[str, Sequence[Any]]) -> tuple[Matrix, Mask]:
        """Returns rows by features, and which rows have a category that training did not see.

        `columns` holds, for every feature, one plain value or None per row. An unseen category is
        NaN in the matrix: leave its row out.
        """
        count = len(columns[self.features[0].name])
        out = np.empty((count, len(self.features)))
        unseen = np.zeros(count, dtype=np.bool_)
        for place, (feature, codes) in enumerate(zip(self.features, self._codes, strict=True)):
            values = columns[feature.name]
            if codes is None:
                out[:, place] = np.array(values, dtype=np.float64)
            else:
                out[:, place] = [codes.get(value, np.nan) for value in values]
                strange = [value is not None and value not in codes for value in values]
                unseen |= np.array(strange, dtype=np.bool_)
        return out, unseen

    def matrix_of(self, table: pa.Table) -> tuple[Matrix, Mask]:
        """Returns the same as `matrix`, of an Arrow table, without a Python value per cell."""
        out = np.empty((table.num_rows, len(self.features)))
        unseen = np.zeros(table.num_rows, dtype=np.bool_)
        for place, feature in enumerate(self.features):
            column = table[feature.name]
            if feature.type == "category":
                known = pa.array(feature.categories, pa.string())
                codes: Any = pc.index_in(column.cast(pa.string()), value_set=known)
                out[:, place] = _floats(codes)
                unseen |= np.isnan(out[:, place]) & column.is_valid().to_numpy()
            else:
                out[:, place] = _floats(column)
        return out, unseen

    @cached_property
    def _codes(self) -> tuple[dict[str, int] | None, ...]:
        return tuple(
            {category: code for code, category in enumerate(feature.categories)}
            if feature.type == "category"
            else None
            for feature in self.features
        )

    def to_json(self) -> dict[str, Json]:
        return {"features": [feature.to_json() for feature in self.features]}

    @classmethod
    def from_json(cls, json: JsonObject) -> Signature:
        features = json["features"]
        assert isinstance(features, Sequence)
        return cls(tuple(Feature.from_json(f) for f in features if isinstance(f, Mapping)))


def learn_signature(table: pa.Table, features: Sequence[str]) -> Signature:
    """Returns the signature that the rows of `table` define.

    Raises:
        InvalidError (kind "no-such-column"): the table lacks a feature.
        InvalidError (kind "unsupported-feature"): neither number, boolean nor text.
    """
    return Signature(tuple(_learn(table, name) for name in features))


def _learn(table: pa.Table, name: str) -> Feature:
    if name not in table.column_names:
        raise InvalidError(
            f'Feature "{name}" is not a column: expected one of {", ".join(table.column_names)}. '
            "Correct the name.",
            kind="no-such-column",
            column=name,
        )
    column = table[name]
    kind = _kind(name, column.type)
    present = pc.drop_null(column)
    categories: tuple[str, ...] = ()
    minimum = maximum = None
    if kind == "category":
        categories = tuple(sorted(map(str, pc.unique(present.cast(pa.string())).to_pylist())))
    elif kind == "number" and len(present):
        values = _floats(present)
        minimum, maximum = float(np.nanmin(values)), float(np.nanmax(values))
    return Feature(name, kind, categories, minimum, maximum, column.null_count > 0)


def _kind(name: str, kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_dictionary(kind):
        return _kind(name, kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "category"
    raise InvalidError(
        f'Feature "{name}" has type {kind}: expected a number, a boolean or text. Derive one of '
        "these in the step before.",
        kind="unsupported-feature",
        feature=name,
    )


def _floats(column: pa.ChunkedArray[Any]) -> npt.NDArray[np.float64]:
    floats: npt.NDArray[np.float64] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return floats
