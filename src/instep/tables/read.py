"""Answers what a table holds at one commit: schema, live files, rows.

Reads JSON only: the Iceberg metadata file, and beside each manifest list and manifest a JSON copy
of it that also keeps what Iceberg has no place for, the SHA-256 of each data file. Each file names
the digest of the next, from the table's content down, so a changed byte is noticed. Neither
pyiceberg nor DuckDB is imported here, but to count a table of which rows are deleted in place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from instep.engines.engine import DeleteFile, FileSet, Slice, WrittenFile
from instep.engines.layout import Layout, PartitionField
from instep.engines.schema import Schema
from instep.errors import InternalError, InvalidError
from instep.tables.columns import current_schema
from instep.tables.content import TableContent
from instep.tables.copies import (
    load_base,
    load_copy,
    load_digests,
    load_json,
    load_names,
    load_origins,
    load_parsed,
)
from instep.tables.manifest import Entries, Manifest, Partition, Summary
from instep.tables.prune import files_that_may_hold, manifest_may_hold
from instep.tables.specs import orders_of, specs_of

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


def schema_of(root: Path, content: TableContent) -> Schema:
    """Returns the columns of a table, with their field ids."""
    return current_schema(load_metadata(root, content))


def row_count(root: Path, content: TableContent) -> int:
    """Returns the number of live rows, exactly; reads files only where delete files apply."""
    metadata = load_metadata(root, content)
    recorded = _total(metadata, "total-records")
    if not _total(metadata, "total-delete-files"):
        return recorded
    whole = file_set(root, content, "counted")
    touched = tuple(path for path in whole.files if path in whole.deletes)
    rows = {file.path: file.rows for file in data_files(root, content)}
    counted = _live_rows(root, replace(whole, files=touched))
    return recorded - sum(rows[path] for path in touched) + counted


def has_deletes(root: Path, content: TableContent) -> bool:
    """Returns whether delete files apply to the table: rows of its files are not there any more."""
    return bool(_total(load_metadata(root, content), "total-delete-files"))


def file_count(root: Path, content: TableContent) -> int:
    """Returns the number of live files, exactly."""
    return _total(load_metadata(root, content), "total-data-files")


def size_bytes(root: Path, content: TableContent) -> int:
    """Returns the size of the live files, exactly."""
    return _total(load_metadata(root, content), "total-files-size")


def data_files(
    root: Path,
    content: TableContent,
    part: Slice | None = None,
    *,
    partition: Sequence[PartitionField] | None = None,
    statistics: bool = True,
) -> tuple[DataFile, ...]:
    """Returns the live files that may hold rows of `part`, in the order they were added.

    With `partition` only those of these fields; without `statistics` they have no `columns`.

    Raises:
        InvalidError (kind "no-such-column"): the slice's column does not exist.
    """
    planned, specs = _planned(root, content, part), specs_of(load_metadata(root, content))
    if partition is not None:
        planned = [one for one in planned if specs[one.partition[0]].fields == tuple(partition)]
    folder = table_folder(root, content)
    manifests = {one.manifest.entries: one.manifest for one in planned}
    load = load_copy if statistics else load_names
    copies = {name: load(folder, one) for name, one in manifests.items()}
    return tuple(data_file(folder, copies[one.manifest.entries], one.index) for one in planned)


def counted_as(
    root: Path, content: TableContent, paths: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Returns, by path, the digests that tell the rows of some of the live data files."""
    folder = table_folder(root, content)
    data = f"{folder}/data/"
    wanted = {path.removeprefix(data) for path in paths}
    found: dict[str, tuple[str, ...]] = {}
    for manifest in load_manifests(folder, load_metadata(root, content)):
        if manifest.holds_deletes or not manifest.live_files:
            continue
        names = load_base(folder, manifest).names
        here = [index for index, name in enumerate(names) if name in wanted]
        if here:
            origins, digests = load_origins(folder, manifest), load_digests(folder, manifest)
            for index in here:
                found[f"{data}{names[index]}"] = origins.get(index) or (digests[index],)
    return found


def file_set(root: Path, content: TableContent, name: str, part: Slice | None = None) -> FileSet:
    """Returns a table as an engine reads it, under the SQL name `name`."""
    data = f"{table_folder(root, content)}/data/"
    planned = _planned(root, content, part)
    files = tuple(data + one.name for one in planned)
    deletes = _deletes(root, content, planned)
    digests = _digests(root, content, planned)
    return FileSet(name, files, schema_of(root, content), part, deletes, digests)


