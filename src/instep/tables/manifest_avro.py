"""Manifests and manifest lists as Iceberg's Avro: their schemas, entries and bounds as bytes.

Pure. Source: https://iceberg.apache.org/spec/, "Manifests" and "Manifest Lists".
"""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Context, Decimal
from enum import IntEnum
from functools import lru_cache

from instep.engines.engine import WrittenFile
from instep.engines.schema import Schema
from instep.tables.avro import (
    AvroType,
    AvroValue,
    Encoder,
    container_bytes,
    encoder,
    long,
    schema_text,
)
from instep.tables.columns import schema_json
from instep.tables.manifest import Applies, Manifest
from instep.tables.partition import Spec, avro_kind, decimal_size, spec_fields_json

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Status(IntEnum):
    """What a manifest says of a file; the numbers are Iceberg's."""

    EXISTING = 0
    ADDED = 1
    DELETED = 2


@dataclass(frozen=True, slots=True)
class Marked:
    """A file as one manifest entry: `record` is its Avro `data_file`, as it was or as it is made.

    `sequence_number` is None while the file is being added.
    """

    status: Status
    record: bytes
    rows: int
    snapshot_id: int
    sequence_number: int | None


def record_bytes(
    file: WrittenFile, kinds: Mapping[int, str], spec: Spec, applies: Applies | None = None
) -> bytes:
    """Returns one file as an Avro `data_file`; with `applies` it is a delete file."""
    known = [column for column in file.columns if column.field_id in kinds]
    floats = [column for column in known if kinds[column.field_id] in ("float", "double")]
    partition = {
        field.name: None if text is None else _avro_value(field.result, text)
        for field, text in zip(spec.fields, file.partition, strict=True)
    }
    record: dict[str, AvroValue] = {
        "content": 0 if applies is None else 1,
        "file_path": file.path,
        "file_format": "PUFFIN" if applies and applies.offset is not None else "PARQUET",
        "partition": partition,
        "record_count": file.rows,
        "file_size_in_bytes": file.size_bytes,
        "column_sizes": _pairs((c.field_id, c.size_bytes) for c in known),
        "value_counts": _pairs((c.field_id, c.values) for c in known),
        "null_value_counts": _pairs((c.field_id, c.nulls) for c in known if c.nulls is not None),
        "nan_value_counts": _pairs((c.field_id, c.nans) for c in floats if c.nans is not None),
        "lower_bounds": _pairs(
            (c.field_id, bound_bytes(kinds[c.field_id], c.lower))
            for c in known
            if c.lower is not None
        ),
        "upper_bounds": _pairs(
            (c.field_id, bound_bytes(kinds[c.field_id], c.upper))
            for c in known
            if c.upper is not None
        ),
        "key_metadata": None,
        "split_offsets": None,
        "equality_ids": None,
        "sort_order_id": None,
    }
    if applies is not None:
        record["referenced_data_file"] = applies.data_file
        record["content_offset"] = applies.offset
        record["content_size_in_bytes"] = applies.length
    encoded: bytes = _codec(spec, applies is not None).record(record)
    return encoded


def manifest_bytes(
    schema: Schema, schema_id: int, spec: Spec, holds_deletes: bool, marked: Sequence[Marked]
) -> tuple[bytes, list[tuple[int, int]], tuple[int, int]]:
    """Returns an Avro manifest, where each record lies in its block, and where the block lies."""
    header = {
        "schema": _schema_text(schema, schema_id),
        "schema-id": str(schema_id),
        "partition-spec": json.dumps(spec_fields_json(spec)),
        "partition-spec-id": str(spec.id),
        "format-version": "2",
        "content": "deletes" if holds_deletes else "data",
    }
    spans: list[tuple[int, int]] = []
    entries: list[bytes] = []
    at = 0
    for one in marked:
        before = _before(one)
        spans.append((at + len(before), at + len(before) + len(one.record)))
        entries += (before, one.record)
        at = spans[-1][1]
    text = entry_schema(spec, holds_deletes)
    data, block = container_bytes(text, entries, header, len(marked))
    return data, spans, block


def entry_schema(spec: Spec, holds_deletes: bool) -> str:
    """Returns the Avro schema of a manifest's entries, as `manifest_bytes` writes it."""
    return _codec(spec, holds_deletes).text


def manifest_list_bytes(
    folder: str,
    snapshot_id: int,
    parent_id: int | None,
    sequence_number: int,
    manifests: Sequence[Manifest],
    specs: Mapping[int, Spec],
) -> bytes:
    """Returns an Avro manifest list; `folder` is the absolute folder of the manifests."""
    header = {
        "snapshot-id": str(snapshot_id),
        "parent-snapshot-id": "null" if parent_id is None else str(parent_id),
        "sequence-number": str(sequence_number),
        "format-version": "2",
    }
    listed = [_manifest_file(folder, one, specs[one.spec_id]) for one in manifests]
    data, _ = container_bytes(_MANIFEST_FILE_TEXT, listed, header, len(listed))
    return data


