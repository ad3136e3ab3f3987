"""A file that is gone from S3 ends what needs it, with its name; nobody waits for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from buckets import Bucket
from lakes import appended

from instep.clock import system_clock
from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column
from instep.errors import NotFoundError, UnavailableError
from instep.history import places
from instep.history.locks import writing
from instep.history.objects import write_durably
from instep.history.places import here, linked
from instep.history.repository import Repository, create_repository
from instep.history.store import Database
from instep.tables.compact import compact_state
from instep.tables.content import TableContent
from instep.tables.read import data_files, file_set
from instep.tables.write import create_table

COLUMNS = (Column(0, "n", "long"), Column(0, "t", "string"))


@pytest.fixture
def repo(bucket: Bucket, tmp_path: Path, postgres_url: str) -> Repository:
    database = Database(postgres_url, bucket.schema)
    return create_repository(bucket.root(tmp_path / "here"), system_clock, "ana", database)


@pytest.fixture
def table(repo: Repository) -> TableContent:
    """A table of three files, of which one is neither on S3 nor here."""
    made = create_table(repo.root, "sales", COLUMNS, at=repo.clock())
    for number in range(3):
        made = appended(repo, made, range(number, number + 1))
    gone = repo.root / data_files(repo.root, made)[1].path
    gone.unlink()
    here(gone).unlink(missing_ok=True)
    return made


def test_a_query_of_a_table_whose_file_is_gone_names_it(
    repo: Repository, table: TableContent
) -> None:
    gone = data_files(repo.root, table)[1].path
    with DuckDB(repo.root / "staging") as engine, pytest.raises(NotFoundError) as caught:
        engine.view(file_set(repo.root, table, "t"))
    assert caught.value.kind == "no-such-object"
    assert gone in caught.value.message


def test_a_compaction_of_a_table_whose_file_is_gone_ends_and_replaces_nothing(
    repo: Repository, table: TableContent
) -> None:
    before = data_files(repo.root, table)
    with writing(repo.root, repo.store), pytest.raises(NotFoundError) as caught:
        compact_state(repo, table, at=repo.clock())
    assert caught.value.kind == "no-such-object"
    assert data_files(repo.root, table) == before


def test_a_copy_that_is_dropped_again_and_again_is_given_up(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "KEPT_BYTES", 100)
    monkeypatch.setattr(places, "_LOOK_BYTES", 0)
    path = bucket.root(tmp_path / "here") / "tables/t/data/large.parquet"
    write_durably(path, b"x" * 1_000)
    here(path).unlink()
    with pytest.raises(UnavailableError) as caught:
        linked(path, tmp_path / "in")
    assert caught.value.kind == "copies-dropped"
