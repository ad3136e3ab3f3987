"""What a machine does to a lake: acts as values, and carrying one out through the real rooms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from instep.canonical import JsonObject
from instep.changes.revert import undo_on_branch
from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column
from instep.errors import InstepError
from instep.history.ancestry import merge_base
from instep.history.collection import collect
from instep.history.edits import Edit, commit_edit
from instep.history.erasure import erase
from instep.history.locks import writing
from instep.history.merge import merge
from instep.history.refs import RefKind, create_ref, delete_ref, protect_ref, rename_ref
from instep.history.repository import Repository
from instep.history.retention import Policy
from instep.lake import retention_of
from instep.tables.content import TableContent
from instep.tables.read import schema_of
from instep.tables.write import append, create_table, data_folder

AUTHOR = "ana"
CONTRACT = "instep.contract.v1"
_COLUMNS = (Column(0, "n", "long"),)


@dataclass(frozen=True, slots=True)
class Blob:
    """What a key that holds one object points to."""

    text: str


@dataclass(frozen=True, slots=True)
class Append:
    """Rows for a table, or for a new one; `state` tells the result from every other state."""

    numbers: tuple[int, ...]
    state: int


@dataclass(frozen=True, slots=True)
class Write:
    """An edit on top of commit `base`; None removes a key."""

    ref: str
    base: str
    changes: Mapping[str, Blob | Append | None]
    reads: frozenset[str] = frozenset()
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Merge:
    """Brings commit `theirs` to `ref`, which is at `ours`; `base` is their common ancestor."""

    ref: str
    ours: str
    theirs: str
    base: str


@dataclass(frozen=True, slots=True)
class Undo:
    ref: str
    commit: str


@dataclass(frozen=True, slots=True)
class Create:
    name: str
    kind: RefKind
    commit: str


@dataclass(frozen=True, slots=True)
class Rename:
    name: str
    new: str


@dataclass(frozen=True, slots=True)
class Delete:
    name: str


@dataclass(frozen=True, slots=True)
class Protect:
    name: str
    is_protected: bool


@dataclass(frozen=True, slots=True)
class Collect:
    keep_days: int


@dataclass(frozen=True, slots=True)
class Erase:
    digest: str


Act = Write | Merge | Undo | Create | Rename | Delete | Protect | Collect | Erase


@dataclass(frozen=True, slots=True)
class Done:
    """The act was done; `commit` is what it made, where it made one."""

    commit: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The act was refused, by the kind of the error; a conflict names keys."""

    kind: str
    keys: tuple[str, ...] = ()
    message: str = field(default="", compare=False)


Answer = Done | Refused


def perform(repo: Repository, act: Act) -> Answer:
    """Carries out one act on a lake and returns its answer; errors that are none of ours rise."""
    try:
        return _performed(repo, act)
    except InstepError as error:
        keys = error.facts.get("keys", ())
        return Refused(error.kind, keys if isinstance(keys, tuple) else (), error.message)


def _performed(repo: Repository, act: Act) -> Answer:
    match act:
        case Write():
            return _write(repo, act)
        case Merge():
            return _merge(repo, act)
        case Undo(ref, commit):
            undone = undo_on_branch(repo, ref, commit, (), author=AUTHOR, why="").commit
            assert undone is not None, "an undo on a branch is a commit"
            return Done(undone.id)
        case Collect(keep_days):
            collect(repo, retention_of(repo), Policy(keep_days, keep_days))
            return Done()
        case Erase(digest):
            erase(repo, digest, AUTHOR, "Asked for.", retention_of(repo).reach.objects)
            return Done()
        case _:
            return _on_ref(repo, act)


def _on_ref(repo: Repository, act: Create | Rename | Delete | Protect) -> Done:
    at = repo.clock()
    with repo.store.transaction() as tx:
        match act:
            case Create(name, kind, commit):
                create_ref(tx, name, kind, commit, owner=AUTHOR, at=at)
            case Rename(name, new):
                rename_ref(tx, name, new, actor=AUTHOR, at=at)
            case Delete(name):
                delete_ref(tx, name, actor=AUTHOR, at=at)
            case Protect(name, is_protected):
                protect_ref(tx, name, is_protected, actor=AUTHOR, at=at)
    return Done()


def _write(repo: Repository, act: Write) -> Done:
    with writing(repo.root, repo.store):
        changes = {
            key: None if change is None else _stored(repo, act.base, key, change)
            for key, change in sorted(act.changes.items())
        }
        edit = Edit(act.base, changes, AUTHOR, "Something new", "test", act.reads)
        return Done(commit_edit(repo, act.ref, edit, token=act.token).id)


def _stored(repo: Repository, base: str, key: str, change: Blob | Append) -> JsonObject:
    if isinstance(change, Blob):
        return {"type": CONTRACT, "blob": repo.objects.put(change.text.encode())}
    known = repo.find(base, key)
    name = key.partition("/")[2]
    table = (
        create_table(repo.root, name, _COLUMNS, at=repo.clock())
        if known is None
        else TableContent.from_content(known)
    )
    rows = ", ".join(f"({number})" for number in change.numbers)
    with DuckDB(repo.root / "staging") as engine:
        files = engine.write(
            f"SELECT n::BIGINT AS n FROM (VALUES {rows}) v(n)",
            schema_of(repo.root, table),
            data_folder(repo.root, table),
        )
    return append(repo.root, table, files, at=repo.clock()).to_content()


def _merge(repo: Repository, act: Merge) -> Answer:
    with writing(repo.root, repo.store):
        with repo.store.reading() as tx:
            assert merge_base(tx, act.ours, act.theirs) == act.base, "it was another before"
        ours, theirs = repo.diff(act.base, act.ours), repo.diff(act.base, act.theirs)
        merged = merge(ours, theirs)
        if merged.conflicts:
            return Refused("merge-conflict", tuple(one.key for one in merged.conflicts))
        edit = Edit(
            act.ours, merged.changes, AUTHOR, "A merge", "test", merged=(act.theirs,)
        )  # fmt: skip
        return Done(commit_edit(repo, act.ref, edit).id)
