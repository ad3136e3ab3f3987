"""The SQL store of a lake, as every room sees it: rows, and transactions over them.

A transaction is all or nothing, and durable when it returns. A writer takes its lock before it
reads, so that what it read is still so when it writes. Statements are plain SQL with `?`
placeholders that SQLite and PostgreSQL both know; instants are integer microseconds, records are
JSON text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

FORMAT_VERSION = 2
"""Of the catalog database and the lake's folder; an older Instep refuses a newer lake.

A newer one makes an older lake one of its own format when it opens it.
"""

_FORMATS = {"0011_replacements.sql": 2}
"""The formats with which scripts came that are younger than the first."""

LOCK_WAIT_S = 30
"""How long a writer waits for another; beyond it the caller should know."""

MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True)
class Database:
    """Where a lake's PostgreSQL database is; one schema per lake."""

    url: str = field(repr=False)
    schema: str = "instep"


Row = tuple[Any, ...]  # columns are typed by the statement, which no type checker reads
Value = str | int | None


class Transaction(Protocol):
    """Statements that share one state of the database."""

    def execute(self, sql: str, values: Sequence[Value] = ()) -> int:
        """Runs a statement; returns how many rows it changed."""
        ...

    def write(self, sql: str, values: Sequence[Value] = ()) -> None:
        """Runs a statement of which nobody needs the count.

        It may be sent together with the next one, whose call then raises what it did wrong.
        """
        ...

    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[Row]: ...

    def row(self, sql: str, values: Sequence[Value] = ()) -> Row | None: ...

    def has_table(self, name: str) -> bool:
        """Says whether a table is there: a lake of an older format, only read, lacks the newest."""
        ...


class Store(Protocol):
    """One catalog database; one connection per thread, opened when first used."""

    def transaction(self, *refs: str) -> AbstractContextManager[Transaction]:
        """Holds the write lock; commits on return, leaves no trace on an exception.

        With `refs`, the caller promises to change only these refs and things of its own, and the
        store may let writers of other refs go on meanwhile. Without, it is alone.

        Raises:
            UnavailableError (kind "lake-busy"): another writer held the lock for 30 seconds.
            UnavailableError (kinds "database-unreachable", "disk-failed"): nothing was changed.
            OutcomeUnknownError (kind "commit-unknown"): the answer to the commit was lost, and
                the database could not be asked.
        """
        ...

    def reading(self) -> AbstractContextManager[Transaction]:
        """Gives one consistent state of the database, without a lock.

        Inside a transaction of the same thread it is that transaction.
        """
        ...

    def close(self) -> None:
        """Closes this thread's connection."""
        ...


@dataclass(frozen=True, slots=True)
class Inside:
    """A store for acts that are to be part of a transaction which is open already."""

    tx: Transaction

    @contextmanager
    def transaction(self, *refs: str) -> Iterator[Transaction]:
        yield self.tx

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        yield self.tx

    def close(self) -> None:
        """Nothing: who opened the transaction ends it."""


Fill = Callable[[Store, Transaction], None]
"""Writes the first rows of a new database."""


def migration_scripts(since: int = 0) -> list[str]:
    """Returns the SQL that makes every table, or those that a lake of the format `since` lacks."""
    scripts = sorted(MIGRATIONS.glob("*.sql"))
    return [file.read_text() for file in scripts if _FORMATS.get(file.name, 1) > since]
