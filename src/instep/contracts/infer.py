"""Guesses a contract from one file: a draft for somebody to correct, and to propose.

Conservative: a type is written when every value fits it and loses nothing in it, and nothing else
is promised. What was seen (nulls, ranges, columns whose values are unique) stands beside it as a
comment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from instep.contracts.terms import Format, Source
from instep.engines.schema import Column, literal, quoted
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
    "UBIGINT": "number",
    "FLOAT": "number",
    "DOUBLE": "number",
    "DATE": "date",
    "TIME": "time",
    "TIME_NS": "time",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP_S": "timestamp",
    "TIMESTAMP_MS": "timestamp",
    "TIMESTAMP_NS": "timestamp",
    "TIMESTAMPTZ_NS": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamp",
}
_FINER = {"TIME_NS": "TIME", "TIMESTAMP_NS": "TIMESTAMP", "TIMESTAMPTZ_NS": "TIMESTAMPTZ"}
"""Types of times in nanoseconds, and those in microseconds, which a table can have."""

_WHOLE = "decimal(38,0)"
"""The type of whole numbers that a long does not hold."""

_PHYSICAL = {"UBIGINT": "decimal(20,0)", "UUID": "uuid"}
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

_LEFT_OUT = "left out"
"""In the place of a logical type: a contract has none for the column, and a draft leaves it out."""

_Kind = TypeVar("_Kind")

_MARKERS = ("NA", "N/A", "NULL", "null")
"""Texts that mean null in a column of a CSV file whose other values are no text."""

_COLUMNS_AT_ONCE = 100
_FEW_ROWS = 10_000
"""Up to here one statement looks at many columns; their values are held in memory."""


@dataclass(frozen=True, slots=True)
class Guess:
    """A column as it was seen; `logical` is an ODCS type, or says that it is left out."""

    name: str
    logical: str
    rows: int
    nulls: int
    distinct: int
    lowest: str | None
    highest: str | None
    children: tuple[Column, ...] = ()
    """What is in a column of the logical type object or array."""
    physical: str = ""
    """An Iceberg type, where the values need another than the logical type means."""
    why: str = ""
    """Why its values are not read as they look; most often empty."""
    markers: tuple[str, ...] = ()
    """The texts that mean null in it, for which alone the draft has them."""

    @property
    def is_unique(self) -> bool:
        return self.nulls == 0 and self.distinct == self.rows and self.rows > 1

    @property
    def type(self) -> str:
        """The Iceberg type of the values; text for what is nested."""
        return self.physical or _ICEBERG.get(self.logical, "string")


@dataclass(frozen=True, slots=True)
class _Reading:
    """As what a column is read."""

    logical: str
    physical: str = ""
    why: str = ""
    children: tuple[Column, ...] = ()
    found: Mapping[str, int] = field(default_factory=dict)
    """How many values are each of the markers that stand in it."""

    @property
    def markers(self) -> tuple[str, ...]:
        return tuple(self.found) if self.logical != "string" else ()


def guess_columns(
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    types: Mapping[str, str],
    *,
    is_csv: bool = False,
    durations: Mapping[str, str] | None = None,
) -> tuple[Guess, ...]:
    """Returns a guess for each column of a relation; text columns are read as narrower types.

    Of a CSV file, a marker such as NA means null if a column has it whose other values are no text;
    it is then null in every column, as a contract has it, and what text loses by that is told.
    `durations` has the units of the columns whose integers are durations.
    """
    [(rows,)] = connection.execute(f"SELECT count(*) FROM {quoted(relation)}").fetchall()
    at_once = _COLUMNS_AT_ONCE if rows <= _FEW_ROWS else 1

    def asked(
        names: Sequence[str], figures: str, markers: Sequence[str]
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:  # values of any SQL type
        """Yields figures of each column; the columns are of one type."""
        for start in range(0, len(names), at_once):
            some = names[start : start + at_once]
            values = _without(markers, _values_of(some, relation))
            found = connection.execute(
                f"SELECT {figures} FROM ({values}) GROUP BY place ORDER BY place"
            ).fetchall()
            yield from zip(some, found, strict=True)

    readings: dict[str, _Reading] = {}
    for kind, names in _alike(types).items():
        markers = _MARKERS if is_csv else ()
        fits = ", ".join(filter(None, (*map(_marked, markers), _fits(kind))))
        counted = asked(names, fits, markers) if fits else ((name, ()) for name in names)
        for name, figures in counted:
            marked = dict(zip(markers, figures, strict=False))
            reading = _reading(name, kind, figures[len(markers) :])
            readings[name] = replace(reading, found={m: n for m, n in marked.items() if n})
    for name, unit in (durations or {}).items():
        if readings[name].logical == "integer":
            why = f"{name}: duration in {unit}, as an integer"
            readings[name] = replace(readings[name], why=why)
    needed = _needed(readings)
    guesses: dict[str, Guess] = {}
    shown = {name: (kind, _shown_as(readings[name])) for name, kind in types.items()}
    for (_, sql_type), names in _alike(shown).items():
        for name, (filled, distinct, lowest, highest) in asked(names, _seen(sql_type), [*needed]):
            read = readings[name]
            why = "; ".join(filter(None, (read.why, *_lost(name, read, needed))))
            guesses[name] = Guess(
                name, read.logical, rows, rows - filled, distinct, lowest, highest,
                read.children, read.physical, why, read.markers,
            )  # fmt: skip
    return tuple(guesses[name] for name in types)


def draft_contract(table: str, source: Source, guesses: Sequence[Guess]) -> str:
    """Returns the text of a draft contract in ODCS 3.1."""
    return "\n".join(_lines(table, source, guesses)) + "\n"


def with_pattern(text: str, pattern: str) -> str | None:
    """Returns a contract's text with another path; None where it does not have exactly one."""
    line = re.compile(r"^( +path: )\S.*$", re.MULTILINE)
    if len(line.findall(text)) != 1:
        return None
    value = json.dumps(pattern, ensure_ascii=False)
    return line.sub(lambda found: found[1] + value, text)


