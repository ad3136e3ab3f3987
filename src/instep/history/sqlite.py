"""The store in one SQLite file: many processes on one machine, one writer at a time.

`synchronous=FULL`, write-ahead log, BEGIN IMMEDIATE. Network file systems are refused, because
SQLite's locks do not hold on them.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from instep.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from instep.faults import reached
from instep.history.objects import make_folder_durably, publish_durably
from instep.history.store import (
    FORMAT_VERSION,
    LOCK_WAIT_S,
    Fill,
    Row,
    Value,
    migration_scripts,
)

_LOOK_AGAIN_S = 0.002
"""From one look at the write lock to the next: a few commits. Shorter costs more than it brings."""

_CHECKPOINT_PAGES = 4000
"""With how many pages of 4 KiB in the write-ahead log a commit takes them over into the database.
It then waits for two more syncs, some 5 ms however many pages there are; at SQLite's own 1,000 that
is one commit in eighty."""

_NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs"})


@dataclass(frozen=True, slots=True)
class SqliteTransaction:
    """Statements that share one state of the database."""

    connection: sqlite3.Connection

    def execute(self, sql: str, values: Sequence[Value] = ()) -> int:
        """Runs a statement; returns how many rows it changed."""
        return self.connection.execute(sql, values).rowcount

    def write(self, sql: str, values: Sequence[Value] = ()) -> None:
        self.connection.execute(sql, values)

    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        return self.connection.execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Value] = ()) -> Row | None:
        found: Row | None = self.connection.execute(sql, values).fetchone()
        return found

    def has_table(self, name: str) -> bool:
        return self.row("select 1 from sqlite_master where name = ?", (name,)) is not None


@dataclass(frozen=True, slots=True)
class SqliteStore:
    """The catalog database at `path`; one connection per thread, opened when first used."""

    path: Path
    lock_wait_s: float = LOCK_WAIT_S
    _local: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    @contextmanager
    def transaction(self, *refs: str) -> Iterator[SqliteTransaction]:
        """Holds the write lock; commits on return, leaves no trace on an exception.

        Raises:
            UnavailableError (kind "lake-busy"): another writer held the lock for 30 seconds.
            UnavailableError (kinds "disk-failed", "read-only-lake").
            OutcomeUnknownError (kind "commit-unknown"): the disk failed while it was committed.
        """
        reached("transaction.begin.before")
        with _named(self.path):
            connection = self._connection()
            try:
                _begin(connection, self.lock_wait_s)
                yield SqliteTransaction(connection)
                reached("transaction.commit.before")
                _commit(connection, self.path)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("rollback")
                raise
        reached("transaction.commit.after")

    @contextmanager
    def reading(self) -> Iterator[SqliteTransaction]:
        """Gives one consistent state of the database, without a lock.

        Inside a transaction of the same thread it is that transaction.
        """
        with _named(self.path):
            connection = self._connection()
            if connection.in_transaction:
                yield SqliteTransaction(connection)
                return
            connection.execute("begin")
            try:
                yield SqliteTransaction(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("rollback")

    def close(self) -> None:
        """Closes this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            del self._local.connection

    def settle(self, path: Path) -> None:
        """Gives a database that nobody else uses yet its final name, durably."""
        with _named(self.path):
            self._connection().execute("pragma wal_checkpoint(truncate)")
            self.close()
        publish_durably(self.path, path)

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = _connect(self.path)
            self._local.connection = connection
        return connection


def create_sqlite(path: Path, fill: Fill) -> SqliteStore:
    """Makes a database with every table, and what `fill` writes into them, or nothing at all.

    It is made under a temporary name and gets its own when it is whole and durable.

    Raises:
        ConflictError (kind "lake-exists").
        InvalidError (kind "network-file-system"): SQLite's locks do not hold there.
        UnavailableError (kinds "disk-failed", "read-only-lake").
    """
    make_folder_durably(path.parent)
    with _making(path.parent):
        return _make(path, fill)


def _make(path: Path, fill: Fill) -> SqliteStore:
    if path.exists():
        raise ConflictError(
            f"There is a lake at {path.parent} already: expected a folder without one. "
            'Use it ("instep status"), or name another folder in instep.yaml.',
            kind="lake-exists",
        )
    file_system = _file_system(path.parent)
    if file_system in _NETWORK_FILE_SYSTEMS:
        raise InvalidError(
            f"The lake's folder {path.parent} is on {file_system}: expected a local disk, since "
            "SQLite's locks do not hold on a network file system. Choose another folder.",
            kind="network-file-system",
        )
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    script = "\n".join(migration_scripts())
    with _named(path):
        connection = _connect(temporary)
        connection.execute("pragma journal_mode=wal")
        connection.executescript(
            f"begin;\n{script}\npragma user_version={FORMAT_VERSION};\ncommit;"
        )
        connection.close()
    store = SqliteStore(temporary)
    with store.transaction() as tx:
        fill(store, tx)
    store.settle(path)
    return SqliteStore(path)


