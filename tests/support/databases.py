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

on_every_at_length = pytest.mark.parametrize(
    ("database", "root"),
    [
        ("sqlite", "folder"),
        ("postgres", "folder"),
        pytest.param("postgres", "s3", marks=pytest.mark.long),
    ],
    indirect=True,
    ids=["sqlite", "postgres", "s3"],
)
"""As `on_every`, for what asks no files: on S3 it is long."""