def _lines(table: str, source: Source, guesses: Sequence[Guess]) -> Iterator[str]:
    unique = [guess.name for guess in guesses if guess.is_unique and guess.logical != _LEFT_OUT]
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
        needed = {marker for guess in guesses for marker in guess.markers}
        markers = [marker for marker in _MARKERS if marker in needed]
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
        named = _in_comment(", ".join(times))
        first = json.dumps(times[0], ensure_ascii=False)
        yield f"      # - {{property: eventTime, value: {first}}} # one of {named}"
    yield "    # A key is found out by asking, not by looking: set primaryKey: true on its columns."
    if unique:
        yield f"    # Unique in this file: {_in_comment(', '.join(unique))}"
    yield "    properties:"
    for guess in guesses:
        if guess.logical == _LEFT_OUT:
            yield f"      # {_in_comment(guess.why)}"
            continue
        yield f"      - name: {json.dumps(guess.name, ensure_ascii=False)}"
        yield f"        logicalType: {guess.logical}"
        if guess.physical:
            yield f"        physicalType: {guess.physical}"
        yield from _within(guess.logical, guess.children, "        ")
        seen = "never null" if not guess.nulls else f"null in {guess.nulls} of {guess.rows} rows"
        yield f"        # seen: {seen}, {guess.distinct} different values{_range(guess)}"
        if guess.why:
            yield f"        # {_in_comment(guess.why)}"


def _within(logical: str, children: Sequence[Column], margin: str) -> Iterator[str]:
    """The lines of what is in an object or an array."""
    if children:
        yield f"{margin}{'properties' if logical == 'object' else 'items'}:"
    for child in children:
        inner = logical_type(child)
        if logical == "object":
            yield f"{margin}  - name: {json.dumps(child.name, ensure_ascii=False)}"
        yield f"{margin}{'    ' if logical == 'object' else '  '}logicalType: {inner}"
        nested = child.children if inner in _NESTED.values() else ()
        yield from _within(inner, nested, margin + ("    " if logical == "object" else "  "))


