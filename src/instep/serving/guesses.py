"""How often a token may be guessed: some wrong ones a minute from each address.

Whoever has tried as often waits, and a token that nobody has shown here before is not even looked
at meanwhile: an answer would tell whether it was right. One that has proven somebody is: a client
at work is never locked out by another on its machine. All of it is in memory, and bounded.
"""

from __future__ import annotations

import hashlib
import ipaddress
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from instep.errors import UnavailableError

GUESSES = 5
GUESS_S = 60
"""So many wrong tokens in so many seconds: more than people mistype, and 7,200 a day at most."""

ADDRESSES = 1000
PROVEN = 10_000
"""Beyond that the oldest address is forgotten; of proven tokens all, and each is proven again."""


@dataclass(slots=True)
class Guesses:
    """What was tried of late; used by several threads."""

    clock_s: Callable[[], float] = time.monotonic
    _wrong: dict[str, deque[float]] = field(default_factory=dict, repr=False)
    _proven: set[bytes] = field(default_factory=set, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def look(self, token: str, address: str, owner: Callable[[str], str | None]) -> str | None:
        """Returns whose token it is, as `owner` says; one that is nobody's counts as a guess.

        Raises:
            UnavailableError (kind "too-many-guesses").
        """
        if not token:
            return None
        digest = hashlib.sha256(token.encode()).digest()
        place = _place(address)
        with self._lock:
            is_known = digest in self._proven
            if not is_known:
                self._check(place)
            name = owner(token)
            if name is not None:
                self._keep(digest)
            elif not is_known:  # else it was right once, and has ended
                self._count(place)
        return name

    def know(self, token: str) -> None:
        """Takes a token for proven that this process has made itself."""
        with self._lock:
            self._keep(hashlib.sha256(token.encode()).digest())

    def _check(self, place: str) -> None:
        wrong = self._wrong.get(place)
        if wrong is None or len(wrong) < GUESSES:
            return
        if self.clock_s() - wrong[0] < GUESS_S:
            raise UnavailableError(
                f"{GUESSES} wrong tokens came from this address within {GUESS_S} seconds: expected "
                "a right one. This one was not looked at. Try again in a minute.",
                kind="too-many-guesses",
            )

    def _count(self, place: str) -> None:
        wrong = self._wrong.pop(place, None) or deque(maxlen=GUESSES)
        wrong.append(self.clock_s())
        self._wrong[place] = wrong
        if len(self._wrong) > ADDRESSES:
            del self._wrong[next(iter(self._wrong))]

    def _keep(self, digest: bytes) -> None:
        if len(self._proven) >= PROVEN:
            self._proven.clear()
        self._proven.add(digest)


def _place(address: str) -> str:
    """Returns what guesses are counted for: of IPv6, the network that one customer has."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found.packed[:8] + bytes(8), 64)))
