"""These suites make lakes in a folder, and again in PostgreSQL with the files on S3.

Some tests of each do so in `make test`, the others are `long`. Tests whose lake comes from the
fixture `repo` have its catalog in PostgreSQL there; those that need none have a `tmp_path` on S3.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from buckets import Bucket

IN_A_FOLDER = frozenset(
    {
        "test_shared_files_are_not_read",
        "test_the_table_of_differing_rows_is_written_as_parquet",
        "test_metadata_and_manifests_stay_few_after_ten_thousand_appends",
    }
)
"""Tests that take files away, write one of their own beside the tables, or ask far too often."""

SAMPLE = frozenset(
    {
        "test_rows_are_overwritten_deleted_and_upserted",
        "test_position_deletes_of_others_are_honoured_by_every_reader_of_ours",
        "test_two_tables_in_one_edit_are_one_commit",
        "test_compaction_keeps_rows_and_contents_and_older_states_read_their_own_files",
    }
)
"""Tests that run on S3 in `make test` too; the others are long there."""

FOLDER_ONLY = frozenset({"test_erase"})
"""How rows are erased on S3 is a matter of its own."""


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The root of a lake: a folder, or with the parameter "s3" a place in a bucket."""
    if getattr(request, "param", "folder") == "folder":
        return tmp_path
    bucket: Bucket = request.getfixturevalue("bucket")
    return bucket.root(tmp_path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    name = metafunc.function.__name__
    if metafunc.module.__name__ in FOLDER_ONLY or name in IN_A_FOLDER:
        return
    marks = () if name in SAMPLE else pytest.mark.long
    if "repo" in metafunc.fixturenames:
        places = [
            pytest.param("sqlite", "folder", id="folder"),
            pytest.param("postgres", "s3", id="s3", marks=marks),
        ]
        metafunc.parametrize(("database", "root"), places, indirect=True)
    elif "tmp_path" in metafunc.fixturenames:
        there = pytest.param("s3", marks=marks)
        metafunc.parametrize("tmp_path", ["folder", there], indirect=True)
