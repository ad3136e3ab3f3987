"""Who is at work in a lake, known for sure: what the system releases when a process ends.

A writer registers from before it reads until after it has published. It notes the generation of
garbage collection at which it began, so that a collection can tell whether somebody began before a
file was condemned. No clock and no sign of life is needed: a dead process holds nothing.
Where the lake's files are in a folder, that is `flock` on files in `locks/`; where they are on S3,
locks of its database (`sessions`).
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from instep.errors import UnavailableError
from instep.faults import reached
from instep.history.places import here, on_s3
from instep.history.store import Store, Transaction

UNKNOWN = -1
"""The generation of a writer that has not noted its own yet: before every other."""


class Presence(Protocol):
    """Who is at work in one lake."""

    def writing(self) -> AbstractContextManager[None]:
        """Registers a writer, with the generation at which it began or an older one."""
        ...

    def oldest_writer(self) -> int | None:
        """Returns the generation at which the oldest open writer began; None without any."""
        ...

    def alone(self, name: str) -> AbstractContextManager[bool]:
        """Gives whether nobody else is inside under this name; then nobody comes in."""
        ...


@contextmanager
def writing(root: Path, store: Store) -> Iterator[None]:
    """Protects what is read, found or written inside it from being collected.

    What it publishes is committed by the same thread.
    """
    with _presence(root, store).writing():
        reached("writer.registered")
        yield


def oldest_writer(root: Path, store: Store) -> int | None:
    """Returns the generation at which the oldest open writer began; None where nobody writes."""
    return _presence(root, store).oldest_writer()


@contextmanager
def collecting(root: Path, store: Store) -> Iterator[None]:
    """Holds that one collection runs at a time.

    Raises:
        UnavailableError (kind "collecting").
    """
    with _presence(root, store).alone("collection") as is_alone:
        if not is_alone:
            raise UnavailableError(
                f"The lake at {root} is being collected by another process: expected one at a "
                "time. Wait until it has ended, then try again.",
                kind="collecting",
            )
        yield


def _presence(root: Path, store: Store) -> Presence:
    if on_s3(root):
        from instep.history.postgres import PostgresStore
        from instep.history.sessions import SessionPresence

        # Files on S3 with a catalog in a file of this machine are refused before.
        if isinstance(store, PostgresStore):
            return SessionPresence(store)
    return FolderPresence(here(root.resolve()) / "locks", store)


@dataclass(frozen=True, slots=True)
class FolderPresence:
    """As `Presence`, on every machine that locks the files of the lake's folder."""

    folder: Path
    store: Store

    @contextmanager
    def writing(self) -> Iterator[None]:
        handle, path = _own_lock(self.folder / "writers")
        try:
            with self.store.reading() as tx:
                generation = current_generation(tx)
            os.pwrite(handle, str(generation).encode(), 0)
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(handle)

    def oldest_writer(self) -> int | None:
        """As `Presence`; the locks of writers that are dead are removed."""
        oldest: int | None = None
        folder = self.folder / "writers"
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            try:
                handle = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            except BlockingIOError:
                text = os.pread(handle, 20, 0).decode()
                found = int(text) if text else UNKNOWN
                oldest = found if oldest is None else min(oldest, found)
            finally:
                os.close(handle)
        return oldest

    def alone(self, name: str) -> AbstractContextManager[bool]:
        return _alone(self.folder / name)


@contextmanager
def rewriting(root: Path, table: str) -> Iterator[None]:
    """Holds that one process of this machine at a time lets other files stand for a table's states.

    It saves work; of two machines `tables.replaced` lets one win.

    Raises:
        UnavailableError (kind "rewriting").
    """
    with _alone(here(root) / "locks" / "tables" / table) as is_alone:
        if not is_alone:
            raise UnavailableError(
                f"Another process compacts table {table} or erases rows of it: expected one at a "
                "time. Wait until it has ended, then try again.",
                kind="rewriting",
                table=table,
            )
        yield


@contextmanager
def blobs_locked(folder: Path, *, alone: bool) -> Iterator[None]:
    """Keeps who removes blobs of `folder` (`alone`) apart from those who rely on finding one."""
    locks = here(folder.parent) / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    handle = os.open(locks / folder.name, os.O_RDWR | os.O_CREAT, 0o644)
    reached("blobs.lock.before")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)
    reached("blobs.lock.after")


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Gives whether this process got the lock of a file, and holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)


def current_generation(tx: Transaction) -> int:
    """Returns how often garbage was condemned: a sequence that no clock touches."""
    row = tx.row("select max(generation) from collections")
    return int(row[0]) if row and row[0] is not None else 0


def _own_lock(folder: Path) -> tuple[int, Path]:
    """Returns a locked file that nobody has removed between its making and its locking."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        path = folder / uuid.uuid4().hex
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, path
        os.close(handle)
