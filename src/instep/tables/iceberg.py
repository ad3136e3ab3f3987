"""Iceberg's own forms of a table: metadata JSON, manifests and manifest lists as bytes.

Pure: nothing here reads or writes a file. Manifests are written with pyiceberg's types and
writers, but without its transaction, whose cost grows with the table's history.
Format version 2, unpartitioned and unsorted. Source: https://iceberg.apache.org/spec/.
"""

from __future__ import annotations

import io
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Context, Decimal
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from instep.engines.schema import Schema
from instep.tables.read import DataFile, Manifest

if TYPE_CHECKING:
    import pyiceberg.manifest as pm
    from pyiceberg.schema import Schema as IcebergSchema

KEPT_SNAPSHOTS = 10
"""How many snapshots metadata keeps, for tools that travel in time; history knows the others."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Status(IntEnum):
    """What a manifest says of a file; the numbers are Iceberg's."""

    EXISTING = 0
    ADDED = 1
    DELETED = 2


@dataclass(frozen=True, slots=True)
class Marked:
    """A file as one manifest entry; `sequence_number` is None while it is being added."""

    status: Status
    file: DataFile
    snapshot_id: int
    sequence_number: int | None


Metadata = dict[str, Any]
"""Iceberg's table metadata, as its JSON."""


def new_metadata(table_uuid: str, location: str, schema: Schema, at_ms: int) -> Metadata:
    """Returns the metadata of a table without rows."""
    return {
        "format-version": 2,
        "table-uuid": table_uuid,
        "location": location,
        "last-sequence-number": 0,
        "last-updated-ms": at_ms,
        "last-column-id": max((column.id for column in schema.columns), default=0),
        "current-schema-id": 0,
        "schemas": [_schema_json(schema, 0)],
        "default-spec-id": 0,
        "partition-specs": [{"spec-id": 0, "fields": []}],
        "last-partition-id": 999,
        "default-sort-order-id": 0,
        "sort-orders": [{"order-id": 0, "fields": []}],
        "properties": {},
        "current-snapshot-id": -1,
        "refs": {},
        "snapshots": [],
        "snapshot-log": [],
        "metadata-log": [],
    }


def with_schema(metadata: Metadata, schema: Schema, at_ms: int) -> Metadata:
    """Returns metadata whose current schema is `schema`; older ones are kept for old snapshots."""
    schema_id = max(one["schema-id"] for one in metadata["schemas"]) + 1
    return {
        **metadata,
        "last-updated-ms": max(at_ms, metadata["last-updated-ms"]),
        "last-column-id": max(
            metadata["last-column-id"], *(column.id for column in schema.columns)
        ),
        "current-schema-id": schema_id,
        "schemas": [*metadata["schemas"], _schema_json(schema, schema_id)],
    }


def with_snapshot(metadata: Metadata, snapshot: Metadata) -> Metadata:
    """Returns metadata whose current snapshot is `snapshot`; only the newest ones are kept."""
    snapshots = [*metadata["snapshots"], snapshot][-KEPT_SNAPSHOTS:]
    kept = {one["snapshot-id"] for one in snapshots}
    logged = {"snapshot-id": snapshot["snapshot-id"], "timestamp-ms": snapshot["timestamp-ms"]}
    used = {one["schema-id"] for one in snapshots} | {metadata["current-schema-id"]}
    return {
        **metadata,
        "last-sequence-number": snapshot["sequence-number"],
        "last-updated-ms": snapshot["timestamp-ms"],
        "current-snapshot-id": snapshot["snapshot-id"],
        "schemas": [one for one in metadata["schemas"] if one["schema-id"] in used],
        "refs": {"main": {"snapshot-id": snapshot["snapshot-id"], "type": "branch"}},
        "snapshots": snapshots,
        "snapshot-log": [
            *(one for one in metadata["snapshot-log"] if one["snapshot-id"] in kept),
            logged,
        ],
    }


def manifest_bytes(
    schema: Schema, schema_id: int, snapshot_id: int, files: Sequence[Marked]
) -> bytes:
    """Returns an Avro manifest of data files."""
    import pyiceberg.manifest as pm
    from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC

    target = _memory()
    writer = pm.write_manifest(
        2, UNPARTITIONED_PARTITION_SPEC, _iceberg_schema(schema, schema_id), target, snapshot_id,
        "deflate",
    )  # fmt: skip
    types = {column.id: column.type for column in schema.columns}
    with writer:
        for one in files:
            writer.add_entry(
                pm.ManifestEntry.from_args(
                    status=pm.ManifestEntryStatus(one.status.value),
                    snapshot_id=one.snapshot_id,
                    sequence_number=one.sequence_number,
                    file_sequence_number=one.sequence_number,
                    data_file=_data_file(one.file, types),
                )
            )
    return bytes(target.data.getvalue())


