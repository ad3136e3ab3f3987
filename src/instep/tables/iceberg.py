"""Iceberg's table metadata as JSON, and the JSON copy of a manifest list.

Pure: nothing here reads or writes a file, and pyiceberg is not imported: that alone costs 0.6 s a
command (decision 0010). Format version 2,
or 3 once a column has a default (decision 0023). Source: https://iceberg.apache.org/spec/.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from instep.engines.schema import Schema
from instep.tables.columns import schema_json
from instep.tables.copies import encode
from instep.tables.manifest import Manifest
from instep.tables.partition import (
    FIRST_FIELD_ID,
    SortOrder,
    Spec,
    order_json,
    spec_json,
)
from instep.tables.specs import kept_schemas

KEPT_SNAPSHOTS = 10
"""How many snapshots metadata keeps, for tools that travel in time; history knows the others."""


Metadata = dict[str, Any]
"""Iceberg's table metadata, as its JSON."""


def new_metadata(
    table_uuid: str, location: str, schema: Schema, spec: Spec, order: SortOrder, at_ms: int
) -> Metadata:
    """Returns the metadata of a table without rows."""
    return {
        **_format(schema, {}),
        "table-uuid": table_uuid,
        "location": location,
        "last-sequence-number": 0,
        "last-updated-ms": at_ms,
        "last-column-id": max((column.id for column in schema.fields()), default=0),
        "current-schema-id": 0,
        "schemas": [schema_json(schema, 0)],
        "default-spec-id": 0,
        "partition-specs": [spec_json(spec)],
        "last-partition-id": _last_field_id([spec]),
        "default-sort-order-id": order.id,
        "sort-orders": _orders_json(order),
        "properties": {},
        "current-snapshot-id": -1,
        "refs": {},
        "snapshots": [],
        "snapshot-log": [],
        "metadata-log": [],
    }


def with_schema(metadata: Metadata, schema: Schema, at_ms: int) -> Metadata:
    """Returns metadata whose current schema is `schema`; older ones stay where they are of use."""
    schema_id = max(one["schema-id"] for one in metadata["schemas"]) + 1
    after = {
        **metadata,
        **_format(schema, metadata),
        "last-updated-ms": max(at_ms, metadata["last-updated-ms"]),
        "last-column-id": max(
            metadata["last-column-id"], *(column.id for column in schema.fields())
        ),
        "current-schema-id": schema_id,
        "schemas": [*metadata["schemas"], schema_json(schema, schema_id)],
    }
    return {**after, "schemas": kept_schemas(after)}


def with_layout(metadata: Metadata, spec: Spec, order: SortOrder, at_ms: int) -> Metadata:
    """Returns metadata whose new files are partitioned by `spec` and sorted by `order`."""
    specs = [one for one in metadata["partition-specs"] if one["spec-id"] != spec.id]
    orders = [one for one in metadata["sort-orders"] if one["order-id"] not in (0, order.id)]
    return {
        **metadata,
        "last-updated-ms": max(at_ms, metadata["last-updated-ms"]),
        "default-spec-id": spec.id,
        "partition-specs": [*specs, spec_json(spec)],
        "last-partition-id": max(metadata["last-partition-id"], _last_field_id([spec])),
        "default-sort-order-id": order.id,
        "sort-orders": [*orders, *_orders_json(order)],
    }


def with_snapshot(metadata: Metadata, snapshot: Metadata) -> Metadata:
    """Returns metadata whose current snapshot is `snapshot`; only the newest ones are kept."""
    numbered = {}
    if metadata["format-version"] == 3:
        first, rows = metadata["next-row-id"], int(snapshot["summary"]["added-records"])
        snapshot = {**snapshot, "first-row-id": first, "added-rows": rows}
        numbered = {"next-row-id": first + rows}
    snapshots = [*metadata["snapshots"], snapshot][-KEPT_SNAPSHOTS:]
    kept = {one["snapshot-id"] for one in snapshots}
    logged = {"snapshot-id": snapshot["snapshot-id"], "timestamp-ms": snapshot["timestamp-ms"]}
    after = {
        **metadata,
        **numbered,
        "last-sequence-number": snapshot["sequence-number"],
        "last-updated-ms": snapshot["timestamp-ms"],
        "current-snapshot-id": snapshot["snapshot-id"],
        "refs": {"main": {"snapshot-id": snapshot["snapshot-id"], "type": "branch"}},
        "snapshots": snapshots,
        "snapshot-log": [
            *(one for one in metadata["snapshot-log"] if one["snapshot-id"] in kept),
            logged,
        ],
    }
    return {**after, "schemas": kept_schemas(after)}


def with_current_alone(metadata: Metadata) -> Metadata:
    """Returns metadata that knows no snapshot but the current one, which has no parent."""
    (snapshot,) = (
        one
        for one in metadata["snapshots"]
        if one["snapshot-id"] == metadata["current-snapshot-id"]
    )
    identifier = snapshot["snapshot-id"]
    return {
        **metadata,
        "snapshots": [{k: v for k, v in snapshot.items() if k != "parent-snapshot-id"}],
        "snapshot-log": [
            one for one in metadata["snapshot-log"] if one["snapshot-id"] == identifier
        ],
        "metadata-log": [],
    }


def listing_bytes(manifests: Sequence[Manifest]) -> bytes:
    """Returns the JSON copy of a manifest list, which `read.load_manifests` reads."""
    return b'{"manifests":[' + b",".join([_manifest_json(one) for one in manifests]) + b"]}"


def _format(schema: Schema, before: Metadata) -> Metadata:
    """The format version: 3 for a table with defaults, and for one that was 3 already."""
    has_defaults = any(
        field.initial_default is not None or field.write_default is not None
        for field in schema.fields()
    )
    if not has_defaults and before.get("format-version", 2) == 2:
        return {"format-version": 2}
    return {"format-version": 3, "next-row-id": before.get("next-row-id", 0)}


def _last_field_id(specs: Sequence[Spec]) -> int:
    ids = [field.field_id for spec in specs for field in spec.fields]
    return max(ids, default=FIRST_FIELD_ID - 1)


def _orders_json(order: SortOrder) -> list[dict[str, object]]:
    """Order 0 is that of tables without one, and is always listed."""
    none = {"order-id": 0, "fields": []}
    return [none, order_json(order)] if order.id else [none]


@lru_cache(maxsize=4096)  # as above
def _manifest_json(manifest: Manifest) -> bytes:
    return encode(
        {
            "path": manifest.path,
            "length": manifest.length,
            "path-digest": manifest.path_digest,
            "sequence": manifest.sequence_number,
            "min-sequence": manifest.min_sequence_number,
            "snapshot": manifest.snapshot_id,
            "added": manifest.added,
            "existing": manifest.existing,
            "deleted": manifest.deleted,
            "entries": manifest.entries,
            "digest": manifest.digest,
            "head": manifest.head,
            "live": manifest.live_files,
            "block": manifest.block,
            "spec": manifest.spec_id,
            "deletes": manifest.holds_deletes,
            "bounds": manifest.bounds,
            "partitions": [
                [one.contains_null, one.contains_nan, one.lower, one.upper]
                for one in manifest.partitions
            ],
        }
    )
