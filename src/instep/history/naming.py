"""What the database names at one moment: the ground on which a collection stands.

Only names and digests are held in memory, and of each table the contents it has in any commit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from instep.canonical import JsonObject
from instep.history import tree
from instep.history.commits import Commit, load_commit
from instep.history.erasure import erased_digests
from instep.history.repository import Repository
from instep.history.retention import Reach, Rooms
from instep.history.store import Transaction

_PAGE = 2_000
"""Rows read at a time: what is held in memory."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`dead` are commits that no root reaches; `tables` has contents by their folder."""

    commits: frozenset[str]
    dead: frozenset[str]
    objects: frozenset[str]
    tables: Mapping[str, tuple[JsonObject, ...]]
    staging: frozenset[str]


def take_snapshot(
    tx: Transaction, rooms: Rooms, say: Callable[[str], None] = lambda text: None
) -> Snapshot:
    """Returns what every commit there is, and every room's records, name now.

    Not objects that were erased: bytes that a killed writer left of one are garbage.
    """
    names = _Names(rooms.reach)
    for number, content in enumerate(_contents(tx), 1):
        names.add(content)
        say(f"reading what commits name, {number:,} contents so far")
    records = rooms.records(tx)
    for named in records:
        names.objects.update(named.objects)
        for content in named.contents:
            names.add(content)
    parents = parents_of_all(tx)
    return Snapshot(
        commits=frozenset(parents),
        dead=frozenset(parents.keys() - reached_from(parents, roots(tx, rooms.roots(tx)))),
        objects=frozenset(names.objects) - erased_digests(tx),
        tables={folder: tuple(states.values()) for folder, states in names.tables.items()},
        staging=frozenset[str]().union(*(named.staging for named in records)),
    )


@dataclass(frozen=True, slots=True)
class Later:
    """What commits made since a snapshot name.

    Each look reads the commits made since the one before. So whoever looks without the lock, and
    then once more under it, reads there what was made in between, and no more.
    """

    repo: Repository
    reach: Reach
    commits: set[str] = field(default_factory=set, repr=False)
    """Those that need no look any more; at first, those of the snapshot."""
    _paths: set[str] = field(default_factory=set, repr=False)

    def look(self, tx: Transaction) -> Collection[str]:
        """Returns the paths of the files that are named, those found by earlier looks included."""
        names = _Names(self.reach)
        for commit in commits_beside(tx, self.commits):
            for content in _brought(tx, self.repo, commit):
                names.add(content)
            self.commits.add(commit.id)
        self._paths.update(f"objects/{digest[:2]}/{digest}" for digest in names.objects)
        for folder, states in names.tables.items():
            files = self.reach.files(folder, tuple(states.values()))
            self._paths.update(f"tables/{folder}/{name}" for name in files)
        return self._paths


def is_named(tx: Transaction, text: str) -> bool:
    """Says whether a content of any commit there is has `text` in it; reads every node.

    `text` has letters, digits and "-" only.
    """
    return tx.row("select 1 from nodes where body like ? limit 1", (f"%{text}%",)) is not None


def roots(tx: Transaction, named: Iterable[str]) -> set[str]:
    """Returns the commits that stay: what a ref is or was, and what the rooms' records need."""
    found = {str(row[0]) for row in tx.rows("select commit_id from refs")}
    for row in tx.rows(
        "select o.before_commit, o.after_commit from operations o join refs r on r.name = o.ref"
    ):
        found.update(str(one) for one in row if one is not None)
    return found.union(named)


def sequences(tx: Transaction) -> dict[str, int]:
    """Returns the number of the last entry in the chain of each ref."""
    return {str(name): int(last) for name, last in tx.rows("select name, sequence from refs")}


def roots_since(tx: Transaction, seen: Mapping[str, int]) -> set[str]:
    """Returns the commits that refs were at since the entries that were `seen` of their chains."""
    found: set[str] = set()
    for name, last in sequences(tx).items():
        if last > seen.get(name, 0):
            for row in tx.rows(
                "select before_commit, after_commit from operations where ref = ? and sequence > ?",
                (name, seen.get(name, 0)),
            ):
                found.update(str(one) for one in row if one is not None)
    return found


def parents_of_all(tx: Transaction) -> dict[str, tuple[str, ...]]:
    """Returns the parents of every commit there is."""
    rows = tx.rows("select id, parents from commits")
    return {str(identifier): tuple(json.loads(text)) for identifier, text in rows}


def reached_from(
    parents: Mapping[str, tuple[str, ...]], roots: Iterable[str], known: Container[str] = ()
) -> set[str]:
    """Returns the roots and all their ancestors, but for those known before, and theirs."""
    waiting, found = list(roots), set[str]()
    while waiting:
        identifier = waiting.pop()
        if identifier not in found and identifier not in known:
            found.add(identifier)
            waiting.extend(parents.get(identifier, ()))
    return found


def node_rows(tx: Transaction) -> Iterator[tuple[str, str]]:
    """Yields every node of the tree, a page at a time."""
    last = ""
    while rows := tx.rows(
        "select digest, body from nodes where digest > ? order by digest limit ?", (last, _PAGE)
    ):
        for digest, body in rows:
            yield str(digest), str(body)
        last = str(rows[-1][0])


@dataclass(frozen=True, slots=True)
class _Names:
    """What contents name, gathered; of a table, each of its contents once."""

    reach: Reach
    objects: set[str] = field(default_factory=set)
    tables: dict[str, dict[str, JsonObject]] = field(default_factory=dict)

    def add(self, content: JsonObject) -> None:
        self.objects.update(self.reach.objects(content))
        folder = self.reach.folder(content)
        if folder is not None:
            text = json.dumps(content, sort_keys=True)
            self.tables.setdefault(folder, {})[text] = content


def _contents(tx: Transaction) -> Iterator[JsonObject]:
    """Yields every content of every commit there is, most of them once."""
    seen: set[bytes] = set()
    for _, body in node_rows(tx):
        for content in json.loads(body).get("leaf", {}).values():
            text = json.dumps(content, sort_keys=True).encode()
            key = hashlib.blake2b(text, digest_size=16).digest()
            if key not in seen:
                seen.add(key)
                yield content


def commits_beside(tx: Transaction, known: Collection[str]) -> Iterator[Commit]:
    """Yields the commits that are not among those `known`, which are all there still.

    They are listed only where there are more: a commit goes by the last step of a collection alone.
    """
    row = tx.row("select count(*) from commits")
    if row is not None and row[0] == len(known):
        return
    for identifier in [str(row[0]) for row in tx.rows("select id from commits")]:
        if identifier not in known:
            yield load_commit(tx, identifier)


def _brought(tx: Transaction, repo: Repository, commit: Commit) -> Iterator[JsonObject]:
    """Yields what a commit has and its first parent has not."""
    if not commit.parents:
        yield from tree.entries(repo.nodes, commit.tree).values()
        return
    before = load_commit(tx, commit.parents[0]).tree
    for difference in tree.diff(repo.nodes, before, commit.tree):
        if difference.after is not None:
            yield difference.after
