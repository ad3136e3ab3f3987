"""Recognises that a column of an arriving batch is in another unit, or else moved.

A pure reading of column profiles: the batch against accepted ones. It proposes, with
evidence in a sentence, and never repairs. A change of distribution alone is no change of unit:
unless the old values are gone and a conversion brings them back, a column is only told of, and only
where it moved further than it ever did.

The thresholds were set on New York flights and weather, 132 pairs of months and every column of
numbers: without any conversion no pair is taken for one; of converted columns more than nine in
ten are named rightly. Not here: several units inside one column.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from instep.findings import Finding, Severity
from instep.tables.profile import ColumnProfile

NUMBERS = ("int", "long", "float", "double", "decimal")
TIMES = ("date", "time", "timestamp", "timestamptz")

FEWEST_VALUES = 8
"""Below so many different values a column has no shape to compare."""

SHARE_CHANGE = 3.0
"""How far the share of one value may change between two batches and still count as the same."""


FEWEST_BATCHES = 6
"""Below so many earlier batches nobody knows how far a column usually moves."""

BEYOND_USUAL = 1.5
"""How many times as far as ever before a column has to move for a note."""

LARGE_RANK_GAP = 0.2
LARGE_NULL_GAP = 0.1
"""Smaller moves, as shares of the rows, are never worth a note."""

Gap = Callable[[ColumnProfile, ColumnProfile], float]


@dataclass(frozen=True, slots=True)
class Conversion:
    """A change of unit: new = factor * old + offset; a plain power of ten has no names."""

    source: str
    target: str
    factor: float
    offset: float = 0.0

    def back(self, value: float) -> float:
        return (value - self.offset) / self.factor

    @property
    def inverse(self) -> Conversion:
        return Conversion(self.target, self.source, 1 / self.factor, -self.offset / self.factor)

    @property
    def arithmetic(self) -> str:
        """The conversion in figures: "1.609 times", "0.5556 times, minus 17.78,"."""
        times = f"{self.factor:.4g} times"
        if self.factor >= 1000 and self.factor == int(self.factor):
            times = f"{self.factor:.0f} times"
        if not self.offset:
            return times
        shift = f"{'plus' if self.offset > 0 else 'minus'} {abs(self.offset):.4g},"
        return shift if self.factor == 1 else f"{times}, {shift}"


_NAMED = (
    Conversion("miles", "kilometres", 1.609344),
    Conversion("miles per hour", "kilometres per hour", 1.609344),
    Conversion("miles per hour", "metres per second", 0.44704),
    Conversion("degrees Fahrenheit", "degrees Celsius", 1 / 1.8, -32 / 1.8),
    Conversion("degrees Celsius", "kelvins", 1, 273.15),
    Conversion("degrees Fahrenheit", "kelvins", 1 / 1.8, 273.15 - 32 / 1.8),
    Conversion("minutes", "seconds", 60),
    Conversion("hours", "minutes", 60),
    Conversion("hours", "seconds", 3600),
    Conversion("days", "hours", 24),
    Conversion("days", "minutes", 1440),
    Conversion("days", "seconds", 86_400),
    Conversion("seconds", "milliseconds", 1000),
    Conversion("kilometres", "metres", 1000),
    Conversion("feet", "metres", 0.3048),
    Conversion("inches", "centimetres", 2.54),
    Conversion("inches", "millimetres", 25.4),
    Conversion("metres per second", "kilometres per hour", 3.6),
    Conversion("knots", "kilometres per hour", 1.852),
    Conversion("miles per hour", "knots", 1 / 1.15077945),
    Conversion("knots", "metres per second", 0.514444),
    Conversion("kilograms", "pounds", 2.20462262),
    Conversion("ounces", "grams", 28.3495231),
    Conversion("gallons", "litres", 3.78541178),
    Conversion("inches of mercury", "hectopascals", 33.8638866),
    Conversion("millimetres of mercury", "hectopascals", 1.33322387),
    Conversion("hectopascals", "pascals", 100),
    Conversion("fractions", "percent", 100),
    Conversion("kibibytes", "bytes", 1024),
    Conversion("mebibytes", "bytes", 1024**2),
    Conversion("gibibytes", "bytes", 1024**3),
)
_POWERS = tuple(Conversion("", "", 10.0**power) for power in range(1, 10))

_SPELLINGS: dict[str, tuple[str, ...]] = {
    "miles": ("mi", "mile"),
    "kilometres": ("km", "kilometers", "kilometer", "kilometre"),
    "miles per hour": ("mph", "mi/h"),
    "kilometres per hour": ("km/h", "kmh", "kph"),
    "metres per second": ("m/s",),
    "degrees fahrenheit": ("f", "°f", "degf", "fahrenheit"),
    "degrees celsius": ("c", "°c", "degc", "celsius"),
    "kelvins": ("k", "kelvin"),
    "minutes": ("min", "minute"),
    "seconds": ("s", "sec", "second"),
    "hours": ("h", "hour"),
    "days": ("d", "day"),
    "milliseconds": ("ms",),
    "feet": ("ft", "foot"),
    "metres": ("m", "meter", "meters", "metre"),
    "inches": ("in", "inch"),
    "centimetres": ("cm",),
    "millimetres": ("mm",),
    "knots": ("kn", "kt", "knot"),
    "kilograms": ("kg",),
    "pounds": ("lb", "lbs", "pound"),
    "ounces": ("oz",),
    "grams": ("g",),
    "gallons": ("gal",),
    "litres": ("l", "liters", "litre"),
    "inches of mercury": ("inhg",),
    "millimetres of mercury": ("mmhg",),
    "hectopascals": ("hpa", "mbar", "mb", "millibars", "millibar"),
    "pascals": ("pa", "pascal"),
    "percent": ("%",),
    "fractions": ("fraction", "share"),
    "bytes": ("b", "byte"),
}


@dataclass(frozen=True, slots=True)
class UnitChange:
    """A column whose old values are gone, and come back by one conversion."""

    column: str
    conversion: Conversion

    @property
    def sentence(self) -> str:
        found = self.conversion
        question = f"{found.target} instead of {found.source}?" if found.source else "another unit?"
        return (
            f"{self.column}: every quantile is {found.arithmetic} the nearest accepted batch: "
            f"{question}"
        )

    def finding(self, table: str) -> Finding:
        found = self.conversion
        return Finding(
            kind="unit-factor",
            subject=f"table/{table}.{self.column}",
            severity=Severity.STOP,
            message=self.sentence,
            evidence={
                "column": self.column,
                "factor": f"{found.factor:.6g}",
                "offset": f"{found.offset:.6g}",
                "from": found.source,
                "to": found.target,
            },
        )


def unit_change(before: ColumnProfile, after: ColumnProfile, unit: str = "") -> UnitChange | None:
    """Returns the change of unit between two profiles of one column, or None.

    Two kinds of evidence. Values: hardly any frequent value of the batch was frequent before, but
    converted back many were. Shape: the quantiles fit far better when converted back. A column
    that keeps its values is never taken; `unit`, as a contract names it, narrows the conversions.
    """
    if not (is_number(before) and is_number(after)):
        return None
    if is_identifier(before) and is_identifier(after):
        return None
    if min(before.distinct, after.distinct) < FEWEST_VALUES:
        return None
    old, new = _shares(before), _shares(after)
    kept = _returned(new, old, None)
    if kept >= 0.2:
        return None
    width = _width(before.quantiles)
    apart = _distance(before.quantiles, after.quantiles, None) / width if width else 0.0
    if not apart:
        return None
    fits = [
        (_returned(new, old, conversion), _distance(before.quantiles, after.quantiles, conversion)
         / width, conversion)
        for conversion in _candidates(unit)
    ]  # fmt: skip
    by_value = [fit for fit in fits if _values_say(kept, apart, fit[0], fit[1])]
    if by_value:
        most = max(fit[0] for fit in by_value)
        by_value = [fit for fit in by_value if fit[0] >= 0.8 * most]
    wide = _width(after.quantiles) / width
    by_shape = [
        fit for fit in fits if _shape_says(kept, apart, fit[1], wide / abs(fit[2].factor), fit[2])
    ]
    chosen = by_value or by_shape
    if not chosen:
        return None
    return UnitChange(before.name, min(chosen, key=lambda fit: fit[1])[2])


def is_identifier(profile: ColumnProfile) -> bool:
    """Says whether a column numbers its rows: whole numbers, hardly two of them the same.

    Such numbers grow from batch to batch, and nothing follows from how far.
    """
    values = profile.count - profile.nulls
    return profile.type in ("int", "long") and values > 0 and profile.distinct >= 0.95 * values


def distribution_changes(
    earlier: Sequence[Mapping[str, ColumnProfile]], after: Sequence[ColumnProfile], table: str
) -> tuple[Finding, ...]:
    """Returns notes on columns that moved further than they did before; never a stop.

    `earlier` are the columns of accepted batches, by name. How far a batch is from others is its
    distance to the one most like it: a season that came before is no news. Of fewer than
    `FEWEST_BATCHES` nothing is said.
    """
    notes = []
    for profile in after:
        own = [batch[profile.name] for batch in earlier if profile.name in batch]
        if len(own) < FEWEST_BATCHES or all(map(is_identifier, (*own, profile))):
            continue
        if _is_news(profile, own, _null_gap, LARGE_NULL_GAP):
            shares = sorted(one.null_share for one in own)
            usual = f"{shares[0]:.0%} to {shares[-1]:.0%}"
            message = (
                f"null in {profile.null_share:.0%} of rows, {usual} in {len(own)} batches before"
            )
            notes.append(_note(table, profile.name, message))
        own = [one for one in own if is_number(one)]
        if is_number(profile) and _is_news(profile, own, _quantile_gap, LARGE_RANK_GAP):
            medians = sorted(one.quantiles[50] for one in own)
            message = (
                f"median {profile.quantiles[50]:.6g}, {medians[0]:.6g} to {medians[-1]:.6g} in "
                f"{len(own)} batches before"
            )
            notes.append(_note(table, profile.name, message))
    return tuple(notes)


def _is_news(profile: ColumnProfile, own: Sequence[ColumnProfile], gap: Gap, large: float) -> bool:
    """Says whether a column is further from its earlier batches than any of them from the rest."""
    if len(own) < FEWEST_BATCHES or any(gap(batch, profile) <= large for batch in own):
        return False
    usual = max(
        min(gap(batch, other) for other in (*own[:place], *own[place + 1 :]))
        for place, batch in enumerate(own)
    )
    return min(gap(batch, profile) for batch in own) > BEYOND_USUAL * usual


def _null_gap(one: ColumnProfile, other: ColumnProfile) -> float:
    return abs(one.null_share - other.null_share)


def _quantile_gap(one: ColumnProfile, other: ColumnProfile) -> float:
    return rank_gap(one.quantiles, other.quantiles)


def _note(table: str, column: str, message: str) -> Finding:
    return Finding(
        "distribution-change", f"table/{table}.{column}", Severity.NOTE, f"{column}: {message}."
    )


def _values_say(kept: float, apart: float, returned: float, rest: float) -> bool:
    if returned < 0.25 or returned < 5 * kept:
        return False
    return rest < apart / 1.5 or (returned >= 0.5 and kept <= 0.05 and rest <= apart)


def _shape_says(
    kept: float, apart: float, rest: float, stretch: float, conversion: Conversion
) -> bool:
    """`stretch` is the width of the converted quantiles in widths of the old ones."""
    if kept >= 0.1 or not 0.4 <= stretch <= 2.5:
        return False
    better = apart / rest if rest else float("inf")
    # No season makes a column ten times larger and keeps its shape.
    is_gross = conversion.factor >= 10 or conversion.factor <= 0.1
    return (
        (is_gross and rest <= 0.5 and better >= 4)
        or (rest <= 2.0 and better >= 25)
        or (rest <= 0.15 and better >= 6)
    )


def _candidates(unit: str) -> Iterator[Conversion]:
    """The conversions from a unit; from every unit when it is not known."""
    name = _unit_name(unit)
    every = [*_NAMED, *(conversion.inverse for conversion in _NAMED)]
    from_unit = [conversion for conversion in every if conversion.source.lower() == name]
    if name and from_unit:
        yield from from_unit
    else:
        yield from (one for one in every if "bytes" not in (one.source, one.target))
    for power in _POWERS:
        yield power
        yield power.inverse


def _unit_name(unit: str) -> str:
    wanted = unit.strip().lower()
    for name, spellings in _SPELLINGS.items():
        if wanted == name or wanted in spellings:
            return name
    return wanted


def is_number(profile: ColumnProfile) -> bool:
    return profile.type.partition("(")[0] in NUMBERS and len(profile.quantiles) > 2


_Values = tuple[tuple[float, float, float], ...]
"""Value, half of its last written digit, share of the rows; by value."""


def _shares(profile: ColumnProfile) -> _Values:
    """The frequent values with their shares, zero left out, since it has no unit."""
    rows = [(text, count) for text, count in profile.frequent if _decimal(text)]
    total = sum(count for _, count in rows)
    return tuple(
        sorted((float(text), _precision(text), count / total) for text, count in rows)
        if total
        else ()
    )


def _decimal(text: str) -> Decimal | None:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def _precision(text: str) -> float:
    exponent = Decimal(text).as_tuple().exponent
    digits = -exponent if isinstance(exponent, int) else 0
    if text.endswith(".0"):
        digits = 0
    return 0.5 * 10.0**-digits if digits < 6 else 0.0


def _returned(new: _Values, old: _Values, conversion: Conversion | None) -> float:
    """The share of the new frequent values that were frequent before, after converting back."""
    if not new or not old:
        return 0.0
    values = [value for value, _, _ in old]
    # A column is written with one precision; a value such as 4 may stand for 4.0.
    rounding = min(precision for _, precision, _ in new) if conversion else 0.0
    found = 0.0
    for value, _, share in new:
        at = conversion.back(value) if conversion else value
        near = abs(rounding / conversion.factor) if conversion else 0.0
        near += 1e-6 * abs(at)
        low, high = bisect_left(values, at - near), bisect_right(values, at + near)
        found += min(share, SHARE_CHANGE * sum(part for _, _, part in old[low:high]))
    return found


def _inner(quantiles: Sequence[float]) -> Sequence[float]:
    return quantiles[2:-2]


def _width(quantiles: Sequence[float]) -> float:
    """The mean distance from the median: the scale on which distances are told."""
    middle = quantiles[len(quantiles) // 2]
    for part in (_inner(quantiles), quantiles):
        width = sum(abs(value - middle) for value in part) / len(part)
        if width:
            return width
    return 0.0


def _distance(old: Sequence[float], new: Sequence[float], conversion: Conversion | None) -> float:
    pairs = list(zip(_inner(old), _inner(new), strict=True))
    if conversion is None:
        return sum(abs(after - before) for before, after in pairs) / len(pairs)
    return sum(abs(conversion.back(after) - before) for before, after in pairs) / len(pairs)


def rank_gap(old: Sequence[float], new: Sequence[float]) -> float:
    """The largest difference of the two distribution functions, at the old quantiles."""
    gap = 0.0
    for value in old:
        ranks = [
            (bisect_left(part, value) / len(part), bisect_right(part, value) / len(part))
            for part in (old, new)
        ]
        (low0, high0), (low1, high1) = ranks
        gap = max(gap, low1 - high0, low0 - high1, abs(high1 - high0) if high0 < 1 else 0.0)
    return gap
