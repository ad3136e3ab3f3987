"""What a profile is: figures of a column without its rows, each exact or with its error.

`ColumnProfile` is what is shown, recorded and compared. `Part` adds what merging needs: the
smallest hashes of the column's values, and points of its distribution.

An error is a bound that holds with 99.9 % probability; a figure named in `exact` has none:
- `distinct_error`: relative to `distinct`.
- `quantile_error`: a share of the rows. The value given for 30 % lies where 30 % of the numbers,
  give or take this share, are smaller.
- `frequent_error`: rows by which the count of a listed value may be off; `frequent_below`: rows
  that a value which is not listed may have at most.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from instep.canonical import Json
from instep.engines.defaults import exact_float

FREQUENT_VALUES = 50
"""How many frequent values a profile lists."""

QUANTILE_POINTS = 101
"""Quantiles are given at 0, 1, ... 100 %."""

KEPT_HASHES = 1024
"""The smallest hashes kept of a column: with more values than that, their number is known within
1 / sqrt(1022) = 3.1 % (standard error; Bar-Yossef and others 2002), for 8 KiB."""

GRID = 400
"""Steps of the distribution that is kept for merging: each merge may move a rank by one step."""

SURE = 3.3
"""Standard errors that a normal estimate exceeds in one of 1,000 cases."""

DISTINCT_ERROR = SURE / (KEPT_HASHES - 2) ** 0.5

FIGURES = frozenset(
    {"count", "nulls", "minimum", "maximum", "mean", "deviation", "distinct", "quantiles",
     "frequent"}
)  # fmt: skip
SCANNED = frozenset({"count", "nulls", "minimum", "maximum", "mean", "deviation"})
"""The figures that one reading of all rows gives exactly."""

_NAMING = frozenset({"minimum", "maximum", "frequent"})
"""The figures that name values."""


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """What one column holds.

    `count` counts rows, nulls among them. `minimum`, `maximum` and frequent values are DuckDB's
    text of the value (instants in UTC; zero and NaN have no sign). A nested column has none of
    these: the text of such a value changes with the names of fields. `mean`, `deviation` (of the
    population) and `quantiles` are of the finite values of a number column, and absent elsewhere;
    the first two also where a float cannot hold them. `frequent` has the most frequent
    values first, nulls left out. `exact` names the figures that are no estimates.
    """

    name: str
    type: str
    count: int
    nulls: int
    minimum: str | None
    maximum: str | None
    mean: float | None
    deviation: float | None
    distinct: int
    quantiles: tuple[float, ...]
    frequent: tuple[tuple[str, int], ...]
    exact: frozenset[str]
    distinct_error: float = 0.0
    quantile_error: float = 0.0
    frequent_error: int = 0
    frequent_below: int = 0

    @property
    def null_share(self) -> float:
        """The share of rows that are null, from 0 to 1; 0 when there are no rows."""
        return self.nulls / self.count if self.count else 0.0

    @property
    def lists_all(self) -> bool:
        """Whether `frequent` holds every value there is."""
        return {"distinct", "frequent"} <= self.exact and len(self.frequent) == self.distinct

    def with_texts(self, change: Callable[[str], str]) -> ColumnProfile:
        """Returns the same figures with each value's text as `change` writes it."""
        return replace(
            self,
            minimum=None if self.minimum is None else change(self.minimum),
            maximum=None if self.maximum is None else change(self.maximum),
            frequent=tuple((change(text), rows) for text, rows in self.frequent),
        )

    def as_type(self, kind: str) -> ColumnProfile:
        """Returns the same of a column that became `kind`: as a double, a float has more digits."""
        if (self.type, kind) != ("float", "double"):
            return self
        return self.with_texts(lambda text: repr(exact_float(text)))

    def without_values(self) -> ColumnProfile:
        """Returns the same without the values it names, any of which may then be there."""
        known = self.count - self.nulls
        return replace(
            self,
            minimum=None,
            maximum=None,
            frequent=(),
            frequent_error=0,
            frequent_below=known,
            exact=self.exact - _NAMING if known else self.exact,
        )

    def to_json(self) -> dict[str, Json]:
        return {
            "name": self.name,
            "type": self.type,
            "count": self.count,
            "nulls": self.nulls,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "mean": self.mean,
            "deviation": self.deviation,
            "distinct": self.distinct,
            "quantiles": list(self.quantiles),
            "frequent": [[value, count] for value, count in self.frequent],
            "exact": sorted(self.exact),
            "distinct_error": self.distinct_error,
            "quantile_error": self.quantile_error,
            "frequent_error": self.frequent_error,
            "frequent_below": self.frequent_below,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ColumnProfile:  # what to_json made
        return cls(
            name=value["name"],
            type=value["type"],
            count=value["count"],
            nulls=value["nulls"],
            minimum=value["minimum"],
            maximum=value["maximum"],
            mean=value["mean"],
            deviation=value["deviation"],
            distinct=value["distinct"],
            quantiles=tuple(value["quantiles"]),
            frequent=tuple((text, count) for text, count in value["frequent"]),
            exact=frozenset(value["exact"]),
            # Records of older arrivals say nothing of errors.
            distinct_error=value.get("distinct_error", 0.0),
            quantile_error=value.get("quantile_error", 0.0),
            frequent_error=value.get("frequent_error", 0),
            frequent_below=value.get("frequent_below", 0),
        )


@dataclass(frozen=True, slots=True)
class Sketch:
    """What merging needs of a column besides its figures.

    `hashes`: the smallest hashes of its values, ascending, each once, at most `KEPT_HASHES`.
    `points`: of its finite numbers, the values at 0, 1, ... 400 of 400 steps of their ranks, each
    a value that is there; empty where there are none. `numbers` counts the finite numbers.
    """

    hashes: array[int] = field(default_factory=lambda: array("q"))
    points: array[float] = field(default_factory=lambda: array("d"))
    numbers: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """The profile of a column in some rows, ready to be merged with that of other rows."""

    figures: ColumnProfile
    sketch: Sketch


def all_null(name: str, kind: str, rows: int) -> Part:
    """Returns the profile of a column without a value."""
    return Part(
        ColumnProfile(name, kind, rows, rows, None, None, None, None, 0, (), (), FIGURES), Sketch()
    )


def is_number(kind: str) -> bool:
    """Whether a column of this type has a mean, a deviation and quantiles."""
    return kind in ("int", "long", "float", "double") or kind.startswith("decimal")


def known_moments(mean: float | None, deviation: float | None) -> tuple[float | None, float | None]:
    """Returns a mean and a deviation; neither where one is beyond the numbers that a float has."""
    if mean is None or deviation is None or not math.isfinite(mean + deviation):
        return None, None
    return mean, deviation
