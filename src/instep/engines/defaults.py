"""What a column has where a row brings no value: its defaults, checked, and as SQL. Pure.

A default is a text: that of DuckDB's value, which for times is ISO 8601, and for bytes hexadecimal.
"""

from __future__ import annotations

import math
import re
import struct
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal, localcontext
from typing import TypeVar

from instep.engines.schema import Column, fixed_length, literal
from instep.errors import InvalidError

Moment = TypeVar("Moment", time, datetime)

_WIDTHS = {"int": 32, "long": 64}
"""Bits."""


def default_sql(column: Column, text: str | None) -> str:
    """Returns SQL of one of a column's defaults, without its type."""
    if text is None:
        return "NULL"
    if column.sql_type == "BLOB":
        text = "".join(f"\\x{byte:02X}" for byte in bytes.fromhex(text))
    return literal(text)


def checked_default(column: Column, text: str) -> str:
    """Returns a default in the one form that Iceberg writes.

    Raises:
        InvalidError (kind "bad-value"): it is no value of the column's type.
    """
    try:
        return _parser(column.type)(text)
    except (ValueError, ArithmeticError) as error:
        raise InvalidError(
            f'The default "{text}" of column "{column.name}" is none of its type: expected '
            f"{column.full_type} ({error}). Write one, bytes in hexadecimal.",
            kind="bad-value",
            column=column.name,
        ) from None


def with_type(column: Column, wider: str) -> Column:
    """Returns a column of a wider type whose defaults are the values they were.

    As a double, a float's value has more digits.
    """
    if (column.type, wider) != ("float", "double"):
        return replace(column, type=wider)
    initial, write = (
        None if text is None else repr(exact_float(text))
        for text in (column.initial_default, column.write_default)
    )
    return replace(column, type=wider, initial_default=initial, write_default=write)


def going_on(old: Column, column: Column) -> Column:
    """Returns a column of a table under its old id: what rows from before it read stays.

    What a writer puts stays too, unless the column says otherwise.
    """
    kept = with_type(old, column.type)
    write = kept.write_default if column.write_default is None else column.write_default
    return replace(column, id=old.id, initial_default=kept.initial_default, write_default=write)


def exact_float(text: str) -> float:
    """Returns the float of 32 bits that is nearest to a number; OverflowError beyond all floats."""
    (found,) = struct.unpack("f", struct.pack("f", float(text)))
    return float(found)


def _parser(kind: str) -> Callable[[str], str]:
    match kind:
        case "boolean":
            return _truth
        case "int" | "long":
            return lambda text: _whole(text, _WIDTHS[kind])
        case "float":
            return lambda text: _finite(text, exact_float)
        case "double":
            return lambda text: _finite(text, float)
        case "date":
            return lambda text: date.fromisoformat(text).isoformat()
        case "time":
            return lambda text: _without_zone(time.fromisoformat(_timed(text))).isoformat()
        case "timestamp":
            return lambda text: _without_zone(datetime.fromisoformat(_timed(text))).isoformat()
        case "timestamptz":
            return _instant
        case "string":
            return str
        case "uuid":
            return lambda text: str(uuid.UUID(text))
        case "struct" | "list" | "map":
            raise ValueError("what is nested has none but null")
        case _ if kind.startswith("decimal"):
            return lambda text: _decimal(text, kind)
        case _:
            return lambda text: _bytes(text, fixed_length(kind))


def _truth(text: str) -> str:
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return text


def _whole(text: str, bits: int) -> str:
    if not -(1 << bits - 1) <= int(text) < 1 << bits - 1:
        raise ValueError(f"it has more than {bits} bits")
    return str(int(text))


def _finite(text: str, number: Callable[[str], float]) -> str:
    if not math.isfinite(number(text)):
        raise ValueError("JSON has no such number")
    return repr(float(text))


def _timed(text: str) -> str:
    """Returns `text`; Python would cut digits beyond microseconds without a word."""
    if re.search(r"[.,]\d{7}", text):
        raise ValueError("it has more than microseconds")
    return text


def _decimal(text: str, kind: str) -> str:
    precision, scale = kind.removeprefix("decimal(").removesuffix(")").split(",")
    with localcontext() as context:
        context.prec = 2 * int(precision) + len(text)
        value = Decimal(text)
        exact = value.quantize(Decimal(1).scaleb(-int(scale)))
    if exact != value or abs(exact.scaleb(int(scale))) >= 10 ** int(precision):
        raise ValueError("it has too many digits")
    return f"{exact:f}"


def _without_zone(value: Moment) -> Moment:
    if value.tzinfo is not None:
        raise ValueError("it has a time zone")
    return value


def _instant(text: str) -> str:
    value = datetime.fromisoformat(_timed(text))
    if value.tzinfo is None:
        raise ValueError("it has no time zone")
    return value.astimezone(UTC).isoformat()


def _bytes(text: str, length: int | None) -> str:
    found = bytes.fromhex(text)
    if length is not None and len(found) != length:
        raise ValueError(f"it has {len(found)} bytes")
    return found.hex().upper()
