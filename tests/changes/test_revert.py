"""Undo of a table by rows: written outside a transaction, and held to the contract it read."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import garbage
import pytest
from bare import bare_table
from databases import on_both

from instep.changes.revert import undo_on_branch
from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column
from instep.errors import ConflictError
from instep.history.repository import Repository
from instep.tables.content import TableContent
from instep.tables.partition import Part
from instep.tables.read import data_files, layout_of, row_count, schema_of
from instep.tables.write import append, create_table, data_folder, set_layout
from instep.tables.write import replace as with_files

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: t
version: 1.0.{version}
status: active
schema:
  - name: t
    customProperties:
      - {{property: mergePolicy, value: keyed}}
    properties:
      - {{name: id, logicalType: integer, required: true, primaryKey: true, primaryKeyPosition: 1}}
"""


def with_row(repo: Repository, table: TableContent, number: int) -> TableContent:
    with DuckDB(repo.root / "staging") as engine:
        sql = f"select {number}::bigint id"
        schema, folder = schema_of(repo.root, table), data_folder(repo.root, table)
        rows = engine.write(sql, schema, folder, layout=layout_of(repo.root, table))
    return append(repo.root, table, rows, at=repo.clock())


def add_row(repo: Repository, number: int) -> str:
    table = TableContent.from_content(repo.content(repo.resolve("try"), "table/t"))
    return garbage.commit(repo, "try", table__t=with_row(repo, table, number).to_content())


def terms(repo: Repository, version: int) -> dict[str, str]:
    return garbage.contract(repo, CONTRACT.format(version=version))


@pytest.fixture
def undone(repo: Repository) -> str:
    """A commit that added row 2, after which another added row 3."""
    garbage.branch(repo, "try")
    table = create_table(repo.root, "t", [Column(0, "id", "long", required=True)], at=repo.clock())
    first = with_row(repo, table, 1).to_content()
    garbage.commit(repo, "try", contract__t=terms(repo, 0), table__t=first)
    second = add_row(repo, 2)
    add_row(repo, 3)
    return second


@on_both
def test_rows_that_came_later_stay_when_a_commit_is_undone(repo: Repository, undone: str) -> None:
    done = undo_on_branch(repo, "try", undone, (), author="ana", why="")
    assert done.undo.reads == {"contract/t"}
    table = TableContent.from_content(repo.content(repo.resolve("try"), "table/t"))
    assert row_count(repo.root, table) == 2


def test_rows_that_an_undo_brings_back_are_found_by_a_layout_set_since(repo: Repository) -> None:
    garbage.branch(repo, "try")
    columns = [Column(0, "id", "long", required=True)]
    parts = [Part("id", "bucket[4]")]
    empty = create_table(repo.root, "t", columns, at=repo.clock(), partition=parts)
    table = with_row(repo, empty, 7)
    first = table.to_content()
    garbage.commit(repo, "try", contract__t=terms(repo, 0), table__t=first)
    gone = [file.path for file in data_files(repo.root, table)]
    table = with_files(repo.root, table, (), gone, at=repo.clock())
    wrong = garbage.commit(repo, "try", table__t=table.to_content())
    table = set_layout(repo.root, table, [Part("id")], (), at=repo.clock())
    garbage.commit(repo, "try", table__t=table.to_content())

    undo_on_branch(repo, "try", wrong, (), author="ana", why="")
    table = TableContent.from_content(repo.content(repo.resolve("try"), "table/t"))
    found = bare_table(repo.root, table.metadata).scan("id == 7").to_arrow()
    assert found.column("id").to_pylist() == [7]


@on_both
def test_an_undo_by_rows_holds_no_transaction_and_its_contract_may_not_move(
    repo: Repository, undone: str
) -> None:
    moved: list[str] = []

    def clock() -> datetime:
        """Another contract is committed while rows are merged, in a transaction of its own."""
        if not moved:
            moved.append(garbage.commit(repo, "try", contract__t=terms(repo, 1)))
        return repo.clock()

    with pytest.raises(ConflictError) as caught:
        undo_on_branch(replace(repo, clock=clock), "try", undone, (), author="ana", why="")
    assert caught.value.kind == "keys-moved"
    assert repo.resolve("try") == moved[0]
