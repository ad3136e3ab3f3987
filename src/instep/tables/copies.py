"""The JSON copy of a manifest: what a line holds, and reading only the lines that are needed.

First line: where the others are, and the digest of each. Second: names, rows, sizes and what else
is known of every file. Third: their SHA-256s. Then the statistics, column by column, some columns
a line; last, where there are any, the origins of files that were compacted. So a plan over one
column of many reads two lines, and an append the third alone.
What was read is kept in this process, verified when read and as long as the file has not changed.
So is what was written of a snapshot for who writes upon it: that shares what did not change, where
parsing the text again would make hundreds of objects a snapshot for the garbage collector to visit.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from instep.errors import NotFoundError
from instep.history.intact import other_bytes
from instep.history.places import at_hand
from instep.tables.manifest import Applies, Base, Entries, Manifest, Statistics

LINE_BYTES = 64 << 10
"""From this size on a line of statistics is full: small manifests have one, wide ones many."""

CACHE_BYTES = 32 << 20
"""How much text this process keeps decoded; in memory it takes some five times as much."""

DIGEST_LENGTH = 64

T = TypeVar("T")

Json = Any  # a value parsed from JSON of a shape known where it is used


@dataclass(slots=True)
class _Cache:
    """Decoded texts by digest, the least recently used dropped first; shared, never changed."""

    limit: int
    held: int = 0
    kept: OrderedDict[tuple[str, str], tuple[tuple[int, ...], int, Json]] = field(
        default_factory=OrderedDict
    )
    lock: Lock = field(default_factory=Lock)

    def get(self, path: Path, digest: str) -> Json | None:
        key = (str(path), digest)
        found = self.kept.get(key)
        if found is None:
            return None
        try:
            unchanged = found[0] == _mark(path)
        except OSError:
            unchanged = False
        with self.lock:
            if unchanged and key in self.kept:
                self.kept.move_to_end(key)
            elif not unchanged:
                self._drop(key)
        return found[2] if unchanged else None

    def put(self, path: Path, digest: str, size: int, value: Json) -> None:
        with self.lock:
            self._drop((str(path), digest))
            self.kept[(str(path), digest)] = (_mark(path), size, value)
            self.held += size
            while self.held > self.limit:
                _, (_, dropped, _) = self.kept.popitem(last=False)
                self.held -= dropped

    def clear(self) -> None:
        with self.lock:
            self.kept.clear()
            self.held = 0

    def _drop(self, key: tuple[str, str]) -> None:
        dropped = self.kept.pop(key, None)
        if dropped is not None:
            self.held -= dropped[1]


CACHE = _Cache(CACHE_BYTES)


@dataclass(frozen=True, slots=True)
class Known:
    """What is decoded of a file, or of a piece of it, under the name that readers ask for."""

    path: Path
    key: str
    size_bytes: int
    value: Json


def encode(value: Json) -> bytes:
    """Returns JSON text as every file of a table has it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def load_json(path: Path, digest: str) -> dict[str, Json]:
    """Returns a JSON file of a table, verified against its digest; it must not be changed.

    Raises:
        NotFoundError (kind "no-such-object"), InternalError (kind "damaged-object").
    """
    found: dict[str, Json] = load_parsed(path, digest, dict)
    return found


def load_parsed(
    path: Path, digest: str, parsed: Callable[[Json], T], start: int = 0, length: int = -1
) -> T:
    """Returns what `parsed` makes of a JSON text, kept for the next who asks.

    Raises:
        NotFoundError (kind "no-such-object"), InternalError (kind "damaged-object").
    """
    found: T | None = CACHE.get(path, digest)
    if found is None:
        data = verified(path, digest, start, length)
        found = parsed(json.loads(data))
        CACHE.put(path, digest, len(data), found)
    return found


def keep_written(known: Iterable[Known]) -> None:
    """Keeps what files hold that were just written, as if they had been read."""
    for one in known:
        with suppress(OSError):  # of a file on S3 this machine may have no copy
            CACHE.put(one.path, one.key, one.size_bytes, one.value)


def verified(path: Path, digest: str, start: int = 0, length: int = -1) -> bytes:
    """Returns the bytes of a file of a table, or a piece of them, which must have this digest.

    Raises:
        NotFoundError (kind "no-such-object"), InternalError (kind "damaged-object").
    """
    try:
        with at_hand(path).open("rb", buffering=0) as file:
            if start:
                file.seek(start)
            data = file.read(length)
    except FileNotFoundError:
        raise NotFoundError(
            f"Table file {path} is not in the lake: expected its digest {digest}. "
            "Restore the lake's folder from a backup.",
            kind="no-such-object",
            digest=digest,
        ) from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise other_bytes(path, digest)
    return data


def copy_bytes(entries: Entries) -> tuple[bytes, tuple[int, str]]:
    """Returns the copy of a manifest, and the length and digest of its first line."""
    base = entries.base
    known = {
        "names": base.names,
        "rows": base.rows,
        "sizes": base.sizes,
        "snapshots": base.snapshots,
        "sequences": base.sequences,
        "partitions": base.partitions if any(base.partitions) else [],
        "applies": [[one.data_file, one.offset, one.length] for one in base.applies],
        "spans": base.spans,
    }
    lines = [encode(known), encode("".join(entries.digests))]
    held: list[list[int]] = []
    for ids, line in _statistics_lines(entries.columns):
        held.append(ids)
        lines.append(line)
    if entries.origins:
        lines.append(encode({index: "".join(each) for index, each in entries.origins.items()}))
    head = encode(
        {
            "lines": [[len(one), hashlib.sha256(one).hexdigest()] for one in lines],
            "columns": held,
        }
    )
    data = b"\n".join((head, *lines))
    return data, (len(head), hashlib.sha256(head).hexdigest())


