"""Is an arriving file whole and readable, and which columns does it have?

What cannot be read as a table is an InvalidError: a file that is empty, cut off, in another
encoding, or without a row. What can be read, but does not fit its contract, is not judged here.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from instep.contracts.terms import Format, Source
from instep.engines.reading import alone, csv_sql, parquet_sql
from instep.engines.schema import free_name, literal, quoted
from instep.errors import InstepError, InternalError, InvalidError, UnavailableError
from instep.ingest.text import (
    LONGEST_ROW_BYTES,
    MalformedError,
    Text,
    fault_of,
    readable,
    sniffed_encoding,
    unknown_fault,
)

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB

UNREADABLE = frozenset(
    {"empty-file", "truncated-file", "wrong-format", "wrong-encoding", "wrong-delimiter",
     "bad-header", "bad-row", "long-row", "no-rows"}
)  # fmt: skip
"""The kinds of error of a file that came and cannot be read as a table."""

RAW = "raw_file"
"""The relation that holds a file as it came."""

_PARSED = "parsed_file"
"""The table of a CSV file; its columns are c0, c1, ..., as a name may hide the id of a row."""

LINES = "raw_file_lines"
"""The relation that has the line of each row beside it."""

_NUMBER = "file_row_number"
"""What DuckDB calls the place of a row in its file, where no column is called so."""

_HEADER_BYTES = 1 << 20
"""The longest header line that is read."""

_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"

_EXCEL = {b"PK\x03\x04": "an Excel file or a zip archive", b"\xd0\xcf\x11\xe0": "an old Excel file"}
"""What the first four bytes of files say that many take for tables."""

_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}

_DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True)
class RawFile:
    """A file as it came: where its plain bytes are, how they are read, its columns in order.

    `text` is what is read of a CSV file.
    """

    name: str
    path: Path
    source: Source
    columns: tuple[str, ...]
    ends_with_newline: bool = True
    text: Text | None = None


@dataclass(frozen=True, slots=True)
class RawRows:
    """The rows of a file, readable in an engine as `RAW`; types are DuckDB's.

    `line` is the column of `LINES` that no file has.
    """

    rows: int
    types: dict[str, str]
    line: str


def check_there(path: Path) -> None:
    """Checks that there is a file that may be opened.

    Raises:
        InvalidError (kind "missing-file").
    """
    fault = "" if path.is_file() else "does not exist, or is no file"
    try:
        with path.open("rb"):
            pass
    except OSError:
        fault = fault or "may not be opened"
    if fault:
        raise InvalidError(
            f"File {path} {fault}: expected a CSV or Parquet file. Correct the path or its "
            "permissions.",
            kind="missing-file",
            path=str(path),
        )


def check_filled(path: Path, name: str) -> None:
    """Checks that there is something in a file.

    Raises:
        InvalidError (kind "empty-file").
    """
    if path.stat().st_size == 0:
        raise InvalidError(
            f"File {name} is empty: expected a header and rows. Ask for it again.",
            kind="empty-file",
            path=name,
        )


def sniffed_source(path: Path, name: str) -> Source:
    """Returns how a file without a contract is probably read: by its bytes.

    Text that is not UTF-8 is UTF-16 if it says so at its beginning, or else taken for Latin-1 or
    Windows-1252, in the first of which its every byte is a letter or sign. Other encodings of one
    byte cannot be told apart from them. Which one it is stands in the draft, for people to see.
    Only an empty value is null, as the surname Null and the country NA are values.

    Raises:
        InvalidError (kind "truncated-file"): its compression is broken.
        InvalidError (kind "wrong-encoding"): it is none of the four.
        InvalidError (kind "wrong-format"): it is JSON, Excel, or text that is called Parquet.
    """
    with path.open("rb") as file:
        first = file.read(4096)
    if first.startswith(_PARQUET):
        return Source(name, Format.PARQUET)
    _check_no_excel(first[:4], name)
    if name.lower().endswith(".parquet"):
        raise InvalidError(
            f"File {name} is not Parquet, as its name says: expected it to begin with PAR1. Ask "
            "for it again; or if it is CSV, give it a name that ends in .csv.",
            kind="wrong-format",
            path=name,
        )
    is_packed = first.startswith(_GZIP)
    try:
        with gzip.open(path) if is_packed else path.open("rb") as file:
            first = file.read(4096)
            chunks = chain([first], iter(lambda: file.read(1 << 20), b""))
            encoding = sniffed_encoding(chunks, name)
    except (OSError, EOFError, zlib.error):
        if not is_packed:
            raise
        raise _cut_off(name, "its compression is broken") from None
    header = next(iter(first.decode(encoding, "ignore").splitlines()), "")
    if _is_json(header):
        raise InvalidError(
            f"File {name} is JSON: expected CSV or Parquet. Make it Parquet first, as DuckDB does "
            f"by COPY (FROM {literal(name)}) TO 'FILE.parquet'; objects and lists become columns.",
            kind="wrong-format",
            path=name,
        )
    delimiter = max(_DELIMITERS, key=header.count)
    return Source(name, Format.CSV, delimiter, encoding=encoding)


def _check_no_excel(first: bytes, name: str) -> None:
    """Checks the first four bytes of a file."""
    if first in _EXCEL:
        raise InvalidError(
            f"File {name} is {_EXCEL[first]}: expected CSV or Parquet. Save what is in it as CSV "
            "or Parquet.",
            kind="wrong-format",
            path=name,
        )


def _is_json(line: str) -> bool:
    """Whether a file whose first line this is holds JSON, one value a line or one in all."""
    try:
        return isinstance(json.loads(line), dict | list)
    except ValueError:
        return line.strip() in ("{", "[")


def open_raw(path: Path, name: str, source: Source, folder: Path) -> RawFile:
    """Returns the file at `path`, called `name`, ready to be read; unpacks gzip into `folder`.

    Raises:
        InvalidError (kinds "truncated-file", "wrong-format", "wrong-encoding", "bad-header",
            "bad-row", "long-row").
    """
    with path.open("rb") as file:
        first = file.read(4)
        file.seek(-min(4, path.stat().st_size), io.SEEK_END)
        last = file.read()
    _check_no_excel(first, name)
    match source.format:
        case Format.PARQUET:
            if first != _PARQUET:
                raise _wrong_format(name, "Parquet")
            if last != _PARQUET:
                raise _cut_off(name, "its footer is missing")
            return RawFile(name, path, source, ())
        case Format.CSV:
            if first == _PARQUET:
                raise _wrong_format(name, "CSV")
            plain = _unpacked(path, name, folder) if first.startswith(_GZIP) else path
            return _open_csv(plain, name, source, folder)


def check_delimiter(raw: RawFile, known: Sequence[str]) -> None:
    """Checks that a file without any `known` column is not one with another delimiter.

    Raises:
        InvalidError (kind "wrong-delimiter").
    """
    names = {name.lower() for name in known}
    if not raw.columns or any(name.lower() in names for name in raw.columns):
        return
    expected = raw.source.delimiter
    header = expected.join(raw.columns)
    for found in _DELIMITERS:
        columns = next(csv.reader([header], delimiter=found))
        if len(columns) > 1 and names.intersection(name.strip().lower() for name in columns):
            raise InvalidError(
                f"File {raw.name} separates its columns by {found!r}: expected {expected!r}, as "
                "its contract says. Ask for the file as agreed, or correct `delimiter` of the "
                "server in the contract.",
                kind="wrong-delimiter",
                path=raw.name,
            )


def load_rows(engine: DuckDB, raw: RawFile) -> RawRows:
    """Makes the file readable in the engine as `RAW`, and with lines as `LINES`.

    A CSV file is parsed once, strictly, into the engine; every value is text.

    Raises:
        InvalidError (kinds "truncated-file", "wrong-encoding", "bad-header", "bad-row",
            "long-row", "no-rows").
        UnavailableError (kind "out-of-memory").
    """
    import duckdb

    run = engine.connection.execute
    try:
        match raw.source.format:
            case Format.PARQUET:
                engine.allow(raw.path)
                source = parquet_sql([str(raw.path)])
                _check_header(_top_level(engine, raw), raw.name)
                found = _described(engine, f"FROM {source}")
                columns = _unbounded(found)
                run(f"CREATE VIEW {RAW} AS SELECT {columns} FROM {source}")
                lines = f"{_numbers(found)} AS {quoted(_line(found))}"
                run(f"CREATE VIEW {LINES} AS SELECT {columns}, {lines} FROM {source}")
            case Format.CSV:
                # With the order of the file kept, a row's id tells its line.
                run("SET preserve_insertion_order = true")
                run(f"CREATE TEMP TABLE {_PARSED} AS SELECT * FROM {_csv_scan(raw)}")
                run("SET preserve_insertion_order = false")
                names = [f"c{n} AS {quoted(name)}" for n, name in enumerate(raw.columns)]
                run(f"CREATE VIEW {RAW} AS SELECT {', '.join(names)} FROM {_PARSED}")
                found = _described(engine, f"FROM {RAW}")
                lines = f"rowid + 2 AS {quoted(_line(found))}"
                run(f"CREATE VIEW {LINES} AS SELECT {', '.join(names)}, {lines} FROM {_PARSED}")
        [(rows,)] = run(f"SELECT count(*) FROM {RAW}").fetchall()
    except duckdb.Error as error:
        raise unreadable(raw, error) from None
    if not rows:
        raise InvalidError(
            f"File {raw.name} has a header and no rows: expected at least one. Ask for it again.",
            kind="no-rows",
            path=raw.name,
        )
    return RawRows(rows, found, _line(found))


def durations(raw: RawFile) -> dict[str, str]:
    """Returns the unit of each column of durations, which a Parquet file holds as integers.

    Only files that Arrow wrote say so.
    """
    if raw.source.format is not Format.PARQUET:
        return {}

    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(raw.path)
    except (pa.ArrowException, OSError):  # of another writer, whose file DuckDB reads
        return {}
    return {one.name: _UNITS[one.type.unit] for one in schema if pa.types.is_duration(one.type)}


def _top_level(engine: DuckDB, raw: RawFile) -> list[str]:
    """Returns the names of a Parquet file's columns, of which DuckDB renames repeated ones."""
    path = literal(alone(str(raw.path)))
    nodes = iter(
        engine.connection.execute(
            f"SELECT name, coalesce(num_children, 0) FROM parquet_schema({path})"
        ).fetchall()
    )
    _, columns = next(nodes)
    names = []
    for _ in range(columns):
        name, within = next(nodes)
        names.append(name)
        while within:
            _, more = next(nodes)
            within += more - 1
    return names


