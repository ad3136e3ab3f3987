"""These suites make lakes in `tmp_path`: it is a folder, and for most of them also a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest
from buckets import Bucket

ON_S3_TOO = frozenset({"test_row_merge", "test_diff", "test_apart"})
"""Those that read with Instep alone: `history/test_s3.py` reads a table on S3 with pyiceberg."""

IN_A_FOLDER = frozenset(
    {
        "test_shared_files_are_not_read",
        "test_the_table_of_differing_rows_is_written_as_parquet",
    }
)
"""Tests of these suites that take files away, or write one of their own, beside the tables."""


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The root of a lake: a folder, or with the parameter "s3" a place in a bucket."""
    if getattr(request, "param", "folder") == "folder":
        return tmp_path
    bucket: Bucket = request.getfixturevalue("bucket")
    return bucket.root(tmp_path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    is_in_suite = metafunc.module.__name__ in ON_S3_TOO
    fits = "tmp_path" in metafunc.fixturenames and metafunc.function.__name__ not in IN_A_FOLDER
    if is_in_suite and fits:
        metafunc.parametrize("tmp_path", ["folder", "s3"], indirect=True)
