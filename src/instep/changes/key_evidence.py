"""What is said of one changed key, whatever its kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from instep.canonical import Json
from instep.findings import Finding
from instep.history.tree import Difference


@dataclass(frozen=True, slots=True)
class KeyEvidence:
    """One changed key: what was done to it, in sentences, with the facts behind them."""

    key: str
    act: str  # "added", "changed" or "removed"
    sentences: tuple[str, ...]
    facts: Mapping[str, Json] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def to_json(self) -> dict[str, Json]:
        return {
            "key": self.key,
            "act": self.act,
            "sentences": list(self.sentences),
            "facts": dict(self.facts),
        }


def act_of(difference: Difference) -> str:
    """Returns what was done to the key."""
    if difference.before is None:
        return "added"
    return "removed" if difference.after is None else "changed"
