"""Differences between two states, against a naive comparison of Python dicts."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.engines.duckdb import DuckDB
from instep.engines.engine import WrittenFile
from instep.engines.schema import Column, Schema
from instep.tables.content import TableContent
from instep.tables.diff import Cell, RowChange, diff_rows, diff_schema
from instep.tables.read import data_files, schema_of
from instep.tables.write import (
    append,
    create_table,
    data_folder,
    rename_column,
    replace,
    set_columns,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = (Column(0, "k", "long"), Column(0, "v", "string"), Column(0, "d", "double"))
Row = tuple[int | None, str | None, float | None]


def _sql(rows: list[Row]) -> str:
    def cell(value: object) -> str:
        if value is None:
            return "NULL"
        return f"'{value}'" if isinstance(value, str) else f"({value!r})"

    listed = ", ".join(f"({', '.join(cell(value) for value in row)})" for row in rows)
    return f"SELECT k::BIGINT k, v::VARCHAR v, d::DOUBLE d FROM (VALUES {listed}) t(k, v, d)"


def _added(root: Path, table: TableContent, rows: list[Row]) -> TableContent:
    if not rows:
        return table
    with DuckDB(root / "staging") as engine:
        files = engine.write(_sql(rows), schema_of(root, table), data_folder(root, table))
    return append(root, table, files, at=AT)


def _replaced(root: Path, table: TableContent, rows: list[Row]) -> TableContent:
    files: tuple[WrittenFile, ...] = ()
    if rows:
        with DuckDB(root / "staging") as engine:
            files = engine.write(_sql(rows), schema_of(root, table), data_folder(root, table))
    removed = [file.path for file in data_files(root, table)]
    return replace(root, table, files, removed, at=AT)


rows_with_unique_keys = st.dictionaries(
    st.integers(0, 12) | st.none(),
    st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from([0.5, -1.0, None])),
    max_size=10,
).map(lambda found: [(k, v, d) for k, (v, d) in found.items()])

any_rows = st.lists(
    st.tuples(
        st.integers(0, 3) | st.none(),
        st.sampled_from(["a", "b", None]),
        st.sampled_from([0.5, None]),
    ),
    max_size=8,
)


@settings(max_examples=25, deadline=None)
@given(shared=any_rows, before=rows_with_unique_keys, after=rows_with_unique_keys)
def test_keyed_counts_are_those_of_a_dict_comparison(
    shared: list[Row], before: list[Row], after: list[Row]
) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        table = _added(root, create_table(root, "t", COLUMNS, at=AT), shared)
        found = diff_rows(
            root, _added(root, table, before), _added(root, table, after), ["k"], sampled=20
        )
    old = {row[0]: row for row in before}
    new = {row[0]: row for row in after}
    assert found.added == len(new.keys() - old.keys())
    assert found.removed == len(old.keys() - new.keys())
    changed = {key for key in old.keys() & new.keys() if old[key] != new[key]}
    assert found.changed == len(changed)
    assert {row.key for row in found.sample if row.change is RowChange.CHANGED} == {
        (None if key is None else str(key),) for key in changed
    }


@settings(max_examples=15, deadline=None)
@given(before=any_rows, after=any_rows)
def test_keyless_counts_are_those_of_a_multiset_comparison(
    before: list[Row], after: list[Row]
) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        table = create_table(root, "t", COLUMNS, at=AT)
        found = diff_rows(root, _added(root, table, before), _added(root, table, after), [])
    assert found.added == (Counter(after) - Counter(before)).total()
    assert found.removed == (Counter(before) - Counter(after)).total()
    assert found.changed == 0


@settings(max_examples=15, deadline=None)
@given(before=any_rows, after=any_rows)
def test_repeated_keys_are_paired_within_their_key(before: list[Row], after: list[Row]) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        table = create_table(root, "t", COLUMNS, at=AT)
        found = diff_rows(root, _added(root, table, before), _added(root, table, after), ["k"])
    old, new = Counter(row[0] for row in before), Counter(row[0] for row in after)
    assert found.added == (new - old).total()
    assert found.removed == (old - new).total()
    assert found.is_empty == (Counter(before) == Counter(after))


def test_the_sample_shows_changed_cells_before_and_after(tmp_path: Path) -> None:
    table = create_table(tmp_path, "t", COLUMNS, at=AT)
    before = _added(tmp_path, table, [(1, "a", 0.5), (2, "b", 1.5)])
    after = _replaced(tmp_path, before, [(1, "a", 0.5), (2, "b", 2.5), (3, None, None)])

    found = diff_rows(tmp_path, before, after, ["k"])

    changed = next(row for row in found.sample if row.change is RowChange.CHANGED)
    added = next(row for row in found.sample if row.change is RowChange.ADDED)
    assert changed.key == ("2",)
    assert changed.cells == (Cell("d", "1.5", "2.5"),)
    assert added.cells == (Cell("k", None, "3"), Cell("v", None, None), Cell("d", None, None))


def test_shared_files_are_not_read(tmp_path: Path) -> None:
    before = _added(tmp_path, create_table(tmp_path, "t", COLUMNS, at=AT), [(1, "a", 0.5)])
    after = _added(tmp_path, before, [(2, "b", 1.5)])
    Path(data_files(tmp_path, before)[0].path).unlink()

    found = diff_rows(tmp_path, before, after, ["k"])

    assert (found.added, found.removed, found.changed) == (1, 0, 0)


def test_a_new_table_adds_all_its_rows_and_a_dropped_one_removes_them(tmp_path: Path) -> None:
    table = _added(tmp_path, create_table(tmp_path, "t", COLUMNS, at=AT), [(1, "a", 0.5)])

    assert diff_rows(tmp_path, None, table, ["k"]).added == 1
    assert diff_rows(tmp_path, table, None, ["k"]).removed == 1


def test_a_table_made_again_is_compared_by_name(tmp_path: Path) -> None:
    before = _added(tmp_path, create_table(tmp_path, "t", COLUMNS, at=AT), [(1, "a", 0.5)])
    columns = (COLUMNS[2], COLUMNS[0], Column(0, "v", "string"))
    after = _added(tmp_path, create_table(tmp_path, "t", columns, at=AT), [(1, "b", 0.5)])

    found = diff_rows(tmp_path, before, after, ["k"])

    assert (found.added, found.removed, found.changed) == (0, 0, 1)


def test_integers_of_two_widths_are_equal_when_their_values_are(tmp_path: Path) -> None:
    narrow = (Column(0, "k", "int"), *COLUMNS[1:])
    before = _added(tmp_path, create_table(tmp_path, "t", narrow, at=AT), [(1, "a", 0.5)])
    wider = set_columns(tmp_path, before, COLUMNS, at=AT)
    after = _replaced(tmp_path, wider, [(1, "a", 0.5)])

    assert diff_rows(tmp_path, before, after, ["k"]).is_empty


def test_schemas_differ_by_field_id(tmp_path: Path) -> None:
    before = create_table(tmp_path, "t", COLUMNS, at=AT)
    renamed = rename_column(tmp_path, before, "v", "w", at=AT)
    after = set_columns(
        tmp_path,
        renamed,
        (Column(0, "k", "long"), Column(0, "w", "string"), Column(0, "new", "date")),
        at=AT,
    )

    found = diff_schema(schema_of(tmp_path, before), schema_of(tmp_path, after))

    assert [(old.name, new.name) for old, new in found.renamed] == [("v", "w")]
    assert [column.name for column in found.added] == ["new"]
    assert [column.name for column in found.removed] == ["d"]
    assert not found.retyped
    assert diff_schema(Schema(()), Schema(())).is_empty


@pytest.mark.parametrize("key", [["k"], []])
def test_a_state_does_not_differ_from_itself(tmp_path: Path, key: list[str]) -> None:
    table = _added(tmp_path, create_table(tmp_path, "t", COLUMNS, at=AT), [(1, "a", 0.5)])

    assert diff_rows(tmp_path, table, table, key).is_empty
