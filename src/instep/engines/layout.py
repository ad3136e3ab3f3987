"""How a table's rows are laid out in files: partition transforms and sort order, as DuckDB's SQL.

The transforms are Iceberg's, value for value: bucket is 32-bit Murmur3, which DuckDB lacks, so it
is written out here. A partition value is a text: that of a bound for identity and truncate, else a
whole number. Source: https://iceberg.apache.org/spec/#partition-transforms and its appendix B.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Context, Decimal

from instep.engines.schema import Column, Schema, free_name, quoted
from instep.errors import InvalidError

_NULL = "n"
_TIME = "%Y-%m-%dT%H:%M:%S.%f"


@dataclass(frozen=True, slots=True)
class PartitionField:
    """One field of a partition spec; `kind` is the Iceberg type of its source column."""

    source_id: int
    field_id: int
    name: str
    transform: str
    kind: str

    @property
    def result(self) -> str:
        """The Iceberg type of the field's values; days are numbers, as other readers have them."""
        if self.transform == "identity" or self.transform.startswith("truncate"):
            return self.kind
        return "int"


@dataclass(frozen=True, slots=True)
class SortField:
    source_id: int
    is_descending: bool
    nulls_first: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """What a writer does with the rows of a table; empty for plain files in any order."""

    partition: tuple[PartitionField, ...] = ()
    sort: tuple[SortField, ...] = ()


PLAIN = Layout()


def partition_columns(layout: Layout, schema: Schema) -> tuple[str, ...]:
    """Returns SQL columns that hold the partition of a row, safe in the name of a folder."""
    by_id = {column.id: column for column in schema.columns}
    return tuple(
        f"coalesce('v' || hex(encode({transformed(field.transform, by_id[field.source_id])})), "
        f"'{_NULL}') AS {name}"
        for name, field in zip(partition_names(layout, schema), layout.partition, strict=True)
    )


def partition_names(layout: Layout, schema: Schema) -> tuple[str, ...]:
    """Returns what these columns are called; no column of the schema is called so."""
    return tuple(free_name(f"part{n}", schema.names) for n, _ in enumerate(layout.partition))


def partition_of(layout: Layout, schema: Schema, keys: Mapping[str, str]) -> tuple[str | None, ...]:
    """Returns a file's partition from what DuckDB tells of it.

    Raises:
        InvalidError (kind "partition-out-of-range"): Iceberg cannot tell of a value.
    """
    by_id = {column.id: column for column in schema.columns}
    found = []
    for name, field in zip(partition_names(layout, schema), layout.partition, strict=True):
        text = _text(field, keys[name])
        if text is not None and not _holds(field.result, text):
            raise _out_of_range(by_id[field.source_id], field, text)
        found.append(text)
    return tuple(found)


def order_by(sort: Sequence[SortField], schema: Schema) -> str:
    """Returns an ORDER BY clause, empty without a sort order."""
    by_id = {column.id: column for column in schema.columns}
    terms = (
        f"{quoted(by_id[one.source_id].name)} {'DESC' if one.is_descending else 'ASC'} "
        f"NULLS {'FIRST' if one.nulls_first else 'LAST'}"
        for one in sort
        if one.source_id in by_id
    )
    listed = ", ".join(terms)
    return f" ORDER BY {listed}" if listed else ""


def transformed(transform: str, column: Column) -> str:
    """Returns SQL whose value is the partition text of a column's value, NULL for null.

    Truncated decimals come as their unscaled number.
    """
    name = quoted(column.name)
    kind, _, width = transform.removesuffix("]").partition("[")
    instant = f"({name} AT TIME ZONE 'UTC')" if column.type == "timestamptz" else name
    match kind:
        case "identity":
            return _identity(column, name, instant)
        case "truncate":
            return _truncated(column, name, int(width))
        case "bucket":
            return f"(({_hash(column, name)} & 2147483647) % {int(width)})::VARCHAR"
        case _:
            return f"date_diff('{kind}', TIMESTAMP '1970-01-01', {instant}::TIMESTAMP)::VARCHAR"


def _identity(column: Column, name: str, instant: str) -> str:
    match column.type:
        case "timestamp":
            return f"strftime({name}, '{_TIME}')"
        case "timestamptz":
            return f"strftime({instant}, '{_TIME}') || '+00:00'"
        case "binary":
            return f"lower(hex({name}))"
        case "float":  # all its digits, so that it is the same once the column is a double
            return f"{name}::DOUBLE::VARCHAR"
        case _:
            return f"{name}::VARCHAR"


def _truncated(column: Column, name: str, width: int) -> str:
    match column.type:
        case "string":
            return f"left({name}, {width})"
        case "binary":
            return f"left(lower(hex({name})), {2 * width})"
        case "int" | "long":
            number = f"{name}::HUGEINT"
        case _:
            number = _unscaled(name)
    return f"({number} - (({number} % {width}) + {width}) % {width})::VARCHAR"


def _unscaled(name: str) -> str:
    return f"replace({name}::VARCHAR, '.', '')::HUGEINT"


