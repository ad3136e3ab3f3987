"""A place in an S3 bucket that walks like a `pathlib.Path`, as far as Instep walks.

It has the methods of a path that Instep calls, with their meaning and their OSErrors, and no
`__fspath__`: what needs a file of this machine fails at once and never makes a folder "s3:".
A path below it is made with `/`, also from its full text. Each request may be made several times
(`s3_requests`); writing an object again with the same bytes is harmless, so a reply that was lost
is no damage.
Not here: which files are kept on this machine (`places`), and what is written when (`objects`).
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Any

from instep.history.s3_requests import (
    Client,
    again,
    connect,
    downloads,
    no_bucket,
    of_answer,
    translated,
)

_REMOVED_AT_ONCE = 1_000
"""Objects removed by one request: the most that S3 takes."""

_SCHEME = "s3://"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket as a lake uses it; `folder` is where this machine keeps what belongs to the lake.

    `prefix` is the key below which the lake's files are.
    """

    name: str
    prefix: str
    folder: Path
    endpoint: str | None = None
    region: str | None = None
    _clients: dict[int, Client] = field(default_factory=dict, repr=False, compare=False)

    def client(self) -> Client:
        """Returns the client of this process, which its threads share.

        Raises:
            NotFoundError (kind "no-s3-client"): boto3 is not installed.
        """
        found = self._clients.get(os.getpid())
        if found is None:
            found = self._clients[os.getpid()] = connect(self.name, self.endpoint, self.region)
        return found


@dataclass(frozen=True, slots=True)
class Stat:
    """What is known of an object, in the words of `os.stat_result`; `mark` changes with it."""

    st_size: int
    mark: str