def bound_bytes(kind: str, text: str) -> bytes:
    """Returns a bound in Iceberg's single-value form (spec, appendix D)."""
    match kind:
        case "boolean":
            return b"\x01" if text == "true" else b"\x00"
        case "int":
            return struct.pack("<i", int(text))
        case "long":
            return struct.pack("<q", int(text))
        case "float":
            return struct.pack("<f", float(text))
        case "double":
            return struct.pack("<d", float(text))
        case "date":
            return struct.pack("<i", (date.fromisoformat(text) - _EPOCH.date()).days)
        case "time":
            return struct.pack("<q", _microseconds_of_day(time.fromisoformat(text)))
        case "timestamp" | "timestamptz":
            return struct.pack("<q", _microseconds(datetime.fromisoformat(text)))
        case "string":
            return text.encode()
        case "uuid":
            return uuid.UUID(text).bytes
        case "binary":
            return bytes.fromhex(text)
        case _ if kind.startswith("fixed"):
            return bytes.fromhex(text)
        case _:
            scale = int(kind.removesuffix(")").split(",")[1])
            return _decimal_bytes(Decimal(text), scale)


def _pairs(values: Iterable[tuple[int, int | bytes]]) -> list[AvroValue]:
    return [{"key": key, "value": value} for key, value in values]


def _before(one: Marked) -> bytes:
    """A manifest entry up to its data file: status, snapshot and twice the sequence number."""
    return _entry_head(int(one.status), one.snapshot_id, one.sequence_number)


@lru_cache(maxsize=4096)  # each merge of manifests carries entries that an earlier one wrote
def _entry_head(status: int, snapshot_id: int, number: int | None) -> bytes:
    sequence = b"\x00" if number is None else b"\x02" + long(number)
    return b"".join((long(status), b"\x02", long(snapshot_id), sequence, sequence))


@lru_cache(maxsize=4096)  # the manifests of some tables; each append lists nearly the same again
def _manifest_file(folder: str, manifest: Manifest, spec: Spec) -> bytes:
    summaries: list[AvroValue] = [
        {
            "contains_null": one.contains_null,
            "contains_nan": one.contains_nan,
            "lower_bound": None if one.lower is None else bound_bytes(field.result, one.lower),
            "upper_bound": None if one.upper is None else bound_bytes(field.result, one.upper),
        }
        for field, one in zip(spec.fields, manifest.partitions, strict=True)
    ]
    return _MANIFEST_FILE_ENCODER(
        {
            "manifest_path": f"{folder}/{manifest.path}",
            "manifest_length": manifest.length,
            "partition_spec_id": manifest.spec_id,
            "content": 1 if manifest.holds_deletes else 0,
            "sequence_number": manifest.sequence_number,
            "min_sequence_number": manifest.min_sequence_number,
            "added_snapshot_id": manifest.snapshot_id,
            "added_files_count": manifest.added[0],
            "existing_files_count": manifest.existing[0],
            "deleted_files_count": manifest.deleted[0],
            "added_rows_count": manifest.added[1],
            "existing_rows_count": manifest.existing[1],
            "deleted_rows_count": manifest.deleted[1],
            "partitions": summaries,
            "key_metadata": None,
        }
    )


@lru_cache(maxsize=64)
def _schema_text(schema: Schema, schema_id: int) -> str:
    return json.dumps(schema_json(schema, schema_id))


def _avro_value(kind: str, text: str) -> AvroValue:
    """A partition value as Avro wants it: numbers for times, all bytes of a decimal."""
    data = bound_bytes(kind, text)
    match kind:
        case "boolean":
            return text == "true"
        case "int" | "long" | "date" | "time" | "timestamp" | "timestamptz":
            return int.from_bytes(data, "little", signed=True)
        case "float" | "double":
            return float(text)
        case "string":
            return text
        case "uuid" | "binary":
            return data
        case _:
            size = decimal_size(int(kind.removeprefix("decimal(").split(",")[0]))
            return int.from_bytes(data, "big", signed=True).to_bytes(size, "big", signed=True)


def _microseconds(at: datetime) -> int:
    aware = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    since = aware - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _microseconds_of_day(at: time) -> int:
    return ((at.hour * 60 + at.minute) * 60 + at.second) * 1_000_000 + at.microsecond


def _decimal_bytes(value: Decimal, scale: int) -> bytes:
    """The unscaled value, big-endian two's complement, in as few bytes as hold it."""
    unscaled = int(value.scaleb(scale, Context(prec=60)))
    length = ((unscaled if unscaled >= 0 else ~unscaled).bit_length() + 8) // 8
    return unscaled.to_bytes(length, "big", signed=True)


