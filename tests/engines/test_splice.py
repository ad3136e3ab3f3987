"""Files put together of the bytes of two: what every reader finds in them, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from instep.engines.parquet_bytes import MAGIC, read_footer, write_footer
from instep.engines.splice import TakenApart, spliced

ROWS = 10_000
GROUP = 4096
COLUMNS = {
    "n": "i",
    "city": "'city ' || i % 50",  # a dictionary and a bloom filter
    "tail": "md5(i::VARCHAR)",
    "x": "CASE i % 7 WHEN 0 THEN NULL WHEN 1 THEN 'nan'::DOUBLE ELSE i / 3 END",
    "d": "(i / 100)::DECIMAL(30, 3)",
    "since": "TIMESTAMPTZ '2026-01-01' + INTERVAL (i) SECOND",
    "id": "gen_random_uuid()",
    "s": "CASE WHEN i % 5 > 0 THEN {'a': i, 'b': [i, NULL]} END",
    "l": "CASE WHEN i % 3 > 0 THEN range(i % 4) END",
    "m": "CASE WHEN i % 9 > 0 THEN map {i::VARCHAR: i % 11} END",
}
OTHER = {
    "n": "-i",
    "city": "'town ' || i % 300",
    "tail": "CASE WHEN i % 2 = 0 THEN 'é' || i END",
    "x": "(i * 0.5)::DOUBLE",
    "d": "NULL::DECIMAL(30, 3)",
    "since": "TIMESTAMPTZ '1969-01-01' - INTERVAL (i) DAY",
    "id": "gen_random_uuid()",
    "s": "CASE WHEN i % 2 > 0 THEN {'a': NULL::BIGINT, 'b': range(i % 3)} END",
    "l": "CASE WHEN i % 2 = 0 THEN [i] END",
    "m": "CASE WHEN i % 3 > 0 THEN map {'k': NULL::BIGINT} END",
}


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def _file(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    columns: dict[str, str],
    rows: int = ROWS,
) -> Path:
    values = ", ".join(f"{value} AS {name}" for name, value in columns.items())
    listed = [*COLUMNS]
    ids = ", ".join(
        f"{one}: {{__duckdb_field_id: {listed.index(one) + 1}}}" for one in columns if one in listed
    )
    ids = f"FIELD_IDS {{{ids}}}, " if ids else ""
    connection.execute(
        f"COPY (SELECT {values} FROM range({rows}) t(i) ORDER BY i) TO '{path}' "
        f"(FORMAT parquet, COMPRESSION zstd, {ids}ROW_GROUP_SIZE {GROUP})"
    )
    return path


def _spliced(base: Path, columns: Path, target: Path, most_bytes: int = 1 << 40) -> bool:
    found = TakenApart.of(base)
    assert found is not None
    assert found.row_group_rows == GROUP
    return spliced(found, columns, target, most_bytes)


@pytest.mark.parametrize(
    "names",
    [["city"], ["x", "tail"], ["s"], ["m", "n", "l"], [*COLUMNS][::-1]],
    ids=lambda names: "-".join(names),
)
def test_every_reader_finds_the_new_columns_beside_the_old_ones(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection, names: Sequence[str]
) -> None:
    base = _file(connection, tmp_path / "base.parquet", COLUMNS)
    new = _file(connection, tmp_path / "new.parquet", {name: OTHER[name] for name in names})
    target = tmp_path / "target.parquet"

    assert _spliced(base, new, target)

    expected = pq.read_table(base)
    for name in names:
        place = expected.schema.get_field_index(name)
        column = pq.read_table(new, columns=[name])
        expected = expected.set_column(place, column.schema.field(name), column.column(name))
    assert pq.read_table(target).to_pylist().__repr__() == expected.to_pylist().__repr__()
    by_polars = pl.read_parquet(target).rows()
    assert repr(by_polars) == repr(pl.DataFrame(expected).rows())
    # DuckDB leaves out row groups by bounds and bloom filters, one value at a time.
    for name, value in (("city", "'town 7'"), ("city", "'city 7'"), ("n", "-4000"), ("n", "77")):
        found = connection.execute(
            f"SELECT count(*) FROM read_parquet('{target}') WHERE {name} = {value}"
        ).fetchall()
        text = value.strip("'")
        assert found == [(sum(str(one) == text for one in expected[name].to_pylist()),)]


def test_bounds_and_bloom_filters_are_those_of_the_bytes(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    base = _file(connection, tmp_path / "base.parquet", COLUMNS)
    new = _file(connection, tmp_path / "new.parquet", {"n": OTHER["n"]})
    target = tmp_path / "target.parquet"
    assert _spliced(base, new, target)

    told = {
        path: {
            (group, name): rest
            for group, name, *rest in connection.execute(
                "SELECT row_group_id, path_in_schema, num_values, stats_min_value, "
                "stats_max_value, stats_null_count, stats_nan_count, encodings, compression, "
                f"total_compressed_size, bloom_filter_length FROM parquet_metadata('{path}')"
            ).fetchall()
        }
        for path in (base, new, target)
    }
    assert told[target] == told[base] | told[new]
    assert any(rest[-1] for rest in told[target].values())
    for value, is_left_out in (("city 7", False), ("town 7", True)):
        probed = connection.execute(
            f"SELECT bloom_filter_excludes FROM parquet_bloom_probe('{target}', 'city', '{value}')"
        ).fetchall()
        assert probed == [(is_left_out,)] * 3


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        ({"n": "i::INTEGER"}, ROWS),
        ({"other": "i"}, ROWS),
        ({"s": "{'a': i}"}, ROWS),
        ({"n": "i"}, ROWS - 1),
        ({"n": "i"}, ROWS * 2),
    ],
    ids=["another type", "a column it lacks", "other fields", "less rows", "more rows"],
)
def test_what_does_not_fit_is_not_put_together(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection, columns: dict[str, str], rows: int
) -> None:
    base = _file(connection, tmp_path / "base.parquet", COLUMNS)
    new = _file(connection, tmp_path / "new.parquet", columns, rows)
    assert not _spliced(base, new, tmp_path / "target.parquet")
    assert not (tmp_path / "target.parquet").exists()


def test_nulls_may_come_into_a_column_that_was_written_without_any(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    first = _file(connection, tmp_path / "first.parquet", {"n": "i", "tail": "i::VARCHAR"})
    base = tmp_path / "base.parquet"
    # What is read of a file without nulls is known to have none.
    connection.execute(
        f"COPY (SELECT * FROM '{first}') TO '{base}' (FORMAT parquet, ROW_GROUP_SIZE {GROUP}, "
        "FIELD_IDS {n: 1, tail: 3})"
    )
    assert not pq.read_schema(base).field("tail").nullable
    new = _file(connection, tmp_path / "new.parquet", {"tail": OTHER["tail"]})
    target = tmp_path / "target.parquet"
    assert _spliced(base, new, target)
    expected = pq.read_table(new).column("tail").to_pylist()
    assert pq.read_table(target).column("tail").to_pylist() == expected
    assert pl.read_parquet(target)["tail"].to_list() == expected
    found = connection.execute(f"SELECT tail FROM '{target}' ORDER BY n").fetchall()
    assert [one for (one,) in found] == expected
    assert not pq.read_schema(target).field("n").nullable


def test_a_file_does_not_grow_beyond_bounds(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    base = _file(connection, tmp_path / "base.parquet", {"n": "i", "tail": "''"})
    new = _file(connection, tmp_path / "new.parquet", {"tail": COLUMNS["tail"]})
    target = tmp_path / "target.parquet"
    assert not _spliced(base, new, target, base.stat().st_size)
    assert not target.exists()


def test_files_of_other_writers_and_of_uneven_row_groups_are_not_taken_apart(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    rows = pa.table({"n": range(ROWS)})
    pq.write_table(rows, tmp_path / "other.parquet", row_group_size=GROUP)
    assert TakenApart.of(tmp_path / "other.parquet") is None

    connection.execute(
        f"COPY (SELECT 1 AS n WHERE false) TO '{tmp_path / 'empty.parquet'}' (FORMAT parquet)"
    )
    assert TakenApart.of(tmp_path / "empty.parquet") is None


@pytest.mark.parametrize("has_page_index", [False, True])
def test_a_footer_is_written_as_it_was_read(tmp_path: Path, has_page_index: bool) -> None:
    rows = pa.table({"n": range(100), "s": [{"a": [str(n)], "b": None} for n in range(100)]})
    path = tmp_path / "file.parquet"
    pq.write_table(
        rows.replace_schema_metadata({"k": "v"}),
        path,
        row_group_size=30,
        write_page_index=has_page_index,
        sorting_columns=[pq.SortingColumn(0, descending=True)],
        use_dictionary=False,
        store_decimal_as_integer=True,
    )
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    footer = read_footer(path)

    with (tmp_path / "footer").open("wb") as file:
        write_footer(file, footer)

    assert (tmp_path / "footer").read_bytes() == data[-8 - length :]
    assert data[-4:] == MAGIC
