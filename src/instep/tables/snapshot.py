"""Writes one new snapshot of a table: which files come, which go, which manifests are merged.

Manifests that are neither touched nor merged are not opened. What is carried from one manifest to
another is copied as bytes, not decoded. All new files become durable together, in `Writer.save`,
before a content that names them is returned.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from instep.engines.engine import DeleteFile, WrittenFile
from instep.errors import ConflictError
from instep.faults import reached
from instep.history.objects import write_all_durably
from instep.tables.avro import block_records, has_schema
from instep.tables.columns import current_schema
from instep.tables.content import TableContent
from instep.tables.copies import (
    Known,
    copy_bytes,
    counted,
    encode,
    keep_written,
    known_counted,
    load_base,
    load_copy,
    load_counted,
    verified,
)
from instep.tables.iceberg import Metadata, listing_bytes, with_snapshot
from instep.tables.manifest import (
    Applies,
    Entries,
    Manifest,
    Partition,
    chosen,
    entries_of,
    groups_to_write,
    joined,
    time_bounds,
)
from instep.tables.manifest_avro import (
    Marked,
    Status,
    entry_schema,
    manifest_bytes,
    manifest_list_bytes,
    record_bytes,
)
from instep.tables.partition import Spec, summaries
from instep.tables.read import (
    LIST_DIGEST,
    LISTING,
    LISTING_DIGEST,
    current_snapshot,
    data_file,
    files_digest,
)
from instep.tables.specs import specs_of


@dataclass(frozen=True, slots=True)
class Pending:
    """A manifest that is not written yet: its live files, and all its entries as Avro."""

    entries: Entries
    marked: tuple[Marked, ...]
    spec: Spec
    holds_deletes: bool

    @property
    def live_files(self) -> int:
        return len(self.entries.digests)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many files, rows and bytes; `small` of the files are small."""

    files: int = 0
    rows: int = 0
    size_bytes: int = 0
    small: int = 0

    def plus(self, more: Counts) -> Counts:
        return Counts(
            self.files + more.files,
            self.rows + more.rows,
            self.size_bytes + more.size_bytes,
            self.small + more.small,
        )


