"""Merging profiles: exact figures against the whole, estimates within the error they state."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.engines.schema import Column
from instep.tables.profile import KEPT_HASHES, ColumnProfile, Part
from instep.tables.profile_compute import parts_of_relation
from instep.tables.profile_merge import merge_parts

NUMBER = Column(1, "x", "double")
TEXT = Column(1, "x", "string")

EXACT = ("count", "nulls", "minimum", "maximum")

Numbers = list[float | None]


def part_of(values: Sequence[object], column: Column = NUMBER) -> Part:
    connection = duckdb.connect()
    connection.execute(f"CREATE TABLE t (x {column.sql_type})")
    connection.execute(f"INSERT INTO t SELECT unnest(?::{column.sql_type}[])", [list(values)])
    return parts_of_relation(connection, "t", [column])[0]


def rank_error(one: ColumnProfile, values: Sequence[float]) -> float:
    """Returns how far the worst of the 101 quantiles is from its rank, as a share of the rows."""
    ordered, worst = sorted(values), 0.0
    for percent, value in enumerate(one.quantiles):
        below = sum(1 for one in ordered if one < value) / len(ordered)
        upto = sum(1 for one in ordered if one <= value) / len(ordered)
        worst = max(worst, below - percent / 100, percent / 100 - upto)
    return worst


numbers = st.lists(
    st.integers(-200, 200).map(lambda n: n / 4) | st.none() | st.sampled_from([math.nan, math.inf]),
    max_size=150,
)


@settings(max_examples=40)
@given(st.lists(numbers, min_size=1, max_size=5))
def test_exact_figures_of_the_merge_are_those_of_all_rows(parts: list[Numbers]) -> None:
    whole = part_of([value for part in parts for value in part]).figures
    merged = merge_parts([part_of(part) for part in parts], NUMBER).figures

    for figure in (*EXACT, "distinct"):
        assert getattr(merged, figure) == getattr(whole, figure), figure
    for mine, theirs in ((merged.mean, whole.mean), (merged.deviation, whole.deviation)):
        assert mine == (None if theirs is None else pytest.approx(theirs, abs=1e-9))
    if whole.count:
        assert merged.exact >= {*EXACT, "mean", "deviation", "distinct"}


@settings(max_examples=40)
@given(st.lists(numbers, min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_any_grouping_in_any_order_merges_to_the_same_within_the_stated_errors(
    parts: list[Numbers], chance: random.Random
) -> None:
    values = [value for part in parts for value in part]
    finite = [value for value in values if value is not None and math.isfinite(value)]
    flat = merge_parts([part_of(part) for part in parts], NUMBER)
    mixed = [part_of(part) for part in parts]
    while len(mixed) > 1:
        chance.shuffle(mixed)
        mixed = [merge_parts(mixed[:2], NUMBER), *mixed[2:]]
    grouped = mixed[0]

    assert grouped.sketch.hashes == flat.sketch.hashes
    for figure in (*EXACT, "distinct"):
        assert getattr(grouped.figures, figure) == getattr(flat.figures, figure), figure
    for found in (grouped.figures, flat.figures):
        if finite:
            # quantile_cont, which exact profiles give, lies between two values of the column.
            free = 1 / len(finite) if "quantiles" in found.exact else 0
            assert rank_error(found, finite) <= found.quantile_error + free + 1e-9
        check_frequent(found, Counter(str(one) for one in values if one is not None))


def check_frequent(found: ColumnProfile, truth: Counter[str]) -> None:
    listed = dict(found.frequent)
    for text, rows in listed.items():
        assert abs(rows - truth[text]) <= found.frequent_error
    for text, rows in truth.items():
        assert text in listed or rows <= found.frequent_below


def test_estimates_of_many_values_keep_the_error_they_state() -> None:
    chance = random.Random(5)
    parts = [[chance.gauss(place, 3) for _ in range(3_000)] for place in range(8)]
    values = [value for part in parts for value in part]

    merged = merge_parts([part_of(part) for part in parts], NUMBER).figures

    assert {"distinct", "quantiles"}.isdisjoint(merged.exact)
    assert 0 < merged.distinct_error < 0.11
    assert abs(merged.distinct - len(set(values))) <= merged.distinct_error * len(set(values))
    assert 0 < merged.quantile_error <= 1 / 400
    assert rank_error(merged, values) <= merged.quantile_error
    assert merged.mean == pytest.approx(statistics.fmean(values))


def test_merged_parts_that_share_their_values_do_not_count_them_twice() -> None:
    shared = [f"N{place}" for place in range(5_000)]
    halves = [part_of(shared[:3_000], TEXT), part_of(shared[1_000:], TEXT)]

    merged = merge_parts(halves, TEXT).figures

    assert merged.distinct == pytest.approx(5_000, rel=merged.distinct_error)


def test_the_number_of_values_stays_exact_as_long_as_all_hashes_are_kept() -> None:
    parts = [
        part_of([f"N{place}" for place in range(start, start + 600)], TEXT) for start in (0, 300)
    ]

    merged = merge_parts(parts, TEXT).figures

    assert merged.distinct == 900 < KEPT_HASHES
    assert "distinct" in merged.exact


def test_frequent_values_that_some_parts_do_not_list_are_within_the_stated_error() -> None:
    chance = random.Random(9)
    names = [f"v{place}" for place in range(120)]
    weights = [1 / (place + 1) for place in range(120)]
    parts = [chance.choices(names, weights, k=400) for _ in range(12)]

    merged = merge_parts([part_of(part, TEXT) for part in parts], TEXT).figures

    assert merged.frequent_below > 0
    check_frequent(merged, Counter(value for part in parts for value in part))


def test_a_number_has_the_same_hash_whatever_the_width_of_its_type() -> None:
    for numbers, kinds in (
        ([1, -2, 3], ["int", "long"]),
        ([0.5, -2.0, 0.1], ["float", "double"]),
        ([Decimal("-1.25"), Decimal("0.00")], ["decimal(4,2)", "decimal(9,2)", "decimal(38,2)"]),
    ):
        columns = [Column(1, "x", kind) for kind in kinds]
        listed = f"SELECT unnest(?::{columns[0].sql_type}[])"
        values = [value for (value,) in duckdb.execute(listed, [numbers]).fetchall()]
        assert len({str(part_of(values, column).sketch.hashes) for column in columns}) == 1


WITHIN: list[list[int | None] | None] = [[1], [], None, [None]]
NULLS = Column(2, "element", "list", children=(Column(3, "element", "int"),))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (TEXT, [f"carrier{a}flight-{b}" for a in "ABCDEFGHIJ" for b in "ABCDEFGHIJ"]),
        (Column(1, "x", "binary"), [bytes([1] * 7 + [a] + [1] * 7 + [a * 7 % 100])
                                    for a in range(100)]),
        (Column(1, "x", "decimal(38,2)"), [Decimal(n) / 100 for n in range(-50, 50)]),
        (Column(1, "x", "uuid"), [UUID(int=(n << 64 | n) ^ 1 << 127) for n in range(99)]
                                 + [UUID(int=2**127 - 1)]),
        (Column(1, "x", "list", children=(NULLS,)),
         [[one, other, [n]] for one in WITHIN for other in WITHIN for n in range(5)]),
    ],
    ids=["texts", "bytes", "decimals", "uuids", "lists"],
)  # fmt: skip
def test_values_that_the_hash_of_the_engine_takes_for_one_are_counted_apart(
    column: Column, values: list[object]
) -> None:
    other = [values[0]] * 60  # more than can be listed, so that hashes tell their number
    merged = merge_parts([part_of(values, column), part_of(other, column)], column).figures

    assert "distinct" in merged.exact
    assert merged.distinct == len({repr(value) for value in values})


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("binary", [b"\xff", b"a", b"", b"\x00'", b"a\\", "ä".encode(), b"\\xFF"]),
        ("fixed[1]", [b"\xff", b"a", b"\\", b"z"]),
        ("double", [-0.0, 0.0, 5.0, -5.0, math.nan, -math.nan, math.inf, 1e308, 1e-320]),
        ("float", [0.1, 0.2, -0.0, 0.0, 1e30, math.nan, -math.nan]),
        ("long", [2**63 - 1, 2**53 + 1, 2**53, -(2**63), 10, 9]),
        ("decimal(9,2)", ["-1.50", "10.00", "9.00"]),
        (
            "date",
            [
                "infinity",
                "-infinity",
                "12000-01-01",
                "2013-01-01",
                "0044-03-15 (BC)",
                "0100-03-15 (BC)",
            ],
        ),
        ("timestamp", ["2013-01-01 00:00:00.5", "2013-01-01", "12000-01-01", "0044-03-15 (BC)"]),
        ("string", ["a", "B", "", "ä", "\uffff", "\U0001f600"]),
    ],
)
@pytest.mark.parametrize("repeated", [1, 60])
def test_values_of_every_type_merge_in_the_order_that_they_have(
    kind: str, values: list[object], repeated: int
) -> None:
    column = Column(1, "x", kind)
    more = [[value] * repeated for value in [*values, values[0]]]
    whole = part_of([value for part in more for value in part], column).figures
    merged = merge_parts([part_of(part, column) for part in more], column).figures

    for figure in (*EXACT, "distinct", "mean", "deviation", "quantiles", "frequent"):
        assert getattr(merged, figure) == getattr(whole, figure), figure


def test_extremes_are_those_of_the_values_where_not_all_are_listed() -> None:
    column = Column(1, "x", "binary")
    parts = [[bytes([n, m]) for m in range(60)] for n in (0, 97, 255)]
    whole = part_of([value for part in parts for value in part], column).figures
    merged = merge_parts([part_of(part, column) for part in parts], column).figures
    assert (merged.minimum, merged.maximum) == (whole.minimum, whole.maximum)
