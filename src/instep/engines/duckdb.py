"""Runs SQL over Parquet file sets in DuckDB, and writes Parquet files with field ids.

Always: columns are found by field id, never by position; the session is in UTC; memory and spill
are bounded; once the first statement has run, nothing can be read but the registered files and
folders, and no setting can be changed. Row order is promised by an ORDER BY when reading, and
never when writing.
Not here: who may run what, or which clock and random functions SQL may call.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb

from instep.engines.engine import ColumnStatistics, FileSet, WrittenFile
from instep.engines.layout import (
    Layout,
    order_by,
    partition_columns,
    partition_names,
    partition_of,
)
from instep.engines.scan import scan, where
from instep.engines.schema import Column, Schema, literal, quoted
from instep.engines.statistics import file_statistics
from instep.engines.types import iceberg_type, is_castable
from instep.errors import InternalError, InvalidError, UnavailableError
from instep.faults import reached
from instep.history.objects import file_digest, publish_durably

MEMORY_LIMIT_BYTES = 1 << 30
"""DuckDB's own buffers; the process needs some hundred MB more. An ingest must stay under 2 GiB."""

SPILL_LIMIT_BYTES = 64 << 30
"""The most that one engine may spill to its temporary folder."""

TARGET_FILE_BYTES = 128 << 20
"""The usual size of an Iceberg data file: few enough to list, small enough to rewrite."""

_HASHED_AT_ONCE = 4
"""Files hashed at the same time after a write."""


PLAIN = Layout()


