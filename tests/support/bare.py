"""A table as pyiceberg has it without Instep, wherever its files are."""

from __future__ import annotations

from pathlib import Path

from pyiceberg.table import StaticTable

from instep.tables.addresses import client_properties


def bare_table(root: Path, metadata: str | Path) -> StaticTable:
    """Returns the table whose metadata file is `metadata`, in the lake at `root`."""
    return StaticTable.from_metadata(str(root / str(metadata)), client_properties(root))
