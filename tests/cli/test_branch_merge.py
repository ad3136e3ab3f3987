"""`instep branch merge`: two branches that changed the same things, by each table's policy."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instep.cli.main import cli
from instep.cli.project import open_project
from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column
from instep.errors import InstepError
from instep.history.edits import Edit, commit_edit, publish
from instep.history.repository import MAIN, Repository
from instep.tables.content import TableContent
from instep.tables.partition import Part
from instep.tables.read import data_files, file_set, layout_of, schema_of
from instep.tables.write import append, create_table, data_folder, replace, set_layout

CONFIG = "lake: lake\npeople: [ana, ben]\nenvironments: {prod: {}}\n"

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: {name}
version: 1.0.0
status: active
schema:
  - name: {name}
    customProperties:
      - {{property: mergePolicy, value: {policy}}}
    properties:
      - {{name: id, logicalType: integer, required: true{key}}}
      - {{name: price, logicalType: integer}}
"""
COLUMNS = (Column(0, "id", "long", required=True), Column(0, "price", "long"))
POLICIES = {"stock": "keyed", "events": "append", "day": "replace", "sums": "derived"}

Rows = dict[int, int]


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.long)])
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Path:
    """A lake with a table of every policy and the rows 1 and 2, and the branches a and b."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTEP_ACTOR", "ana")
    config = CONFIG
    if request.param == "s3":
        bucket, url = (request.getfixturevalue(name) for name in ("bucket", "postgres_url"))
        config = CONFIG.replace("lake: lake", bucket.project_line(url))
    (tmp_path / "instep.yaml").write_text(config)
    cli.main(["init"], standalone_mode=False)
    repo = open_project(tmp_path).repo
    changes: dict[str, Any] = {}
    for name, policy in POLICIES.items():
        key = "" if policy == "append" else ", primaryKey: true, primaryKeyPosition: 1"
        text = CONTRACT.format(name=name, policy=policy, key=key)
        blob = repo.objects.put(text.encode())
        changes[f"contract/{name}"] = {"type": "instep.contract.v1", "blob": blob}
        table = create_table(repo.root, name, COLUMNS, at=repo.clock())
        changes[f"table/{name}"] = added(repo, table, {1: 10, 2: 20}).to_content()
    with repo.store.transaction() as tx:
        publish(tx, repo, MAIN, Edit(repo.resolve(MAIN), changes, "ana", "filled", "test"))
    for branch in ("a", "b"):
        cli.main(["branch", "make", branch], standalone_mode=False)
    return tmp_path


def written(repo: Repository, table: TableContent, rows: Rows) -> Any:
    listed = ", ".join(f"({key}, {price})" for key, price in rows.items())
    with DuckDB(repo.root / "staging") as engine:
        sql = f"SELECT id::BIGINT id, price::BIGINT price FROM (VALUES {listed}) t(id, price)"
        layout = layout_of(repo.root, table)
        folder = data_folder(repo.root, table)
        return engine.write(sql, schema_of(repo.root, table), folder, layout=layout)


def added(repo: Repository, table: TableContent, rows: Rows) -> TableContent:
    return append(repo.root, table, written(repo, table, rows), at=repo.clock())


def rewritten(repo: Repository, table: TableContent, rows: Rows) -> TableContent:
    gone = [file.path for file in data_files(repo.root, table)]
    return replace(repo.root, table, written(repo, table, rows), gone, at=repo.clock())


Act = Callable[[Repository, TableContent, Rows], TableContent]


def edited(project: Path, branch: str, name: str, act: Act, rows: Rows) -> None:
    repo = open_project(project).repo
    base = repo.resolve(branch)
    key = f"table/{name}"
    table = act(repo, TableContent.from_content(repo.content(base, key)), rows)
    commit_edit(repo, branch, Edit(base, {key: table.to_content()}, "ana", "edited", "test"))


def held(project: Path, branch: str, name: str) -> list[tuple[int, int]]:
    repo = open_project(project).repo
    table = TableContent.from_content(repo.content(repo.resolve(branch), f"table/{name}"))
    with DuckDB(repo.root / "staging") as engine:
        engine.view(file_set(repo.root, table, "t"))
        return sorted(engine.rows("SELECT id, price FROM t"))


def merged(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = cli.main(["branch", "merge", "b", "a", *words], standalone_mode=False)
    return code, capsys.readouterr().out


def kind_of(*words: str) -> str:
    with pytest.raises(InstepError) as caught:
        cli.main(["branch", "merge", *words], standalone_mode=False)
    return caught.value.kind


def test_a_keyed_table_is_merged_cell_by_cell(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited(project, "a", "stock", rewritten, {1: 11, 2: 20})
    edited(project, "b", "stock", rewritten, {1: 10, 3: 30})
    code, out = merged(capsys)
    assert code == 0
    assert "~ table/stock: policy keyed; 1 row added, 0 changed, 1 removed" in out
    assert held(project, "a", "stock") == [(1, 11), (3, 30)]
    repo = open_project(project).repo
    assert repo.commit(repo.resolve("a")).parents[1:] == (repo.resolve("b"),)
    assert kind_of("b", "a") == "nothing-to-merge"


def test_appends_of_both_sides_are_kept(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited(project, "a", "events", added, {3: 30})
    edited(project, "b", "events", added, {3: 30, 4: 40})
    assert merged(capsys)[0] == 0
    assert held(project, "a", "events") == [(1, 10), (2, 20), (3, 30), (3, 30), (4, 40)]


def test_conflicts_change_nothing_and_are_settled_in_a_file(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited(project, "a", "stock", rewritten, {1: 11, 2: 21})
    edited(project, "b", "stock", rewritten, {1: 12, 2: 22})
    before = open_project(project).repo.resolve("a")
    code, out = merged(capsys, "--conflicts", "conflicts.csv")
    assert code == 4
    assert "! table/stock: 2 conflicts" in out
    assert "10    11      12" in out
    assert open_project(project).repo.resolve("a") == before
    with (project / "conflicts.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["key"] for line in lines] == ['["1"]', '["2"]']
    lines[0] |= {"take": "given", "value": "99"}
    lines[1] |= {"take": "theirs"}
    with (project / "conflicts.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    code, out = merged(capsys, "--resolve", "conflicts.csv")
    assert code == 0
    assert "2 conflicts settled" in out
    assert held(project, "a", "stock") == [(1, 99), (2, 22)]


def partitioned(column: str) -> Act:
    """Partitions a table by a column and writes its rows anew."""

    def act(repo: Repository, table: TableContent, rows: Rows) -> TableContent:
        table = set_layout(repo.root, table, [Part(column, "truncate[10]")], (), at=repo.clock())
        return rewritten(repo, table, rows)

    return act


def test_a_layout_that_both_set_is_settled_in_a_file_before_the_rows(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited(project, "a", "stock", partitioned("id"), {1: 11, 2: 20})
    edited(project, "b", "stock", partitioned("price"), {1: 12, 2: 20})
    code, out = merged(capsys, "--conflicts", "layout.csv")
    assert code == 4
    told = "partitioning: none; ours: truncate[10](id); theirs: truncate[10](price)"
    assert f"! table/stock: {told}" in out
    settle("layout.csv", "theirs")
    code, out = merged(capsys, "--resolve", "layout.csv", "--conflicts", "rows.csv")
    assert code == 4
    assert "! table/stock: 1 conflict" in out
    settle("rows.csv", "ours")
    code, out = merged(capsys, "--resolve", "layout.csv", "--resolve", "rows.csv")
    assert code == 0
    assert "2 conflicts settled" in out
    assert held(project, "a", "stock") == [(1, 11), (2, 20)]
    repo = open_project(project).repo
    table = TableContent.from_content(repo.content(repo.resolve("a"), "table/stock"))
    assert [one.name for one in layout_of(repo.root, table).partition] == ["price_trunc"]


def settle(path: str, take: str) -> None:
    """Fills in the column take of a file of conflicts."""
    with Path(path).open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines
    with Path(path).open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows({**line, "take": take} for line in lines)


def test_a_replaced_table_is_a_conflict_that_takes_a_side(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited(project, "a", "day", rewritten, {1: 11})
    edited(project, "b", "day", rewritten, {1: 12})
    code, out = merged(capsys)
    assert code == 4
    assert "! table/day: policy replace" in out
    assert merged(capsys, "--take", "table/day=theirs")[0] == 0
    assert held(project, "a", "day") == [(1, 12)]


def test_a_derived_table_is_never_merged(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited(project, "a", "sums", rewritten, {1: 11})
    edited(project, "b", "sums", rewritten, {1: 12})
    code, out = merged(capsys)
    assert code == 0
    assert "~ table/sums: derived: ours stays until its pipeline runs" in out
    assert held(project, "a", "sums") == [(1, 11)]


def test_words_that_settle_nothing_are_refused(project: Path) -> None:
    edited(project, "b", "stock", rewritten, {1: 12})
    assert kind_of("b", "a", "--take", "mine") == "bad-take"
    assert kind_of("b", "a", "--take", "table/stock=ours") == "no-such-conflict"
    (project / "own.csv").write_text("key,take\n1,ours\n")
    assert kind_of("b", "a", "--resolve", "own.csv") == "bad-take"
    assert kind_of("b", "main") == "protected-branch"
