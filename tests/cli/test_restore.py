"""A restore that ended after it had made the catalog: the same one again does what is left."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from buckets import make_bucket
from commands import KILLED, run
from lakes import commit, fill_lake

from instep.cli.backup import back_up
from instep.cli.claim import UNFINISHED
from instep.cli.wholeness import check
from instep.errors import ConflictError, InvalidError
from instep.history.places import on_s3
from instep.history.repository import MARK, Repository, home_of
from instep.lake import open_lake

TAKEN = {ConflictError.exit_code, InvalidError.exit_code}
"""How a restore ends where a lake is, on S3 or in a folder."""

Configure = Callable[[str], Path]
"""Writes the project of one lake, its catalog in a schema, and returns the project's folder."""


@pytest.fixture(params=["sqlite", "postgres", "s3"])
def configure(request: pytest.FixtureRequest, tmp_path: Path) -> Configure:
    line = "lake: lake"
    if request.param != "sqlite":
        url = request.getfixturevalue("postgres_url")
        address = url.replace("postgres:@", "postgres@")
        line = f"lake: {{folder: lake, database: '{address}', schema: SCHEMA}}"
    if request.param == "s3":
        bucket = make_bucket(request.getfixturevalue("s3_url"))
        line = bucket.project_line(url).replace(bucket.schema, "SCHEMA")

    def written(schema: str) -> Path:
        project = tmp_path / "project"
        project.mkdir(exist_ok=True)
        (project / "instep.yaml").write_text(line.replace("SCHEMA", schema) + "\n")
        return project

    return written


def new_schema() -> str:
    return f"lake_{uuid.uuid4().hex}"


def test_a_restore_that_was_killed_after_the_catalog_is_finished_by_the_same_again(
    repo: Repository, tmp_path: Path, configure: Configure
) -> None:
    fill_lake(repo)
    back_up(repo, tmp_path / "backup")
    project = configure(new_schema())
    words = ("restore", str(tmp_path / "backup"))
    assert run(*words, at=project, fault="restore.catalog.after").code == KILLED
    begun = open_lake(project).repo
    kept = commit(begun, {"contract/new": {"type": "instep.contract.v1", "text": "x"}})
    assert run(*words, at=project).code == 0
    again = open_lake(project).repo
    assert again.resolve("main") == kept
    check(again)
    if on_s3(again.root):
        with again.store.reading() as tx:
            assert (again.root / MARK).read_text() == home_of(tx).id
    assert not (again.root / UNFINISHED).exists()
    assert run(*words, at=project).code in TAKEN


@pytest.mark.parametrize("configure", ["postgres", "s3"], indirect=True)
def test_an_unfinished_restore_keeps_its_place_from_another_schema_and_another_backup(
    repo: Repository, tmp_path: Path, configure: Configure
) -> None:
    fill_lake(repo)
    back_up(repo, tmp_path / "backup")
    commit(repo, {"contract/new": {"type": "instep.contract.v1", "text": "x"}})
    back_up(repo, tmp_path / "later")
    schema = new_schema()
    project = configure(schema)
    words = ("restore", str(tmp_path / "backup"))
    assert run(*words, at=project, fault="restore.catalog.after").code == KILLED
    configure(new_schema())
    assert run(*words, at=project).code in TAKEN
    configure(schema)
    assert run("restore", str(tmp_path / "later"), at=project).code in TAKEN
    assert run(*words, at=project).code == 0
    check(open_lake(project).repo)
