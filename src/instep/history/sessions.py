"""Who is at work in a lake that several machines share, known by the sessions of its database.

A writer holds a lock of PostgreSQL whose number is the generation at which it began, on the session
in which it will commit. The server ends both together: while the lock is held the session can
commit, and a session that has ended cannot. So no clock and no sign of life is needed, and a writer
that the lake took for dead publishes nothing. One that lost its connection goes on in another
session, if nothing was condemned or erased since it began.
A dead process holds its lock until the server notices: at once, or, when its whole machine is gone,
as late as `postgres` says. Until then what it could need is spared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from instep.errors import ConflictError
from instep.history.postgres import PostgresStore, row_of
from instep.history.store import Row

if TYPE_CHECKING:
    import psycopg

_BEGIN = (
    "select known.generation, pg_advisory_lock_shared(?::int, known.generation) from "
    "(select coalesce(max(generation), 0)::int as generation from collections) as known"
)
"""The generation is read just before the lock is taken: if it moves between, more is spared."""

_END = "select pg_advisory_unlock_shared(?::int, ?::int)"

_OLDEST = (
    "select min(objid::bigint) from pg_locks where locktype = 'advisory' and objsubid = 2 "
    "and classid = ?::bigint::oid "
    "and database = (select oid from pg_database where datname = current_database())"
)
"""Of two lakes whose numbers are alike by chance each spares what the other's writers need."""

_TAKE = "select pg_try_advisory_lock(?::int, 0)"
_LEAVE = "select pg_advisory_unlock(?::int, ?::int)"


@dataclass(frozen=True, slots=True)
class SessionPresence:
    """As `locks.Presence`, on every machine that uses the database."""

    store: PostgresStore

    @contextmanager
    def writing(self) -> Iterator[None]:
        """As `locks.Presence`.

        Raises:
            ConflictError (kind "session-lost"), by whatever the store is next asked inside.
        """
        number = self._number("writers")
        generation = int(self.store.ask(_BEGIN, (number,))[0])
        try:
            with self.store.rejoining(partial(_go_on, number, generation)):
                yield
        finally:
            self.store.release(_END, (number, generation))

    def oldest_writer(self) -> int | None:
        found = self.store.ask(_OLDEST, (self._number("writers"),))[0]
        return None if found is None else int(found)

    @contextmanager
    def alone(self, name: str) -> Iterator[bool]:
        number = self._number(name)
        if not self.store.ask(_TAKE, (number,))[0]:
            yield False
            return
        try:
            with self.store.rejoining(_stop):
                yield True
        finally:
            self.store.release(_LEAVE, (number, 0))

    def _number(self, name: str) -> int:
        """Returns a number of 31 bits, which as a lock's number has no sign."""
        text = f"{self.store.database.schema}\n{name}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) >> 1


def _go_on(number: int, generation: int, connection: psycopg.Connection[Row]) -> None:
    """Takes a writer's lock again, and then holds that nobody missed it meanwhile.

    In this order: who condemns or erases raises the generation first and asks for writers after.
    """
    row_of(connection, "select pg_advisory_lock_shared(?::int, ?::int)", (number, generation))
    newest = row_of(connection, "select coalesce(max(generation), 0) from collections", ())[0]
    if newest > generation:
        raise ConflictError(
            f"The connection to the catalog database was lost while files were written, and a "
            f"collection or an erasure began meanwhile (generation {newest}): expected "
            f"{generation}, as at the beginning. It may have removed what this writer needs. "
            "Nothing was published. Do it again.",
            kind="session-lost",
        )


def _stop(connection: psycopg.Connection[Row]) -> None:
    raise ConflictError(
        "The connection to the catalog database was lost in the middle of a collection or an "
        "erasure: expected one connection for all of it, since another process may have begun "
        "one. What was done is whole. Give the same command again.",
        kind="session-lost",
    )
