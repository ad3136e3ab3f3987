"""Makes a state of what another writer (pyiceberg, Spark) wrote, and after that it is like any.

Its new manifests are read once, its files hashed and made durable, what Instep's readers read
(JSON copies and a listing) is written beside, and the metadata is written again, bounded. Manifests
and files that the state before had are not opened again, so the cost follows the change.
Nothing that the other writer wrote is changed. Not here: who may write, and under which name.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from instep.engines.bring import brought
from instep.engines.engine import WrittenFile
from instep.engines.schema import Schema
from instep.errors import InvalidError
from instep.history.intact import remember_written, written
from instep.history.objects import sync_folder
from instep.history.places import on_s3
from instep.tables.addresses import name_below, plain_address
from instep.tables.columns import check_columns, current_schema
from instep.tables.content import TableContent
from instep.tables.copies import copy_bytes, load_base, load_copy, load_digests
from instep.tables.field_ids import settled
from instep.tables.foreign import (
    Seen,
    Told,
    equality_deletes,
    load_told,
    manifest_files,
    seen,
    written_file,
)
from instep.tables.foreign_layouts import check_layouts
from instep.tables.iceberg import KEPT_SNAPSHOTS, Metadata, listing_bytes
from instep.tables.manifest import Entries, Manifest, entries_of, time_bounds
from instep.tables.partition import Spec, check_spec, summaries
from instep.tables.read import (
    LIST_DIGEST,
    LISTING,
    LISTING_DIGEST,
    current_snapshot,
    data_file,
    file_set,
    files_digest,
    load_listing,
)
from instep.tables.relocate import metadata_here
from instep.tables.small_files import SMALL_BYTES, SMALL_FILES, small_files
from instep.tables.snapshot import save
from instep.tables.specs import kept_schemas, specs_of

if TYPE_CHECKING:
    from pyiceberg.manifest import ManifestFile

_OURS = "instep."
"""With this begins what only Instep writes into a snapshot's summary."""

_ELSEWHERE = ("write.data.path", "write.metadata.path", "write.object-storage.path")
"""Properties that make other writers put files outside the table's folder."""

_KEPT = (
    "format-version", "table-uuid", "last-sequence-number", "last-updated-ms", "last-column-id",
    "current-schema-id", "default-spec-id", "partition-specs", "last-partition-id",
    "default-sort-order-id", "sort-orders", "properties", "refs", "snapshots", "next-row-id",
)  # fmt: skip
"""What of others' metadata is kept as it is; files of statistics are not, as nobody reads them."""

_READ_AT_ONCE = 4
"""How many files are read side by side; hashing holds no lock."""


def adopt(root: Path, base: TableContent | None, metadata: Metadata) -> TableContent:
    """Returns the state that `metadata` describes, written by others on top of `base`.

    `metadata` is Iceberg's JSON; its location is the table's folder in this lake. The newest
    snapshots are kept, and partition specs, sort orders and properties.

    Raises:
        InvalidError (kinds "equality-deletes", "foreign-file", "foreign-metadata", "no-field-ids",
            "damaged-file", "field-id-clash").
        InvalidError (kind "type-mismatch"): a file holds a column otherwise than the table.
        InvalidError (kinds "unsupported-type", "repeated-column", "bad-column-name",
            "no-such-column", "bad-transform"): a column or partition is none that Instep has.
        InternalError (kind "damaged-object"): files were replaced that had other bytes than when
            they were written, which may be in those that take their place.
    """
    table = str(metadata["table-uuid"])
    folder = root / "tables" / table
    _check(folder, base, metadata)
    before = metadata_here(root, base) if base else None
    adoption = _Adoption(root, folder, base, before, metadata)
    snapshots = adoption.snapshots()
    told = settled(folder, before, {**metadata, "snapshots": snapshots}, adoption.field_ids)
    after = _bounded(folder, told)
    _check_layout(after)
    return save(root, table, after, adoption.files_digest(after), adoption.beside)


