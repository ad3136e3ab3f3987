"""Rows made anew in their order, with other values in few columns: what is read, what is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column
from instep.tables.content import TableContent
from instep.tables.diff import open_diff
from instep.tables.read import data_files, file_set, schema_of
from instep.tables.row_diff import RowDiff
from instep.tables.same_bytes import columns_apart
from instep.tables.write import append, create_table, data_folder, replace

AT = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = (Column(0, "k", "long"), Column(0, "a", "string"), Column(0, "b", "double"))
KEY, A, B = 1, 2, 3
Row = tuple[int, str, float]

rows_of = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from("xyz"), st.sampled_from([0.5, 1.5])),
    min_size=1,
    max_size=8,
)


def _states(
    root: Path, before: Sequence[str], after: Sequence[str]
) -> tuple[TableContent, TableContent]:
    """Two states without a shared file; each SELECT is a file."""
    table = create_table(root, "t", COLUMNS, at=AT)
    states = []
    for selects in (before, after):
        with DuckDB(root / "staging") as engine:
            made = [
                engine.write(one, schema_of(root, table), data_folder(root, table))
                for one in selects
            ]
        files = [file for some in made for file in some]
        gone = [file.path for file in data_files(root, table)]
        table = (
            replace(root, table, files, gone, at=AT) if gone else append(root, table, files, at=AT)
        )
        states.append(table)
    return states[0], states[1]


def _values(rows: Sequence[Row]) -> str:
    listed = ", ".join(map(str, rows))
    return f"SELECT k::BIGINT k, a::VARCHAR a, b::DOUBLE b FROM (VALUES {listed}) t(k, a, b)"


def _apart(root: Path, before: TableContent, after: TableContent) -> frozenset[int] | None:
    with DuckDB(root / "staging") as engine:
        sides = [file_set(root, one, name) for one, name in ((before, "old"), (after, "new"))]
        for one in sides:
            engine.view(one)
        return columns_apart(engine, sides[0].files, sides[1].files, [KEY], [A, B])


def _diff(
    root: Path, before: TableContent, after: TableContent
) -> tuple[RowDiff, list[tuple[Any, ...]]]:
    """What is told of the rows that differ, and all of their values, as the table has them."""
    with open_diff(root, before, after, ["k"]) as apart:
        return apart.summary(20), sorted(apart.table().fetchall())


def test_only_the_columns_with_other_bytes_are_apart(tmp_path: Path) -> None:
    rows = "SELECT i k, 'name ' || i a, (i / 7)::DOUBLE b FROM range(300000) r(i)"
    moved = (
        "SELECT i k, 'name ' || i a, (i / 7 + (i = 250000)::INT)::DOUBLE b FROM range(300000) r(i)"
    )
    before, after = _states(tmp_path, [rows], [moved])
    assert _apart(tmp_path, before, after) == frozenset({B})
    found, values = _diff(tmp_path, before, after)
    assert (found.added, found.removed, found.changed) == (0, 0, 1)
    assert found.changed_cells == (("b", 1),)
    name, value = "name 250000", 250000 / 7
    assert values == [("changed", 250000, name, name, value, pytest.approx(value + 1))]


def test_files_in_another_order_are_found_by_their_keys(tmp_path: Path) -> None:
    one, two = _values([(1, "x", 0.5)]), _values([(2, "y", 0.5)])
    before, after = _states(tmp_path, [one, two], [two, _values([(1, "z", 0.5)])])
    assert _apart(tmp_path, before, after) == frozenset({A})
    found, values = _diff(tmp_path, before, after)
    assert found.changed == 1
    assert values == [("changed", 1, "x", "z", 0.5, 0.5)]


@pytest.mark.parametrize(
    "after",
    [
        pytest.param([(2, "y", 0.5), (1, "x", 0.5)], id="other order"),
        pytest.param([(1, "x", 0.5), (3, "y", 0.5)], id="other key"),
        pytest.param([(1, "x", 0.5)], id="fewer rows"),
    ],
)
def test_rows_that_do_not_stand_alike_are_read_whole(tmp_path: Path, after: list[Row]) -> None:
    states = _states(tmp_path, [_values([(1, "x", 0.5), (2, "y", 0.5)])], [_values(after)])
    assert _apart(tmp_path, *states) is None


def test_two_files_with_the_same_keys_are_read_whole(tmp_path: Path) -> None:
    twice = [_values([(1, "x", 0.5)]), _values([(1, "y", 0.5)])]
    before, after = _states(tmp_path, twice, twice[::-1])
    assert _apart(tmp_path, before, after) is None
    assert _diff(tmp_path, before, after)[0].is_empty


def test_the_rest_of_a_row_is_not_left_out_where_a_key_stands_twice(tmp_path: Path) -> None:
    """By the one column whose bytes differ alone, the rows would seem to be the same."""
    before, after = _states(
        tmp_path,
        [_values([(1, "x", 0.5), (1, "y", 1.5)])],
        [_values([(1, "x", 1.5), (1, "y", 0.5)])],
    )
    assert _apart(tmp_path, before, after) == frozenset({B})
    found, values = _diff(tmp_path, before, after)
    assert (found.changed, found.repeated_keys) == (2, 1)
    assert values == [("changed", 1, "x", "x", 0.5, 1.5), ("changed", 1, "y", "y", 1.5, 0.5)]


def test_the_same_values_in_another_codec_or_type_are_compared_as_values(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("files")
    kinds: dict[str, pa.DataType] = {"k": pa.int64(), "a": pa.string(), "b": pa.float64()}
    codecs: tuple[tuple[Literal["zstd", "snappy"], pa.DataType], ...] = (
        ("zstd", pa.string()),
        ("snappy", pa.binary()),
    )
    paths = []
    for codec, kind in codecs:
        schema = pa.schema(
            pa.field(name, one, metadata={"PARQUET:field_id": str(n)})
            for n, (name, one) in enumerate({**kinds, "a": kind}.items(), 1)
        )
        rows = pa.Table.from_pylist([{"k": 1, "a": "x", "b": 0.5}], pa.schema(kinds)).cast(schema)
        paths.append(str(folder / f"{codec}.parquet"))
        pq.write_table(rows, paths[-1], compression={"k": "zstd", "a": "zstd", "b": codec})
    with DuckDB(folder / "staging") as engine:
        for path in paths:
            engine.allow(Path(path))
        assert columns_apart(engine, paths[:1], paths[1:], [KEY], [A, B]) == frozenset({A, B})


@settings(max_examples=6)
@given(rows=rows_of, data=st.data())
def test_a_diff_is_that_of_dicts_whatever_was_left_out(
    rows: list[Row], data: st.DataObject
) -> None:
    others = data.draw(st.lists(rows_of.map(lambda some: some[0]), min_size=len(rows)))
    is_text = data.draw(st.booleans())
    after = [
        (key, other[1] if is_text else text, number if is_text else other[2])
        for (key, text, number), other in zip(rows, others, strict=False)
    ]
    with TemporaryDirectory() as folder:
        states = _states(Path(folder), [_values(rows)], [_values(after)])
        found, values = _diff(Path(folder), *states)
    expected = list(_naive(rows, after))
    assert [(one[1], one[2], one[4]) for one in values] == [one for one, _ in expected]
    assert [(one[1], one[3], one[5]) for one in values] == [one for _, one in expected]
    assert found.changed == len(expected)


def _naive(before: Sequence[Row], after: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Of each key equal rows cancel, and the rest are paired in the order of their values."""
    for key in sorted({row[0] for row in before}):
        old, new = (Counter(row for row in rows if row[0] == key) for rows in (before, after))
        yield from zip(sorted((old - new).elements()), sorted((new - old).elements()), strict=True)