@dataclass(frozen=True, slots=True, order=True)
class S3Path:
    """An object, or what others have in common in their names."""

    key: str
    bucket: Bucket = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{_SCHEME}{self.bucket.name}/{self.key}".rstrip("/")

    def __truediv__(self, other: str | PurePosixPath | S3Path) -> Any:  # S3Path, or a local Path
        text = str(other)
        if text.startswith("/"):
            return Path(text)
        if text.startswith(_SCHEME):
            name, _, key = text.removeprefix(_SCHEME).partition("/")
            if name != self.bucket.name:
                raise ValueError(f"{text} is in another bucket than {self}")
            return S3Path(key, self.bucket)
        return S3Path(f"{self.key}/{text}".strip("/"), self.bucket)

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> S3Path:
        return S3Path(self.key.rpartition("/")[0], self.bucket)

    def with_name(self, name: str) -> S3Path:
        made: S3Path = self.parent / name
        return made

    def as_posix(self) -> str:
        return str(self)

    def resolve(self) -> S3Path:
        """Returns itself: it has no links and is absolute."""
        return self

    def is_relative_to(self, other: object) -> bool:
        return str(self) == str(other) or str(self).startswith(f"{other}/")

    def relative_to(self, other: object) -> PurePosixPath:
        if not self.is_relative_to(other):
            raise ValueError(f"{self} is not below {other}")
        return PurePosixPath(str(self)[len(str(other)) :].lstrip("/"))

    def elsewhere(self, address: str) -> S3Path:
        """Returns another place of the same store: `s3://bucket/key`."""
        name, _, key = address.removeprefix(_SCHEME).partition("/")
        return S3Path(key, replace(self.bucket, name=name, prefix=key))

    def exists(self) -> bool:
        """Says whether there is an object of this name, or one below it."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        found = self._ask("list_objects_v2", key=None, Prefix=f"{self.key}/", MaxKeys=1)
        return bool(found.get("Contents"))

    def stat(self) -> Stat:
        found = self._ask("head_object")
        return Stat(found["ContentLength"], _mark(found))

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: names need no folder."""

    def open(self, mode: str = "rb", buffering: int = -1) -> IO[bytes]:
        """Returns the object's bytes, whole, as a file without a name; or FileNotFoundError."""
        if mode != "rb":
            raise ValueError(f"{self} is opened as {mode}: only reading is known")
        target = self.bucket.folder / "objects" / f".{uuid.uuid4().hex}"  # goes as old copies go
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.download(target)
            return target.open("rb")
        finally:
            target.unlink(missing_ok=True)

    def read_bytes(self) -> bytes:
        """Returns the object's bytes; a stream that breaks off is read again.

        Raises:
            FileNotFoundError.
        """

        def read() -> bytes:
            data: bytes = self._ask("get_object")["Body"].read()
            return data

        return again(str(self), self.bucket.name, read)

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, data: bytes) -> int:
        """Makes the object have these bytes: durable, whole and visible when this returns."""
        self._ask("put_object", Body=data)
        return len(data)

    def touch(self, *, exist_ok: bool = True) -> None:
        """Makes an empty object; without `exist_ok` only one of many callers succeeds.

        Where the reply to a success was lost, it counts as taken: FileExistsError.
        """
        self.claim(b"") if not exist_ok else self.write_bytes(b"")

    def version(self) -> str | None:
        """Returns what tells these bytes from others under the same name; None without any."""
        try:
            return str(self._ask("head_object")["ETag"])
        except FileNotFoundError:
            return None

    def swap(self, data: bytes, version: str | None) -> None:
        """As `claim`, or where the version is `version` still; raises FileNotFoundError, too."""
        if version is None:
            self.claim(data)
        else:
            self._ask("put_object", Body=data, IfMatch=version)

    def claim(self, data: bytes) -> None:
        """Makes the object, if nobody has made it yet.

        Raises:
            FileExistsError.
        """
        self._ask("put_object", Body=data, IfNoneMatch="*")

    def unlink(self, *, missing_ok: bool = False) -> None:
        if not missing_ok:
            self.stat()
        self._ask("delete_object")

    def upload(self, source: Path) -> None:
        """Makes the object a copy of a file: in one request, or in parts where it is large."""
        client = self.bucket.client()
        with translated(str(self), self.bucket.name):
            client.upload_file(str(source), self.bucket.name, self.key)

    def download(self, target: Path) -> None:
        """Writes the object's bytes to a file.

        Raises:
            FileNotFoundError.
        """
        client = self.bucket.client()
        with translated(str(self), self.bucket.name):
            client.download_file(self.bucket.name, self.key, str(target), Config=downloads())

    def iterdir(self) -> Iterator[S3Path]:
        """Yields what is directly below, by name; objects and common beginnings alike."""
        for page in self._pages(f"{self.key}/", "/"):
            for common in page.get("CommonPrefixes", ()):
                yield S3Path(common["Prefix"].rstrip("/"), self.bucket)
            for one in page.get("Contents", ()):
                yield S3Path(one["Key"], self.bucket)

    def folders(self) -> Iterator[S3Path]:
        """Yields the common beginnings directly below, by name."""
        for page in self._pages(f"{self.key}/", "/"):
            for common in page.get("CommonPrefixes", ()):
                yield S3Path(common["Prefix"].rstrip("/"), self.bucket)

    def objects(self, delimiter: str = "") -> Iterator[tuple[S3Path, Stat]]:
        """Yields every object below, by name, with what is known of it; with "/" those directly."""
        for page in self._pages(f"{self.key}/", delimiter):
            for one in page.get("Contents", ()):
                yield S3Path(one["Key"], self.bucket), Stat(one["Size"], _mark(one))

    def rglob(self, pattern: str) -> Iterator[S3Path]:
        return (path for path, _ in self.objects() if fnmatchcase(path.name, pattern))

    def glob(self, pattern: str) -> Iterator[S3Path]:
        """Yields the objects whose names below this one fit, part by part.

        What is listed are the names that begin as the pattern does before its first sign.
        """
        parts = pattern.split("/")
        begin = re.split(r"[*?\[]", f"{self.key}/{pattern}")[0]
        seen: set[str] = set()
        for page in self._pages(begin, ""):
            for one in page.get("Contents", ()):
                found = one["Key"].removeprefix(f"{self.key}/").split("/")[: len(parts)]
                key = "/".join([self.key, *found])
                fits = len(found) == len(parts) and all(map(fnmatchcase, found, parts))
                if fits and key not in seen:
                    seen.add(key)
                    yield S3Path(key, self.bucket)

    def _pages(self, prefix: str, delimiter: str) -> Iterator[dict[str, Any]]:  # S3's answers
        more: dict[str, str] = {"Delimiter": delimiter} if delimiter else {}
        while True:
            page = self._ask("list_objects_v2", key=None, Prefix=prefix.lstrip("/"), **more)
            yield page
            if not page.get("IsTruncated"):
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    def _ask(self, act: str, key: str | None = "", **values: object) -> Any:  # S3's answer
        """Makes one request, about this object unless `key` is None."""
        about = {} if key is None else {"Key": self.key}
        client = self.bucket.client()
        with translated(str(self), self.bucket.name):
            return getattr(client, act)(Bucket=self.bucket.name, **about, **values)


def remove_all(paths: Sequence[S3Path]) -> None:
    """Removes objects of one bucket, many in each request; those that are gone are no error."""
    from botocore.exceptions import ClientError

    for start in range(0, len(paths), _REMOVED_AT_ONCE):
        some = paths[start : start + _REMOVED_AT_ONCE]
        wanted = {"Objects": [{"Key": path.key} for path in some], "Quiet": True}
        told = some[0]._ask("delete_objects", key=None, Delete=wanted)
        for error in told.get("Errors", ()):
            told_so = ClientError({"Error": error}, "DeleteObjects")
            raise of_answer(error["Key"], some[0].bucket.name, told_so)


def check_bucket(path: S3Path) -> None:
    """Holds that the bucket is there and may be used.

    Raises:
        NotFoundError (kind "no-such-bucket"), RefusedError (kind "bucket-access-denied").
        UnavailableError (kinds "bucket-unreachable", "bucket-throttled", "bucket-failed").
    """
    try:
        path._ask("head_bucket", key=None)
    except FileNotFoundError:
        raise no_bucket(path.bucket.name) from None


def _mark(found: dict[str, Any]) -> str:  # a part of S3's answer
    return f"{found['ETag']}:{found['LastModified'].timestamp():.0f}"
