"""DuckDB's SQL that reads a file set by field id: its slice pushed down, its deletes applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from instep.clock import Window
from instep.engines.defaults import default_sql
from instep.engines.engine import FileSet, Slice
from instep.engines.held import Held
from instep.engines.reading import parquet_sql
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


def scan(
    file_set: FileSet, held: Sequence[Held], *, row_number: str = "", file_name: str = ""
) -> str:
    """Returns SQL, to stand after FROM, of all rows of a file set but its deleted ones.

    `held` says how the files hold their nested columns; with `row_number` and `file_name`, columns
    of these names have the place of each row in its file, and the path of that.
    """
    added = {"file_row_number": row_number, "filename": file_name}
    parts = [
        _part(file_set, files, one, deletes, added)
        for one in held
        for deletes in (False, True)
        if (files := [path for path in one.files if bool(file_set.deletes.get(path)) == deletes])
    ]
    if not parts:
        nothing = ", ".join(
            f"CAST(NULL AS {c.sql_type}) AS {quoted(c.name)}" for c in file_set.schema.columns
        )
        more = "".join(f", NULL AS {quoted(name)}" for name in added.values() if name)
        return f"(SELECT {nothing}{more} WHERE false)"
    if len(parts) == 1:
        return parts[0]
    return f"({' UNION ALL '.join(f'SELECT * FROM {part}' for part in parts)})"


def where(file_set: FileSet) -> str:
    if file_set.slice is None:
        return ""
    return f" WHERE {slice_condition(file_set.schema, file_set.slice)}"


def deleted_rows(file_set: FileSet) -> str:
    """Returns the quoted name of the table (file, pos) of a file set's deleted rows."""
    return quoted(f"{file_set.name} deleted rows")  # with spaces: no table has such a name


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


def _part(
    file_set: FileSet,
    files: Sequence[str],
    held: Held,
    has_deletes: bool,
    added: Mapping[str, str],
) -> str:
    """`added` names what DuckDB tells of each row besides, by DuckDB's name of it."""
    columns = file_set.schema.columns
    if not held.columns and not has_deletes and not any(added.values()):
        # DuckDB knows how many rows there are, and plans by it, where no schema is given.
        schema = [] if held.names else _schema(columns, held)
        names = ", ".join(
            f"{_value(held.names.get(one.id, one.name), one, held)} AS {quoted(one.name)}"
            for one in columns
        )
        return f"(SELECT {names} FROM {parquet_sql(files, *schema)})"
    # Names of its own, so that none can meet the two names that DuckDB adds.
    read = [
        replace(
            held.columns.get(column.id, column),
            name=f"f{n}",
            initial_default=column.initial_default,
        )
        for n, column in enumerate(columns)
    ]
    values = [_value(one.name, one, held) for one in read]
    selected = [
        f"{_rebuilt(value, one, column) if column.id in held.columns else value} "
        f"AS {quoted(column.name)}"
        for value, one, column in zip(values, read, columns, strict=True)
    ]
    selected += [f"{one} AS {quoted(name)}" for one, name in added.items() if name]
    remaining = (
        f" WHERE NOT EXISTS (SELECT 1 FROM {deleted_rows(file_set)} d "
        "WHERE d.file = filename AND d.pos = file_row_number)"
        if has_deletes
        else ""
    )
    rows = parquet_sql(files, *_schema(read, held), "filename = true", "file_row_number = true")
    return f"(SELECT {', '.join(selected)} FROM {rows}{remaining})"


def _value(name: str, column: Column, held: Held) -> str:
    """SQL of a column as it is read, without the bounds that leave NaN out.

    By them DuckDB would leave row groups out and answer max(); it takes no bounds through TRY. A
    nested column that files lack is not read: conditions on its fields would make DuckDB fail.
    """
    if column.id in held.lacked:
        return f"CAST({default_sql(column, column.initial_default)} AS {column.sql_type})"
    may_hold_nan = any(one.type in ("float", "double") for one in column.fields())
    return f"TRY({quoted(name)})" if may_hold_nan and not held.counts_nan else quoted(name)


def _schema(columns: Sequence[Column], held: Held) -> list[str]:
    """The option that says how to read columns; none where no column is read."""
    fields = ", ".join(
        f"{c.id}: {{name: {literal(c.name)}, type: {literal(c.sql_type)}, "
        f"default_value: {default_sql(c, c.initial_default)}}}"
        for c in columns
        if c.id not in held.lacked
    )
    return [f"schema = MAP {{{fields}}}"] if fields else []


def _rebuilt(value: str, held: Column, column: Column, depth: int = 0) -> str:
    """Returns SQL that makes a value of `column` from one as a file holds it, by field id."""
    each = f"e{depth}"
    match column.type:
        case "struct":
            known = {child.id: child for child in held.children}
            fields = [
                f"{literal(child.name)}: {_field(value, known.get(child.id), child, depth)}"
                for child in column.children
            ]
            return f"CASE WHEN {value} IS NULL THEN NULL ELSE {{{', '.join(fields)}}} END"
        case "list":
            element = _rebuilt(each, held.children[0], column.children[0], depth + 1)
            return f"list_transform({value}, lambda {each}: {element})"
        case "map":
            entry = ", ".join(
                f"'{one}': {_rebuilt(f'{each}.{one}', inner, child, depth + 1)}"
                for one, inner, child in zip(
                    ("key", "value"), held.children, column.children, strict=True
                )
            )
            entries = f"list_transform(map_entries({value}), lambda {each}: {{{entry}}})"
            return f"map_from_entries({entries})"
        case _:
            return f"CAST({value} AS {column.sql_type})"


def _field(value: str, held: Column | None, child: Column, depth: int) -> str:
    if held is None:
        return f"CAST({default_sql(child, child.initial_default)} AS {child.sql_type})"
    return _rebuilt(f"struct_extract({value}, {literal(held.name)})", held, child, depth)
