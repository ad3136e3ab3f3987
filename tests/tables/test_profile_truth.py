"""Profiles against all rows of a table: every figure that is called exact is what DuckDB counts.

Tables of every nested shape, through appends of ours and of pyiceberg, changes of columns and of
fields within, compaction and merge; and some earlier states again after that.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from lakes import commit

from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column, quoted
from instep.history.refs import RefKind, create_ref
from instep.history.repository import MAIN, Repository
from instep.lake import Lake
from instep.tables.columns import paths
from instep.tables.compact import compact_state
from instep.tables.content import TableContent
from instep.tables.merge import merge_rows
from instep.tables.profile import KEPT_HASHES, ColumnProfile
from instep.tables.profile_keep import profile_table
from instep.tables.read import file_set, schema_of

AB: list[tuple[str, pa.DataType]] = [
    ("a", pa.int32()),
    ("f", pa.float32()),
    ("d", pa.decimal128(9, 2)),
]
COLUMNS: list[tuple[str, pa.DataType]] = [
    ("k", pa.int64()),
    ("i", pa.int32()),
    ("x", pa.float32()),
    ("d", pa.decimal128(9, 2)),
    ("s", pa.struct([*AB, ("within", pa.struct(AB))])),
    ("l", pa.list_(pa.int32())),
    ("ll", pa.list_(pa.list_(pa.float32()))),
    ("ls", pa.list_(pa.struct(AB))),
    ("m", pa.map_(pa.string(), pa.int32())),
    ("ms", pa.map_(pa.int32(), pa.struct([("l", pa.list_(pa.string()))]))),
]
WIDER = {"int": "long", "float": "double", "decimal(9,2)": "decimal(30,2)"}
NEW = ["int", "double", "decimal(9,2)", "STRUCT(a INTEGER, b VARCHAR[])", "MAP(VARCHAR, DOUBLE)"]
SHARES = [percent / 100 for percent in range(101)]
FLOATS = [0.0, -0.0, float("nan"), float("inf"), 0.1, -2.5]
TEXTS = ["", "a", "NULL", "a, b", "'", "null", "9", "10"]


def made_value(chance: random.Random, kind: pa.DataType) -> Any:  # of that type
    if chance.random() < 0.15:
        return None
    if pa.types.is_struct(kind):
        return {one.name: made_value(chance, one.type) for one in kind.fields}
    if pa.types.is_map(kind):
        keys = {made_value(chance, kind.key_type): None for _ in range(chance.randrange(3))}
        keys.pop(None, None)
        return [(key, made_value(chance, kind.item_type)) for key in keys]
    if isinstance(kind, (pa.ListType, pa.LargeListType)):
        return [made_value(chance, kind.value_type) for _ in range(chance.randrange(3))]
    if pa.types.is_integer(kind):
        return chance.choice([chance.randrange(-200, 200), chance.randrange(-1, 11)])
    if pa.types.is_floating(kind):
        return chance.choice([*FLOATS, chance.randrange(-50, 50) / 8])
    if pa.types.is_decimal(kind):
        return Decimal(chance.randrange(-3000, 3000)) / 100
    if pa.types.is_date(kind):
        return date(2020, 1, 1) + timedelta(chance.randrange(40))
    return chance.choice(TEXTS)


@dataclass(slots=True)
class History:
    """A table "t" on the branch "work", and every state it had."""

    lake: Lake
    chance: random.Random
    states: list[TableContent] = field(default_factory=list)
    made: int = 0

    def content(self, branch: str = "work") -> TableContent:
        return self.lake.branch(branch).table("t").content

    def editing(self, branch: str = "work") -> Any:  # a context manager of TableEdit
        return self.lake.edit(branch, message="more", author="ana")

    def new_name(self) -> str:
        self.made += 1
        return f"n{self.made}"

    def rows(self, schema: pa.Schema) -> pa.Table:
        rows = []
        for _ in range(self.chance.choice([1, 4, 40, 250])):
            self.made += 1
            row = {one.name: made_value(self.chance, one.type) for one in schema}
            rows.append({**row, "k": self.made})
        return pa.Table.from_pylist(rows, schema=schema)

    def paths(self) -> dict[str, Column]:
        """The columns and fields that can be renamed, dropped and moved, by their paths."""
        every = dict(paths(schema_of(self.lake.repo.root, self.content()).columns))
        inside = {path: every.get(path.rpartition(".")[0]) for path in every}
        return {
            path: column
            for path, column in every.items()
            if path != "k" and (inside[path] is None or inside[path].type == "struct")  # type: ignore[union-attr]  # None is told apart before
        }


def we_append(history: History, branch: str = "work") -> None:
    with history.editing(branch) as edit:
        for _ in range(history.chance.randrange(1, 4)):
            rows = history.rows(edit.catalog.load_table("default.t").schema().as_arrow())
            edit.append("t", rows)


def pyiceberg_appends(history: History) -> None:
    with history.editing() as edit:
        table = edit.catalog.load_table("default.t")
        table.append(history.rows(table.schema().as_arrow()))


def a_name_changes(history: History) -> None:
    with history.editing() as edit:
        edit.rename_column("t", history.chance.choice(list(history.paths())), history.new_name())


def a_type_widens(history: History) -> None:
    every = paths(schema_of(history.lake.repo.root, history.content()).columns)
    fit = [(path, WIDER[one.type]) for path, one in every if one.type in WIDER]
    fit = [(path, kind) for path, kind in fit if not path.endswith(".key")]
    if fit:
        with history.editing() as edit:
            edit.promote_column("t", *history.chance.choice(fit))


def a_field_goes(history: History) -> None:
    every = history.paths()
    held = {path: len(one.children) for path, one in every.items()}
    fit = [path for path in every if "." in path and held.get(path.rpartition(".")[0], 1) > 1]
    if fit:
        with history.editing() as edit:
            edit.drop_column("t", history.chance.choice(fit))


def a_field_comes(history: History) -> None:
    structs = [path for path, one in history.paths().items() if one.type == "struct"]
    parent = history.chance.choice(["", *(f"{path}." for path in structs)])
    with history.editing() as edit:
        edit.add_column("t", parent + history.new_name(), history.chance.choice(NEW))


def a_field_moves(history: History) -> None:
    with history.editing() as edit:
        edit.move_column("t", history.chance.choice(list(history.paths())), after="")


def files_are_put_together(history: History) -> None:
    repo = history.lake.repo
    compact_state(repo, history.content(), at=repo.clock())


def a_branch_is_merged(history: History) -> None:
    repo, base, branch = history.lake.repo, history.content(), history.new_name()
    with repo.store.transaction() as tx:
        at = repo.clock()
        create_ref(tx, branch, RefKind.BRANCH, repo.resolve("work"), owner="ana", at=at)
    we_append(history, branch)
    history.chance.choice([a_name_changes, a_type_widens, pyiceberg_appends])(history)
    sides = history.content(), history.content(branch)
    merged = merge_rows(repo.root, base, *sides, ["k"], at=repo.clock())
    assert merged.content is not None
    commit(repo, {"table/t": merged.content.to_content()}, ref="work")


ACTS: list[Callable[[History], None]] = [
    we_append,
    pyiceberg_appends,
    a_name_changes,
    a_type_widens,
    a_field_goes,
    a_field_comes,
    a_field_moves,
    files_are_put_together,
    a_branch_is_merged,
]


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 26))]
)
def test_every_figure_called_exact_is_that_of_all_rows(repo: Repository, seed: int) -> None:
    with repo.store.transaction() as tx:
        create_ref(tx, "work", RefKind.BRANCH, repo.resolve(MAIN), owner="ana", at=repo.clock())
    chance = random.Random(seed)
    history = History(Lake(repo), chance)
    with history.editing() as edit:
        edit.catalog.create_table("default.t", schema=pa.schema(COLUMNS))
    acts = chance.sample(ACTS, len(ACTS))
    for act in [we_append, pyiceberg_appends, *acts]:
        act(history)
        history.states.append(history.content())
        if chance.random() < 0.3:
            check(repo.root, history.states[-1])
    for state in chance.sample(history.states, 4):
        check(repo.root, state)


def check(root: Path, content: TableContent) -> None:
    """Holds each column's profile against all rows, read into a DuckDB of their own."""
    with DuckDB(root / "staging") as engine:
        engine.view(file_set(root, content, "t"))
        rows = engine.sql("SELECT * FROM t").to_arrow_table()
    connection = duckdb.connect()
    connection.register("arrow", rows)
    connection.execute("CREATE TABLE t AS SELECT * FROM arrow")
    columns = schema_of(root, content).columns
    for column, found in zip(columns, profile_table(root, content), strict=True):
        check_column(connection, column, found)


