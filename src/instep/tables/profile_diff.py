"""Says in words what differs between two profiles of a table, and nothing below their errors.

A sentence that rests on exact figures is sure. One that rests on an estimate says "about", and is
there only when the two figures lie further apart than both errors together. Nothing is said of the
values of nested columns but how many there are. Pure: nothing is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from instep.canonical import Json
from instep.tables.profile import ColumnProfile

LEAST_SHIFT = 0.005
"""Deviations; a smaller shift of the mean would be shown as 0.00."""

LEAST_SHARE = 0.01
"""Of the rows; smaller changes of how frequent a value is are everywhere."""

_NAMED = 3
"""Values named in one sentence; the others are counted."""


@dataclass(frozen=True, slots=True)
class ProfileChange:
    """One difference; `column` is None for the table as a whole."""

    column: str | None
    text: str
    is_sure: bool

    def to_json(self) -> dict[str, Json]:
        return {"column": self.column, "text": self.text, "sure": self.is_sure}


Profiles = Mapping[int, ColumnProfile]
"""The profile of each column by its field id."""


def diff_profiles(before: Profiles, after: Profiles) -> tuple[ProfileChange, ...]:
    """Returns what differs, the table first, then its columns in the order they have now.

    Columns are the same when their field ids are, whatever their names.
    """
    found = list(_rows(before, after))
    for field_id, now in after.items():
        then = before.get(field_id)
        if then is None:
            found.append(ProfileChange(now.name, "is a new column", True))
        else:
            found += _column(then, now)
    gone = [one for field_id, one in before.items() if field_id not in after]
    return (*found, *(ProfileChange(one.name, "is gone", True) for one in gone))


def _rows(before: Profiles, after: Profiles) -> Iterator[ProfileChange]:
    then, now = (max((one.count for one in side.values()), default=0) for side in (before, after))
    if then != now:
        yield ProfileChange(None, f"{now:,} rows, {then:,} before ({now - then:+,})", True)


def _column(before: ColumnProfile, after: ColumnProfile) -> Iterator[ProfileChange]:
    """What differs in one column; where one side has the wider type, both are read in that."""
    then, now = before.as_type(after.type), after.as_type(before.type)

    def sure(text: str) -> ProfileChange:
        return ProfileChange(now.name, text, True)

    if then.name != now.name:
        yield sure(f"was named {then.name}")
    if before.type != after.type:
        yield sure(f"is {after.type}, {before.type} before")
    if not then.count or not now.count:
        return
    if then.null_share != now.null_share:
        yield sure(f"null in {_share(now.null_share)} of rows, {_share(then.null_share)} before")
    if then.nulls == then.count or now.nulls == now.count:
        return
    if then.minimum != now.minimum and None not in (then.minimum, now.minimum):
        yield sure(f"begins at {now.minimum}, {then.minimum} before")
    if then.maximum != now.maximum and None not in (then.maximum, now.maximum):
        yield sure(f"ends at {now.maximum}, {then.maximum} before")
    yield from _mean(then, now)
    yield from _median(then, now)
    yield from _distinct(then, now)
    yield from _values(then, now)


def _mean(then: ColumnProfile, now: ColumnProfile) -> Iterator[ProfileChange]:
    if then.mean is None or now.mean is None or not then.deviation:
        return
    shift = (now.mean - then.mean) / then.deviation
    if abs(shift) >= LEAST_SHIFT:
        way = "up" if shift > 0 else "down"
        yield ProfileChange(
            now.name,
            f"mean {now.mean:.6g}, {then.mean:.6g} before: {abs(shift):.2f} deviations {way}",
            True,
        )


def _median(then: ColumnProfile, now: ColumnProfile) -> Iterator[ProfileChange]:
    if not then.quantiles or not now.quantiles:
        return
    low, high = _median_bounds(then)
    least, most = _median_bounds(now)
    if high < least or most < low:
        is_sure = "quantiles" in then.exact & now.exact
        about = "" if is_sure else "about "
        yield ProfileChange(
            now.name,
            f"median {about}{now.quantiles[50]:.6g}, {then.quantiles[50]:.6g} before",
            is_sure,
        )


def _median_bounds(one: ColumnProfile) -> tuple[float, float]:
    """Returns between which values the median lies; quantiles are known at whole percents."""
    if "quantiles" in one.exact:
        return one.quantiles[50], one.quantiles[50]
    percents = min(math.ceil(100 * one.quantile_error), 50)
    return one.quantiles[50 - percents], one.quantiles[50 + percents]


def _distinct(then: ColumnProfile, now: ColumnProfile) -> Iterator[ProfileChange]:
    if then.distinct == now.distinct:
        return
    is_sure = "distinct" in then.exact & now.exact
    apart = abs(then.distinct - now.distinct)
    if apart <= then.distinct * then.distinct_error + now.distinct * now.distinct_error:
        return
    about = "" if is_sure else "about "
    yield ProfileChange(
        now.name, f"{about}{now.distinct:,} different values, {then.distinct:,} before", is_sure
    )


def _values(then: ColumnProfile, now: ColumnProfile) -> Iterator[ProfileChange]:
    came = _only_in(now, then)
    if came:
        yield ProfileChange(now.name, f"new: {_named(came)}", True)
    went = _only_in(then, now)
    if went:
        yield ProfileChange(now.name, f"no more: {_named(went)}", True)
    known = {*came, *went}
    moved = sorted(
        (
            (abs(share - old), text, old, share, is_sure)
            for text, old, share, is_sure in _moved(then, now)
            if text not in known
        ),
        key=lambda one: (-one[0], one[1]),
    )
    for _, text, old, share, is_sure in moved[:_NAMED]:
        about = "" if is_sure else "about "
        yield ProfileChange(
            now.name,
            f'"{text}" in {about}{_share(share)} of rows, {_share(old)} before',
            is_sure,
        )


def _only_in(one: ColumnProfile, other: ColumnProfile) -> list[str]:
    """Returns listed values of `one` that `other`, which lists all of its own, does not have."""
    if not other.lists_all:
        return []
    elsewhere = {text for text, _ in other.frequent}
    # A listed value is there at least once, even where its count is an estimate.
    return [text for text, _ in one.frequent if text not in elsewhere]


def _moved(then: ColumnProfile, now: ColumnProfile) -> Iterator[tuple[str, float, float, bool]]:
    """Yields values whose share of the rows changed beyond the errors: before, now, sure."""
    before, after = dict(then.frequent), dict(now.frequent)
    is_sure = not (
        then.frequent_error or then.frequent_below or now.frequent_error or now.frequent_below
    )
    for text in before.keys() & after.keys():
        old, share = before[text] / then.count, after[text] / now.count
        errors = then.frequent_error / then.count + now.frequent_error / now.count
        if abs(share - old) > max(errors, LEAST_SHARE):
            yield text, old, share, is_sure


def _named(values: Sequence[str]) -> str:
    shown = ", ".join(f'"{text}"' for text in values[:_NAMED])
    rest = len(values) - _NAMED
    return f"{shown} and {rest:,} more" if rest > 0 else shown


def _share(share: float) -> str:
    return f"{100 * share:.3g} %"
