"""The store in a PostgreSQL database, one schema per lake: many processes on many machines.

A writer takes an advisory lock before it reads: of the whole lake, or, where it names its refs,
shared with other such writers and exclusive for each ref. `fsync` and `synchronous_commit` are left
as the server has them and shown by `doctor`. When the answer to a commit is lost, the server is
asked on a new connection whether it happened: what was done is never done again.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from instep.errors import (
    ConflictError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from instep.faults import reached
from instep.history.postgres_errors import disk_full, not_allowed, unreachable
from instep.history.postgres_tables import format_of, make_tables, may_migrate, migrate
from instep.history.store import (
    FORMAT_VERSION,
    LOCK_WAIT_S,
    Database,
    Fill,
    Row,
    Value,
)

if TYPE_CHECKING:
    import psycopg

Statement = tuple[str, Sequence[Value]]

_COMMIT: Statement = ("commit", ())

CONNECT_WAIT_S = 10
"""How long a connection may take to open."""

_QUIET_S, _ASKED_EVERY_S, _ASKED_TIMES = 30, 10, 6
"""When each side asks whether the other is there: a machine that vanished is noticed after 90 s."""

T = TypeVar("T")

Rejoin = Callable[["psycopg.Connection[Row]"], None]
"""What a thread does on a new connection before anything else; it may raise."""


@dataclass(slots=True)
class PostgresTransaction:
    """Statements that share one state of the database.

    Each answer costs a round trip. So what is only written waits, to be sent with the next
    statement that changes something, or that could see it: one that names a table it goes into.
    What opens the transaction goes with its first statement, what ends it with its last.
    """

    connect: Callable[[], psycopg.Connection[Row]]
    cursor: psycopg.Cursor[Row]
    number: int = 0
    """By which the server knows it, once it is open."""
    _opening: tuple[Statement, ...] = ()
    _waiting: list[Statement] = field(default_factory=list, repr=False)
    _tables: set[str] = field(default_factory=set, repr=False)

    def execute(self, sql: str, values: Sequence[Value] = ()) -> int:
        """Runs a statement; returns how many rows it changed."""
        self.write(sql, values)
        self._flush()
        return self.cursor.rowcount

    def write(self, sql: str, values: Sequence[Value] = ()) -> None:
        self._waiting.append((sql, values))
        words = sql.split(maxsplit=3)
        self._tables.add(words[2] if words[:2] == ["insert", "into"] else "")

    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        return self._read(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Value] = ()) -> Row | None:
        return self._read(sql, values).fetchone()

    def has_table(self, name: str) -> bool:
        return self.row("select to_regclass(?)::text", (name,)) != (None,)

    def open(self) -> None:
        """Opens it now, rather than with its first statement."""
        if self._opening:
            self._open(())

    def commit(self) -> None:
        """Sends what still waits together with the commit."""
        self.open()
        self._waiting.append(_COMMIT)
        self._flush()

    def _flush(self) -> None:
        """Sends what still waits, in its order; the cursor then has the answer to the last."""
        waiting, self._waiting = self._waiting, []
        self._tables.clear()
        self._send(waiting)

    def _read(self, sql: str, values: Sequence[Value]) -> psycopg.Cursor[Row]:
        if any(table in sql for table in self._tables):
            self._flush()
        self._send([(sql, values)])
        return self.cursor

    def _send(self, statements: Sequence[Statement]) -> None:
        if self._opening:
            self._open(statements)
        elif len(statements) == 1:
            self.cursor.execute(_translated(statements[0][0]), statements[0][1])
        else:
            with self.cursor.connection.pipeline():
                self._queue(statements)

    def _open(self, statements: Sequence[Statement]) -> None:
        """Opens the transaction, once more on a connection that has gone, and sends statements."""
        import psycopg

        for attempt in (1, 2):
            first, second = self.cursor.connection.cursor(), self.cursor.connection.cursor()
            begin, locks = self._opening
            try:
                with self.cursor.connection.pipeline():
                    first.execute(begin[0], prepare=False)
                    second.execute(locks[0], locks[1])
                    self._queue(statements)
                break
            except psycopg.OperationalError:
                if attempt == 2 or not self.cursor.connection.closed:
                    raise
                self.cursor = self.connect().cursor()
        self._opening = ()
        answer = second.fetchone()
        assert answer is not None, "a select without a table gives a row"
        self.number = int(answer[-1])

    def _queue(self, statements: Sequence[Statement]) -> None:
        """Sends statements inside a pipeline; the cursor gets the answer to the last."""
        others = self.cursor.connection.cursor()
        for statement in statements:
            sql, values = statement
            is_last = statement is statements[-1]
            cursor = self.cursor if is_last else others
            cursor.execute(_translated(sql), values, prepare=False if sql == _COMMIT[0] else None)


@dataclass(frozen=True, slots=True)
class PostgresStore:
    """One schema of a database; one connection per thread, opened when first used."""

    database: Database
    lock_wait_s: float = LOCK_WAIT_S
    _local: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    @contextmanager
    def transaction(self, *refs: str) -> Iterator[PostgresTransaction]:
        """As `Store.transaction`."""
        import psycopg

        reached("transaction.begin.before")
        is_committing = False
        connection = self._connection()
        opening = ("begin", ()), _locks(self.database.schema, refs)
        tx = PostgresTransaction(self._connection, connection.cursor(), _opening=opening)
        self._local.transaction = tx
        try:
            if not refs:
                tx.open()
            yield tx
            reached("transaction.commit.before")
            is_committing = True
            tx.commit()
        except BaseException as error:
            with suppress(psycopg.Error):
                tx.cursor.connection.execute("rollback")
            match error:
                case psycopg.errors.InsufficientPrivilege():
                    raise not_allowed(error) from error
                case psycopg.errors.DeadlockDetected() | psycopg.errors.LockNotAvailable():
                    raise self._busy() from error
                case psycopg.errors.DiskFull():
                    raise disk_full(error) from error
                case psycopg.OperationalError():
                    self.close()
                case _:
                    raise
            if not is_committing:
                raise unreachable(error, " Nothing was changed.") from error
            self._local.transaction = None
            self._read_back(tx.number, error)
        finally:
            self._local.transaction = None
        reached("transaction.commit.after")

    @contextmanager
    def reading(self) -> Iterator[PostgresTransaction]:
        """As `Store.reading`."""
        import psycopg

        open_already: PostgresTransaction | None = getattr(self._local, "transaction", None)
        if open_already is not None:
            yield open_already
            return
        connection = self._asked(_begin_reading)
        try:
            cursor = connection.cursor()
            tx = self._local.transaction = PostgresTransaction(self._connection, cursor)
            yield tx
        except psycopg.errors.InsufficientPrivilege as error:
            raise not_allowed(error) from error
        except psycopg.errors.DiskFull as error:
            raise disk_full(error) from error
        except psycopg.OperationalError as error:
            self.close()
            raise unreachable(error) from error
        finally:
            self._local.transaction = None
            with suppress(psycopg.Error):
                connection.execute("rollback")

    def close(self) -> None:
        """Closes this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            del self._local.connection

    @contextmanager
    def rejoining(self, rejoin: Rejoin) -> Iterator[None]:
        """Has `rejoin` called on every new connection of this thread before that is used."""
        held: list[Rejoin] = self._local.__dict__.setdefault("held", [])
        held.append(rejoin)
        try:
            yield
        finally:
            held.remove(rejoin)

    def ask(self, sql: str, values: Sequence[Value] = ()) -> Row:
        """Returns the row of a statement in this thread's session, outside of a transaction.

        Raises: UnavailableError (kind "database-unreachable").
        """
        return self._asked(lambda connection: row_of(connection, sql, values))

    def _asked(self, ask: Callable[[psycopg.Connection[Row]], T]) -> T:
        """Asks first on this thread's connection, and then, where that had gone, on a new one.

        What a session held went with it, so that nothing is done twice. An open transaction went
        too: inside of one nothing is asked again.

        Raises: as `ask`.
        """
        import psycopg

        connection = self._connection()
        try:
            try:
                return ask(connection)
            except psycopg.OperationalError:
                if not connection.closed or getattr(self._local, "transaction", None) is not None:
                    raise
                return ask(self._connection())
        except psycopg.OperationalError as error:
            self.close()
            raise unreachable(error) from error

    def release(self, sql: str, values: Sequence[Value]) -> None:
        """Runs a statement that gives up what the session holds; a session that fails is ended."""
        import psycopg

        connection = getattr(self._local, "connection", None)
        if connection is not None and not connection.closed:
            try:
                connection.execute(_translated(sql), values)
            except psycopg.Error:
                self.close()

    def _busy(self) -> UnavailableError:
        return UnavailableError(
            f"The lake {self.database.schema} could not be locked: another process writes to it "
            f"for more than {self.lock_wait_s} seconds, or waits for this one. Nothing was "
            "changed. Wait, then try again.",
            kind="lake-busy",
        )

    def _read_back(self, number: int, cause: Exception) -> None:
        """Returns when the transaction was committed after all; raises what is known otherwise."""
        import psycopg

        try:
            # Not the thread's own connection: on that one something may have to be held first.
            with _connect(self.database, self.lock_wait_s) as asking:
                row = row_of(asking, "select pg_xact_status(?::text::xid8)", (str(number),))
        except (psycopg.Error, UnavailableError) as error:
            raise OutcomeUnknownError(
                "The answer to a commit was lost and the database cannot be asked whether it "
                'happened: expected an answer. When it can, see "instep log" before trying again.',
                kind="commit-unknown",
                transaction=number,
            ) from error
        status = row[0]
        if status == "committed":
            return
        if status == "aborted":
            raise unreachable(cause, " Nothing was changed.") from cause
        raise OutcomeUnknownError(
            f"The answer to a commit was lost and its outcome is {status}: expected committed or "
            'aborted. See "instep log" before trying again.',
            kind="commit-unknown",
            transaction=number,
        ) from cause

    def _connection(self) -> psycopg.Connection[Row]:
        connection: psycopg.Connection[Row] | None = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            connection = _connect(self.database, self.lock_wait_s)
            with ExitStack() as unless_joined:
                unless_joined.callback(connection.close)
                for rejoin in getattr(self._local, "held", ()):
                    rejoin(connection)
                unless_joined.pop_all()
            self._local.connection = connection
        return connection


