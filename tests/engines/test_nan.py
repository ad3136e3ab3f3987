"""NaN is found where the footers of files leave it out of the bounds they tell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from instep.engines.duckdb import DuckDB
from instep.engines.engine import FileSet
from instep.engines.schema import Column, Schema

NAN = math.nan


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DuckDB]:
    with DuckDB(tmp_path / "temp") as engine:
        yield engine


def _field(name: str, kind: pa.DataType, field_id: int) -> pa.Field[Any]:  # of any type
    return pa.field(name, kind, metadata={"PARQUET:field_id": str(field_id)})


def _struct(name: str, *children: Column, field_id: int = 4) -> Column:
    return Column(field_id, name, "struct", children=children)


X = Column(5, "x", "double")
AS_WRITTEN = (
    Column(1, "n", "long"),
    Column(2, "x", "double"),
    Column(3, "f", "float"),
    _struct("s", X),
    Column(6, "l", "list", children=(Column(7, "element", "double"),)),
)
RENAMED = (Column(1, "m", "long"), *AS_WRITTEN[1:])
ADDED_WITHIN = (*AS_WRITTEN[:3], _struct("s", X, Column(9, "y", "long")), *AS_WRITTEN[4:])


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A file of another writer, in whose bounds there is no NaN."""
    values = [1.0, NAN, 2.0]
    fields = [
        _field("n", pa.int64(), 1),
        _field("x", pa.float64(), 2),
        _field("f", pa.float32(), 3),
        _field("s", pa.struct([_field("x", pa.float64(), 5)]), 4),
        _field("l", pa.list_(_field("element", pa.float64(), 7)), 6),
    ]
    rows = [{"n": n, "x": x, "f": x, "s": {"x": x}, "l": [x]} for n, x in enumerate(values)]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(fields)), tmp_path / "x.parquet")
    return str(tmp_path / "x.parquet")


@pytest.mark.parametrize("value", ["x", "f", "s.x", "l[1]"])
@pytest.mark.parametrize("columns", [AS_WRITTEN, RENAMED, ADDED_WITHIN])
@pytest.mark.parametrize("row_number", ["", "row"])
def test_nan_is_found_and_is_the_greatest_however_a_file_is_read(
    engine: DuckDB, file: str, value: str, columns: tuple[Column, ...], row_number: str
) -> None:
    source = engine.source(FileSet("t", (file,), Schema(columns)), row_number=row_number)

    def count(condition: str) -> Any:  # the one value of a row
        return engine.rows(f"SELECT count(*) FROM {source} t WHERE {condition}")[0][0]

    assert count(f"{value} > 100") == 1
    assert count(f"isnan({value})") == 1
    assert count(f"{value} <= 2") == 2
    assert count(f"{value} IN ('nan'::DOUBLE, 7)") == 1
    assert count(f"{value} = (SELECT max(v) FROM (VALUES ('nan'::DOUBLE)) o(v))") == 1
    ((greatest, least),) = engine.rows(f"SELECT max({value}), min({value}) FROM {source} t")
    assert math.isnan(greatest)
    assert least == 1.0


def test_files_of_our_own_and_of_others_are_read_together(
    tmp_path: Path, engine: DuckDB, file: str
) -> None:
    columns = (Column(1, "n", "long"), Column(2, "x", "double"))
    sql = "SELECT 7::BIGINT n, 'nan'::DOUBLE x UNION ALL SELECT 8, 3"
    with DuckDB(tmp_path / "temp") as other:
        (own,) = other.write(sql, Schema(columns), tmp_path / "data")
    engine.view(FileSet("t", (own.path, file), Schema(columns)))

    assert engine.rows("SELECT n FROM t WHERE x > 100 ORDER BY n") == [(1,), (7,)]