def _described(engine: DuckDB, select: str) -> dict[str, str]:
    described = engine.connection.execute(f"DESCRIBE {select}").fetchall()
    return {name: kind for name, kind, *_ in described}


def _line(types: Mapping[str, str]) -> str:
    return free_name("line", types)


def _unbounded(types: Mapping[str, str]) -> str:
    """SQL of all columns, without the bounds in a file's footer, which may leave NaN out.

    By them DuckDB would answer max() and filters; it takes no bounds through TRY.
    """
    floats = [name for name, kind in types.items() if "FLOAT" in kind or "DOUBLE" in kind]
    tried = ", ".join(f"TRY({quoted(name)}) AS {quoted(name)}" for name in floats)
    return f"* REPLACE ({tried})" if floats else "*"


def _numbers(types: Mapping[str, str]) -> str:
    """SQL of the lines of a Parquet file, in whose place it may have a column."""
    is_free = free_name(_NUMBER, types) == _NUMBER
    return f"{_NUMBER} + 1" if is_free else "row_number() OVER ()"


def unreadable(raw: RawFile, error: Exception) -> InstepError:
    """Returns the error of a file whose bytes cannot be read as rows; in no words of `error`."""
    import duckdb

    if isinstance(error, duckdb.OutOfMemoryException):
        return _too_large(raw.name)
    if raw.text is None:
        return _cut_off(raw.name, "a part of it cannot be read")
    return fault_of(raw.text) or unknown_fault(raw.text)


