"""Who is at work in a lake, known for sure: locks that the system releases when a process ends.

A writer holds a lock of its own from before it reads until after it has published. It notes the
generation of garbage collection at which it began, so that a collection can tell whether somebody
began before a file was condemned. No clock and no sign of life is needed: a dead process holds
nothing. Locks are `flock` on files in `locks/`.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from instep.errors import UnavailableError
from instep.faults import reached
from instep.history.places import here
from instep.history.store import Store, Transaction

UNKNOWN = -1
"""The generation of a writer that has not noted its own yet: before every other."""


@contextmanager
def writing(root: Path, store: Store) -> Iterator[None]:
    """Protects what is read, found or written inside it from being collected."""
    handle, path = _own_lock(here(root.resolve()) / "locks" / "writers")
    try:
        with store.reading() as tx:
            generation = current_generation(tx)
        os.pwrite(handle, str(generation).encode(), 0)
        reached("writer.registered")
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def oldest_writer(root: Path) -> int | None:
    """Returns the generation at which the oldest open writer began; None where nobody writes.

    The locks of writers that are dead are removed.
    """
    oldest: int | None = None
    folder = here(root.resolve()) / "locks" / "writers"
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


@contextmanager
def collecting(root: Path) -> Iterator[None]:
    """Holds that one collection runs at a time.

    Raises:
        UnavailableError (kind "collecting").
    """
    folder = here(root.resolve()) / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / "collection", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(handle, root)
        yield
    finally:
        os.close(handle)


def _take(handle: int, root: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UnavailableError(
            f"The lake at {root} is being collected by another process: expected one at a time. "
            "Wait until it has ended, then try again.",
            kind="collecting",
        ) from None


@contextmanager
def rewriting(root: Path, table: str) -> Iterator[None]:
    """Holds that one process at a time lets other files stand for states of a table.

    Raises:
        UnavailableError (kind "rewriting").
    """
    folder = here(root) / "locks" / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / table, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UnavailableError(
            f"Another process compacts table {table} or erases rows of it: expected one at a time. "
            "Wait until it has ended, then try again.",
            kind="rewriting",
            table=table,
        ) from None
    finally:
        os.close(handle)


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
