"""Which files a table state needs, with the digest of each: what doctor checks and a backup holds.

Each file names the digest of the next, from the content in a commit down: metadata, the manifest
list and its JSON copy, the manifests and theirs, the data files. Column profiles are no part of it:
they can be computed again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from instep.tables.content import TableContent
from instep.tables.read import (
    LIST_DIGEST,
    LISTING,
    LISTING_DIGEST,
    current_snapshot,
    load_entries,
    load_manifests,
    load_metadata,
    located,
    table_folder,
)


@dataclass(frozen=True, slots=True)
class Required:
    """A file that must be there with this digest; `size_bytes` where it is recorded."""

    path: Path
    digest: str
    size_bytes: int | None
    is_data: bool = False


def required_files(root: Path, content: TableContent, listed: set[str]) -> Iterator[Required]:
    """Yields every file that a state needs, each before what it leads to is read.

    Whoever finds a file damaged stops there: the next step would read it. `listed` holds the
    manifests whose files were yielded before, for another state, and grows; start with an empty
    set, and work is in proportion to what differs between states.
    """
    now = located(root, content)
    yield Required(root / now.metadata, now.digest, None)
    metadata = load_metadata(root, content)
    snapshot = current_snapshot(metadata)
    if snapshot is None:
        return
    folder = table_folder(root, content)
    summary = snapshot["summary"]
    place = folder / "metadata"
    yield Required(place / summary[LISTING], summary[LISTING_DIGEST], None)
    manifest_list = PurePosixPath(snapshot["manifest-list"]).name
    yield Required(place / manifest_list, summary[LIST_DIGEST], None)
    for manifest in load_manifests(folder, metadata):
        name = f"{content.uuid}/{manifest.path}"
        if name in listed:
            continue
        yield Required(place / manifest.path, manifest.path_digest, manifest.length)
        yield Required(place / manifest.entries, manifest.digest, None)
        for entry in load_entries(folder, manifest):
            file = entry.file
            yield Required(folder / file.path, file.digest, file.size_bytes, is_data=True)
        listed.add(name)


def is_at(root: Path, content: TableContent, home: Path) -> bool:
    """Says whether the Iceberg files of a state below `root` name their files below `home`."""
    metadata = load_metadata(root, content)
    location = str(table_folder(home, content))
    snapshot = current_snapshot(metadata)
    return metadata["location"] == location and (
        snapshot is None or snapshot["manifest-list"].startswith(f"{location}/")
    )
