"""Files of a lake on S3, brought to this machine for an engine; those of this machine stay."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from instep.engines.engine import FileSet
from instep.engines.schema import literal
from instep.history.places import linked, on_s3

_BROUGHT_AT_ONCE = 8
"""Files downloaded at the same time."""


def brought(file_set: FileSet, root: Path, folder: Path) -> FileSet:
    """Returns a file set whose files are all on this machine, held by links in `folder`.

    `root` is the lake's root, or any path below it.
    """
    if on_s3(root) is None:
        return file_set
    deletes = [one.path for ones in file_set.deletes.values() for one in ones]
    wanted = list(dict.fromkeys([*file_set.files, *deletes]))
    with ThreadPoolExecutor(_BROUGHT_AT_ONCE) as pool:
        found = pool.map(lambda path: str(linked(root / path, folder)), wanted)
        at = dict(zip(wanted, found, strict=True))
    return replace(
        file_set,
        files=tuple(at[path] for path in file_set.files),
        deletes={
            at[path]: tuple(replace(one, path=at[one.path]) for one in ones)
            for path, ones in file_set.deletes.items()
            if path in at
        },
    )


def begins(root: Path, folder: Path) -> list[tuple[str, str]]:
    """Returns how the paths of a lake on S3 begin there, and how they do when brought here."""
    remote = on_s3(root)
    if remote is None:
        return []
    lake = f"s3://{remote.bucket.name}/{remote.bucket.prefix}".rstrip("/")
    return [(f"{lake}/", f"{folder}/")]


def begun_anew(path: str, before: str, after: str) -> str:
    """Returns SQL of the path `path`, SQL too, in which one beginning is replaced by another."""
    rest = f"substr({path}, {len(before) + 1})"
    begins_so = f"starts_with({path}, {literal(before)})"
    return f"CASE WHEN {begins_so} THEN {literal(after)} || {rest} ELSE {path} END"
