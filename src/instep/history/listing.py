"""What files there are below a folder, with what tells each from another under the same name.

A folder on S3 is listed with one request for a thousand files, and then all of that is known; of
one on this machine only names are, and each file is looked at when it is asked about. Not here:
which of them are needed (`naming`, `retention`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from instep.history.places import here, on_s3
from instep.history.s3 import Stat


class Entry(Protocol):
    """A file as `os.scandir` gives it."""

    @property
    def name(self) -> str: ...

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result | Stat:
        """Raises FileNotFoundError: it is gone."""
        ...


@dataclass(frozen=True, slots=True)
class _Listed:
    """As `Entry`, of an object."""

    name: str
    known: Stat

    def stat(self, *, follow_symlinks: bool = True) -> Stat:
        return self.known


def folders_in(folder: Path) -> list[str]:
    """Returns the names of the folders directly in one; none where it is not there."""
    remote = on_s3(folder)
    if remote is not None:
        return sorted(path.name for path in remote.folders())
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path.name for path in found if path.is_dir())


def files_in(folder: Path) -> Iterator[Entry]:
    """Yields the files directly in a folder; none where it is not there."""
    remote = on_s3(folder)
    if remote is not None:
        for path, stat in remote.objects("/"):
            yield _Listed(path.name, stat)
    elif folder.is_dir():
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.is_dir(follow_symlinks=False))


def files_below(folder: Path) -> Iterator[tuple[str, Entry]]:
    """Yields the files below a folder, each with the path from there to its own: "" or "data/"."""
    remote = on_s3(folder)
    if remote is not None:
        for path, stat in remote.objects():
            above = path.relative_to(remote).parent.as_posix()
            yield "" if above == "." else f"{above}/", _Listed(path.name, stat)
        return
    waiting = [""] if folder.is_dir() else []
    while waiting:
        below = waiting.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{below}{entry.name}/")
                else:
                    yield below, entry


def mark_of(stat: os.stat_result | Stat) -> str:
    """Returns what changes whenever somebody makes the file again, or marks it as wanted."""
    if isinstance(stat, Stat):
        return stat.mark
    return f"{stat.st_ino}:{stat.st_mtime_ns}:{stat.st_size}"


def copies_below(folder: Path) -> frozenset[str]:
    """Returns which files below a folder on S3 this machine has copies of."""
    copies = here(folder)
    if not on_s3(folder) or not copies.is_dir():
        return frozenset()
    found = (path for path in copies.rglob("*") if not path.name.startswith("."))
    return frozenset(path.relative_to(copies).as_posix() for path in found if path.is_file())
