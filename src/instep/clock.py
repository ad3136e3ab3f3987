"""Instants, half-open windows and durations. The clock itself is passed in.

Instants are aware and UTC; a bare date means 00:00 UTC; a window is `[start, end)`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from instep.errors import InvalidError

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """Returns now, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Window:
    """The instants from `start` (included) to `end` (excluded)."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise InvalidError(
                f"Window {format_instant(self.start)} to {format_instant(self.end)} is empty: "
                "expected its start before its end. Swap or widen the two.",
                kind="empty-window",
            )

    def __contains__(self, at: datetime) -> bool:
        return self.start <= at < self.end

    def __str__(self) -> str:
        return f"{format_instant(self.start)} to {format_instant(self.end)}"


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time: whole calendar months, or a fixed span; never both."""

    months: int = 0
    span: timedelta = timedelta()

    def __str__(self) -> str:
        if self.months:
            return f"{self.months} month{'s' if self.months != 1 else ''}"
        seconds = int(self.span.total_seconds())
        for name, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
            if seconds and seconds % size == 0:
                count = seconds // size
                return f"{count} {name}{'s' if count != 1 else ''}"
        return f"{seconds} second{'s' if seconds != 1 else ''}"

    @property
    def nominal(self) -> timedelta:
        """The duration where no calendar is at hand: a month counts as 30 days."""
        return self.span + timedelta(days=30) * self.months

    def after(self, at: datetime, times: int = 1) -> datetime:
        """Returns `at` moved on by this duration `times` times; months keep the day of the month.

        Raises:
            InvalidError (kind "no-such-day"): the month reached has no such day.
        """
        if not self.months:
            return at + self.span * times
        index = at.year * 12 + at.month - 1 + self.months * times
        try:
            return at.replace(year=index // 12, month=index % 12 + 1)
        except ValueError:
            raise InvalidError(
                f"{format_instant(at)} moved by {self.months * times} months falls on a day that "
                "does not exist: expected a day of the month up to 28. Start on another day.",
                kind="no-such-day",
            ) from None


_DURATION = re.compile(r"\s*(\d+)\s*(second|minute|hour|day|week|month|year)s?\s*")
_SPANS = {
    "second": timedelta(seconds=1),
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}


def parse_duration(text: str) -> Duration:
    """Returns the duration written as "36 hours" or "1 month".

    Raises:
        InvalidError (kind "bad-duration").
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise InvalidError(
            f'Duration "{text}" cannot be read: expected a whole number and one of second, minute, '
            'hour, day, week, month, year. Write for example "36 hours".',
            kind="bad-duration",
        )
    count, unit = int(found[1]), found[2]
    match unit:
        case "month":
            return Duration(months=count)
        case "year":
            return Duration(months=12 * count)
        case _:
            return Duration(span=_SPANS[unit] * count)


def parse_instant(value: str | date | datetime) -> datetime:
    """Returns the UTC instant that `value` names; a bare date or a zoneless time is UTC.

    Raises:
        InvalidError (kind "bad-instant").
    """
    match value:
        case datetime():
            at = value
        case date():
            at = datetime(value.year, value.month, value.day)
        case str():
            try:
                at = datetime.fromisoformat(value.strip())
            except ValueError:
                raise InvalidError(
                    f'Instant "{value}" cannot be read: expected ISO 8601 such as 2013-09-01 or '
                    "2013-09-01T10:00:00Z. Write it so.",
                    kind="bad-instant",
                ) from None
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError:
        raise InvalidError(
            f'Instant "{value}" is not in the years 1 to 9999 of UTC: expected one that is. '
            "Correct it.",
            kind="bad-instant",
        ) from None


def format_instant(at: datetime) -> str:
    """Returns `at` as short ISO 8601 in UTC: a date alone when it is midnight."""
    at = at.astimezone(UTC)
    if (at.hour, at.minute, at.second, at.microsecond) == (0, 0, 0, 0):
        return at.date().isoformat()
    return at.isoformat(timespec="auto").replace("+00:00", "Z")


def split(window: Window, every: Duration) -> Iterator[Window]:
    """Yields the periods of length `every` that cover `window`, in order; the last may be short.

    Calendar months are cut at the first of the month, so that the same period is always the same.
    """
    edges = _edges(window, every)
    start = window.start
    for edge in edges:
        if edge >= window.end:
            break
        if edge > start:
            yield Window(start, edge)
            start = edge
    yield Window(start, window.end)


def _edges(window: Window, every: Duration) -> Iterator[datetime]:
    if every.months:
        at = datetime(window.start.year, 1, 1, tzinfo=UTC)
    elif every.span > timedelta():
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        at = epoch + (window.start - epoch) // every.span * every.span
    else:
        raise InvalidError(
            f'Period "{every}" is empty: expected a positive duration. Write for example '
            '"1 month".',
            kind="bad-duration",
        )
    while True:
        at = every.after(at)
        yield at