@dataclass(slots=True)
class _Adoption:
    """One adoption under way: what is known already, and what is to be written beside."""

    root: Path
    folder: Path
    base: TableContent | None
    before: Metadata | None
    metadata: Metadata
    beside: dict[Path, bytes] = field(default_factory=dict)
    field_ids: set[int] = field(default_factory=set)
    """Ids inside the files that were looked at."""
    manifests: dict[str, Manifest] = field(default_factory=dict)
    entries: dict[str, Entries] = field(default_factory=dict)
    """Of manifests that are new here: their copies are not written yet."""
    files: dict[str, WrittenFile] = field(default_factory=dict)
    listings: dict[int, tuple[Manifest, ...]] = field(default_factory=dict)

    def snapshots(self) -> list[Metadata]:
        """Returns the newest snapshots; those that are new here with what Instep adds to them."""
        known = {one["snapshot-id"]: one for one in (self.before or {}).get("snapshots", ())}
        for one in _newest(self.metadata):
            identifier = one["snapshot-id"]
            if identifier not in known:
                parent = known.get(one.get("parent-snapshot-id"))
                if parent is None and self.before is not None:
                    parent = current_snapshot(self.before)
                known[identifier] = self._adopted(one, parent)
        return [known[one["snapshot-id"]] for one in _newest(self.metadata)]

    def files_digest(self, after: Metadata) -> str:
        """Returns the digest of the live files of the current snapshot."""
        snapshot = current_snapshot(after)
        manifests = self._listing(snapshot) if snapshot else ()
        digests: list[str] = []
        for one in manifests:
            made = self.entries.get(one.path)
            digests += made.digests if made else load_digests(self.folder, one)
        return files_digest(digests)

    def _listing(self, snapshot: Metadata) -> tuple[Manifest, ...]:
        made = self.listings.get(snapshot["snapshot-id"])
        if made is not None:
            return made
        summary = snapshot["summary"]
        path = self.folder / "metadata" / summary[LISTING]
        return load_listing(path, summary[LISTING_DIGEST])

    def _adopted(self, snapshot: Metadata, parent: Metadata | None) -> Metadata:
        """Reads what a new snapshot has and `parent` has not."""
        old = self._listing(parent) if parent else ()
        self.manifests.update((one.path, one) for one in old)
        place = self.folder / "metadata"
        path = place / name_below(place, snapshot["manifest-list"])
        digest = seen(path, is_data=False).digest
        listed = {self._name(one.manifest_path): one for one in manifest_files(path)}
        gone = [one for one in old if one.path not in listed]
        self._remember(gone)
        manifests = tuple(self._manifest(name, one) for name, one in listed.items())
        had = {one.path for one in old}
        self._check_rewritten(gone, [one for one in manifests if one.path not in had])
        self.listings[snapshot["snapshot-id"]] = manifests
        listing = listing_bytes(manifests)
        name = f"{path.stem}-{uuid.uuid4().hex}.json"
        self.beside[place / name] = listing
        size = int(parent["summary"]["total-files-size"]) if parent else 0
        size += sum(self._size(one) for one in manifests if one.path not in had)
        size -= sum(self._size(one) for one in gone)
        small = small_files(parent["summary"]) if parent else 0
        small += sum(self._small(one) for one in manifests if one.path not in had)
        small -= sum(self._small(one) for one in gone)
        told = snapshot.get("summary", {})
        return {
            **snapshot,
            "manifest-list": str(path),
            "summary": {
                **{key: text for key, text in told.items() if not key.startswith(_OURS)},
                **_totals(manifests, size, small),
                LISTING: name,
                LISTING_DIGEST: hashlib.sha256(listing).hexdigest(),
                LIST_DIGEST: digest,
            },
        }

    def _check_rewritten(self, gone: Sequence[Manifest], made: Sequence[Manifest]) -> None:
        """Holds that files which others took new ones from had the bytes that were written.

        Where data files go and others come, these may have been written from those. What the store
        of a lake on S3 gave another writer nobody here can tell.

        Raises:
            InternalError (kind "damaged-object").
        """
        had, has = (
            {name for one in manifests if not one.holds_deletes for name in self._names(one)}
            for manifests in (gone, made)
        )
        left = had - has
        if self.base is None or not left or not has - had or on_s3(self.folder):
            return
        paths = [f"{self.folder}/data/{name}" for name in left]
        whole = file_set(self.root, self.base, "rewritten")
        brought(whole.only(paths), self.root, self.root / "staging", again=True)

    def _names(self, manifest: Manifest) -> Sequence[str]:
        """Returns the names of a manifest's live files."""
        if not manifest.live_files:
            return ()
        made = self.entries.get(manifest.path)
        return (made.base if made else load_base(self.folder, manifest)).names

    def _name(self, address: str) -> str:
        """Returns the name of a manifest; of one that is known already the disk is not asked."""
        place = self.folder / "metadata"
        name = address.removeprefix(f"{place}/")
        return name if name in self.manifests else name_below(place, address)

    def _remember(self, gone: Sequence[Manifest]) -> None:
        """Takes the files of manifests that were rewritten: they need not be read again."""
        for manifest in gone:
            copied = self.entries.get(manifest.path) or load_copy(self.folder, manifest)
            for index, name in enumerate(copied.base.names):
                self.files[name] = data_file(self.folder, copied, index)

    def _size(self, manifest: Manifest) -> int:
        return sum(self._sizes(manifest))

    def _small(self, manifest: Manifest) -> int:
        if manifest.holds_deletes:
            return 0
        return sum(size < SMALL_BYTES for size in self._sizes(manifest))

    def _sizes(self, manifest: Manifest) -> Sequence[int]:
        made = self.entries.get(manifest.path)
        return made.base.sizes if made else load_base(self.folder, manifest).sizes

    def _manifest(self, name: str, listed: ManifestFile) -> Manifest:
        known = self.manifests.get(name)
        if known is not None and known.length == listed.manifest_length:
            return known
        path = self.folder / "metadata" / name
        found = seen(path, is_data=False)
        spec = specs_of(self.metadata)[listed.partition_spec_id]
        told = load_told(self.folder, path, listed, spec)
        entries = self._entries(told)
        copied, head = copy_bytes(entries)
        copy_name = f"{uuid.uuid4().hex}-m.json"
        self.beside[path.parent / copy_name] = copied
        is_deletes = bool(listed.content)
        schema = current_schema(self.metadata)
        added = [one for one in told if one.is_added]
        existing = [one for one in told if not one.is_added]
        made = Manifest(
            path=name,
            length=found.size_bytes,
            path_digest=found.digest,
            sequence_number=listed.sequence_number,
            min_sequence_number=listed.min_sequence_number,
            snapshot_id=listed.added_snapshot_id or 0,
            added=(len(added), sum(one.rows for one in added)),
            existing=(len(existing), sum(one.rows for one in existing)),
            deleted=(listed.deleted_files_count or 0, listed.deleted_rows_count or 0),
            entries=copy_name,
            digest=hashlib.sha256(copied).hexdigest(),
            head=head,
            live_files=len(told),
            spec_id=spec.id,
            holds_deletes=is_deletes,
            bounds=() if is_deletes else time_bounds(entries, schema),
            partitions=summaries(spec, entries.base.partitions),
        )
        self.manifests[name], self.entries[name] = made, entries
        return made

    def _entries(self, told: Sequence[Told]) -> Entries:
        self._look_at([one for one in told if one.name not in self.files])
        entries = entries_of(
            [one.name for one in told],
            [replace(self.files[one.name], partition=one.partition) for one in told],
            0,
            0,
            [one.applies for one in told if one.applies is not None],
        )
        base = replace(
            entries.base,
            snapshots=[one.snapshot_id for one in told],
            sequences=[one.sequence_number for one in told],
        )
        return replace(entries, base=base)

    def _look_at(self, told: Sequence[Told]) -> None:
        """Reads files that are new here, and makes their names durable."""
        data = self.folder / "data"
        kinds = _kinds(self.metadata)

        def look(one: Told) -> Seen:
            return seen(data / one.name, is_data=one.applies is None)

        if len(told) == 1:  # as most often: no thread has to be started for it
            looked_at = [look(told[0])]
        else:
            with ThreadPoolExecutor(max_workers=_READ_AT_ONCE) as pool:
                looked_at = list(pool.map(look, told))
        remember_written(
            written(data / one.name, found.digest)
            for one, found in zip(told, looked_at, strict=True)
        )
        for one, found in zip(told, looked_at, strict=True):
            self.files[one.name] = written_file(self.folder, one, found, kinds)
            self.field_ids |= found.field_ids
        layouts = {
            found.layout: data / one.name
            for one, found in zip(told, looked_at, strict=True)
            if one.applies is None
        }
        check_layouts(self.root, current_schema(self.metadata), layouts)
        for folder in {data / above for one in told for above in Path(one.name).parents}:
            sync_folder(folder)


