"""Makes new states of a table: create, append, replace files, change columns.

Each act takes a state and returns another; nothing existing is touched, so a state that is never
committed is garbage and harms nobody. Everything is durable before a content is returned.
Layout: `tables/<uuid>/data/*.parquet`, `tables/<uuid>/metadata/*`, `tables/<uuid>/profiles/*`.
Deletes of single rows are not here: a file is replaced as a whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace as changed
from datetime import datetime
from pathlib import Path
from typing import Any

from instep.canonical import to_microseconds
from instep.engines.engine import WrittenFile
from instep.engines.schema import Column, Schema, sql_type_of
from instep.errors import ConflictError, InternalError, InvalidError
from instep.faults import reached
from instep.history.objects import write_durably
from instep.tables.content import TableContent
from instep.tables.iceberg import (
    Marked,
    Metadata,
    Status,
    listing_bytes,
    manifest_bytes,
    manifest_list_bytes,
    new_metadata,
    with_schema,
    with_snapshot,
)
from instep.tables.read import (
    LIST_DIGEST,
    LISTING,
    LISTING_DIGEST,
    Entry,
    Manifest,
    current_schema,
    current_snapshot,
    files_digest,
    load_entries,
    load_manifests,
    table_folder,
)
from instep.tables.relocate import metadata_here

MERGED_MANIFESTS = 32
"""From this many manifests on, the next snapshot merges them into one: a list stays short."""

_NAME = re.compile(r"[a-z_][a-z0-9_]*")


def check_table_name(name: str) -> None:
    """Holds that a table can have this name.

    Raises:
        InvalidError (kind "bad-name").
    """
    if not _NAME.fullmatch(name):
        raise InvalidError(
            f'Table name "{name}" is not allowed: expected small letters, digits and _, not '
            "beginning with a digit. Choose another name.",
            kind="bad-name",
            name=name,
        )


def create_table(root: Path, name: str, columns: Sequence[Column], *, at: datetime) -> TableContent:
    """Returns a new table without rows; its columns get the field ids 1 to n, in their order.

    Raises:
        InvalidError (kind "bad-name", "repeated-column", "unsupported-type").
    """
    check_table_name(name)
    schema = Schema(tuple(changed(column, id=n) for n, column in enumerate(columns, 1)))
    _check_columns(schema)
    table = str(uuid.uuid4())
    folder = root.resolve() / "tables" / table
    for part in ("data", "metadata", "profiles"):
        (folder / part).mkdir(parents=True)
    _sync_folders(folder, folder.parent)
    metadata = new_metadata(table, str(folder), schema, to_microseconds(at) // 1000)
    return _save(root, table, metadata, files_digest(()))


def data_folder(root: Path, content: TableContent) -> Path:
    """Returns the folder into which an engine writes files for `append` and `replace`."""
    return table_folder(root, content) / "data"


def append(
    root: Path, content: TableContent, files: Sequence[WrittenFile], *, at: datetime
) -> TableContent:
    """Returns the table with `files` added; they must lie in its data folder, durable.

    The same files can be appended again to a newer state: an append is an operation, not a value.

    Raises:
        InternalError (kind "misplaced-file").
    """
    return replace(root, content, files, (), at=at)


def replace(
    root: Path,
    content: TableContent,
    added: Sequence[WrittenFile],
    removed: Collection[str],
    *,
    at: datetime,
) -> TableContent:
    """Returns the table without the files `removed` (absolute paths) and with `added`.

    Raises:
        ConflictError (kind "file-not-live"): one of `removed` is not in this state.
        InternalError (kind "misplaced-file").
    """
    if not added and not removed:
        return content
    metadata = metadata_here(root, content)
    folder = table_folder(root, content)
    _check_placed(folder, added)
    kept = [
        (manifest, load_entries(folder, manifest)) for manifest in load_manifests(folder, metadata)
    ]
    _check_live(kept, removed)
    snapshot_id = secrets.randbits(62) + 1
    sequence = metadata["last-sequence-number"] + 1
    writer = _Writer(folder, metadata, snapshot_id, sequence)
    manifests = _rearranged(writer, kept, added, frozenset(removed))
    live = [
        entry.file
        for _, entries in kept
        for entry in entries
        if entry.file.path not in removed
    ] + list(added)  # fmt: skip
    summary = _summary(added, len(removed), live)
    snapshot = writer.snapshot(manifests, summary, to_microseconds(at) // 1000)
    digest = files_digest([file.digest for file in live])
    return _save(root, content.uuid, with_snapshot(metadata, snapshot), digest)


def set_columns(
    root: Path, content: TableContent, columns: Sequence[Column], *, at: datetime
) -> TableContent:
    """Returns the table with `columns`: a known name keeps its field id, a new one gets a new id.

    Ids given in `columns` are ignored. Data files are not touched: a new column reads as null in
    old rows. An id is never used twice in a table's life, whatever the branch.

    Raises:
        InvalidError (kind "repeated-column", "unsupported-type").
        InvalidError (kind "type-mismatch"): a column's type cannot be read from the old files.
        InvalidError (kind "null-in-required"): a new column is required, but old rows lack it.
    """
    metadata = metadata_here(root, content)
    before = {column.name.lower(): column for column in current_schema(metadata).columns}
    new = [column for column in columns if column.name.lower() not in before]
    ids = iter(_reserved_ids(table_folder(root, content), metadata["last-column-id"], len(new)))
    after = Schema(
        tuple(
            changed(
                column,
                id=before[column.name.lower()].id if column not in new else next(ids),
            )
            for column in columns
        )
    )
    _check_columns(after)
    _check_evolution(before, after, has_rows=current_snapshot(metadata) is not None)
    if after == current_schema(metadata):
        return content
    return _with_schema(root, content, metadata, after, at)


def rename_column(
    root: Path, content: TableContent, before: str, after: str, *, at: datetime
) -> TableContent:
    """Returns the table with one column under another name; its field id stays.

    Raises:
        InvalidError (kind "no-such-column", "repeated-column").
    """
    metadata = metadata_here(root, content)
    schema = current_schema(metadata)
    renamed = schema.column(before)
    columns = tuple(
        changed(column, name=after) if column is renamed else column for column in schema.columns
    )
    _check_columns(Schema(columns))
    return _with_schema(root, content, metadata, Schema(columns), at)


def with_columns(
    root: Path, content: TableContent, schema: Schema, *, at: datetime
) -> TableContent:
    """Returns the table with the columns `schema`, whose field ids are all the table's own."""
    metadata = metadata_here(root, content)
    if schema == current_schema(metadata):
        return content
    _check_columns(schema)
    return _with_schema(root, content, metadata, schema, at)


