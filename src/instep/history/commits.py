"""A commit: an immutable state of the whole catalog, with its parents, author, time and origin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from instep.canonical import Json, digest_of, from_microseconds, to_microseconds
from instep.clock import format_instant
from instep.errors import NotFoundError
from instep.history.ancestry import Standing, place_after
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


def save_commit(tx: Transaction, commit: Commit, place: Standing | None = None) -> None:
    """Stores a commit; storing it twice is the same as once.

    `place` is where it stands in the graph, looked up where it is not given.
    """
    place = place or place_after(tx, commit.parents)
    if place is None:
        raise NotFoundError(
            f"A parent of the commit does not exist: expected all of {', '.join(commit.parents)}. "
            "Name existing commits.",
            kind="no-such-commit",
        )
    generation, jump, span = place
    tx.write(
        f"insert into commits ({_COLUMNS}, generation, jump, span) "
        "values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict do nothing",
        (
            commit.id,
            commit.tree,
            json.dumps(list(commit.parents)),
            commit.author,
            to_microseconds(commit.at),
            commit.message,
            commit.origin,
            generation,
            jump,
            span,
        ),
    )


def load_commit(tx: Transaction, identifier: str) -> Commit:
    """Returns the commit with this full id.

    Raises:
        NotFoundError (kind "no-such-commit").
    """
    found = find_commit(tx, identifier)
    if found is None:
        was = tx.row("select 1 from forgotten_commits where id = ?", (identifier,))
        what = "was forgotten by garbage collection" if was else "does not exist"
        raise NotFoundError(
            f"Commit {identifier} {what}: expected the id of a commit of this lake. "
            'See "instep log".',
            kind="no-such-commit",
            commit=identifier,
        )
    return found


def find_commit(tx: Transaction, identifier: str) -> Commit | None:
    row = tx.row(f"select {_COLUMNS} from commits where id = ?", (identifier,))
    return _from_row(row) if row else None


def first_parents(tx: Transaction, start: str, limit: int) -> Iterator[Commit]:
    """Yields at most `limit` commits from `start` back along first parents: one ref's own way."""
    following: str | None = start
    for _ in range(limit):
        if following is None:
            return
        commit = load_commit(tx, following)
        yield commit
        following = commit.parents[0] if commit.parents else None


def _from_row(row: Row) -> Commit:
    identifier, tree, parents, author, at, message, origin = row
    return Commit(
        identifier, tree, tuple(json.loads(parents)), author, from_microseconds(at), message, origin
    )
