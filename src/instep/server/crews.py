"""How many requests are carried out at once, and how many wait for that.

What writes may wait for the lake's lock, half a minute each: it has threads of its own, so that who
reads is answered meanwhile. Each thread has a connection to the database. Where too many wait the
next is told at once to come back, rather than to wait beyond what its client does.
Not here: those who wait for the same request, who take no thread (`turns`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from instep.errors import UnavailableError
from instep.serving.http import CONNECTION_LIMIT

WRITES_AT_ONCE = 8
"""Writers of one lake wait for each other at its commit: more threads would only wait."""

WRITES_WAITING = 56
"""Requests that write and wait for a thread: at some ten commits a second their turn comes soon."""

READS_AT_ONCE = 16
"""They read files, or wait for the store: more than there are processors."""

T = TypeVar("T")


@dataclass(slots=True)
class Crew:
    """Threads that do what they are given, in its order; used in one event loop."""

    at_once: int
    waiting: int
    _under_way: int = 0
    _threads: ThreadPoolExecutor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._threads = ThreadPoolExecutor(self.at_once)  # begins a thread when one is needed

    async def carry_out(self, act: Callable[[], T]) -> T:
        """Returns what `act` does, in a thread.

        Raises:
            UnavailableError (kind "server-busy"): too many wait already.
        """
        if self._under_way >= self.at_once + self.waiting:
            raise UnavailableError(
                f"{self._under_way} requests wait for their turn: expected fewer. This one did "
                "nothing. Send it again later.",
                kind="server-busy",
            )
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, act)
        finally:
            self._under_way -= 1


def crew_of_writers() -> Crew:
    return Crew(WRITES_AT_ONCE, WRITES_WAITING)


def crew_of_readers() -> Crew:
    """Returns threads for what changes nothing; as many wait as there are connections."""
    return Crew(READS_AT_ONCE, CONNECTION_LIMIT)
