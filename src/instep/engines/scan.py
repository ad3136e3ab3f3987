"""DuckDB's SQL that reads a file set by field id, its slice pushed down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from instep.clock import Window
from instep.engines.engine import FileSet, Slice
from instep.engines.schema import Column, Schema, literal, quoted
from instep.errors import InvalidError


def slice_condition(schema: Schema, part: Slice) -> str:
    """Returns the SQL condition of an event-time slice, in the type of its column.

    Raises:
        InvalidError (kind "no-such-column", "not-a-time").
    """
    column = schema.column(part.column)
    start, end = _bounds(column, part.window)
    name = quoted(column.name)
    return f"{name} >= {start} AND {name} < {end}"


def scan_with_row_numbers(file_set: FileSet) -> tuple[str, str]:
    """Returns SQL that reads a file set by field id, and the name of its added row number."""
    paths, fields = _scan_arguments(file_set)
    return f"read_parquet({paths}, schema = {fields}, file_row_number = true)", "file_row_number"


def scan_with_names(file_set: FileSet) -> str:
    """Returns SQL that reads a file set by field id, with the path of each row as `filename`."""
    paths, fields = _scan_arguments(file_set)
    return f"read_parquet({paths}, schema = {fields}, filename = true)"


def _bounds(column: Column, window: Window) -> tuple[str, str]:
    match column.type:
        case "timestamptz":
            return _instant("TIMESTAMPTZ", window.start), _instant("TIMESTAMPTZ", window.end)
        case "timestamp":
            return _instant("TIMESTAMP", window.start), _instant("TIMESTAMP", window.end)
        case "date":
            return _day(window.start), _day(window.end)
        case _:
            raise InvalidError(
                f'Column "{column.name}" is {column.type}: a slice needs a timestamptz, timestamp '
                "or date. Slice by another column.",
                kind="not-a-time",
                column=column.name,
            )


def _instant(kind: str, at: datetime) -> str:
    text = at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    return f"{kind} '{text}+00'" if kind == "TIMESTAMPTZ" else f"{kind} '{text}'"


def _day(at: datetime) -> str:
    """The first date that is not before `at`: a date means 00:00 UTC."""
    at = at.astimezone(UTC)
    day = at.date() if at.time() == datetime.min.time() else (at + timedelta(days=1)).date()
    return f"DATE '{day.isoformat()}'"


def scan(file_set: FileSet) -> str:
    columns = file_set.schema.columns
    if not file_set.files:
        nothing = ", ".join(f"CAST(NULL AS {c.sql_type}) AS {quoted(c.name)}" for c in columns)
        return f"(SELECT {nothing} WHERE false)"
    paths, fields = _scan_arguments(file_set)
    return f"read_parquet({paths}, schema = {fields})"


def _scan_arguments(file_set: FileSet) -> tuple[str, str]:
    paths = ", ".join(literal(path) for path in file_set.files)
    fields = ", ".join(
        f"{c.id}: {{name: {literal(c.name)}, type: {literal(c.sql_type)}, default_value: NULL}}"
        for c in file_set.schema.columns
    )
    return f"[{paths}]", f"MAP {{{fields}}}"


def where(file_set: FileSet) -> str:
    if file_set.slice is None:
        return ""
    return f" WHERE {slice_condition(file_set.schema, file_set.slice)}"
