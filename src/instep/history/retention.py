"""What may be deleted: what rooms tell of what they need, and the decision about the rest.

Every commit in the database, and every record that a room tells of, names files; a file that is
named is never touched. A commit that no root reaches (a ref, what moved it, a change that is open,
held or merged, a run under way) is forgotten first, after `keep_days`; its files are garbage after.

Something is condemned when a collection finds it unreached. It is deleted by a later collection,
if it is unreached still, is the same file still, has been condemned for long enough, and every
writer now open began after it was condemned. Docs: `docs/decisions/`, "What garbage collection
may delete". Age counts the days on which the lake was at work, so a clock that jumps adds one.

What contents and records name is passed in, for only later rooms know. The acts are in
`collection`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from instep.canonical import JsonObject
from instep.history.store import Transaction

KEEP_DAYS = 30
STAGING_DAYS = 14
"""Of a failed run: long enough to look at what it left."""


@dataclass(frozen=True, slots=True)
class Policy:
    """For how many days of the lake's work unreached things stay: history and files; staging."""

    keep_days: int = KEEP_DAYS
    staging_days: int = STAGING_DAYS

    def days_for(self, name: str) -> int:
        return self.staging_days if name.startswith("staging/") else self.keep_days


@dataclass(frozen=True, slots=True)
class Named:
    """What the records of one room name besides commits' own contents.

    `objects` are digests, `staging` names of folders of work under way.
    """

    objects: frozenset[str] = frozenset()
    contents: tuple[JsonObject, ...] = ()
    staging: frozenset[str] = frozenset()


class Reach(Protocol):
    """What contents name, as the rooms after this one know."""

    def folder(self, content: JsonObject) -> str | None:
        """Returns the folder in `tables/` that the content lies in; None where it has none."""
        ...

    def objects(self, content: JsonObject) -> Iterable[str]:
        """Returns the digests of the objects that the content names."""
        ...

    def files(self, folder: str, contents: Sequence[JsonObject]) -> Collection[str]:
        """Returns the paths, below `folder`, of every file that one of the contents needs.

        A path that ends with "*" stands for all that begin so.

        Raises:
            InstepError: a file that names others is missing or damaged, so nobody knows.
        """
        ...

    def recorded(self, folder: str) -> Collection[str]:
        """Returns the paths, below `folder`, of files that have a row, whether they are there."""
        ...

    def drop_rows(self, tx: Transaction, paths: Iterable[str]) -> None:
        """Removes the rows of files, most of which have none; paths are below the lake's root."""
        ...


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the rooms after this one know of retention."""

    reach: Reach
    records: Callable[[Transaction], Sequence[Named]]
    roots: Callable[[Transaction], frozenset[str]]
    """The commits that records need."""


@dataclass(frozen=True, slots=True)
class Found:
    """Something unreached; `mark` changes whenever somebody makes or wants it again."""

    name: str
    mark: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Condemned:
    """Something found unreached by an earlier collection, when the lake had lived `lived` days."""

    name: str
    generation: int
    lived: int
    mark: str
    size_bytes: int


class Verdict(StrEnum):
    """What is done with something that nothing reaches, and why."""

    CONDEMN = "first seen unreached: condemned"
    WAIT = "condemned, not for long enough"
    NEEDED = "condemned, and a writer is open that began before"
    DELETE = "unreached for long enough, and nobody could need it"


def decide(
    found: Found, before: Condemned | None, *, lived: int, keep_days: int, oldest: int | None
) -> Verdict:
    """Returns what is done with something that no record names now.

    `lived` is how many days the lake has lived, `oldest` the generation at which the oldest open
    writer began, looked up before the records were read. One more day than `keep_days` has to have
    passed, so that one false day does not count.
    """
    if before is None or before.mark != found.mark:
        return Verdict.CONDEMN
    if keep_days and lived - before.lived <= keep_days:
        return Verdict.WAIT
    if oldest is not None and oldest < before.generation:
        return Verdict.NEEDED
    return Verdict.DELETE