class DuckDB:
    """One DuckDB session, in memory, with a private folder under `temp` that dies with it.

    Register files with `view` and `allow` first; the first `describe`, `rows`, `sql` or `write`
    locks the session. Later views may only name files that are already allowed.
    """

    def __init__(
        self,
        temp: Path,
        *,
        memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
        threads: int | None = None,
    ) -> None:
        temp.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="duckdb-", dir=temp.resolve()))
        self._files: set[str] = set()
        self._folders: list[Path] = [self._folder / "out"]
        self._locked = False
        self._folders[0].mkdir()
        # Without a limit on spilled bytes one wrong join could fill the disk of the lake.
        self._connection = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": f"{memory_limit_bytes}B",
                "threads": threads or len(os.sched_getaffinity(0)),
                "temp_directory": str(self._folder / "spill"),
                "max_temp_directory_size": f"{SPILL_LIMIT_BYTES}B",
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        self._connection.execute("SET TimeZone = 'UTC'")

    def __enter__(self) -> DuckDB:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the session and removes its folder."""
        self._connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The session itself, for SQL of Instep's own that needs no translation of errors."""
        return self._connection

    def own_file(self, name: str) -> Path:
        """Returns a place in the session's folder: SQL may write there, and it dies with it."""
        return self._folders[0] / name

    def allow(self, path: Path) -> None:
        """Lets SQL read one file, or everything under one folder; before the first statement.

        Raises:
            InternalError (kind "engine-locked").
        """
        path = path.resolve()
        if self._allows(str(path)):
            return
        if self._locked:
            raise InternalError(
                f"The engine was asked to read {path} after its first statement: expected every "
                "input to be registered before. Report this as a fault of Instep.",
                kind="engine-locked",
                path=str(path),
            )
        if path.is_dir():
            self._folders.append(path)
        else:
            self._files.add(str(path))

    def view(self, file_set: FileSet) -> None:
        """Makes a file set readable under its SQL name; its slice is pushed down to the files.

        Raises:
            InvalidError (kind "damaged-file"): a file is missing, or is no Parquet file.
            InvalidError (kind "no-field-ids"): a file has a column without a field id.
            InvalidError (kind "type-mismatch"): a file holds a type that its table cannot read.
        """
        for path in file_set.files:
            self.allow(Path(path))
        if file_set.files:
            with _translated(f"view {file_set.name}", _damaged):
                self._verify(file_set)
        select = f"SELECT * FROM {scan(file_set)}{where(file_set)}"
        with _translated(f"view {file_set.name}"):
            self._connection.execute(f"CREATE OR REPLACE VIEW {quoted(file_set.name)} AS {select}")

    def lock(self) -> None:
        """Ends registration: from here nothing else can be read and no setting be changed."""
        if self._locked:
            return
        files = ", ".join(literal(path) for path in sorted(self._files))
        folders = ", ".join(literal(f"{path}/") for path in self._folders)
        self._connection.execute(f"SET allowed_paths = [{files}]")
        self._connection.execute(f"SET allowed_directories = [{folders}]")
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")
        self._locked = True

    def sql(self, text: str) -> duckdb.DuckDBPyRelation:
        """Returns one SELECT as a lazy relation.

        Raises:
            InvalidError (kind "not-a-select", "sql-failed").
        """
        self._check_select(text)
        with _translated("SQL"):
            return self._connection.sql(text)

    def rows(self, text: str) -> list[tuple[Any, ...]]:  # values of any SQL type
        """Returns all rows of one SELECT.

        Raises:
            InvalidError (kind "not-a-select", "sql-failed").
        """
        self._check_select(text)
        with _translated("SQL"):
            return self._connection.execute(text).fetchall()

    def run(self, text: str) -> None:
        """Runs one statement of Instep's own, such as one that makes a temporary table.

        Raises:
            InvalidError (kind "sql-failed"), UnavailableError (kind "out-of-memory").
        """
        self.lock()
        with _translated("SQL"):
            self._connection.execute(text)

    def describe(self, text: str) -> Schema:
        """Returns the columns of one SELECT as Iceberg types, with ids 0; reads no row.

        Raises:
            InvalidError (kind "not-a-select", "sql-failed", "unsupported-type",
                "repeated-column").
        """
        columns = tuple(Column(0, name, iceberg_type(kind, name)) for name, kind in self._of(text))
        seen: set[str] = set()
        for column in columns:
            if column.name.lower() in seen:
                raise InvalidError(
                    f'SQL returns column "{column.name}" twice: expected names that are unique '
                    "ignoring case. Rename one with AS.",
                    kind="repeated-column",
                    column=column.name,
                )
            seen.add(column.name.lower())
        return Schema(columns)

    def write(
        self,
        text: str,
        schema: Schema,
        folder: Path,
        target_bytes: int = TARGET_FILE_BYTES,
        layout: Layout = PLAIN,
    ) -> tuple[WrittenFile, ...]:
        """Writes the rows of one SELECT as Parquet files of `schema`; streams, and spills.

        Columns are matched by name, ignoring case, and cast only where nothing is lost. The files
        are durable under names of their own when this returns; zero rows give zero files. A file
        holds rows of one partition of `layout`, in its sort order.

        Raises:
            InvalidError (kind "not-a-select", "sql-failed", "unsupported-type", "type-mismatch",
                "no-such-column", "unexpected-column", "null-in-required").
            UnavailableError (kind "out-of-memory", "disk-failed").
        """
        select = self._conforming(text, schema)
        out = self._folders[0] / uuid.uuid4().hex
        self.lock()
        reached("engine.copy.before")
        try:
            with _translated("SQL"):
                found = self._copied(select, schema, out, target_bytes, layout)
            reached("engine.copy.after")
            _check_required(schema, [one.columns for one in found])
            digests = _digests([Path(one.path) for one in found])
            return tuple(
                replace(one, path=str(_publish(Path(one.path), folder)), digest=digest)
                for one, digest in zip(found, digests, strict=True)
            )
        finally:
            shutil.rmtree(out, ignore_errors=True)

    def _copied(
        self, select: str, schema: Schema, out: Path, target_bytes: int, layout: Layout
    ) -> list[WrittenFile]:
        """Copies rows into files: one pass, and a second over each partitioned file to sort it.

        DuckDB keeps a sort order within a file, but not when it also partitions.
        """
        order = order_by(layout.sort, schema)
        if not layout.partition:
            return self._copy(f"{select}{order}", schema, out, f"FILE_SIZE_BYTES {target_bytes}")
        columns = ", ".join(partition_columns(layout, schema))
        split = f"SELECT *, {columns} FROM ({select})"
        names = ", ".join(partition_names(layout))
        options = f"FILE_SIZE_BYTES {target_bytes}, PARTITION_BY ({names})"
        found = self._copy(split, schema, out, options, layout)
        if not order:
            return found
        listed = ", ".join(quoted(name) for name in schema.names)
        done = []
        for number, one in enumerate(found):
            path = literal(one.path)
            query = f"SELECT {listed} FROM read_parquet({path}, hive_partitioning = false){order}"
            (file,) = self._copy(query, schema, out / f"sorted-{number}", "FILE_SIZE_BYTES '1TB'")
            Path(one.path).unlink()
            done.append(replace(file, partition=one.partition))
        return done

    def _copy(
        self, select: str, schema: Schema, out: Path, options: str, layout: Layout = PLAIN
    ) -> list[WrittenFile]:
        """Copies rows into a folder; the files have no digest yet."""
        ids = ", ".join(f"{quoted(column.name)}: {column.id}" for column in schema.columns)
        written = self._connection.execute(
            f"COPY ({select}) TO {literal(str(out))} (FORMAT parquet, COMPRESSION zstd, "
            f"FIELD_IDS {{{ids}}}, {options}, RETURN_STATS)"
        ).fetchall()
        return [
            WrittenFile(
                row[0], row[1], row[2], "", file_statistics(row[4], schema),
                partition_of(layout, row[5] or {}),
            )
            for row in written
            if row[1]
        ]  # fmt: skip

    def _allows(self, path: str) -> bool:
        return path in self._files or any(Path(path).is_relative_to(f) for f in self._folders)

    def _check_select(self, text: str) -> None:
        self.lock()
        with _translated("SQL"):
            statements = self._connection.extract_statements(text)
        kinds = [statement.type for statement in statements]
        if kinds != [duckdb.StatementType.SELECT]:
            named = ", ".join(kind.name for kind in kinds) or "nothing"
            raise InvalidError(
                f"SQL holds {named}: expected exactly one SELECT. Keep one SELECT only.",
                kind="not-a-select",
            )

    def _of(self, text: str) -> list[tuple[str, str]]:
        self._check_select(text)
        with _translated("SQL"):
            found = self._connection.execute(f"DESCRIBE {_bare(text)}").fetchall()
        return [(name, kind) for name, kind, *_ in found]

    def _conforming(self, text: str, schema: Schema) -> str:
        given = {column.name.lower(): column for column in self.describe(text).columns}
        wanted = {column.name.lower() for column in schema.columns}
        for name, column in given.items():
            if name not in wanted:
                raise InvalidError(
                    f'SQL returns column "{column.name}", which is not in the table: expected '
                    f"{', '.join(schema.names)}. Leave it out, or change the table's contract.",
                    kind="unexpected-column",
                    column=column.name,
                )
        casts = []
        for column in schema.columns:
            source = given.get(column.name.lower())
            if source is None:
                raise InvalidError(
                    f'SQL does not return column "{column.name}": expected all of '
                    f"{', '.join(schema.names)}. Add it to the SELECT.",
                    kind="no-such-column",
                    column=column.name,
                )
            if not is_castable(source.type, column.type):
                raise InvalidError(
                    f'Column "{column.name}" is {source.type}: expected {column.type}. '
                    "Cast it in the SQL, or change the contract.",
                    kind="type-mismatch",
                    column=column.name,
                )
            casts.append(
                f"CAST({quoted(source.name)} AS {column.sql_type}) AS {quoted(column.name)}"
            )
        return f"SELECT {', '.join(casts)} FROM ({_bare(text)}\n)"

    def _verify(self, file_set: FileSet) -> None:
        """Checks each file's field ids: DuckDB reads a column without an id as NULL, silently."""
        paths = ", ".join(literal(path) for path in file_set.files)
        by_id = {column.id: column for column in file_set.schema.columns}
        found = self._connection.execute(
            "SELECT file_name, name, field_id, duckdb_type, num_children "
            f"FROM parquet_schema([{paths}]) WHERE column_id > 0"
        ).fetchall()
        for path, name, field_id, kind, _children in found:
            if field_id is None:
                raise InvalidError(
                    f'File {path} has column "{name}" without a field id: expected ids in every '
                    "file of a table. Write the file again through Instep.",
                    kind="no-field-ids",
                    path=path,
                )
            column = by_id.get(field_id)
            if column is not None and not is_castable(iceberg_type(kind, name), column.type):
                raise InvalidError(
                    f'File {path} holds column "{name}" as {kind}: expected {column.type}. '
                    "Write the file again with the table's type.",
                    kind="type-mismatch",
                    path=path,
                )


