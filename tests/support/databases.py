"""The marks of tests that promise the same behaviour wherever a lake is."""

from __future__ import annotations

import pytest

on_both = pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
"""Every database of the catalog."""

on_every = pytest.mark.parametrize(
    ("database", "root"),
    [("sqlite", "folder"), ("postgres", "folder"), ("postgres", "s3")],
    indirect=True,
    ids=["sqlite", "postgres", "s3"],
)
"""Every database of the catalog, and every place of the files that goes with it."""

on_files = pytest.mark.parametrize("root", ["folder", "s3"], indirect=True)
"""Every place of the files, for what needs no catalog."""
