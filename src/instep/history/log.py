"""What happened, latest first: the moves of a ref, or the commits behind one, with filters.

A ref's own log is its operations, also when the ref is gone; a commit has no log of moves, so there
it is the commits along first parents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from instep.clock import parse_instant
from instep.history import tree
from instep.history.commits import Commit, find_commit, first_parents, load_commit
from instep.history.operations import Operation, Wanted, last_operation, latest_operations
from instep.history.refs import find_ref, resolve
from instep.history.repository import Repository
from instep.history.store import Transaction

_INSTANT = timedelta(microseconds=1)
_LOOKED_BACK = 1_000_000
"""How many commits are looked through; nobody waits for more."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One move of a ref with the commit it led to, or one commit on the way of another.

    The commit is None where the ref went, and where garbage collection forgot it since.
    """

    operation: Operation | None
    commit: Commit | None


@dataclass(frozen=True, slots=True)
class Filter:
    """What is asked for: `since` included, `until` not; None is anything.

    `key` is a key that the entry changed, `run` the beginning of the id of a run that made it or
    whose work it brought in.
    """

    key: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    run: str | None = None


def entries(tx: Transaction, repo: Repository, text: str, wanted: Filter) -> Iterator[Entry]:
    """Yields what happened to what `text` names, latest first.

    Raises:
        NotFoundError (kind "no-such-ref").
    """
    name, _, instant = text.partition("@")
    if find_ref(tx, name) is None and last_operation(tx, name) is None:
        found = _commits(tx, resolve(tx, text), wanted)
    else:
        until = _after(parse_instant(instant)) if instant else None
        found = _operations(tx, name, until, wanted)
    for entry in found:
        if _is_wanted(tx, repo, entry, wanted):
            yield entry


def _after(at: datetime) -> datetime | None:
    """Returns the next instant; None after the last there is."""
    return at + _INSTANT if at < datetime.max.replace(tzinfo=UTC) else None


def _operations(
    tx: Transaction, ref: str, until: datetime | None, wanted: Filter
) -> Iterator[Entry]:
    ends = [one for one in (until, wanted.until) if one is not None]
    asked = Wanted(wanted.actor, wanted.since, min(ends, default=None))
    for operation in latest_operations(tx, ref, asked):
        yield Entry(operation, find_commit(tx, operation.after) if operation.after else None)


def _commits(tx: Transaction, start: str, wanted: Filter) -> Iterator[Entry]:
    for commit in first_parents(tx, start, _LOOKED_BACK):
        if (
            wanted.actor in (None, commit.author)
            and (wanted.since is None or commit.at >= wanted.since)
            and (wanted.until is None or commit.at < wanted.until)
        ):
            yield Entry(None, commit)


def _is_wanted(tx: Transaction, repo: Repository, entry: Entry, wanted: Filter) -> bool:
    if wanted.run is not None and not _comes_from(tx, entry, wanted.run):
        return False
    return wanted.key is None or _changes(tx, repo, entry, wanted.key)


def _comes_from(tx: Transaction, entry: Entry, run: str) -> bool:
    if entry.commit is None:
        return False
    prefix = run if run.startswith("run_") else f"run_{run}"
    if prefix == "run_":
        return False  # every run begins so: none is named
    brought = [load_commit(tx, parent) for parent in entry.commit.parents[1:]]
    return any(one.origin.startswith(prefix) for one in (entry.commit, *brought))


def _changes(tx: Transaction, repo: Repository, entry: Entry, key: str) -> bool:
    if entry.operation is not None:
        before, after = entry.operation.before, entry.operation.after
    else:
        assert entry.commit is not None, "an entry has an operation or a commit"
        before = entry.commit.parents[0] if entry.commit.parents else None
        after = entry.commit.id
    sides = [find_commit(tx, one) if one else None for one in (before, after)]
    if [side is None for side in sides] != [not one for one in (before, after)]:
        return False  # a side was forgotten: nobody can tell
    old, new = (tree.find(repo.nodes, one.tree, key) if one else None for one in sides)
    return old != new
