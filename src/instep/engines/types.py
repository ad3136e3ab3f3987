"""Answers which Iceberg type a DuckDB type becomes, and which casts lose nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from instep.engines.schema import UNTYPED, Column, fixed_length
from instep.errors import InvalidError

if TYPE_CHECKING:
    from duckdb.sqltypes import DuckDBPyType

_TYPES: dict[str, str] = {
    "BOOLEAN": "boolean",
    "TINYINT": "int",
    "SMALLINT": "int",
    "INTEGER": "int",
    "UTINYINT": "int",
    "USMALLINT": "int",
    "UINTEGER": "long",
    "BIGINT": "long",
    "UBIGINT": "long",
    "HUGEINT": "long",
    "UHUGEINT": "long",
    "FLOAT": "float",
    "DOUBLE": "double",
    "DATE": "date",
    "TIME": "time",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP_S": "timestamp",
    "TIMESTAMP_MS": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamptz",
    "VARCHAR": "string",
    "JSON": "string",
    "UUID": "uuid",
    "BLOB": "binary",
    '"NULL"': UNTYPED,
}
"""What each DuckDB type becomes; integers wider than long are checked when they are cast."""

_WIDENINGS = {
    ("int", "long"),
    ("int", "double"),
    ("float", "double"),
    ("long", "int"),
    ("date", "timestamp"),
}
"""Casts that lose nothing, or fail loudly (long to int): (from, to)."""


_DIGITS_OF_DOUBLE = 15
"""A decimal of so many digits comes back from the nearest double as it was."""


def iceberg_column(sql_type: str, name: str) -> Column:
    """Returns the Iceberg column, with ids 0, that a DuckDB type text becomes under `name`.

    Raises:
        InvalidError (kind "unsupported-type"): it, or a type inside it, has no Iceberg type here.
    """
    import duckdb

    try:
        kind = duckdb.sqltype(sql_type)
    except duckdb.Error:
        raise InvalidError(
            f'Type "{sql_type}" of column "{name}" is none: expected one of Iceberg\'s, such as '
            "long or timestamptz, or a nested one of DuckDB's, such as INT[]. Correct it.",
            kind="unsupported-type",
            column=name,
        ) from None
    return column_of(kind, name)


def column_of(kind: DuckDBPyType, name: str) -> Column:
    """Returns the Iceberg column, with ids 0, that a DuckDB type becomes under `name`.

    Raises: as `iceberg_column`.
    """
    return _column(kind, name, name)


def is_castable(source: Column, target: Column) -> bool:
    """Returns whether a cast between two Iceberg types loses nothing or fails loudly.

    Fields of structs are matched by name, ignoring case, and none may be left over.
    """
    match source.type, target.type:
        case (kind, _) if kind == UNTYPED:
            return True
        case "string", "uuid":
            return True  # libraries give UUIDs as text, and no other text can be cast
        case kind, "double" if kind.startswith("decimal("):
            return _decimal(kind)[0] <= _DIGITS_OF_DOUBLE  # so 1.5 in SQL, which is a decimal
    if source.type != target.type or not target.is_nested:
        return _is_primitive_castable(source.type, target.type)
    given = {child.name.lower(): child for child in source.children}
    wanted = {child.name.lower(): child for child in target.children}
    return given.keys() == wanted.keys() and all(
        is_castable(given[name], child) for name, child in wanted.items()
    )


def typed_as(columns: Sequence[Column], before: Sequence[Column]) -> tuple[Column, ...]:
    """Returns columns of which those without a type have that of the column of their name."""
    known = {column.name.lower(): column for column in before}
    found = []
    for column in columns:
        old = known.get(column.name.lower())
        if old is not None and column.type == UNTYPED:
            column = replace(column, type=old.type, children=old.children)
        elif old is not None:
            column = replace(column, children=typed_as(column.children, old.children))
        found.append(column)
    return tuple(found)


def is_readable(held: Column, column: Column) -> bool:
    """Returns whether a table's column can be read from a file's, both of one field id.

    Fields are matched by id: what the file lacks is null, what only the file has is left aside.
    A time without a zone is one in UTC, as older Spark writes all times (INT96).
    """
    if (held.type, column.type) == ("timestamp", "timestamptz"):
        return True
    if held.type != column.type or not column.is_nested:
        return _is_primitive_castable(held.type, column.type)
    known = {child.id: child for child in held.children}
    return all(
        is_readable(known[child.id], child) for child in column.children if child.id in known
    )


def _column(kind: DuckDBPyType, name: str, path: str) -> Column:
    """`path` names the column in messages, with all that it lies in."""
    match kind.id:
        case "struct":
            children = tuple(_column(inner, field, f"{path}.{field}") for field, inner in _in(kind))
            return Column(0, name, "struct", children=children)
        case "list" | "array":
            ((_, inner),) = _in(kind)
            element = _column(inner, "element", f"{path}.element")
            return Column(0, name, "list", children=(element,))
        case "map":
            (_, key), (_, value) = _in(kind)
            return Column(
                0,
                name,
                "map",
                children=(
                    replace(_column(key, "key", f"{path}.key"), required=True),
                    _column(value, "value", f"{path}.value"),
                ),
            )
        case _:
            return Column(0, name, _primitive(kind, path))


def _in(kind: DuckDBPyType) -> list[tuple[str, DuckDBPyType]]:
    """The types within a nested one; an array names its length beside them."""
    return [(name, inner) for name, inner in kind.children if not isinstance(inner, int | list)]


def _primitive(kind: DuckDBPyType, path: str) -> str:
    text = str(kind)
    if text in _TYPES:
        return _TYPES[text]
    if kind.id == "decimal":
        return text.lower().replace(" ", "")
    if kind.id == "enum":
        return "string"
    raise InvalidError(
        f'Column "{path}" is {text}, which has no Iceberg type here: expected a simple type '
        "such as BIGINT, DOUBLE, VARCHAR or TIMESTAMPTZ, or a STRUCT, list or MAP of them. "
        "Cast the column to one.",
        kind="unsupported-type",
        column=path,
    )


def _is_primitive_castable(source: str, target: str) -> bool:
    if source == target or (source, target) in _WIDENINGS:
        return True
    if source == "binary" and fixed_length(target):
        return True  # the length of each value is checked when it is written
    if source.startswith("decimal(") and target.startswith("decimal("):
        (p1, s1), (p2, s2) = _decimal(source), _decimal(target)
        return s2 >= s1 and p2 - s2 >= p1 - s1
    return False


def _decimal(kind: str) -> tuple[int, int]:
    precision, scale = kind.removeprefix("decimal(").removesuffix(")").split(",")
    return int(precision), int(scale)
