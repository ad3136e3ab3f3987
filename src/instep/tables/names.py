"""The names of files that manifests list, kept so that no manifest is read twice for them.

A manifest never changes, so neither does what it names. One text for each table lies in `cache/`
of the lake's folder: it may be removed at any time. It begins with the digest of all that follows;
one that is damaged, or of another form, counts as none, so a wrong name is never read from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from instep.history.places import here
from instep.tables.copies import load_base, load_digests
from instep.tables.manifest import Manifest

Names = Sequence[str]


def names_in(root: Path, folder: str, manifests: Iterable[Manifest]) -> list[Names]:
    """Returns the paths, below the table's folder, of what each of these manifests lists.

    Each is read once and verified; what this table's cache held of others is dropped.

    Raises:
        NotFoundError (kind "no-such-object"), InternalError (kind "damaged-object").
    """
    path = here(root) / "cache" / "names" / folder
    known = _load(path)
    found: dict[str, Names] = {}
    for manifest in manifests:
        held = known.get(manifest.digest)
        found[manifest.digest] = _read(root / "tables" / folder, manifest) if held is None else held
    if found.keys() != known.keys():
        _save(path, found)
    return list(found.values())


def stem_of(path: str) -> str:
    """Returns what the name of a data file begins with, however often rows were erased from it."""
    return Path(path).name.partition(".")[0]


def _read(folder: Path, manifest: Manifest) -> Names:
    names = [f"data/{name}" for name in load_base(folder, manifest).names]
    if manifest.holds_deletes:
        return names
    return names + [f"profiles/{digest}.parquet" for digest in load_digests(folder, manifest)]


def _load(path: Path) -> dict[str, Names]:
    try:
        told, _, text = path.read_bytes().partition(b"\n")
    except OSError:
        return {}
    if hashlib.sha256(text).hexdigest().encode() != told:
        return {}
    found: dict[str, Names] = {}
    for part in text.decode().split("\n\n"):
        digest, *names = part.split("\n")
        found[digest] = names
    return found


def _save(path: Path, found: Mapping[str, Names]) -> None:
    """Writes a cache whole, or not at all; a lake that cannot be written does without."""
    text = "\n\n".join("\n".join([digest, *names]) for digest, names in found.items()).encode()
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
        temporary.replace(path)
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)
