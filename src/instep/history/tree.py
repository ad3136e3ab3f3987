"""A persistent map from key to content: one Merkle trie per kind, over SHA-256(key).

The same entries always give the same root, whatever the order of edits: a node is a leaf exactly
when its subtree has at most 64 keys, and branches on the next hexadecimal digit of the key's hash
otherwise. An update rewrites O(log n) nodes, a diff visits only the nodes that differ. Listing is
by kind (the part of a key before its first slash), never by order of keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

from instep.canonical import JsonObject, canonical_bytes_of_parts, canonical_parts, digest_of_bytes
from instep.errors import InternalError
from instep.history.store import Store, Transaction

LEAF_LIMIT = 64
_CACHED_NODES = 20_000
_ROWS_AT_ONCE = 500
"""Of one insert: databases bound the number of values in a statement."""

_NODE = "instep.node.v1"

Node = Mapping[str, Any]  # {"leaf": {key: content}} or {"inner": {digit: [digest, count]}}
Entries = dict[str, JsonObject]
Changes = Mapping[str, JsonObject | None]
Kept = TypeVar("Kept", Node, str)


@dataclass(frozen=True, slots=True)
class Difference:
    """A key whose content differs; None where it does not exist."""

    key: str
    before: JsonObject | None
    after: JsonObject | None


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of all tries of a lake, immutable, with those read lately in memory."""

    store: Store
    _cache: dict[str, Node | str] = field(default_factory=dict, repr=False, compare=False)
    """Text until the node is first read, so that what is written is not parsed for nothing."""

    def load(self, digest: str) -> Node:
        found = self._cache.get(digest)
        if found is None:
            found = self._body(digest)
        if isinstance(found, str):
            found = self._keep(digest, json.loads(found))
        return found

    def save(self, tx: Transaction, bodies: Mapping[str, str]) -> None:
        """Stores the texts of nodes by their digests.

        All are inserted: what the cache holds may come from a transaction that was rolled back.
        They go in order, so that two writers who store the same nodes never wait for each other.
        """
        rows = sorted(bodies.items())
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[start : start + _ROWS_AT_ONCE]
            tx.write(
                f"insert into nodes (digest, body) values {', '.join(['(?, ?)'] * len(part))} "
                "on conflict do nothing",
                [value for row in part for value in row],
            )
        for digest, body in rows:
            self._keep(digest, body)

    def keep(self, digest: str, body: str) -> None:
        """Holds in memory the text of a node that was read along with something else."""
        if digest not in self._cache:
            self._keep(digest, body)

    def _body(self, digest: str) -> str:
        with self.store.reading() as tx:
            row = tx.row("select body from nodes where digest = ?", (digest,))
        if row is None:
            raise InternalError(
                f"Tree node {digest} is missing: expected it in the catalog database. "
                "Restore the database from a backup.",
                kind="missing-node",
                digest=digest,
            )
        return str(row[0])

    def _keep(self, digest: str, node: Kept) -> Kept:
        if len(self._cache) >= _CACHED_NODES:
            self._cache.clear()
        self._cache[digest] = node
        return node


class _Loader(Protocol):
    def load(self, digest: str) -> Node: ...


@dataclass(frozen=True, slots=True)
class _Draft:
    """The nodes of one update before they are stored: one statement stores them all."""

    nodes: Nodes
    bodies: dict[str, str] = field(default_factory=dict)

    def load(self, digest: str) -> Node:
        body = self.bodies.get(digest)
        if body is None:
            return self.nodes.load(digest)
        node: Node = json.loads(body)
        return node

    def save(self, node: Node) -> str:
        """Keeps a node made of nodes' parts and of contents in canonical form; returns its id."""
        body = canonical_bytes_of_parts(node)
        digest = digest_of_bytes(_NODE, body)
        self.bodies[digest] = body.decode()
        return digest


def node_digest(body: str) -> str:
    """Returns the digest of a node as its text is stored, which is canonical."""
    return hashlib.sha256(f"{_NODE}\n{body}".encode()).hexdigest()


def kind_of(key: str) -> str:
    """Returns "table" for "table/flights"."""
    return key.partition("/")[0]


def empty_tree(tx: Transaction, nodes: Nodes) -> str:
    """Returns the root of the tree without entries, stored."""
    draft = _Draft(nodes)
    root = draft.save({"kinds": {}})
    nodes.save(tx, draft.bodies)
    return root


def find(nodes: Nodes, root: str, key: str) -> JsonObject | None:
    """Returns the content of `key`, or None."""
    digest = nodes.load(root)["kinds"].get(kind_of(key))
    path = _path(key)
    depth = 0
    while digest is not None:
        node = nodes.load(digest)
        if "leaf" in node:
            content: JsonObject | None = node["leaf"].get(key)
            return content
        child = node["inner"].get(path[depth])
        digest = child[0] if child else None
        depth += 1
    return None


