"""Blobs by digest in a local folder. A blob is complete and durable, or it is not there.

Order: write to a temporary name, fsync the file, rename, fsync the folder. Nothing here deletes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from instep.errors import InternalError, NotFoundError
from instep.faults import reached

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Objects:
    """The blob folder of one lake."""

    folder: Path

    def path(self, digest: str) -> Path:
        """Returns where the blob is, or would be."""
        return self.folder / digest[:2] / digest

    def has(self, digest: str) -> bool:
        return self.path(digest).exists()

    def put(self, data: bytes) -> str:
        """Returns the SHA-256 of `data` after it has been stored durably."""
        digest = hashlib.sha256(data).hexdigest()
        if not self.has(digest):
            write_durably(self.path(digest), data)
        return digest

    def put_file(self, source: Path) -> str:
        """Returns the SHA-256 of a file after a copy of it has been stored durably; streams."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{uuid.uuid4().hex}"
        try:
            with source.open("rb") as reader, temporary.open("wb") as writer:
                shutil.copyfileobj(reader, writer, _CHUNK_BYTES)
            digest = file_digest(temporary)
            if not self.has(digest):
                publish_durably(temporary, self.path(digest))
        finally:
            temporary.unlink(missing_ok=True)
        return digest

    def get(self, digest: str) -> bytes:
        """Returns the blob's bytes, verified.

        Raises:
            NotFoundError (kind "no-such-object").
            InternalError (kind "damaged-object"): its bytes no longer have this digest.
        """
        try:
            data = self.path(digest).read_bytes()
        except FileNotFoundError:
            raise NotFoundError(
                f"Object {digest} is not in the lake: expected it in {self.folder}. "
                "Restore the lake's folder from a backup.",
                kind="no-such-object",
                digest=digest,
            ) from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise InternalError(
                f"Object {digest} has other bytes than when it was written: expected its own "
                "digest. Restore the file from a backup.",
                kind="damaged-object",
                digest=digest,
            )
        return data

    def text(self, digest: str) -> str:
        """Returns the blob as text; bytes that are not UTF-8 show as the replacement character.

        Raises:
            NotFoundError, InternalError: as `get`.
        """
        return self.get(digest).decode(errors="replace")


def file_digest(path: Path) -> str:
    """Returns the SHA-256 (hex) of a file; streams."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_durably(path: Path, data: bytes) -> None:
    """Writes a file that is either complete and durable, or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{uuid.uuid4().hex}"
    reached("file.write.before")
    try:
        temporary.write_bytes(data)
        publish_durably(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def publish_durably(temporary: Path, path: Path) -> None:
    """Moves a written file to its name: fsync the file, rename, fsync the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    reached("file.fsync.before")
    _fsync(temporary)
    reached("file.rename.before")
    temporary.rename(path)
    reached("file.rename.after")
    _fsync(path.parent)


def make_durable(path: Path) -> None:
    """Makes a file that somebody else wrote under its final name durable, and its folder."""
    reached("file.fsync.before")
    _fsync(path)
    _fsync(path.parent)
    reached("file.fsync.after")


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