@contextmanager
def translating(raw: RawFile) -> Iterator[None]:
    """Turns what the engine says while the rows of a file are read into errors of ours.

    A Parquet file is read all the time; a CSV file only once, by `load_rows`.

    Raises:
        InvalidError (kind "truncated-file").
        UnavailableError (kind "out-of-memory"), InternalError (kind "unexpected").
    """
    import duckdb

    try:
        yield
    except (duckdb.Error, InstepError) as error:
        said = error.__cause__ if isinstance(error, InstepError) else error
        if not isinstance(said, duckdb.Error) or isinstance(error, UnavailableError):
            raise
        if isinstance(said, duckdb.InterruptException) or raw.text is not None:
            raise unexpected(raw.name, said) or said from None
        raise unreadable(raw, said) from said


def unexpected(name: str, error: Exception) -> InstepError | None:
    """Returns what to tell of an error of the engine that nothing foresaw; None for all others."""
    if isinstance(error, InstepError):
        return None

    import duckdb

    if not isinstance(error, duckdb.Error) or isinstance(error, duckdb.InterruptException):
        return None
    if isinstance(error, duckdb.OutOfMemoryException):
        return _too_large(name)
    return InternalError(
        f"File {name} could not be taken, by a fault of Instep ({type(error).__name__}): nothing "
        "of it was stored. Report it, with the file's header and its contract.",
        kind="unexpected",
        path=name,
    )


