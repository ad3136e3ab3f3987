"""What a client may read: one commit, found by the name of a ref, `ref@instant`, or its own id."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from instep.errors import ConflictError, NotFoundError, RefusedError
from instep.history.refs import Ref, RefKind, find_ref, refuse_protected, resolve
from instep.history.repository import Repository
from instep.tables.content import TableContent
from instep.tables.copies import load_json
from instep.tables.field_ids import last_taken
from instep.tables.iceberg import Metadata
from instep.tables.read import located, table_folder

NAMESPACE = "default"
"""The one namespace: a lake's tables have names without parts."""

PAGE = 1000
"""How many tables one page of a listing has, unless fewer are wanted."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a prefix names: a commit, and the ref that is at it now, if it was named by one."""

    name: str
    commit: str
    ref: Ref | None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A state as a client is given it; `location` is the path of its metadata file."""

    location: str
    metadata: Metadata


def find_place(repo: Repository, name: str) -> Place:
    """Returns what `name` is now.

    Raises:
        NotFoundError (kind "no-such-ref"), InvalidError (kind "ambiguous-commit").
    """
    with repo.store.reading() as tx:
        ref = find_ref(tx, name)
        return Place(name, ref.commit if ref else resolve(tx, name), ref)


def writable(place: Place) -> Ref:
    """Returns the branch that a place is, if it may be written to.

    Raises:
        RefusedError (kind "protected-branch", "read-only-place"): with the way there is.
    """
    ref = place.ref
    if ref is not None:
        refuse_protected(ref)
        if ref.kind is RefKind.BRANCH:
            return ref
    kind = ref.kind.value if ref else "commit"
    raise RefusedError(
        f'"{place.name}" is a {kind}, which never changes: expected a branch. Make one with '
        f'"instep branch make NAME --at {place.name}", write there, then "instep propose" it.',
        kind="read-only-place",
        ref=place.name,
    )


def check_namespace(parts: tuple[str, ...]) -> None:
    """Holds that a namespace is the one there is.

    Raises:
        NotFoundError (kind "no-such-namespace").
    """
    if parts != (NAMESPACE,):
        raise NotFoundError(
            f'Namespace "{".".join(parts)}" does not exist: expected "{NAMESPACE}", the only one. '
            f"Name tables as {NAMESPACE}.NAME.",
            kind="no-such-namespace",
            namespace=".".join(parts),
        )


def table_key(name: str) -> str:
    return f"table/{name}"


def find_table(repo: Repository, commit: str, name: str) -> TableContent | None:
    """Returns a table's state in a commit, or None."""
    found = repo.find(commit, table_key(name))
    return TableContent.from_content(found) if found else None


def get_table(repo: Repository, place: Place, name: str) -> TableContent:
    """Returns a table's state.

    Raises:
        NotFoundError (kind "no-such-key").
    """
    found = find_table(repo, place.commit, name)
    if found is None:
        raise missing_table(place, f"{NAMESPACE}.{name}")
    return found


def missing_table(place: Place, name: str) -> NotFoundError:
    """Returns what is said where a table is not there; `name` is with its namespace."""
    return NotFoundError(
        f'Table "{name}" is not in "{place.name}" at {place.commit[:12]}: expected one that the '
        f"listing of {NAMESPACE} names. Correct the name, or use another branch.",
        kind="no-such-key",
        key=name,
    )


def refuse_taken(place: Place, name: str) -> ConflictError:
    """Returns what is said where a new table's name is another's."""
    return ConflictError(
        f'Table "{NAMESPACE}.{name}" is in "{place.name}" already: expected a new name. Choose '
        "another, or write to the table there is.",
        kind="table-exists",
        key=table_key(name),
    )


def list_tables(repo: Repository, place: Place) -> list[str]:
    """Returns the names of a commit's tables, sorted."""
    return sorted(key.partition("/")[2] for key in repo.entries(place.commit, "table"))


def page(names: list[str], after: str, size: int) -> tuple[list[str], str | None]:
    """Returns the names behind `after`, at most `size`, and where the next page goes on, if any.

    A page begins behind a name, not at a number, so that none is left out when others come and go.
    """
    left = [name for name in names if name > after]
    return left[:size], left[size - 1] if len(left) > size else None


def load_state(repo: Repository, content: TableContent, *, for_writing: bool) -> Loaded:
    """Returns a state's metadata, as no client may delete files by it.

    A writer is told the last field id that any branch has taken, so that it goes on from there.
    """
    now = located(repo.root, content)  # asked once: another may stand for the state meanwhile
    path = repo.root.resolve() / now.metadata
    metadata = kept_from_deletion(load_json(path, now.digest))
    if for_writing:
        last = last_taken(table_folder(repo.root, content), metadata["last-column-id"])
        if last != metadata["last-column-id"]:
            metadata = {**metadata, "last-column-id": last}
    return Loaded(str(path), metadata)


def kept_from_deletion(metadata: Metadata) -> Metadata:
    """Returns metadata by which no engine deletes files when it expires snapshots, or purges.

    Engines do that themselves, and other commits need the files. This property forbids it to all.
    """
    return {**metadata, "properties": {**metadata["properties"], "gc.enabled": "false"}}


def with_refs_only(metadata: Metadata) -> Metadata:
    """Returns metadata without the snapshots that no ref inside it is at."""
    kept = {ref["snapshot-id"] for ref in metadata["refs"].values()}
    snapshots = [one for one in metadata["snapshots"] if one["snapshot-id"] in kept]
    return {**metadata, "snapshots": snapshots}


def state_tag(content: TableContent, loaded: Loaded, snapshots: str) -> str:
    """Returns the entity tag of an answer: another one where any byte of it may differ."""
    last = loaded.metadata["last-column-id"]
    # A compaction or an erasure puts other metadata, at another place, behind the same digest.
    place = hashlib.sha256(loaded.location.encode()).hexdigest()
    return json.dumps(f"{content.digest[:32]}-{place[:16]}-{last}-{snapshots}")
