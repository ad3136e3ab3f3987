"""Progress of anything over a second, on standard error: results stay alone on standard output.

A terminal has one line that is written over; anything else gets a line a second at most.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import time

SILENT_S = 1.0
"""What is done sooner needs no telling."""

_EVERY_S = 1.0
_CLEAR = "\r\x1b[2K"

_started = time.monotonic()
_told = 0.0


def say(text: str) -> None:
    """Tells what is going on now; `INSTEP_QUIET=1` keeps it silent."""
    global _told
    now = time.monotonic()
    if now - _started < SILENT_S or os.environ.get("INSTEP_QUIET") == "1":
        return
    if sys.stderr.isatty():
        if not _told:
            atexit.register(lambda: print(_CLEAR, end="", file=sys.stderr, flush=True))
        width = shutil.get_terminal_size().columns - 3
        print(f"{_CLEAR}  {text[:width]}", end="", file=sys.stderr, flush=True)
    elif now - _told < _EVERY_S:
        return
    else:
        print(f"  ... {text}", file=sys.stderr, flush=True)
    _told = now


def show_printed(step: str, text: str) -> None:
    """Shows what a step of a run prints, each line after the step's name."""
    clear()
    for line in text.splitlines():
        print(f"  {step} | {line}", file=sys.stderr, flush=True)


def clear() -> None:
    """Takes the line away before something else is printed."""
    if _told and sys.stderr.isatty():
        print(_CLEAR, end="", file=sys.stderr, flush=True)