def _hash(column: Column, name: str) -> str:
    """Murmur3 (x86, 32 bits, seed 0) of the bytes that the specification gives a value."""
    at = free_name("i", [column.name])
    match column.type:
        case "int" | "long":
            return _hash_of_long(f"{name}::BIGINT")
        case "date":
            return _hash_of_long(f"date_diff('day', DATE '1970-01-01', {name})")
        case "time":
            return _hash_of_long(f"epoch_us({name})")
        case "timestamp" | "timestamptz":
            return _hash_of_long(f"epoch_us({name})")
        case "string":
            return _hash_of_hex(f"hex(encode({name}))", at)
        case "binary":
            return _hash_of_hex(f"hex({name})", at)
        case "uuid":
            return _hash_of_hex(f"upper(replace({name}::VARCHAR, '-', ''))", at)
        case _:
            return _hash_of_hex(_decimal_hex(_unscaled(name)), at)


def _hash_of_long(value: str) -> str:
    """Eight bytes, lowest first, so the words are the lower and the upper half."""
    whole = f"(({value})::HUGEINT + CASE WHEN {value} < 0 THEN 18446744073709551616 ELSE 0 END)"
    words = f"[({whole} % 4294967296)::UBIGINT, ({whole} // 4294967296)::UBIGINT]"
    return _murmur(words, "0::UBIGINT", "8")


def _hash_of_hex(text: str, at: str) -> str:
    """`at` names the place of a word in a lambda, which would hide a column of that name."""

    def byte(at: str) -> str:
        return f"('0x' || substr({text}, {at}, 2))::UBIGINT"

    def word(first: str) -> str:
        return " + ".join(f"({byte(f'{first} + {2 * n}')} << {8 * n})" for n in range(4))

    length = f"(length({text}) // 2)"
    words = f"list_transform(range({length} // 4), lambda {at}: {word(f'{at} * 8 + 1')})"
    start = f"({length} // 4) * 8 + 1"
    tail = " + ".join(
        f"CASE WHEN {length} % 4 > {n} THEN {byte(f'{start} + {2 * n}')} << {8 * n} "
        "ELSE 0::UBIGINT END"
        for n in range(3)
    )
    return _murmur(words, tail, length)


def _murmur(words: str, tail: str, length: str) -> str:
    mask = "4294967295::UBIGINT"

    def times(value: str, factor: int) -> str:
        return f"((({value}) * {factor}::UBIGINT) & {mask})"

    def rotated(value: str, by: int) -> str:
        return f"(((({value}) << {by}) | (({value}) >> {32 - by})) & {mask})"

    def mixed(word: str) -> str:
        return times(rotated(times(word, 0xCC9E2D51), 15), 0x1B873593)

    def step(before: str, word: str) -> str:
        turned = rotated(f"xor({before}, {mixed(word)})", 13)
        return f"(({turned} * 5::UBIGINT + 3864292196::UBIGINT) & {mask})"

    body = f"list_reduce({words}, lambda h, w: {step('h', 'w')}, 0::UBIGINT)"
    body = f"xor(xor({body}, {mixed(tail)}), ({length})::UBIGINT)"
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        body = times(f"list_transform([{body}], lambda x: xor(x, x >> {shift}))[1]", factor)
    return f"list_transform([{body}], lambda x: xor(x, x >> 16))[1]"


def _decimal_hex(value: str) -> str:
    """An unscaled decimal as hex of two's complement, in as few bytes as hold it."""
    bits = [f"WHEN {value} >= -{1 << (8 * n - 1)} AND {value} < {1 << (8 * n - 1)} THEN {n}"
            for n in range(1, 16)]  # fmt: skip
    size = f"(CASE {' '.join(bits)} ELSE 16 END)"
    # DuckDB writes a negative HUGEINT as all of its 16 bytes, a positive one without leading zeros.
    return f"right(lpad(hex({value}), 32, '0'), 2 * {size})"


def _text(field: PartitionField, key: str) -> str | None:
    if key == _NULL:
        return None
    text = bytes.fromhex(key[1:]).decode()
    if field.transform.startswith("truncate") and field.kind.startswith("decimal"):
        scale = int(field.kind.removesuffix(")").split(",")[1])
        return str(Decimal(text).scaleb(-scale, Context(prec=60)))
    return text


def _holds(kind: str, text: str) -> bool:
    """Says whether a value is one of an Iceberg type, in the years that Python knows.

    Truncation goes below the least number: writers that let it overflow lose such rows in filters
    (apache/iceberg issue 13105), and the specification says nothing of them.
    """
    try:
        match kind:
            case "int":
                return -(1 << 31) <= int(text) < 1 << 31
            case "long":
                return -(1 << 63) <= int(text) < 1 << 63
            case "date":
                date.fromisoformat(text)
            case "time":
                time.fromisoformat(text)
            case "timestamp" | "timestamptz":
                datetime.fromisoformat(text)
            case _ if kind.startswith("decimal"):
                precision, scale = (int(one) for one in kind[8:-1].split(","))
                return abs(Decimal(text)) < Decimal(10) ** (precision - scale)
            case _:
                pass
    except ValueError:
        return False
    return True


def _out_of_range(column: Column, field: PartitionField, text: str) -> InvalidError:
    return InvalidError(
        f'Column "{column.name}" has a value whose {field.transform} is {text}: expected a '
        f"partition that {field.result} can hold. Leave the row out, or partition the table by "
        "another transform.",
        kind="partition-out-of-range",
        column=column.name,
        transform=field.transform,
    )
