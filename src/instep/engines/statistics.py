"""Reads what DuckDB's `COPY ... RETURN_STATS` tells of a file: text, in forms that vary by type."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, datetime

from instep.engines.defaults import exact_float
from instep.engines.engine import ColumnStatistics
from instep.engines.schema import Column, Schema, quoted
from instep.errors import InvalidError

_TIMES = frozenset({"date", "timestamp", "timestamptz"})
_INFINITE = frozenset({"infinity", "-infinity"})


def file_statistics(
    found: dict[str, dict[str, str]], schema: Schema
) -> tuple[ColumnStatistics, ...]:
    """Returns the statistics of each column, and of the fields of its structs.

    Raises:
        InvalidError (kind "type-mismatch"): a date or time is infinite: only DuckDB knows those.
    """
    return tuple(
        one for column in schema.columns for one in _measured(column, quoted(column.name), found)
    )


def _measured(
    column: Column, path: str, found: dict[str, dict[str, str]]
) -> Iterator[ColumnStatistics]:
    """A list or a map has no bounds: what it holds is not one value a row."""
    yield _column_statistics(column, found.get(path, {}))
    if column.type == "struct":
        for child in column.children:
            yield from _measured(child, f"{path}.{quoted(child.name)}", found)


def _column_statistics(column: Column, found: dict[str, str]) -> ColumnStatistics:
    if column.type in _TIMES and {found.get("min"), found.get("max")} & _INFINITE:
        raise InvalidError(
            f'Column "{column.name}" has infinity in some row: expected a {column.type} that other '
            "readers know. Write null, or a date far away.",
            kind="type-mismatch",
            column=column.name,
        )
    return ColumnStatistics(
        field_id=column.id,
        size_bytes=int(found.get("column_size_bytes", 0)),
        values=int(found.get("num_values", 0)),
        nulls=int(found.get("null_count", 0)),
        nans=int(found.get("nan_count", 0)),
        lower=_bound(column.type, found, "min"),
        upper=_bound(column.type, found, "max"),
    )


def _bound(kind: str, found: dict[str, str], name: str) -> str | None:
    """One bound as the text of its Iceberg value; None when not exact or not a number."""
    text = found.get(name)
    if text is None or found.get(f"{name}_is_exact") != "true" or text.lower().endswith("nan"):
        return None
    return bound_text(kind, text)


def bound_text(kind: str, text: str) -> str | None:
    """Returns DuckDB's text of a value as bounds have it; None for times Python cannot hold."""
    match kind:
        case "boolean":
            return "true" if text in ("1", "true") else "false"
        case "float":
            return repr(exact_float(text))  # which it is as a double, too
        case "timestamptz" | "timestamp" | "date":
            return _time_bound(kind, text)
        case "float":  # all its digits, so that it is the same once the column is a double
            return repr(struct.unpack("<f", struct.pack("<f", float(text)))[0])
        case _:
            return text


def _time_bound(kind: str, text: str) -> str | None:
    """ISO 8601; None for infinity and for years before 1, which Python cannot hold."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    match kind:
        case "timestamptz":
            return at.astimezone(UTC).isoformat()
        case "timestamp":
            return at.isoformat()
        case _:
            return at.date().isoformat()