def load_base(folder: Path, manifest: Manifest) -> Base:
    """Returns what is known of a manifest's files besides their digests and statistics."""
    return _line(folder, manifest, 0, _base)


def load_digests(folder: Path, manifest: Manifest) -> list[str]:
    """Returns the SHA-256s of a manifest's files."""
    return _line(folder, manifest, 1, _digests)


def load_origins(folder: Path, manifest: Manifest) -> Mapping[int, tuple[str, ...]]:
    """Returns the digests that compacted files stand for, by their place in the manifest."""
    head = _head(folder, manifest)
    number = 2 + len(head["columns"])
    return _line(folder, manifest, number, _origins) if len(head["lines"]) > number else {}


def load_counted(folder: Path, manifest: Manifest) -> list[str]:
    """Returns the digests that tell the rows of a manifest's files, in no order that counts."""
    path = folder / "metadata" / manifest.entries
    found: list[str] | None = CACHE.get(path, _counted_key(manifest.digest))
    if found is None:
        found = counted(load_digests(folder, manifest), load_origins(folder, manifest))
        keep_written([known_counted(path, manifest.digest, found)])
    return found


def counted(digests: list[str], origins: Mapping[int, tuple[str, ...]]) -> list[str]:
    """Returns the digests that tell the rows of files: a compacted one counts as its origins."""
    if not origins:
        return digests
    return [one for index, digest in enumerate(digests) for one in origins.get(index) or (digest,)]


def known_counted(path: Path, digest: str, found: list[str]) -> Known:
    """Returns what `load_counted` gives of a copy at `path` that has this digest."""
    return Known(path, _counted_key(digest), DIGEST_LENGTH * len(found), found)


def _counted_key(digest: str) -> str:
    return f"{digest}:counted"


def load_columns(
    folder: Path, manifest: Manifest, ids: Collection[int] | None = None
) -> Mapping[int, Statistics]:
    """Returns the statistics of some columns, or of all; a column without any is left out."""
    head = _head(folder, manifest)
    found: dict[int, Statistics] = {}
    for number, held in enumerate(head["columns"], 2):
        wanted = held if ids is None else [one for one in held if one in ids]
        if wanted:
            line = _line(folder, manifest, number, _statistics)
            found |= {one: line[one] for one in wanted}
    return found


def load_copy(folder: Path, manifest: Manifest) -> Entries:
    """Returns all that a copy holds, read at once; it is not kept: who wants all wants it once."""
    data = verified(folder / "metadata" / manifest.entries, manifest.digest)
    head, base, digests, *rest = map(json.loads, data.split(b"\n"))
    columns: dict[int, Statistics] = {}
    for line in rest[: len(head["columns"])]:
        columns |= _statistics(line)
    origins = rest[len(head["columns"]) :]
    return Entries(_base(base), _digests(digests), columns, _origins(*origins) if origins else {})


def load_names(folder: Path, manifest: Manifest) -> Entries:
    """Returns all that a copy holds but the statistics."""
    return Entries(
        load_base(folder, manifest),
        load_digests(folder, manifest),
        {},
        load_origins(folder, manifest),
    )


def _statistics_lines(columns: Mapping[int, Statistics]) -> Iterator[tuple[list[int], bytes]]:
    ids: list[int] = []
    texts: list[str] = []
    size = 0
    for field_id, lists in columns.items():
        text = json.dumps(lists.lists(), separators=(",", ":"), ensure_ascii=False)
        ids.append(field_id)
        texts.append(f'"{field_id}":{text}')
        size += len(text)
        if size >= LINE_BYTES:
            yield ids, f"{{{','.join(texts)}}}".encode()
            ids, texts, size = [], [], 0
    if ids:
        yield ids, f"{{{','.join(texts)}}}".encode()


def _head(folder: Path, manifest: Manifest) -> dict[str, Json]:
    length, digest = manifest.head
    return load_parsed(folder / "metadata" / manifest.entries, digest, dict, 0, length)


def _line(folder: Path, manifest: Manifest, number: int, parsed: Callable[[Json], T]) -> T:
    path = folder / "metadata" / manifest.entries
    key = f"{manifest.digest}:{number}"
    found: T | None = CACHE.get(path, key)
    if found is None:
        lines = _head(folder, manifest)["lines"]
        length, digest = lines[number]
        start = manifest.head[0] + 1 + sum(one[0] + 1 for one in lines[:number])
        found = parsed(json.loads(verified(path, digest, start, length)))
        CACHE.put(path, key, length, found)
    return found


def _base(found: Json) -> Base:
    rows: list[int] = found["rows"]
    partitions = [tuple(one) for one in found["partitions"]] or [()] * len(rows)
    return Base(
        found["names"],
        rows,
        found["sizes"],
        found["snapshots"],
        found["sequences"],
        partitions,
        [Applies(*one) for one in found["applies"]],
        found["spans"],
    )


def _digests(found: str) -> list[str]:
    return [found[i : i + DIGEST_LENGTH] for i in range(0, len(found), DIGEST_LENGTH)]


def _origins(found: Json) -> dict[int, tuple[str, ...]]:
    return {int(index): tuple(_digests(each)) for index, each in found.items()}


def _statistics(found: Json) -> dict[int, Statistics]:
    return {int(field_id): Statistics(*lists) for field_id, lists in found.items()}


def _mark(path: Path) -> tuple[int, ...]:
    found = at_hand(path).stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
