"""Who waits for whom: a request that is sent again waits until its first sending is answered.

Waiting takes no thread of those that carry out requests (`crews`): however many wait for the same,
who asks for something else is served. It is bounded: who has
waited too long is told to come back. Not here: what was done already, which `writing` looks up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from instep.errors import UnavailableError

WAIT_S = 20.0
"""How long a request waits for the one before it: most proxies give up a silent answer after 60."""


@dataclass(slots=True)
class _Line:
    """Those who ask for the same; the lock is taken in the order of their coming."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    length: int = 0


@dataclass(slots=True)
class Turns:
    """The lines of one server, by what is asked for; used in one event loop."""

    wait_s: float = WAIT_S
    _lines: dict[str, _Line] = field(default_factory=dict)

    @asynccontextmanager
    async def turn(self, key: str | None) -> AsyncIterator[None]:
        """Holds that those of one key come one after the other; without one nobody waits.

        Raises:
            UnavailableError (kind "request-under-way"): the wait was too long.
        """
        if key is None:
            yield
            return
        line = self._lines.setdefault(key, _Line())
        line.length += 1
        try:
            await self._wait(line)
            try:
                yield
            finally:
                line.lock.release()
        finally:
            line.length -= 1
            if not line.length:
                del self._lines[key]

    async def _wait(self, line: _Line) -> None:
        try:
            await asyncio.wait_for(line.lock.acquire(), self.wait_s)
        except TimeoutError:
            raise UnavailableError(
                f"The same request is under way for more than {self.wait_s:g} seconds: expected "
                "its answer. This one did nothing. Send it again under the same key to learn "
                "what became of it.",
                kind="request-under-way",
            ) from None
