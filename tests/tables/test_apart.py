"""Rows apart, against a naive full outer join in Python."""

from __future__ import annotations

import math
from collections import Counter
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.engines.duckdb import DuckDB
from instep.tables.apart import Compared, Range, Sides, Tolerance, find_apart, find_one_sided
from instep.tables.row_diff import RowChange, RowDiff, RowsApart

Row = tuple[int | None, str | None, float | None]
NAMES = ("k", "v", "d")
WHOLE = ("true",)
CUT = ("c0 < 2", "c0 >= 2 AND c0 < 3", "c0 >= 3", "c0 IS NULL")
NAN = float("nan")
any_rows = st.lists(
    st.tuples(
        st.integers(0, 4) | st.none(),
        st.sampled_from(["a", "b", "", None]),
        st.sampled_from([0.5, 0.501, 2.0, 0.0, -0.0, NAN, math.inf, -math.inf, None]),
    ),
    max_size=8,
)
Plain = tuple[tuple[bool, object], ...]


def _plain(row: Row) -> Plain:
    """A row that Python compares and orders as SQL does: nulls last, NaN above infinity."""
    k, v, d = row
    number = (math.isnan(d), 0.0 if math.isnan(d) else d + 0.0) if d is not None else ()
    return ((k is None, k or 0), (v is None, v or ""), (d is None, number))


def _same(one: Plain, two: Plain, tolerance: float) -> bool:
    """Says whether the floats of two rows with equal keys, and the rest, are equal enough."""
    if one[1] != two[1] or one[2][0] != two[2][0]:
        return False
    a, b = one[2][1], two[2][1]
    if a == b or not (isinstance(a, tuple) and isinstance(b, tuple) and a and b):
        return a == b
    finite = not (a[0] or b[0] or math.isinf(a[1]) or math.isinf(b[1]))
    return finite and abs(a[1] - b[1]) <= tolerance


def _naive(
    before: list[Row], after: list[Row], tolerance: float
) -> tuple[Counter[tuple[str, Plain | None, Plain | None]], dict[object, tuple[int, int]]]:
    """A full outer join of two lists by their first column: what differs, and repeated keys."""
    found: Counter[tuple[str, Plain | None, Plain | None]] = Counter()
    repeated: dict[object, tuple[int, int]] = {}
    for key in {row[0] for row in (*before, *after)}:
        old = Counter(_plain(row) for row in before if row[0] == key)
        new = Counter(_plain(row) for row in after if row[0] == key)
        if old.total() > 1 or new.total() > 1:
            repeated[key] = (old.total(), new.total())
        for one, two in zip_longest(sorted((old - new).elements()), sorted((new - old).elements())):
            if one is None:
                found["added", None, two] += 1
            elif two is None:
                found["removed", one, None] += 1
            elif not _same(one, two, tolerance):
                found["changed", one, two] += 1
    return found, repeated


def _sides(is_keyed: bool, tolerance: Tolerance | None = None) -> Sides:
    columns = ("BIGINT", is_keyed, None), ("VARCHAR", False, None), ("DOUBLE", False, tolerance)
    return Sides("old", "new", tuple(Compared(*column) for column in columns))


def _view(engine: DuckDB, name: str, rows: list[Row]) -> None:
    def cell(value: object) -> str:
        return "NULL" if value is None else f"'{value}'"

    listed = ", ".join(f"({', '.join(cell(value) for value in row)})" for row in rows)
    some = f"(VALUES {listed}) t(k, v, d)" if rows else "(SELECT 0 k, '' v, 0 d WHERE false)"
    engine.run(
        f"CREATE VIEW {name} AS SELECT k::BIGINT c0, v::VARCHAR c1, d::DOUBLE c2 FROM {some}"
    )


def _found(
    before: list[Row], after: list[Row], sides: Sides, ranges: tuple[str, ...]
) -> tuple[RowDiff, list[tuple[Any, ...]]]:  # of any SQL type
    with TemporaryDirectory() as folder, DuckDB(Path(folder), threads=1) as engine:
        _view(engine, "old", before)
        _view(engine, "new", after)
        find_apart(engine, sides, lambda _: [Range(one, "old", "new") for one in ranges])
        rows = RowsApart(engine, NAMES, sides.columns)
        return rows.summary(sampled=100), rows.table().fetchall()


