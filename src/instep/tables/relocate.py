"""Gives a table state new Iceberg files when the lake has another root, and records them.

Instep's own readers take every path relative to the lake, but Iceberg's metadata, manifest lists,
manifests and files of position deletes name files absolutely: any other reader would read the
original. A state's metadata, the list of its current snapshot, the manifests in it and such delete
files are written again under new names; data files and the JSON copies of their manifests are not
touched. Earlier snapshots are left out of the new metadata: they are states of other commits, which
get theirs. The state's content stays as it is (decision 0014).
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from instep.engines.schema import Schema
from instep.history.objects import write_durably
from instep.history.repository import Repository
from instep.tables.columns import current_schema
from instep.tables.content import TableContent
from instep.tables.copies import copy_bytes, load_copy, load_json
from instep.tables.iceberg import Metadata, listing_bytes
from instep.tables.manifest import Entries, Manifest
from instep.tables.manifest_avro import (
    Marked,
    Status,
    manifest_bytes,
    manifest_list_bytes,
    record_bytes,
)
from instep.tables.moved_deletes import renamed
from instep.tables.read import (
    LIST_DIGEST,
    LISTING,
    LISTING_DIGEST,
    current_snapshot,
    data_file,
    load_manifests,
    located,
    table_folder,
)
from instep.tables.replaced import Why, stand_in
from instep.tables.specs import specs_of

Rewritten = dict[tuple[str, Schema], Manifest]
"""Manifests that were written again already, by their JSON copy and schema: states share them."""


def metadata_here(root: Path, content: TableContent) -> Metadata:
    """Returns metadata of a state for who writes upon it: all its paths are below `root`."""
    here = state_here(root, content, {})
    return load_json(root / here.metadata, here.digest)


def relocate_table(repo: Repository, content: TableContent, known: Rewritten) -> bool:
    """Lets metadata that names the lake's root stand for a state; says whether there was none yet.

    `known` is filled, so that states of one table share what they shared before.
    """
    before = located(repo.root, content)
    now = state_here(repo.root, content, known)
    if now == before:
        return False
    return stand_in(repo, content, before, now, Why.MOVED) or relocate_table(repo, content, known)


def state_here(root: Path, content: TableContent, known: Rewritten) -> TableContent:
    """Returns what stands for a state; where that names another root, the same written anew.

    Nothing is recorded. `known` as in `relocate_table`.
    """
    now = located(root, content)
    metadata = load_json(root / now.metadata, now.digest)
    location = str(table_folder(root, content))
    if metadata["location"] == location:
        return now
    snapshot = current_snapshot(metadata)
    if snapshot is not None:
        snapshot = _snapshot(root, content, metadata, snapshot, location, known)
    after = _moved(metadata, location, snapshot)
    data = json.dumps(after, separators=(",", ":"), ensure_ascii=False).encode()
    digest = hashlib.sha256(data).hexdigest()
    name = f"{metadata['last-sequence-number']:05d}-{digest[:32]}.metadata.json"
    path = f"tables/{content.uuid}/metadata/{name}"
    write_durably(root / path, data)
    return TableContent(path, digest, content.uuid, content.files)


def _moved(metadata: Metadata, location: str, snapshot: Metadata | None) -> Metadata:
    if snapshot is None:
        return {**metadata, "location": location}
    identifier = snapshot["snapshot-id"]
    return {
        **metadata,
        "location": location,
        "snapshots": [snapshot],
        "snapshot-log": [
            one for one in metadata["snapshot-log"] if one["snapshot-id"] == identifier
        ],
        "metadata-log": [],
    }


def _snapshot(
    root: Path,
    content: TableContent,
    metadata: Metadata,
    snapshot: Metadata,
    location: str,
    known: Rewritten,
) -> dict[str, Any]:  # Iceberg's JSON
    folder = table_folder(root, content)
    manifests = [
        _manifest(folder, one, metadata, location, known)
        for one in load_manifests(folder, metadata)
        if one.live_files
    ]
    avro = manifest_list_bytes(
        f"{location}/metadata",
        snapshot["snapshot-id"],
        snapshot.get("parent-snapshot-id"),
        snapshot["sequence-number"],
        manifests,
        specs_of(metadata),
    )
    listing = listing_bytes(manifests)
    name = f"snap-{snapshot['snapshot-id']}-{uuid.uuid4().hex}"
    write_durably(folder / "metadata" / f"{name}.avro", avro)
    write_durably(folder / "metadata" / f"{name}.json", listing)
    return {
        **snapshot,
        "manifest-list": f"{location}/metadata/{name}.avro",
        "summary": {
            **snapshot["summary"],
            LISTING: f"{name}.json",
            LISTING_DIGEST: hashlib.sha256(listing).hexdigest(),
            LIST_DIGEST: hashlib.sha256(avro).hexdigest(),
        },
    }


def _manifest(
    folder: Path, manifest: Manifest, metadata: Metadata, location: str, known: Rewritten
) -> Manifest:
    """Returns a manifest of the same live files under their new paths.

    Its JSON copy serves on, but for that of delete files, which are written again.
    """
    schema = current_schema(metadata)
    listed = manifest.entries
    found = known.get((listed, schema))
    if found is not None:
        return found
    kinds = schema.primitive_types()
    spec = specs_of(metadata)[manifest.spec_id]
    copied = load_copy(folder, manifest)
    if manifest.holds_deletes:
        copied = renamed(folder, copied, metadata["location"], location)
        manifest = _with_copy(folder, manifest, copied)
    marked = []
    for index, (snapshot, sequence) in enumerate(
        zip(copied.base.snapshots, copied.base.sequences, strict=True)
    ):
        known_file = data_file(folder, copied, index)
        file = replace(known_file, path=f"{location}/data/{copied.base.names[index]}")
        applies = copied.base.applies[index] if manifest.holds_deletes else None
        if applies is not None and applies.data_file is not None:
            applies = replace(applies, data_file=f"{location}/data/{applies.data_file}")
        record = record_bytes(file, kinds, spec, applies)
        marked.append(Marked(Status.EXISTING, record, file.rows, snapshot, sequence))
    schema_id = metadata["current-schema-id"]
    avro, _, _ = manifest_bytes(schema, schema_id, spec, manifest.holds_deletes, marked)
    name = f"{uuid.uuid4().hex}-m.avro"
    write_durably(folder / "metadata" / name, avro)
    rows = sum(one.rows for one in marked)
    made = replace(
        manifest,
        path=name,
        length=len(avro),
        path_digest=hashlib.sha256(avro).hexdigest(),
        added=(0, 0),
        existing=(len(marked), rows),
        deleted=(0, 0),
        block=None,
    )
    known[(listed, schema)] = made
    return made


def _with_copy(folder: Path, manifest: Manifest, entries: Entries) -> Manifest:
    """Writes another JSON copy of a manifest, and returns the manifest with it."""
    copied, head = copy_bytes(entries)
    name = f"{uuid.uuid4().hex}-m.json"
    write_durably(folder / "metadata" / name, copied)
    return replace(manifest, entries=name, digest=hashlib.sha256(copied).hexdigest(), head=head)
