"""A commit: an immutable state of the whole catalog, with its parents, author, time and origin."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from instep.canonical import Json, digest_of, from_microseconds, to_microseconds
from instep.clock import format_instant
from instep.errors import NotFoundError
from instep.history.store import Row, Transaction

_COMMIT = "instep.commit.v1"
_COLUMNS = "id, tree, parents, author, at, message, origin"


@dataclass(frozen=True, slots=True)
class Commit:
    """`origin` is what made it: a run id, "change 12", "release", "init"."""

    id: str
    tree: str
    parents: tuple[str, ...]
    author: str
    at: datetime
    message: str
    origin: str

    def to_json(self) -> dict[str, Json]:
        return {
            "id": self.id,
            "parents": list(self.parents),
            "author": self.author,
            "at": format_instant(self.at),
            "message": self.message,
            "origin": self.origin,
        }


def make_commit(
    tree: str, parents: tuple[str, ...], author: str, at: datetime, message: str, origin: str
) -> Commit:
    """Returns the commit of these parts; its id is the digest of all of them."""
    body: dict[str, Json] = {
        "tree": tree,
        "parents": list(parents),
        "author": author,
        "at": to_microseconds(at),
        "message": message,
        "origin": origin,
    }
    return Commit(digest_of(_COMMIT, body), tree, parents, author, at, message, origin)


def save_commit(tx: Transaction, commit: Commit) -> None:
    """Stores a commit; storing it twice is the same as once."""
    generations = [_generation(tx, parent) for parent in commit.parents]
    if not all(generations):
        raise NotFoundError(
            f"A parent of the commit does not exist: expected all of {', '.join(commit.parents)}. "
            "Name existing commits.",
            kind="no-such-commit",
        )
    tx.execute(
        "insert into commits (id, tree, parents, generation, author, at, message, origin) "
        "values (?, ?, ?, ?, ?, ?, ?, ?) on conflict do nothing",
        (
            commit.id,
            commit.tree,
            json.dumps(list(commit.parents)),
            max(generations, default=0) + 1,
            commit.author,
            to_microseconds(commit.at),
            commit.message,
            commit.origin,
        ),
    )


def load_commit(tx: Transaction, identifier: str) -> Commit:
    """Returns the commit with this full id.

    Raises:
        NotFoundError (kind "no-such-commit").
    """
    row = tx.row(f"select {_COLUMNS} from commits where id = ?", (identifier,))
    if row is None:
        raise NotFoundError(
            f"Commit {identifier} does not exist: expected the id of a commit of this lake. "
            'See "instep log".',
            kind="no-such-commit",
            commit=identifier,
        )
    return _from_row(row)


def first_parents(tx: Transaction, start: str, limit: int) -> Iterator[Commit]:
    """Yields at most `limit` commits from `start` back along first parents: one ref's own way."""
    following: str | None = start
    for _ in range(limit):
        if following is None:
            return
        commit = load_commit(tx, following)
        yield commit
        following = commit.parents[0] if commit.parents else None


def is_ancestor(tx: Transaction, older: str, newer: str) -> bool:
    """Says whether `older` is `newer` or reachable from it through parents."""
    return merge_base(tx, older, newer) == older


def merge_base(tx: Transaction, left: str, right: str) -> str | None:
    """Returns the latest commit that both reach (highest generation), or None."""
    sides = {left: 1}
    sides[right] = sides.get(right, 0) | 2
    waiting = [(-_generation(tx, commit), commit) for commit in sides]
    heapq.heapify(waiting)
    while waiting:
        _, identifier = heapq.heappop(waiting)
        if sides[identifier] == 3:
            return identifier
        for parent in load_commit(tx, identifier).parents:
            if parent not in sides:
                heapq.heappush(waiting, (-_generation(tx, parent), parent))
            sides[parent] = sides.get(parent, 0) | sides[identifier]
    return None


def commits_beyond(tx: Transaction, newer: str, older: str) -> frozenset[str]:
    """Returns the commits that `newer` reaches and `older` does not.

    One walk from both, latest generation first, that ends where only shared commits are left.
    """
    sides = {older: 2}
    sides[newer] = sides.get(newer, 0) | 1
    waiting = [(-_generation(tx, commit), commit) for commit in sides]
    heapq.heapify(waiting)
    found: set[str] = set()
    while any(sides[commit] == 1 for _, commit in waiting):
        _, identifier = heapq.heappop(waiting)
        if sides[identifier] == 1:
            found.add(identifier)
        for parent in load_commit(tx, identifier).parents:
            if parent not in sides:
                heapq.heappush(waiting, (-_generation(tx, parent), parent))
            sides[parent] = sides.get(parent, 0) | sides[identifier]
    return frozenset(found)


def _generation(tx: Transaction, identifier: str) -> int:
    """Returns the length of the longest way back to a commit without parents; 0 if unknown."""
    row = tx.row("select generation from commits where id = ?", (identifier,))
    return int(row[0]) if row else 0


def _from_row(row: Row) -> Commit:
    identifier, tree, parents, author, at, message, origin = row
    return Commit(
        identifier, tree, tuple(json.loads(parents)), author, from_microseconds(at), message, origin
    )