class _Writer:
    """The files of one new snapshot; each gets a name that nobody else uses."""

    def __init__(self, folder: Path, metadata: Metadata, snapshot_id: int, sequence: int) -> None:
        self.folder = folder
        self.metadata = metadata
        self.snapshot_id = snapshot_id
        self.sequence = sequence

    def manifest(self, marked: Sequence[Marked]) -> Manifest:
        """Writes one manifest and its JSON copy."""
        name = f"{uuid.uuid4().hex}-m"
        schema = current_schema(self.metadata)
        avro = manifest_bytes(schema, self.metadata["current-schema-id"], self.snapshot_id, marked)
        live = [one for one in marked if one.status is not Status.DELETED]
        copied = _encode(_entries_json(self.folder, live, self.sequence))
        metadata = self.folder / "metadata"
        write_durably(metadata / f"{name}.avro", avro)
        write_durably(metadata / f"{name}.json", copied)
        sequences = [one.sequence_number or self.sequence for one in live]
        return Manifest(
            path=f"{name}.avro",
            length=len(avro),
            path_digest=hashlib.sha256(avro).hexdigest(),
            sequence_number=self.sequence,
            min_sequence_number=min(sequences, default=self.sequence),
            snapshot_id=self.snapshot_id,
            added=_counted(marked, Status.ADDED),
            existing=_counted(marked, Status.EXISTING),
            deleted=_counted(marked, Status.DELETED),
            entries=f"{name}.json",
            digest=hashlib.sha256(copied).hexdigest(),
            live_files=len(live),
        )

    def snapshot(
        self, manifests: Sequence[Manifest], summary: Mapping[str, str], at_ms: int
    ) -> Metadata:
        """Writes the manifest list and its JSON copy, and returns the snapshot that names them."""
        parent = current_snapshot(self.metadata)
        parent_id = parent["snapshot-id"] if parent else None
        name = f"snap-{self.snapshot_id}-{uuid.uuid4().hex}"
        metadata = self.folder / "metadata"
        avro = manifest_list_bytes(
            str(metadata), self.snapshot_id, parent_id, self.sequence, manifests
        )
        listing = listing_bytes(manifests)
        write_durably(metadata / f"{name}.avro", avro)
        write_durably(metadata / f"{name}.json", listing)
        return {
            "snapshot-id": self.snapshot_id,
            **({"parent-snapshot-id": parent_id} if parent_id is not None else {}),
            "sequence-number": self.sequence,
            "timestamp-ms": max(at_ms, self.metadata["last-updated-ms"]),
            "manifest-list": str(metadata / f"{name}.avro"),
            "summary": {
                **summary,
                LISTING: f"{name}.json",
                LISTING_DIGEST: hashlib.sha256(listing).hexdigest(),
                LIST_DIGEST: hashlib.sha256(avro).hexdigest(),
            },
            "schema-id": self.metadata["current-schema-id"],
        }