def _bare(text: str) -> str:
    """One statement without the semicolon and comments that end it, so it can stand in brackets."""
    data = text.encode()  # DuckDB counts bytes
    end = len(data)
    for offset, kind in reversed(duckdb.tokenize(text)):
        if kind != duckdb.token_type.comment and data[offset : offset + 1] != b";":
            break
        end = offset
    return data[:end].decode()


def _digests(files: Sequence[Path]) -> list[str]:
    """Returns the SHA-256 of each file; several are read at once, as hashing holds no lock."""
    with ThreadPoolExecutor(max_workers=_HASHED_AT_ONCE) as pool:
        return list(pool.map(file_digest, files))


def _publish(source: Path, folder: Path) -> Path:
    path = folder.resolve() / f"{uuid.uuid4().hex}.parquet"
    publish_durably(source, path)
    return path


def _check_required(schema: Schema, files: Sequence[tuple[ColumnStatistics, ...]]) -> None:
    for index, column in enumerate(schema.columns):
        nulls = sum(file[index].nulls for file in files)
        if column.required and nulls:
            raise InvalidError(
                f'Column "{column.name}" is null in {nulls} rows: expected a value in every row. '
                "Filter the rows out, or make the column optional in the contract.",
                kind="null-in-required",
                column=column.name,
                rows=nulls,
            )


