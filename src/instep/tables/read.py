"""Answers what a table holds at one commit: schema, live files, rows.

Reads JSON only: the Iceberg metadata file, and beside each manifest list and manifest a JSON copy
of it that also keeps what Iceberg has no place for, the SHA-256 of each data file. Each file names
the digest of the next, from the table's content down, so a changed byte is noticed. Neither
pyiceberg nor DuckDB is imported here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from instep.clock import Window
from instep.engines.engine import ColumnStatistics, FileSet, Slice, WrittenFile
from instep.engines.schema import Column, Schema
from instep.errors import InternalError, NotFoundError
from instep.tables.content import TableContent

DataFile = WrittenFile
"""A live file is described by the record with which it was written."""

LISTING = "instep.listing"
LISTING_DIGEST = "instep.listing-digest"
LIST_DIGEST = "instep.manifest-list-digest"
"""What a snapshot's summary says of its manifest list: the JSON copy, and the digests of both."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One live file, with the snapshot that added it."""

    file: DataFile
    snapshot_id: int
    sequence_number: int


@dataclass(frozen=True, slots=True)
class Reach:
    """A file and the instants of one column in it; `bounds` is None where they are not known."""

    file: DataFile
    bounds: tuple[datetime, datetime] | None

    def touches(self, window: Window) -> bool:
        """Says whether the file may hold rows of `window`."""
        if self.bounds is None:
            return True
        lower, upper = self.bounds
        return lower < window.end and upper >= window.start


@dataclass(frozen=True, slots=True)
class Manifest:
    """One Iceberg manifest as its manifest list tells of it; `entries` is its JSON copy."""

    path: str
    length: int
    path_digest: str
    sequence_number: int
    min_sequence_number: int
    snapshot_id: int
    added: tuple[int, int]
    existing: tuple[int, int]
    deleted: tuple[int, int]
    entries: str
    digest: str
    live_files: int


def schema_of(root: Path, content: TableContent) -> Schema:
    """Returns the columns of a table, with their field ids."""
    return current_schema(load_metadata(root, content))


def row_count(root: Path, content: TableContent) -> int:
    """Returns the number of live rows, exactly."""
    return _total(load_metadata(root, content), "total-records")


def file_count(root: Path, content: TableContent) -> int:
    """Returns the number of live files, exactly."""
    return _total(load_metadata(root, content), "total-data-files")


def size_bytes(root: Path, content: TableContent) -> int:
    """Returns the size of the live files, exactly."""
    return _total(load_metadata(root, content), "total-files-size")


def data_files(
    root: Path, content: TableContent, part: Slice | None = None
) -> tuple[DataFile, ...]:
    """Returns the live files that may hold rows of `part`, in the order they were added.

    Raises:
        InvalidError (kind "no-such-column"): the slice's column does not exist.
    """
    metadata = load_metadata(root, content)
    folder = table_folder(root, content)
    files = tuple(
        entry.file
        for manifest in load_manifests(folder, metadata)
        for entry in load_entries(folder, manifest)
    )
    if part is None:
        return files
    column = current_schema(metadata).column(part.column)
    return tuple(reach.file for reach in reaches(files, column) if reach.touches(part.window))


def reaches(files: Sequence[DataFile], column: Column) -> tuple[Reach, ...]:
    """Returns what of the time of `column` each file holds; files without a value are left out."""
    return tuple(reach for file in files if (reach := _reach(file, column)) is not None)


def file_set(root: Path, content: TableContent, name: str, part: Slice | None = None) -> FileSet:
    """Returns a table as an engine reads it, under the SQL name `name`."""
    files = tuple(file.path for file in data_files(root, content, part))
    return FileSet(name, files, schema_of(root, content), part)


def table_folder(root: Path, content: TableContent) -> Path:
    """Returns the absolute folder of a table."""
    return root.resolve() / "tables" / content.uuid


def load_metadata(root: Path, content: TableContent) -> dict[str, Any]:  # Iceberg's JSON
    """Returns the Iceberg metadata of a table's state, verified against its digest.

    Raises:
        NotFoundError (kind "no-such-object"), InternalError (kind "damaged-object").
    """
    now = located(root, content)
    return load_json(root.resolve() / now.metadata, now.digest)


def located(root: Path, content: TableContent) -> TableContent:
    """Returns a state with the metadata that stands for it now: its own, or what replaced that.

    Iceberg's paths are absolute, so after a move the state has new metadata under a new name, while
    its content, which is part of commits, stays as it is (decision 0014).
    """
    path = replacement_path(root, content)
    try:
        told = json.loads(path.read_bytes())
        return TableContent(str(told["metadata"]), str(told["digest"]), content.uuid, content.files)
    except FileNotFoundError:
        return content
    except (ValueError, KeyError, TypeError):
        raise InternalError(
            f"Table file {path} has other bytes than when it was written: expected the name and "
            "digest of metadata. Restore the file from a backup.",
            kind="damaged-object",
            digest=content.digest,
        ) from None


