"""What refs hold now: all of it at first, then only what they have come to hold since.

So whoever has to know it under the lock looks once before, without, and then waits for nobody. What
is remembered are the digests of the tree's nodes: what two refs or two looks share is read once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from instep.canonical import JsonObject
from instep.history.seen import Seen
from instep.history.store import Transaction
from instep.history.tree import Nodes, children


class Holding(NamedTuple):
    """A key that a ref has, with its content."""

    ref: str
    key: str
    content: JsonObject


@dataclass(frozen=True, slots=True)
class Held:
    """What has been looked at."""

    nodes: Nodes
    _seen: Seen = field(default_factory=Seen, repr=False)

    def look(self, tx: Transaction) -> Iterator[Holding]:
        """Yields what refs hold that no earlier look saw; each once, as some ref has it."""
        rows = tx.rows(
            "select r.name, c.tree from refs r join commits c on c.id = r.commit_id order by r.name"
        )
        for ref, root in rows:
            waiting = [str(root)]
            while waiting:
                digest = waiting.pop()
                if not self._seen.add(digest):
                    continue
                node = self.nodes.load(digest)
                waiting += children(node)
                for key, content in node.get("leaf", {}).items():
                    yield Holding(str(ref), key, content)
