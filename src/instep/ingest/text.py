"""Makes the bytes of a CSV file ones that the engine reads, and says where they cannot be read.

The engine wants UTF-8 with one kind of line end, and its words are not ours. A file that is written
otherwise is written again, a piece at a time; its values stay as they are. What it has refused is
looked through here, row by row, for the line and the fault.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from instep.errors import InvalidError

LONGEST_ROW_BYTES = 2_000_000
"""The longest row that is read: the engine holds some dozens of them at a time."""

_MEASURED_CHARACTERS = 1 << 26
"""Up to here the size of a value is told."""

_CHUNK_BYTES = 1 << 20

_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
"""Bytes that are no sign in Latin-1; Windows-1252 has some of its own there."""

_NOT_WINDOWS = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f\x81\x8d\x8f\x90\x9d]")
"""Bytes that are no sign in Windows-1252."""


class MalformedError(Exception):
    """Text is no CSV from `line` on, as is seen at the line `seen_at`; `why` is in csv's words."""

    def __init__(self, line: int, seen_at: int, why: str) -> None:
        super().__init__(line, seen_at, why)
        self.line = line
        self.seen_at = seen_at
        self.why = why


@dataclass(frozen=True, slots=True)
class Text:
    """A CSV file in UTF-8; `agreed` is the encoding that it came in, and `name` its own name."""

    path: Path
    name: str
    agreed: str
    delimiter: str

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yields each row with the line that it begins in.

        Raises:
            UnicodeDecodeError.
            MalformedError: it is no CSV from some line on.
        """
        before = csv.field_size_limit(_MEASURED_CHARACTERS)
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, delimiter=self.delimiter, strict=True)
                line = 1
                try:
                    for row in reader:
                        yield line, row
                        line = reader.line_num + 1
                except csv.Error as error:
                    raise MalformedError(line, reader.line_num, str(error)) from None
        finally:
            csv.field_size_limit(before)


def sniffed_encoding(chunks: Iterable[bytes], name: str) -> str:
    """Returns in which encoding the text of a file probably is.

    Raises:
        InvalidError (kind "wrong-encoding"): in none that is supported.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_utf_8 = is_latin_1 = is_windows = True
    lines = 1
    for number, chunk in enumerate(chain(chunks, [b""])):  # the end may cut a letter in two
        if number == 0 and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        if is_utf_8:
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError:
                is_utf_8 = False
        is_latin_1 = is_latin_1 and not _CONTROLS.search(chunk)
        bad = _NOT_WINDOWS.search(chunk)
        is_windows = is_windows and not bad
        if not (is_utf_8 or is_latin_1 or is_windows):
            line = lines + (chunk[: bad.start()].count(b"\n") if bad else 0)
            raise InvalidError(
                f"File {name} is neither UTF-8, UTF-16, Latin-1 nor Windows-1252, as is seen at "
                f"line {line}: expected one of them. Convert it to UTF-8.",
                kind="wrong-encoding",
                path=name,
                line=line,
            )
        lines += chunk.count(b"\n")
    if is_utf_8:
        return "utf-8"
    return "latin-1" if is_latin_1 else "windows-1252"


def readable(path: Path, name: str, agreed: str, delimiter: str, folder: Path) -> Text:
    """Returns text that the engine reads: the file itself, or a copy of it in `folder`.

    Raises:
        InvalidError (kinds "wrong-encoding", "bad-row", "truncated-file", "long-row").
    """
    text = Text(path, name, agreed, delimiter)
    if agreed != "utf-8":
        text = _in_utf_8(text, folder)
    return text if _has_one_line_end(text.path) else _with_one_line_end(text, folder)


def fault_of(text: Text) -> InvalidError | None:
    """Returns why the engine does not read a text, and at which line; None if that is not seen."""
    try:
        columns = 0
        last: tuple[int, int] | None = None
        for line, row in text.rows():
            if last is not None:  # more lines follow it
                return _wrong_count(text, *last, columns)
            if sum(map(len, row)) > LONGEST_ROW_BYTES // 4:
                size = len(text.delimiter.join(row).encode())
                if size > LONGEST_ROW_BYTES:
                    return _too_long(text, line, f"{size:,} bytes")
            columns = columns or len(row)
            if row and len(row) != columns and (len(row) != columns + 1 or row[-1]):
                last = line, len(row)
        if last is not None:
            return _cut_off(text, last[0])
    except UnicodeDecodeError:
        return _undecodable(text)
    except MalformedError as error:
        return _malformed(text, error)
    return None


