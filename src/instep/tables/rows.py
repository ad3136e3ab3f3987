"""Which files change when rows are appended, deleted, overwritten or upserted: copy on write.

Rows stream through DuckDB, so they may be larger than memory. Only files that hold a matching row
are written again; what bounds tell apart is not even read. Each act takes a state of a table and
returns another, and touches nothing that exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from instep.engines.engine import FileSet, Slice, WrittenFile
from instep.engines.scan import slice_condition
from instep.engines.schema import Schema, quoted
from instep.errors import InvalidError
from instep.tables.condition import check_condition, enclosed, files_between, files_that_may_match
from instep.tables.content import TableContent
from instep.tables.read import DataFile, data_files, file_set, layout_of, schema_of
from instep.tables.rewrite import rows_by_file
from instep.tables.write import append, data_folder, replace

if TYPE_CHECKING:
    import pyarrow as pa

    from instep.engines.duckdb import DuckDB

ARRIVING = "arriving"
"""What a stream of rows is called in the SELECT that reads it."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows on their way into a table: a SELECT over tables, or over the stream `arriving`."""

    select: str
    tables: tuple[FileSet, ...] = ()
    stream: pa.RecordBatchReader | None = None


def columns_of_rows(root: Path, rows: Rows) -> Schema:
    """Returns the columns of rows as Iceberg types, with ids 0; reads no row.

    Raises:
        InvalidError (kind "not-a-select", "sql-failed", "unsupported-type", "repeated-column").
    """
    with _engine(root) as engine:
        _prepare(engine, rows)
        return engine.describe(rows.select)


def append_rows(root: Path, content: TableContent, rows: Rows, *, at: datetime) -> TableContent:
    """Returns the table with rows added.

    Raises:
        InvalidError: as `DuckDB.write`.
    """
    return append(root, content, _written(root, content, rows), at=at)


def delete_rows(
    root: Path, content: TableContent, where: str | Slice, *, at: datetime
) -> TableContent:
    """Returns the table without the rows for which the SQL condition `where` is true.

    Raises:
        InvalidError (kinds "sql-failed", "not-a-select", "no-such-column", "not-a-time").
    """
    kept, gone = _without(root, content, where)
    return replace(root, content, kept, gone, at=at)


def overwrite_rows(
    root: Path, content: TableContent, rows: Rows, where: str | Slice | None, *, at: datetime
) -> TableContent:
    """Returns the table with rows instead of those for which `where` is true, or of all.

    Raises:
        InvalidError (kind "outside-slice"): one of the new rows is not where they belong.
        InvalidError: as `delete_rows` and `DuckDB.write`.
    """
    arrived = _written(root, content, rows)
    if where is None:
        gone = [file.path for file in data_files(root, content)]
        return replace(root, content, arrived, gone, at=at)
    _check_inside(root, content, arrived, where)
    kept, gone = _without(root, content, where)
    return replace(root, content, [*kept, *arrived], gone, at=at)


def upsert_rows(
    root: Path, content: TableContent, rows: Rows, key: Sequence[str], *, at: datetime
) -> TableContent:
    """Returns the table with rows added, those of the same key giving way to them.

    Raises:
        InvalidError (kinds "duplicate-key", "null-in-key"): the new rows have no key.
        InvalidError (kind "no-such-column"), and as `DuckDB.write`.
    """
    columns = [schema_of(root, content).column(name) for name in key]
    arrived = _written(root, content, rows)
    _check_key(root, content, arrived, [column.name for column in columns])
    return upsert_files(root, content, arrived, key, at=at)


def upsert_files(
    root: Path,
    content: TableContent,
    arrived: Sequence[WrittenFile],
    key: Sequence[str],
    *,
    at: datetime,
) -> TableContent:
    """Returns the table with files of its data folder added, rows of their keys giving way.

    A key stands in them once.

    Raises:
        InvalidError (kind "no-such-column").
    """
    if not arrived:
        return content
    schema = schema_of(root, content)
    columns = [schema.column(name) for name in key]
    keys = ", ".join(quoted(column.name) for column in columns)
    names = ", ".join(quoted(name) for name in schema.names)
    candidates = files_between(data_files(root, content), columns, arrived)
    with _engine(root) as engine:
        engine.view(_arriving(arrived, schema))
        whole = _only(root, content, candidates)
        hits = rows_by_file(engine, whole, f"SEMI JOIN {ARRIVING} USING ({keys})")
        kept = _rewritten(
            engine, root, content, whole, hits, names, f"ANTI JOIN {ARRIVING} USING ({keys})"
        )
    return replace(root, content, [*kept, *arrived], list(hits), at=at)


