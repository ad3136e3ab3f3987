"""What of a lake is on this machine: working folders always, its files unless they are on S3.

A lake's root, and every path below it, is a `Path` of this machine or an `S3Path`, which walks like
one. To a lake on S3 belongs a folder on this machine too: for staging, locks, caches and logs, and
for copies of files that were read or written here. Files never change, so a copy is always right;
copies that nobody uses are dropped, oldest first, when they are more than `KEPT_BYTES`.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from instep.errors import NotFoundError, UnavailableError
from instep.history.s3 import Bucket, S3Path

KEPT_BYTES = 20 << 30
"""The most that copies take on this machine before some are dropped."""

_LOOK_BYTES = 1 << 30
"""After how many bytes brought here copies are counted again."""

_TRIES = 5
"""How often a file is brought before a link holds it: a copy may be dropped between the two."""

_COPIED = ("objects", "tables")
"""The folders of a lake whose files never change."""

_brought: dict[Path, int] = {}
"""Bytes brought by this process since copies were last counted, by the lake's folder."""


def s3_root(address: str, folder: Path, endpoint: str | None, region: str | None) -> Path:
    """Returns the root of a lake at `s3://bucket/prefix`, whose folder here is `folder`."""
    name, _, prefix = address.removeprefix("s3://").partition("/")
    prefix = prefix.strip("/")
    # It has the methods that are used, but a subclass would inherit those that act on this machine.
    return cast(Path, S3Path(prefix, Bucket(name, prefix, folder, endpoint, region)))


def on_s3(path: object) -> S3Path | None:
    """Returns a path that is on S3 as such, None for one of this machine."""
    return path if isinstance(path, S3Path) else None


def here(path: Path) -> Path:
    """Returns the place on this machine that belongs to a path: itself, unless it is on S3."""
    remote = on_s3(path)
    if remote is None:
        return path
    below = remote.key.removeprefix(remote.bucket.prefix).lstrip("/")
    return remote.bucket.folder / below


def at_hand(path: Path) -> Path:
    """Returns a file of this machine with the bytes of `path`: itself, or a copy of it.

    Raises:
        FileNotFoundError.
    """
    remote = on_s3(path)
    if remote is None:
        return path
    copy = here(path)
    if not copy.exists():
        temporary = _temporary(copy)
        try:
            remote.download(temporary)
            _count(remote.bucket.folder, temporary.stat().st_size)
            temporary.replace(copy)
        finally:
            temporary.unlink(missing_ok=True)
    return copy


def linked(path: Path, folder: Path) -> Path:
    """Returns `path`, or a link in `folder` to its copy, which is kept as long as the link is.

    Raises:
        NotFoundError (kind "no-such-object"): the file is not on S3.
        UnavailableError (kind "copies-dropped").
    """
    if on_s3(path) is None:
        return path
    link = folder / here(path).relative_to(here_root(path))
    link.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(_TRIES):
        if link.exists():
            return link
        try:
            os.link(at_hand(path), link)
        except FileNotFoundError:
            if not path.is_file():
                raise _missing(path) from None
    if not link.exists():
        raise _dropped(path)
    return link


def here_root(path: Path) -> Path:
    """Returns the lake's folder on this machine."""
    remote = on_s3(path)
    assert remote is not None, "a path of this machine does not tell its lake's folder"
    return remote.bucket.folder


def keep_copy(path: Path, data: bytes | Path) -> None:
    """Keeps what was just written to S3 for who reads it here; a file given is moved.

    A machine that cannot keep it reads it from there.
    """
    copy = here(path)
    with contextlib.suppress(OSError):
        temporary = data if isinstance(data, Path) else _temporary(copy)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, bytes):
            temporary.write_bytes(data)
        temporary.replace(copy)


def drop_copy(path: Path) -> None:
    """Removes this machine's copy of a file on S3."""
    if on_s3(path) is not None:
        here(path).unlink(missing_ok=True)


def drop_copies(folder: Path, names: Iterable[str]) -> None:
    """Removes this machine's copies of files below a folder on S3; names may be patterns."""
    if on_s3(folder) is not None:
        for name in names:
            for copy in here(folder).glob(name):
                if copy.is_file():
                    copy.unlink(missing_ok=True)


def _missing(path: Path) -> NotFoundError:
    return NotFoundError(
        f"File {path} is not in the lake: expected it, since a commit names it. Restore it from a "
        'backup, or look with "instep doctor" what else is missing.',
        kind="no-such-object",
        path=str(path),
    )


def _dropped(path: Path) -> UnavailableError:
    return UnavailableError(
        f"The copy of {path} on this machine was dropped {_TRIES} times before it could be read: "
        f"expected room for it among {KEPT_BYTES} bytes of copies. Let others on this machine "
        "end, then try again.",
        kind="copies-dropped",
    )


def _temporary(copy: Path) -> Path:
    copy.parent.mkdir(parents=True, exist_ok=True)
    return copy.with_name(f".{uuid.uuid4().hex}")


def _count(folder: Path, size_bytes: int) -> None:
    """Drops the oldest copies once in a while: those that nobody holds a link to."""
    if folder in _brought and _brought[folder] < _LOOK_BYTES:
        _brought[folder] += size_bytes
        return
    _brought[folder] = size_bytes
    found = [
        (stat.st_mtime_ns, stat.st_size, path)
        for part in _COPIED
        for path in (folder / part).rglob("*")
        if path.is_file() and (stat := path.stat()).st_nlink == 1
    ]
    held = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if held <= KEPT_BYTES:
            return
        path.unlink(missing_ok=True)
        held -= size
