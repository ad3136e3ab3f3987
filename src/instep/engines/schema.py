"""Columns by field id: what an engine needs to know of a table, and nothing of its catalog.

Types are written as Iceberg writes them ("long", "timestamptz", "decimal(9,2)", "fixed[16]"), and
"struct", "list" or "map" with `children`. The id is the identity of a column, nested ones alike;
its name may change. Types that only Iceberg's format version 3 knows are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
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

NESTED_TYPES: dict[str, tuple[str, ...]] = {
    "struct": (),
    "list": ("element",),
    "map": ("key", "value"),
}
"""Iceberg's nested types, and the names of their children where Iceberg fixes them."""

UNTYPED = "unknown"
"""The type of rows that are null without one, on their way into a column of any type.

Iceberg has it too, from format version 3 on; no table here has a column of it.
"""

_VERSION_3 = frozenset(
    {"timestamp_ns", "timestamptz_ns", "variant", "geometry", "geography", UNTYPED}
)
_DECIMAL = re.compile(r"decimal\((\d+), ?(\d+)\)")
_FIXED = re.compile(r"fixed\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Column:
    """One column, or one field within; `id` is unique within the table's whole life.

    `children` are the fields of a struct, the one "element" of a list, or "key" and "value" of a
    map. `initial_default` is what rows read that were written before the column was added, and
    `write_default` what a writer puts where it has no value; each as DuckDB's text of the value.
    """

    id: int
    name: str
    type: str
    required: bool = False
    doc: str = ""
    children: tuple[Column, ...] = ()
    initial_default: str | None = None
    write_default: str | None = None

    @property
    def sql_type(self) -> str:
        """The DuckDB type that holds the column's values."""
        inner = [child.sql_type for child in self.children]
        match self.type:
            case "struct":
                fields = zip(self.children, inner, strict=True)
                return f"STRUCT({', '.join(f'{quoted(child.name)} {t}' for child, t in fields)})"
            case "list":
                return f"{inner[0]}[]"
            case "map":
                return f"MAP({inner[0]}, {inner[1]})"
            case _:
                return sql_type_of(self.type)

    @property
    def is_nested(self) -> bool:
        return self.type in NESTED_TYPES

    @property
    def full_type(self) -> str:
        """The type as one text, children included; for people and for comparison."""
        inner = [child.full_type for child in self.children]
        match self.type:
            case "struct":
                fields = zip(self.children, inner, strict=True)
                return f"struct<{', '.join(f'{child.name}: {t}' for child, t in fields)}>"
            case "list" | "map":
                return f"{self.type}<{', '.join(inner)}>"
            case _:
                return self.type

    def fields(self) -> Iterator[Column]:
        """Yields the column itself and every field within it, outer ones first."""
        yield self
        for child in self.children:
            yield from child.fields()

    def to_json(self) -> dict[str, Json]:
        told: dict[str, Json] = {
            "id": self.id,
            "name": self.name,
            "type": self.type,
            "required": self.required,
        }
        if self.children:
            told["children"] = [child.to_json() for child in self.children]
        return told


@dataclass(frozen=True, slots=True)
class Schema:
    """Columns in their order; `identifiers` are the ids of those whose values tell a row.

    Engines look at no identifier: they are kept for writers that match rows by them.
    """

    columns: tuple[Column, ...]
    identifiers: tuple[int, ...] = ()

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

    def fields(self) -> Iterator[Column]:
        """Yields every column and every field within, outer ones first."""
        for column in self.columns:
            yield from column.fields()

    def with_columns(self, columns: Iterable[Column]) -> Schema:
        """Returns the schema of other columns; identifiers that can be none any more are left out.

        Iceberg wants each to be required, as all that it lies in, and of a type with exact values.
        """
        there = tuple(columns)
        fit = set(_fit_to_identify(there))
        return Schema(there, tuple(one for one in self.identifiers if one in fit))

    def primitive_types(self) -> dict[int, str]:
        """Returns the type of each field that is not nested, those within included, by its id."""
        return {field.id: field.type for field in self.fields() if not field.is_nested}

    def to_json(self) -> list[Json]:
        return [column.to_json() for column in self.columns]


def _fit_to_identify(columns: Iterable[Column]) -> Iterator[int]:
    for column in columns:
        if column.required and column.type == "struct":
            yield from _fit_to_identify(column.children)
        elif column.required and not column.is_nested and column.type not in ("float", "double"):
            yield column.id


def sql_type_of(iceberg_type: str) -> str:
    """Returns the DuckDB type for the text of a primitive Iceberg type.

    Raises:
        InvalidError (kind "unsupported-type"): nested, of format version 3, or no Iceberg type.
    """
    if iceberg_type in PRIMITIVE_TYPES:
        return PRIMITIVE_TYPES[iceberg_type]
    decimal = _DECIMAL.fullmatch(iceberg_type)
    if decimal and int(decimal[2]) <= int(decimal[1]) <= 38:
        return f"DECIMAL({decimal[1]},{decimal[2]})"
    if fixed_length(iceberg_type):
        return "BLOB"
    newer = iceberg_type in _VERSION_3 or iceberg_type.startswith(("geometry(", "geography("))
    raise InvalidError(
        f'Type "{iceberg_type}" is not supported{" (Iceberg format version 3)" if newer else ""}: '
        f"expected one of {', '.join(PRIMITIVE_TYPES)}, decimal(precision, scale) or "
        "fixed[length]. Cast the column to one.",
        kind="unsupported-type",
        type=iceberg_type,
    )


def fixed_length(iceberg_type: str) -> int | None:
    """Returns the number of bytes of a value of a type "fixed[n]"; None for any other type."""
    fixed = _FIXED.fullmatch(iceberg_type)
    return int(fixed[1]) if fixed else None


def check_names(named: Iterable[tuple[str, str]]) -> None:
    """Holds that columns, given by path and name, have names that no two share, ignoring case.

    Raises:
        InvalidError (kind "repeated-column", "bad-column-name").
    """
    seen: set[str] = set()
    for path, name in named:
        if not name:
            raise InvalidError(
                "A column has an empty name: expected at least one character. Name it.",
                kind="bad-column-name",
            )
        if path.lower() in seen:
            raise InvalidError(
                f'Column "{path}" is there twice: expected names that are unique ignoring '
                "case. Rename one, in SQL with AS.",
                kind="repeated-column",
                column=path,
            )
        seen.add(path.lower())


def free_name(wanted: str, taken: Iterable[str]) -> str:
    """Returns `wanted`, with underscores behind it until it is no name of `taken`, in any case.

    For a column that SQL has beside those of a table, which may have any name.
    """
    names = {name.lower() for name in taken}
    while wanted.lower() in names:
        wanted += "_"
    return wanted


def quoted(name: str) -> str:
    """Returns `name` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Returns `text` as a quoted SQL string."""
    return "'" + text.replace("'", "''") + "'"
