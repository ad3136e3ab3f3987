"""Writes rows of files again, for those who let other files stand in for them.

Copy on write needs to know which files hold a matching row; compaction and erasure, whose files
stand for what commits name, need to be sure that the rows written are those read.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from instep.engines.engine import FileSet, WrittenFile
from instep.engines.layout import PLAIN, Layout
from instep.engines.schema import Schema, free_name, quoted
from instep.errors import InternalError

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB

AT_ONCE = 500
"""Files in one query: its text and what is open stay bounded."""

_FILE, _PLACE = "file of the row", "place of the row"
"""Column names for the path of a row's file and its place there; hardly a column has spaces."""

_GONE = quoted("rows that go")
"""A table of the places of rows in their file; no view has such a name."""


def rows_by_file(
    engine: DuckDB, files: FileSet, what: str, at_once: int = AT_ONCE
) -> dict[str, int]:
    """Returns how many rows of each file are meant by `what`, SQL to stand after FROM; no zeros."""
    engine.allow_files(files)
    name = free_name(_FILE, files.schema.names)
    found: dict[str, int] = {}
    for start in range(0, len(files.files), at_once):
        source = engine.source(files.only(files.files[start : start + at_once]), file_name=name)
        found |= dict(
            engine.rows(
                f"SELECT {quoted(name)}, count(*) FROM {source} {what} GROUP BY 1 ORDER BY 1"
            )
        )
    return found


def written_again(
    engine: DuckDB,
    select: str,
    schema: Schema,
    folder: Path,
    target_bytes: int,
    layout: Layout = PLAIN,
) -> tuple[WrittenFile, ...]:
    """Writes the rows of one SELECT as `DuckDB.write` does, then reads them back.

    They are the same if their number is, and the sum of their hashes, which no order changes.

    Raises:
        InternalError (kind "rows-differ").
        InvalidError, UnavailableError: as `DuckDB.write`.
    """
    read = _sum(engine, f"({select})", schema)
    files = engine.write(select, schema, folder, target_bytes, layout)
    engine.view(FileSet("written", tuple(file.path for file in files), schema))
    check_same(read, _sum(engine, "written", schema))
    return files


def written_without(
    engine: DuckDB, asked: FileSet, own: Schema, condition: str, folder: Path, stem: str
) -> WrittenFile | None:
    """Writes one file again without its live rows for which `condition` is true, then reads it.

    The condition names the columns of `asked`, and `own` are those of the file, which stay as they
    are; rows stay in their order. None where no row is left. The name of the new file begins with
    `stem`.

    Raises:
        InternalError (kind "rows-differ").
        InvalidError, UnavailableError: as `DuckDB.write_again`.
    """
    (path,) = asked.files
    place = free_name(_PLACE, (*asked.schema.names, *own.names))
    by = quoted(place)
    found = engine.source(asked, row_number=place)
    engine.run(
        f"CREATE OR REPLACE TEMP TABLE {_GONE} AS SELECT {by} FROM {found} WHERE {condition}"
    )
    whole = engine.source(replace(asked, schema=own), row_number=place)
    ((rows, gone),) = engine.rows(
        f"SELECT (SELECT count(*) FROM {whole}), (SELECT count(*) FROM {_GONE})"
    )
    if rows == gone:
        return None
    select = f"SELECT * FROM {whole} ANTI JOIN {_GONE} USING ({by})"
    _, total = _sum(engine, f"({select})", own)
    file = engine.write_again(select, place, own, path, folder, stem)
    engine.view(FileSet("written", (file.path,), own))
    check_same((rows - gone, total), _sum(engine, "written", own))
    return file


def check_same(before: tuple[int, int], after: tuple[int, int]) -> None:
    """Holds that the rows that were written, by number and sum, are those that were read.

    Raises:
        InternalError (kind "rows-differ").
    """
    if before != after:
        raise InternalError(
            f"A rewrite of files wrote {after[0]:,} rows with the sum {after[1]}: expected "
            f"{before[0]:,} with {before[1]}, as they were read. Nothing was replaced. Report "
            "this as a fault of Instep.",
            kind="rows-differ",
        )


def _sum(engine: DuckDB, source: str, schema: Schema) -> tuple[int, int]:
    names = ", ".join(quoted(name) for name in schema.names)
    ((count, total),) = engine.rows(f"SELECT count(*), sum(hash({names})) FROM {source}")
    return int(count), int(total or 0)
