"""Forgetting commits that no root reaches, with what only they hold of the tree.

The last of what a collection does, and the first step to the end of their files: these are named,
and so stay, until their commits are gone.

What is reached is found out without the lock; under it, only what has come since. Children go
before their parents: what somebody makes a branch of meanwhile has all its ancestors still.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from instep.canonical import to_microseconds
from instep.faults import reached
from instep.history import tree
from instep.history.locks import current_generation
from instep.history.naming import (
    commits_beside,
    node_rows,
    parents_of_all,
    reached_from,
    roots,
    roots_since,
    sequences,
)
from instep.history.repository import Repository
from instep.history.retention import Rooms
from instep.history.store import Transaction

COMMIT = "commit/"
"""Begins the name under which a commit is condemned."""

_AT_ONCE = 500
"""Commits or nodes removed in one transaction, which others wait for."""


def forgotten_commits(tx: Transaction) -> frozenset[str]:
    """Returns the commits that were collected: records may name them still."""
    return frozenset(str(row[0]) for row in tx.rows("select id from forgotten_commits"))


def forget(repo: Repository, rooms: Rooms, wanted: Sequence[str]) -> None:
    """Removes commits that still no root reaches, with what only they hold of the tree.

    The condemnation of a commit goes last: what is on record still was cut short.
    """
    with repo.store.reading() as tx:
        staying = _Staying.found(tx, rooms, wanted)
        rows = tx.rows("select id from commits order by generation desc, id")
    asked = frozenset(wanted)
    order = [str(row[0]) for row in rows if row[0] in asked]
    for start in range(0, len(order), _AT_ONCE):
        with repo.store.transaction() as tx:
            staying.look(tx)
            at, generation = to_microseconds(repo.clock()), current_generation(tx)
            for identifier in order[start : start + _AT_ONCE]:
                if identifier not in staying.commits:
                    _remove(tx, identifier, generation, at)
                    del staying.parents[identifier]
            reached("gc.forget.before")
        reached("gc.forget.after")
    drop_unused_nodes(repo)
    for start in range(0, len(wanted), _AT_ONCE):
        with repo.store.transaction() as tx:
            for identifier in wanted[start : start + _AT_ONCE]:
                tx.write("delete from condemned where name = ?", (f"{COMMIT}{identifier}",))


def drop_unused_nodes(repo: Repository) -> None:
    """Removes the nodes of the tree that no commit reaches."""
    with repo.store.reading() as tx:
        used = _Used(
            repo, {digest: tree.children(json.loads(body)) for digest, body in node_rows(tx)}
        )
        used.look(tx)
    unused = sorted(used.children.keys() - used.nodes)
    for start in range(0, len(unused), _AT_ONCE):
        with repo.store.transaction() as tx:
            used.look(tx)
            for digest in unused[start : start + _AT_ONCE]:
                if digest not in used.nodes:
                    tx.write("delete from nodes where digest = ?", (digest,))


@dataclass(frozen=True, slots=True)
class _Staying:
    """The commits that stay, as far as was looked: those not wanted, the roots, and their past."""

    rooms: Rooms
    parents: dict[str, tuple[str, ...]]
    sequences: dict[str, int]
    """Of each ref, the last entry of its chain that was looked at."""
    commits: set[str]

    @classmethod
    def found(cls, tx: Transaction, rooms: Rooms, wanted: Sequence[str]) -> _Staying:
        parents = parents_of_all(tx)
        kept = parents.keys() - set(wanted) | roots(tx, rooms.roots(tx))
        return cls(rooms, parents, sequences(tx), reached_from(parents, kept))

    def look(self, tx: Transaction) -> None:
        """Adds what has come since the last look."""
        new = {commit.id: commit.parents for commit in commits_beside(tx, self.parents)}
        self.parents.update(new)
        kept = new.keys() | roots_since(tx, self.sequences) | self.rooms.roots(tx)
        self.sequences.update(sequences(tx))
        self.commits.update(reached_from(self.parents, kept, self.commits))


@dataclass(frozen=True, slots=True)
class _Used:
    """The nodes that commits reach, as far as was looked; `children` are those of every node."""

    repo: Repository
    children: dict[str, tuple[str, ...]]
    nodes: set[str] = field(default_factory=set)
    _commits: set[str] = field(default_factory=set)

    def look(self, tx: Transaction) -> None:
        """Adds what commits reach that were made since the last look."""
        for commit in commits_beside(tx, self._commits):
            self._commits.add(commit.id)
            waiting = [commit.tree]
            while waiting:
                digest = waiting.pop()
                if digest not in self.nodes:
                    self.nodes.add(digest)
                    below = self.children.get(digest)
                    waiting += (
                        tree.children(self.repo.nodes.load(digest)) if below is None else below
                    )


def _remove(tx: Transaction, identifier: str, generation: int, at: int) -> None:
    tx.write("delete from commits where id = ?", (identifier,))
    tx.write(
        "insert into forgotten_commits (id, generation, at) values (?, ?, ?)",
        (identifier, generation, at),
    )
