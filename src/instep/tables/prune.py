"""Which files may hold rows of a time window: by manifest, by partition, by a file's bounds.

Only the lines of a copy that hold the column are read, and no record of a file is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from instep.clock import Window
from instep.engines.engine import WrittenFile
from instep.engines.schema import Column
from instep.tables.copies import load_base, load_columns
from instep.tables.manifest import Manifest
from instep.tables.partition import Spec


@dataclass(frozen=True, slots=True)
class Reach:
    """A file and the instants of one column in it; `bounds` is None where they are not known."""

    file: WrittenFile
    bounds: tuple[datetime, datetime] | None

    def touches(self, window: Window) -> bool:
        """Says whether the file may hold rows of `window`."""
        if self.bounds is None:
            return True
        lower, upper = self.bounds
        return lower < window.end and upper >= window.start


def reaches(files: Sequence[WrittenFile], column: Column) -> tuple[Reach, ...]:
    """Returns what of the time of `column` each file holds; files without a value are left out.

    A file from before the column was added holds its initial default.
    """
    return tuple(reach for file in files if (reach := _reach(file, column)) is not None)


def manifest_may_hold(manifest: Manifest, column: Column, window: Window) -> bool:
    """Says whether a manifest may name a file with rows of a window, without opening it."""
    for field_id, bounds in manifest.bounds:
        if field_id == column.id:
            return bounds is not None and _meets(column, bounds[0], bounds[1], window)
    return True


def files_that_may_hold(
    folder: Path, manifest: Manifest, spec: Spec, column: Column, window: Window
) -> list[int]:
    """Returns which files of a manifest may hold rows of a window, by their place in it."""
    default = column.initial_default
    older_may = default is not None and _meets(column, default, default, window)
    lists = load_columns(folder, manifest, (column.id,)).get(column.id)
    rows = load_base(folder, manifest).rows
    if lists is None:  # the column was added after every file
        return list(range(len(rows))) if older_may else []
    return [
        index
        for index, (size, nulls, lower, upper) in enumerate(
            zip(lists.sizes, lists.nulls, lists.lowers, lists.uppers, strict=True)
        )
        if (size is None and older_may)
        or (
            size is not None
            and nulls != rows[index]
            and (lower is None or upper is None or _meets(column, lower, upper, window))
        )
    ]


def _meets(column: Column, lower: str, upper: str, window: Window) -> bool:
    return (
        _instant(column.type, lower) < window.end and _instant(column.type, upper) >= window.start
    )


def _reach(file: WrittenFile, column: Column) -> Reach | None:
    found = next((one for one in file.columns if one.field_id == column.id), None)
    if found is None:  # the column was added after this file
        default = column.initial_default
        at = None if default is None else _instant(column.type, default)
        return None if at is None else Reach(file, (at, at))
    if found.nulls == file.rows:
        return None
    if found.lower is None or found.upper is None:
        return Reach(file, None)
    return Reach(file, (_instant(column.type, found.lower), _instant(column.type, found.upper)))


def _instant(kind: str, text: str) -> datetime:
    if kind == "date":
        day = date.fromisoformat(text)
        return datetime(day.year, day.month, day.day, tzinfo=UTC)
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
