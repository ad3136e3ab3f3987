"""Takes the empty place in which a backup or a lake is made: nothing else comes to be there.

Who was interrupted there, and makes the same again, goes on.
"""

from __future__ import annotations

import json
from pathlib import Path

from instep.canonical import Json
from instep.errors import ConflictError, InvalidError
from instep.history.objects import is_unpublished, make_folder_durably, write_durably
from instep.history.places import here, on_s3
from instep.history.repository import CATALOG, check_root, claim_root

HEAD = "backup.json"
UNFINISHED = "unfinished.json"
"""In a backup or a lake still being made: of which lake, or from which backup in which schema."""


def claim_lake(root: Path, mark: dict[str, Json]) -> None:
    """Begins, or goes on with, a lake at `root`; nothing else may be there."""
    if on_s3(root):
        check_root(root)
        claim_root(root, json.dumps(mark, sort_keys=True))
        make_folder_durably(here(root))
    else:
        claim(root, CATALOG, mark)


def claim(folder: Path, final: str, mark: dict[str, Json]) -> None:
    """Begins, or goes on with, what is made in `folder`; nothing else may be there."""
    marker = folder / UNFINISHED
    text = json.dumps(mark, sort_keys=True).encode()
    if (folder / final).exists() and not marker.exists():
        if final == HEAD:
            raise ConflictError(
                f"There is a backup in {folder} already: expected a new folder. Name another.",
                kind="backup-exists",
            )
        raise ConflictError(
            f"There is a lake at {folder} already: expected a folder without one. "
            "Name another folder.",
            kind="lake-exists",
        )
    make_folder_durably(folder)
    if marker.exists() and marker.read_bytes() == text:
        return
    if not all(is_unpublished(path) for path in folder.iterdir()):
        raise InvalidError(
            f"The folder {folder} is not empty: expected a new one, or one in which the same act "
            "was interrupted. Name another.",
            kind="folder-not-empty",
        )
    write_durably(marker, text)
