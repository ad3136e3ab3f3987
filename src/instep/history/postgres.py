"""The store in a PostgreSQL database, one schema per lake: many processes on many machines.

A writer takes an advisory lock before it reads: of the whole lake, or, where it names its refs,
shared with other such writers and exclusive for each ref. `fsync` and `synchronous_commit` are left
as the server has them and shown by `doctor`. When the answer to a commit is lost, the server is
asked on a new connection whether it happened: what was done is never done again.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from instep.errors import (
    ConflictError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from instep.faults import reached
from instep.history.store import (
    FORMAT_VERSION,
    LOCK_WAIT_S,
    Database,
    Fill,
    Row,
    Value,
    migration_scripts,
)

if TYPE_CHECKING:
    import psycopg

CONNECT_WAIT_S = 10
"""How long a connection may take to open."""


@dataclass(frozen=True, slots=True)
class PostgresTransaction:
    """Statements that share one state of the database."""

    connection: psycopg.Connection[Row]

    def execute(self, sql: str, values: Sequence[Value] = ()) -> int:
        """Runs a statement; returns how many rows it changed."""
        return self.connection.execute(_translated(sql), values).rowcount

    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        return self.connection.execute(_translated(sql), values).fetchall()

    def row(self, sql: str, values: Sequence[Value] = ()) -> Row | None:
        return self.connection.execute(_translated(sql), values).fetchone()


@dataclass(frozen=True, slots=True)
class PostgresStore:
    """One schema of a database; one connection per thread, opened when first used."""

    database: Database
    _local: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    @contextmanager
    def transaction(self, *refs: str) -> Iterator[PostgresTransaction]:
        """As `Store.transaction`."""
        import psycopg

        reached("transaction.begin.before")
        connection = self._begin(refs)
        number = 0
        try:
            yield PostgresTransaction(connection)
            found = connection.execute("select pg_current_xact_id_if_assigned()::text").fetchone()
            number = int(found[0]) if found and found[0] else 0
        except BaseException as error:
            with suppress(psycopg.Error):
                connection.execute("rollback")
            if isinstance(error, psycopg.OperationalError):
                self.close()
                raise _unreachable(error) from error
            raise
        reached("transaction.commit.before")
        try:
            connection.execute("commit")
        except psycopg.OperationalError as error:
            self.close()
            self._read_back(number, error)
        reached("transaction.commit.after")

    @contextmanager
    def reading(self) -> Iterator[PostgresTransaction]:
        """As `Store.reading`."""
        import psycopg

        connection = self._connection()
        if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            yield PostgresTransaction(connection)
            return
        try:
            connection.execute("begin isolation level repeatable read read only")
            yield PostgresTransaction(connection)
        except psycopg.OperationalError as error:
            self.close()
            raise _unreachable(error) from error
        finally:
            with suppress(psycopg.Error):
                connection.execute("rollback")

    def close(self) -> None:
        """Closes this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            del self._local.connection

    def _begin(self, refs: Sequence[str]) -> psycopg.Connection[Row]:
        """Opens a transaction and takes its locks, once more on a connection that has gone."""
        import psycopg

        for attempt in (1, 2):
            connection = self._connection()
            try:
                connection.execute("begin")
                for statement, number in _locks(self.database.schema, refs):
                    connection.execute(statement, (number,))
                return connection
            except psycopg.errors.LockNotAvailable as error:
                connection.execute("rollback")
                raise UnavailableError(
                    f"The lake {self.database.schema} could not be locked: another process writes "
                    f"to it for more than {LOCK_WAIT_S} seconds. Wait, then try again.",
                    kind="lake-busy",
                ) from error
            except psycopg.OperationalError as error:
                self.close()
                if attempt == 2:
                    raise _unreachable(error) from error
        raise AssertionError("one of the two attempts returns or raises")

    def _read_back(self, number: int, cause: Exception) -> None:
        """Returns when the transaction was committed after all; raises what is known otherwise."""
        import psycopg

        try:
            with self.reading() as tx:
                row = tx.row("select pg_xact_status(?::text::xid8)", (str(number),))
        except (psycopg.Error, UnavailableError) as error:
            raise OutcomeUnknownError(
                "The answer to a commit was lost and the database cannot be asked whether it "
                "happened: expected an answer. When it is reachable again, see "
                '"instep log" before trying again.',
                kind="commit-unknown",
                transaction=number,
            ) from error
        status = row[0] if row else None
        if status == "committed" or not number:
            return
        if status == "aborted":
            raise _unreachable(cause) from cause
        raise OutcomeUnknownError(
            f"The answer to a commit was lost and its outcome is {status}: expected committed or "
            'aborted. See "instep log" before trying again.',
            kind="commit-unknown",
            transaction=number,
        ) from cause

    def _connection(self) -> psycopg.Connection[Row]:
        connection: psycopg.Connection[Row] | None = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            connection = _connect(self.database)
            self._local.connection = connection
        return connection