def logical_type(column: Column) -> str:
    """Returns the ODCS type that an Iceberg type is written as."""
    family = column.type.partition("(")[0]
    return _NESTED.get(family) or _LOGICAL_OF.get(family, "string")


def _in_comment(text: str) -> str:
    """The text on one line, as names may have several."""
    return " ".join(text.split())


def _range(guess: Guess) -> str:
    if guess.logical not in ("integer", "number", "date", "timestamp") or guess.lowest is None:
        return ""
    return f", from {guess.lowest} to {guess.highest}"


def _alike(kinds: Mapping[str, _Kind]) -> dict[_Kind, list[str]]:
    """Returns the columns of each kind."""
    found: dict[_Kind, list[str]] = {}
    for name, kind in kinds.items():
        found.setdefault(kind, []).append(name)
    return found


def _values_of(names: Sequence[str], relation: str) -> str:
    """SQL of the values v of columns of one type, each with the place of its column.

    A statement costs more than few rows do, where a file has thousands of columns.
    """
    if len(names) == 1:
        return f"SELECT 0 AS place, {quoted(names[0])} AS v FROM {quoted(relation)}"
    values = ", ".join(quoted(name) for name in names)
    return (
        f"SELECT unnest(range({len(names)})) AS place, unnest([{values}]) AS v "
        f"FROM {quoted(relation)}"
    )


def _without(markers: Sequence[str], values: str) -> str:
    """SQL of values v of which markers are null; they stand in `marker` instead."""
    if not markers:
        return values
    listed = ", ".join(literal(marker) for marker in markers)
    return (
        f"SELECT place, CASE WHEN v NOT IN ({listed}) THEN v END AS v, "
        f"CASE WHEN v IN ({listed}) THEN v END AS marker FROM ({values})"
    )


def _marked(marker: str) -> str:
    """SQL of how many values are a marker."""
    return f"count_if(marker = {literal(marker)})"


def _needed(readings: Mapping[str, _Reading]) -> dict[str, str]:
    """Returns the markers that mean null, each with the first column in which it surely does."""
    needed: dict[str, str] = {}
    for name, reading in readings.items():
        for marker in reading.markers:
            needed.setdefault(marker, name)
    return needed


def _lost(name: str, reading: _Reading, needed: Mapping[str, str]) -> Iterator[str]:
    """Yields what a column of text loses by the markers that another column needs."""
    for marker, count in reading.found.items():
        if marker in needed and not reading.markers:
            rows = _counted(count, "row, which becomes", "rows, which become")
            yield (
                f"{name}: {json.dumps(marker)} stands in {rows} null, as it means null in "
                f"{needed[marker]}"
            )


def _shown_as(reading: _Reading) -> str:
    """Returns the SQL type whose order the least and the greatest value have; "" for their own."""
    return {
        "integer": "BIGINT",
        "number": reading.physical or "DOUBLE",
        "date": "DATE",
        "timestamp": "TIMESTAMPTZ",
    }.get(reading.logical, "")


def _seen(sql_type: str) -> str:
    """SQL of how many values there are, how many different ones, the least and the greatest."""
    value = f"TRY_CAST(v AS {sql_type})" if sql_type else "v"
    return f"count(v), count(DISTINCT v), min({value})::VARCHAR, max({value})::VARCHAR"


