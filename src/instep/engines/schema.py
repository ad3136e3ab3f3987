"""Columns by field id: what an engine needs to know of a table, and nothing of its catalog.

Types are written as Iceberg writes them ("long", "timestamptz", "decimal(9,2)"). The id is the
identity of a column; its name may change. Nested types are not supported yet and are refused by
name where a schema is made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from instep.canonical import Json
from instep.errors import InvalidError

PRIMITIVE_TYPES: dict[str, str] = {
    "boolean": "BOOLEAN",
    "int": "INTEGER",
    "long": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "date": "DATE",
    "time": "TIME",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMPTZ",
    "string": "VARCHAR",
    "uuid": "UUID",
    "binary": "BLOB",
}
"""Iceberg's primitive types and the DuckDB type that holds the same values."""

_DECIMAL = re.compile(r"decimal\((\d+), ?(\d+)\)")


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `id` is unique within the table's whole life."""

    id: int
    name: str
    type: str
    required: bool = False
    doc: str = ""

    @property
    def sql_type(self) -> str:
        """The DuckDB type that holds the column's values."""
        return sql_type_of(self.type)


@dataclass(frozen=True, slots=True)
class Schema:
    """Columns in their order."""

    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        """Returns the column named `name`, ignoring case.

        Raises:
            InvalidError (kind "no-such-column").
        """
        for column in self.columns:
            if column.name.lower() == name.lower():
                return column
        raise InvalidError(
            f'Column "{name}" does not exist: expected one of {", ".join(self.names)}. '
            "Correct the name.",
            kind="no-such-column",
            column=name,
        )

    def to_json(self) -> list[Json]:
        return [
            {"id": c.id, "name": c.name, "type": c.type, "required": c.required}
            for c in self.columns
        ]


def sql_type_of(iceberg_type: str) -> str:
    """Returns the DuckDB type for an Iceberg type text.

    Raises:
        InvalidError (kind "unsupported-type"): nested, or not an Iceberg type.
    """
    if iceberg_type in PRIMITIVE_TYPES:
        return PRIMITIVE_TYPES[iceberg_type]
    decimal = _DECIMAL.fullmatch(iceberg_type)
    if decimal and int(decimal[2]) <= int(decimal[1]) <= 38:
        return f"DECIMAL({decimal[1]},{decimal[2]})"
    raise InvalidError(
        f'Type "{iceberg_type}" is not supported: expected one of '
        f"{', '.join(PRIMITIVE_TYPES)} or decimal(precision, scale). Cast the column to one.",
        kind="unsupported-type",
        type=iceberg_type,
    )


def quoted(name: str) -> str:
    """Returns `name` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Returns `text` as a quoted SQL string."""
    return "'" + text.replace("'", "''") + "'"