def _in_utf_8(text: Text, folder: Path) -> Text:
    """Writes a text again in UTF-8."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "utf-8.csv"
    decoder = codecs.getincrementaldecoder(text.agreed)()
    lines = 1
    with text.path.open("rb") as source, target.open("wb") as file:
        while chunk := source.read(_CHUNK_BYTES):
            bad = _CONTROLS.search(chunk) if text.agreed == "latin-1" else None
            try:
                decoded = decoder.decode(chunk)
            except UnicodeDecodeError as error:
                raise _not_in(text, lines + error.object[: error.start].count(b"\n")) from None
            if bad:
                raise _not_in(text, lines + chunk[: bad.start()].count(b"\n"))
            lines += decoded.count("\n")
            file.write(decoded.encode())
        if decoder.getstate()[0]:
            raise _not_in(text, lines)
    return Text(target, text.name, text.agreed, text.delimiter)


def _has_one_line_end(path: Path) -> bool:
    """Whether the engine is sure to see the lines of a file: all ends, in quotes too, are alike."""
    both = carriage = feeds = 0
    before = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            carriage += chunk.count(b"\r")
            feeds += chunk.count(b"\n")
            both += chunk.count(b"\r\n") + (before == b"\r" and chunk.startswith(b"\n"))
            before = chunk[-1:]
    return carriage == both and both in (0, feeds)


def _with_one_line_end(text: Text, folder: Path) -> Text:
    """Writes a text again with a line feed at the end of each row; within quotes all stays."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "lines.csv"
    try:
        with target.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(
                file, delimiter=text.delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL
            )
            columns = 0
            for _, row in text.rows():
                columns = columns or len(row)
                is_ended = len(row) == columns + 1 and not row[-1]  # by a delimiter too many
                writer.writerow(row[:-1] if is_ended else row)
    except UnicodeDecodeError:
        raise _undecodable(text) from None
    except MalformedError as error:
        raise _malformed(text, error) from None
    return Text(target, text.name, text.agreed, text.delimiter)


def _undecodable(text: Text) -> InvalidError:
    """Returns the error of a text that is not UTF-8, with the line of the first wrong byte."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines = 1
    with text.path.open("rb") as file, suppress(UnicodeDecodeError):
        while chunk := file.read(_CHUNK_BYTES):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                return _not_in(text, lines + error.object[: error.start].count(b"\n"))
            lines += chunk.count(b"\n")
        decoder.decode(b"", True)
    return _not_in(text, lines)


def _malformed(text: Text, error: MalformedError) -> InvalidError:
    if "field limit" in error.why:
        return _too_long(text, error.line, f"more than {_MEASURED_CHARACTERS:,} characters")
    fault = "text follows a closing quote"
    if "unexpected end" in error.why:
        if error.seen_at == error.line:
            return _cut_off(text, error.line)
        fault = "a quote opens there and never closes"
    return InvalidError(
        f"File {text.name} cannot be read at line {error.line}: {fault}. Expected a value in "
        'quotes to end with its quote, and a quote within it twice (""). Ask for the file again.',
        kind="bad-row",
        path=text.name,
        line=error.line,
    )


def _wrong_count(text: Text, line: int, found: int, columns: int) -> InvalidError:
    return InvalidError(
        f"File {text.name} cannot be read at line {line}: it has {found} "
        f"{'value' if found == 1 else 'values'}. "
        f"Expected {columns} values in every row, as in the header. Ask for the file again.",
        kind="bad-row",
        path=text.name,
        line=line,
    )


def _too_long(text: Text, line: int, size: str) -> InvalidError:
    return InvalidError(
        f"File {text.name} has a row of {size} at line {line}: expected at most "
        f"{LONGEST_ROW_BYTES:,} bytes in a row. Ask for the file as Parquet, or without that "
        "value; or look for a quote that never closes.",
        kind="long-row",
        path=text.name,
        line=line,
    )


def _not_in(text: Text, line: int) -> InvalidError:
    return InvalidError(
        f"File {text.name} is not {text.agreed} at line {line}: expected the encoding of its "
        "contract. Convert the file, or name its encoding in the contract.",
        kind="wrong-encoding",
        path=text.name,
        line=line,
    )


def _cut_off(text: Text, line: int) -> InvalidError:
    return InvalidError(
        f"File {text.name} is cut off or damaged: line {line}, the last, is not whole. Expected "
        "a whole file. Ask for it again.",
        kind="truncated-file",
        path=text.name,
        line=line,
    )


def unknown_fault(text: Text) -> InvalidError:
    return InvalidError(
        f"File {text.name} cannot be read as CSV: expected rows of values as in RFC 4180. Ask for "
        "the file again, or as Parquet.",
        kind="bad-row",
        path=text.name,
    )
