"""Merges that write only the columns that changed: their rows, their files, what files tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bare import bare_table
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.engines.duckdb import DuckDB
from instep.engines.engine import WrittenFile
from instep.engines.schema import Column
from instep.errors import ConflictError
from instep.tables import merge_target
from instep.tables.content import TableContent
from instep.tables.merge import merge_rows
from instep.tables.partition import Order, Part
from instep.tables.profile_keep import profile_table
from instep.tables.read import data_files, file_set, layout_of, schema_of
from instep.tables.row_merge import Resolution, Take
from instep.tables.same_bytes import columns_apart
from instep.tables.write import append, create_table, data_folder, replace, set_columns

AT = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = (
    Column(0, "k", "long"),
    Column(0, "a", "string"),
    Column(0, "b", "double"),
    Column(0, "s", "struct", children=(Column(0, "x", "long"), Column(0, "y", "string"))),
)
KEYS = range(1, 9)

Cell = str | float | None | tuple[int | None, str]
Row = tuple[Cell, Cell, Cell]
Rows = dict[int, Row]
Change = Mapping[tuple[int, int], Cell]
"""New values by key and place in the row."""

BASE: Rows = {k: ("p" if k % 2 else "q", k / 2, (k, "y") if k % 3 else None) for k in KEYS}

_cells = (
    st.sampled_from(["p", "q", "new", None]),
    st.sampled_from([0.5, -1.0, float("nan"), None]),
    st.sampled_from([(1, "y"), (None, "z"), None]),
)
changes: st.SearchStrategy[Change] = st.sampled_from([[0], [1], [2], [0, 1], [0, 1, 2]]).flatmap(
    lambda places: st.dictionaries(
        st.sampled_from([(key, place) for key in KEYS for place in places]),
        st.none(),
        max_size=4,
    ).flatmap(lambda cells: st.fixed_dictionaries({one: _cells[one[1]] for one in cells}))
)
gone = st.sets(st.sampled_from(KEYS), max_size=2)


def _sql(rows: Rows) -> str:
    def cell(value: Cell) -> str:
        match value:
            case None:
                return "NULL"
            case str():
                return f"'{value}'"
            case float():
                return f"'{value}'::DOUBLE"
            case (x, y):
                return f"{{'x': {'NULL' if x is None else x}, 'y': '{y}'}}"

    listed = ", ".join(f"({k}, {', '.join(map(cell, row))})" for k, row in rows.items())
    return (
        "SELECT k::BIGINT k, a::VARCHAR a, b::DOUBLE b, s::STRUCT(x BIGINT, y VARCHAR) s "
        f"FROM (VALUES {listed}) t(k, a, b, s) ORDER BY k"
    )


def _written(root: Path, table: TableContent, rows: Rows) -> TableContent:
    """Writes all rows anew, in a file of each half of the keys."""
    files: list[WrittenFile] = []
    with DuckDB(root / "staging") as engine:
        for half in (range(1, 5), range(5, 9)):
            if some := {k: rows[k] for k in half if k in rows}:
                folder, layout = data_folder(root, table), layout_of(root, table)
                files += engine.write(_sql(some), schema_of(root, table), folder, layout=layout)
    was = [file.path for file in data_files(root, table)]
    return replace(root, table, files, was, at=AT) if was else append(root, table, files, at=AT)


def _read_and_written(root: Path, table: TableContent) -> TableContent:
    """Writes each file anew: columns that are read without nulls are written as such."""
    for file in data_files(root, table):
        with DuckDB(root / "staging") as engine:
            engine.view(file_set(root, table, "t").only([file.path]))
            folder, layout = data_folder(root, table), layout_of(root, table)
            sql = "SELECT * FROM t ORDER BY k"
            files = engine.write(sql, schema_of(root, table), folder, layout=layout)
        table = replace(root, table, files, [file.path], at=AT)
    return table


def _changed(rows: Rows, change: Change, without: set[int]) -> Rows:
    new = {k: list(row) for k, row in rows.items() if k not in without}
    for (k, place), cell in change.items():
        if k in new:
            new[k][place] = cell
    return {k: (a, b, s) for k, (a, b, s) in new.items()}


def _same(one: object, two: object) -> bool:
    return repr(one) == repr(two)  # NaN is itself


def _naive(base: Rows, ours: Rows, theirs: Rows) -> Rows:
    """The merged rows, ours where there is a conflict."""
    merged: Rows = {}
    for k, was in base.items():
        mine, yours = ours.get(k), theirs.get(k)
        if mine is None or yours is None:
            # Removed by one side only if the other left the row as it was; else ours stands.
            kept = mine if mine is None or not _same(mine, was) else yours
            if yours is None and mine is not None and _same(mine, was):
                kept = None
        else:
            cells = [
                o if _same(t, b) or not _same(o, b) else t
                for b, o, t in zip(was, mine, yours, strict=True)
            ]
            kept = (cells[0], cells[1], cells[2])
        if kept is not None:
            merged[k] = kept
    return merged


def _rows(root: Path, table: TableContent) -> Rows:
    """As pyiceberg reads them; the same as DuckDB does."""
    by_others = bare_table(root, table.metadata).scan().to_arrow()
    with DuckDB(root / "staging") as engine:
        engine.view(file_set(root, table, "t"))
        by_us = engine.arrow("SELECT * FROM t")
    found = [_by_key(one) for one in (by_others, by_us)]
    assert _same(found[0], found[1])
    return found[0]


def _by_key(table: pa.Table) -> Rows:
    rows = sorted(table.to_pylist(), key=lambda row: int(row["k"]))
    assert len({row["k"] for row in rows}) == len(rows)
    return {
        row["k"]: (row["a"], row["b"], row["s"] and (row["s"]["x"], row["s"]["y"])) for row in rows
    }


def _check_told(root: Path, table: TableContent) -> None:
    """Holds what the table tells of each file against what is in it."""
    for file in data_files(root, table):
        with pq.ParquetFile(file.path) as parquet:
            rows = parquet.read()
        assert (file.rows, file.size_bytes) == (rows.num_rows, Path(file.path).stat().st_size)
        told = {one.field_id: one for one in file.columns}
        for name, field_id in (("k", 1), ("a", 2), ("b", 3)):
            values = [one for one in rows.column(name).to_pylist() if one is not None]
            assert told[field_id].nulls == rows.num_rows - len(values)
            known = [one for one in values if one == one]
            bounds = (told[field_id].lower, told[field_id].upper)
            if bounds != (None, None) and len(known) == len(values):
                assert tuple(map(type(known[0]), bounds)) == (min(known), max(known))


def _check_found(root: Path, table: TableContent) -> None:
    """Holds that no reader that goes by bounds and partitions leaves a row out."""
    other = bare_table(root, table.metadata)
    every = _by_key(other.scan().to_arrow())
    for place, name in enumerate("ab"):
        for value in {row[place] for row in every.values()} - {None}:
            if value == value:
                found = _by_key(other.scan(f"{name} == {value!r}").to_arrow())
                assert [*found] == [k for k, row in every.items() if row[place] == value]


@settings(max_examples=10)
@given(
    ours=changes,
    theirs=changes,
    without=st.tuples(gone, gone) | st.just((set(), set())),
    layout=st.sampled_from([((), ()), ((Part("a"),), ()), ((), (Order("b"),))]),
    is_read=st.booleans(),
)
def test_columns_are_merged_as_dicts_are(
    ours: Change,
    theirs: Change,
    without: tuple[set[int], set[int]],
    layout: tuple[Sequence[Part], Sequence[Order]],
    is_read: bool,
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge_target, "_TAKEN_APART_BYTES", 0)
        patch.setattr(merge_target, "_MOST_WRITTEN", 1)
        root = Path(folder)
        parts, order = layout
        table = create_table(root, "t", COLUMNS, at=AT, partition=parts, sort=order)
        base = _written(root, table, BASE)
        rows = [
            _changed(BASE, change, gone)
            for change, gone in zip((ours, theirs), without, strict=True)
        ]
        mine, yours = (_written(root, base, side) for side in rows)
        if is_read:
            mine = _read_and_written(root, mine)

        merged = merge_rows(
            root, base, mine, yours, ["k"], Resolution(otherwise=Take.OURS), at=AT
        ).content

        assert merged is not None
        assert _same(_rows(root, merged), _naive(BASE, *rows))
        _check_told(root, merged)
        _check_found(root, merged)
        assert {one.count for one in profile_table(root, merged)} == {len(_rows(root, merged))}


def _forked(
    root: Path, ours: Change, theirs: Change
) -> tuple[TableContent, TableContent, TableContent]:
    base = _written(root, create_table(root, "t", COLUMNS, at=AT), BASE)
    return (
        base,
        _written(root, base, _changed(BASE, ours, set())),
        _written(root, base, _changed(BASE, theirs, set())),
    )


def _columns_apart(root: Path, before: TableContent, after: TableContent) -> frozenset[int] | None:
    sides = [file_set(root, one, name) for one, name in ((before, "old"), (after, "new"))]
    with DuckDB(root / "staging") as engine:
        for one in sides:
            engine.view(one)
        return columns_apart(engine, sides[0].files, sides[1].files, [1], [2, 3])


@pytest.mark.parametrize(("least", "is_ordered"), [(0, True), (1 << 30, False)])
def test_only_large_files_are_written_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int, is_ordered: bool
) -> None:
    monkeypatch.setattr(merge_target, "_TAKEN_APART_BYTES", least)
    monkeypatch.setattr(merge_target, "_MOST_WRITTEN", 1)
    states = _forked(tmp_path, {(1, 1): 7.0}, {(2, 1): 8.0, (6, 1): 9.0})

    merged = merge_rows(tmp_path, *states, ["k"], at=AT)

    assert merged.content is not None
    assert (merged.added, merged.changed, merged.removed) == (0, 2, 0)
    files = data_files(tmp_path, merged.content)
    assert len(files) == (2 if is_ordered else 1)
    if is_ordered:
        assert _columns_apart(tmp_path, states[1], merged.content) == frozenset({3})
    assert _rows(tmp_path, merged.content)[1][1] == 7.0
    assert _rows(tmp_path, merged.content)[6][1] == 9.0


def test_a_file_with_a_column_that_is_there_no_more_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge_target, "_TAKEN_APART_BYTES", 0)
    monkeypatch.setattr(merge_target, "_MOST_WRITTEN", 1)
    states = _forked(tmp_path, {(1, 1): 7.0}, {(2, 1): 8.0})
    fewer = [one for one in schema_of(tmp_path, states[1]).columns if one.name != "a"]
    ours = set_columns(tmp_path, states[1], fewer, at=AT)

    merged = merge_rows(tmp_path, states[0], ours, states[2], ["k"], at=AT)

    assert merged.content is not None
    known = {file.path for file in data_files(tmp_path, ours)}
    (new,) = (one for one in data_files(tmp_path, merged.content) if one.path not in known)
    assert {one.field_id for one in new.columns} == {1, 3, 4, 5, 6}


def test_values_that_changed_places_under_one_key_are_refused(tmp_path: Path) -> None:
    table = create_table(tmp_path, "t", COLUMNS, at=AT)

    def written(table: TableContent, *b: float) -> TableContent:
        rows = " UNION ALL ".join(
            f"({_sql({1: (a, one, None)})})" for a, one in zip("pq", b, strict=True)
        )
        with DuckDB(tmp_path / "staging") as engine:
            files = engine.write(
                f"SELECT * FROM ({rows}) ORDER BY a",
                schema_of(tmp_path, table),
                data_folder(tmp_path, table),
            )
        was = [file.path for file in data_files(tmp_path, table)]
        return replace(tmp_path, table, files, was, at=AT)

    base = written(table, 1.0, 2.0)
    theirs = written(base, 2.0, 1.0)
    with pytest.raises(ConflictError) as caught:
        merge_rows(tmp_path, base, base, theirs, ["k"], at=AT)
    assert caught.value.kind == "repeated-key"
