"""What one side of a merge did to rows, where the other changed what a column may hold."""

from __future__ import annotations

from dataclasses import replace as with_parts
from datetime import UTC, datetime
from pathlib import Path

import pytest

from instep.engines.duckdb import DuckDB
from instep.engines.engine import WrittenFile
from instep.engines.schema import Column, Schema
from instep.tables.columns import added, dropped, paths, renamed
from instep.tables.content import TableContent
from instep.tables.merge import merge_rows
from instep.tables.read import data_files, file_set, schema_of
from instep.tables.row_merge import Resolution, RowMerge, Take
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


@pytest.mark.parametrize("key", [[], ["k"]], ids=["keyless", "keyed"])
@pytest.mark.parametrize("path", ["b", "s.b"])
def test_what_one_side_dropped_stays_only_where_its_files_have_all_values(
    tmp_path: Path, path: str, key: list[str]
) -> None:
    columns = (
        Column(0, "k", "long"),
        Column(0, "b", "string"),
        Column(0, "s", "struct", children=_PAIR),
    )
    base = create_table(tmp_path, "t", columns, at=AT)
    row = "SELECT {k}::BIGINT k, 'one' b, {{a: 1, b: 2}} s"
    old = _files(tmp_path, base, row.format(k=1))
    base = append(tmp_path, base, old, at=AT)
    called = evolve(tmp_path, base, lambda schema, _: renamed(schema, path, "now"), at=AT)
    fewer = evolve(tmp_path, base, lambda schema, _: dropped(schema, path), at=AT)
    names = "k, s" if path == "b" else "k, b, {a: s.a} s"
    select = "SELECT {names} FROM ({row})"
    new = _files(tmp_path, fewer, select.format(names=names, row=row.format(k=2)))
    appended = append(tmp_path, fewer, new, at=AT)
    two = _files(tmp_path, base, row.format(k=1).replace("'one'", "'two'"))
    written = replace(tmp_path, base, two, [file.path for file in old], at=AT)
    before = evolve(tmp_path, written, lambda schema, _: dropped(schema, path), at=AT)
    again = _files(tmp_path, fewer, select.format(names=names, row=row.format(k=1)))
    other = replace(tmp_path, fewer, new, [file.path for file in old], at=AT)
    rewritten = replace(tmp_path, fewer, again, [file.path for file in old], at=AT)
    for is_ours in (True, False):

        def merged(side: TableContent, is_ours: bool = is_ours, *, drops: bool = False) -> RowMerge:
            sides = (side, called) if is_ours else (called, side)
            take = Take.OURS if is_ours == drops else Take.THEIRS
            return merge_rows(tmp_path, base, *sides, key, Resolution(otherwise=take), at=AT)

        content = merged(appended).content
        assert content is not None
        with DuckDB(tmp_path / "staging") as engine:
            engine.view(file_set(tmp_path, content, "t"))
            value = "now" if path == "b" else "s.now"
            found = engine.rows(f"SELECT k, {value}::VARCHAR FROM t ORDER BY k")
        assert found == [(1, "one" if path == "b" else "2"), (2, None)]

        # Files that were written before it was dropped have it still.
        assert merged(before).content is not None
        # Where there is no key, rows that came may be those that went.
        assert (merged(other).content is not None) == bool(key)

        refused = merged(rewritten)
        assert refused.content is None
        (told,) = refused.definition
        assert (told.what, told.by_side) == (f'column "{path.removesuffix("b")}now"', False)
        assert "dropped, and rows written anew without it" in (told.ours, told.theirs)
        assert merged(rewritten, drops=True).content is not None


_REQUIRED = {
    "column": ("b", "{b}"),
    "struct": ("b.x", "{{x: {b}}}"),
    "list": ("b.element", "[1, {b}]"),
}
"""The path of what is made required, and SQL of a value of column b with one there."""


def _of_shape(shape: str) -> Column:
    match shape:
        case "struct":
            return Column(0, "b", "struct", children=(Column(0, "x", "int"),))
        case "list":
            return Column(0, "b", "list", children=(Column(0, "element", "int"),))
        case _:
            return Column(0, "b", "int")


