"""These suites make lakes in `tmp_path`: it is a folder, and for most of them also a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest
from buckets import Bucket

ON_S3_TOO = frozenset({"test_write", "test_merge", "test_diff", "test_profile_keep",
                       "test_partition", "test_apart"})  # fmt: skip


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The root of a lake: a folder, or with the parameter "s3" a place in a bucket."""
    if getattr(request, "param", "folder") == "folder":
        return tmp_path
    bucket: Bucket = request.getfixturevalue("bucket")
    return bucket.root(tmp_path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__ in ON_S3_TOO and "tmp_path" in metafunc.fixturenames:
        metafunc.parametrize("tmp_path", ["folder", "s3"], indirect=True)