def _without(
    root: Path, content: TableContent, where: str | Slice
) -> tuple[list[WrittenFile], list[str]]:
    """Returns the files that take the place of those with a matching row, and these."""
    schema = schema_of(root, content)
    names = ", ".join(quoted(name) for name in schema.names)
    condition = _condition(schema, where)
    if isinstance(where, Slice):
        candidates: Sequence[DataFile] = data_files(root, content, where)
    else:
        candidates = files_that_may_match(data_files(root, content), schema, where)
    if not candidates:
        with _engine(root) as engine:
            check_condition(engine, schema, condition)
        return [], []
    with _engine(root) as engine:
        whole = _only(root, content, candidates)
        hits = rows_by_file(engine, whole, f"WHERE {condition}")
        check_condition(engine, schema, condition)
        rows = {file.path: file.rows for file in candidates}
        partly = [
            path for path, count in hits.items() if count < rows[path] or path in whole.deletes
        ]
        kept = _rewritten(
            engine, root, content, whole, partly, names, f"WHERE {condition} IS NOT TRUE"
        )
    return kept, list(hits)


def _rewritten(
    engine: DuckDB,
    root: Path,
    content: TableContent,
    whole: FileSet,
    files: Sequence[str] | dict[str, int],
    names: str,
    what: str,
) -> list[WrittenFile]:
    if not files:
        return []
    rewritten = whole.only(files)
    engine.check_bytes(rewritten)
    source = engine.source(rewritten)
    return list(
        engine.write(
            f"SELECT {names} FROM {source} {what}",
            whole.schema,
            data_folder(root, content),
            layout=layout_of(root, content),
        )
    )


def _only(root: Path, content: TableContent, files: Sequence[DataFile]) -> FileSet:
    return file_set(root, content, "whole").only(file.path for file in files)


def _written(root: Path, content: TableContent, rows: Rows) -> tuple[WrittenFile, ...]:
    with _engine(root) as engine:
        for table in rows.tables:
            engine.check_bytes(table)
        _prepare(engine, rows)
        return engine.write(
            rows.select,
            schema_of(root, content),
            data_folder(root, content),
            layout=layout_of(root, content),
        )


def _prepare(engine: DuckDB, rows: Rows) -> None:
    for table in rows.tables:
        engine.view(table)
    if rows.stream is not None:
        engine.connection.register(ARRIVING, rows.stream)


def _condition(schema: Schema, where: str | Slice) -> str:
    if isinstance(where, Slice):
        return f"({slice_condition(schema, where)})"
    return enclosed(where)


def _check_inside(
    root: Path, content: TableContent, arrived: Sequence[WrittenFile], where: str | Slice
) -> None:
    schema = schema_of(root, content)
    files = _arriving(arrived, schema)
    with _engine(root) as engine:
        engine.view(files)
        ((count,),) = engine.rows(
            f"SELECT count(*) FROM {ARRIVING} WHERE {_condition(schema, where)} IS NOT TRUE"
        )
    if count:
        raise InvalidError(
            f"{count:,} of the rows that shall take the place of others do not fulfil "
            f"{_condition(schema, where).replace(chr(10), '')}: expected all to. Leave them out, "
            "or append them.",
            kind="outside-slice",
            rows=count,
        )


def _check_key(
    root: Path, content: TableContent, arrived: Sequence[WrittenFile], key: Sequence[str]
) -> None:
    names = ", ".join(quoted(name) for name in key)
    missing = " OR ".join(f"{quoted(name)} IS NULL" for name in key)
    files = _arriving(arrived, schema_of(root, content))
    with _engine(root) as engine:
        engine.view(files)
        ((count,),) = engine.rows(f"SELECT count(*) FROM {ARRIVING} WHERE {missing}")
        repeated = engine.rows(
            f"SELECT {names} FROM {ARRIVING} GROUP BY {names} HAVING count(*) > 1 "
            "ORDER BY ALL LIMIT 3"
        )
    if count:
        raise InvalidError(
            f"{count:,} rows have null in their key ({', '.join(key)}): expected a value in each "
            "column of the key. Fill them in, or leave the rows out.",
            kind="null-in-key",
            rows=count,
        )
    if repeated:
        shown = "; ".join(", ".join(str(value) for value in row) for row in repeated)
        raise InvalidError(
            f"Several rows have the same key ({', '.join(key)}), such as {shown}: expected one row "
            "a key. Keep one of them.",
            kind="duplicate-key",
        )


def _arriving(files: Sequence[WrittenFile], schema: Schema) -> FileSet:
    digests = {file.path: file.digest for file in files}
    return FileSet(ARRIVING, tuple(digests), schema, digests=digests)


def _engine(root: Path) -> DuckDB:
    from instep.engines.duckdb import DuckDB

    return DuckDB(root / "staging")
