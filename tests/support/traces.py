"""Where a text is found in the files of a lake: what an erasure must not leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from instep.engines.duckdb import DuckDB


def _plain(value: object) -> object:
    """An Avro record as lists of what it holds, bounds as the text they are."""
    match value:
        case bytes():
            return value.decode(errors="replace")
        case dict():
            return [_plain(one) for one in value.values()]
        case list() | tuple():
            return [_plain(one) for one in value]
    data = getattr(value, "_data", None)
    return [_plain(one) for one in data] if data is not None else value


def holds(root: Path, text: str) -> list[Path]:
    """Returns the files below a folder in which a text is found, compressed pages read as well."""
    found = []
    for path in sorted(root.glob("*/**/*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        if path.suffix == ".parquet":
            with DuckDB(root / "staging") as engine:
                engine.allow(path)
                held = str(engine.rows(f"SELECT * FROM read_parquet('{path}')")).encode()
            data += held
        if path.suffix == ".avro":
            from pyiceberg.avro.file import AvroFile
            from pyiceberg.io.pyarrow import PyArrowFileIO

            file: AvroFile[Any] = AvroFile(PyArrowFileIO().new_input(str(path)))  # of any record
            with file as entries:
                data += str([_plain(one) for one in entries]).encode()
        if text.encode() in data:
            found.append(path)
    return found
