"""What was made from a key that is about to be set back, and would not follow by itself.

A table or model of a run is stale when the content that its run read is not the one there would be,
or when what it read is stale itself. Who read what is taken from the records of runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from instep.canonical import Json, JsonObject
from instep.history import tree
from instep.history.commits import load_commit
from instep.history.repository import Repository
from instep.history.store import Transaction
from instep.pipelines.records import Run, find_past, load_run

_MADE = ("table", "model")
"""Kinds of keys that runs make."""


@dataclass(frozen=True, slots=True)
class Stale:
    """A key that a run made, and the keys it read that would not be there any more."""

    key: str
    run: str
    pipeline: str
    read: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        return {
            "key": self.key,
            "run": self.run,
            "pipeline": self.pipeline,
            "read": list(self.read),
        }

    def __str__(self) -> str:
        return f"{self.key} was made from {', '.join(self.read)} by {self.run} ({self.pipeline})"


@dataclass(frozen=True, slots=True)
class _Made:
    run: Run
    reads: frozenset[str]


def stale_after(
    tx: Transaction,
    repo: Repository,
    commit: str,
    changes: Mapping[str, JsonObject | None],
) -> tuple[Stale, ...]:
    """Returns what of `commit` would be stale after `changes`, by key; reads only records."""
    root = load_commit(tx, commit).tree
    held = {
        key: content
        for kind in _MADE
        for key, content in {**tree.entries(repo.nodes, root, kind), **changes}.items()
        if content is not None
    }
    makers = {key: made for key in sorted(held) if (made := _made(tx, key, held[key]))}
    stale: dict[str, Stale] = {}
    while True:
        found = [
            Stale(key, made.run.id, made.run.pipeline, reads)
            for key, made in makers.items()
            if key not in stale and (reads := _outdated(tx, repo, made, changes, frozenset(stale)))
        ]
        if not found:
            return tuple(stale[key] for key in sorted(stale))
        stale.update((one.key, one) for one in found)


def _outdated(
    tx: Transaction,
    repo: Repository,
    made: _Made,
    changes: Mapping[str, JsonObject | None],
    stale: frozenset[str],
) -> tuple[str, ...]:
    """Returns the keys that a run read with another content than there will be, by key."""
    changed = made.reads & changes.keys()
    outdated = {key for key in changed if content_read(tx, repo, made.run, key) != changes[key]}
    return tuple(sorted(outdated | made.reads & stale))


def _made(tx: Transaction, key: str, content: JsonObject) -> _Made | None:
    past = find_past(tx, key, content)
    if past is None:
        return None
    tables = {str(each["table"]) for piece in past.pieces for each in piece.inputs}
    return _Made(load_run(tx, past.run), frozenset(f"table/{table}" for table in tables))


def content_read(tx: Transaction, repo: Repository, run: Run, key: str) -> JsonObject | None:
    """Returns the content of a table as a run read it: its own, or that of its input commit."""
    own = run.outputs.get(key)
    if own is not None:
        return own
    return tree.find(repo.nodes, load_commit(tx, run.input_commit).tree, key)