def create_postgres(database: Database, fill: Fill) -> PostgresStore:
    """Makes a schema with every table, and what `fill` writes into them, or nothing at all.

    Raises:
        ConflictError (kind "lake-exists").
        UnavailableError (kind "database-unreachable").
    """
    import psycopg

    store = PostgresStore(database)
    try:
        with store.transaction() as tx:
            tx.execute(f'create schema "{database.schema}"')
            for script in migration_scripts():
                for statement in filter(str.strip, script.split(";")):
                    tx.execute(_ordered_by_bytes(statement))
            tx.execute(
                "insert into lake (name, value) values ('format', ?)", (str(FORMAT_VERSION),)
            )
            fill(store, tx)
    except psycopg.errors.DuplicateSchema:
        raise ConflictError(
            f'The database has a schema "{database.schema}" already: expected none. Use that '
            "lake, or name another schema.",
            kind="lake-exists",
        ) from None
    return store


def open_postgres(database: Database) -> PostgresStore:
    """Opens the lake in an existing schema.

    Raises:
        NotFoundError (kind "no-such-lake").
        UnavailableError (kinds "database-unreachable", "newer-lake").
    """
    store, schema = PostgresStore(database), database.schema
    with store.reading() as tx:
        found = tx.row("select to_regclass(?)::text", (f'"{schema}".lake',))
        if found is None or found[0] is None:
            raise NotFoundError(
                f'The database has no lake in schema "{schema}": expected its tables. '
                'Run "instep init" first.',
                kind="no-such-lake",
            )
        row = tx.row("select value from lake where name = 'format'")
    if row is None or int(row[0]) != FORMAT_VERSION:
        raise UnavailableError(
            f'The lake in schema "{schema}" has format {row[0] if row else "unknown"}: this '
            f"Instep reads {FORMAT_VERSION}. Use the Instep that wrote it.",
            kind="newer-lake",
        )
    return store


def _connect(database: Database) -> psycopg.Connection[Row]:
    import psycopg

    try:
        connection: psycopg.Connection[Row] = psycopg.connect(
            database.url, autocommit=True, connect_timeout=CONNECT_WAIT_S
        )
    except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
        raise _unreachable(error) from error
    connection.execute(f"set lock_timeout = '{LOCK_WAIT_S}s'")
    connection.execute(f'set search_path = "{database.schema}"')
    return connection


def _locks(schema: str, refs: Sequence[str]) -> list[tuple[str, int]]:
    """Returns the statements that take the locks of a writer, always in the same order."""
    lake = _number(schema)
    if not refs:
        return [("select pg_advisory_xact_lock(%s)", lake)]
    each = sorted(_number(f"{schema}\n{ref}") for ref in set(refs))
    return [
        ("select pg_advisory_xact_lock_shared(%s)", lake),
        *(("select pg_advisory_xact_lock(%s)", number) for number in each),
    ]


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)


@lru_cache(maxsize=500)
def _translated(sql: str) -> str:
    """Returns a statement with PostgreSQL's placeholders; none of ours holds a percent sign."""
    return sql.replace("%", "%%").replace("?", "%s")


def _ordered_by_bytes(statement: str) -> str:
    """Makes text compare by its bytes, as in SQLite and whatever the database's locale."""
    return statement.replace(" text", ' text collate "C"')


def _unreachable(error: Exception) -> UnavailableError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else "no answer"
    return UnavailableError(
        f"The catalog database cannot be reached ({reason}): expected PostgreSQL at the address "
        "in lake: of instep.yaml. Nothing was changed. Start it, then try again.",
        kind="database-unreachable",
    )