def _field(name: str, field_id: int, kind: AvroType) -> AvroType:
    return {"name": name, "type": kind, "field-id": field_id}


def _optional(name: str, field_id: int, kind: AvroType) -> AvroType:
    return {"name": name, "type": ["null", kind], "default": None, "field-id": field_id}


def _map_of(key_id: int, value_id: int, value: AvroType) -> AvroType:
    """Avro's maps have text keys only, so Iceberg writes other maps as arrays of pairs."""
    pair: AvroType = {
        "type": "record",
        "name": f"k{key_id}_v{value_id}",
        "fields": [_field("key", key_id, "int"), _field("value", value_id, value)],
    }
    return {"type": "array", "items": pair, "logicalType": "map"}


def _list_of(element_id: int, element: AvroType) -> AvroType:
    return {"type": "array", "items": element, "element-id": element_id}


# The field ids and names below are those of the spec, sections "Manifests" and "Manifest Lists".
def _data_file(spec: Spec, holds_deletes: bool) -> AvroType:
    partition = [
        _optional(f.name, f.field_id, avro_kind(f.result, f.field_id)) for f in spec.fields
    ]
    more = _DELETE_FIELDS if holds_deletes else []
    record: AvroType = {"type": "record", "name": "r102", "fields": partition}
    fields = [
        _field("partition", 102, record) if one is _PARTITION else one for one in _DATA_FIELDS
    ]
    return {"type": "record", "name": "r2", "fields": [*fields, *more]}


_PARTITION: AvroType = {"name": "partition"}
"""Stands where a spec's own struct belongs."""

_DATA_FIELDS: list[AvroType] = [
    _field("content", 134, "int"),
    _field("file_path", 100, "string"),
    _field("file_format", 101, "string"),
    _PARTITION,
    _field("record_count", 103, "long"),
    _field("file_size_in_bytes", 104, "long"),
    _optional("column_sizes", 108, _map_of(117, 118, "long")),
    _optional("value_counts", 109, _map_of(119, 120, "long")),
    _optional("null_value_counts", 110, _map_of(121, 122, "long")),
    _optional("nan_value_counts", 137, _map_of(138, 139, "long")),
    _optional("lower_bounds", 125, _map_of(126, 127, "bytes")),
    _optional("upper_bounds", 128, _map_of(129, 130, "bytes")),
    _optional("key_metadata", 131, "bytes"),
    _optional("split_offsets", 132, _list_of(133, "long")),
    _optional("equality_ids", 135, _list_of(136, "int")),
    _optional("sort_order_id", 140, "int"),
]

_DELETE_FIELDS: list[AvroType] = [
    _optional("referenced_data_file", 143, "string"),
    _optional("content_offset", 144, "long"),
    _optional("content_size_in_bytes", 145, "long"),
]


@dataclass(frozen=True, slots=True)
class _Codec:
    """How the entries of one kind of manifest are written."""

    text: str
    record: Encoder


@lru_cache(maxsize=64)
def _codec(spec: Spec, holds_deletes: bool) -> _Codec:
    data_file = _data_file(spec, holds_deletes)
    entry: AvroType = {
        "type": "record",
        "name": "manifest_entry",
        "fields": [
            _field("status", 0, "int"),
            _optional("snapshot_id", 1, "long"),
            _optional("sequence_number", 3, "long"),
            _optional("file_sequence_number", 4, "long"),
            _field("data_file", 2, data_file),
        ],
    }
    return _Codec(schema_text(entry), encoder(data_file))


_PARTITION_SUMMARY: AvroType = {
    "type": "record",
    "name": "r508",
    "fields": [
        _field("contains_null", 509, "boolean"),
        _optional("contains_nan", 518, "boolean"),
        _optional("lower_bound", 510, "bytes"),
        _optional("upper_bound", 511, "bytes"),
    ],
}

_MANIFEST_FILE: AvroType = {
    "type": "record",
    "name": "manifest_file",
    "fields": [
        _field("manifest_path", 500, "string"),
        _field("manifest_length", 501, "long"),
        _field("partition_spec_id", 502, "int"),
        _field("content", 517, "int"),
        _field("sequence_number", 515, "long"),
        _field("min_sequence_number", 516, "long"),
        _field("added_snapshot_id", 503, "long"),
        _field("added_files_count", 504, "int"),
        _field("existing_files_count", 505, "int"),
        _field("deleted_files_count", 506, "int"),
        _field("added_rows_count", 512, "long"),
        _field("existing_rows_count", 513, "long"),
        _field("deleted_rows_count", 514, "long"),
        _optional("partitions", 507, _list_of(508, _PARTITION_SUMMARY)),
        _optional("key_metadata", 519, "bytes"),
    ],
}

_MANIFEST_FILE_ENCODER = encoder(_MANIFEST_FILE)
_MANIFEST_FILE_TEXT = schema_text(_MANIFEST_FILE)