def _newest(metadata: Metadata) -> list[Metadata]:
    """Returns the snapshots that are kept: the newest ones, and the current one in any case."""
    ordered = sorted(metadata.get("snapshots", ()), key=lambda one: int(one["sequence-number"]))
    current = current_snapshot({"snapshots": ordered, **metadata})
    kept = ordered[-KEPT_SNAPSHOTS:]
    if current is not None and current not in kept:
        kept = [current, *kept[1:]]
    return kept


def _bounded(folder: Path, told: Metadata) -> Metadata:
    """Returns metadata as Instep keeps it: no more snapshots and schemas than are of use."""
    snapshots = told["snapshots"]
    kept = {one["snapshot-id"] for one in snapshots}
    return {
        **{key: told[key] for key in _KEPT if key in told},
        "location": str(folder),
        "schemas": kept_schemas(told),
        "current-snapshot-id": told.get("current-snapshot-id") or -1,
        "snapshot-log": [one for one in told.get("snapshot-log", ()) if one["snapshot-id"] in kept],
        "metadata-log": [],
    }


def _totals(manifests: Sequence[Manifest], size: int, small: int) -> dict[str, str]:
    """Counts what a snapshot holds: planning and `row_count` rely on it."""
    data = [one for one in manifests if not one.holds_deletes]
    deletes = [one for one in manifests if one.holds_deletes]
    counts = {
        "total-data-files": sum(one.live_files for one in data),
        "total-records": sum(one.added[1] + one.existing[1] for one in data),
        "total-files-size": size,
        "total-delete-files": sum(one.live_files for one in deletes),
        "total-position-deletes": sum(one.added[1] + one.existing[1] for one in deletes),
        "total-equality-deletes": 0,
        SMALL_FILES: small,
    }
    return {key: str(count) for key, count in counts.items()}