def manifest_list_bytes(
    folder: str,
    snapshot_id: int,
    parent_id: int | None,
    sequence_number: int,
    manifests: Sequence[Manifest],
) -> bytes:
    """Returns an Avro manifest list; `folder` is the absolute folder of the manifests."""
    import pyiceberg.manifest as pm

    target = _memory()
    with pm.write_manifest_list(
        2, target, snapshot_id, parent_id, sequence_number, "deflate"
    ) as writer:
        writer.add_manifests([_manifest_file(folder, one) for one in manifests])
    return bytes(target.data.getvalue())


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
        case _:
            scale = int(kind.removesuffix(")").split(",")[1])
            return _decimal_bytes(Decimal(text), scale)


def _schema_json(schema: Schema, schema_id: int) -> dict[str, Any]:
    return {
        "type": "struct",
        "schema-id": schema_id,
        "fields": [
            {
                "id": column.id,
                "name": column.name,
                "required": column.required,
                "type": column.type,
                **({"doc": column.doc} if column.doc else {}),
            }
            for column in schema.columns
        ],
    }


def _iceberg_schema(schema: Schema, schema_id: int) -> IcebergSchema:
    from pyiceberg.schema import Schema as IcebergSchema

    return IcebergSchema.model_validate(_schema_json(schema, schema_id))


def _data_file(file: DataFile, types: dict[int, str]) -> pm.DataFile:
    import pyiceberg.manifest as pm
    from pyiceberg.typedef import Record

    known = [one for one in file.columns if one.field_id in types]
    return pm.DataFile.from_args(
        content=pm.DataFileContent.DATA,
        file_path=file.path,
        file_format=pm.FileFormat.PARQUET,
        partition=Record(),
        record_count=file.rows,
        file_size_in_bytes=file.size_bytes,
        column_sizes={one.field_id: one.size_bytes for one in known},
        value_counts={one.field_id: one.values for one in known},
        null_value_counts={one.field_id: one.nulls for one in known},
        nan_value_counts={
            one.field_id: one.nans for one in known if types[one.field_id] in ("float", "double")
        },
        lower_bounds={
            one.field_id: bound_bytes(types[one.field_id], one.lower)
            for one in known
            if one.lower is not None
        },
        upper_bounds={
            one.field_id: bound_bytes(types[one.field_id], one.upper)
            for one in known
            if one.upper is not None
        },
        sort_order_id=0,
    )


def _manifest_file(folder: str, manifest: Manifest) -> pm.ManifestFile:
    import pyiceberg.manifest as pm

    return pm.ManifestFile.from_args(
        manifest_path=f"{folder}/{manifest.path}",
        manifest_length=manifest.length,
        partition_spec_id=0,
        content=pm.ManifestContent.DATA,
        sequence_number=manifest.sequence_number,
        min_sequence_number=manifest.min_sequence_number,
        added_snapshot_id=manifest.snapshot_id,
        added_files_count=manifest.added[0],
        existing_files_count=manifest.existing[0],
        deleted_files_count=manifest.deleted[0],
        added_rows_count=manifest.added[1],
        existing_rows_count=manifest.existing[1],
        deleted_rows_count=manifest.deleted[1],
        partitions=[],
        key_metadata=None,
    )


def _memory() -> Any:  # an OutputFile whose class can only be made once pyiceberg is imported
    from pyiceberg.io import InputFile, OutputFile, OutputStream

    class Kept(io.BytesIO):
        def close(self) -> None:
            """Keeps the bytes: pyiceberg closes a stream when it is complete."""

    class Memory(OutputFile):
        def __init__(self) -> None:
            super().__init__("memory")
            self.data = Kept()

        def __len__(self) -> int:
            return len(self.data.getvalue())

        def exists(self) -> bool:
            return False

        def to_input_file(self) -> InputFile:
            raise NotImplementedError

        def create(self, overwrite: bool = False) -> OutputStream:
            return self.data

    return Memory()


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
