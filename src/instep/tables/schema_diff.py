"""Answers how two states of a table differ in all that is no row: columns, and how it is defined.

What a merge counts as a change is told here, in the same words (`tables.merge_definition`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from instep.canonical import Json
from instep.engines.schema import Column
from instep.tables.columns import current_schema
from instep.tables.definition import (
    identifiers_text,
    part_of_column,
    partition_text,
    partitioning,
    sort_order,
    sort_text,
    text_of,
)
from instep.tables.iceberg import Metadata

_TOLD_APART = frozenset({"name", "type", "required"})
"""Parts of a column of the table that have their own place in a `SchemaDiff`."""


@dataclass(frozen=True, slots=True)
class DefinitionChange:
    """One part of a definition that differs, as 'doc of column "day"'; texts say what it was."""

    what: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.what}: {self.before} becomes {self.after}"


@dataclass(frozen=True, slots=True)
class SchemaDiff:
    """Columns that differ; pairs are (before, after) of one field id.

    `definition` has what else differs: fields within columns, docs, defaults, the order of columns,
    which of them identify a row, partitioning, sort order and properties.
    """

    added: tuple[Column, ...] = ()
    removed: tuple[Column, ...] = ()
    renamed: tuple[tuple[Column, Column], ...] = ()
    retyped: tuple[tuple[Column, Column], ...] = ()
    definition: tuple[DefinitionChange, ...] = ()

    @property
    def is_empty(self) -> bool:
        return self == SchemaDiff()

    @property
    def made_anew(self) -> tuple[tuple[Column, Column], ...]:
        """Columns that went while another of their name came, as (before, after)."""
        came = {column.name: column for column in self.added}
        return tuple((old, came[old.name]) for old in self.removed if old.name in came)

    def to_json(self) -> dict[str, Json]:
        return {
            "added": [{"name": one.name, "type": one.full_type} for one in self.added],
            "removed": [{"name": one.name, "type": one.full_type} for one in self.removed],
            "renamed": [{"before": old.name, "after": new.name} for old, new in self.renamed],
            "retyped": [
                {"name": new.name, "before": _typed(old), "after": _typed(new)}
                for old, new in self.retyped
            ],
            "definition": [
                {"what": one.what, "before": one.before, "after": one.after}
                for one in self.definition
            ],
        }

    def sentences(self) -> list[str]:
        """Returns a sentence for each difference."""
        anew = {old.name: (old, new) for old, new in self.made_anew}
        found = [
            f"column {column.name} {column.type} is new"
            for column in self.added
            if column.name not in anew
        ]
        found += [f"column {one.name} is gone" for one in self.removed if one.name not in anew]
        found += [
            f"column {name}: {_typed(old)} becomes {_typed(new)}, as another column"
            for name, (old, new) in anew.items()
        ]
        found += [f"column {old.name} is now called {new.name}" for old, new in self.renamed]
        found += [
            f"column {new.name}: {_typed(old)} becomes {_typed(new)}" for old, new in self.retyped
        ]
        return [*found, *map(str, self.definition)]


def diff_schema(before: Metadata | None, after: Metadata | None) -> SchemaDiff:
    """Returns how two states of one table differ, by field id; None is a table that is not there.

    A table that is not there has no columns, and nothing else of it is compared.
    """
    first, second = (current_schema(one).columns if one else () for one in (before, after))
    old = {column.id: column for column in first}
    new = {column.id: column for column in second}
    both = [(old[field_id], new[field_id]) for field_id in new if field_id in old]
    return SchemaDiff(
        added=tuple(column for field_id, column in new.items() if field_id not in old),
        removed=tuple(column for field_id, column in old.items() if field_id not in new),
        renamed=tuple((one, two) for one, two in both if one.name != two.name),
        retyped=tuple(
            (one, two) for one, two in both if (one.type, one.required) != (two.type, two.required)
        ),
        definition=tuple(_definition(before, after)) if before and after else (),
    )


def _definition(before: Metadata, after: Metadata) -> Iterator[DefinitionChange]:
    states = before, after
    schemas = [current_schema(one) for one in states]
    names = [{field.id: field.name for field in schema.fields()} for schema in schemas]
    yield from _level("", *(schema.columns for schema in schemas))
    if schemas[0].identifiers != schemas[1].identifiers:
        told = map(identifiers_text, (schema.identifiers for schema in schemas), names)
        yield DefinitionChange("identifier columns", *told)
    partitions, sorts = [partitioning(one) for one in states], [sort_order(one) for one in states]
    if partitions[0] != partitions[1]:
        yield DefinitionChange("partitioning", *map(partition_text, partitions, names))
    if sorts[0] != sorts[1]:
        yield DefinitionChange("sort order", *map(sort_text, sorts, names))
    for name in sorted({*before["properties"], *after["properties"]}):
        values = [one["properties"].get(name) for one in states]
        if values[0] != values[1]:
            yield DefinitionChange(f'property "{name}"', *map(text_of, values))


def _level(
    path: str, before: Sequence[Column], after: Sequence[Column]
) -> Iterator[DefinitionChange]:
    """What differs in the columns of a table, or in the fields of the column at `path`."""
    old, new = ({column.id: column for column in side} for side in (before, after))
    for field_id in dict.fromkeys([*old, *new]):
        was, now = old.get(field_id), new.get(field_id)
        if was is not None and now is not None:
            yield from _column(path, was, now)
        elif path:
            name = next(one.name for one in (was, now) if one is not None)
            texts = ("absent" if one is None else _typed(one) for one in (was, now))
            yield DefinitionChange(f'column "{path}{name}"', *texts)
    orders = [
        [field_id for field_id in side if field_id in old and field_id in new]
        for side in (old, new)
    ]
    if orders[0] != orders[1]:
        what = f'order of fields in "{path[:-1]}"' if path else "order of columns"
        listed = (", ".join(new[field_id].name for field_id in order) for order in orders)
        yield DefinitionChange(what, *listed)


def _column(path: str, was: Column, now: Column) -> Iterator[DefinitionChange]:
    """What differs in one column, named as it was called before."""
    here = f"{path}{was.name}"
    for part in (each.name for each in fields(Column)):
        before, after = getattr(was, part), getattr(now, part)
        if part == "children" or before == after or (not path and part in _TOLD_APART):
            continue
        yield DefinitionChange(part_of_column(part, here), text_of(before), text_of(after))
    yield from _level(f"{here}.", was.children, now.children)


def _typed(column: Column) -> str:
    return f"{column.full_type} required" if column.required else column.full_type
