"""Blobs by digest, and the writing of files: complete and durable, or not there.

Order in a folder: write to a temporary name, fsync the file, rename, fsync the folder. On S3 one
request does all of that. Bytes go in two ways only: collected, because nothing names them, or
erased, and then a note beside says so.
Who stores a blob that is there already makes sure that a collection under way spares it. In a
folder its mark changes, under a lock. On S3 no lock would reach a collector that was suspended in
the middle of a deletion: there a blob may have several copies, each under a name that is never used
again, and one that is condemned counts as not there.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from instep.errors import InternalError, NotFoundError, RefusedError
from instep.faults import reached
from instep.history.condemned import condemned_below
from instep.history.locks import blobs_locked
from instep.history.places import at_hand, drop_copies, here, keep_copy, on_s3
from instep.history.s3_requests import CONNECTIONS
from instep.history.store import Store
from instep.history.together import is_together

ERASED = ".erased"
"""Ends the name of the note that stands for erased bytes."""

_CHUNK_BYTES = 1 << 20
_SYNCED_AT_ONCE = 8
"""Files of one state that are synced at the same time: an append has five, and their folder."""

_UPLOADED_AT_ONCE = 4
"""Files uploaded at the same time, each of them in several parts."""

_COPY = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{32}")
_UNPUBLISHED = re.compile(r"\.[0-9a-f]{32}")
_WANTED_NS = 2_000_000_000
"""How far a file's time moves when it is wanted again: a counter, not a clock, and coarse enough
for every file system."""


@dataclass(frozen=True, slots=True)
class _There:
    """The files with a blob's bytes, and whether a note says that these were erased."""

    files: tuple[Path, ...]
    is_erased: bool


