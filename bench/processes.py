"""Whole processes: how long one took, and how much memory it and its children reached."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

INSTEP = str(Path(sys.executable).with_name("instep"))
"""The command as a user runs it."""

PAGE_POLL_S = 0.05
_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"


@dataclass(frozen=True, slots=True)
class Took:
    """One finished process; `peak_bytes` is the most that it and its children held at once."""

    seconds: float
    peak_bytes: int


def run(
    command: Sequence[str], folder: Path, *, measure_memory: bool = False, exits: int = 0
) -> Took:
    """Runs a command to its end, quietly; it is expected to end with the code `exits`.

    Raises:
        RuntimeError: it failed; the message is what it said.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    peak = 0
    while measure_memory and process.poll() is None:
        peak = max(peak, _resident(process.pid))
        time.sleep(PAGE_POLL_S)
    said, _ = process.communicate()
    seconds = time.perf_counter() - start
    if process.returncode != exits:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{said}")
    return Took(seconds, peak)


def environment() -> dict[str, str]:
    """Returns this process's variables, but that Python keeps its bytecode, as installed it does.

    Without it every start compiles each module again: about three times as long.
    """
    kept = {name: value for name, value in os.environ.items() if name != _NO_BYTECODE}
    return {**kept, "INSTEP_QUIET": "1"}


def _resident(pid: int) -> int:
    """Returns the resident bytes of a process and its descendants, 0 once they are gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(_resident(int(child)) for child in children)
