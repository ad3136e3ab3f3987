"""What is said of two profiles, and what is not because it may be chance."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from instep.engines.schema import Column, Schema
from instep.tables.columns import promoted, renamed
from instep.tables.content import TableContent
from instep.tables.profile import ColumnProfile, Part
from instep.tables.profile_compute import parts_of_relation
from instep.tables.profile_diff import diff_profiles
from instep.tables.profile_keep import profile_table
from instep.tables.profile_merge import merge_parts
from instep.tables.read import schema_of
from instep.tables.rows import Rows, append_rows, overwrite_rows
from instep.tables.write import create_table, evolve

AT = datetime(2026, 1, 1, tzinfo=UTC)
DELAY = Column(1, "delay", "double")
CARRIER = Column(2, "carrier", "string")


def profile_of(column: Column, *parts: Sequence[object]) -> ColumnProfile:
    connection = duckdb.connect()
    found: list[Part] = []
    for values in parts:
        connection.execute(f"CREATE OR REPLACE TABLE t ({column.name} {column.sql_type})")
        connection.execute(f"INSERT INTO t SELECT unnest(?::{column.sql_type}[])", [list(values)])
        found += parts_of_relation(connection, "t", [column])
    return merge_parts(found, column).figures


def said(before: ColumnProfile, after: ColumnProfile) -> list[str]:
    return [
        f"{change.column or ''}: {change.text}{'' if change.is_sure else ' (estimated)'}"
        for change in diff_profiles({1: before}, {1: after})
    ]


def test_equal_profiles_have_nothing_to_say() -> None:
    one = profile_of(DELAY, [1, 2, None])

    assert said(one, one) == []


def test_a_changed_number_column_in_words() -> None:
    before = profile_of(DELAY, [0, 10, 20, 30])
    after = profile_of(DELAY, [0, 10, 20, 30, 50, None])

    assert said(before, after) == [
        ": 6 rows, 4 before (+2)",
        "delay: null in 16.7 % of rows, 0 % before",
        "delay: ends at 50.0, 30.0 before",
        "delay: mean 22, 15 before: 0.63 deviations up",
        "delay: median 20, 15 before",
        "delay: 5 different values, 4 before",
        'delay: new: "50.0"',
        'delay: "0.0" in 16.7 % of rows, 25 % before',
        'delay: "10.0" in 16.7 % of rows, 25 % before',
        'delay: "20.0" in 16.7 % of rows, 25 % before',
    ]


def test_new_and_vanished_values_are_named_and_the_rest_counted() -> None:
    before = profile_of(CARRIER, ["AA", "UA", "UA", "UA"])
    after = profile_of(CARRIER, ["UA", "B6", "C1", "C2", "C3"])

    assert 'carrier: new: "B6", "C1", "C2" and 1 more' in said(before, after)
    assert 'carrier: no more: "AA"' in said(before, after)


def test_columns_are_the_same_by_field_id() -> None:
    one = profile_of(DELAY, [1, 2])
    renamed = profile_of(Column(1, "late", "double"), [1, 2])

    changes = diff_profiles({1: one, 2: one}, {1: renamed, 3: one})

    assert [(change.column, change.text) for change in changes] == [
        ("late", "was named delay"),
        ("delay", "is a new column"),
        ("delay", "is gone"),
    ]


def test_differences_within_the_errors_of_estimates_are_not_said() -> None:
    chance = random.Random(3)
    parts = [[chance.random() for _ in range(2_000)] for _ in range(4)]
    before = profile_of(DELAY, *parts)
    more = profile_of(DELAY, *parts, [chance.random() for _ in range(200)])
    twice = profile_of(DELAY, *parts, [5 + chance.random() for _ in range(8_000)])

    assert not [text for text in said(before, more) if "estimated" in text]
    estimated = [text for text in said(before, twice) if "estimated" in text]
    assert any("median about" in text for text in estimated)
    assert any("different values" in text for text in estimated)


@pytest.mark.parametrize("values", [[0.1, 0.2, None], [0.1, math.nan, -0.0, 1e30, 1e-40]])
def test_floats_that_became_doubles_have_the_values_they_had(values: list[object]) -> None:
    single, double = (Column(1, "x", kind) for kind in ("float", "double"))
    before = profile_of(single, values)
    table = "SELECT unnest(?::FLOAT[])::DOUBLE"
    exact = [value for (value,) in duckdb.execute(table, [values]).fetchall()]
    after = profile_of(double, exact)

    assert said(before, after) == ["x: is double, float before"]
    assert said(after, before) == ["x: is float, double before"]
    more = profile_of(double, [*exact, 0.3])
    assert 'x: new: "0.3"' in said(before, more)


def test_a_column_of_nothing_but_nan_has_no_least_value_to_tell_of() -> None:
    texts = said(profile_of(DELAY, [math.nan, 1]), profile_of(DELAY, [math.nan, math.nan]))
    assert texts == [
        "delay: 1 different values, 2 before",
        'delay: no more: "1.0"',
        'delay: "nan" in 100 % of rows, 50 % before',
    ]


def test_changes_of_types_and_names_within_are_none_of_rows(tmp_path: Path) -> None:
    within = (Column(0, "a", "int"), Column(0, "f", "float"))
    columns = [Column(0, "x", "float"), Column(0, "s", "struct", children=within)]
    rows = (
        "SELECT (i % 3 * 0.1)::FLOAT AS x, {{'{}': (i % 2)::INT, 'f': 0.1::FLOAT}} AS s "
        "FROM range(9) r(i)"
    )
    table = create_table(tmp_path, "t", columns, at=AT)
    before = append_rows(tmp_path, table, Rows(rows.format("a")), at=AT)

    def change(schema: Schema, _: object) -> Schema:
        wider = promoted(promoted(promoted(schema, "x", "double"), "s.f", "double"), "s.a", "long")
        return renamed(wider, "s.a", "b")

    def columns_of(state: TableContent) -> Sequence[Column]:
        return schema_of(tmp_path, state).columns

    evolved = evolve(tmp_path, before, change, at=AT)
    after = overwrite_rows(tmp_path, evolved, Rows(rows.format("b")), None, at=AT)
    profiles = [
        {column.id: one for column, one in zip(columns_of(state), found, strict=True)}
        for state in (before, evolved, after)
        for found in [profile_table(tmp_path, state)]
    ]
    for older, newer in ((0, 1), (0, 2), (1, 2), (2, 0)):
        found = diff_profiles(profiles[older], profiles[newer])
        assert [one.text for one in found if "float" not in one.text] == []
    assert list(diff_profiles(profiles[1], profiles[2])) == []
