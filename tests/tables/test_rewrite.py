"""Writing rows of files again: what is counted, and what is believed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from instep.engines.duckdb import DuckDB
from instep.engines.engine import DeleteFile, FileSet
from instep.engines.schema import Column, Schema
from instep.errors import InternalError
from instep.tables.rewrite import check_same, rows_by_file, written_again, written_without

SCHEMA = Schema((Column(1, "n", "long"), Column(2, "t", "string")))


def _files(engine: DuckDB, folder: Path) -> tuple[str, ...]:
    """Three files, of the numbers 0 to 9, 10 to 19 and 20 to 29."""
    return tuple(
        file.path
        for first in (0, 10, 20)
        for file in engine.write(
            f"SELECT {first} + i AS n, 'row ' || i AS t FROM range(10) r(i)", SCHEMA, folder
        )
    )


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_rows_are_counted_by_file_however_many_are_read_at_once(
    tmp_path: Path, at_once: int
) -> None:
    with DuckDB(tmp_path / "staging") as engine:
        paths = _files(engine, tmp_path)
    with DuckDB(tmp_path / "staging") as engine:
        files = FileSet("f", paths, SCHEMA)
        found = rows_by_file(engine, files, "WHERE n < 3 OR n > 25", at_once)
    assert found == {paths[0]: 3, paths[2]: 4}


def test_rows_are_written_again_as_they_were_or_none(tmp_path: Path) -> None:
    with DuckDB(tmp_path / "staging") as engine:
        engine.allow(tmp_path)
        engine.view(FileSet("f", _files(engine, tmp_path), SCHEMA))
        kept = "SELECT * FROM f WHERE n % 2 = 0 ORDER BY n DESC"
        (file,) = written_again(engine, kept, SCHEMA, tmp_path, 1 << 30)
        engine.view(FileSet("again", (file.path,), SCHEMA))
        assert engine.rows("SELECT count(*), sum(n) FROM again") == [(15, sum(range(0, 30, 2)))]
        assert written_again(engine, "SELECT * FROM f WHERE n > 99", SCHEMA, tmp_path, 1) == ()


def _numbers(path: str) -> list[int]:
    return [int(n or 0) for n in pq.read_table(path)["n"].to_pylist()]


def test_rows_that_stay_are_in_their_order_and_those_deleted_in_place_do_not_come_back(
    tmp_path: Path,
) -> None:
    columns = Column(1, "n", "long"), Column(2, "s", "struct", children=(Column(3, "a", "int"),))
    own = Schema(columns)
    asked = Schema((columns[0], replace(columns[1], children=(Column(3, "b", "long"),))))
    rows = 300_000  # so many that there are several row groups
    gone, deleted = "n % 7 = 3 AND s.b > 1000", range(0, rows, 5)
    with DuckDB(tmp_path / "staging") as engine:
        (file,) = engine.write(
            f"SELECT {rows} - i AS n, {{'a': i::INTEGER}} AS s FROM range({rows}) r(i)",
            own,
            tmp_path,
        )
    held = _numbers(file.path)
    listed = tmp_path / "deletes.parquet"
    fields: list[pa.Field[Any]] = [
        pa.field("file_path", pa.string(), metadata={"PARQUET:field_id": "2147483546"}),
        pa.field("pos", pa.int64(), metadata={"PARQUET:field_id": "2147483545"}),
    ]
    places: list[pa.Array[Any]] = [pa.array([file.path] * len(deleted)), pa.array(deleted)]
    pq.write_table(pa.table(places, schema=pa.schema(fields)), listed)
    delete = DeleteFile(str(listed), len(deleted), listed.stat().st_size, "", file.path)
    with DuckDB(tmp_path / "staging") as engine:
        engine.allow(tmp_path)
        one = FileSet("one", (file.path,), asked, None, {file.path: (delete,)})
        left = written_without(engine, one, engine.columns_in(file.path), gone, tmp_path, "stem.")
        assert left is not None
        assert engine.columns_in(left.path) == engine.columns_in(file.path)
        assert written_without(engine, one, own, "true", tmp_path, "") is None
    found = _numbers(left.path)
    assert Path(left.path).name.startswith("stem.")
    assert found == [
        n for place, n in enumerate(held)
        if place % 5 and not (n % 7 == 3 and rows - n > 1000)
    ]  # fmt: skip
    assert left.rows == len(found)


def test_rows_that_differ_replace_nothing() -> None:
    check_same((3, 17), (3, 17))
    with pytest.raises(InternalError) as error:
        check_same((3, 17), (3, 18))
    assert error.value.kind == "rows-differ"