def cut_off_at_last_row(raw: RawFile) -> InvalidError:
    """Returns the error of a file whose last row is broken, and has no end of line."""
    return _cut_off(raw.name, "its last line has no end, and breaks the contract")


def _open_csv(path: Path, name: str, source: Source, folder: Path) -> RawFile:
    with path.open("rb") as file:
        first = file.readline(_HEADER_BYTES)
        file.seek(-1, io.SEEK_END)
        ends = file.read(1) in (b"\n", b"\r", b"\0")
    if source.encoding != "utf-16" and b"\0" in first:
        raise InvalidError(
            f"File {name} is not {source.encoding}: its first line holds zero bytes. Convert the "
            "file, or name its encoding in the contract.",
            kind="wrong-encoding",
            path=name,
        )
    text = readable(path, name, source.encoding, source.delimiter, folder)
    try:
        _, names = next(text.rows(), (1, []))
    except (UnicodeDecodeError, MalformedError):
        raise fault_of(text) or unknown_fault(text) from None
    _check_header(names, name)
    return RawFile(name, path, source, tuple(names), ends, text)


def _check_header(names: list[str], file: str) -> None:
    lower = [name.lower() for name in names]
    twice = sorted({name for name in lower if lower.count(name) > 1})
    if not any(names) or "" in names:
        raise InvalidError(
            f"File {file} has a column without a name: expected a header in its first line. "
            "Ask for the file with one.",
            kind="bad-header",
            path=file,
        )
    if twice:
        raise InvalidError(
            f'File {file} has column "{twice[0]}" twice: expected names that differ, ignoring '
            "case. Ask for the file again.",
            kind="bad-header",
            path=file,
        )


def _csv_scan(raw: RawFile) -> str:
    assert raw.text is not None
    columns = ", ".join(f"'c{n}': 'VARCHAR'" for n, _ in enumerate(raw.columns))
    markers = ", ".join(literal(marker) for marker in raw.source.null_markers)
    return csv_sql(
        str(raw.text.path),
        f"auto_detect = false, header = true, columns = {{{columns}}}, "
        f"delim = {literal(raw.source.delimiter)}, quote = '\"', escape = '\"', "
        f"nullstr = [{markers}], encoding = 'utf-8', max_line_size = {LONGEST_ROW_BYTES}, "
        "strict_mode = true, null_padding = false, ignore_errors = false, compression = 'none'",
    )


def _unpacked(path: Path, name: str, folder: Path) -> Path:
    """Unpacks gzip; DuckDB would read what there is of a file that is cut off."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = folder / "unpacked.csv"
    try:
        with gzip.open(path) as packed, plain.open("wb") as file:
            shutil.copyfileobj(packed, file)
    except (OSError, EOFError, zlib.error):
        raise _cut_off(name, "its compression is broken") from None
    check_filled(plain, name)
    return plain


def _too_large(name: str) -> UnavailableError:
    return UnavailableError(
        f"File {name} needs more memory or disk than allowed. Make room, or ask for it in parts.",
        kind="out-of-memory",
    )


def _cut_off(name: str, sign: str) -> InvalidError:
    return InvalidError(
        f"File {name} is cut off or damaged: {sign}. Expected a whole file. Ask for it again.",
        kind="truncated-file",
        path=name,
    )


def _wrong_format(name: str, expected: str) -> InvalidError:
    return InvalidError(
        f"File {name} is not {expected}: expected the format of its contract. Ask for the file "
        "in that format, or correct the contract.",
        kind="wrong-format",
        path=name,
    )
