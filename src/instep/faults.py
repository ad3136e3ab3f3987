"""Named places where a process may die or the disk may fail, so that a test can make it so.

`INSTEP_FAULT=name:3=kind` lets it happen when the place is reached for the third time; without a
number it is the first time. The kind `kill` (the default) ends this process with SIGKILL, `stop`
suspends it with SIGSTOP; `full`, `failing` and `read-only` raise what the system call that comes
next would raise then.
`INSTEP_FAULT_TRACE=file` writes each place as it is reached. A process that is watched by `watch`
may wait at a place. Without any of these a place costs one comparison.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from threading import RLock

ERRORS = {"full": errno.ENOSPC, "failing": errno.EIO, "read-only": errno.EROFS}

_seen: dict[str, int] = {}
_fault = ""
_trace: int | None = None
_watcher: Callable[[str], None] | None = None
_reaching = RLock()


def arm(fault: str, trace: str = "") -> None:
    """Sets which fault happens and where places are written, as the two variables do."""
    global _fault, _trace
    if _trace is not None:
        os.close(_trace)
    # Opened now: a step that is closed to the rest may open nothing when a place is reached.
    _trace = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) if trace else None
    _fault = fault
    _seen.clear()


def watch(watcher: Callable[[str], None] | None) -> None:
    """Calls `watcher` with each place that this process reaches from now on, before going on."""
    global _watcher
    _watcher = watcher


def reached(place: str) -> None:
    """Says that the process is at `place`, such as "file.rename.before"."""
    if not _fault and _trace is None and _watcher is None:
        return
    with _reaching:  # several threads may be at places at once
        _reach(place)


def _reach(place: str) -> None:
    if _watcher is not None:
        _watcher(place)
    _seen[place] = _seen.get(place, 0) + 1
    if _trace is not None:
        os.write(_trace, f"{place}:{_seen[place]}\n".encode())
    where, _, kind = _fault.partition("=")
    name, _, count = where.partition(":")
    if name == place and _seen[place] == int(count or "1"):
        if kind in ERRORS:
            raise OSError(ERRORS[kind], os.strerror(ERRORS[kind]), place)
        os.kill(os.getpid(), signal.SIGSTOP if kind == "stop" else signal.SIGKILL)


arm(os.environ.get("INSTEP_FAULT", ""), os.environ.get("INSTEP_FAULT_TRACE", ""))