class Writer:
    """The files of one new snapshot; each gets a name that nobody else uses."""

    def __init__(self, folder: Path, metadata: Metadata) -> None:
        self.folder = folder
        self.metadata = metadata
        self.snapshot_id = secrets.randbits(62) + 1
        self.sequence: int = metadata["last-sequence-number"] + 1
        self.schema = current_schema(metadata)
        self.specs = specs_of(metadata)
        self._files: dict[Path, bytes] = {}
        self._known: list[Known] = []

    def added(
        self, files: Sequence[WrittenFile], spec: Spec, applies: Sequence[Applies] = ()
    ) -> Pending:
        """Returns new data files, or delete files with what each applies to."""
        data = self.folder / "data"
        names = [(data / file.path).relative_to(data).as_posix() for file in files]
        kinds = self.schema.primitive_types()
        marked = []
        for index, file in enumerate(files):
            one = self._absolute(applies[index]) if applies else None
            record = record_bytes(file, kinds, spec, one)
            marked.append(Marked(Status.ADDED, record, file.rows, self.snapshot_id, None))
        entries = entries_of(names, files, self.snapshot_id, self.sequence, applies)
        return Pending(entries, tuple(marked), spec, bool(applies))

    def deletes(self, manifests: Sequence[Manifest], files: Sequence[DeleteFile]) -> list[Pending]:
        """Returns new delete files by partition spec: each has the partition of its data file."""
        wanted = [one.data_file for one in files if one.data_file is not None]
        parts: dict[str, tuple[int, Partition]] = {}
        for number, indexes in places_of(self.folder, manifests, wanted).items():
            base = load_base(self.folder, manifests[number])
            for index in indexes:
                path = f"{self.folder}/data/{base.names[index]}"
                parts[path] = (manifests[number].spec_id, base.partitions[index])
        by_spec: dict[int, list[tuple[WrittenFile, Applies]]] = {}
        for one in files:
            spec_id, partition = parts.get(one.data_file or "", (0, ()))
            file = WrittenFile(one.path, one.rows, one.size_bytes, one.digest, (), partition)
            data_file = one.data_file and one.data_file.removeprefix(f"{self.folder}/data/")
            applies = Applies(data_file, one.offset, one.length)
            by_spec.setdefault(spec_id, []).append((file, applies))
        return [
            self.added([file for file, _ in found], self.specs[spec_id], [one for _, one in found])
            for spec_id, found in by_spec.items()
        ]

    def opened(self, manifest: Manifest) -> Pending:
        """Returns the live files of an older manifest."""
        entries = load_copy(self.folder, manifest)
        spec = self.specs[manifest.spec_id]
        base = entries.base
        marked = tuple(
            Marked(Status.EXISTING, record, rows, snapshot, sequence)
            for record, rows, snapshot, sequence in zip(
                self._records(manifest, entries, spec),
                base.rows,
                base.snapshots,
                base.sequences,
                strict=True,
            )
        )
        return Pending(entries, marked, spec, manifest.holds_deletes)

    def without(self, manifest: Manifest, indexes: Collection[int]) -> Pending:
        """Returns an older manifest some of whose files are deleted by this snapshot."""
        whole = self.opened(manifest)
        kept = [index for index in range(whole.live_files) if index not in indexes]
        marked = tuple(
            replace(one, status=Status.DELETED, snapshot_id=self.snapshot_id)
            if index in indexes
            else one
            for index, one in enumerate(whole.marked)
        )
        return replace(whole, entries=chosen(whole.entries, kept), marked=marked)

    def only(self, manifest: Manifest, indexes: Collection[int]) -> Pending:
        """Returns an older manifest without some files, and without a word of them."""
        whole = self.opened(manifest)
        kept = [index for index in range(whole.live_files) if index not in indexes]
        marked = tuple(whole.marked[index] for index in kept)
        return replace(whole, entries=chosen(whole.entries, kept), marked=marked)

    def merged(self, found: Sequence[Manifest | Pending]) -> list[Manifest]:
        """Returns the manifests of the snapshot: small ones of a kind are merged, others stay."""
        groups = groups_to_write(
            [one.live_files for one in found],
            [(one.spec.id if isinstance(one, Pending) else one.spec_id, one.holds_deletes)
             for one in found],
            [index for index, one in enumerate(found) if isinstance(one, Pending)],
        )  # fmt: skip
        manifests = []
        for group in groups:
            first = found[group[0]]
            if len(group) == 1 and isinstance(first, Manifest):
                manifests.append(first)
                continue
            members = (found[index] for index in group)
            parts = [one if isinstance(one, Pending) else self.opened(one) for one in members]
            manifests.append(self._manifest(parts))
        return manifests

    def snapshot(
        self, manifests: Sequence[Manifest], summary: Mapping[str, str], at_ms: int
    ) -> Metadata:
        """Returns metadata whose current snapshot has these manifests."""
        parent = current_snapshot(self.metadata)
        parent_id = parent["snapshot-id"] if parent else None
        name = f"snap-{self.snapshot_id}-{uuid.uuid4().hex}"
        place = self.folder / "metadata"
        avro = manifest_list_bytes(
            str(place), self.snapshot_id, parent_id, self.sequence, manifests, self.specs
        )
        listing = listing_bytes(manifests)
        self._files[place / f"{name}.avro"] = avro
        self._files[place / f"{name}.json"] = listing
        digest = hashlib.sha256(listing).hexdigest()
        self._known.append(Known(place / f"{name}.json", digest, len(listing), tuple(manifests)))
        snapshot = {
            "snapshot-id": self.snapshot_id,
            **({"parent-snapshot-id": parent_id} if parent_id is not None else {}),
            "sequence-number": self.sequence,
            "timestamp-ms": max(at_ms, self.metadata["last-updated-ms"]),
            "manifest-list": str(place / f"{name}.avro"),
            "summary": {
                **summary,
                LISTING: f"{name}.json",
                LISTING_DIGEST: digest,
                LIST_DIGEST: hashlib.sha256(avro).hexdigest(),
            },
            "schema-id": self.metadata["current-schema-id"],
        }
        return with_snapshot(self.metadata, snapshot)

    def save(self, root: Path, table: str, metadata: Metadata, files: str) -> TableContent:
        """Makes all new files and the metadata durable, and returns the state that they are."""
        return save(root, table, metadata, files, self._files, self._known)

    def _manifest(self, parts: Sequence[Pending]) -> Manifest:
        """Writes one manifest and its JSON copy."""
        name = f"{uuid.uuid4().hex}-m"
        spec, holds_deletes = parts[0].spec, parts[0].holds_deletes
        marked = [one for part in parts for one in part.marked]
        entries = joined([part.entries for part in parts])
        avro, spans, block = manifest_bytes(
            self.schema, self.metadata["current-schema-id"], spec, holds_deletes, marked
        )
        live = [
            span
            for span, one in zip(spans, marked, strict=True)
            if one.status is not Status.DELETED
        ]
        entries = replace(entries, base=replace(entries.base, spans=live))
        copied, head = copy_bytes(entries)
        place = self.folder / "metadata"
        self._files[place / f"{name}.avro"] = avro
        self._files[place / f"{name}.json"] = copied
        digest = hashlib.sha256(copied).hexdigest()
        tells = counted(entries.digests, entries.origins)
        self._known.append(known_counted(place / f"{name}.json", digest, tells))
        return Manifest(
            path=f"{name}.avro",
            length=len(avro),
            path_digest=hashlib.sha256(avro).hexdigest(),
            sequence_number=self.sequence,
            min_sequence_number=min(entries.base.sequences, default=self.sequence),
            snapshot_id=self.snapshot_id,
            added=_counted(marked, Status.ADDED),
            existing=_counted(marked, Status.EXISTING),
            deleted=_counted(marked, Status.DELETED),
            entries=f"{name}.json",
            digest=digest,
            head=head,
            live_files=len(entries.digests),
            block=block,
            spec_id=spec.id,
            holds_deletes=holds_deletes,
            bounds=() if holds_deletes else time_bounds(entries, self.schema),
            partitions=summaries(spec, entries.base.partitions),
        )

    def _records(self, manifest: Manifest, entries: Entries, spec: Spec) -> Iterator[bytes]:
        """Yields each file's Avro record: as it was written, or made where that would not do.

        Another wrote it then, or a column of the spec had another type when it was written.
        """
        block = manifest.block
        if block is not None:
            data = verified(self.folder / "metadata" / manifest.path, manifest.path_digest)
            if has_schema(data, block, entry_schema(spec, manifest.holds_deletes)):
                records = block_records(data, block)
                yield from (records[start:end] for start, end in entries.base.spans)
                return
        yield from self._made(manifest, entries, spec)

    def _made(self, manifest: Manifest, entries: Entries, spec: Spec) -> Iterator[bytes]:
        kinds = self.schema.primitive_types()
        for index in range(manifest.live_files):
            applies = entries.base.applies[index] if manifest.holds_deletes else None
            file = data_file(self.folder, entries, index)
            yield record_bytes(file, kinds, spec, applies and self._absolute(applies))

    def _absolute(self, applies: Applies) -> Applies:
        if applies.data_file is None:
            return applies
        return replace(applies, data_file=f"{self.folder}/data/{applies.data_file}")


