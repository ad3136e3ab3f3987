"""Tables through any evolution of columns and partitions: what bare pyiceberg reads of them.

Columns come, go, become wider and get other names, the layout is any of Iceberg's transforms, and
manifests of old specs and types are written again by deletes, merges and compactions. After each
step pyiceberg, which knows nothing of Instep, must find the rows that a dict holds, with and
without a condition on a column that files are partitioned by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from bare import bare_table
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyiceberg.expressions import (
    AlwaysTrue,
    BooleanExpression,
    EqualTo,
    GreaterThanOrEqual,
    IsNull,
    LessThan,
    Reference,
)

from instep.engines.schema import Column
from instep.history.repository import Repository, create_repository
from instep.tables.columns import added, dropped, promoted, renamed
from instep.tables.compact import compact_state
from instep.tables.content import TableContent
from instep.tables.manifest import MERGED_MANIFESTS
from instep.tables.partition import Part
from instep.tables.read import metadata_path
from instep.tables.rows import Rows, append_rows, delete_rows
from instep.tables.write import create_table, evolve, set_layout

AT = datetime(2026, 1, 1, tzinfo=UTC)

WIDER = {"int": "long", "float": "double", "decimal(9,2)": "decimal(18,2)"}

_TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1))
_FLOATS = st.floats(-(2.0**99), 2.0**99, width=32).map(lambda one: one + 0.0)  # -0.0 is 0.0 then

VALUES: dict[str, st.SearchStrategy[Any]] = {  # of one type each
    "boolean": st.booleans(),
    "int": st.integers(-1000, 1000) | st.integers(-(2**31) + 10, 2**31 - 1),
    "long": st.integers(-1000, 1000) | st.integers(-(2**63) + 10, 2**63 - 1),
    # A double that no float is, pyiceberg 0.12 takes for the nearest one in files of floats.
    "float": _FLOATS,
    "double": _FLOATS,
    "decimal(9,2)": st.decimals(-9_000_000, 9_000_000, places=2),
    "decimal(18,2)": st.decimals(-(10**15), 10**15, places=2),
    "date": st.dates(date(1900, 1, 1), date(2100, 1, 1)),
    "timestamp": _TIMES,
    "timestamptz": _TIMES.map(lambda one: one.replace(tzinfo=UTC)),
    "time": st.times(),
    "uuid": st.uuids(),
    "string": st.text("aé/=%'\\ 🚀", max_size=4),
    "binary": st.binary(max_size=3),
}
KINDS = sorted(VALUES)

_TRUNCATED = ("truncate[3]", "truncate[10]")
_DAYS = ("identity", "year", "month", "day")
_INSTANTS = (*_DAYS, "hour", "bucket[4]")
_NUMBER = ("identity", "bucket[4]", *_TRUNCATED)
TRANSFORMS = {
    "boolean": ("identity",),
    "int": _NUMBER,
    "long": _NUMBER,
    "float": ("identity",),
    "double": ("identity",),
    "decimal(9,2)": _NUMBER,
    "decimal(18,2)": _NUMBER,
    "date": (*_DAYS, "bucket[4]"),
    "timestamp": _INSTANTS,
    "timestamptz": _INSTANTS,
    "time": ("identity", "bucket[4]"),
    "uuid": ("bucket[4]",),
    "string": _NUMBER,
    "binary": _NUMBER,
}


@dataclass(eq=False)
class Held:
    """A column of the table: what it is called and its type now; a later one is another."""

    name: str
    kind: str


@dataclass
class Evolving:
    """A table, and beside it all that it should hold: rows by their key, a value for each column.

    `sources` are the columns that some spec was of, `laid_out` those of the spec of now.
    """

    repo: Repository
    data: st.DataObject
    table: TableContent
    columns: list[Held] = field(default_factory=list)
    rows: dict[int, dict[Held, Any]] = field(default_factory=dict)
    sources: list[Held] = field(default_factory=list)
    laid_out: list[Held] = field(default_factory=list)
    keys: count[int] = field(default_factory=count)

    @property
    def root(self) -> Path:
        return self.repo.root

    def evolve(self, change: Callable[..., Any]) -> None:
        self.table = evolve(self.root, self.table, change, at=AT)

    def draw(self, strategy: st.SearchStrategy[Any]) -> Any:  # of the strategy's type
        return self.data.draw(strategy)

    def value(self, held: Held) -> Any:  # of the column's type
        return self.draw(st.none() | VALUES[held.kind])

    def add(self) -> None:
        names = [name for name in "abcd" if name not in {held.name for held in self.columns}]
        if names:
            name, kind = self.draw(st.sampled_from(names)), self.draw(st.sampled_from(KINDS))
            held = Held(name, kind)
            self.evolve(lambda schema, ids: added(schema, ids, Column(0, held.name, held.kind)))
            self.columns.append(held)

    def drop(self) -> None:
        if not self.columns:
            return
        held = self.draw(st.sampled_from(self.columns))
        if held in self.laid_out:
            self.lay_out([])
        self.evolve(lambda schema, _: dropped(schema, held.name))
        self.columns.remove(held)

    def rename(self) -> None:
        taken = {held.name for held in self.columns}
        names = [name for name in "abcd" if name not in taken]
        if names and self.columns:
            held = self.draw(st.sampled_from(self.columns))
            name = self.draw(st.sampled_from(names))
            self.evolve(lambda schema, _: renamed(schema, held.name, name))
            held.name = name

    def promote(self) -> None:
        narrow = [held for held in self.columns if held.kind in WIDER]
        if narrow:
            held = self.draw(st.sampled_from(narrow))
            kind = WIDER[held.kind]
            self.evolve(lambda schema, _: promoted(schema, held.name, kind))
            held.kind = kind

    def partition(self) -> None:
        if self.columns:
            self.lay_out(
                self.draw(
                    st.lists(st.sampled_from(self.columns), min_size=1, max_size=2, unique=True)
                )
            )

    def lay_out(self, columns: list[Held]) -> None:
        parts = [
            Part(held.name, self.draw(st.sampled_from(TRANSFORMS[held.kind]))) for held in columns
        ]
        self.table = set_layout(self.root, self.table, parts, (), at=AT)
        self.laid_out = columns
        self.sources += [held for held in columns if held not in self.sources]

    def append(self) -> None:
        rows = {
            next(self.keys): {held: self.value(held) for held in self.columns}
            for _ in range(self.draw(st.integers(1, 3)))
        }
        listed = " UNION ALL ".join(
            f"SELECT {key}::BIGINT AS k"
            + "".join(f", {sql(row[held], held)}" for held in self.columns)
            for key, row in rows.items()
        )
        self.table = append_rows(self.root, self.table, Rows(listed), at=AT)
        self.rows |= rows

    def append_until_manifests_merge(self) -> None:
        for _ in range(MERGED_MANIFESTS):
            self.append()

    def delete(self) -> None:
        if self.rows:
            gone = self.draw(st.sets(st.sampled_from(sorted(self.rows)), min_size=1, max_size=2))
            listed = ", ".join(map(str, gone))
            self.table = delete_rows(self.root, self.table, f"k IN ({listed})", at=AT)
            self.rows = {key: row for key, row in self.rows.items() if key not in gone}

    def compact(self) -> None:
        compact_state(self.repo, self.table, at=AT)

    def check(self) -> None:
        """Holds that pyiceberg reads the rows, and finds them by each column that a spec was of."""
        self.check_found(AlwaysTrue(), sorted(self.rows))
        for held in self.columns:
            if held in self.sources:
                self.check_by(held)

    def check_by(self, held: Held) -> None:
        known = {key: row.get(held) for key, row in self.rows.items()}
        values = [value for value in known.values() if value is not None]
        wanted = self.draw(st.sampled_from(values) if values else VALUES[held.kind])
        term = Reference(held.name)
        nulls = [key for key, value in known.items() if value is None]
        self.check_found(IsNull(term=term), nulls)
        equal = [key for key, value in known.items() if value == wanted]
        self.check_found(EqualTo(term=term, value=wanted), equal)
        if held.kind == "boolean":
            return
        above = [key for key, value in known.items() if value is not None and value >= wanted]
        self.check_found(GreaterThanOrEqual(term=term, value=wanted), above)
        below = [key for key, value in known.items() if value is not None and value < wanted]
        self.check_found(LessThan(term=term, value=wanted), below)

    def check_found(self, condition: BooleanExpression, keys: list[int]) -> None:
        table = bare_table(self.root, metadata_path(self.root, self.table))
        found = table.scan(row_filter=condition).to_arrow().to_pylist()
        expected = [
            {"k": key, **{held.name: self.rows[key].get(held) for held in self.columns}}
            for key in sorted(keys)
        ]
        assert sorted(found, key=lambda row: int(row["k"])) == expected


STEPS = (
    Evolving.add,
    Evolving.drop,
    Evolving.rename,
    Evolving.promote,
    Evolving.promote,
    Evolving.partition,
    Evolving.partition,
    Evolving.append,
    Evolving.append,
    Evolving.append_until_manifests_merge,
    Evolving.delete,
    Evolving.delete,
    Evolving.compact,
)


def sql(value: Any, held: Held) -> str:  # of the column's type
    sql_type = Column(0, held.name, held.kind).sql_type
    match value:
        case None:
            text = "NULL"
        case bytes():
            text = f"unhex('{value.hex()}')"
        case _:
            text = "'" + str(value).replace("'", "''") + "'"
    return f"CAST({text} AS {sql_type}) AS {held.name}"


SLOW = settings(
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
"""An example takes a second or two: to make a failing one smaller would take minutes."""


def evolves(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        repo = create_repository(Path(folder) / "lake", lambda: AT, "ana")
        table = create_table(repo.root, "t", [Column(0, "k", "long")], at=AT)
        state = Evolving(repo, data, table)
        state.add()
        state.add()
        state.partition()
        state.append()
        for step in data.draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=8)):
            step(state)
            state.check()


@settings(SLOW, max_examples=3, derandomize=True)
@given(data=st.data())
def test_bare_pyiceberg_reads_a_table_after_some_evolutions(data: st.DataObject) -> None:
    evolves(data)


@pytest.mark.long
@settings(SLOW, max_examples=100)
@given(data=st.data())
def test_bare_pyiceberg_reads_a_table_after_any_evolution(data: st.DataObject) -> None:
    evolves(data)
