"""What a merge of rows is given and gives: conflicts, how they are settled, and the outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from instep.canonical import Json
from instep.tables.content import TableContent


class Take(StrEnum):
    """Whose value stands."""

    OURS = "ours"
    THEIRS = "theirs"
    GIVEN = "given"


@dataclass(frozen=True, slots=True)
class Conflict:
    """One cell that both sides changed, or one row (`column` empty) that one of them removed.

    Values are DuckDB's text, None is null; of a row they are "here" or "removed".
    """

    key: tuple[str | None, ...]
    column: str
    base: str | None
    ours: str | None
    theirs: str | None

    def to_json(self) -> dict[str, Json]:
        return {
            "key": list(self.key),
            "column": self.column,
            "base": self.base,
            "ours": self.ours,
            "theirs": self.theirs,
        }


@dataclass(frozen=True, slots=True)
class DefinitionConflict:
    """One part of how the table is defined that both sides changed; texts say what each has.

    `what` names it, as 'name of column "day"' or "partitioning". Taking a side settles it; without
    `by_side` only the whole table of one side does.
    """

    what: str
    base: str
    ours: str
    theirs: str
    by_side: bool = True

    def to_json(self) -> dict[str, Json]:
        return {
            "what": self.what,
            "base": self.base,
            "ours": self.ours,
            "theirs": self.theirs,
            "by_side": self.by_side,
        }

    def __str__(self) -> str:
        return f"{self.what}: {self.base}; ours: {self.ours}; theirs: {self.theirs}"


@dataclass(frozen=True, slots=True)
class Choice:
    """What stands where there is a conflict: `value` when it is a given one."""

    take: Take
    value: str | None = None


Place = tuple[tuple[str | None, ...], str]
"""Key and column of a conflict; without a key, what conflicts in how the table is defined."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """How conflicts are settled: one by one, by their place, and `otherwise` all others."""

    choices: Mapping[Place, Choice] = field(default_factory=dict)
    otherwise: Take | None = None


@dataclass(frozen=True, slots=True)
class RowMerge:
    """The merged state, or why there is none: conflicts left, listed up to a thousand.

    Counts are of the rows that came in from their side; `settled` counts conflicts that the
    resolution decided. `conflicting` is the number of conflicts left, exactly.
    """

    content: TableContent | None
    added: int = 0
    changed: int = 0
    removed: int = 0
    settled: int = 0
    conflicting: int = 0
    conflicts: tuple[Conflict, ...] = ()
    definition: tuple[DefinitionConflict, ...] = ()
    files: tuple[str, ...] = ()
    """Data files that both sides rewrote, where there is no key to merge rows by."""
