"""Files that an engine is about to read: on this machine, and with the bytes that were written.

Those of a lake on S3 are brought, those of this machine stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from instep.engines.engine import FileSet
from instep.engines.schema import literal
from instep.history.intact import differing, other_bytes, written
from instep.history.places import drop_copy, linked, on_s3

_BROUGHT_AT_ONCE = 8
"""Files downloaded at the same time."""


def brought(file_set: FileSet, root: Path, folder: Path, *, again: bool = False) -> FileSet:
    """Returns a file set whose files are all on this machine, those of S3 by links in `folder`.

    `root` is the lake's root, or any path below it. Files that this machine has not read before are
    checked against their digests, all of them where `again` says so.

    Raises:
        InternalError (kind "damaged-object"): a file has other bytes than were written.
        NotFoundError (kind "no-such-object"): a file is not on S3.
    """
    deletes = {
        one.path: one.digest for path in file_set.files for one in file_set.deletes.get(path, ())
    }
    wanted = tuple(dict.fromkeys([*file_set.files, *deletes]))
    told = {path: file_set.digests.get(path) or deletes.get(path) for path in wanted}
    digests = {path: digest for path, digest in told.items() if digest}
    if on_s3(root) is None:
        wrong = differing([written(Path(path), one) for path, one in digests.items()], again=again)
        if wrong:
            raise other_bytes(wrong[0].path, wrong[0].digest)
        return file_set
    at = _links(wanted, root, folder)
    _check_copies(digests, at, root, folder, again)
    return replace(
        file_set,
        files=tuple(at[path] for path in file_set.files),
        deletes={
            at[path]: tuple(replace(one, path=at[one.path]) for one in ones)
            for path, ones in file_set.deletes.items()
            if path in at
        },
        digests={},
    )


def _links(paths: Iterable[str], root: Path, folder: Path) -> dict[str, str]:
    """Returns links to copies of files on S3, which are brought where there are none."""
    wanted = list(paths)
    with ThreadPoolExecutor(_BROUGHT_AT_ONCE) as pool:
        found = pool.map(lambda path: str(linked(root / path, folder)), wanted)
        return dict(zip(wanted, found, strict=True))


def _check_copies(
    digests: Mapping[str, str], at: Mapping[str, str], root: Path, folder: Path, again: bool
) -> None:
    """Holds that copies are right; of a wrong one another is brought: S3 may be right."""
    asked = {written(root / path, one, Path(at[path])): path for path, one in digests.items()}
    wrong = differing(list(asked), again=again)
    if not wrong:
        return
    for file in wrong:
        drop_copy(root / asked[file])
        Path(at[asked[file]]).unlink(missing_ok=True)
    _links([asked[file] for file in wrong], root, folder)
    for file in differing(wrong, again=True):
        raise other_bytes(file.path, file.digest)


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
