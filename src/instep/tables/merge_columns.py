"""Answers which columns a table has when two states of it, with a common one before, become one.

Columns are compared by field id, each property by itself, and so are the fields within them; then
the order of those that all three have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from instep.engines.schema import Column, Schema
from instep.tables.columns import is_promotion
from instep.tables.definition import part_of_column, text_of
from instep.tables.merge_rule import Rule
from instep.tables.row_merge import DefinitionConflict

Level = tuple[Column, ...]
"""The columns of a table, or the fields of one column."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A column, or a field within one, that one side dropped, as the other still has it."""

    path: str
    column: Column
    base: Column
    by_ours: bool


@dataclass(frozen=True, slots=True)
class MergedColumns:
    """The columns of both sides; `dropped` is what one of them dropped and is gone.

    `kept` is what one dropped and stays, since the conflict with the other was settled so.
    """

    schema: Schema
    dropped: tuple[Dropped, ...]
    kept: tuple[Dropped, ...]


def merge_columns(base: Schema, ours: Schema, theirs: Schema, rule: Rule) -> MergedColumns:
    """Returns the three-way merge of columns.

    Of two orders one is taken whole; what only the other side has comes behind what it follows
    there, or last.
    """
    dropped: list[Dropped] = []
    columns = _level(rule, "", (base.columns, ours.columns, theirs.columns), dropped)
    schema = Schema(columns)
    stays = {field.id for field in schema.fields()}
    gone, kept = (
        [one for one in dropped if (one.column.id in stays) == is_kept] for is_kept in (False, True)
    )
    return MergedColumns(schema, tuple(gone), tuple(kept))


def _level(
    rule: Rule, path: str, sides: tuple[Level, Level, Level], dropped: list[Dropped]
) -> Level:
    before, own, other = ({column.id: column for column in side} for side in sides)
    found: dict[int, Column] = {}
    for field_id in dict.fromkeys([*own, *other]):
        was, mine, yours = (side.get(field_id) for side in (before, own, other))
        if mine is not None and yours is not None:
            found[field_id] = _merged(rule, path, (was, mine, yours), dropped)
            continue
        (kept,) = (column for column in (mine, yours) if column is not None)
        what = f'column "{path}{kept.name}"'
        texts = (_said(was), _said(mine), _said(yours))
        one: Column | None = kept
        if was is not None:
            dropped.append(Dropped(f"{path}{kept.name}", kept, was, mine is None))
            one = rule.merged(what, (was, mine, yours), texts)
        if one is not None:
            found[field_id] = one
    merged = [found[field_id] for field_id in _ordered(rule, path, sides, found)]
    _find_same_names(rule, path, merged, own.keys() - other.keys())
    if own and not merged:
        first, second, third = (", ".join(column.name for column in side) for side in sides)
        what = f'fields of "{path[:-1]}"' if path else "columns"
        rule.open.append(DefinitionConflict(what, first, second, third, by_side=False))
    return tuple(merged)


def _merged(
    rule: Rule,
    path: str,
    states: tuple[Column | None, Column, Column],
    dropped: list[Dropped],
) -> Column:
    """One column of both sides, property by property."""
    was, mine, yours = states
    taken: dict[str, Any] = {}  # whatever properties a column has

    def is_read(kind: Any) -> bool:  # the type of a column, if it is that
        return all(is_promotion(column.type, kind) for column in (mine, yours))

    for each in fields(Column):
        if each.name == "children":
            continue
        before, own, other = (getattr(column, each.name, None) for column in (was, mine, yours))
        what = part_of_column(each.name, f"{path}{(was or mine).name}")
        texts = (text_of(before), text_of(own), text_of(other))
        fits = is_read if each.name == "type" else lambda value: True
        taken[each.name] = rule.merged(what, (before, own, other), texts, fits)
    within = (was.children if was else (), mine.children, yours.children)
    return Column(**taken, children=_level(rule, f"{path}{taken['name']}.", within, dropped))


def _ordered(
    rule: Rule, path: str, sides: tuple[Level, Level, Level], found: dict[int, Column]
) -> list[int]:
    """Returns the ids of a level in their order: that of one side, with the other's new ones."""
    before, own, other = ([column.id for column in side if column.id in found] for side in sides)
    common = {*before} & {*own} & {*other}
    base, mine, yours = (
        tuple(field_id for field_id in ids if field_id in common) for ids in (before, own, other)
    )
    named = (", ".join(found[field_id].name for field_id in ids) for ids in (base, mine, yours))
    what = f'order of fields in "{path[:-1]}"' if path else "order of columns"
    first, second, third = named
    taken = rule.merged(what, (base, mine, yours), (first, second, third))
    return _woven(own, other) if taken == mine else _woven(other, own)


def _woven(lead: Sequence[int], other: Sequence[int]) -> list[int]:
    """Puts what only `other` has behind what it follows there; what stands at its end, last."""
    placed = list(lead)
    last = max((n for n, field_id in enumerate(other) if field_id in placed), default=-1)
    for n, field_id in enumerate(other):
        if field_id not in placed:
            after = placed.index(other[n - 1]) + 1 if n else 0
            placed.insert(len(placed) if n > last else after, field_id)
    return placed


def _find_same_names(rule: Rule, path: str, merged: Iterable[Column], own: set[int]) -> None:
    """Two columns under one name: each side has one of them, so neither could see it."""
    first: dict[str, Column] = {}
    for column in merged:
        before = first.setdefault(column.name.lower(), column)
        if before is not column:
            ours, theirs = sorted((before, column), key=lambda one: one.id not in own)
            what = f'column "{path}{column.name}"'
            rule.open.append(
                DefinitionConflict(what, _said(None), _said(ours), _said(theirs), by_side=False)
            )


def _said(column: Column | None) -> str:
    if column is None:
        return "absent"
    required = " required" if column.required else ""
    return f'"{column.name}" {column.full_type}{required} (field {column.id})'
