"""Answers which partition specs and sort orders Iceberg metadata has, and which schemas it keeps.

A spec names its columns by field id alone, so what type its values have is told by a schema that
has the column. Such a schema is kept as long as the spec is: files of it may be there long after
the column went, and nobody could write their manifest again without the type.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from instep.engines.layout import PartitionField, SortField
from instep.tables.partition import SortOrder, Spec

Metadata = dict[str, Any]  # Iceberg's JSON

_UNKNOWN = "string"
"""The type of a column that no schema has: any value can be told as text."""


def specs_of(metadata: Metadata) -> dict[int, Spec]:
    """Returns the partition specs inside Iceberg metadata, by id, with the types of now."""
    specs = metadata["partition-specs"]
    kinds: dict[int, str] = {}
    if any(one["fields"] for one in specs):
        for schema in _oldest_first(metadata):
            kinds.update(_types(schema))
    return {
        one["spec-id"]: Spec(
            one["spec-id"],
            tuple(
                PartitionField(
                    f["source-id"], f["field-id"], f["name"], f["transform"],
                    kinds.get(f["source-id"], _UNKNOWN),
                )
                for f in one["fields"]
            ),
        )
        for one in specs
    }  # fmt: skip


def orders_of(metadata: Metadata) -> dict[int, SortOrder]:
    """Returns the sort orders inside Iceberg metadata, by id."""
    return {
        one["order-id"]: SortOrder(
            one["order-id"],
            tuple(
                SortField(
                    f["source-id"], f["direction"] == "desc", f["null-order"] == "nulls-first"
                )
                for f in one["fields"]
            ),
        )
        for one in metadata["sort-orders"]
    }


def kept_schemas(metadata: Metadata) -> list[Metadata]:
    """Returns the schemas that are of use: the current one, those of snapshots, those of specs."""
    kept = {metadata["current-schema-id"], *(one.get("schema-id") for one in metadata["snapshots"])}
    sources = {f["source-id"] for one in metadata["partition-specs"] for f in one["fields"]}
    newest: dict[int, int] = {}
    for schema in _oldest_first(metadata) if sources else ():
        newest.update((one, schema["schema-id"]) for one, _ in _types(schema) if one in sources)
    kept.update(newest.values())
    return [one for one in metadata["schemas"] if one["schema-id"] in kept]


def _oldest_first(metadata: Metadata) -> list[Metadata]:
    """The current schema is the newest, whatever its number: others may take up an old one."""
    current = metadata["current-schema-id"]
    return sorted(
        metadata["schemas"], key=lambda one: (one["schema-id"] == current, one["schema-id"])
    )


def _types(struct: Metadata) -> Iterator[tuple[int, str]]:
    """Yields the fields that a spec can be of: those of structs too, but not of lists and maps."""
    for field in struct["fields"]:
        if isinstance(field["type"], str):
            yield field["id"], field["type"].replace(", ", ",")
        elif field["type"]["type"] == "struct":
            yield from _types(field["type"])
