"""Can a file that a command shall write be written? Asked before the work, not after it."""

from __future__ import annotations

import os
from pathlib import Path

from instep.errors import InvalidError


def check_writable(path: Path) -> None:
    """Holds that a file can be written there.

    Raises:
        InvalidError (kind "not-writable").
    """
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InvalidError(
            f"File {path} cannot be written: expected a name in a folder that is there and may be "
            "written to. Name another.",
            kind="not-writable",
            path=str(path),
        )