def _begin_reading(connection: psycopg.Connection[Row]) -> psycopg.Connection[Row]:
    connection.execute("begin isolation level repeatable read read only")
    return connection


def row_of(connection: psycopg.Connection[Row], sql: str, values: Sequence[Value]) -> Row:
    row = connection.execute(_translated(sql), values).fetchone()
    assert row is not None, "the statement always gives a row"
    return row


def create_postgres(database: Database, fill: Fill) -> PostgresStore:
    """Makes a schema with every table, and what `fill` writes into them, or nothing at all.

    Raises:
        ConflictError (kind "lake-exists").
        UnavailableError (kind "database-unreachable").
        RefusedError (kind "database-permission"): the role may not make a schema.
    """
    import psycopg

    store = PostgresStore(database)
    try:
        with store.transaction() as tx:
            tx.execute(f'create schema "{database.schema}"')
            make_tables(tx)
            fill(store, tx)
    except psycopg.errors.DuplicateSchema:
        raise ConflictError(
            f'The database has a schema "{database.schema}" already: expected none. Use that '
            "lake, or name another schema.",
            kind="lake-exists",
        ) from None
    return store


def open_postgres(database: Database) -> PostgresStore:
    """Opens the lake in an existing schema; the owner of an older one makes it one of this format.

    Raises:
        NotFoundError (kind "no-such-lake").
        UnavailableError (kinds "database-unreachable", "newer-lake").
        RefusedError (kind "database-permission"): the role may not even read it.
    """
    store, schema = PostgresStore(database), database.schema
    with store.reading() as tx:
        if not tx.has_table(f'"{schema}".lake'):
            raise NotFoundError(
                f'The database has no lake in schema "{schema}": expected its tables. '
                'Run "instep init" first.',
                kind="no-such-lake",
            )
        is_older = format_of(tx, schema) < FORMAT_VERSION and may_migrate(tx)
    if is_older:
        with store.transaction() as tx:
            migrate(tx, format_of(tx, schema))
    return store