def check_column(
    connection: duckdb.DuckDBPyConnection, column: Column, found: ColumnProfile
) -> None:
    name = quoted(column.name)
    counts = connection.execute(
        f"SELECT {name}::VARCHAR, count(*) FROM t GROUP BY {name}"
    ).fetchall()
    known = [(_plain(text), rows) for text, rows in counts if text is not None]
    assert {"count", "nulls"} <= found.exact
    assert found.count == sum(rows for _, rows in counts)
    assert found.nulls == found.count - sum(rows for _, rows in known)
    if "distinct" in found.exact:
        assert found.distinct == len(known), column
    else:
        assert len(known) >= KEPT_HASHES, column
        assert abs(found.distinct - len(known)) <= found.distinct_error * len(known)
    if column.is_nested:
        assert (found.minimum, found.maximum, found.frequent) == (None, None, ())
        assert not known or found.exact.isdisjoint({"minimum", "maximum", "frequent"})
        assert max((rows for _, rows in known), default=0) <= found.frequent_below
        return
    check_values(connection, column, found, dict(known))


def check_values(
    connection: duckdb.DuckDBPyConnection,
    column: Column,
    found: ColumnProfile,
    rows_of: dict[str, int],
) -> None:
    name = quoted(column.name)
    where = f"isfinite({name})" if column.type in ("float", "double") else "true"
    number = f"{name}::DOUBLE" if column.type != "string" else "NULL::DOUBLE"
    row = connection.execute(
        f"SELECT min({name})::VARCHAR, max({name})::VARCHAR, avg({number}), "
        f"stddev_pop({number}), quantile_cont({number}, {SHARES}) FROM t WHERE {where}"
    ).fetchone()
    assert row is not None
    low, high, mean, deviation, quantiles = row
    assert {"minimum", "maximum", "mean", "deviation"} <= found.exact
    assert (found.minimum, found.maximum) == (_plain(low), _plain(high)), column
    assert _near((found.mean, found.deviation), (mean, deviation))
    if "quantiles" in found.exact:
        assert _near(found.quantiles, quantiles or [])
    listed = dict(found.frequent)
    for text, rows in listed.items():
        assert abs(rows - rows_of.get(text, 0)) <= found.frequent_error, column
    for text, rows in rows_of.items():
        assert text in listed or rows <= found.frequent_below, column
    if "frequent" in found.exact:
        assert found.frequent_error == 0
        assert len(listed) == min(len(rows_of), 50)


def _plain(text: str | None) -> Any:  # None only for None
    return "0.0" if text == "-0.0" else text


def _near(found: Sequence[float | None], truth: Sequence[float | None]) -> bool:
    return len(found) == len(truth) and all(
        (one is None) == (other is None) and (one is None or one == pytest.approx(other, abs=1e-9))
        for one, other in zip(found, truth, strict=True)
    )