def save(
    root: Path,
    table: str,
    metadata: Metadata,
    files: str,
    beside: Mapping[Path, bytes],
    known: Sequence[Known] = (),
) -> TableContent:
    """Makes metadata durable, with the files that it names, and returns the state.

    `known` is what is decoded of these already.
    """
    data = encode(metadata)
    digest = hashlib.sha256(data).hexdigest()
    name = f"{metadata['last-sequence-number']:05d}-{digest[:32]}.metadata.json"
    path = f"tables/{table}/metadata/{name}"
    place = root / path
    reached("tables.metadata.before")
    write_all_durably({**beside, place: data})
    reached("tables.metadata.after")
    keep_written([*known, Known(place, digest, len(data), metadata)])
    return TableContent(path, digest, table, files)


def places_of(
    folder: Path, manifests: Sequence[Manifest], paths: Collection[str]
) -> dict[int, list[int]]:
    """Returns where files are: by the place of their manifest, their places in it.

    Raises:
        ConflictError (kind "file-not-live").
    """
    wanted = set(paths)
    found: dict[int, list[int]] = {}
    for number, manifest in enumerate(manifests):
        if not wanted:
            break
        if not manifest.live_files or manifest.holds_deletes:
            continue
        for index, name in enumerate(load_base(folder, manifest).names):
            path = f"{folder}/data/{name}"
            if path in wanted:
                found.setdefault(number, []).append(index)
                wanted.discard(path)
    for path in sorted(wanted):
        raise ConflictError(
            f"File {path} is not part of the table any more: expected a live file. "
            "Read the table again, then try again.",
            kind="file-not-live",
            path=path,
        )
    return found


def deletes_to_drop(
    folder: Path, manifests: Sequence[Manifest], places: Mapping[int, Sequence[int]]
) -> dict[int, list[int]]:
    """Returns where the delete files are that apply to nothing once the files at `places` go."""
    if not places or not any(one.holds_deletes for one in manifests):
        return {}
    gone = {
        load_base(folder, manifests[number]).names[index]
        for number, indexes in places.items()
        for index in indexes
    }
    oldest = min(
        (
            sequence
            for number, manifest in enumerate(manifests)
            if not manifest.holds_deletes
            for index, sequence in enumerate(load_base(folder, manifest).sequences)
            if index not in places.get(number, ())
        ),
        default=None,
    )
    found: dict[int, list[int]] = {}
    for number, manifest in enumerate(manifests):
        if manifest.holds_deletes:
            base = load_base(folder, manifest)
            found[number] = [
                index
                for index, (one, sequence) in enumerate(
                    zip(base.applies, base.sequences, strict=True)
                )
                if one.data_file in gone or oldest is None or oldest > sequence
            ]
    return {number: indexes for number, indexes in found.items() if indexes}


def digest_of_files(folder: Path, manifests: Sequence[Manifest | Pending]) -> str:
    """Returns the digest of all live files, from the lists of digests alone."""
    digests: list[str] = []
    for one in manifests:
        if isinstance(one, Pending):
            digests += counted(one.entries.digests, one.entries.origins)
        elif one.live_files:
            digests += load_counted(folder, one)
    return files_digest(digests)


def _counted(marked: Sequence[Marked], status: Status) -> tuple[int, int]:
    rows = [one.rows for one in marked if one.status is status]
    return len(rows), sum(rows)
