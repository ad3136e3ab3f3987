"""Files as people have them: each is read as it was written, or refused in one clear sentence."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from arrival_builders import READINGS, merge_contract, month, rows_of, write
from hypothesis import given
from hypothesis import strategies as st

from instep.contracts.terms import Format, Source
from instep.engines.duckdb import DuckDB
from instep.errors import InvalidError, UnavailableError
from instep.history.repository import Repository
from instep.ingest.accept import accept
from instep.ingest.arrive import ingest
from instep.ingest.arrived import held_error
from instep.ingest.files import RAW, UNREADABLE, load_rows, open_raw, sniffed_source, unreadable

LIBRARY = re.compile(r"duckdb|DuckDB Error|Invalid Input|strict_mode|pyarrow|Possible|codec|_csv")
"""Words that no message of ours has."""


def read(path: Path, source: Source | None = None) -> list[tuple[object, ...]]:
    """Returns the rows of a file as a first arrival reads them."""
    found = source or sniffed_source(path, path.name)
    folder = path.parent / "staging"
    raw = open_raw(path, path.name, found, folder)
    with DuckDB(folder) as engine:
        load_rows(engine, raw)
        return sorted(engine.connection.execute(f"FROM {RAW}").fetchall(), key=str)


def refusal(path: Path, source: Source | None = None) -> InvalidError:
    """Returns the error of a file that cannot be read, which tells of a file and in our words."""
    with pytest.raises(InvalidError) as caught:
        read(path, source)
    error = caught.value
    assert error.kind in UNREADABLE
    assert error.message.startswith(f"File {path.name} ")
    assert not LIBRARY.search(error.message), error.message
    return error


@pytest.mark.parametrize(
    "data",
    [
        b"a,b\r1,2\r3,4\r",
        b"a,b\r1,2\r3,4",
        b"a,b\r\n1,2\r\n3,4\n",
        b"a,b\n1,2\r\n3,4\r\n",
        b"a,b\n1,2\r3,4\n",
        b"a,b\r\n1,2,\r3,4,\n",
        b'"a","b"\r\n"1",2\n3,"4"\r\n',
    ],
)
def test_lines_may_end_in_any_way(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "odd.csv"
    file.write_bytes(data)
    assert read(file) == [("1", "2"), ("3", "4")]


def test_line_ends_within_quotes_stay_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "odd.csv"
    file.write_bytes(b'a,"b\nc"\r\n1,"2\r\nx"\r\n3,"4\ny"\n5,"6\rz"\n')
    assert read(file) == [("1", "2\r\nx"), ("3", "4\ny"), ("5", "6\rz")]


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        (b"a,b\n1,2\n3\n5,6\n", "bad-row", "line 3: it has 1 value. Expected 2 values"),
        (b"a,b\r1,2\r3,4,5\r6,7\r", "bad-row", "line 3: it has 3 values. Expected 2 values"),
        (b'a,b\n1,2\n3,"x\n5,6\n7,8\n', "bad-row", "line 3: a quote opens there and never closes"),
        (b'a,b\n1,2\n3,"x" y\n5,6\n', "bad-row", "line 3: text follows a closing quote"),
        (b'a,b\r\n1,"2\n2"\r\n3,"x" y\n5,6\n', "bad-row", "line 4: text follows"),
        (b"a,b\n1,2\n3,\xe9\x81\n5,6\n", "wrong-encoding", "line 3"),
        (b"a,b\n1,2\n3", "truncated-file", "line 3, the last, is not whole"),
        (b'a,b\n1,2\n3,"x', "truncated-file", "line 3, the last, is not whole"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(
    tmp_path: Path, data: bytes, kind: str, said: str
) -> None:
    file = tmp_path / "odd.csv"
    file.write_bytes(data)
    error = refusal(file)
    assert error.kind == kind
    assert said in error.message


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
def test_bytes_of_another_encoding_than_agreed_are_told_with_their_line(
    tmp_path: Path, encoding: str
) -> None:
    file = tmp_path / "odd.csv"
    start = "a,b\n1,2\n3,".encode(encoding)
    file.write_bytes(start + (b"\x00\xd8\x00" if encoding == "utf-16" else b"\x93\n5,6\n"))
    error = refusal(file, Source("odd.csv", Format.CSV, encoding=encoding))
    assert (error.kind, f"is not {encoding} at line 3" in error.message) == ("wrong-encoding", True)


@pytest.mark.parametrize("size", [3_000_000, 30_000_000])
def test_a_row_beyond_the_limit_is_told_with_line_size_and_limit(tmp_path: Path, size: int) -> None:
    file = tmp_path / "long.csv"
    file.write_bytes(b"a,b\n1,2\n3," + b"x" * size + b"\n5,6\n")
    error = refusal(file)
    assert error.kind == "long-row"
    assert f"a row of {size + 2:,} bytes at line 3: expected at most 2,000,000" in error.message


@pytest.mark.parametrize("names", [["a", "a"], ["a", "A"], ["a", "b", "a"]])
def test_a_parquet_file_with_two_columns_of_one_name_is_refused(
    tmp_path: Path, names: list[str]
) -> None:
    file = tmp_path / "twice.parquet"
    nested = pa.array([{"a": 1, "b": [1, 2]}])
    table = pa.Table.from_arrays([nested, *(pa.array([1]) for _ in names)], ["n", *names])
    pq.write_table(table, file)
    error = refusal(file)
    assert (error.kind, 'has column "a" twice' in error.message) == ("bad-header", True)


@pytest.mark.parametrize("last", [b"caf\xe9", b"\xe9", b"caf\xc3"])
def test_a_letter_that_is_the_last_byte_of_a_file_tells_its_encoding_too(
    tmp_path: Path, last: bytes
) -> None:
    file = tmp_path / "names.csv"
    file.write_bytes(b"id,name\n1," + last)
    assert read(file) == [("1", last.decode("latin-1"))]


def test_fields_of_parquet_may_be_called_as_columns_are(tmp_path: Path) -> None:
    file = tmp_path / "nested.parquet"
    pq.write_table(pa.table({"n": pa.array([{"a": 1, "n": [1, 2]}]), "a": pa.array([1])}), file)
    assert read(file) == [({"a": 1, "n": [1, 2]}, 1)]


def test_the_engine_being_out_of_memory_is_no_fault_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "large.csv"
    file.write_text("a,b\n" + f"{'x' * 1_000_000},1\n" * 80)
    raw = open_raw(file, file.name, Source("large.csv", Format.CSV), tmp_path)
    with (
        DuckDB(tmp_path, memory_limit_bytes=32 << 20) as engine,
        pytest.raises(UnavailableError) as caught,
    ):
        engine.connection.execute("SET max_temp_directory_size = '0B'")
        load_rows(engine, raw)
    assert caught.value.kind == "out-of-memory"
    assert not LIBRARY.search(caught.value.message)
    other = unreadable(raw, ValueError("Possible fixes: strict_mode"))
    assert not LIBRARY.search(other.message)


@pytest.mark.parametrize("is_agreed", [True, False])
def test_a_parquet_file_with_broken_pages_is_refused_at_once(
    repo: Repository, tmp_path: Path, is_agreed: bool
) -> None:
    file = tmp_path / "pages.parquet"
    texts = [f"text {number}" for number in range(2_000)]
    pq.write_table(pa.table({"a": list(range(2_000)), "s": texts}), file)
    if is_agreed:
        held = ingest(repo, tmp_path, file, "ana")
        assert held.draft is not None
        merge_contract(repo, held.draft.read_text(), "pages")
    broken = bytearray(file.read_bytes())
    broken[4:60] = bytes(56)
    file.write_bytes(broken)
    with pytest.raises(InvalidError) as caught:
        ingest(repo, tmp_path, file, "ana")
    assert caught.value.kind == "truncated-file"
    assert not LIBRARY.search(caught.value.message)


VALUES = st.text(st.sampled_from('aé0" ,;\n\r-'), max_size=4)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1", "windows-1252"])


def written(rows: Sequence[Sequence[str]], ends: Sequence[str], is_quoted: bool) -> str:
    def cell(value: str) -> str:
        if is_quoted or re.search(r'[",;\n\r]', value):
            return '"' + value.replace('"', '""') + '"'
        return value

    lines = [",".join(cell(value) for value in row) for row in rows]
    return "".join(line + end for line, end in zip(lines, ends, strict=True))


@given(
    rows=st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=5),
    data=st.data(),
    is_quoted=st.booleans(),
    encoding=ENCODINGS,
    is_ended=st.booleans(),
    cut=st.none() | st.integers(1, 60),
)
def test_every_row_arrives_as_written_or_the_file_is_refused(
    rows: list[tuple[str, str]],
    data: st.DataObject,
    is_quoted: bool,
    encoding: str,
    is_ended: bool,
    cut: int | None,
) -> None:
    count = len(rows) + 1
    ends = data.draw(
        st.lists(ENDS, min_size=count, max_size=count) | ENDS.map(lambda e: [e] * count)
    )
    text = written(
        [("left", "right"), *rows], [*ends[:-1], ends[-1] if is_ended else ""], is_quoted
    )
    agreed = "utf-8" if encoding == "utf-8-sig" else encoding
    source = Source("drawn.csv", Format.CSV, encoding=agreed)
    with TemporaryDirectory() as folder:
        file = Path(folder, "drawn.csv")
        file.write_bytes(text.encode(encoding)[:cut])
        if cut is None:
            expected = [tuple(value or None for value in row) for row in rows]
            assert read(file, source) == sorted(expected, key=str)
            return
        try:
            read(file, source)
        except InvalidError as error:
            assert error.kind in UNREADABLE
            assert not LIBRARY.search(error.message)


def test_a_suggested_command_can_be_pasted_whatever_a_column_is_called(
    repo: Repository, tmp_path: Path
) -> None:
    merge_contract(repo, READINGS)
    ingest(repo, tmp_path, write(tmp_path / "readings-1.csv", month(1)), "ana")
    name = "Dep. delay (min); it's $HOME"
    file = write(tmp_path / "readings-2.csv", month(2), f"station,at,distance,{name}")
    held = ingest(repo, tmp_path, file, "ana")
    [command] = re.findall(r'Next: "(.*)", or "instep refuse', held_error(held).message)
    words = shlex.split(command)
    assert words == ["instep", "accept", str(held.arrival.change), "--rename", f"{name}=late"]
    accept(repo, held.arrival.change, "ben", rename={name: "late"})
    assert rows_of(repo, "select count(late) from readings") == [(784,)]


EXCEL = {
    "new": b"PK\x03\x04\x14\x00\x06\x00\x08\x00" + b"\x00" * 30 + b"[Content_Types].xml",
    "old": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 40,
}


@pytest.mark.parametrize("name", ["sales.xlsx", "sales.csv", "sales.parquet"])
@pytest.mark.parametrize("kind", EXCEL)
@pytest.mark.parametrize("form", [None, Format.CSV, Format.PARQUET])
def test_an_excel_file_is_called_so_whatever_its_name(
    tmp_path: Path, name: str, kind: str, form: Format | None
) -> None:
    file = tmp_path / name
    file.write_bytes(EXCEL[kind])
    error = refusal(file, Source(name, form) if form else None)
    assert error.kind == "wrong-format"
    assert "Excel" in error.message and "Save" in error.message and "as CSV" in error.message


@pytest.mark.parametrize("form", [None, Format.PARQUET])
def test_text_that_is_called_parquet_is_told_to_be_none(
    tmp_path: Path, form: Format | None
) -> None:
    file = tmp_path / "sales.parquet"
    file.write_text("a,b\n1,2\n")
    error = refusal(file, Source(file.name, form) if form else None)
    assert error.kind == "wrong-format"
    assert error.message.startswith("File sales.parquet is not Parquet")
