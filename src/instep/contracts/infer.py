"""Guesses a contract from one file: a draft for somebody to correct, and to propose.

Conservative: a type is written when every value fits it, and nothing else is promised. What was
seen (nulls, ranges, columns whose values are unique) stands beside it as a comment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from instep.contracts.terms import Format, Source
from instep.engines.schema import Column, quoted
from instep.engines.types import iceberg_column

if TYPE_CHECKING:
    import duckdb

_LOGICAL = {
    "BOOLEAN": "boolean",
    "TINYINT": "integer",
    "SMALLINT": "integer",
    "INTEGER": "integer",
    "UTINYINT": "integer",
    "USMALLINT": "integer",
    "UINTEGER": "integer",
    "BIGINT": "integer",
    "FLOAT": "number",
    "DOUBLE": "number",
    "DATE": "date",
    "TIME": "time",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP_S": "timestamp",
    "TIMESTAMP_MS": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamp",
}
_ICEBERG = {
    "boolean": "boolean",
    "integer": "long",
    "number": "double",
    "date": "date",
    "time": "time",
    "timestamp": "timestamptz",
    "string": "string",
}
_LOGICAL_OF = {
    **{iceberg: logical for logical, iceberg in _ICEBERG.items()},
    "int": "integer",
    "float": "number",
    "decimal": "number",
    "timestamp": "timestamp",
}
_NESTED = {"struct": "object", "list": "array"}


@dataclass(frozen=True, slots=True)
class Guess:
    """A column as it was seen; `logical` is an ODCS type."""

    name: str
    logical: str
    rows: int
    nulls: int
    distinct: int
    lowest: str | None
    highest: str | None
    children: tuple[Column, ...] = ()
    """What is in a column of the logical type object or array."""

    @property
    def is_unique(self) -> bool:
        return self.nulls == 0 and self.distinct == self.rows and self.rows > 1

    @property
    def type(self) -> str:
        """The Iceberg type that the logical type means; text for what is nested."""
        return _ICEBERG.get(self.logical, "string")


def guess_columns(
    connection: duckdb.DuckDBPyConnection, relation: str, types: Mapping[str, str]
) -> tuple[Guess, ...]:
    """Returns a guess for each column of a relation; text columns are read as narrower types."""
    return tuple(_guess(connection, relation, name, kind) for name, kind in types.items())


def draft_contract(table: str, source: Source, guesses: Sequence[Guess]) -> str:
    """Returns the text of a draft contract in ODCS 3.1."""
    return "\n".join(_lines(table, source, guesses)) + "\n"


def _lines(table: str, source: Source, guesses: Sequence[Guess]) -> Iterator[str]:
    unique = [guess.name for guess in guesses if guess.is_unique]
    times = [guess.name for guess in guesses if guess.logical in ("date", "timestamp")]
    yield f"# A draft, guessed from {json.dumps(source.pattern)}. Correct it, then: instep propose"
    yield "apiVersion: v3.1.0"
    yield "kind: DataContract"
    yield f"id: {table}"
    yield "version: 0.1.0"
    yield "status: draft"
    yield "description:"
    yield "  purpose: What one row is, and what it is for."
    yield "servers:"
    yield "  - server: files"
    yield "    type: local"
    yield f"    path: {json.dumps(source.pattern, ensure_ascii=False)}"
    yield f"    format: {source.format.value}"
    if source.format is Format.CSV:
        yield f"    delimiter: {json.dumps(source.delimiter)}"
        markers = [marker for marker in source.null_markers if marker]
        is_utf_8 = source.encoding == "utf-8"
        if markers or not is_utf_8:
            yield "    customProperties:"
        if markers:
            yield f"      - {{property: nullMarker, value: {json.dumps(markers)}}}"
        if not is_utf_8:
            yield f"      - {{property: encoding, value: {source.encoding}}} # guessed: see letters"
    yield "schema:"
    yield f"  - name: {table}"
    yield "    customProperties:"
    yield "      - {property: mergePolicy, value: append} # or keyed, replace"
    if times:
        named = ", ".join(times)
        yield f"      # - {{property: eventTime, value: {times[0]}}} # one of {named}"
    yield "    # A key is found out by asking, not by looking: set primaryKey: true on its columns."
    if unique:
        yield f"    # Unique in this file: {', '.join(unique)}"
    yield "    properties:"
    for guess in guesses:
        yield f"      - name: {json.dumps(guess.name, ensure_ascii=False)}"
        yield f"        logicalType: {guess.logical}"
        yield from _within(guess.logical, guess.children, "        ")
        seen = "never null" if not guess.nulls else f"null in {guess.nulls} of {guess.rows} rows"
        yield f"        # seen: {seen}, {guess.distinct} different values{_range(guess)}"


def _within(logical: str, children: Sequence[Column], margin: str) -> Iterator[str]:
    """The lines of what is in an object or an array."""
    if children:
        yield f"{margin}{'properties' if logical == 'object' else 'items'}:"
    for child in children:
        inner = _logical_of(child)
        if logical == "object":
            yield f"{margin}  - name: {json.dumps(child.name, ensure_ascii=False)}"
        yield f"{margin}{'    ' if logical == 'object' else '  '}logicalType: {inner}"
        nested = child.children if inner in _NESTED.values() else ()
        yield from _within(inner, nested, margin + ("    " if logical == "object" else "  "))


def _logical_of(column: Column) -> str:
    family = column.type.partition("(")[0]
    return _NESTED.get(family) or _LOGICAL_OF.get(family, "string")


def _range(guess: Guess) -> str:
    if guess.logical not in ("integer", "number", "date", "timestamp") or guess.lowest is None:
        return ""
    return f", from {guess.lowest} to {guess.highest}"


def _guess(connection: duckdb.DuckDBPyConnection, relation: str, name: str, kind: str) -> Guess:
    column = quoted(name)
    logical = _LOGICAL.get(kind, "string")
    children: tuple[Column, ...] = ()
    if kind.startswith("STRUCT(") or kind.endswith("]"):
        seen = iceberg_column(kind, name)
        logical, children = _NESTED[seen.type], seen.children
    if kind.startswith("DECIMAL"):
        logical = "number"
    if kind == "VARCHAR":
        logical = _narrowest(_one(connection, _FITS.format(column=column, relation=relation)))
    value = {
        "integer": f"TRY_CAST({column} AS BIGINT)",
        "number": f"TRY_CAST({column} AS DOUBLE)",
        "date": f"TRY_CAST({column} AS DATE)",
        "timestamp": f"TRY_CAST({column} AS TIMESTAMPTZ)",
    }.get(logical, column)
    rows, filled, distinct, lowest, highest = _one(
        connection,
        f"SELECT count(*), count({column}), count(DISTINCT {column}), "
        f"min({value})::VARCHAR, max({value})::VARCHAR FROM {quoted(relation)}",
    )
    return Guess(name, logical, rows, rows - filled, distinct, lowest, highest, children)


_FITS = """
SELECT count(v),
    count_if(regexp_full_match(v, '-?(0|[1-9][0-9]{{0,17}})')),
    count(TRY_CAST(v AS DOUBLE)),
    count_if(length(v) = 10 AND TRY_CAST(v AS DATE) IS NOT NULL),
    count(TRY_CAST(v AS TIMESTAMPTZ)),
    count_if(lower(v) IN ('true', 'false'))
FROM (SELECT {column} AS v FROM {relation})
"""
"""How many values there are, and how many fit each type; a number such as 007 is text."""


def _narrowest(fits: tuple[Any, ...]) -> str:
    filled, *counts = fits
    if filled:
        for logical, count in zip(
            ("integer", "number", "date", "timestamp", "boolean"), counts, strict=True
        ):
            if (count or 0) == filled:
                return logical
    return "string"


def _one(connection: duckdb.DuckDBPyConnection, text: str) -> tuple[Any, ...]:
    [row] = connection.execute(text).fetchall()
    return tuple(row)
