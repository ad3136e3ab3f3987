"""Three-way merge of trees. A conflict is a value, not an error."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from instep.canonical import JsonObject
from instep.history.tree import Difference


@dataclass(frozen=True, slots=True)
class KeyConflict:
    """Both sides changed the key since their common ancestor, and not to the same content."""

    key: str
    base: JsonObject | None
    ours: JsonObject | None
    theirs: JsonObject | None


@dataclass(frozen=True, slots=True)
class Merge:
    """What must change on our side to hold both; `conflicts` is empty when that is possible."""

    changes: dict[str, JsonObject | None]
    conflicts: tuple[KeyConflict, ...]


def merge(ours: Iterable[Difference], theirs: Iterable[Difference]) -> Merge:
    """Returns the merge of two sets of differences from the same base."""
    mine = {difference.key: difference for difference in ours}
    changes: dict[str, JsonObject | None] = {}
    conflicts: list[KeyConflict] = []
    for other in theirs:
        own = mine.get(other.key)
        if own is None:
            changes[other.key] = other.after
        elif own.after != other.after:
            conflicts.append(KeyConflict(other.key, other.before, own.after, other.after))
    return Merge(changes, tuple(conflicts))
