"""Does a file of a table still have the bytes that were written? What is remembered of the answer.

A disk may change a bit and say nothing. So a file is hashed when it is first read on a machine, and
again before anything is written from it. What was found right is remembered in the lake's `cache/`,
for each table, by the file's path, inode, size, times of change and digest: sixteen bytes that no
other file gives.
So a memory that is damaged or lost costs time, and is never believed wrongly.
Of a lake on S3 the copies on this machine are what is read, and what is checked.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from instep.errors import InternalError
from instep.faults import reached
from instep.history.places import here, on_s3

_MARK_BYTES = 16
_MOST_BYTES = 16 << 20
"""From this size on, a million files, a table's memory is begun anew: it has those that went."""

_HASHED_AT_ONCE = 4
"""Files hashed at the same time, by as many threads."""

_TABLE_FILE = re.compile(r"(.*)/(tables/([0-9a-f-]{36})/.*)", re.DOTALL)
"""A file of a table: the lake's folder on this machine, the file's path in the lake, the table."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file as it was written: `path` on this machine, and the SHA-256 that it had.

    `link` is where it is read instead, of a copy of a file on S3, which others link to as well.
    """

    path: Path
    digest: str
    link: Path | None = None

    def mark(self, found: os.stat_result) -> bytes:
        """Returns what is remembered of the file, if it is right."""
        # A link to a copy changes that copy's ctime, and no byte.
        changed_ns = 0 if self.link else found.st_ctime_ns
        times = f"{found.st_mtime_ns}\0{changed_ns}"
        text = f"{self.path}\0{found.st_ino}\0{found.st_size}\0{times}\0{self.digest}"
        return hashlib.blake2b(
            text.encode(errors="surrogateescape"), digest_size=_MARK_BYTES
        ).digest()


def written(path: Path, digest: str, link: Path | None = None) -> Written:
    """Returns a file of a lake as it was written; one on S3 is its copy, read through `link`."""
    if on_s3(path) is None:
        return Written(path, digest)
    return Written(here(path), digest, link or here(path))


def differing(files: Sequence[Written], *, again: bool = False) -> list[Written]:
    """Returns those files whose bytes are not those that were written.

    Reads files that this machine has not read yet, or which changed since; all of them `again`. One
    that is not there is none of them: whoever reads it says so.
    """
    unread = list(files) if again else _unread(files)
    if len(unread) < 2:
        found = list(map(_checked, unread))  # a thread would take longer than a small file
    else:
        with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
            found = list(pool.map(_checked, unread))
    right = [(one, mark) for one, mark in zip(unread, found, strict=True) if mark]
    _remember((one.path, mark) for one, mark in right)
    return [one for one, mark in zip(unread, found, strict=True) if mark == b""]


def remember_written(files: Iterable[Written]) -> None:
    """Remembers files that were hashed just before they got their names."""
    marks = []
    for one in files:
        with suppress(OSError):  # of a file on S3 this machine may have no copy
            marks.append((one.path, one.mark(one.path.stat())))
    _remember(marks)


def other_bytes(path: Path, digest: str) -> InternalError:
    """Returns the error that names a file of a table which has other bytes than were written."""
    found = _TABLE_FILE.fullmatch(str(path))
    name = found[2] if found else str(path)
    return InternalError(
        f"Table file {name} has other bytes than when it was written: expected digest {digest}. "
        'Nothing was changed. Restore the file from a backup; "instep doctor" says which table and '
        "commit need it, and whether more is damaged.",
        kind="damaged-object",
        digest=digest,
        path=name,
    )


def _unread(files: Sequence[Written]) -> list[Written]:
    unread = []
    known: dict[Path | None, set[bytes]] = {}
    for one in files:
        place = _place(one.path)
        if place not in known:
            known[place] = _memory(place).marks() if place else set()
        with suppress(FileNotFoundError):
            if one.mark((one.link or one.path).stat()) not in known[place]:
                unread.append(one)
    return unread


def _checked(file: Written) -> bytes | None:
    """Returns the mark of a file that is right, nothing if it is not, None if it is not there."""
    reached("file.check")
    try:
        with (file.link or file.path).open("rb", buffering=0) as opened:
            found = os.fstat(opened.fileno())  # before it is read: what changes it now is noticed
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    return file.mark(found) if digest == file.digest else b""


def _remember(marks: Iterable[tuple[Path, bytes]]) -> None:
    by_place: dict[Path, list[bytes]] = {}
    for path, mark in marks:
        place = _place(path)
        if place is not None:
            by_place.setdefault(place, []).append(mark)
    for place, new in by_place.items():
        _memory(place).add(new)


def _place(path: Path) -> Path | None:
    """Returns where the files of a file's table are remembered; None for a file of no lake."""
    found = _TABLE_FILE.fullmatch(str(path))
    return Path(found[1], "cache", "checked", found[3]) if found else None


@dataclass(slots=True)
class _Memory:
    """Marks of files, one after another in a file that several processes may add to at once."""

    path: Path
    inode: int = 0
    read: int = 0
    known: set[bytes] = field(default_factory=set)
    lock: Lock = field(default_factory=Lock)

    def marks(self) -> set[bytes]:
        """Returns what is remembered, that of other processes too."""
        with self.lock, suppress(OSError):
            self._load()
        return self.known

    def add(self, marks: Sequence[bytes]) -> None:
        """Adds marks; where they cannot be written, this process alone knows them."""
        with self.lock, suppress(OSError):
            new = [one for one in dict.fromkeys(marks) if one not in self.known]
            if not new:
                return
            self.known.update(new)
            if not self.inode:
                self._load()
                self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(file, b"".join(new))
            finally:
                os.close(file)

    def _load(self) -> None:
        try:
            found = self.path.stat()
        except OSError:
            if self.inode:
                self._forget(0)
            return
        if found.st_size % _MARK_BYTES or found.st_size > _MOST_BYTES:
            self._forget(0)
            self.path.unlink(missing_ok=True)
            return
        if found.st_ino != self.inode or found.st_size < self.read:
            self._forget(found.st_ino)
        if found.st_size > self.read:
            with self.path.open("rb") as file:
                file.seek(self.read)
                data = file.read(found.st_size - self.read)
            starts = range(0, len(data), _MARK_BYTES)
            self.known.update(data[start : start + _MARK_BYTES] for start in starts)
            self.read += len(data)

    def _forget(self, inode: int) -> None:
        self.inode, self.read = inode, 0
        self.known.clear()


_memories: dict[Path, _Memory] = {}


def _memory(place: Path) -> _Memory:
    return _memories.setdefault(place, _Memory(place))
