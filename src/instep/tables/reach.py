"""Which files the states of a table need: what a collection must leave alone.

Metadata names snapshots, a snapshot its listing, a listing its manifests, a manifest its data
files; whatever a needed file names is needed. Each file is read once, however many states share it.
Only names are kept in memory, those of one table at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from instep.canonical import JsonObject
from instep.history.repository import Repository
from instep.history.store import Transaction
from instep.tables.content import TYPE as TYPE
from instep.tables.content import TableContent
from instep.tables.copies import load_base, load_json
from instep.tables.iceberg import Metadata
from instep.tables.manifest import Manifest
from instep.tables.names import names_in
from instep.tables.read import LISTING, LISTING_DIGEST, load_listing, located, replacement_path
from instep.tables.replaced import Decision, decided, forget_decided, is_due

RESERVED = "metadata/column-*"
"""Field ids that are taken: needed as long as the table has a state."""

_RECORD = re.compile(r"tables/(?P<uuid>[^/]+)/replacements/(?P<digest>[^/]+)\.json")


def folder_of(content: JsonObject) -> str | None:
    """Returns the folder in `tables/` of a table's content, None for other content."""
    return str(content["uuid"]) if content.get("type") == TYPE else None


def files_of(repo: Repository, folder: str, contents: Sequence[JsonObject]) -> frozenset[str]:
    """Returns the paths, below the table's folder, of every file that one of its states needs.

    Raises:
        NotFoundError (kind "no-such-object"), InternalError (kind "damaged-object"): a file that
            names others cannot be read.
    """
    root = repo.root
    metadata = root / "tables" / folder / "metadata"
    names = {RESERVED}
    listings: dict[str, str] = {}
    decisions = decided(repo, folder)
    for content in contents:
        for state in _states(repo, TableContent.from_content(content), decisions, names):
            names.add(f"metadata/{(metadata / state.metadata).name}")
            for snapshot in _snapshots(root, state):
                names.add(f"metadata/{PurePosixPath(snapshot['manifest-list']).name}")
                listings.update(_listing_of(snapshot))
    manifests: dict[str, Manifest] = {}
    for name, digest in listings.items():
        names.add(f"metadata/{name}")
        for one in load_listing(metadata / name, digest):
            names.add(f"metadata/{one.path}")
            names.add(f"metadata/{one.entries}")
            if one.live_files:
                manifests[one.entries] = one
    return frozenset(names.union(*names_in(root, folder, manifests.values())))


def recorded_in(repo: Repository, folder: str) -> frozenset[str]:
    """Returns the paths, below the table's folder, of the records that were ever decided upon."""
    return frozenset(f"replacements/{digest}.json" for digest in decided(repo, folder))


def drop_rows(tx: Transaction, paths: Iterable[str]) -> None:
    """Removes what was decided of states whose records, among other files, are at these paths."""
    states = (_RECORD.fullmatch(path) for path in paths)
    forget_decided(tx, [(found["uuid"], found["digest"]) for found in states if found])


def added_files(root: Path, before: TableContent | None, after: TableContent) -> frozenset[str]:
    """Returns the files, below the table's folder, that a state lists and one before it does not.

    These are data files, manifests, and the manifest lists of snapshots, not what Instep writes
    beside them. Only the listings and manifests that one of the two has alone are read: nothing,
    where the snapshots are the same.

    Raises: as `files_of`.
    """
    old, new = (_by_listing(root, one) if one else {} for one in (before, after))
    if new.keys() <= old.keys():
        return frozenset()
    folder = root / "tables" / after.uuid
    were, are = (_manifests(folder / "metadata", one.values()) for one in (old, new))
    had = _listed(folder, (were[name] for name in were.keys() - are.keys()))
    added = [are[name] for name in are.keys() - were.keys()]
    lists = (new[name]["manifest-list"] for name in new.keys() - old.keys())
    return (_listed(folder, added) - had).union(
        (f"metadata/{one.path}" for one in added),
        (f"metadata/{PurePosixPath(address).name}" for address in lists),
    )


def _by_listing(root: Path, table: TableContent) -> Mapping[str, Metadata]:
    """Returns the snapshots that a state has, by the names of their listings."""
    return {one["summary"][LISTING]: one for one in _snapshots(root, located(root, table))}


def _snapshots(root: Path, state: TableContent) -> Sequence[Metadata]:
    metadata: Metadata = load_json(root / state.metadata, state.digest)
    found: Sequence[Metadata] = metadata["snapshots"]
    return found


def _listing_of(snapshot: Metadata) -> Mapping[str, str]:
    summary = snapshot["summary"]
    return {summary[LISTING]: summary[LISTING_DIGEST]}


def _manifests(place: Path, snapshots: Iterable[Metadata]) -> Mapping[str, Manifest]:
    return {
        one.entries: one
        for snapshot in snapshots
        for name, digest in _listing_of(snapshot).items()
        for one in load_listing(place / name, digest)
    }


def _listed(folder: Path, manifests: Iterable[Manifest]) -> frozenset[str]:
    return frozenset(f"data/{name}" for one in manifests for name in load_base(folder, one).names)


def _states(
    repo: Repository, table: TableContent, decisions: Mapping[str, Decision], names: set[str]
) -> Iterator[TableContent]:
    """Yields what stands for a state now, and what shall: what stood before is needed no more."""
    now = located(repo.root, table)
    last = decisions.get(table.digest)
    if now != table or last:
        names.add(f"replacements/{replacement_path(repo.root, table).name}")
    yield now
    if last and is_due(repo.root, now, last):
        yield replace(table, metadata=last.metadata, digest=last.digest)
