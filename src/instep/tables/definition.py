"""Answers how a table is defined besides its columns, and how people are told of that.

Partitioning is told by what it means, column, transform and name, whatever a branch numbered it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from instep.tables.iceberg import Metadata
from instep.tables.specs import specs_of

Partition = tuple[tuple[int, str, str], ...]
"""What partition fields mean: column, transform and name."""

Sort = list[dict[str, Any]]  # JSON of any shape
"""The fields of a sort order as Iceberg's JSON."""


def partitioning(metadata: Metadata) -> Partition:
    """Returns the partition fields of new files."""
    spec = specs_of(metadata)[metadata["default-spec-id"]]
    return tuple((f.source_id, f.transform, f.name) for f in spec.fields)


def sort_order(metadata: Metadata) -> Sort:
    """Returns the sort order of new files."""
    wanted = metadata["default-sort-order-id"]
    found: Sort = next(
        one["fields"] for one in metadata["sort-orders"] if one["order-id"] == wanted
    )
    return found


def identifiers_text(ids: Sequence[int], names: Mapping[int, str]) -> str:
    """Returns the columns that identify a row as "day, k", by the names of columns by field id."""
    return ", ".join(names.get(one, "?") for one in ids) or "none"


def partition_text(fields: Partition, names: Mapping[int, str]) -> str:
    """Returns partition fields as "month(day), k", by the names of columns by field id."""
    told = (_transformed(transform, names.get(source, "?")) for source, transform, _ in fields)
    return ", ".join(told) or "none"


def sort_text(fields: Sort, names: Mapping[int, str]) -> str:
    """Returns a sort order as "day desc nulls-last", by the names of columns by field id."""
    told = (
        f"{_transformed(one['transform'], names.get(int(one['source-id']), '?'))} "
        f"{one['direction']} {one['null-order']}"
        for one in fields
    )
    return ", ".join(told) or "none"


def part_of_column(part: str, path: str) -> str:
    """Returns what a field of the record `Column` is called to people: 'doc of column "day"'."""
    return f'{part.replace("_", " ")} of column "{path}"'


def text_of(value: object) -> str:
    """Returns the value of a part of a definition as people read it."""
    return "none" if value in (None, "") else str(value)


def _transformed(transform: str, name: str) -> str:
    return name if transform == "identity" else f"{transform}({name})"