def _rearranged(
    writer: _Writer,
    kept: Sequence[tuple[Manifest, tuple[Entry, ...]]],
    added: Sequence[WrittenFile],
    removed: frozenset[str],
) -> list[Manifest]:
    """Returns the new list of manifests: untouched ones as they are, all others in one new one."""
    merge = len(kept) >= MERGED_MANIFESTS
    untouched: list[Manifest] = []
    marked = [Marked(Status.ADDED, file, writer.snapshot_id, None) for file in added]
    for manifest, entries in kept:
        if merge or any(entry.file.path in removed for entry in entries):
            marked += [_carried(entry, removed, writer.snapshot_id) for entry in entries]
        elif entries:
            untouched.append(manifest)
    return [*untouched, writer.manifest(marked)]


def _carried(entry: Entry, removed: frozenset[str], snapshot_id: int) -> Marked:
    if entry.file.path in removed:
        return Marked(Status.DELETED, entry.file, snapshot_id, entry.sequence_number)
    return Marked(Status.EXISTING, entry.file, entry.snapshot_id, entry.sequence_number)


def _with_schema(
    root: Path, content: TableContent, metadata: Metadata, schema: Schema, at: datetime
) -> TableContent:
    after = with_schema(metadata, schema, to_microseconds(at) // 1000)
    return _save(root, content.uuid, after, content.files)


def _save(root: Path, table: str, metadata: Metadata, files: str) -> TableContent:
    data = _encode(metadata)
    digest = hashlib.sha256(data).hexdigest()
    name = f"{metadata['last-sequence-number']:05d}-{digest[:32]}.metadata.json"
    path = f"tables/{table}/metadata/{name}"
    reached("tables.metadata.before")
    write_durably(root.resolve() / path, data)
    reached("tables.metadata.after")
    return TableContent(path, digest, table, files)


def _summary(
    added: Sequence[WrittenFile], removed: int, live: Sequence[WrittenFile]
) -> dict[str, str]:
    operation = "append" if not removed else "overwrite" if added else "delete"
    counts = {
        "added-data-files": len(added),
        "added-records": sum(file.rows for file in added),
        "added-files-size": sum(file.size_bytes for file in added),
        "deleted-data-files": removed,
        "total-data-files": len(live),
        "total-records": sum(file.rows for file in live),
        "total-files-size": sum(file.size_bytes for file in live),
        "total-delete-files": 0,
        "total-position-deletes": 0,
        "total-equality-deletes": 0,
    }
    return {"operation": operation, **{name: str(count) for name, count in counts.items()}}


def _entries_json(folder: Path, live: Sequence[Marked], sequence: int) -> dict[str, Any]:
    ids = sorted({one.field_id for mark in live for one in mark.file.columns})
    rows = []
    for mark in live:
        by_id = {one.field_id: one for one in mark.file.columns}
        columns = [
            None
            if (one := by_id.get(field_id)) is None
            else [one.size_bytes, one.values, one.nulls, one.nans, one.lower, one.upper]
            for field_id in ids
        ]
        file = mark.file
        name = Path(file.path).relative_to(folder / "data").as_posix()
        rows.append(
            [name, file.rows, file.size_bytes, file.digest, mark.snapshot_id,
             mark.sequence_number or sequence, columns]
        )  # fmt: skip
    return {"columns": ids, "entries": rows}


def _counted(marked: Sequence[Marked], status: Status) -> tuple[int, int]:
    rows = [one.file.rows for one in marked if one.status is status]
    return len(rows), sum(rows)


def _encode(value: Any) -> bytes:  # JSON of a shape made in this module
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _reserved_ids(folder: Path, last: int, count: int) -> list[int]:
    """Returns `count` field ids that no branch of this table has, or will have.

    An id is reserved by creating an empty file of its name, which only one process can do.
    """
    reserved: list[int] = []
    candidate = last
    while len(reserved) < count:
        candidate += 1
        try:
            (folder / "metadata" / f"column-{candidate}").touch(exist_ok=False)
        except FileExistsError:
            continue
        reserved.append(candidate)
    _sync_folders(folder / "metadata")
    return reserved


def _check_columns(schema: Schema) -> None:
    seen: set[str] = set()
    for column in schema.columns:
        sql_type_of(column.type)
        if column.name.lower() in seen:
            raise InvalidError(
                f'Column "{column.name}" is there twice: expected names that are unique ignoring '
                "case. Rename one.",
                kind="repeated-column",
                column=column.name,
            )
        seen.add(column.name.lower())


def _check_evolution(before: Mapping[str, Column], after: Schema, has_rows: bool) -> None:
    for column in after.columns:
        old = before.get(column.name.lower())
        if old is not None and not _is_promotion(old.type, column.type):
            raise InvalidError(
                f'Column "{column.name}" is {old.type} in the table: {column.type} cannot be read '
                "from its files. Give the new column another name.",
                kind="type-mismatch",
                column=column.name,
            )
        if has_rows and column.required and (old is None or not old.required):
            raise InvalidError(
                f'Column "{column.name}" is required, but rows of the table may lack it: expected '
                "an optional column. Make it optional, or rewrite the table.",
                kind="null-in-required",
                column=column.name,
            )


def _is_promotion(before: str, after: str) -> bool:
    """Whether Iceberg lets a column change its type without rewriting files (spec)."""
    if before == after or (before, after) in {("int", "long"), ("float", "double")}:
        return True
    old, new = (re.fullmatch(r"decimal\((\d+), ?(\d+)\)", kind) for kind in (before, after))
    return bool(old and new and old[2] == new[2] and int(new[1]) >= int(old[1]))


def _check_placed(folder: Path, files: Sequence[WrittenFile]) -> None:
    for file in files:
        if not Path(file.path).is_relative_to(folder / "data"):
            raise InternalError(
                f"File {file.path} lies outside the table: expected a file in {folder / 'data'}. "
                "Report this as a fault of Instep.",
                kind="misplaced-file",
                path=file.path,
            )


def _check_live(
    kept: Sequence[tuple[Manifest, tuple[Entry, ...]]], removed: Collection[str]
) -> None:
    live = {entry.file.path for _, entries in kept for entry in entries}
    for path in sorted(removed):
        if path not in live:
            raise ConflictError(
                f"File {path} is not part of the table any more: expected a live file. "
                "Read the table again, then try again.",
                kind="file-not-live",
                path=path,
            )


def _sync_folders(*folders: Path) -> None:
    for folder in folders:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
