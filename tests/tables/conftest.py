"""These suites make lakes in a folder, and again in PostgreSQL with the files on S3.

Some tests of each do so in `make test`, the others are `long`. Tests whose lake comes from the
fixture `repo` have its catalog in PostgreSQL there; those that need none have a `tmp_path` on S3.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from buckets import Bucket

SAMPLE = frozenset(
    {
        "test_rows_are_overwritten_deleted_and_upserted",
        "test_position_deletes_of_others_are_honoured_by_every_reader_of_ours",
        "test_two_tables_in_one_edit_are_one_commit",
        "test_compaction_keeps_rows_and_contents_and_older_states_read_their_own_files",
        "test_rows_deleted_in_place_are_deleted_by_a_merge",
        "test_only_large_files_are_written_one_by_one",
    }
)
"""Tests that run on S3 in `make test` too; the others are long there."""

SUITES_OF_FILES = frozenset(
    {
        "test_damage",
        "test_erase",
        "test_erase_columns",
        "test_erase_shared",
        "test_round_trip",
        "test_size",
    }
)
"""Suites about files of this machine, their bytes or size, or that make a lake on S3 themselves."""

OF_FILES = frozenset(
    {
        "test_shared_files_are_not_read",
        "test_the_table_of_differing_rows_is_written_as_parquet",
        "test_metadata_and_manifests_stay_few_after_ten_thousand_appends",
        "test_rows_are_sorted_within_each_file_of_a_partition",
        "test_every_flipped_byte_of_a_kept_profile_is_noticed",
        "test_a_kept_profile_is_a_parquet_file_of_plain_columns",
        "test_collection_keeps_what_is_needed_and_takes_what_was_never_committed",
        "test_what_was_collected_during_an_edit_is_nothing_that_it_needs",
        "test_a_process_that_dies_before_the_commit_leaves_nothing_reachable",
        "test_every_primitive_type_reads_the_same_in_bare_pyiceberg_and_bare_duckdb",
        "test_many_appends_keep_few_snapshots_and_few_manifests",
        "test_a_changed_byte_is_noticed",
        "test_only_files_with_room_for_an_added_key_are_read",
        "test_an_upkeep_that_cannot_even_look_fails_no_edit",
        "test_profiles_of_an_older_form_with_other_columns_are_made_again",
    }
)
"""Such tests in other suites."""


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The root of a lake: a folder, or with the parameter "s3" a place in a bucket."""
    if getattr(request, "param", "folder") == "folder":
        return tmp_path
    bucket: Bucket = request.getfixturevalue("bucket")
    return bucket.root(tmp_path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    name = metafunc.function.__name__
    if metafunc.module.__name__ in SUITES_OF_FILES or name in OF_FILES:
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
