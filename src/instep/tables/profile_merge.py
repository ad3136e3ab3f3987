"""Merges the profiles of parts into that of all their rows, and says what is lost by it.

Rows, nulls, minimum, maximum, mean and deviation stay exact. The number of values is exact as long
as no part, and not the whole, has more than the hashes kept; then it is estimated. Ranks are mixed
from the parts' points: the error is the mean of the parts' errors, plus one step of 400. Counts of
frequent values add up; the most that a part which does not list a value may hold is the error.
Parts are of one shape (`profile_keep`), so equal values have equal texts and equal hashes.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from instep.engines.defaults import exact_float
from instep.engines.schema import Column
from instep.tables.profile import (
    DISTINCT_ERROR,
    FREQUENT_VALUES,
    GRID,
    KEPT_HASHES,
    QUANTILE_POINTS,
    ColumnProfile,
    Part,
    Sketch,
    all_null,
    is_number,
    known_moments,
)
from instep.tables.profile_compute import estimated_distinct
from instep.tables.profile_counts import Counted, part_of_counts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


_ESCAPED = re.compile(rb"\\x([0-9A-F]{2})")
"""A byte in DuckDB's text of bytes; it writes a backslash so, too."""


def merge_parts(parts: Sequence[Part], column: Column) -> Part:
    """Returns the profile of all rows that `parts` describe; `column` names it, and types it."""
    full = [part for part in parts if part.figures.count]
    if not full:
        return all_null(column.name, column.type, 0)
    if len(full) == 1:
        figures = replace(full[0].figures, name=column.name, type=column.type)
        return Part(figures, full[0].sketch)
    hashes = _merged_hashes(full)
    counts = [part.figures for part in full]
    if all(one.lists_all for one in counts):
        return part_of_counts(column, _merged_counts(column, counts), hashes)
    points, step = _merged_points(full)
    numbers = sum(part.sketch.numbers for part in full)
    figures = _merged_figures(full, column, hashes)
    quantiles = tuple(points[:: GRID // (QUANTILE_POINTS - 1)])
    error = _weighted_error(full) + step if numbers else 0.0
    return Part(
        replace(figures, quantiles=quantiles, quantile_error=error),
        Sketch(hashes, points, numbers),
    )


def _merged_figures(parts: Sequence[Part], column: Column, hashes: array[int]) -> ColumnProfile:
    all_of = [part.figures for part in parts]
    values = [one for one in all_of if one.nulls < one.count]
    exact = frozenset.intersection(*(one.exact for one in all_of))
    mean, deviation = _merged_moments(parts)
    frequent, error, below = _merged_frequent(values)
    known = sum(one.count - one.nulls for one in values)
    distinct, distinct_error = _merged_distinct(values, hashes, known)
    lost = {"quantiles", "frequent"} | ({"distinct"} if distinct_error else set())
    return ColumnProfile(
        name=column.name,
        type=column.type,
        count=sum(one.count for one in all_of),
        nulls=sum(one.nulls for one in all_of),
        minimum=_extreme(column, (one.minimum for one in values), largest=False),
        maximum=_extreme(column, (one.maximum for one in values), largest=True),
        mean=mean,
        deviation=deviation,
        distinct=distinct,
        quantiles=(),
        frequent=frequent,
        exact=exact - lost,
        distinct_error=distinct_error,
        frequent_error=error,
        frequent_below=below,
    )


def _merged_hashes(parts: Sequence[Part]) -> array[int]:
    """Returns the smallest hashes of all parts: those of the union of their values."""
    import numpy as np

    # Sorting takes a tenth of the time of numpy.unique, which hashes first.
    found = np.sort(np.concatenate([_longs(part.sketch.hashes) for part in parts]))
    is_first = np.ones(len(found), dtype=np.bool_)
    np.not_equal(found[1:], found[:-1], out=is_first[1:])
    return array("q", found[is_first][:KEPT_HASHES].tobytes())


def _merged_distinct(
    values: Sequence[ColumnProfile], hashes: array[int], known: int
) -> tuple[int, float]:
    # One part alone may have its values counted exactly, beyond what hashes tell.
    if len(values) == 1:
        return values[0].distinct, values[0].distinct_error
    least = max((one.distinct for one in values if "distinct" in one.exact), default=0)
    most = sum(math.ceil(one.distinct * (1 + one.distinct_error)) for one in values)
    distinct, error = estimated_distinct(hashes, least, min(most, known))
    return distinct, DISTINCT_ERROR if error else 0.0


def _merged_counts(column: Column, parts: Sequence[ColumnProfile]) -> list[Counted]:
    counts = [
        Counted(text, _number(column.type, text), rows) for text, rows in _added(parts).items()
    ]
    counts.sort(key=lambda one: _order(column, str(one.text)))
    return [*counts, Counted(None, None, sum(part.nulls for part in parts))]


def _added(parts: Sequence[ColumnProfile]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for part in parts:
        for text, rows in part.frequent:
            counts[text] += rows
    return counts


def _merged_frequent(
    parts: Sequence[ColumnProfile],
) -> tuple[tuple[tuple[str, int], ...], int, int]:
    """Returns the values listed most, how far their counts may be off, and what others may have."""
    counts: dict[str, int] = {}
    most: dict[str, int] = {}  # rows a value may have, less what every part may hide of a value
    for part in parts:
        for text, rows in part.frequent:
            counts[text] = counts.get(text, 0) + rows
            most[text] = most.get(text, 0) + rows - part.frequent_below
    hidden = sum(part.frequent_below for part in parts)
    off = sum(part.frequent_error for part in parts)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    listed, rest = ordered[:FREQUENT_VALUES], ordered[FREQUENT_VALUES:]
    missed = max((most[text] + hidden - rows for text, rows in listed), default=0)
    below = max((most[text] + hidden + off for text, _ in rest), default=0)
    return tuple(listed), off + missed, max(below, hidden)


def _merged_moments(parts: Sequence[Part]) -> tuple[float | None, float | None]:
    """Mean and deviation of all rows, from those of the parts (Chan, Golub and LeVeque)."""
    known = [
        (part.sketch.numbers, part.figures.mean, part.figures.deviation)
        for part in parts
        if part.figures.mean is not None and part.figures.deviation is not None
    ]
    total = sum(count for count, _, _ in known)
    if not total or total < sum(part.sketch.numbers for part in parts):
        return None, None
    try:
        mean = math.fsum(count * mean for count, mean, _ in known) / total
        squares = math.fsum(
            count * (deviation**2 + (part_mean - mean) ** 2)
            for count, part_mean, deviation in known
        )
    except (OverflowError, ValueError):  # ValueError: products that are inf and -inf
        return None, None
    return known_moments(mean, math.sqrt(squares / total))


def _weighted_error(parts: Sequence[Part]) -> float:
    total = sum(part.sketch.numbers for part in parts)
    errors = (part.sketch.numbers * part.figures.quantile_error for part in parts)
    return math.fsum(errors) / max(total, 1)


def _merged_points(parts: Sequence[Part]) -> tuple[array[float], float]:
    """Returns points of the mixture of the parts' distributions, and by how much ranks moved.

    Each of a part's points stands for the step of ranks that ends in it, so the mixture's rank of
    a value is at most one step below its true rank, and never above.
    """
    import numpy as np

    weighted = [part.sketch for part in parts if part.sketch.numbers]
    if not weighted:
        return array("d"), 0.0
    if len(weighted) == 1:
        return weighted[0].points, 0.0
    points = np.stack([_doubles(sketch.points) for sketch in weighted])
    numbers = np.array([sketch.numbers for sketch in weighted], dtype=np.float64)
    values = points[:, 1:].ravel()
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(np.repeat(numbers / numbers.sum() / GRID, GRID)[order])
    wanted = np.arange(GRID + 1) / GRID * (1 - 1e-12)
    places = np.minimum(np.searchsorted(reached, wanted), len(order) - 1)
    merged = values[order][places]
    merged[0] = points[:, 0].min()
    return array("d", merged.tobytes()), 1 / GRID


def _extreme(column: Column, texts: Iterable[str | None], *, largest: bool) -> str | None:
    """The smallest or largest of values written as text."""
    choose = max if largest else min
    known = (text for text in texts if text is not None)
    return choose(known, key=lambda text: _order(column, text), default=None)


def _number(kind: str, text: str) -> float | None:
    if kind == "float":
        return exact_float(text)
    return float(text) if is_number(kind) else None


def _order(column: Column, text: str) -> tuple[Any, str]:  # comparable within a column
    """What a value of the column, written as DuckDB does, is sorted by."""
    from decimal import Decimal

    if is_number(column.type):
        return (1, Decimal(0)) if text == "nan" else (0, Decimal(text)), text
    if column.sql_type == "BLOB":
        return _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode()), text
    if column.type in ("date", "timestamp", "timestamptz"):
        if text.endswith("infinity"):
            return float(text), ""
        year, _, rest = text.partition("-")
        return (1 - int(year) if "(BC)" in text else int(year)), rest
    return text, text


def _longs(values: array[int]) -> npt.NDArray[np.int64]:
    import numpy as np

    return np.frombuffer(values, dtype=np.int64)


def _doubles(values: array[float]) -> npt.NDArray[np.float64]:
    import numpy as np

    return np.frombuffer(values, dtype=np.float64)
