"""Answers how the rows of one SELECT become rows of a schema, and which of its rules they break."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from instep.engines.defaults import default_sql
from instep.engines.engine import ColumnStatistics
from instep.engines.schema import Column, Schema, fixed_length, literal, quoted
from instep.engines.types import is_castable
from instep.errors import InvalidError


def conforming(given: Schema, wanted: Schema, select: str) -> str:
    """Returns `select`, which gives the columns `given`, cast to those of `wanted` where need be.

    Columns and the fields of structs are matched by name, ignoring case. A column that is left out
    gets its default for new rows.

    Raises:
        InvalidError (kind "unexpected-column", "no-such-column", "type-mismatch").
    """
    known = {column.name.lower(): column for column in given.columns}
    names = {column.name.lower() for column in wanted.columns}
    for name, column in known.items():
        if name not in names:
            raise InvalidError(
                f'SQL returns column "{column.name}", which is not in the table: expected '
                f"{', '.join(wanted.names)}. Leave it out, or change the table's contract.",
                kind="unexpected-column",
                column=column.name,
            )
    casts = [_cast(known.get(column.name.lower()), column, wanted) for column in wanted.columns]
    return f"SELECT {', '.join(casts)} FROM ({select}\n)"


def bare(text: str) -> str:
    """One statement without the semicolon and comments that end it, so it can stand in brackets."""
    import duckdb

    data = text.encode()  # DuckDB counts bytes
    end = len(data)
    for offset, kind in reversed(duckdb.tokenize(text)):
        if kind != duckdb.token_type.comment and data[offset : offset + 1] != b";":
            break
        end = offset
    return data[:end].decode()


def check_required(schema: Schema, files: Sequence[tuple[ColumnStatistics, ...]]) -> None:
    """Holds that required columns have a value in every row written.

    Raises:
        InvalidError (kind "null-in-required").
    """
    nulls: dict[int, int] = {}
    for file in files:
        for one in file:
            if one.nulls:
                nulls[one.field_id] = nulls.get(one.field_id, 0) + one.nulls
    for column in schema.columns:
        if column.required and nulls.get(column.id):
            raise _missing(column, nulls[column.id])


Tells = Callable[[str, Column], str]
"""A SQL condition on a value, given as SQL, of a column or of a field within; "" for none."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What the values of a column must hold: rows of `condition` break it."""

    column: Column
    condition: str
    broken: Callable[[Column, int], InvalidError]


def rules_within(schema: Schema) -> list[Rule]:
    """Returns the rules of a schema that statistics of files do not tell of.

    Those are a null in a required field of a nested column, a fixed[n] of other than n bytes, and
    the time 24:00:00, which DuckDB has and Iceberg has not.
    """
    found = []
    for column in schema.columns:
        name = quoted(column.name)
        found.append(Rule(column, missing_within(name, column), _missing))
        found.append(Rule(column, any_within(name, column, _is_of_other_length), _of_other_length))
        found.append(Rule(column, any_within(name, column, _is_end_of_day), _at_end_of_day))
    return [rule for rule in found if rule.condition]


def missing_within(value: str, column: Column) -> str:
    """Returns the SQL condition under which a nested value, given as SQL, lacks a required field.

    Empty where nothing within is required.
    """
    return _any_inside(value, column, _is_missing)


def any_within(value: str, column: Column, tells: Tells, depth: int = 0) -> str:
    """Returns the SQL condition that `tells` of a value, given as SQL, or of something within it.

    Empty where it says nothing of any of them.
    """
    return _either([tells(value, column), _any_inside(value, column, tells, depth)])


def _cast(source: Column | None, column: Column, wanted: Schema) -> str:
    if source is None and column.write_default is not None:
        default = default_sql(column, column.write_default)
        return f"CAST({default} AS {column.sql_type}) AS {quoted(column.name)}"
    if source is None:
        raise InvalidError(
            f'SQL does not return column "{column.name}": expected all of '
            f"{', '.join(wanted.names)}. Add it to the SELECT.",
            kind="no-such-column",
            column=column.name,
        )
    if not is_castable(source, column):
        raise InvalidError(
            f'Column "{column.name}" is {source.full_type}: expected {column.full_type}. '
            "Cast it in the SQL, or change the contract.",
            kind="type-mismatch",
            column=column.name,
        )
    return f"CAST({quoted(source.name)} AS {column.sql_type}) AS {quoted(column.name)}"


def _missing(column: Column, rows: int) -> InvalidError:
    within = "null" if column.required else "without a required field"
    return InvalidError(
        f'Column "{column.name}" is {within} in {rows} rows: expected a value in every row. '
        "Filter the rows out, or make the column optional in the contract.",
        kind="null-in-required",
        column=column.name,
        rows=rows,
    )


def _of_other_length(column: Column, rows: int) -> InvalidError:
    return InvalidError(
        f'Column "{column.name}" has values of another length in {rows} rows: expected '
        f"{column.full_type}. Cut or pad the values, or make the column binary.",
        kind="type-mismatch",
        column=column.name,
        rows=rows,
    )


def _at_end_of_day(column: Column, rows: int) -> InvalidError:
    return InvalidError(
        f'Column "{column.name}" has the time 24:00:00 in {rows} rows: expected times of day, '
        "from 00:00:00 up to 23:59:59.999999. Write 00:00:00, or keep a timestamp.",
        kind="type-mismatch",
        column=column.name,
        rows=rows,
    )


def _is_missing(value: str, column: Column) -> str:
    return f"{value} IS NULL" if column.required else ""


def _is_of_other_length(value: str, column: Column) -> str:
    length = fixed_length(column.type)
    return f"octet_length({value}) <> {length}" if length else ""


def _is_end_of_day(value: str, column: Column) -> str:
    return f"{value} = TIME '24:00:00'" if column.type == "time" else ""


def _any_inside(value: str, column: Column, tells: Tells, depth: int = 0) -> str:
    match column.type:
        case "struct":
            fields = _either(
                any_within(f"struct_extract({value}, {literal(child.name)})", child, tells, depth)
                for child in column.children
            )
            return f"({value} IS NOT NULL AND {fields})" if fields else ""
        case "list":
            return _in_some(value, column.children[0], tells, depth)
        case "map":
            key, entry = column.children
            return _either(
                [
                    _in_some(f"map_keys({value})", key, tells, depth),
                    _in_some(f"map_values({value})", entry, tells, depth),
                ]
            )
        case _:
            return ""


def _in_some(values: str, element: Column, tells: Tells, depth: int) -> str:
    each = f"e{depth}"
    condition = any_within(each, element, tells, depth + 1)
    return f"len(list_filter({values}, lambda {each}: {condition})) > 0" if condition else ""


def _either(conditions: Iterable[str]) -> str:
    known = [one for one in conditions if one]
    return f"({' OR '.join(known)})" if known else ""
