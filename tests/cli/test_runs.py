"""plan, run, config and reproduce as they are typed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from instep.cli.main import cli
from instep.clock import system_clock
from instep.engines.duckdb import DuckDB
from instep.errors import InvalidError
from instep.history.edits import Edit, publish
from instep.history.repository import Repository, create_repository
from instep.tables import write
from instep.tables.read import schema_of

PIPELINE = """\
pipeline: bread
slice: {from: 2013-01-01, to: 2013-03-01}
slices: {sales: sold_at}
steps:
  - step: orders
    sql: steps/orders.sql
    writes: orders
    every: 1 month   # so that a late file costs one month
"""
SALES = """\
select range as id, timestamptz '2013-01-01' + to_days(range::int) as sold_at from range(90)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path, text in {
        "instep.yaml": "lake: lake\npeople: [ana]\n"
        "prices: {currency: EUR, cpu_hour: 3600, gb_month: 0.02}\n",
        "pipelines/bread.yaml": PIPELINE,
        "steps/orders.sql": "select id, sold_at from sales",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    put_sales(create_repository(tmp_path / "lake", system_clock, "ana"))
    return tmp_path


def put_sales(repo: Repository) -> None:
    with DuckDB(repo.root / "staging") as engine:
        table = write.create_table(
            repo.root, "sales", engine.describe(SALES).columns, at=repo.clock()
        )
        schema = schema_of(repo.root, table)
        files = engine.write(SALES, schema, write.data_folder(repo.root, table))
    table = write.append(repo.root, table, files, at=repo.clock())
    edit = Edit(repo.resolve("main"), {"table/sales": table.to_content()}, "ana", "sales", "test")
    with repo.store.transaction() as tx:
        publish(tx, repo, "main", edit)


def typed(folder: Path, words: Sequence[str]) -> Result:
    return CliRunner().invoke(cli, [*words, "--project", str(folder)])


def text(folder: Path, *words: str) -> str:
    result = typed(folder, words)
    assert result.exit_code == 0, result.exception
    return result.stdout


def result_of(folder: Path, *words: str) -> Any:  # the command's own shape
    return json.loads(text(folder, *words, "--json"))


def test_a_run_tells_which_drafts_it_left_in_the_folder(folder: Path) -> None:
    said = text(folder, "run", "bread", "--branch", "try", "--as", "ana")
    assert "From the project folder: pipeline/bread." in said
    assert "Not taken from it, and other there than on try: config/instep (new)." in said
    again = result_of(folder, "run", "bread", "--branch", "try", "--as", "ana")
    assert [one["key"] for one in again["not_captured"]] == ["config/instep"]


def test_no_branch_takes_the_name_of_an_environment(folder: Path) -> None:
    with (folder / "instep.yaml").open("a") as file:
        file.write("environments: {prod: {}}\npolicies: {approvals: {project: 0, pipeline: 0}}\n")
    text(folder, "propose", "--as", "ana")
    text(folder, "merge", "1", "--as", "ana")
    takes = ("branch make prod", "tag make prod", "run bread --branch prod")
    for words in map(str.split, takes):
        refused = typed(folder, [*words, "--as", "ana"]).exception
        assert isinstance(refused, InvalidError)
        assert refused.kind == "reserved-ref-name"


def test_a_plan_tells_what_it_would_compute_and_every_value_with_its_place(folder: Path) -> None:
    said = text(folder, "plan", "bread", "--verbose")
    assert "orders -> table/orders: 2 of 2 periods computed" in said
    assert "not computed before in 2013-01-01 to 2013-03-01" in said
    assert "first run: a guess from" in said and "EUR" in said
    assert "pipelines/bread.yaml:8" in said and "default" in said


def test_a_run_needs_a_branch(folder: Path) -> None:
    error = typed(folder, ["run", "bread", "--as", "ana"]).exception
    assert isinstance(error, InvalidError)
    assert error.kind == "no-branch"


def test_a_run_its_plan_and_its_reproduction_agree(folder: Path) -> None:
    ran = result_of(folder, "run", "bread", "--branch", "try", "--as", "ana")
    assert ran["changed"] == ["pipeline/bread", "table/orders"]
    again = result_of(folder, "plan", "bread", "--at", "try")
    assert [step["reused"] for step in again["steps"]] == [True]
    assert "Nothing changed" in text(folder, "run", "bread", "--branch", "try", "--as", "ana")
    assert result_of(folder, "reproduce", ran["run"])["verdict"] == "identical"


def test_a_value_is_shown_and_set_where_it_stands(folder: Path) -> None:
    done = result_of(folder, "config", "set", "bread", "slice.to", "2013-04-01")
    assert done["before"] == "2013-03-01"
    assert (folder / "pipelines/bread.yaml").read_text() == PIPELINE.replace(
        "to: 2013-03-01", "to: 2013-04-01"
    )
    shown = {one["name"]: one for one in result_of(folder, "config", "show", "bread")["values"]}
    assert shown["slice.to"]["value"] == "2013-04-01"
    assert shown["slice.to"]["origin"] == "pipelines/bread.yaml:2"


def test_help_of_each_command_shows_an_example() -> None:
    for name in ("plan", "run", "reproduce", "config"):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None and "Example:  instep" in (command.help or "")
