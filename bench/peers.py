"""Other tools, each in an environment of its own, as its users would install it."""

from __future__ import annotations

import venv
from collections.abc import Sequence
from pathlib import Path

from bench.figures import FOLDER, say
from bench.processes import run


def python_with(name: str, packages: Sequence[str]) -> Path:
    """Returns the interpreter of the environment `name`, made once, with these packages."""
    folder = FOLDER / "peers" / name
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        say(f"Installing {', '.join(packages)} into an environment of its own.")
        venv.create(folder, clear=True, with_pip=True)
        run([str(python), "-m", "pip", "install", "--quiet", *packages], FOLDER)
        (folder / "ready").touch()
    return python