def _connect(database: Database, lock_wait_s: float) -> psycopg.Connection[Row]:
    import psycopg

    try:
        connection: psycopg.Connection[Row] = psycopg.connect(
            database.url,
            autocommit=True,
            connect_timeout=CONNECT_WAIT_S,
            keepalives_idle=_QUIET_S,
            keepalives_interval=_ASKED_EVERY_S,
            keepalives_count=_ASKED_TIMES,
        )
        connection.execute(
            f"set lock_timeout = '{round(lock_wait_s * 1000)}ms'; "
            f'set search_path = "{database.schema}"; set tcp_keepalives_idle = {_QUIET_S}; '
            f"set tcp_keepalives_interval = {_ASKED_EVERY_S}; set tcp_keepalives_count = "
            f"{_ASKED_TIMES}"
        )
    except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
        raise unreachable(error) from error
    return connection


@lru_cache(maxsize=500)
def _locks(schema: str, refs: tuple[str, ...]) -> Statement:
    """Returns what takes the locks of a writer, always in the same order, and tells its number."""
    lake = _number(schema)
    taken, numbers = ["pg_advisory_xact_lock(?)"], [lake]
    if refs:
        each = sorted(_number(f"{schema}\n{ref}") for ref in set(refs))
        taken = ["pg_advisory_xact_lock_shared(?)", *(["pg_advisory_xact_lock(?)"] * len(each))]
        numbers = [lake, *each]
    return _translated(f"select {', '.join([*taken, 'pg_current_xact_id()::text'])}"), numbers


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)


@lru_cache(maxsize=500)
def _translated(sql: str) -> str:
    """Returns a statement with PostgreSQL's placeholders; none of ours holds a percent sign."""
    return sql.replace("%", "%%").replace("?", "%s")
