"""The SQL store of a lake: rows, and transactions over them, in SQLite.

A transaction is all or nothing and durable when it returns (`synchronous=FULL`). A writer takes the
lock before it reads (BEGIN IMMEDIATE), so that what it read is still so when it writes. Statements
are plain SQL with `?` placeholders; instants are integer microseconds, records are JSON text.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instep.errors import InvalidError, NotFoundError, UnavailableError
from instep.faults import reached
from instep.history.objects import publish_durably

FORMAT_VERSION = 1
"""Of the catalog database and the lake's folder; an older Instep refuses a newer lake."""

BUSY_WAIT_S = 30
"""How long a writer waits for another; beyond it the caller should know."""

_NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs"})
_MIGRATIONS = Path(__file__).parent / "migrations"

Row = tuple[Any, ...]  # columns are typed by the statement, which no type checker reads
Value = str | int | None


@dataclass(frozen=True, slots=True)
class Transaction:
    """Statements that share one state of the database."""

    connection: sqlite3.Connection

    def execute(self, sql: str, values: Sequence[Value] = ()) -> int:
        """Runs a statement; returns how many rows it changed."""
        return self.connection.execute(sql, values).rowcount

    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        return self.connection.execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Value] = ()) -> Row | None:
        found: Row | None = self.connection.execute(sql, values).fetchone()
        return found


@dataclass(frozen=True, slots=True)
class Store:
    """The catalog database at `path`; one connection per thread, opened when first used."""

    path: Path
    _local: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Holds the write lock; commits on return, leaves no trace on an exception.

        Raises:
            UnavailableError (kind "lake-busy"): another writer held the lock for 30 seconds.
        """
        connection = self._connection()
        reached("transaction.begin.before")
        try:
            connection.execute("begin immediate")
        except sqlite3.OperationalError as error:
            raise _unavailable(self.path, error) from error
        try:
            yield Transaction(connection)
            reached("transaction.commit.before")
            connection.execute("commit")
        except BaseException:
            if connection.in_transaction:
                connection.execute("rollback")
            raise
        reached("transaction.commit.after")

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """Gives one consistent state of the database, without a lock.

        Inside a transaction of the same thread it is that transaction.
        """
        connection = self._connection()
        if connection.in_transaction:
            yield Transaction(connection)
            return
        connection.execute("begin")
        try:
            yield Transaction(connection)
        finally:
            connection.execute("rollback")

    def close(self) -> None:
        """Closes this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            del self._local.connection

    def settle(self, path: Path) -> None:
        """Gives a database that nobody else uses yet its final name, durably."""
        self._connection().execute("pragma wal_checkpoint(truncate)")
        self.close()
        publish_durably(self.path, path)

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = _connect(self.path)
            self._local.connection = connection
        return connection


def create_store(path: Path) -> Store:
    """Makes an empty catalog database with every table in it.

    Raises:
        InvalidError (kind "network-file-system"): SQLite's locks do not hold there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file_system = _file_system(path.parent)
    if file_system in _NETWORK_FILE_SYSTEMS:
        raise InvalidError(
            f"The lake's folder {path.parent} is on {file_system}: expected a local disk, since "
            "SQLite's locks do not hold on a network file system. Choose another folder.",
            kind="network-file-system",
        )
    connection = _connect(path)
    connection.execute("pragma journal_mode=wal")
    script = "\n".join(file.read_text() for file in sorted(_MIGRATIONS.glob("*.sql")))
    connection.executescript(f"begin;\n{script}\npragma user_version={FORMAT_VERSION};\ncommit;")
    connection.close()
    return Store(path)


def open_store(path: Path) -> Store:
    """Opens an existing catalog database.

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
    store = Store(path)
    with store.reading() as tx:
        row = tx.row("pragma user_version")
    version = int(row[0]) if row else 0
    if version != FORMAT_VERSION:
        raise UnavailableError(
            f"The lake at {path.parent} has format {version}: this Instep reads "
            f"{FORMAT_VERSION}. Use the Instep that wrote it.",
            kind="newer-lake",
        )
    return store


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_WAIT_S, isolation_level=None, check_same_thread=False
    )
    connection.execute("pragma synchronous=full")
    connection.execute("pragma foreign_keys=on")
    return connection


def _unavailable(path: Path, error: sqlite3.OperationalError) -> UnavailableError:
    return UnavailableError(
        f"The lake at {path.parent} could not be locked ({error}): another process writes to it "
        f"for more than {BUSY_WAIT_S} seconds. Wait, then try again.",
        kind="lake-busy",
    )


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
