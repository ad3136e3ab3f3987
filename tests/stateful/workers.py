"""A process that carries out acts on a lake and waits at every named place until told to go on.

So whoever drives two of them chooses every step of their interleaving, and may kill one anywhere.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from commands import WARM
from lake_acts import Act, Answer, perform

from instep import faults
from instep.history.repository import open_repository
from instep.history.store import Database

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where lakes are made: SIGKILL loses nothing that was written, so memory is as good as a disk."""

_WAIT_S = 60.0
"""How long a step may take: beyond it something holds up a worker that nothing should."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The worker waits at a place."""

    place: str


@dataclass(slots=True)
class Worker:
    """One process; it is started for its first act, and anew after it was killed."""

    root: Path
    database: Database | None
    _process: ForkServerProcess | None = None
    _pipe: Connection | None = None

    def start(self, act: Act, at: datetime) -> Stop | Answer:
        """Begins an act, which takes place at one instant; returns where it waits, or its end."""
        if self._process is None:
            self._pipe, theirs = WARM.Pipe()
            process = WARM.Process(
                target=_serve, args=(theirs, self.root, self.database), daemon=True
            )
            process.start()
            self._process = process
            theirs.close()
        return self._sent((act, at))

    def go(self) -> Stop | Answer:
        """Lets the worker go on to the next place, or to its end."""
        return self._sent(None)

    def kill(self) -> None:
        """Ends the process with SIGKILL, wherever it is."""
        if self._process is not None and self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = self._pipe = None

    def _sent(self, message: object) -> Stop | Answer:
        assert self._pipe is not None, "it was started"
        self._pipe.send(message)
        assert self._pipe.poll(_WAIT_S), "the worker waits for something that nobody holds"
        told: Stop | Answer | AssertionError = self._pipe.recv()
        if isinstance(told, AssertionError):
            raise told
        return told


def _serve(pipe: Connection, root: Path, database: Database | None) -> None:
    now: list[datetime] = []
    faults.watch(None)
    repo = open_repository(root, lambda: now[0], database)
    while True:
        try:
            act, at = pipe.recv()
        except EOFError:
            return
        now[:] = [at]
        faults.watch(lambda place: _wait(pipe, place))
        answer: object
        try:
            answer = perform(repo, act)
        except Exception:
            answer = AssertionError(traceback.format_exc())
        faults.watch(None)
        pipe.send(answer)


def _wait(pipe: Connection, place: str) -> None:
    pipe.send(Stop(place))
    pipe.recv()
