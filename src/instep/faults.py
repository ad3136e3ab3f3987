"""Named places where a process may die, so that a test can make it die there.

`INSTEP_FAULT=name` or `INSTEP_FAULT=name:3` kills this process with SIGKILL when it reaches the
place for the first (or third) time; `INSTEP_FAULT_TRACE=file` writes each place as it is reached.
Without these variables a place costs one comparison.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

_FAULT = os.environ.get("INSTEP_FAULT", "")
_TRACE = os.environ.get("INSTEP_FAULT_TRACE", "")
_seen: dict[str, int] = {}


def reached(place: str) -> None:
    """Says that the process is at `place`, such as "file.rename.before"."""
    if not _FAULT and not _TRACE:
        return
    _seen[place] = _seen.get(place, 0) + 1
    if _TRACE:
        with Path(_TRACE).open("a") as trace:
            trace.write(f"{place}:{_seen[place]}\n")
    name, _, count = _FAULT.partition(":")
    if name == place and _seen[place] == int(count or "1"):
        os.kill(os.getpid(), signal.SIGKILL)
