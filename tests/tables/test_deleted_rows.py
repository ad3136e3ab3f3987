"""A table of which another writer deleted rows in place: every reader honours it, or refuses."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from bare import bare_table

from instep.engines.duckdb import DuckDB
from instep.engines.engine import DeleteFile
from instep.engines.schema import Column
from instep.history.objects import file_digest, publish_durably
from instep.history.places import here
from instep.tables.content import TableContent
from instep.tables.diff import diff_rows
from instep.tables.merge import merge_rows
from instep.tables.profile_keep import profile_table
from instep.tables.read import data_files, file_set, row_count, schema_of
from instep.tables.write import append, create_table, data_folder, replace

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def states(tmp_path: Path) -> tuple[TableContent, TableContent]:
    """Ten rows, 0 to 9; and the same without the rows 2 and 5."""
    table = create_table(tmp_path, "t", [Column(0, "n", "long"), Column(0, "x", "string")], at=AT)
    with DuckDB(tmp_path / "staging") as engine:
        files = engine.write(
            "SELECT range AS n, 'x' AS x FROM range(10)",
            schema_of(tmp_path, table),
            data_folder(tmp_path, table),
        )
    table = append(tmp_path, table, files, at=AT)
    (file,) = data_files(tmp_path, table)
    path = data_folder(tmp_path, table) / "deletes.parquet"
    here(path).parent.mkdir(parents=True, exist_ok=True)
    draft = here(path).with_name("draft.parquet")
    duckdb.execute(
        f"COPY (SELECT '{file.path}' AS file_path, unnest([2, 5])::BIGINT AS pos) TO '{draft}' "
        "(FORMAT parquet, FIELD_IDS {file_path: 2147483546, pos: 2147483545})"
    )
    publish_durably(draft, path)
    deletes = DeleteFile(str(path), 2, path.stat().st_size, file_digest(path), file.path)
    return table, replace(tmp_path, table, (), (), deletes=[deletes], at=AT)


def test_rows_counts_and_profiles_are_those_that_pyiceberg_sees(
    tmp_path: Path, states: tuple[TableContent, TableContent]
) -> None:

    _, after = states
    theirs = bare_table(tmp_path, after.metadata).scan().to_arrow()

    with DuckDB(tmp_path / "staging") as engine:
        engine.view(file_set(tmp_path, after, "t"))
        ours = [row[0] for row in engine.rows("SELECT n FROM t ORDER BY n")]

    assert ours == [0, 1, 3, 4, 6, 7, 8, 9]
    assert theirs.sort_by("n").column("n").to_pylist() == ours
    assert row_count(tmp_path, after) == 8
    assert profile_table(tmp_path, after)[0].count == 8


def test_a_deleted_row_is_a_removed_row(
    tmp_path: Path, states: tuple[TableContent, TableContent]
) -> None:
    diff = diff_rows(tmp_path, *states, ["n"])

    assert (diff.added, diff.removed, diff.changed) == (0, 2, 0)


def _numbers(root: Path, table: TableContent) -> list[int]:
    with DuckDB(root / "staging") as engine:
        engine.view(file_set(root, table, "t"))
        return [row[0] for row in engine.rows("SELECT n FROM t ORDER BY n")]


@pytest.mark.parametrize("key", [["n"], []])
def test_rows_deleted_in_place_are_deleted_by_a_merge(
    tmp_path: Path, states: tuple[TableContent, TableContent], key: list[str]
) -> None:
    before, after = states
    left = _numbers(tmp_path, after)

    for ours, theirs in ((before, after), (after, before)):
        merged = merge_rows(tmp_path, before, ours, theirs, key, at=AT)
        assert merged.content is not None
        assert _numbers(tmp_path, merged.content) == left