def layout_of(root: Path, content: TableContent) -> Layout:
    """Returns how an engine lays out the rows of new files."""
    metadata = load_metadata(root, content)
    spec = specs_of(metadata)[metadata["default-spec-id"]]
    order = orders_of(metadata)[metadata["default-sort-order-id"]]
    return Layout(spec.fields, order.fields)


def table_folder(root: Path, content: TableContent) -> Path:
    """Returns the absolute folder of a table; `root` is absolute and without links, as a lake's."""
    return root / "tables" / content.uuid


def load_metadata(root: Path, content: TableContent) -> dict[str, Any]:  # Iceberg's JSON
    """Returns the Iceberg metadata of a table's state, verified against its digest.

    Raises:
        NotFoundError (kind "no-such-object"), InternalError (kind "damaged-object").
    """
    now = located(root, content)
    return load_json(root / now.metadata, now.digest)


def located(root: Path, content: TableContent) -> TableContent:
    """Returns a state with the metadata that stands for it now: its own, or what replaced that.

    After a move, a compaction or an erasure the state has new metadata under a new name, while its
    content, which is part of commits, stays as it is (decision 0014).
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
    return root / located(root, content).metadata


def current_snapshot(metadata: dict[str, Any]) -> dict[str, Any] | None:  # Iceberg's JSON
    """Returns the current snapshot inside Iceberg metadata; None before the first."""
    current = metadata.get("current-snapshot-id")
    return next((s for s in metadata["snapshots"] if s["snapshot-id"] == current), None)


def load_manifests(folder: Path, metadata: dict[str, Any]) -> tuple[Manifest, ...]:  # as above
    """Returns the manifests of the current snapshot, those of delete files too.

    Raises:
        InvalidError (kind "equality-deletes").
    """
    snapshot = current_snapshot(metadata)
    if snapshot is None:
        return ()
    summary = snapshot["summary"]
    check_no_equality_deletes(folder.name, int(summary.get("total-equality-deletes", 0)))
    return load_listing(folder / "metadata" / summary[LISTING], summary[LISTING_DIGEST])


def check_no_equality_deletes(table: str, count: int) -> None:
    """Holds that no rows of a table are deleted by their values.

    Raises:
        InvalidError (kind "equality-deletes").
    """
    if count:
        raise InvalidError(
            f"Table {table} has {count} equality deletes: expected rows deleted by their position, "
            "or files written anew. Rewrite its data files with the engine that wrote them, then "
            "try again.",
            kind="equality-deletes",
            table=table,
        )


def load_listing(path: Path, digest: str) -> tuple[Manifest, ...]:
    """Returns the manifests of one manifest list, from its JSON copy.

    Raises:
        NotFoundError (kind "no-such-object"), InternalError (kind "damaged-object").
    """
    return load_parsed(path, digest, _manifests)


def load_entries(folder: Path, manifest: Manifest) -> tuple[Entry, ...]:
    """Returns the live files of one manifest, delete files as the files that they are."""
    if not manifest.live_files:
        return ()
    entries = load_copy(folder, manifest)
    return tuple(
        Entry(data_file(folder, entries, index), snapshot, sequence)
        for index, (snapshot, sequence) in enumerate(
            zip(entries.base.snapshots, entries.base.sequences, strict=True)
        )
    )


def files_digest(digests: Sequence[str]) -> str:
    """Returns the digest of a set of files: SHA-256 over their sorted SHA-256s, one a line.

    A compacted file counts as its origins.
    """
    return hashlib.sha256("".join(f"{one}\n" for one in sorted(digests)).encode()).hexdigest()


def _total(metadata: dict[str, Any], name: str) -> int:
    snapshot = current_snapshot(metadata)
    return int(snapshot["summary"].get(name, 0)) if snapshot else 0


def _live_rows(root: Path, files: FileSet) -> int:
    from instep.engines.duckdb import DuckDB

    with DuckDB(root / "staging") as engine:
        engine.view(files)
        return int(engine.rows('SELECT count(*) FROM "counted"')[0][0])


def _ends(values: list[str]) -> tuple[str, str]:
    return values[0], values[1]


def _pair(values: list[int]) -> tuple[int, int]:
    return values[0], values[1]


@dataclass(frozen=True, slots=True)
class _Planned:
    """A live data file by its place in a manifest."""

    sequence: int
    manifest: Manifest
    index: int
    name: str
    partition: tuple[int, Partition]


def _planned(root: Path, content: TableContent, part: Slice | None) -> list[_Planned]:
    """Returns the live data files that may hold rows of a slice, in the order they were added."""
    metadata = load_metadata(root, content)
    folder = table_folder(root, content)
    column = None if part is None else current_schema(metadata).column(part.column)
    specs = specs_of(metadata)
    found: list[_Planned] = []
    for manifest in load_manifests(folder, metadata):
        if manifest.holds_deletes or not manifest.live_files:
            continue
        indexes: Iterable[int] = range(manifest.live_files)
        if part is not None and column is not None:
            if not manifest_may_hold(manifest, column, part.window):
                continue
            indexes = files_that_may_hold(
                folder, manifest, specs[manifest.spec_id], column, part.window
            )
        base = load_base(folder, manifest)
        found += [
            _Planned(
                base.sequences[index],
                manifest,
                index,
                base.names[index],
                (manifest.spec_id, base.partitions[index]),
            )
            for index in indexes
        ]
    found.sort(key=lambda one: one.sequence)
    return found


def _digests(root: Path, content: TableContent, planned: Sequence[_Planned]) -> dict[str, str]:
    folder = table_folder(root, content)
    manifests = {one.manifest.entries: one.manifest for one in planned}
    digests = {name: load_digests(folder, one) for name, one in manifests.items()}
    return {
        f"{folder}/data/{one.name}": digests[one.manifest.entries][one.index] for one in planned
    }


def data_file(folder: Path, entries: Entries, index: int) -> DataFile:
    """Returns one file of a manifest as a record."""
    base = entries.base
    statistics = (lists.of(one, index) for one, lists in entries.columns.items())
    return DataFile(
        path=f"{folder}/data/{base.names[index]}",
        rows=base.rows[index],
        size_bytes=base.sizes[index],
        digest=entries.digests[index],
        columns=tuple(one for one in statistics if one is not None),
        partition=base.partitions[index],
        origins=entries.origins.get(index, ()),
    )


def _deletes(
    root: Path, content: TableContent, planned: Sequence[_Planned]
) -> dict[str, tuple[DeleteFile, ...]]:
    """Returns the delete files by the data file they apply to, by Iceberg's rules.

    A delete file reaches data files that are not newer than itself: the one it is for, or all of
    its own partition.
    """
    metadata = load_metadata(root, content)
    folder = table_folder(root, content)
    files = [
        one
        for manifest in load_manifests(folder, metadata)
        if manifest.holds_deletes and manifest.live_files
        for one in _delete_files(folder, manifest)
    ]
    if not files:
        return {}
    found: dict[str, tuple[DeleteFile, ...]] = {}
    for data in planned:
        path = f"{folder}/data/{data.name}"
        applying = tuple(
            file
            for sequence, where, file in files
            if sequence >= data.sequence
            and (file.data_file == path or (file.data_file is None and where == data.partition))
        )
        if applying:
            found[path] = applying
    return found


def _delete_files(
    folder: Path, manifest: Manifest
) -> list[tuple[int, tuple[int, Partition], DeleteFile]]:
    base = load_base(folder, manifest)
    digests = load_digests(folder, manifest)
    found = []
    for index, applies in enumerate(base.applies):
        data_file = applies.data_file and f"{folder}/data/{applies.data_file}"
        file = DeleteFile(
            f"{folder}/data/{base.names[index]}", base.rows[index], base.sizes[index],
            digests[index], data_file, applies.offset, applies.length,
        )  # fmt: skip
        found.append((base.sequences[index], (manifest.spec_id, base.partitions[index]), file))
    return found


def _manifests(listing: Any) -> tuple[Manifest, ...]:  # JSON of a known shape
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
            head=(one["head"][0], one["head"][1]),
            live_files=one["live"],
            block=one["block"] and _pair(one["block"]),
            spec_id=one["spec"],
            holds_deletes=one["deletes"],
            bounds=tuple(
                (field_id, found and (found[0], found[1])) for field_id, found in one["bounds"]
            ),
            partitions=tuple(Summary(*summary) for summary in one["partitions"]),
        )
        for one in listing["manifests"]
    )
