"""Answers how a table is defined when two states of it become one: all of it that is no row.

That is its columns and their order, which of them identify a row, how new files are partitioned
and sorted, and its properties. What comes from theirs is put into the metadata of ours under
numbers that are free there: both sides count their specs and orders on from the same, so one number
may mean two things. Files that are there keep the spec that they were written under.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import replace as renamed
from typing import TypeVar

from instep.engines.layout import PartitionField
from instep.engines.schema import Schema
from instep.tables.columns import check_columns, current_schema
from instep.tables.definition import (
    Sort,
    identifiers_text,
    partition_text,
    partitioning,
    sort_order,
    sort_text,
)
from instep.tables.iceberg import Metadata, with_schema
from instep.tables.merge_columns import Dropped, merge_columns
from instep.tables.merge_rule import Rule
from instep.tables.partition import Spec, spec_json
from instep.tables.specs import specs_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MergedDefinition:
    """The metadata of ours with the merged definition; the rest is as in `MergedColumns`."""

    metadata: Metadata
    schema: Schema
    dropped: tuple[Dropped, ...]
    kept: tuple[Dropped, ...]


def merge_definition(
    base: Metadata, ours: Metadata, theirs: Metadata, rule: Rule, at_ms: int
) -> MergedDefinition:
    """Returns the three-way merge; it counts only if the rule has no open conflict then.

    Raises:
        InvalidError (kind "repeated-column"): fields within columns would share a name.
    """
    states = (base, ours, theirs)
    first, second, third = (current_schema(one) for one in states)
    columns = merge_columns(first, second, third, rule)
    names = {field.id: field.name for one in (first, second, third) for field in one.fields()}
    whole = {column.id for column in columns.schema.columns}
    every = {field.id for field in columns.schema.fields()}
    identifiers = rule.merged(
        "identifier columns",
        *_three(states, _identifiers, lambda ids: identifiers_text(ids, names)),
        lambda ids: _with_identifiers(columns.schema, ids).identifiers == ids,
    )
    schema = _with_identifiers(columns.schema, identifiers)
    partition = rule.merged(
        "partitioning",
        *_three(states, partitioning, lambda one: partition_text(one, names)),
        lambda fields: {source for source, _, _ in fields} <= whole,
    )
    sort = rule.merged(
        "sort order",
        *_three(states, sort_order, lambda one: sort_text(one, names)),
        lambda fields: {int(one["source-id"]) for one in fields} <= every,
    )
    properties = {
        name: value
        for name in sorted({name for one in states for name in one["properties"]})
        if (value := _property(rule, states, name)) is not None
    }
    after = ours
    if not rule.open:
        check_columns(schema)
        after = ours if schema == second else with_schema(ours, schema, at_ms)
        if partition != partitioning(ours):
            after = _with_spec(after, _default_spec(theirs).fields)
        if sort != sort_order(ours):
            after = _with_sort(after, sort)
        if properties != ours["properties"]:
            after = {**after, "properties": properties}
    if after != ours:
        after = {**after, "last-updated-ms": max(at_ms, ours["last-updated-ms"])}
    return MergedDefinition(after, schema, columns.dropped, columns.kept)


def _three(
    states: Sequence[Metadata], value: Callable[[Metadata], T], text: Callable[[T], str]
) -> tuple[tuple[T, T, T], tuple[str, str, str]]:
    base, ours, theirs = (value(one) for one in states)
    return (base, ours, theirs), (text(base), text(ours), text(theirs))


def _property(rule: Rule, states: Sequence[Metadata], name: str) -> str | None:
    def value(metadata: Metadata) -> str | None:
        found: str | None = metadata["properties"].get(name)
        return found

    def text(found: str | None) -> str:
        return "none" if found is None else found

    return rule.merged(f'property "{name}"', *_three(states, value, text))


def _identifiers(metadata: Metadata) -> tuple[int, ...]:
    return current_schema(metadata).identifiers


def _with_identifiers(schema: Schema, ids: tuple[int, ...]) -> Schema:
    """Returns a schema with those of the identifiers that it can have."""
    return renamed(schema, identifiers=ids).with_columns(schema.columns)


def _default_spec(metadata: Metadata) -> Spec:
    return specs_of(metadata)[metadata["default-spec-id"]]


def _with_spec(metadata: Metadata, fields: Sequence[PartitionField]) -> Metadata:
    """Returns metadata whose new files have the partition `fields` of another branch.

    A field that the table has already keeps its id here; another one brings its own if that is
    free, so that files of both branches can stand side by side.
    """
    specs = specs_of(metadata)
    ids = {(f.source_id, f.transform): f.field_id for one in specs.values() for f in one.fields}
    last = max([metadata["last-partition-id"], *ids.values()])
    for field in fields:
        place = field.source_id, field.transform
        if place not in ids:
            is_free = field.field_id > metadata["last-partition-id"]
            ids[place] = field.field_id if is_free else last + 1
            last = max(last, ids[place])
    numbered = tuple(
        renamed(field, field_id=ids[field.source_id, field.transform]) for field in fields
    )
    spec = next((one for one in specs.values() if _alike(one.fields, numbered)), None)
    made = spec or Spec(max(specs) + 1, numbered)
    return {
        **metadata,
        "default-spec-id": made.id,
        "partition-specs": [
            *metadata["partition-specs"],
            *([] if spec else [spec_json(made)]),
        ],
        "last-partition-id": last,
    }


def _alike(one: Sequence[PartitionField], two: Sequence[PartitionField]) -> bool:
    """Whether fields are the same but for the type of their column, which may have been widened."""
    return [renamed(field, kind="") for field in one] == [renamed(field, kind="") for field in two]


def _with_sort(metadata: Metadata, fields: Sort) -> Metadata:
    """Returns metadata whose new files are sorted by `fields`; order 0 is that without any."""
    orders = metadata["sort-orders"]
    known = [one["order-id"] for one in orders if one["fields"] == fields]
    new = max(one["order-id"] for one in orders) + 1 if fields else 0
    made = {"order-id": new, "fields": fields}
    return {
        **metadata,
        "default-sort-order-id": known[0] if known else new,
        "sort-orders": [*orders, *([] if known else [made])],
    }
