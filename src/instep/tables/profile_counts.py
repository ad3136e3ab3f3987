"""The exact profile of a column from its values and how many rows each has."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from instep.engines.schema import Column
from instep.tables.profile import (
    FIGURES,
    FREQUENT_VALUES,
    GRID,
    KEPT_HASHES,
    QUANTILE_POINTS,
    ColumnProfile,
    Part,
    Sketch,
    is_number,
    known_moments,
)


@dataclass(frozen=True, slots=True)
class Counted:
    """One value and its rows; `number` is None where a value is none, `hash` None without need."""

    text: str | None
    number: float | None
    rows: int
    hash: int | None = None


def part_of_counts(column: Column, counts: Sequence[Counted], hashes: array[int]) -> Part:
    """Returns the exact profile of a column from its counts, sorted by value.

    The entry of nulls has no text. `hashes` are the smallest of all the values.
    """
    known = [one for one in counts if one.text is not None]
    inside = known
    if is_number(column.type):
        inside = [one for one in known if one.number is not None and math.isfinite(one.number)]
    numbers = [(one.number, one.rows) for one in inside if one.number is not None]
    mean, deviation = _moments_of(numbers)
    count = sum(one.rows for one in counts)
    frequent = sorted(((str(one.text), one.rows) for one in known), key=lambda one: -one[1])
    figures = ColumnProfile(
        name=column.name,
        type=column.type,
        count=count,
        nulls=count - sum(one.rows for one in known),
        minimum=inside[0].text if inside else None,
        maximum=inside[-1].text if inside else None,
        mean=mean,
        deviation=deviation,
        distinct=len(known),
        quantiles=_quantiles_of(numbers),
        frequent=tuple(frequent[:FREQUENT_VALUES]),
        exact=FIGURES,
        frequent_below=frequent_below(frequent),
    )
    return Part(figures, Sketch(hashes, _points_of(numbers), sum(rows for _, rows in numbers)))


def smallest(hashes: Iterable[int | None]) -> array[int]:
    """Returns the hashes that a sketch keeps of these."""
    known = sorted({one for one in hashes if one is not None})
    return array("q", known[:KEPT_HASHES])


def frequent_below(frequent: Sequence[tuple[str, int]]) -> int:
    """Returns the most rows that a value beyond the listed ones has."""
    return frequent[FREQUENT_VALUES][1] if len(frequent) > FREQUENT_VALUES else 0


def _moments_of(numbers: Sequence[tuple[float, int]]) -> tuple[float | None, float | None]:
    total = sum(rows for _, rows in numbers)
    if not total:
        return None, None
    try:
        mean = math.fsum(number * rows for number, rows in numbers) / total
        squares = math.fsum(rows * (number - mean) ** 2 for number, rows in numbers)
    except (OverflowError, ValueError):  # ValueError: products that are inf and -inf
        return None, None
    return known_moments(mean, math.sqrt(squares / total))


def _quantiles_of(numbers: Sequence[tuple[float, int]]) -> tuple[float, ...]:
    """The 101 quantiles of counted numbers, sorted; interpolated as quantile_cont does."""
    if not numbers:
        return ()
    ends = list(accumulate(rows for _, rows in numbers))
    found = []
    for percent in range(QUANTILE_POINTS):
        whole, rest = divmod((ends[-1] - 1) * percent, QUANTILE_POINTS - 1)
        low = numbers[bisect_right(ends, whole)][0]
        high = numbers[bisect_right(ends, whole + 1)][0] if rest else low
        found.append(_between(low, high, rest / (QUANTILE_POINTS - 1)))
    return tuple(found)


def _between(low: float, high: float, share: float) -> float:
    apart = high - low
    return low + apart * share if math.isfinite(apart) else low * (1 - share) + high * share


def _points_of(numbers: Sequence[tuple[float, int]]) -> array[float]:
    """The values at each step of the ranks of counted numbers, sorted; as quantile_disc does."""
    if not numbers:
        return array("d")
    ends = list(accumulate(rows for _, rows in numbers))
    places = (max(-(-ends[-1] * step // GRID) - 1, 0) for step in range(GRID + 1))
    return array("d", (numbers[bisect_right(ends, place)][0] for place in places))
