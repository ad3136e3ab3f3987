"""Writing rows of files again: what is counted, and what is believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from instep.engines.duckdb import DuckDB
from instep.engines.engine import FileSet
from instep.engines.schema import Column, Schema
from instep.errors import InternalError
from instep.tables.rewrite import check_same, rows_by_file, written_again

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


def test_rows_that_differ_replace_nothing() -> None:
    check_same((3, 17), (3, 17))
    with pytest.raises(InternalError) as error:
        check_same((3, 17), (3, 18))
    assert error.value.kind == "rows-differ"
