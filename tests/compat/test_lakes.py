"""Lakes that earlier versions wrote are opened, read, checked and written to by this one."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from lakes import appended, commit

from instep.cli.backup import back_up
from instep.cli.relocate import relocate_lake
from instep.cli.restore import restore_backup
from instep.cli.wholeness import check
from instep.clock import Clock
from instep.engines.duckdb import DuckDB
from instep.history.dump import catalog_tables
from instep.history.locks import writing
from instep.history.repository import Repository, open_repository
from instep.history.store import FORMAT_VERSION
from instep.tables.compact import compact_state
from instep.tables.content import TableContent
from instep.tables.read import file_set

KEPT = sorted(Path(__file__).parent.glob("lake-*.tar.gz"))


def numbers(repo: Repository, table: TableContent) -> list[int]:
    with DuckDB(repo.root / "staging") as engine:
        engine.view(file_set(repo.root, table, "t"))
        return [int(row[0]) for row in engine.rows('SELECT n FROM "t" ORDER BY n')]


def table_at(repo: Repository, one: str) -> TableContent:
    return TableContent.from_content(repo.content(one, "table/sales"))


@pytest.fixture(params=KEPT, ids=lambda path: path.name.partition(".")[0])
def kept(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> tuple[Repository, Any]:
    """The lake, made at home in a new folder, and what is in it."""
    path: Path = request.param
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "lake", filter="data")
    relocate_lake(tmp_path / "lake", clock, "moved")
    told = json.loads(path.with_name(path.name.replace(".tar.gz", ".json")).read_text())
    return open_repository(tmp_path / "lake", clock), told


def test_a_kept_lake_is_whole_and_holds_what_it_held(kept: tuple[Repository, Any]) -> None:
    repo, told = kept
    with repo.store.reading() as tx:
        assert [table.name for table in catalog_tables() if not tx.has_table(table.name)] == []
    checked = check(repo)
    for what in ("commits", "operations", "table states", "data files", "seals", "records"):
        assert checked[what] == told["checked"][what]
    for ref in ("main", "ideas", "v1"):
        assert repo.resolve(ref) == told[ref]
    for one, contents in told["contents"].items():
        assert repo.entries(one) == contents
    for one, expected in told["numbers"].items():
        assert numbers(repo, table_at(repo, one)) == expected


def test_a_kept_lake_goes_on(kept: tuple[Repository, Any], tmp_path: Path, clock: Clock) -> None:
    repo, told = kept
    table = appended(repo, table_at(repo, told["main"]), range(20, 22))
    head = commit(repo, {"table/sales": table.to_content()})
    with writing(repo.root, repo.store):
        assert compact_state(repo, table, at=clock()).now is not None
    check(repo)
    assert numbers(repo, table_at(repo, head)) == [*range(4, 10), 20, 21]
    back_up(repo, tmp_path / "backup")
    restore_backup(tmp_path / "backup", tmp_path / "again", clock)
    check(open_repository(tmp_path / "again", clock))


def test_the_format_of_this_version_is_kept() -> None:
    assert f"lake-{FORMAT_VERSION}.tar.gz" in {path.name for path in KEPT}