@dataclass(frozen=True, slots=True)
class Objects:
    """The blob folder of one lake; `store` tells which copies on S3 are condemned.

    Without it a copy that is found on S3 is not relied on: another is made.
    """

    folder: Path
    store: Store | None = None

    def path(self, digest: str) -> Path:
        """Returns where the blob is in a folder, or would be."""
        return self.folder / digest[:2] / digest

    def files(self, digest: str) -> tuple[Path, ...]:
        """Returns the files that have the blob's bytes, by name: one, none, or on S3 several."""
        return self._look(digest).files

    def note(self, digest: str) -> Path:
        """Returns where the note about erased bytes is, or would be."""
        return self.folder / digest[:2] / f"{digest}{ERASED}"

    def has(self, digest: str) -> bool:
        """Says whether the blob can be read: it is there, and was not erased."""
        found = self._look(digest)
        return bool(found.files) and not found.is_erased

    def existing(self, digest: str) -> Path:
        """Returns a file of this machine with the blob's bytes.

        Raises:
            NotFoundError (kinds "erased", "no-such-object").
        """
        found = self._look(digest)
        for path in () if found.is_erased else found.files:
            with suppress(FileNotFoundError):  # one of several may go meanwhile
                return at_hand(path)
        raise self._missing(digest)

    def put(self, data: bytes) -> str:
        """Returns the SHA-256 of `data` after it has been stored durably.

        Raises:
            RefusedError (kind "erased"): these bytes were erased from the lake.
        """
        digest = hashlib.sha256(data).hexdigest()
        with self._storing(digest) as path:
            if path is not None:
                write_durably(path, data)
        return digest

    def put_file(self, source: Path) -> str:
        """Returns the SHA-256 of a file after a copy of it has been stored durably; streams.

        Raises:
            RefusedError (kind "erased"): these bytes were erased from the lake.
        """
        make_folder_durably(here(self.folder))
        temporary = here(self.folder) / f".{uuid.uuid4().hex}"
        try:
            reached("file.write.before")
            with source.open("rb") as reader, temporary.open("wb") as writer:
                shutil.copyfileobj(reader, writer, _CHUNK_BYTES)
            reached("file.write.after")
            digest = file_digest(temporary)
            with self._storing(digest) as path:
                if path is not None:
                    publish_durably(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return digest

    def get(self, digest: str) -> bytes:
        """Returns the blob's bytes, verified.

        Raises:
            NotFoundError (kinds "erased", "no-such-object").
            InternalError (kind "damaged-object"): its bytes no longer have this digest.
        """
        try:
            data = self.existing(digest).read_bytes()
        except FileNotFoundError:
            raise self._missing(digest) from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise _other_bytes(digest)
        return data

    def checked(self, digest: str) -> Path:
        """Returns a file as `existing` does, after its bytes were hashed: for who copies from it.

        Raises:
            NotFoundError, InternalError: as `get`.
        """
        path = self.existing(digest)
        if file_digest(path) != digest:
            raise _other_bytes(digest)
        return path

    def text(self, digest: str) -> str:
        """Returns the blob as text; bytes that are not UTF-8 show as the replacement character.

        Raises:
            NotFoundError, InternalError: as `get`.
        """
        return self.get(digest).decode(errors="replace")

    def _look(self, digest: str) -> _There:
        """Looks what there is; on S3 with one request, and copies here of erased bytes go."""
        path, note = self.path(digest), self.note(digest)
        if not on_s3(self.folder):
            return _There((path,) if path.is_file() else (), note.is_file())
        found = sorted(path.parent.glob(f"{digest}*"))
        if note in found:
            drop_copies(path.parent, [f"{digest}*"])
        return _There(tuple(one for one in found if one != note), note in found)

    @contextmanager
    def _storing(self, digest: str) -> Iterator[Path | None]:
        """Gives where to write a blob, or None where it is, while nobody collects or erases it.

        On S3 who erases writes the note before looking for files, and who stores looks for the note
        after writing one: so of the two at the same time one removes the bytes.
        """
        if not on_s3(self.folder):
            with blobs_locked(self.folder, alone=False):
                yield None if self._wanted(digest) else self.path(digest)
            return
        # First this: what is condemned later stays as long as who found it is at work.
        condemned = self._condemned(digest)
        found = self._look(digest)
        if found.is_erased:
            raise self._was_erased(digest)
        if condemned is not None and any(path.name not in condemned for path in found.files):
            yield None
            return
        path = self.path(digest).with_name(f"{digest}.{uuid.uuid4().hex}")
        yield path
        if self.note(digest).is_file():
            path.unlink(missing_ok=True)
            drop_copies(path.parent, [f"{digest}*"])
            raise self._was_erased(digest)

    def _condemned(self, digest: str) -> frozenset[str] | None:
        """Returns the names of the blob's files that are condemned; None where nobody can tell."""
        if self.store is None:
            return None
        first = f"{self.folder.name}/{digest[:2]}/{digest}"
        with self.store.reading() as tx:
            found = condemned_below(tx, first)
        return frozenset(name.rpartition("/")[2] for name in found)

    def _wanted(self, digest: str) -> bool:
        """Says whether the blob is there, and marks it as wanted again.

        Then its name is durable too: who put it there may not have come so far.
        """
        if self.note(digest).is_file():
            raise self._was_erased(digest)
        path = self.path(digest)
        try:
            found = path.stat()
        except FileNotFoundError:
            return False
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + _WANTED_NS))
        sync_folder(path.parent)
        sync_folder(self.folder)
        return True

    def _was_erased(self, digest: str) -> RefusedError:
        return RefusedError(
            f"Object {digest} was erased from the lake ({self.note(digest).read_text()}): "
            "expected other bytes, since what was erased is not stored again. Leave them out.",
            kind="erased",
            digest=digest,
        )

    def _missing(self, digest: str) -> NotFoundError:
        if self.note(digest).is_file():
            return NotFoundError(
                f"Object {digest} was erased from the lake ({self.note(digest).read_text()}): "
                "its bytes are gone for good. Do without them.",
                kind="erased",
                digest=digest,
            )
        return NotFoundError(
            f"Object {digest} is not in the lake: expected it in {self.folder}. "
            "Restore the lake's folder from a backup.",
            kind="no-such-object",
            digest=digest,
        )


def _other_bytes(digest: str) -> InternalError:
    return InternalError(
        f"Object {digest} has other bytes than when it was written: expected its own digest. "
        'Restore the file from a backup; "instep doctor" says what needs it, and whether more is '
        "damaged.",
        kind="damaged-object",
        digest=digest,
    )


def blob_of(name: str) -> str:
    """Returns the digest of the blob that a file of this name holds; its name where it holds none.

    On S3 a copy has a name of its own after the digest.
    """
    return name[:64] if _COPY.fullmatch(name) else name


