"""Differences between two states, against a naive comparison of Python dicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace as replaced
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.clock import Window
from instep.engines.duckdb import DuckDB
from instep.engines.engine import Slice, WrittenFile
from instep.engines.schema import Column
from instep.errors import InvalidError
from instep.tables import key_ranges
from instep.tables.apart import Tolerance
from instep.tables.content import TableContent
from instep.tables.diff import diff_rows, open_diff
from instep.tables.read import data_files, schema_of
from instep.tables.row_diff import Cell, RowChange, RowDiff
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
        return f"'{value}'" if isinstance(value, str | float) else f"({value!r})"

    listed = ", ".join(f"({', '.join(cell(value) for value in row)})" for row in rows)
    return f"SELECT k::BIGINT k, v::VARCHAR v, d::DOUBLE d FROM (VALUES {listed}) t(k, v, d)"


def _added(root: Path, table: TableContent, rows: list[Row]) -> TableContent:
    return _selected(root, table, _sql(rows)) if rows else table


def _selected(root: Path, table: TableContent, select: str) -> TableContent:
    with DuckDB(root / "staging") as engine:
        files = engine.write(select, schema_of(root, table), data_folder(root, table))
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


@settings(max_examples=8)
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


@settings(max_examples=5)
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


@pytest.mark.parametrize("key", [["k"], []], ids=["keyed", "keyless"])
@pytest.mark.parametrize("had", [0, 4], ids=["new", "changed"])
def test_the_sample_is_the_same_in_whatever_order_rows_of_one_key_were_written(
    tmp_path: Path, key: list[str], had: int
) -> None:
    rows: list[Row] = [(1, f"w{n:03}", float(n)) for n in range(200)]
    samples = set()
    for seed in range(4):
        table = create_table(tmp_path, f"t{seed}", COLUMNS, at=AT)
        before = _added(tmp_path, table, [(1, "before", 0.5)] * had)
        after = _replaced(tmp_path, before, Random(seed).sample(rows, len(rows)))
        samples.add(diff_rows(tmp_path, before, after, key, 3).sample)
    (sample,) = samples
    added = [row for row in sample if row.change is RowChange.ADDED]
    first = 4 if key and had else 0
    assert [row.cells[1].after for row in added] == [f"w{n:03}" for n in range(first, first + 3)]


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


@pytest.mark.parametrize("key", [["k"], []])
def test_a_state_does_not_differ_from_itself(tmp_path: Path, key: list[str]) -> None:
    table = _added(tmp_path, create_table(tmp_path, "t", COLUMNS, at=AT), [(1, "a", 0.5)])

    assert diff_rows(tmp_path, table, table, key).is_empty


def test_renamed_and_retyped_columns_are_aligned_by_id_and_one_sided_ones_left_out(
    tmp_path: Path,
) -> None:
    narrow = (Column(0, "k", "int"), Column(0, "v", "string"), Column(0, "d", "float"))
    table = create_table(tmp_path, "t", narrow, at=AT)
    listed = "(1, 'a', 0.5), (2, 'b', 1.5)"
    before = _selected(
        tmp_path, table, f"SELECT k::INT k, v, d::FLOAT d FROM (VALUES {listed}) t(k, v, d)"
    )
    renamed = rename_column(tmp_path, before, "v", "w", at=AT)
    columns = (
        Column(0, "k", "long"), Column(0, "w", "string"),
        Column(0, "d", "double"), Column(0, "v", "string"),
    )  # fmt: skip
    wider = set_columns(tmp_path, renamed, columns, at=AT)
    gone = [file.path for file in data_files(tmp_path, before)]
    listed = "(1, 'a', 0.5), (2, 'c', 1.5)"
    select = f"SELECT k::BIGINT k, w, d::DOUBLE d, w AS v FROM (VALUES {listed}) t(k, w, d)"
    after = replace(tmp_path, _selected(tmp_path, wider, select), (), gone, at=AT)

    for old, new, cell in (
        (before, after, Cell("w", "b", "c")),
        (after, before, Cell("v", "c", "b")),
    ):
        found = diff_rows(tmp_path, old, new, ["k"])
        assert (found.added, found.removed, found.changed) == (0, 0, 1)
        assert [row.cells for row in found.sample] == [(cell,)]
        assert found.changed_cells == ((cell.column, 1),)


def test_ranges_of_the_key_give_what_one_range_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = create_table(tmp_path, "t", COLUMNS, at=AT)
    states = []
    for changed in ("-1", "k % 1000"):
        rows = (
            f"SELECT k, CASE WHEN k % 1000 = 7 THEN 'x{changed}' ELSE 'a' END v, k / 7 d "
            "FROM range(400_000) r(k)"
        )
        states.append(_selected(tmp_path, table, rows))
    before, after = states
    asked: list[tuple[int, ...]] = []
    cuts = key_ranges.cuts

    def counted(spans: Sequence[key_ranges.Span], per_range: int) -> tuple[int, ...]:
        asked.append(cuts(spans, per_range))
        return asked[-1]

    once = diff_rows(tmp_path, before, after, ["k"])
    monkeypatch.setattr(key_ranges, "CELLS_PER_RANGE", 300_000)
    monkeypatch.setattr(key_ranges, "cuts", counted)
    cut = diff_rows(tmp_path, before, after, ["k"])

    assert once == cut
    assert (cut.added, cut.removed, cut.changed) == (0, 0, 400)
    assert asked
    assert all(asked)


def _in_small_ranges(
    root: Path, before: TableContent, after: TableContent, key: list[str]
) -> RowDiff:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_ranges, "CELLS_PER_RANGE", 4)
        patch.setattr(key_ranges, "WORST_REREAD", 100.0)
        return diff_rows(root, before, after, key, sampled=20)


def _same(one: RowDiff, two: RowDiff) -> bool:
    """Whether two diffs are alike but for the order of what they show."""
    without = [replaced(diff, sample=(), repeated=()) for diff in (one, two)]
    return (
        without[0] == without[1]
        and Counter(one.sample) == Counter(two.sample)
        and set(one.repeated) == set(two.repeated)
    )


@settings(max_examples=12)
@given(
    before=st.lists(any_rows, min_size=1, max_size=3),
    after=st.lists(any_rows, min_size=1, max_size=3),
    key=st.sampled_from([["k"], ["v"], []]),
)
def test_ranges_that_read_only_their_files_give_what_one_range_gives(
    before: list[list[Row]], after: list[list[Row]], key: list[str]
) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        old = new = create_table(root, "t", COLUMNS, at=AT)
        for rows in before:
            old = _added(root, old, rows)
        for rows in after:
            new = _added(root, new, rows)
        once = diff_rows(root, old, new, key, sampled=20)
        assert _same(once, _in_small_ranges(root, old, new, key))


def test_files_without_the_column_of_the_ranges_are_read_by_each(tmp_path: Path) -> None:
    table = create_table(tmp_path, "t", COLUMNS, at=AT)
    before = _added(tmp_path, table, [(1, "a", 0.5), (2, "b", 1.5)])
    wider = set_columns(tmp_path, before, (*COLUMNS, Column(0, "z", "long")), at=AT)
    after = wider
    for n in range(3):
        after = _selected(tmp_path, after, f"SELECT {n}::BIGINT k, '' v, 0.0::DOUBLE d, {n} z")
    gone = [file.path for file in data_files(tmp_path, before)]
    after = replace(tmp_path, after, (), gone, at=AT)

    once = diff_rows(tmp_path, wider, after, ["z"], sampled=20)
    assert (once.added, once.removed, once.repeated_keys) == (3, 2, 1)
    assert _same(once, _in_small_ranges(tmp_path, wider, after, ["z"]))


def test_the_table_of_differing_rows_is_written_as_parquet(tmp_path: Path) -> None:
    table = create_table(tmp_path, "t", COLUMNS, at=AT)
    before = _added(tmp_path, table, [(1, "a", 0.5), (2, "b", 1.5)])
    after = _replaced(tmp_path, before, [(1, "a", 0.5), (2, "b", 2.5), (3, None, None)])

    with open_diff(tmp_path, before, after, ["k"]) as rows:
        assert rows.write(tmp_path / "rows.parquet") == 2
    with open_diff(tmp_path, after, after, ["k"]) as rows:
        assert rows.write(tmp_path / "none.parquet") == 0

    import pyarrow.parquet as pq

    found = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    names = ["change", "k", "before.v", "after.v", "before.d", "after.d"]
    assert [tuple(row) for row in found] == [tuple(names)] * 2
    assert sorted(tuple(row.values()) for row in found) == [
        ("added", 3, None, None, None, None),
        ("changed", 2, "b", "b", 1.5, 2.5),
    ]
    assert pq.read_table(tmp_path / "none.parquet").column_names == names


def test_a_slice_is_compared_alone(tmp_path: Path) -> None:
    columns = (Column(0, "k", "long"), Column(0, "at", "timestamptz"))
    table = create_table(tmp_path, "t", columns, at=AT)
    states = []
    for days in ("(1, '2026-01-01'), (2, '2026-01-02'), (3, '2026-01-03')",
                 "(1, '2026-01-02'), (2, '2026-01-02'), (4, '2026-01-02')"):  # fmt: skip
        select = f"SELECT k::BIGINT k, d::TIMESTAMPTZ AS at FROM (VALUES {days}) t(k, d)"
        states.append(_selected(tmp_path, table, select))
    before, after = states
    window = Window(datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC))

    found = diff_rows(tmp_path, before, after, ["k"], part=Slice("at", window))

    assert (found.added, found.removed, found.changed) == (2, 0, 0)


@pytest.mark.parametrize(
    ("key", "column", "kind"),
    [([], None, "tolerance-without-key"), (["k"], "v", "not-a-float"), (["k"], "x", "not-a-float")],
)
def test_a_tolerance_that_cannot_be_met_is_refused(
    tmp_path: Path, key: list[str], column: str | None, kind: str
) -> None:
    table = create_table(tmp_path, "t", COLUMNS, at=AT)

    with pytest.raises(InvalidError) as refused:
        diff_rows(tmp_path, table, table, key, tolerances={column: Tolerance(0.1)})

    assert refused.value.kind == kind