def _failed(what: str, error: duckdb.Error) -> InvalidError:
    return InvalidError(
        f"{what} failed: {_first_lines(error)}. Correct the statement.", kind="sql-failed"
    )


def _damaged(what: str, error: duckdb.Error) -> InvalidError:
    return InvalidError(
        f"{what} cannot be read: {_first_lines(error)}. Restore the file from a backup.",
        kind="damaged-file",
    )


def _first_lines(error: duckdb.Error) -> str:
    return str(error).strip().split("\n\nLINE ")[0].rstrip(".")


@contextmanager
def _translated(what: str, invalid: Any = _failed) -> Iterator[None]:  # a function of this module
    """Turns DuckDB's errors into those of the seven families."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise UnavailableError(
            f"{what} needs more memory or disk than allowed: {_first_lines(error)}. "
            "Give the run more, or make it smaller.",
            kind="out-of-memory",
        ) from error
    except duckdb.PermissionException as error:
        raise InvalidError(
            f"{what} reads something outside its inputs: {_first_lines(error)}: expected only "
            "registered tables. Name a table instead.",
            kind="sql-not-allowed",
        ) from error
    except duckdb.IOException as error:
        if invalid is _damaged:
            raise _damaged(what, error) from error
        raise UnavailableError(
            f"{what} could not read or write the disk: {_first_lines(error)}. "
            "Make room on it, or repair it, then try again.",
            kind="disk-failed",
        ) from error
    except duckdb.Error as error:
        raise invalid(what, error) from error
