"""Makes many files durable at once: for who writes them all before anything names them.

Inside `durable_together` no file or folder of this thread is synced by itself; at its end the file
system is. A power loss before that may leave names over bytes that never came: whoever goes on with
what was interrupted compares what is there with what should be.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from instep.faults import reached

_thread = threading.local()


def is_together() -> bool:
    """Says whether this thread's files become durable later, all at once."""
    return getattr(_thread, "is_together", False)


@contextmanager
def durable_together(folder: Path) -> Iterator[None]:
    """Makes what is written inside durable at its end; `folder` is on its file system."""
    _thread.is_together = True
    try:
        yield
    finally:
        _thread.is_together = False
    reached("together.sync.before")
    _sync_file_system(folder)
    reached("together.sync.after")


def _sync_file_system(folder: Path) -> None:
    import ctypes

    sync = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if sync is None:
        os.sync()
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if sync(handle) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(handle)
