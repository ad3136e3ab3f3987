"""How the project folder differs from a commit: by the digests of files, without reading YAML.

The disk is a draft, the lake is the truth. A file that a draft newly needs shows only once the file
that names it has changed, so comparing what the lake knows with what is on disk misses nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from instep.canonical import Json, JsonObject
from instep.history.repository import Repository
from instep.pipelines.project import FILE, KEY

_FOLDERS = {"contract": "contracts", "pipeline": "pipelines"}


class DraftState(StrEnum):
    """How the draft of a key stands to a commit."""

    NEW = "new"
    CHANGED = "changed"
    MISSING = "only in the lake"


@dataclass(frozen=True, slots=True)
class DraftDifference:
    """A key whose draft on disk is not what a commit holds; `files` are those that differ."""

    key: str
    state: DraftState
    files: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        return {"key": self.key, "state": self.state.value, "files": list(self.files)}


def draft_differences(folder: Path, repo: Repository, commit: str) -> tuple[DraftDifference, ...]:
    """Returns what differs between the project on disk and a commit, by key."""
    kept: dict[str, JsonObject] = {}
    for kind in ("config", "contract", "pipeline"):
        kept.update(repo.entries(commit, kind))
    found = []
    for key in sorted(kept.keys() | _draft_keys(folder)):
        difference = _difference(folder, key, kept.get(key))
        if difference is not None:
            found.append(difference)
    return tuple(found)


def _difference(folder: Path, key: str, content: JsonObject | None) -> DraftDifference | None:
    document = _document(key)
    if content is None:
        return DraftDifference(key, DraftState.NEW, (document,))
    if not (folder / document).is_file():
        return DraftDifference(key, DraftState.MISSING, (document,))
    changed = tuple(
        path
        for path, digest in _files(document, content).items()
        if _digest(folder / path) != digest
    )
    return DraftDifference(key, DraftState.CHANGED, changed) if changed else None


def _draft_keys(folder: Path) -> set[str]:
    found = {KEY} if (folder / FILE).is_file() else set()
    for kind, place in _FOLDERS.items():
        found.update(f"{kind}/{path.stem}" for path in (folder / place).glob("*.yaml"))
    return found


def _document(key: str) -> str:
    kind, _, name = key.partition("/")
    return FILE if key == KEY else f"{_FOLDERS[kind]}/{name}.yaml"


def _files(document: str, content: JsonObject) -> dict[str, str]:
    files = content.get("files")
    if isinstance(files, Mapping):
        return {str(path): str(digest) for path, digest in files.items()}
    return {document: str(content["blob"])}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