@settings(max_examples=100)
@given(
    before=any_rows,
    after=any_rows,
    tolerance=st.sampled_from([0.0, 0.01]),
    ranges=st.sampled_from([WHOLE, CUT]),
)
def test_a_keyed_comparison_is_a_full_outer_join(
    before: list[Row], after: list[Row], tolerance: float, ranges: tuple[str, ...]
) -> None:
    allowed = Tolerance(tolerance) if tolerance else None
    found, listed = _found(before, after, _sides(True, allowed), ranges)

    expected, repeated = _naive(before, after, tolerance)
    assert Counter(_listed(row) for row in listed) == expected
    for change in RowChange:
        count = sum(n for (kind, _, _), n in expected.items() if kind == change)
        assert getattr(found, change.value) == count
        assert sum(row.change is change for row in found.sample) == count
    assert found.repeated_keys == len(repeated)
    assert {one.key: (one.before, one.after) for one in found.repeated} == {
        (None if key is None else str(key),): counts for key, counts in repeated.items()
    }


def _listed(row: tuple[Any, ...]) -> tuple[str, Plain | None, Plain | None]:  # of any SQL type
    change, k, old_v, new_v, old_d, new_d = row
    return (
        change,
        None if change == "added" else _plain((k, old_v, old_d)),
        None if change == "removed" else _plain((k, new_v, new_d)),
    )


@settings(max_examples=50)
@given(before=any_rows, after=any_rows, ranges=st.sampled_from([WHOLE, CUT]))
def test_a_keyless_comparison_is_that_of_multisets(
    before: list[Row], after: list[Row], ranges: tuple[str, ...]
) -> None:
    found, listed = _found(before, after, _sides(False), ranges)

    old, new = Counter(map(_plain, before)), Counter(map(_plain, after))
    assert (found.added, found.removed) == ((new - old).total(), (old - new).total())
    assert found.changed == 0
    assert Counter(_plain(row[1:]) for row in listed if row[0] == "added") == new - old
    assert Counter(_plain(row[1:]) for row in listed if row[0] == "removed") == old - new


@pytest.mark.parametrize(
    ("tolerance", "one", "two", "is_equal"),
    [
        (Tolerance(0.5), 1.0, 1.5, True),
        (Tolerance(0.5), 1.0, 1.6, False),
        (Tolerance(relative=0.01), 100.0, 101.0, True),
        (Tolerance(relative=0.01), 100.0, 102.0, False),
        (Tolerance(1e9), math.inf, -math.inf, False),
        (Tolerance(1e9), math.inf, math.inf, True),
        (Tolerance(1e9), math.nan, 0.0, False),
        (Tolerance(1e9), math.nan, math.nan, True),
        (Tolerance(1e9), 1e308, -1e308, False),
        (Tolerance(1e9), None, 0.0, False),
        (Tolerance(1e9), None, None, True),
    ],
)
def test_a_tolerance_is_absolute_or_relative_to_the_larger(
    tolerance: Tolerance, one: float | None, two: float | None, is_equal: bool
) -> None:
    sides = Sides(
        "old",
        "new",
        (
            Compared("BIGINT", True),
            Compared("VARCHAR", False),
            Compared("DOUBLE", False, tolerance),
        ),
    )
    found, _ = _found([(1, "a", one)], [(1, "a", two)], sides, WHOLE)
    assert (found.changed == 0) == is_equal


def test_the_only_side_is_not_copied_and_its_repeated_keys_are_named(tmp_path: Path) -> None:
    sides = _sides(True)
    with DuckDB(tmp_path) as engine:
        _view(engine, "old", [])
        _view(engine, "new", [(1, "a", 0.5), (1, "b", 0.5), (2, "c", None)])
        find_one_sided(engine, sides, is_added=True)
        found = RowsApart(engine, NAMES, sides.columns).summary(sampled=5)
    assert (found.added, found.removed, found.changed) == (3, 0, 0)
    assert [(one.key, one.before, one.after) for one in found.repeated] == [(("1",), 0, 2)]
