"""What one side of a merge did to rows, where the other changed what a column may hold."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from instep.engines.duckdb import DuckDB
from instep.engines.engine import WrittenFile
from instep.engines.schema import Column
from instep.tables.columns import dropped
from instep.tables.content import TableContent
from instep.tables.merge import merge_rows
from instep.tables.read import data_files, schema_of
from instep.tables.write import append, create_table, data_folder, evolve, replace

AT = datetime(2026, 1, 1, tzinfo=UTC)


def _files(root: Path, table: TableContent, sql: str) -> tuple[WrittenFile, ...]:
    with DuckDB(root / "staging") as engine:
        return engine.write(sql, schema_of(root, table), data_folder(root, table))


_PAIR = (Column(0, "a", "int"), Column(0, "b", "int"))
_DEEP = Column(0, "t", "struct", children=_PAIR)
_NESTED = {
    "struct": (Column(0, "s", "struct", children=_PAIR), "s.b", "{{a: {a}, b: {b}}}"),
    "struct in a struct": (
        Column(0, "s", "struct", children=(Column(0, "c", "int"), _DEEP)),
        "s.t.b",
        "{{c: 0, t: {{a: {a}, b: {b}}}}}",
    ),
    "list": (
        Column(0, "s", "list", children=(Column(0, "element", "struct", children=_PAIR),)),
        "s.element.b",
        "[{{a: 0, b: NULL}}, {{a: {a}, b: {b}}}]",
    ),
    "map": (
        Column(
            0,
            "s",
            "map",
            children=(
                Column(0, "key", "string", required=True),
                Column(0, "value", "struct", children=_PAIR),
            ),
        ),
        "s.value.b",
        "map {{'one': {{a: {a}, b: {b}}}}}",
    ),
}
"""A column of pairs (a, b), the path of b in it, and SQL of a value with one pair."""


@pytest.mark.parametrize("key", [[], ["k"]], ids=["keyless", "keyed"])
@pytest.mark.parametrize(("column", "path", "value"), _NESTED.values(), ids=list(_NESTED))
def test_values_in_a_field_that_the_other_side_dropped_are_a_conflict(
    tmp_path: Path, column: Column, path: str, value: str, key: list[str]
) -> None:
    def with_row(table: TableContent, k: int, a: int, b: int | None) -> TableContent:
        row = value.format(a=a, b="NULL::INTEGER" if b is None else b)
        return append(root, table, _files(root, table, f"SELECT {k}::BIGINT k, {row} s"), at=AT)

    root = tmp_path
    base = create_table(root, "t", (Column(0, "k", "long"), column), at=AT)
    first = with_row(base, 1, 1, 1)
    old = [file.path for file in data_files(root, first)]
    fewer = evolve(root, first, lambda schema, _: dropped(schema, path), at=AT)

    def instead(a: int, b: int | None) -> TableContent:
        row = value.format(a=a, b="NULL::INTEGER" if b is None else b)
        files = _files(root, first, f"SELECT 1::BIGINT k, {row} s")
        return replace(root, first, files, old, at=AT)

    for quiet in (with_row(first, 2, 5, None), instead(7, 1), instead(1, None)):
        for ours, theirs in ((fewer, quiet), (quiet, fewer)):
            merged = merge_rows(root, first, ours, theirs, key, at=AT)
            assert merged.definition == ()
    for loud in (with_row(first, 2, 5, 99), instead(1, 99), instead(7, 99)):
        for ours, theirs, told in (
            (fewer, loud, ("dropped", "changed in 1 rows")),
            (loud, fewer, ("changed in 1 rows", "dropped")),
        ):
            merged = merge_rows(root, first, ours, theirs, key, at=AT)
            assert merged.content is None
            found = [(one.what, one.ours, one.theirs) for one in merged.definition]
            assert found == [(f'column "{path}"', *told)]


def test_of_two_fields_that_one_side_dropped_only_the_one_with_new_values_is_a_conflict(
    tmp_path: Path,
) -> None:
    within = (*_PAIR, Column(0, "c", "int", initial_default="5", write_default="5"))
    columns = (Column(0, "k", "long"), Column(0, "s", "struct", children=within))
    base = create_table(tmp_path, "t", columns, at=AT)
    old = _files(tmp_path, base, "SELECT 1::BIGINT k, {a: 1, b: 2, c: 3} s")
    base = append(tmp_path, base, old, at=AT)
    fewer = evolve(tmp_path, base, lambda schema, _: dropped(dropped(schema, "s.b"), "s.c"), at=AT)
    changed = _files(tmp_path, base, "SELECT 1::BIGINT k, {a: 1, b: 9, c: 3} s")
    theirs = replace(tmp_path, base, changed, [file.path for file in old], at=AT)
    merged = merge_rows(tmp_path, base, fewer, theirs, ["k"], at=AT)
    assert [one.what for one in merged.definition] == ['column "s.b"']
