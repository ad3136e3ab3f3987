"""Which partition and which order a table's files have: specs, transforms and their values as text.

Pure. The transforms are Iceberg's: identity, year, month, day, hour, bucket and truncate. A
partition's value is a text: that of a bound for identity and truncate, else a whole number (days
and the like since 1970). Source: https://iceberg.apache.org/spec/#partitioning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from instep.engines.layout import PartitionField, SortField
from instep.engines.schema import Column, Schema, fixed_length
from instep.errors import InvalidError
from instep.tables.avro import AvroType
from instep.tables.manifest import Partition, Summary

FIRST_FIELD_ID = 1000
"""Partition fields are numbered from here, as Iceberg demands."""

_TRANSFORM = re.compile(r"(identity|year|month|day|hour)|(bucket|truncate)\[([1-9][0-9]{0,8})\]")

_TIMES = frozenset({"date", "timestamp", "timestamptz"})
_INSTANTS = frozenset({"timestamp", "timestamptz"})
_BUCKETED = frozenset(
    {"int", "long", "date", "time", "timestamp", "timestamptz", "string", "uuid", "binary"}
)
_TRUNCATED = frozenset({"int", "long", "string", "binary"})


@dataclass(frozen=True, slots=True)
class Part:
    """How a caller says it: a column by its name, and a transform such as "day" or "bucket[16]"."""

    column: str
    transform: str = "identity"


@dataclass(frozen=True, slots=True)
class Order:
    """One column of a sort order, as a caller says it."""

    column: str
    is_descending: bool = False
    nulls_first: bool = True

    def __str__(self) -> str:
        direction = "desc" if self.is_descending else "asc"
        return f"{self.column} {direction} nulls {'first' if self.nulls_first else 'last'}"


@dataclass(frozen=True, slots=True)
class Spec:
    """One partition spec of a table; without fields the table is not partitioned."""

    id: int
    fields: tuple[PartitionField, ...]

    def may_hold(self, values: Partition) -> bool:
        """Says whether a file's partition values can be of this spec: its number, and readable."""
        if len(values) != len(self.fields):
            return False
        try:
            for field, text in zip(self.fields, values, strict=True):
                if text is not None:
                    order_key(field.result, text)
        except (ValueError, ArithmeticError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class SortOrder:
    """One sort order of a table; 0 is none."""

    id: int
    fields: tuple[SortField, ...]


def make_spec(
    identifier: int, parts: Sequence[Part], schema: Schema, before: Sequence[Spec]
) -> Spec:
    """Returns a spec; a field that an earlier spec had keeps its id.

    Raises:
        InvalidError (kind "no-such-column", "bad-transform").
    """
    used = {(f.source_id, f.transform): f.field_id for one in before for f in one.fields}
    following = max(used.values(), default=FIRST_FIELD_ID - 1)
    fields: list[PartitionField] = []
    for part in parts:
        column = schema.column(part.column)
        _check_transform(column, part.transform)
        if (column.id, part.transform) not in used:
            following += 1
            used[column.id, part.transform] = following
        field_id = used[column.id, part.transform]
        fields.append(
            PartitionField(column.id, field_id, _name(column, part.transform), part.transform,
                           column.type)
        )  # fmt: skip
    if len({one.name for one in fields}) < len(fields):
        raise InvalidError(
            f"Partition fields {', '.join(one.name for one in fields)} are not all different: "
            "expected each column and transform once. Leave one out.",
            kind="bad-transform",
        )
    return Spec(identifier, tuple(fields))


def check_spec(spec: Spec, schema: Schema) -> None:
    """Holds that new files can be partitioned by a spec that somebody else made.

    Raises:
        InvalidError (kind "no-such-column", "bad-transform").
    """
    by_id = {column.id: column for column in schema.columns}
    for field in spec.fields:
        column = by_id.get(field.source_id)
        if column is None:
            raise InvalidError(
                f'Partition field "{field.name}" is of column {field.source_id}: expected one of '
                f"{', '.join(schema.names)}. Take the field out of the partition spec.",
                kind="no-such-column",
                column=field.name,
            )
        _check_transform(column, field.transform)


def make_order(identifier: int, orders: Sequence[Order], schema: Schema) -> SortOrder:
    """Returns a sort order.

    Raises:
        InvalidError (kind "no-such-column").
    """
    fields = (
        SortField(schema.column(one.column).id, one.is_descending, one.nulls_first)
        for one in orders
    )
    return SortOrder(identifier, tuple(fields))


def spec_json(spec: Spec) -> dict[str, object]:
    return {"spec-id": spec.id, "fields": spec_fields_json(spec)}


def spec_fields_json(spec: Spec) -> list[dict[str, object]]:
    return [
        {"source-id": f.source_id, "field-id": f.field_id, "name": f.name,
         "transform": f.transform}
        for f in spec.fields
    ]  # fmt: skip


def order_json(order: SortOrder) -> dict[str, object]:
    return {
        "order-id": order.id,
        "fields": [
            {
                "transform": "identity",
                "source-id": one.source_id,
                "direction": "desc" if one.is_descending else "asc",
                "null-order": "nulls-first" if one.nulls_first else "nulls-last",
            }
            for one in order.fields
        ],
    }


def summaries(spec: Spec, partitions: Iterable[Partition]) -> tuple[Summary, ...]:
    """Returns what the files of a manifest hold in each partition field."""
    columns = list(zip(*partitions, strict=True)) or [()] * len(spec.fields)
    return tuple(
        _summary(field, values) for field, values in zip(spec.fields, columns, strict=True)
    )


def order_key(kind: str, text: str) -> object:
    """Returns what a value of an Iceberg type is compared by: not all texts sort as values do."""
    match kind:
        case "int" | "long":
            return int(text)
        case "float" | "double":
            return float(text)
        case "boolean":
            return text == "true"
        case "binary":
            return bytes.fromhex(text)
        case "string":
            return text.encode()
        case _ if kind.startswith("decimal"):
            from decimal import Decimal

            return Decimal(text)
        case _:
            return text


def avro_kind(kind: str, field_id: int) -> AvroType:
    """Returns the Avro type that Iceberg gives values of a type; some need a name of their own."""
    match kind:
        case "date":
            return {"type": "int", "logicalType": "date"}
        case "time":
            return {"type": "long", "logicalType": "time-micros"}
        case "timestamp" | "timestamptz":
            return {
                "type": "long",
                "logicalType": "timestamp-micros",
                "adjust-to-utc": kind == "timestamptz",
            }
        case "uuid":
            return {"type": "fixed", "name": f"uuid_{field_id}", "size": 16, "logicalType": "uuid"}
        case "binary":
            return "bytes"
        case _ if kind.startswith("decimal"):
            precision, scale = (int(one) for one in kind[8:-1].split(","))
            return {
                "type": "fixed",
                "name": f"decimal_{field_id}",
                "size": decimal_size(precision),
                "logicalType": "decimal",
                "precision": precision,
                "scale": scale,
            }
        case _:
            return kind


def decimal_size(precision: int) -> int:
    """Returns in how many bytes every unscaled value of a precision fits."""
    largest: int = 10**precision - 1
    return (largest.bit_length() + 8) // 8


def _summary(field: PartitionField, values: Sequence[str | None]) -> Summary:
    kind = field.result
    known = {one for one in values if one is not None}
    nans = {one for one in known if kind in ("float", "double") and one.lower().endswith("nan")}
    ordered = sorted(known - nans, key=lambda one: order_key(kind, one))  # type: ignore[arg-type,return-value]  # keys of one type
    return Summary(
        contains_null=len(known) < len(set(values)),
        contains_nan=bool(nans),
        lower=ordered[0] if ordered else None,
        upper=ordered[-1] if ordered else None,
    )


def _name(column: Column, transform: str) -> str:
    if transform == "identity":
        return column.name
    return f"{column.name}_{transform.partition('[')[0].replace('truncate', 'trunc')}"


def _check_transform(column: Column, transform: str) -> None:
    found = _TRANSFORM.fullmatch(transform)
    kind = "decimal" if column.type.startswith("decimal") else column.type
    match found and (found[1] or found[2]):
        case "identity":
            # pyiceberg 0.12 finds no row by a partition of uuid, nor one of fixed.
            is_bytes = kind == "uuid" or fixed_length(kind) is not None
            fits = not is_bytes and not column.is_nested
        case "year" | "month" | "day":
            fits = kind in _TIMES
        case "hour":
            fits = kind in _INSTANTS
        case "bucket":
            fits = kind in _BUCKETED or kind == "decimal"
        case "truncate":
            fits = kind in _TRUNCATED or kind == "decimal"
        case _:
            fits = False
    if not fits:
        raise InvalidError(
            f'Column "{column.name}" of type {column.type} cannot be partitioned by '
            f'"{transform}": expected identity, year, month, day or hour of a time, bucket[N] or '
            "truncate[N]. Correct the transform.",
            kind="bad-transform",
            column=column.name,
            transform=transform,
        )