def _fits(kind: str) -> str:
    """SQL of how many values there are, and how many fit each type; empty where one type does."""
    if kind in _FINER:
        lossy = f"CAST(TRY_CAST(v AS {_FINER[kind]}) AS {kind}) IS DISTINCT FROM v"
        return f"count_if(v IS NOT NULL AND {lossy})"
    if kind == "BLOB":
        return "count_if(v IS NOT NULL AND TRY(decode(v)) IS NULL)"
    if kind != "VARCHAR":
        return ""
    whole = "regexp_full_match(v, '[+-]?[0-9]+')"
    exact = "TRY_CAST(v AS HUGEINT)"
    rounded = "TRY_CAST(TRY_CAST(v AS DOUBLE) AS HUGEINT)"
    return ", ".join(
        (
            "count(v)",
            "count_if(regexp_full_match(v, '[+-]?0[0-9]+([.][0-9]*)?([eE][+-]?[0-9]+)?'))",
            f"count_if({whole} AND TRY_CAST(v AS BIGINT) IS NOT NULL)",
            f"count_if({whole} AND length(ltrim(v, '+-')) <= 38)",
            "count_if(TRY_CAST(v AS DOUBLE) IS NOT NULL AND NOT contains(v, '_'))",
            f"count_if({whole} AND ({exact} IS NULL OR {rounded} IS DISTINCT FROM {exact}))",
            "count_if(length(v) = 10 AND TRY_CAST(v AS DATE) IS NOT NULL)",
            "count(TRY_CAST(v AS TIMESTAMPTZ))",
            "count_if(lower(v) IN ('true', 'false'))",
        )
    )


def _reading(name: str, kind: str, fits: Sequence[int]) -> _Reading:
    """Returns as what a column is read; never as a type that loses something of a value."""
    if kind in _FINER and fits[0]:
        finer = _counted(fits[0], "value is finer", "values are finer")
        return _Reading("string", why=f"{name}: text, {finer} than a microsecond")
    if kind == "VARCHAR":
        return _narrowest(name, *fits)
    if kind.startswith("STRUCT(") or kind.endswith("]"):
        return _nested(iceberg_column(kind, name))
    if kind.startswith("DECIMAL"):
        return _Reading("number", kind.lower())
    if kind == "BLOB" and fits[0]:
        return _Reading(_LEFT_OUT, why=f"{name}: left out, as a contract has no type for bytes")
    family = kind.partition("(")[0].lower()
    why = ""
    if kind == "BLOB":
        why = f"{name}: text, of bytes that are UTF-8"
    elif kind in ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"):
        why = f"{name}: times without a zone, read as UTC"
    elif family in ("map", "interval", "bit", "time with time zone"):
        why = f"{name}: text, as a contract has no type for a {family}"
    return _Reading(_LOGICAL.get(kind, "string"), _PHYSICAL.get(kind, ""), why)


def _nested(column: Column) -> _Reading:
    """Returns as what an object or an array is read."""
    types = set(_types_within(column))
    for type_, called in (("binary", "bytes"), ("map", "maps")):
        if type_ in types:
            why = f"{column.name}: left out, as a contract has no type for the {called} within it"
            return _Reading(_LEFT_OUT, why=why)
    why = f"{column.name}: times without a zone within it, read as UTC"
    why = why if "timestamp" in types else ""
    return _Reading(_NESTED[column.type], why=why, children=column.children)


def _types_within(column: Column) -> Iterator[str]:
    for child in column.children:
        yield child.type
        yield from _types_within(child)


def _narrowest(
    name: str,
    filled: int,
    padded: int,
    longs: int,
    decimals: int,
    numbers: int,
    rounded: int,
    dates: int,
    times: int,
    booleans: int,
) -> _Reading:
    """Returns as what text is read, by how many values fit each type."""
    if not filled:
        return _Reading("string")
    if filled == numbers and padded:
        begin = _counted(padded, "value begins", "values begin")
        return _Reading("string", why=f"{name}: text, {begin} with 0")
    if filled == longs:
        return _Reading("integer")
    if filled == decimals:
        return _Reading("number", _WHOLE, f"{name}: {_WHOLE}, beyond what 64 bits hold")
    if filled == numbers and rounded:
        have = _counted(rounded, "number has", "numbers have")
        return _Reading("string", why=f"{name}: text, {have} more digits than a number type holds")
    for logical, count in (
        ("number", numbers),
        ("date", dates),
        ("timestamp", times),
        ("boolean", booleans),
    ):
        if count == filled:
            return _Reading(logical)
    return _Reading("string")


def _counted(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"
