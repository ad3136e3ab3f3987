"""One opened lake, as every room is given it: its database, its blobs, its clock.

A lake knows its own id and root. Iceberg paths are absolute, so under another root it would read,
and one day delete, the files of the original: it is refused there.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from instep.canonical import JsonObject
from instep.clock import Clock
from instep.errors import ConflictError, NotFoundError, RefusedError
from instep.history import tree
from instep.history.commits import Commit, load_commit, make_commit, save_commit
from instep.history.objects import Objects
from instep.history.refs import RefKind, create_ref, resolve
from instep.history.store import Store, create_store, open_store
from instep.history.tree import Difference, Nodes

MAIN = "main"
CATALOG = "catalog.sqlite"


@dataclass(frozen=True, slots=True)
class Repository:
    root: Path
    store: Store
    objects: Objects
    nodes: Nodes
    clock: Clock

    def resolve(self, text: str) -> str:
        """Returns the commit id that a ref, `ref@instant` or commit id names."""
        with self.store.reading() as tx:
            return resolve(tx, text)

    def commit(self, identifier: str) -> Commit:
        with self.store.reading() as tx:
            return load_commit(tx, identifier)

    def find(self, commit: str, key: str) -> JsonObject | None:
        """Returns the content of `key` in a commit, or None."""
        return tree.find(self.nodes, self.commit(commit).tree, key)

    def content(self, commit: str, key: str) -> JsonObject:
        """Returns the content of `key` in a commit.

        Raises:
            NotFoundError (kind "no-such-key").
        """
        found = self.find(commit, key)
        if found is None:
            kind = tree.kind_of(key)
            known = ", ".join(self.entries(commit, kind)) or f"no {kind}"
            raise NotFoundError(
                f'"{key}" is not in commit {commit[:12]}: it has {known}. '
                "Correct the name, or name another commit.",
                kind="no-such-key",
                key=key,
            )
        return found

    def entries(self, commit: str, kind: str | None = None) -> dict[str, JsonObject]:
        """Returns the keys of a commit, or those of one kind, with their contents, by key."""
        return tree.entries(self.nodes, self.commit(commit).tree, kind)

    def diff(self, before: str, after: str) -> tuple[Difference, ...]:
        """Returns the keys whose contents differ between two commits, by key."""
        return tree.diff(self.nodes, self.commit(before).tree, self.commit(after).tree)


def create_repository(root: Path, clock: Clock, actor: str) -> Repository:
    """Makes an empty lake in the folder `root`, with a protected branch main.

    The database is made under a temporary name, so that a lake exists whole or not at all.

    Raises:
        ConflictError (kind "lake-exists").
    """
    root = root.resolve()
    if (root / CATALOG).exists():
        raise ConflictError(
            f"There is a lake at {root} already: expected a folder without one. "
            'Use it ("instep status"), or name another folder in instep.yaml.',
            kind="lake-exists",
        )
    root.mkdir(parents=True, exist_ok=True)
    temporary = root / f".{CATALOG}.{uuid.uuid4().hex}"
    repo = _repository(root, create_store(temporary), clock)
    _first_commit(repo, clock(), actor)
    repo.store.settle(root / CATALOG)
    return open_repository(root, clock)


def open_repository(root: Path, clock: Clock) -> Repository:
    """Opens the lake in the folder `root`.

    Raises:
        NotFoundError (kind "no-such-lake").
        RefusedError (kind "lake-moved"): it was made under another root.
    """
    root = root.resolve()
    store = open_store(root / CATALOG)
    with store.reading() as tx:
        row = tx.row("select value from lake where name = 'root'")
    recorded = str(row[0]) if row else ""
    if recorded != str(root):
        raise RefusedError(
            f"The lake at {root} was made at {recorded}: it was moved or copied, and its tables "
            "still name the files there. Nothing was read or written. Move it back to "
            f"{recorded} and work there.",
            kind="lake-moved",
            root=str(root),
            recorded=recorded,
        )
    return _repository(root, store, clock)


def _repository(root: Path, store: Store, clock: Clock) -> Repository:
    return Repository(root, store, Objects(root / "objects"), Nodes(store), clock)


def _first_commit(repo: Repository, at: datetime, actor: str) -> None:
    with repo.store.transaction() as tx:
        for name, value in (("id", uuid.uuid4().hex), ("root", str(repo.root))):
            tx.execute("insert into lake (name, value) values (?, ?)", (name, value))
        root = tree.empty_tree(tx, repo.nodes)
        commit = make_commit(root, (), actor, at, "An empty lake", "init")
        save_commit(tx, commit)
        create_ref(tx, MAIN, RefKind.BRANCH, commit.id, owner=actor, at=at, is_protected=True)