def file_digest(path: Path) -> str:
    """Returns the SHA-256 (hex) of a file; streams."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_durably(path: Path, data: bytes) -> None:
    """Writes a file that is either complete and durable, or absent."""
    if on_s3(path):
        _put(path, data)
        return
    make_folder_durably(path.parent)
    temporary = path.parent / f".{uuid.uuid4().hex}"
    try:
        reached("file.write.before")
        temporary.write_bytes(data)
        reached("file.write.after")
        publish_durably(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_all_durably(files: Mapping[Path, bytes]) -> None:
    """Writes files together: all are durable on return, none may be named by what is so already.

    After a power loss before that, some may be there without their bytes: nobody may take a file
    for whole because it has its name.
    """
    if any(on_s3(path) for path in files):
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(_put, files.keys(), files.values()))
        return
    temporary = {path: path.parent / f".{uuid.uuid4().hex}" for path in files}
    try:
        for path, data in files.items():
            reached("file.write.before")
            temporary[path].write_bytes(data)
            reached("file.write.after")
        publish_all_durably(temporary)
    except BaseException:
        for one in temporary.values():
            one.unlink(missing_ok=True)
        raise


def publish_all_durably(files: Mapping[Path, Path]) -> None:
    """Moves written files, each under its name to be: durable as `write_all_durably` says."""
    if any(on_s3(path) for path in files):
        with ThreadPoolExecutor(_UPLOADED_AT_ONCE) as pool:
            list(pool.map(publish_durably, files.values(), files.keys()))
        return
    folders = {path.parent for path in files}
    for folder in folders:
        make_folder_durably(folder)
    for path, temporary in files.items():
        reached("file.rename.before")
        temporary.rename(path)
        reached("file.rename.after")
    if is_together():  # which the threads do not know
        return
    # What is synced at the same time goes to the disk in one piece: one wait, not one for the files
    # and another for their folder.
    waiting = [_syncing().submit(_fsync, path, "file.fsync") for path in files]
    for folder in folders:
        sync_folder(folder)
    for one in waiting:
        one.result()


@cache
def _syncing() -> ThreadPoolExecutor:
    """Threads that stay, as to start them takes longer than most disks take to sync."""
    return ThreadPoolExecutor(_SYNCED_AT_ONCE, thread_name_prefix="sync")


# Threads do not come along into a fork.
os.register_at_fork(after_in_child=_syncing.cache_clear)


def publish_durably(temporary: Path, path: Path) -> None:
    """Moves a written file to its name: fsync the file, rename, fsync the folder; or uploads it."""
    remote = on_s3(path)
    if remote:
        reached("file.write.before")
        remote.upload(temporary)
        reached("file.write.after")
        keep_copy(path, temporary)
        return
    make_folder_durably(path.parent)
    _fsync(temporary, "file.fsync")
    reached("file.rename.before")
    temporary.rename(path)
    reached("file.rename.after")
    sync_folder(path.parent)


def is_unpublished(path: Path) -> bool:
    """Says whether a file is what a killed `write_durably` leaves: not named yet, and garbage."""
    return _UNPUBLISHED.fullmatch(path.name) is not None


def make_durable(path: Path) -> None:
    """Makes a file that somebody else wrote under its final name durable, and its folder."""
    _fsync(path, "file.fsync")
    sync_folder(path.parent)


def make_folder_durably(folder: Path) -> None:
    """Makes a folder, and those above it, where missing; then the name of each new one is durable.

    A folder that is there costs no fsync. Whoever may find one that another process has only just
    made, and needs it durable, calls `sync_folder` on the folder above.
    """
    if on_s3(folder) or folder.is_dir():
        return
    make_folder_durably(folder.parent)
    reached("folder.make.before")
    folder.mkdir(exist_ok=True)
    reached("folder.make.after")
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Makes names that were added to or removed from a folder durable."""
    if not on_s3(folder):
        _fsync(folder, "folder.fsync")


def remove_empty_folders(folder: Path) -> None:
    """Removes every folder below one in which nothing is left; its name may tell of what was.

    Other writers of tables name folders after values. Who makes a folder and writes into it only
    later may have to make it again.
    """
    place = here(folder)  # on S3 there are no folders, only copies here have
    for parent, _, _ in os.walk(place, topdown=False):
        if Path(parent) != place:
            with suppress(OSError):  # something is in it
                Path(parent).rmdir()


def _put(path: Path, data: bytes) -> None:
    """Writes one object, and keeps a copy here."""
    reached("file.write.before")
    path.write_bytes(data)
    reached("file.write.after")
    keep_copy(path, data)


def _fsync(path: Path, place: str) -> None:
    if is_together():
        return
    reached(f"{place}.before")
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    reached(f"{place}.after")
