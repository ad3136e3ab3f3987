"""Rows that others deleted in place: position delete files and deletion vectors."""

from __future__ import annotations

import zlib
from pathlib import Path

import duckdb
import pyroaring
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.engines.deletes import vector_positions
from instep.engines.duckdb import DuckDB
from instep.engines.engine import DeleteFile, FileSet
from instep.engines.schema import Column, Schema
from instep.errors import InvalidError

SCHEMA = Schema((Column(1, "n", "int"), Column(2, "filename", "string")))
POSITIONS = st.sets(st.integers(0, 9), max_size=10)


def _data_file(path: Path, first: int) -> str:
    duckdb.execute(
        f"COPY (SELECT (range + {first})::INTEGER AS n, 'x' AS filename FROM range(10)) "
        f"TO '{path}' (FORMAT parquet, FIELD_IDS {{n: 1, filename: 2}})"
    )
    return str(path)


def _position_deletes(path: Path, rows: list[tuple[str, int]]) -> DeleteFile:
    values = ", ".join(f"('{file}', {pos}::BIGINT)" for file, pos in rows)
    duckdb.execute(
        f"COPY (SELECT * FROM (VALUES {values}) v(file_path, pos)) TO '{path}' "
        "(FORMAT parquet, FIELD_IDS {file_path: 2147483546, pos: 2147483545})"
    )
    return DeleteFile(str(path), len(rows), 0, "", None)


def _vector(path: Path, positions: list[int]) -> DeleteFile:
    """A blob of a Puffin file, with bytes of others before and behind it."""
    body = bytes.fromhex("d1d33964") + pyroaring.BitMap64(positions).serialize()
    blob = len(body).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    path.write_bytes(b"PFA1" + blob + b"more")
    return DeleteFile(str(path), len(positions), 0, "", None, 4, len(blob))


@settings(max_examples=25)
@given(by_file=st.tuples(POSITIONS, POSITIONS), by_vector=POSITIONS, as_uri=st.booleans())
def test_deleted_rows_are_never_read(
    tmp_path_factory: pytest.TempPathFactory,
    by_file: tuple[set[int], set[int]],
    by_vector: set[int],
    as_uri: bool,
) -> None:
    folder = tmp_path_factory.mktemp("deletes")
    files = tuple(_data_file(folder / f"{n}.parquet", n * 10) for n in range(3))
    prefix = "file://" if as_uri else ""
    listed = [(f"{prefix}{files[n]}", pos) for n in (0, 1) for pos in by_file[n]]
    deletes: dict[str, tuple[DeleteFile, ...]] = {}
    if listed:
        found = _position_deletes(folder / "d.parquet", [*listed, ("/of/another/table", 1)])
        deletes = {files[0]: (found,), files[1]: (found,)}
    if by_vector:
        vector = _vector(folder / "v.puffin", sorted(by_vector))
        deletes[files[1]] = (*deletes.get(files[1], ()), vector)
    gone = by_file[0] | {10 + pos for pos in by_file[1] | by_vector}

    with DuckDB(folder / "staging") as engine:
        engine.view(FileSet("t", files, SCHEMA, deletes=deletes))
        rows = [row[0] for row in engine.rows("SELECT n FROM t ORDER BY n")]

    assert rows == [n for n in range(30) if n not in gone]


def test_a_place_in_the_file_counts_deleted_rows_too(tmp_path: Path) -> None:
    path = _data_file(tmp_path / "a.parquet", 100)
    deletes = {path: (_position_deletes(tmp_path / "d.parquet", [(path, 0), (path, 5)]),)}

    with DuckDB(tmp_path / "staging") as engine:
        source = engine.source(FileSet("t", (path,), SCHEMA, deletes=deletes), row_number="place")
        rows = engine.rows(f"SELECT n, place FROM {source} ORDER BY n")

    assert rows == [(100 + n, n) for n in (1, 2, 3, 4, 6, 7, 8, 9)]


def test_a_deletion_vector_is_decoded_as_pyiceberg_does(tmp_path: Path) -> None:
    from pyiceberg.table.deletion_vector import DeletionVector

    positions = [0, 1, 65_535, 65_536, 4_294_967_296, 4_294_967_299, 1 << 34]
    delete = _vector(tmp_path / "v.puffin", positions)

    assert vector_positions(delete) == positions
    payload = pyroaring.BitMap64(positions).serialize()
    theirs = DeletionVector("f", DeletionVector._deserialize_bitmap(payload)).to_vector()
    assert theirs.to_pylist() == positions


def test_damaged_bytes_are_no_deletion_vector(tmp_path: Path) -> None:
    delete = _vector(tmp_path / "v.puffin", [1, 2])
    data = bytearray(Path(delete.path).read_bytes())
    data[20] ^= 1
    Path(delete.path).write_bytes(data)

    with pytest.raises(InvalidError) as caught:
        vector_positions(delete)
    assert caught.value.kind == "damaged-file"
