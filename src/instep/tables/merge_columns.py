"""Answers which columns a table has when two states of it, with a common one before, become one.

Columns are compared by field id, each property by itself: what only one side changed is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from instep.canonical import Json
from instep.engines.schema import Column, Schema


@dataclass(frozen=True, slots=True)
class ColumnConflict:
    """One column that both sides changed, and not alike; texts say what each made of it."""

    column: str
    base: str
    ours: str
    theirs: str

    def to_json(self) -> dict[str, Json]:
        return {
            "column": self.column,
            "base": self.base,
            "ours": self.ours,
            "theirs": self.theirs,
        }

    def __str__(self) -> str:
        return f'column "{self.column}": {self.base}; ours: {self.ours}; theirs: {self.theirs}'


@dataclass(frozen=True, slots=True)
class MergedColumns:
    """The columns of both sides; what `dropped` holds, one side dropped and the other kept."""

    schema: Schema
    dropped: tuple[Column, ...]
    conflicts: tuple[ColumnConflict, ...]


def merge_columns(base: Schema, ours: Schema, theirs: Schema) -> MergedColumns:
    """Returns the three-way merge of columns: ours in their order, then what only theirs added."""
    sides = [{column.id: column for column in schema.columns} for schema in (base, ours, theirs)]
    before, own, other = sides
    conflicts: list[ColumnConflict] = []
    merged: list[Column] = []
    dropped: list[Column] = []
    for field_id in dict.fromkeys([*own, *other, *before]):
        found = [side.get(field_id) for side in sides]
        was, mine, yours = found
        if was is not None and (mine is None or yours is None):
            kept = mine or yours
            if kept is not None:
                dropped.append(kept)
                if kept != was:
                    conflicts.append(_conflict(was.name, found))
        elif was is None or mine is None or yours is None:
            merged += [column for column in (mine, yours) if column is not None]
        else:
            merged.append(_merged(was, mine, yours, conflicts))
    conflicts += _same_names(merged, own.keys(), other.keys())
    return MergedColumns(Schema(tuple(merged)), tuple(dropped), tuple(conflicts))


def _merged(was: Column, mine: Column, yours: Column, conflicts: list[ColumnConflict]) -> Column:
    """One column of both sides, property by property."""
    taken: dict[str, Any] = {}  # whatever properties a column has
    for each in fields(Column):
        before, own, other = (getattr(column, each.name) for column in (was, mine, yours))
        if own != other and before not in (own, other):
            conflicts.append(_conflict(was.name, [was, mine, yours]))
            return mine
        taken[each.name] = other if own == before else own
    return Column(**taken)


def _same_names(
    merged: Iterable[Column], own: Iterable[int], other: Iterable[int]
) -> list[ColumnConflict]:
    """Two columns under one name: each side has one of them, so neither could see it."""
    first: dict[str, Column] = {}
    conflicts = []
    mine, yours = set(own), set(other)
    for column in merged:
        before = first.setdefault(column.name.lower(), column)
        if before is not column:
            pair = sorted((before, column), key=lambda one: one.id not in mine - yours)
            conflicts.append(_conflict(column.name, [None, *pair]))
    return conflicts


def _conflict(name: str, found: list[Column | None]) -> ColumnConflict:
    base, ours, theirs = (_said(column) for column in found)
    return ColumnConflict(name, base, ours, theirs)


def _said(column: Column | None) -> str:
    if column is None:
        return "absent"
    required = " required" if column.required else ""
    return f'"{column.name}" {column.type}{required} (field {column.id})'
