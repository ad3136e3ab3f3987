"""Files from before a column was added hold its default: in slices, bounds, diffs and profiles."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from instep.clock import Window, parse_instant
from instep.engines.duckdb import DuckDB
from instep.engines.engine import Slice
from instep.engines.schema import Column
from instep.history.refs import RefKind, create_ref
from instep.history.repository import MAIN, Repository
from instep.lake import Lake
from instep.tables.diff import diff_rows
from instep.tables.profile_compute import profile_relation
from instep.tables.profile_keep import profile_table
from instep.tables.prune import reaches
from instep.tables.read import data_files, file_set, schema_of
from instep.tables.write import set_columns

MAY = ("2026-05-01", "2026-06-01")
JUNE = ("2026-06-01", "2026-07-01")


@pytest.fixture
def lake(repo: Repository) -> Lake:
    with repo.store.transaction() as tx:
        commit = repo.resolve(MAIN)
        create_ref(tx, "work", RefKind.BRANCH, commit, owner="ana", at=repo.clock())
    return Lake(repo)


def editing(lake: Lake) -> Any:  # a context manager of TableEdit
    return lake.edit("work", message="work", author="ana")


def window(bounds: tuple[str, str]) -> Slice:
    return Slice("c", Window(parse_instant(bounds[0]), parse_instant(bounds[1])))


def in_slice(lake: Lake, bounds: tuple[str, str]) -> int:
    root = lake.repo.root
    with DuckDB(root / "staging") as engine:
        engine.view(file_set(root, lake.branch("work").table("t").content, "cut", window(bounds)))
        [(count,)] = engine.rows("SELECT count(*) FROM cut")
    return int(count)


def table_with_default(lake: Lake, kind: str = "date", default: str = "2026-05-05") -> None:
    with editing(lake) as edit:
        edit.create("t", "select i as k from range(10) r(i)")
        edit.add_column("t", "c", kind, default=default)


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        ("date", "2026-05-05"),
        ("timestamp", "2026-05-05T00:00:00"),
        ("timestamptz", "2026-05-05T00:00:00+00:00"),
    ],
)
def test_a_slice_holds_the_rows_whose_time_is_a_default(
    lake: Lake, kind: str, default: str
) -> None:
    table_with_default(lake, kind, default)
    assert (in_slice(lake, MAY), in_slice(lake, JUNE)) == (10, 0)

    sql = f"select 20::bigint as k, '2026-06-05'::{kind} as c"
    for _ in range(9):  # manifests are merged, so one tells of files with and without the column
        with editing(lake) as edit:
            edit.append("t", sql)
    assert (in_slice(lake, MAY), in_slice(lake, JUNE)) == (10, 9)


def test_a_file_without_the_column_reaches_to_its_default(lake: Lake) -> None:
    table_with_default(lake)
    with editing(lake) as edit:
        edit.append("t", "select 20::bigint as k, NULL::date as c")

    root, table = lake.repo.root, lake.branch("work").table("t").content
    [found] = reaches(data_files(root, table), schema_of(root, table).column("c"))
    assert found.bounds == (parse_instant("2026-05-05"),) * 2


def test_rows_whose_time_is_a_default_are_overwritten_and_deleted(lake: Lake) -> None:
    table_with_default(lake)
    with editing(lake) as edit:
        edit.overwrite("t", "select 99::bigint as k, date '2026-05-06' as c", inside=("c", *MAY))
    assert lake.branch("work").table("t").rows == 1

    with editing(lake) as edit:
        edit.create("u", "select i as k from range(10) r(i)")
        edit.add_column("u", "c", "date", default="2026-05-05")
        edit.delete("u", inside=("c", *MAY))
    assert lake.branch("work").table("u").rows == 0


def test_a_diff_of_a_slice_sees_rows_whose_time_is_a_default(lake: Lake) -> None:
    table_with_default(lake)
    before = lake.branch("work").table("t").content
    with editing(lake) as edit:
        edit.delete("t", where="k = 1")

    after = lake.branch("work").table("t").content
    found = diff_rows(lake.repo.root, before, after, ["k"], part=window(MAY))
    assert (found.added, found.removed) == (0, 1)


@pytest.mark.parametrize("files", [1, 40])
def test_a_profile_counts_the_default_in_files_without_the_column(lake: Lake, files: int) -> None:
    root = lake.repo.root
    with editing(lake) as edit:
        edit.create("t", "select 1::bigint as k")
        for number in range(files):
            edit.append("t", f"select i + {number} as k from range(10) r(i)")
        edit.add_column("t", "c", "date", default="2026-05-05")
        edit.add_column("t", "n", "long", default="5")
        edit.append("t", "select 20::bigint as k, date '2026-06-05' as c, NULL::bigint as n")
    table = lake.branch("work").table("t").content

    kept = profile_table(root, table)
    with DuckDB(root / "staging") as engine:
        engine.view(file_set(root, table, "t"))
        whole = profile_relation(engine.connection, "t", schema_of(root, table).columns)
    assert kept[1:] == whole[1:]
    assert profile_table(root, table) == kept


def test_a_default_keeps_its_value_when_a_float_becomes_a_double(lake: Lake) -> None:
    table_with_default(lake, "float", "0.1")
    with editing(lake) as edit:
        edit.append("t", "select 20::bigint as k, 0.1::float as c")
    before = lake.branch("work").table("t").content
    with editing(lake) as edit:
        edit.promote_column("t", "c", "double")
    after = lake.branch("work").table("t")
    assert diff_rows(lake.repo.root, before, after.content, ["k"]).changed == 0

    with editing(lake) as edit:
        edit.append("t", "select 30::bigint as k")
    found = lake.branch("work").table("t").sql("select distinct c from t").to_pylist()
    assert found == [{"c": 0.10000000149011612}]


@pytest.mark.parametrize(("kind", "value"), [("float", "0.1"), ("double", "0.10000000149011612")])
def test_columns_named_anew_without_a_default_keep_it(lake: Lake, kind: str, value: str) -> None:
    table_with_default(lake, "float", "0.1")
    root, table = lake.repo.root, lake.branch("work").table("t").content
    columns = [Column(0, "k", "long"), Column(0, "c", kind)]
    after = set_columns(root, table, columns, at=datetime(2026, 1, 1, tzinfo=UTC))

    found = schema_of(root, after).column("c")
    assert (found.initial_default, found.write_default) == (value, value)
