"""Gives files that an engine wrote their digests and names of their own in a folder, durably."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from instep.engines.engine import WrittenFile
from instep.history.intact import remember_written, written
from instep.history.objects import file_digest, publish_all_durably

_HASHED_AT_ONCE = 4
"""Files hashed at the same time, by as many threads."""


def published(files: Sequence[WrittenFile], folder: Path, stem: str = "") -> list[WrittenFile]:
    """Returns the files as they lie in `folder`; several at once. Their names begin with `stem`."""
    drafts = [Path(file.path) for file in files]
    if len(files) == 1:
        digests = [file_digest(drafts[0])]  # a thread would take longer than a small file
    else:
        with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
            digests = list(pool.map(file_digest, drafts))
    folder = folder.resolve()
    paths = [folder / f"{stem}{uuid.uuid4().hex}.parquet" for _ in files]
    publish_all_durably(dict(zip(paths, drafts, strict=True)))
    remember_written(map(written, paths, digests))
    return [
        replace(file, path=str(path), digest=digest)
        for file, path, digest in zip(files, paths, digests, strict=True)
    ]
