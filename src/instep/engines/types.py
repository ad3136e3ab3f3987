"""Answers which Iceberg type a DuckDB type becomes, and which casts lose nothing."""

from __future__ import annotations

from instep.errors import InvalidError

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


def iceberg_type(sql_type: str, column: str) -> str:
    """Returns the Iceberg type for a DuckDB type text; `column` is named in the message.

    Raises:
        InvalidError (kind "unsupported-type").
    """
    if sql_type in _TYPES:
        return _TYPES[sql_type]
    if sql_type.startswith("DECIMAL("):
        return sql_type.lower().replace(" ", "")
    if sql_type.startswith("ENUM("):
        return "string"
    shown = "NULL without a type" if sql_type == '"NULL"' else sql_type
    raise InvalidError(
        f'Column "{column}" is {shown}, which has no Iceberg type here: expected a simple type '
        "such as BIGINT, DOUBLE, VARCHAR or TIMESTAMPTZ. Cast the column to one.",
        kind="unsupported-type",
        column=column,
    )


def is_castable(source: str, target: str) -> bool:
    """Returns whether a cast between two Iceberg types loses nothing or fails loudly."""
    if source == target or (source, target) in _WIDENINGS:
        return True
    if source.startswith("decimal(") and target.startswith("decimal("):
        (p1, s1), (p2, s2) = _decimal(source), _decimal(target)
        return s2 >= s1 and p2 - s2 >= p1 - s1
    return False


def _decimal(kind: str) -> tuple[int, int]:
    precision, scale = kind.removeprefix("decimal(").removesuffix(")").split(",")
    return int(precision), int(scale)
