"""Which names were met: sixteen bytes of each, so that a million of them are no burden."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b


@dataclass(frozen=True, slots=True)
class Seen:
    """Names that were met; two that are taken for one would need 2^64 of them."""

    _short: set[bytes] = field(default_factory=set, repr=False)

    def add(self, name: str) -> bool:
        """Remembers a name; says whether it is new."""
        before = len(self._short)
        self._short.add(_shortened(name))
        return len(self._short) > before

    def __contains__(self, name: str) -> bool:
        return _shortened(name) in self._short


def _shortened(name: str) -> bytes:
    # Other writers' file names may be no text.
    return blake2b(name.encode(errors="surrogateescape"), digest_size=16).digest()
