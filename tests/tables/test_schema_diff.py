"""What differs between two states of a table in all that is no row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from instep.engines.schema import Column, Schema
from instep.tables.columns import added, dropped, moved, promoted, renamed
from instep.tables.content import TableContent
from instep.tables.merge import merge_rows
from instep.tables.partition import Order, Part
from instep.tables.read import load_metadata
from instep.tables.schema_diff import SchemaDiff, diff_schema
from instep.tables.write import (
    create_table,
    evolve,
    redefined,
    rename_column,
    set_columns,
    set_layout,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = (Column(0, "k", "long"), Column(0, "v", "string"), Column(0, "d", "double"))
WITHIN = (Column(0, "a", "int"), Column(0, "b", "int"))
NESTED = (*COLUMNS, Column(0, "s", "struct", children=WITHIN))


def _diff(root: Path, before: TableContent, after: TableContent) -> SchemaDiff:
    return diff_schema(load_metadata(root, before), load_metadata(root, after))


def test_schemas_differ_by_field_id(tmp_path: Path) -> None:
    before = create_table(tmp_path, "t", COLUMNS, at=AT)
    renamed = rename_column(tmp_path, before, "v", "w", at=AT)
    after = set_columns(
        tmp_path,
        renamed,
        (Column(0, "k", "long"), Column(0, "w", "string"), Column(0, "new", "date")),
        at=AT,
    )

    found = _diff(tmp_path, before, after)

    assert [(old.name, new.name) for old, new in found.renamed] == [("v", "w")]
    assert [column.name for column in found.added] == ["new"]
    assert [column.name for column in found.removed] == ["d"]
    assert not found.retyped
    assert found.definition == ()
    assert _diff(tmp_path, after, after).is_empty


Change = Callable[[Path, TableContent], TableContent]


def _columns(change: Callable[[Schema], Schema]) -> Change:
    return lambda root, table: evolve(root, table, lambda schema, _: change(schema), at=AT)


def _with_field(root: Path, table: TableContent) -> TableContent:
    new = Column(0, "c", "int")
    return evolve(root, table, lambda schema, ids: added(schema, ids, new, parent="s"), at=AT)


def _with_owner(root: Path, table: TableContent) -> TableContent:
    return redefined(root, table, {**load_metadata(root, table), "properties": {"owner": "ana"}})


def _first_column(**parts: str) -> Change:
    def change(schema: Schema) -> Schema:
        (first, *others) = schema.columns
        doc, default = parts.get("doc", first.doc), parts.get("default", first.write_default)
        return Schema((replace(first, doc=doc, write_default=default), *others))

    return _columns(change)


CHANGES: dict[str, Change] = {
    "partitioning: none becomes bucket[4](k), v": lambda root, table: set_layout(
        root, table, [Part("k", "bucket[4]"), Part("v")], (), at=AT
    ),
    "sort order: none becomes d desc nulls-first": lambda root, table: set_layout(
        root, table, (), [Order("d", is_descending=True)], at=AT
    ),
    'property "owner": none becomes ana': _with_owner,
    'doc of column "k": none becomes the key': _first_column(doc="the key"),
    'write default of column "k": none becomes 7': _first_column(default="7"),
    "order of columns: k, v, d, s becomes d, k, v, s": _columns(
        lambda schema: moved(schema, "d", after="")
    ),
    'column "s.c": absent becomes int': _with_field,
    'column "s.b": int becomes absent': _columns(lambda schema: dropped(schema, "s.b")),
    'name of column "s.a": a becomes first': _columns(
        lambda schema: renamed(schema, "s.a", "first")
    ),
    'type of column "s.a": int becomes long': _columns(
        lambda schema: promoted(schema, "s.a", "long")
    ),
    'order of fields in "s": a, b becomes b, a': _columns(
        lambda schema: moved(schema, "s.b", after="")
    ),
}
"""What each change is told as."""


@pytest.mark.parametrize("told", list(CHANGES))
def test_each_part_of_a_definition_that_differs_is_told(tmp_path: Path, told: str) -> None:
    before = create_table(tmp_path, "t", NESTED, at=AT)
    after = CHANGES[told](tmp_path, before)
    found = _diff(tmp_path, before, after)
    assert found.sentences() == [told]
    (one,) = found.definition
    expected = {"what": one.what, "before": one.before, "after": one.after}
    assert found.to_json()["definition"] == [expected]
    assert not found.is_empty
    assert _diff(tmp_path, after, after).is_empty


def test_what_both_sides_of_a_merge_changed_is_told_in_the_words_of_the_conflict(
    tmp_path: Path,
) -> None:
    base = create_table(tmp_path, "t", NESTED, at=AT)
    ours, theirs = (
        set_layout(tmp_path, _first_column(doc=doc)(tmp_path, base), [Part(doc)], (), at=AT)
        for doc in ("k", "v")
    )
    conflicts = merge_rows(tmp_path, base, ours, theirs, ["k"], at=AT).definition
    for side, texts in (
        (ours, [(one.what, one.base, one.ours) for one in conflicts]),
        (theirs, [(one.what, one.base, one.theirs) for one in conflicts]),
    ):
        found = _diff(tmp_path, base, side).definition
        assert [(one.what, one.before, one.after) for one in found] == texts


def _identified(*ids: int) -> Change:
    return _columns(lambda schema: replace(schema, identifiers=ids))


def test_columns_that_identify_a_row_are_told_in_the_words_of_a_merge(tmp_path: Path) -> None:
    required = [replace(column, required=True) for column in COLUMNS]
    base = create_table(tmp_path, "t", required, at=AT)
    ours, theirs = (_identified(*ids)(tmp_path, base) for ids in ((1,), (1, 2)))
    found = _diff(tmp_path, base, ours)
    assert found.sentences() == ["identifier columns: none becomes k"]
    assert not found.is_empty
    expected = {"what": "identifier columns", "before": "none", "after": "k"}
    assert found.to_json()["definition"] == [expected]
    assert _diff(tmp_path, theirs, ours).sentences() == ["identifier columns: k, v becomes k"]
    renamed = rename_column(tmp_path, ours, "k", "key", at=AT)
    assert _diff(tmp_path, ours, renamed).definition == ()
    gone = _columns(lambda schema: dropped(schema, "v"))(tmp_path, theirs)
    assert _diff(tmp_path, theirs, gone).sentences() == [
        "column v is gone",
        "identifier columns: k, v becomes k",
    ]

    (conflict,) = merge_rows(tmp_path, base, ours, theirs, ["k"], at=AT).definition
    (one,), (other,) = (_diff(tmp_path, base, side).definition for side in (ours, theirs))
    assert (one.what, one.before, one.after) == (conflict.what, conflict.base, conflict.ours)
    assert (other.what, other.before, other.after) == (
        conflict.what,
        conflict.base,
        conflict.theirs,
    )


def test_a_column_that_is_required_now_is_told_with_its_type(tmp_path: Path) -> None:
    before = create_table(tmp_path, "t", COLUMNS, at=AT)

    def change(schema: Schema) -> Schema:
        return Schema((replace(schema.columns[0], required=True), *schema.columns[1:]))

    found = _diff(tmp_path, before, _columns(change)(tmp_path, before))
    assert found.sentences() == ["column k: long becomes long required"]


def test_a_table_that_was_not_there_has_new_columns_only(tmp_path: Path) -> None:
    after = _with_owner(tmp_path, create_table(tmp_path, "t", NESTED, at=AT))
    found = diff_schema(None, load_metadata(tmp_path, after))
    assert [column.name for column in found.added] == ["k", "v", "d", "s"]
    assert found.definition == ()
