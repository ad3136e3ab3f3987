"""The folders of work under way on this machine, as a collection judges and removes them.

They are on this machine even where the lake's files are on S3. Then their names in the catalog
begin with the machine's own, since others have folders that this one knows nothing of.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from instep.history.objects import write_durably
from instep.history.places import on_s3
from instep.history.repository import Repository
from instep.history.retention import Found

_GONE = ".gone-"
"""Begins the name of a folder whose deletion is decided."""


def staging_prefix(repo: Repository, *, is_dry: bool) -> str:
    """Returns what the names of this machine's folders begin with; a dry act makes no name."""
    if not on_s3(repo.root):
        return "staging/"
    path = repo.here / "machine.id"
    if not path.exists() and not is_dry:
        write_durably(path, uuid.uuid4().hex.encode())
    return f"staging/{path.read_text() if path.exists() else 'this'}/"


def staged(repo: Repository, prefix: str, under_way: Collection[str]) -> tuple[int, list[Found]]:
    """Returns how many folders are at work, and the others."""
    folder = repo.here / "staging"
    entries = sorted(os.scandir(folder), key=lambda e: e.name) if folder.is_dir() else []
    kept = [entry for entry in entries if not entry.name.startswith(_GONE)]
    # A folder's time moves while somebody works in it; its number does not.
    found = [
        Found(f"{prefix}{entry.name}", str(entry.inode()), _size_of(Path(entry.path)))
        for entry in kept
        if entry.name not in under_way
    ]
    return len(kept) - len(found), found


def remove_staged(repo: Repository, name: str) -> None:
    """Takes away a folder's name, for others wait; what was in it may be large, and goes later."""
    path = repo.here / "staging" / name.rpartition("/")[2]
    if path.is_dir():
        path.rename(path.with_name(f"{_GONE}{uuid.uuid4().hex}"))
    else:
        path.unlink(missing_ok=True)


def clear_gone(repo: Repository) -> None:
    """Deletes folders that lost their name, now or in a collection that was killed."""
    for path in (repo.here / "staging").glob(f"{_GONE}*"):
        shutil.rmtree(path, ignore_errors=True)


def _size_of(folder: Path) -> int:
    """Returns the bytes of a folder's files, also while somebody works in it."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += os.lstat(Path(parent, name)).st_size
    return size
