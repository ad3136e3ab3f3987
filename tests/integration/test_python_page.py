"""The page for users of Python: every example on it runs, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from garbage import branch, commit

from instep.clock import system_clock
from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column
from instep.history.repository import create_repository
from instep.lake import Lake
from instep.tables.read import schema_of
from instep.tables.write import append, create_table, data_folder

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = create_repository(tmp_path / "lake", system_clock, "ana")
    (tmp_path / "instep.yaml").write_text("lake: lake\n")
    table = create_table(repo.root, "flights", [Column(0, "carrier", "string")], at=repo.clock())
    with DuckDB(repo.root / "staging") as engine:
        files = engine.write(
            "select 'UA' as carrier", schema_of(repo.root, table), data_folder(repo.root, table)
        )
    flights = append(repo.root, table, files, at=repo.clock())
    commit(repo, "main", table__flights=flights.to_content())
    branch(repo, "work")
    monkeypatch.chdir(tmp_path)

    scope: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, scope)

    prices = Lake(repo).branch("work").table("prices")
    assert prices.schema.names == ("item", "price", "unit")
    assert prices.arrow().to_pylist() == [{"item": 2, "price": 19.5, "unit": None}]
    repo.store.close()
