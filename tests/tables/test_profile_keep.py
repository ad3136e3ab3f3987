"""Kept profiles: an append costs what it appends, and nothing damaged is believed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.clock import Window
from instep.engines.duckdb import DuckDB
from instep.engines.engine import Slice, WrittenFile
from instep.history.places import drop_copy
from instep.tables import profile_compute as compute
from instep.tables import profile_keep as keep
from instep.tables.content import TableContent
from instep.tables.profile import ColumnProfile
from instep.tables.profile_keep import (
    Group,
    damaged_profiles,
    grouped,
    profile_files,
    profile_table,
)
from instep.tables.read import DataFile, data_files, schema_of
from instep.tables.write import append, create_table, data_folder, set_columns

AT = datetime(2026, 1, 1, tzinfo=UTC)


def day_of(place: int) -> str:
    return (
        f"SELECT (range + {place * 100})::BIGINT AS n, 'k' || (range % 7) AS s, "
        f"TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_days({place}) + to_minutes(range::INT) AS at "
        "FROM range(100)"
    )


def table_of(root: Path, files: int) -> tuple[TableContent, list[WrittenFile]]:
    """Returns a table with all but the last of some files, and all of them."""
    with DuckDB(root / "staging") as engine:
        table = create_table(root, "t", engine.describe(day_of(0)).columns, at=AT)
        schema, folder = schema_of(root, table), data_folder(root, table)
        written = [file for n in range(files) for file in engine.write(day_of(n), schema, folder)]
    return append(root, table, written[:-1], at=AT), written


def kept_in(root: Path, table: TableContent) -> Path:
    return root / "tables" / table.uuid / "profiles"


def flat(members: tuple[Group | DataFile, ...]) -> Iterator[DataFile]:
    for one in members:
        if isinstance(one, Group):
            yield from flat(one.members)
        else:
            yield one


def groups_in(members: tuple[Group | DataFile, ...]) -> set[str]:
    return {
        key
        for one in members
        if isinstance(one, Group)
        for key in (one.key, *groups_in(one.members))
    }


def files_like(count: int, seed: int) -> list[DataFile]:
    digests = (hashlib.sha256(f"{seed} {place}".encode()).hexdigest() for place in range(count))
    return [WrittenFile(f"/{digest}", 1, 1, digest, ()) for digest in digests]


@settings(max_examples=60)
@given(st.integers(0, 2_000), st.integers(0, 1_000))
def test_groups_hold_every_file_in_order_and_an_append_closes_few(count: int, seed: int) -> None:
    files = files_like(count + 1, seed)
    before, after = grouped(files[:-1]), grouped(files)

    assert list(flat(after)) == files
    assert sum(group.rows for group in after) == len(files)
    assert len(after) <= 4 * 32
    assert len(groups_in(after) - groups_in(before)) <= 5


def test_after_an_append_only_the_new_file_is_read(tmp_path: Path) -> None:
    table, files = table_of(tmp_path, 40)
    before = profile_table(tmp_path, table)
    for file in files[:-1]:
        (tmp_path / file.path).unlink()
        drop_copy(tmp_path / file.path)
    table = append(tmp_path, table, files[-1:], at=AT)

    n, s, _ = profile_table(tmp_path, table)

    assert (before[0].count, n.count) == (3_900, 4_000)
    assert (n.minimum, n.maximum) == ("0", "3999")
    assert n.mean == pytest.approx(1999.5)
    assert s.distinct == 7
    assert dict(s.frequent)["k0"] == 40 * 15
    assert s.exact >= {"distinct", "frequent"}


def test_grouped_profiles_say_the_same_as_profiles_of_files_within_their_errors(
    tmp_path: Path,
) -> None:
    table, _ = table_of(tmp_path, 60)
    files = data_files(tmp_path, table)
    assert groups_in(grouped(files))

    n, s, at = profile_table(tmp_path, table)

    assert (n.count, s.count, at.count) == (5_900, 5_900, 5_900)
    assert abs(n.distinct - 5_900) <= n.distinct_error * 5_900
    for percent, value in enumerate(n.quantiles):
        assert abs(value / 5_900 - percent / 100) <= n.quantile_error + 1 / 5_900


def test_a_damaged_kept_profile_is_noticed_and_made_again(tmp_path: Path) -> None:
    table, _ = table_of(tmp_path, 30)
    folder = kept_in(tmp_path, table)
    first = profile_table(tmp_path, table)
    kept = sorted(folder.iterdir())
    assert list(damaged_profiles(folder)) == []

    for path in kept:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
        drop_copy(path)

    assert list(damaged_profiles(folder)) == kept
    assert profile_table(tmp_path, table) == first
    assert list(damaged_profiles(folder)) == []


def test_every_flipped_byte_of_a_kept_profile_is_noticed(tmp_path: Path) -> None:
    table, _ = table_of(tmp_path, 2)
    profile_table(tmp_path, table)
    (path,) = kept_in(tmp_path, table).iterdir()
    data = path.read_bytes()

    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        assert list(damaged_profiles(path.parent)) == [path], place
    for short in (b"", data[:3], data[:-1]):
        path.write_bytes(short)
        assert list(damaged_profiles(path.parent)) == [path]


def test_profiles_of_another_hash_function_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, _ = table_of(tmp_path, 3)
    first = profile_table(tmp_path, table)
    before = {path.name: path.read_bytes() for path in kept_in(tmp_path, table).iterdir()}
    monkeypatch.setattr(keep, "_FORM", 99)

    assert profile_table(tmp_path, table) == first
    after = {path.name: path.read_bytes() for path in kept_in(tmp_path, table).iterdir()}
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)


@pytest.mark.parametrize("older", [1, 3])
def test_profiles_of_an_older_form_with_other_columns_are_made_again(
    tmp_path: Path, older: int
) -> None:
    table, files = table_of(tmp_path, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keep, "_FORM", 2)
        patch.setattr(keep, "_FORMED", [one for one in keep._FORMED if one[0] != "shape"])
        profile_files(tmp_path, table, files[:older])

    for _ in range(2):
        n, s, _ = profile_table(tmp_path, table)
        assert (n.count, n.distinct, s.distinct) == (300, 300, 7)
    kept = [pq.read_schema(path).names for path in kept_in(tmp_path, table).iterdir()]
    assert len(kept) == 3
    assert all("shape" in names for names in kept)


def test_a_kept_profile_is_a_parquet_file_of_plain_columns(tmp_path: Path) -> None:
    table, files = table_of(tmp_path, 2)
    profile_table(tmp_path, table)

    rows = pq.read_table(kept_in(tmp_path, table) / f"{files[0].digest}.parquet").to_pylist()

    n = next(row for row in rows if row["name"] == "n")
    assert (n["field_id"], n["count"], n["nulls"], n["distinct"]) == (1, 100, 0, 100)
    assert (n["minimum"], n["maximum"], n["mean"]) == ("0", "99", 49.5)
    assert (len(n["quantiles"]), len(n["hashes"]), len(n["points"])) == (101, 100, 401)
    assert "distinct" in n["exact"]


def test_the_profile_of_a_slice_counts_its_rows_and_no_others(tmp_path: Path) -> None:
    table, files = table_of(tmp_path, 6)
    window = Window(datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 4, 0, 30, tzinfo=UTC))
    profile_table(tmp_path, table)
    (tmp_path / files[1].path).unlink()  # it lies in the slice as a whole
    drop_copy(tmp_path / files[1].path)

    n, s, _ = profile_table(tmp_path, table, Slice("at", window))

    assert (n.count, n.minimum, n.maximum, n.distinct) == (230, "100", "329", 230)
    assert s.distinct == 7


def test_a_large_file_is_sampled_and_keeps_the_errors_it_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("COUNTED_ROWS", 1000), ("COUNTED_VALUES", 100), ("SAMPLED_ROWS", 20_000)):
        monkeypatch.setattr(compute, name, value)
    sql = (
        "SELECT if(range % 3 = 0, range % 40, range)::BIGINT AS n, "
        "(hash(range) % 60000)::DOUBLE / 7 AS d FROM range(200000)"
    )
    with DuckDB(tmp_path / "staging") as engine:
        table = create_table(tmp_path, "t", engine.describe(sql).columns, at=AT)
        files = engine.write(sql, schema_of(tmp_path, table), data_folder(tmp_path, table))
        truth = engine.rows(f"SELECT count(DISTINCT n), count(DISTINCT d) FROM ({sql})")[0]
        counts = dict(engine.rows(f"SELECT n::VARCHAR, count(*) FROM ({sql}) GROUP BY ALL"))
        places = engine.connection
        table = append(tmp_path, table, files, at=AT)
        n, d = profile_files(tmp_path, table, files)
        for found, column in ((n, "n"), (d, "d")):
            for percent, quantile in enumerate(found.quantiles):
                row = places.execute(
                    f"SELECT avg(({column} < {quantile})::INT), avg(({column} <= {quantile})::INT) "
                    f"FROM ({sql})"
                ).fetchone()
                assert row is not None
                assert row[0] - found.quantile_error <= percent / 100
                assert percent / 100 <= row[1] + found.quantile_error

    assert n.quantile_error == pytest.approx(math.sqrt(math.log(2000) / 40_000), rel=0.02)
    for found, distinct in ((n, truth[0]), (d, truth[1])):
        assert "distinct" not in found.exact
        assert abs(found.distinct - distinct) <= found.distinct_error * distinct
    assert _names(n) >= {str(value) for value in range(40)}
    for text, rows in n.frequent:
        assert abs(rows - counts[text]) <= n.frequent_error
    assert max(rows for text, rows in counts.items() if text not in _names(n)) <= n.frequent_below


def _names(one: ColumnProfile) -> set[str]:
    return {text for text, _ in one.frequent}


@pytest.mark.parametrize("files", [1, 40])
def test_a_column_dropped_since_is_profiled_for_the_states_that_have_it(
    tmp_path: Path, files: int
) -> None:
    table, _ = table_of(tmp_path, files + 1)
    without = [column for column in schema_of(tmp_path, table).columns if column.name != "s"]
    later = set_columns(tmp_path, table, without, at=AT)
    assert [one.name for one in profile_table(tmp_path, later)] == ["n", "at"]

    profile = {one.name: one for one in profile_table(tmp_path, table)}

    assert (profile["s"].count, profile["s"].nulls, profile["s"].distinct) == (files * 100, 0, 7)
    assert profile_table(tmp_path, later) == (profile["n"], profile["at"])
