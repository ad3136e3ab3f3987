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
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import duckdb

from instep.engines.bring import begins, begun_anew, brought
from instep.engines.conform import bare, conforming
from instep.engines.copying import check_copied, copied, copied_as_one
from instep.engines.deletes import position_files, positions_sql, vector_positions
from instep.engines.duckdb_errors import damaged, failed_on, translated
from instep.engines.engine import FileSet, Slice, WrittenFile
from instep.engines.exact import write_rows_of
from instep.engines.fixed import has_fixed, write_fixed
from instep.engines.held import Footer, Held, columns_of, columns_sql, held_alike, layouts_sql
from instep.engines.layout import PLAIN, Layout
from instep.engines.publish import published
from instep.engines.reading import alone
from instep.engines.scan import deleted_rows, scan, slice_condition, where
from instep.engines.schema import Schema, check_names, literal, quoted
from instep.engines.splice import TakenApart, spliced
from instep.engines.types import column_of
from instep.errors import InternalError, InvalidError
from instep.faults import reached
from instep.history.places import here, linked, on_s3

if TYPE_CHECKING:
    import pyarrow as pa

MEMORY_LIMIT_BYTES = 1 << 30
"""DuckDB's own buffers; the process needs some hundred MB more. An ingest must stay under 2 GiB."""

SPILL_LIMIT_BYTES = 64 << 30
"""The most that one engine may spill to its temporary folder."""

TARGET_FILE_BYTES = 128 << 20
"""The usual size of an Iceberg data file: few enough to list, small enough to rewrite."""