def entries(nodes: Nodes, root: str, kind: str | None = None) -> Entries:
    """Returns every key and content, or those of one kind, in the order of keys."""
    kinds = nodes.load(root)["kinds"]
    chosen = [kinds[kind]] if kind in kinds else [] if kind else list(kinds.values())
    found: Entries = {}
    for digest in chosen:
        found.update(_collect(nodes, digest))
    return dict(sorted(found.items()))


def update(tx: Transaction, nodes: Nodes, root: str, changes: Changes) -> str:
    """Returns the root after `changes` (None removes a key), with its new nodes stored."""
    by_kind: dict[str, dict[str, JsonObject | None]] = {}
    for key, content in changes.items():
        by_kind.setdefault(kind_of(key), {})[key] = _canonical(content)
    kinds = dict(nodes.load(root)["kinds"])
    draft = _Draft(nodes)
    for kind, wanted in by_kind.items():
        digest, count = _apply(draft, kinds.get(kind), 0, wanted)
        if count:
            kinds[kind] = digest
        else:
            kinds.pop(kind, None)
    after = draft.save({"kinds": kinds})
    nodes.save(tx, draft.bodies)
    return after


def children(node: Node) -> tuple[str, ...]:
    """Returns the digests of the nodes right below one."""
    if "kinds" in node:
        return tuple(node["kinds"].values())
    return tuple(child for child, _ in node.get("inner", {}).values())


def diff(nodes: Nodes, before: str, after: str) -> tuple[Difference, ...]:
    """Returns the keys whose contents differ, in the order of keys."""
    if before == after:
        return ()
    old, new = nodes.load(before)["kinds"], nodes.load(after)["kinds"]
    found: list[Difference] = []
    for kind in old.keys() | new.keys():
        found.extend(_diff(nodes, old.get(kind), new.get(kind), 0))
    return tuple(sorted(found, key=lambda difference: difference.key))


def _canonical(content: JsonObject | None) -> JsonObject | None:
    return cast(JsonObject | None, canonical_parts(content))


def _path(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _collect(nodes: _Loader, digest: str) -> Entries:
    node = nodes.load(digest)
    if "leaf" in node:
        return dict(node["leaf"])
    found: Entries = {}
    for child, _ in node["inner"].values():
        found.update(_collect(nodes, child))
    return found


def _apply(draft: _Draft, digest: str | None, depth: int, changes: Changes) -> tuple[str, int]:
    node: Node = draft.load(digest) if digest else {"leaf": {}}
    if "leaf" in node:
        return _build(draft, depth, _changed(node["leaf"], changes))
    children = dict(node["inner"])
    for digit, wanted in _by_digit(changes, depth).items():
        known = children.get(digit)
        child, count = _apply(draft, known[0] if known else None, depth + 1, wanted)
        if count:
            children[digit] = [child, count]
        else:
            children.pop(digit, None)
    total = sum(count for _, count in children.values())
    if total > LEAF_LIMIT:
        return draft.save({"inner": children}), total
    # Few enough are left below to be one leaf, and so they must be.
    left: Entries = {}
    for child, _ in children.values():
        left.update(_collect(draft, child))
    return _build(draft, depth, left)


def _build(draft: _Draft, depth: int, wanted: Entries) -> tuple[str, int]:
    if len(wanted) <= LEAF_LIMIT:
        return draft.save({"leaf": wanted}), len(wanted)
    children: dict[str, Any] = {}
    for digit, part in _by_digit(wanted, depth).items():
        held = {key: content for key, content in part.items() if content is not None}
        children[digit] = list(_build(draft, depth + 1, held))
    return draft.save({"inner": children}), len(wanted)


def _changed(held: Mapping[str, JsonObject], changes: Changes) -> Entries:
    result = dict(held)
    for key, content in changes.items():
        if content is None:
            result.pop(key, None)
        else:
            result[key] = content
    return result


def _by_digit(changes: Changes, depth: int) -> dict[str, dict[str, JsonObject | None]]:
    parts: dict[str, dict[str, JsonObject | None]] = {}
    for key, content in changes.items():
        parts.setdefault(_path(key)[depth], {})[key] = content
    return parts


def _diff(nodes: Nodes, before: str | None, after: str | None, depth: int) -> Iterator[Difference]:
    if before == after:
        return
    old: Node = nodes.load(before) if before else {"leaf": {}}
    new: Node = nodes.load(after) if after else {"leaf": {}}
    if "inner" in old and "inner" in new:
        for digit in old["inner"].keys() | new["inner"].keys():
            left, right = old["inner"].get(digit), new["inner"].get(digit)
            yield from _diff(
                nodes, left[0] if left else None, right[0] if right else None, depth + 1
            )
        return
    held_before = dict(old["leaf"]) if "leaf" in old else _collect(nodes, before or "")
    held_after = dict(new["leaf"]) if "leaf" in new else _collect(nodes, after or "")
    for key in held_before.keys() | held_after.keys():
        left_content, right_content = held_before.get(key), held_after.get(key)
        if left_content != right_content:
            yield Difference(key, left_content, right_content)