def _made_required(root: Path, table: TableContent, path: str) -> TableContent:
    """As another engine does it, which may, without a look at the rows."""
    ids = {name: field.id for name, field in paths(schema_of(root, table).columns)}

    def changed(column: Column) -> Column:
        children = tuple(map(changed, column.children))
        required = column.required or column.id == ids[path]
        return with_parts(column, required=required, children=children)

    def change(schema: Schema, _: object) -> Schema:
        return Schema(tuple(map(changed, schema.columns)))

    return evolve(root, table, change, at=AT)


@pytest.mark.parametrize("key", [[], ["k"]], ids=["keyless", "keyed"])
@pytest.mark.parametrize("shape", list(_REQUIRED))
def test_nulls_in_what_the_other_side_made_required_are_a_conflict(
    tmp_path: Path, shape: str, key: list[str]
) -> None:
    path, value = _REQUIRED[shape]
    root = tmp_path

    def written(table: TableContent, k: int, b: int | None) -> tuple[WrittenFile, ...]:
        cell = value.format(b="NULL::INTEGER" if b is None else b)
        return _files(root, table, f"SELECT {k}::BIGINT k, {cell} b")

    base = create_table(root, "t", (Column(0, "k", "long"), _of_shape(shape)), at=AT)
    first = written(base, 1, 1)
    base = append(root, base, first, at=AT)
    strict = _made_required(root, base, path)
    strict = append(root, strict, written(strict, 9, 9), at=AT)
    old = [file.path for file in first]
    for files, gone in ((written(base, 2, 5), []), (written(base, 1, 5), old)):
        quiet = replace(root, base, files, gone, at=AT)
        for ours, theirs in ((strict, quiet), (quiet, strict)):
            assert merge_rows(root, base, ours, theirs, key, at=AT).content is not None
    for files, gone in ((written(base, 2, None), []), (written(base, 1, None), old)):
        loud = replace(root, base, files, gone, at=AT)
        for ours, theirs, told in (
            (strict, loud, ("required", "null in 1 rows")),
            (loud, strict, ("null in 1 rows", "required")),
        ):
            merged = merge_rows(root, base, ours, theirs, key, at=AT)
            assert merged.content is None
            found = [(one.what, one.ours, one.theirs) for one in merged.definition]
            assert found == [(f'required of column "{path}"', *told)]


def test_nulls_that_the_side_which_requires_a_value_filled_are_no_conflict(tmp_path: Path) -> None:
    """Though the other side wrote the file with them again, for the sake of another row."""
    columns = (Column(0, "k", "long"), Column(0, "b", "int"))
    base = create_table(tmp_path, "t", columns, at=AT)
    first = _files(tmp_path, base, "FROM (VALUES (1::BIGINT, NULL::INTEGER), (2, 2)) t(k, b)")
    base = append(tmp_path, base, first, at=AT)
    old = [file.path for file in first]

    def rewritten(values: str) -> TableContent:
        return replace(
            tmp_path, base, _files(tmp_path, base, f"FROM (VALUES {values}) t(k, b)"), old, at=AT
        )

    theirs = _made_required(tmp_path, rewritten("(1::BIGINT, 7), (2, 2)"), "b")
    ours = rewritten("(1::BIGINT, NULL::INTEGER), (2, 5)")
    merged = merge_rows(tmp_path, base, ours, theirs, ["k"], at=AT)
    assert merged.content is not None
    with DuckDB(tmp_path / "staging") as engine:
        engine.view(file_set(tmp_path, merged.content, "t"))
        assert engine.rows("SELECT k, b FROM t ORDER BY k") == [(1, 7), (2, 5)]


@pytest.mark.parametrize("key", [[], ["k"]], ids=["keyless", "keyed"])
def test_rows_without_a_new_required_column_are_a_conflict_unless_it_has_a_default(
    tmp_path: Path, key: list[str]
) -> None:
    base = create_table(tmp_path, "t", (Column(0, "k", "long"),), at=AT)
    ours = append(tmp_path, base, _files(tmp_path, base, "SELECT 1::BIGINT k"), at=AT)
    for default, expected in ((None, ['required of column "b"']), ("4", [])):
        new = Column(0, "b", "int", True, initial_default=default, write_default=default)
        theirs = evolve(
            tmp_path,
            base,
            lambda schema, ids, new=new: added(schema, ids, new, has_rows=False),  # type: ignore[misc]  # the loop's value, bound
            at=AT,
        )
        merged = merge_rows(tmp_path, base, ours, theirs, key, at=AT)
        assert [one.what for one in merged.definition] == expected