@contextmanager
def _making(folder: Path) -> Iterator[None]:
    """Holds that one process makes the lake of a folder: the second would replace the first's."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(
                f"A lake at {folder} is being made by another process: expected a folder without "
                "one. Wait until it has ended, then use that lake, or name another folder.",
                kind="lake-exists",
            ) from None
        yield
    finally:
        os.close(handle)


def open_sqlite(path: Path) -> SqliteStore:
    """Opens an existing catalog database; one of an older format becomes one of this.

    Raises:
        NotFoundError (kind "no-such-lake").
        UnavailableError (kind "newer-lake"): a newer Instep wrote it.
    """
    if not path.exists():
        raise NotFoundError(
            f"There is no lake at {path.parent}: expected its catalog.sqlite. "
            'Run "instep init" in the project folder first.',
            kind="no-such-lake",
        )
    store = SqliteStore(path)
    with store.reading() as tx:
        is_older = _format_of(tx, path) < FORMAT_VERSION
    if is_older:
        with store.transaction() as tx:
            for script in migration_scripts(_format_of(tx, path)):
                for statement in script.split(";"):
                    tx.execute(statement)
            tx.execute(f"pragma user_version = {FORMAT_VERSION}")
    return store


def _format_of(tx: SqliteTransaction, path: Path) -> int:
    row = tx.row("pragma user_version")
    found = int(row[0]) if row else 0
    if not 1 <= found <= FORMAT_VERSION:
        raise UnavailableError(
            f"The lake at {path.parent} has format {found}: this Instep reads 1 to "
            f"{FORMAT_VERSION}. Use the Instep that wrote it.",
            kind="newer-lake",
        )
    return found


def _begin(connection: sqlite3.Connection, wait_s: float) -> None:
    """Opens a transaction that holds the write lock, once no other does.

    SQLite itself would look again after ever longer pauses, so that a writer who has waited long
    waits longer still, behind all who came later. Here all look equally often.
    """
    deadline = time.monotonic() + wait_s
    connection.execute("pragma busy_timeout = 0")
    try:
        while True:
            try:
                connection.execute("begin immediate")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(_LOOK_AGAIN_S)
    finally:
        connection.execute(f"pragma busy_timeout = {LOCK_WAIT_S * 1000}")


def _commit(connection: sqlite3.Connection, path: Path) -> None:
    """Commits; what was written before the disk failed may be found again when it works."""
    try:
        connection.execute("commit")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_IOERR:
            raise
        raise OutcomeUnknownError(
            f"The disk of the lake at {path.parent} failed while a commit was written ({error}): "
            'whether it happened is not known. Mend the disk, then see "instep log" before trying '
            "again.",
            kind="commit-unknown",
        ) from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False
    )
    connection.execute("pragma synchronous=full")
    connection.execute("pragma foreign_keys=on")
    connection.execute(f"pragma wal_autocheckpoint={_CHECKPOINT_PAGES}")
    return connection


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Names what SQLite could not do with the database at `path`, for who can act on it."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise _unavailable(path, error) from error


def _unavailable(path: Path, error: sqlite3.OperationalError) -> Exception:
    """Returns what a caller can act on; an error that is our own mistake stays as it is."""
    match error.sqlite_errorcode & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return UnavailableError(
                f"The lake at {path.parent} could not be locked: another process writes to it "
                f"for more than {LOCK_WAIT_S} seconds. Wait, then try again.",
                kind="lake-busy",
            )
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
            return UnavailableError(
                f"The disk of the lake at {path.parent} is full or failing ({error}). Nothing "
                "was changed. Make room, then try again.",
                kind="disk-failed",
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return UnavailableError(
                f"The lake at {path.parent} cannot be written ({error}). Nothing was changed. "
                "Make its folder and files writable, then try again.",
                kind="read-only-lake",
            )
        case _:
            return error


def _file_system(folder: Path) -> str:
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown"
    best, kind = "", "unknown"
    for line in mounts.read_text().splitlines():
        _, mount, file_system, *_ = line.split(" ")
        inside = folder.resolve().is_relative_to(mount.replace("\\040", " "))
        if inside and len(mount) >= len(best):
            best, kind = mount, file_system
    return kind
