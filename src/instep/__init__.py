"""Instep: change management for data and for the models trained on it.

import instep

lake = instep.open("my-project")
lake.branch("main").table("flights").polars()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from instep.lake import Lake

__all__ = ["open"]


def open(project: str | Path = ".") -> Lake:  # noqa: A001  (the public name)
    """Opens the lake of the project folder `project`; see `instep.lake.open_lake`."""
    from instep.lake import open_lake

    return open_lake(project)