def _kinds(metadata: Metadata) -> dict[int, str]:
    """Returns the types of all fields that are not nested, as the current schema has them."""
    return current_schema(metadata).primitive_types()


def _check(folder: Path, base: TableContent | None, metadata: Metadata) -> None:
    """Holds that metadata is of this table, in its folder, and has nothing that Instep has not."""
    faults = []
    if metadata.get("format-version") not in (2, 3):
        faults.append((f"format version {metadata.get('format-version')}", "2 or 3"))
    if base is not None and base.uuid != str(metadata["table-uuid"]):
        faults.append((f"table {metadata['table-uuid']}", base.uuid))
    if plain_address(str(metadata["location"])) != str(folder):
        faults.append((f"location {metadata['location']}", str(folder)))
    if others := sorted(metadata.get("refs", {}).keys() - {"main"}):
        faults.append((f"branch or tag {others[0]}", "those of the lake, not of one table"))
    if moved := [key for key in _ELSEWHERE if key in metadata.get("properties", {})]:
        faults.append((f"property {moved[0]}", "files in the table's own folder"))
    for what, expected in faults:
        raise InvalidError(
            f"Table metadata has {what}: expected {expected}. Change it, then commit again.",
            kind="foreign-metadata",
        )
    snapshot = current_snapshot({"snapshots": (), **metadata})
    if snapshot and int(snapshot.get("summary", {}).get("total-equality-deletes", 0)):
        raise equality_deletes(folder.name)


def _check_layout(metadata: Metadata) -> None:
    schema: Schema = current_schema(metadata)
    check_columns(schema)
    spec: Spec = specs_of(metadata)[metadata["default-spec-id"]]
    check_spec(spec, schema)