class DuckDB:
    """One DuckDB session, in memory, with a private folder under `temp` that dies with it.

    `temp` is a folder of the lake whose files are read; of one on S3 files are brought here first.

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
        self._lake = temp
        local = here(temp)
        local.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="duckdb-", dir=local.resolve()))
        self._files: set[str] = set()
        self._folders: list[Path] = [self._folder / "out", self._folder / "in"]
        self._footers: dict[str, Footer] = {}
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
        if on_s3(path):
            return  # what is brought lies in the session's folder
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

    def allow_files(self, file_set: FileSet) -> None:
        """Lets SQL read the files of a file set, its delete files too; as `allow`.

        Raises:
            InternalError (kind "engine-locked").
        """
        for path in (*file_set.files, *position_files(file_set.deletes)):
            self.allow(self._lake / path)

    def check_bytes(self, file_set: FileSet) -> None:
        """Holds that files still have the bytes that were written, whatever is remembered of them.

        For who is about to write from them: what is damaged must not be written as new.

        Raises:
            InternalError (kind "damaged-object").
        """
        brought(file_set, self._lake, self._folders[1], again=True)

    def view(self, file_set: FileSet, selected: str = "*") -> None:
        """Makes a file set readable under its SQL name; its slice is pushed down to the files.

        `selected` is SQL of the columns of the view, of Instep's own.

        Raises: as `source`.
        """
        select = f"SELECT {selected} FROM {self.source(file_set)}{where(file_set)}"
        with translated(f"view {file_set.name}"):
            self._connection.execute(f"CREATE OR REPLACE VIEW {quoted(file_set.name)} AS {select}")

    def source(self, file_set: FileSet, *, row_number: str = "", file_name: str = "") -> str:
        """Returns SQL, to stand after FROM, of all rows of a file set but its deleted ones.

        Its slice is left aside. With `row_number` and `file_name`, columns of these names have the
        place of each row in its file, and the path of that. A table of the deleted rows is made in
        the session, under a name of the set's.

        Raises:
            InternalError (kind "damaged-object"): a file has other bytes than were written.
            InvalidError (kind "damaged-file"): a file is missing, or is no Parquet file.
            InvalidError (kind "no-field-ids"): a file has a column without a field id.
            InvalidError (kind "type-mismatch"): a file holds a type that its table cannot read.
        """
        file_set = brought(file_set, self._lake, self._folders[1])
        self.allow_files(file_set)
        with translated(f"view {file_set.name}", damaged):
            held = self._held(file_set)
            self._find_deleted(file_set)
        found = scan(file_set, held, row_number=row_number, file_name=file_name)
        return self._named_as_in_lake(found, file_name) if file_name else found

    def source_of_some(self, file_set: FileSet, paths: Collection[str]) -> str:
        """Returns SQL as `source` does, of some files of a set that `view` was given as a whole."""
        some = brought(file_set.only(paths), self._lake, self._folders[1])
        return scan(some, self._held(some))

    def _named_as_in_lake(self, source: str, column: str) -> str:
        """SQL in which a column of paths has those of the lake, wherever the files were read."""
        name = quoted(column)
        for remote, local in begins(self._lake, self._folders[1]):
            path = begun_anew(name, local, remote)
            source = f"(SELECT * REPLACE ({path} AS {name}) FROM {source})"
        return source

    def columns_in(self, path: str) -> Schema:
        """Returns all columns of one file as it has them, whatever a table knows of it.

        Raises:
            InvalidError (kind "damaged-file", "no-field-ids", "unsupported-type").
            NotFoundError (kind "no-such-object"): the file is not on S3.
        """
        return self._columns_in(self.at_hand(path))

    def at_hand(self, path: str) -> str:
        """Returns the file of this machine that SQL reads for a file of the lake."""
        return str(linked(self._lake / path, self._folders[1]))

    def lock(self) -> None:
        """Ends registration: from here nothing else can be read and no setting be changed."""
        if self._locked:
            return
        folders = [f"{path}/" for path in self._folders]
        for setting, paths in (
            ("allowed_paths", sorted(self._files)),
            ("allowed_directories", folders),
        ):
            # A pattern must be allowed, and so must what it finds.
            allowed = ", ".join(literal(one) for path in paths for one in {path, alone(path)})
            self._connection.execute(f"SET {setting} = [{allowed}]")
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")
        self._locked = True

    def sql(self, text: str) -> duckdb.DuckDBPyRelation:
        """Returns one SELECT as a lazy relation; DuckDB raises what fails in its rows.

        Raises:
            InvalidError (kind "not-a-select", "sql-failed"): it cannot be planned.
        """
        select = self._select(text)
        with translated("SQL", self._failed):
            return self._connection.sql(select)

    def arrow(self, text: str) -> pa.Table:
        """Returns all rows of one SELECT as an Arrow table; raises as `rows`."""
        relation = self.sql(text)
        with translated("SQL", self._failed):
            found: pa.Table = relation.to_arrow_table()
        return found

    def rows(self, text: str) -> list[tuple[Any, ...]]:  # values of any SQL type
        """Returns all rows of one SELECT.

        Raises:
            InvalidError (kind "not-a-select", "sql-failed").
            UnavailableError (kind "out-of-memory", "disk-failed").
        """
        select = self._select(text)
        with translated("SQL", self._failed):
            return self._connection.execute(select).fetchall()

    def run(self, text: str) -> list[tuple[Any, ...]]:  # as above
        """Returns the rows of one statement of Instep's own, of whatever kind.

        Raises:
            InvalidError (kind "sql-failed"), UnavailableError (kind "out-of-memory").
        """
        self.lock()
        with translated("SQL", self._failed):
            return self._connection.execute(text).fetchall()

    def _failed(self, what: str, error: duckdb.Error) -> InvalidError:
        return failed_on(self._views)(what, error)

    def _views(self) -> list[str]:
        found = self._connection.execute(
            "SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY view_name"
        ).fetchall()
        return [str(name) for (name,) in found]

    def describe(self, text: str) -> Schema:
        """Returns the columns of one SELECT as Iceberg types, with ids 0; reads no row.

        Raises:
            InvalidError (kind "not-a-select", "sql-failed", "unsupported-type",
                "repeated-column").
        """
        relation = self.sql(text)
        columns = tuple(map(column_of, relation.types, relation.columns))
        check_names(zip(relation.columns, relation.columns, strict=True))
        return Schema(columns)

    def part_of(self, text: str, part: Slice) -> str:
        """Returns the SELECT of those rows of one SELECT that lie in a slice of its columns.

        Raises:
            InvalidError (kind "no-such-column", "not-a-time"), and as `describe`.
        """
        condition = slice_condition(self.describe(text), part)
        return f"SELECT * FROM ({bare(text)}\n) WHERE {condition}"

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
        select = conforming(self.describe(text), schema, bare(text))
        self.lock()
        with self._out() as out:
            reached("engine.copy.before")
            with translated("SQL", self._failed):
                found = copied(self._connection, select, schema, out, target_bytes, layout)
            reached("engine.copy.after")
            check_copied(self._connection, schema, found)
            if has_fixed(schema):
                found = [
                    replace(one, size_bytes=write_fixed(Path(one.path), schema)) for one in found
                ]
            return tuple(published(found, folder))

    def write_columns(
        self,
        text: str,
        place: str,
        changed: Schema,
        schema: Schema,
        file: WrittenFile,
        folder: Path,
    ) -> WrittenFile | None:
        """Writes a file of `schema` anew with the columns `changed` as one SELECT gives them.

        The SELECT returns a row for each row of the file, with its place there in the column
        `place`. All other columns are copied as they are, their statistics too. None, and nothing
        is written, where the file's bytes cannot be taken apart (`engines.splice`), it has a column
        that the schema has not, or it would grow beyond the usual size. The new file is durable
        under a name of its own when this returns.

        Raises: as `write`.
        """
        base = TakenApart.of(Path(self.at_hand(file.path)))
        if (
            base is None
            or has_fixed(changed)  # DuckDB does not write these
            or not {(one.name, one.id) for one in changed.columns} <= base.columns
            or not base.field_ids <= {one.id for one in schema.fields()}
        ):
            return None
        given = self.describe(text)
        given = Schema(tuple(one for one in given.columns if one.name != place))
        select = f"{conforming(given, changed, text)} ORDER BY {quoted(place)}"
        with self._out() as out:
            reached("engine.copy.before")
            with translated("SQL", self._failed):
                new = copied_as_one(self._connection, select, changed, out, base.row_group_rows)
            reached("engine.copy.after")
            check_copied(self._connection, changed, [new])
            whole = out / "whole.parquet"
            if not spliced(base, Path(new.path), whole, max(TARGET_FILE_BYTES, file.size_bytes)):
                return None
            measured = {one.field_id: one for one in new.columns}
            columns = tuple(measured.get(one.field_id, one) for one in file.columns)
            size = whole.stat().st_size
            made = replace(file, path=str(whole), size_bytes=size, columns=columns, origins=())
            return published([made], folder)[0]

    def write_again(
        self, text: str, place: str, schema: Schema, path: str, folder: Path, stem: str
    ) -> WrittenFile:
        """Writes rows of the file at `path`, at least one, as one file with the same columns.

        The SELECT returns these, as `columns_in` tells of them, and in the column `place` where
        each row was: their order stays. What they hold is not looked at. The new file is durable
        when this returns; its name begins with `stem`.

        Raises:
            InvalidError (kind "sql-failed").
            UnavailableError (kind "out-of-memory", "disk-failed").
        """
        names = ", ".join(quoted(name) for name in schema.names)
        self.lock()
        with self._out() as out:
            reached("engine.copy.before")
            with translated("SQL", self._failed):
                select = f"SELECT {names} FROM ({text}) ORDER BY {quoted(place)}"
                new = copied_as_one(self._connection, select, schema, out)
            reached("engine.copy.after")
            if self._columns_in(new.path) != schema:
                places = self.arrow(f"SELECT {quoted(place)} FROM ({text})").column(0)
                exact = out / "exact.parquet"
                size = write_rows_of(Path(self.at_hand(path)), places, exact)
                new = replace(new, path=str(exact), size_bytes=size)
            return published([new], folder, stem)[0]

    @contextmanager
    def _out(self) -> Iterator[Path]:
        """A folder for files that are not published yet."""
        out = self._folders[0] / uuid.uuid4().hex
        try:
            yield out
        finally:
            shutil.rmtree(out, ignore_errors=True)

    def _allows(self, path: str) -> bool:
        return path in self._files or any(Path(path).is_relative_to(f) for f in self._folders)

    def _select(self, text: str) -> duckdb.Statement:
        self.lock()
        with translated("SQL", self._failed):
            statements = self._connection.extract_statements(text)
        kinds = [statement.type for statement in statements]
        if kinds != [duckdb.StatementType.SELECT]:
            named = ", ".join(kind.name for kind in kinds) or "nothing"
            raise InvalidError(
                f"SQL holds {named}: expected exactly one SELECT. Keep one SELECT only.",
                kind="not-a-select",
            )
        return statements[0]

    def _held(self, file_set: FileSet) -> tuple[Held, ...]:
        """How the files hold their columns; of each file that is asked once."""
        new = [path for path in file_set.files if path not in self._footers]
        if new:
            found = self._connection.execute(layouts_sql(new)).fetchall()
            for files, nodes, counts_nan in found:
                self._footers |= dict.fromkeys(files, Footer(nodes, counts_nan))
        alike: dict[int, list[str]] = {}
        for path in file_set.files:
            alike.setdefault(id(self._footers[path]), []).append(path)
        return tuple(
            held_alike(files, self._footers[files[0]], file_set.schema) for files in alike.values()
        )

    def _columns_in(self, path: str) -> Schema:
        with translated(f"File {path}", damaged):
            ((nodes,),) = self._connection.execute(columns_sql(path)).fetchall()
        return columns_of(nodes, path)

    def _find_deleted(self, file_set: FileSet) -> None:
        """Makes the table of a file set's deleted rows; none when there are no delete files."""
        deletes = {path: file_set.deletes.get(path, ()) for path in file_set.files}
        if not any(deletes.values()):
            return
        table = deleted_rows(file_set)
        self._connection.execute(f"CREATE OR REPLACE TABLE {table} (file VARCHAR, pos BIGINT)")
        if listed := position_files(deletes):
            positions = positions_sql(listed, deletes)
            self._connection.execute(f"INSERT INTO {table} {positions}")
        for path, found in deletes.items():
            for vector in found:
                if vector.offset is not None:
                    self._connection.execute(
                        f"INSERT INTO {table} SELECT ?, unnest(?::BIGINT[])",
                        [path, vector_positions(vector)],
                    )
