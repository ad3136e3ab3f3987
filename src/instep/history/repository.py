"""One opened lake, as every room is given it: its database, its blobs, its clock.

A lake knows its own id and root. Iceberg paths are absolute, so under another root it would read,
and one day delete, the files of the original: it is refused there.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from instep.canonical import JsonObject, to_microseconds
from instep.clock import Clock
from instep.errors import ConflictError, NotFoundError, RefusedError, some_of
from instep.history import tree
from instep.history.commits import Commit, load_commit, make_commit, save_commit
from instep.history.objects import Objects, make_folder_durably
from instep.history.places import here, on_s3
from instep.history.postgres import create_postgres, open_postgres
from instep.history.refs import MAIN as MAIN
from instep.history.refs import RefKind, create_ref, resolve
from instep.history.s3 import check_bucket
from instep.history.sqlite import create_sqlite, open_sqlite
from instep.history.store import Database, Store, Transaction
from instep.history.tree import Difference, Nodes

CATALOG = "catalog.sqlite"

MARK = "lake.id"
"""The object that says which lake a place on S3 belongs to."""


@dataclass(frozen=True, slots=True)
class Repository:
    root: Path
    store: Store
    objects: Objects
    nodes: Nodes
    clock: Clock

    @property
    def here(self) -> Path:
        """The lake's folder on this machine: staging, locks, caches and logs are always there."""
        return here(self.root)

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
            known = some_of(list(self.entries(commit, kind))) or f"no {kind}"
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


def create_repository(
    root: Path, clock: Clock, actor: str, database: Database | None = None
) -> Repository:
    """Makes an empty lake with a protected branch main, whole or not at all.

    Its files are in the folder `root`, or on S3; its catalog in `database` or in a SQLite file
    there.

    Raises:
        ConflictError (kind "lake-exists").
        NotFoundError (kind "no-such-bucket"), RefusedError (kind "bucket-access-denied").
        UnavailableError (kinds "bucket-unreachable", "bucket-throttled", "bucket-failed").
    """
    root = root.resolve()

    def fill(store: Store, tx: Transaction) -> None:
        identifier = uuid.uuid4().hex
        claim_root(root, identifier)
        for name, value in (("id", identifier), ("root", str(root))):
            tx.execute("insert into lake (name, value) values (?, ?)", (name, value))
        at = clock()
        commit = make_commit(
            tree.empty_tree(tx, Nodes(store)), (), actor, at, "An empty lake", "init"
        )
        save_commit(tx, commit)
        create_ref(tx, MAIN, RefKind.BRANCH, commit.id, owner=actor, at=at, is_protected=True)

    check_root(root)
    make_folder_durably(here(root))
    if database is None:
        create_sqlite(root / CATALOG, fill).close()
    else:
        create_postgres(database, fill).close()
    return open_repository(root, clock, database)


def check_root(root: Path) -> None:
    """Holds that a lake's files can be at `root`; of a folder nothing is asked."""
    remote = on_s3(root)
    if remote is not None:
        check_bucket(remote)


def claim_root(root: Path, text: str) -> None:
    """Takes a place on S3 for one lake, so that no other collects its files as garbage.

    Who took it with the same `text` before, and was interrupted, may go on. Of a folder nothing is
    asked.

    Raises:
        ConflictError (kind "lake-exists").
    """
    remote = on_s3(root)
    if remote is None:
        return
    mark = remote / MARK
    try:
        mark.claim(text.encode())
    except FileExistsError:
        if mark.read_bytes() == text.encode():
            return
        raise ConflictError(
            f"There is a lake in {root} already: expected a place without one. Name another in "
            f"lake.files, or remove {mark} if the making of a lake was interrupted there.",
            kind="lake-exists",
            root=str(root),
        ) from None


def open_repository(root: Path, clock: Clock, database: Database | None = None) -> Repository:
    """Opens the lake whose files are in the folder `root`.

    Raises:
        NotFoundError (kind "no-such-lake").
        RefusedError (kind "lake-moved"): it was made under another root.
    """
    repo = open_unchecked(root, clock, database)
    with repo.store.reading() as tx:
        recorded = home_of(tx).root
    if recorded != str(repo.root):
        raise RefusedError(
            f"The lake at {repo.root} was made at {recorded}: it was moved or copied, and its "
            "tables still name the files there. Nothing was read or written. Move it back, or say "
            'which with "instep doctor --relocate moved" or "instep doctor --relocate copied".',
            kind="lake-moved",
            root=str(repo.root),
            recorded=recorded,
        )
    return repo


def open_unchecked(root: Path, clock: Clock, database: Database | None = None) -> Repository:
    """Opens a lake whatever root it was made under: to make it at home, and for nothing else.

    Raises:
        NotFoundError (kind "no-such-lake").
    """
    root = root.resolve()
    store: Store = open_sqlite(root / CATALOG) if database is None else open_postgres(database)
    return Repository(root, store, Objects(root / "objects", store), Nodes(store), clock)


@dataclass(frozen=True, slots=True)
class Home:
    """Which lake this is, and where it belongs."""

    id: str
    root: str


def home_of(tx: Transaction) -> Home:
    rows = {str(name): str(value) for name, value in tx.rows("select name, value from lake")}
    return Home(rows.get("id", ""), rows.get("root", ""))


def move_home(tx: Transaction, root: Path, act: str, at: datetime) -> Home:
    """Makes a lake at home in `root`, and keeps a record of it; "copied" gives it a new id."""
    before = home_of(tx)
    after = Home(uuid.uuid4().hex if act == "copied" else before.id, str(root.resolve()))
    row = tx.row("select coalesce(max(number), 0) + 1 from relocations")
    tx.execute(
        "insert into relocations "
        "(number, at, act, before_root, after_root, before_id, after_id) "
        "values (?, ?, ?, ?, ?, ?, ?)",
        (
            int(row[0]) if row else 1,
            to_microseconds(at),
            act,
            before.root,
            after.root,
            before.id,
            after.id,
        ),
    )
    tx.execute("update lake set value = ? where name = 'root'", (after.root,))
    tx.execute("update lake set value = ? where name = 'id'", (after.id,))
    return after