def replacement_path(root: Path, content: TableContent) -> Path:
    """Returns where the replacement of a state's metadata is recorded, by its first digest."""
    return table_folder(root, content) / "replacements" / f"{content.digest}.json"


def metadata_path(root: Path, content: TableContent) -> Path:
    """Returns the absolute path of the metadata, for any reader of Iceberg."""
    return root.resolve() / located(root, content).metadata


def current_schema(metadata: dict[str, Any]) -> Schema:  # Iceberg's JSON
    """Returns the current schema inside Iceberg metadata."""
    current = metadata["current-schema-id"]
    fields = next(s["fields"] for s in metadata["schemas"] if s["schema-id"] == current)
    return Schema(
        tuple(
            Column(f["id"], f["name"], f["type"], bool(f["required"]), f.get("doc", ""))
            for f in fields
        )
    )


def current_snapshot(metadata: dict[str, Any]) -> dict[str, Any] | None:  # Iceberg's JSON
    """Returns the current snapshot inside Iceberg metadata; None before the first."""
    current = metadata.get("current-snapshot-id")
    return next((s for s in metadata["snapshots"] if s["snapshot-id"] == current), None)


def load_manifests(folder: Path, metadata: dict[str, Any]) -> tuple[Manifest, ...]:  # as above
    """Returns the manifests of the current snapshot."""
    snapshot = current_snapshot(metadata)
    if snapshot is None:
        return ()
    summary = snapshot["summary"]
    listing = load_json(folder / "metadata" / summary[LISTING], summary[LISTING_DIGEST])
    return tuple(
        Manifest(
            path=one["path"],
            length=one["length"],
            path_digest=one["path-digest"],
            sequence_number=one["sequence"],
            min_sequence_number=one["min-sequence"],
            snapshot_id=one["snapshot"],
            added=_pair(one["added"]),
            existing=_pair(one["existing"]),
            deleted=_pair(one["deleted"]),
            entries=one["entries"],
            digest=one["digest"],
            live_files=one["live"],
        )
        for one in listing["manifests"]
    )


def load_entries(folder: Path, manifest: Manifest) -> tuple[Entry, ...]:
    """Returns the live files of one manifest."""
    if not manifest.live_files:
        return ()
    copied = load_json(folder / "metadata" / manifest.entries, manifest.digest)
    ids: list[int] = copied["columns"]
    data = folder / "data"
    return tuple(
        Entry(
            DataFile(
                path=str(data / name),
                rows=rows,
                size_bytes=size,
                digest=digest,
                columns=tuple(
                    ColumnStatistics(field_id, *statistics)
                    for field_id, statistics in zip(ids, columns, strict=True)
                    if statistics is not None
                ),
            ),
            snapshot_id=snapshot,
            sequence_number=sequence,
        )
        for name, rows, size, digest, snapshot, sequence, columns in copied["entries"]
    )


def files_digest(digests: Sequence[str]) -> str:
    """Returns the digest of a set of files: SHA-256 over their sorted SHA-256s, one a line."""
    return hashlib.sha256("".join(f"{one}\n" for one in sorted(digests)).encode()).hexdigest()


def load_json(path: Path, digest: str) -> dict[str, Any]:  # JSON of a known shape, by digest
    """Returns a JSON file of a table, verified against its digest.

    Raises:
        NotFoundError (kind "no-such-object"), InternalError (kind "damaged-object").
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(
            f"Table file {path} is not in the lake: expected its digest {digest}. "
            "Restore the lake's folder from a backup.",
            kind="no-such-object",
            digest=digest,
        ) from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise InternalError(
            f"Table file {path} has other bytes than when it was written: expected digest "
            f"{digest}. Restore the file from a backup.",
            kind="damaged-object",
            digest=digest,
        )
    loaded: dict[str, Any] = json.loads(data)
    return loaded


def _total(metadata: dict[str, Any], name: str) -> int:
    snapshot = current_snapshot(metadata)
    return int(snapshot["summary"][name]) if snapshot else 0


def _pair(values: list[int]) -> tuple[int, int]:
    return values[0], values[1]


def _reach(file: DataFile, column: Column) -> Reach | None:
    found = next((one for one in file.columns if one.field_id == column.id), None)
    if found is None or found.nulls == file.rows:
        return None  # the column was added after this file, or is null in every row
    if found.lower is None or found.upper is None:
        return Reach(file, None)
    return Reach(file, (_instant(column.type, found.lower), _instant(column.type, found.upper)))


def _instant(kind: str, text: str) -> datetime:
    if kind == "date":
        day = date.fromisoformat(text)
        return datetime(day.year, day.month, day.day, tzinfo=UTC)
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
