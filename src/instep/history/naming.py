"""What the database names at one moment: the ground on which a collection stands.

Only names and digests are held in memory, and of each table the contents it has in any commit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from instep.canonical import JsonObject
from instep.history import tree
from instep.history.commits import load_commit
from instep.history.repository import Repository
from instep.history.retention import Named, Reach, Rooms
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


def take_snapshot(tx: Transaction, rooms: Rooms) -> Snapshot:
    """Returns what every commit there is, and every room's records, name now."""
    names = _Names(rooms.reach)
    for content in _contents(tx):
        names.add(content)
    records = rooms.records(tx)
    for named in records:
        names.objects.update(named.objects)
        for content in named.contents:
            names.add(content)
    parents = parents_of_all(tx)
    return Snapshot(
        commits=frozenset(parents),
        dead=frozenset(parents.keys() - reached_from(parents, roots(tx, records))),
        objects=frozenset(names.objects),
        tables={folder: tuple(states.values()) for folder, states in names.tables.items()},
        staging=frozenset[str]().union(*(named.staging for named in records)),
    )


def named_since(tx: Transaction, repo: Repository, reach: Reach, seen: Snapshot) -> frozenset[str]:
    """Returns the paths of files that commits made since a snapshot name."""
    names = _Names(reach)
    for content in _contents_since(tx, repo, seen):
        names.add(content)
    found = {f"objects/{digest[:2]}/{digest}" for digest in names.objects}
    for folder, states in names.tables.items():
        files = reach.files(folder, tuple(states.values()))
        found |= {f"tables/{folder}/{name}" for name in files}
    return frozenset(found)


def roots(tx: Transaction, records: Sequence[Named]) -> set[str]:
    """Returns the commits that stay: what a ref is or was, and what the rooms' records need."""
    found = {str(row[0]) for row in tx.rows("select commit_id from refs")}
    for row in tx.rows(
        "select o.before_commit, o.after_commit from operations o join refs r on r.name = o.ref"
    ):
        found.update(str(one) for one in row if one is not None)
    return found.union(*(named.commits for named in records))


def parents_of_all(tx: Transaction) -> dict[str, tuple[str, ...]]:
    """Returns the parents of every commit there is."""
    rows = tx.rows("select id, parents from commits")
    return {str(identifier): tuple(json.loads(text)) for identifier, text in rows}


def reached_from(parents: Mapping[str, tuple[str, ...]], roots: Iterable[str]) -> set[str]:
    """Returns the roots and all their ancestors."""
    waiting, found = list(roots), set[str]()
    while waiting:
        identifier = waiting.pop()
        if identifier not in found:
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


def _contents_since(tx: Transaction, repo: Repository, seen: Snapshot) -> Iterator[JsonObject]:
    """Yields what commits made since the snapshot have and their first parents have not."""
    for (identifier,) in tx.rows("select id from commits"):
        if identifier in seen.commits:
            continue
        commit = load_commit(tx, identifier)
        if not commit.parents:
            yield from tree.entries(repo.nodes, commit.tree).values()
            continue
        before = load_commit(tx, commit.parents[0]).tree
        for difference in tree.diff(repo.nodes, before, commit.tree):
            if difference.after is not None:
                yield difference.after
