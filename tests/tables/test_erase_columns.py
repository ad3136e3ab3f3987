"""Erased rows are gone, and nothing else, however columns and partitions changed meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bare import bare_table
from foreign_files import add_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.schema import Schema as IcebergSchema
from pyiceberg.types import (
    FixedType,
    ListType,
    LongType,
    NestedField,
    StringType,
    StructType,
    TimestamptzType,
    UUIDType,
)

from instep.cli.erase_rows import ErasedRows, erased_rows
from instep.cli.wholeness import check
from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column, Schema, quoted
from instep.errors import ConflictError, InvalidError
from instep.history.edits import Edit, publish
from instep.history.refs import RefKind, create_ref
from instep.history.repository import Repository, create_repository
from instep.lake import Lake
from instep.tables.columns import Change, added, dropped, promoted, renamed
from instep.tables.content import TableContent
from instep.tables.merge import merge_rows
from instep.tables.partition import Part
from instep.tables.read import data_files, file_set, metadata_path, schema_of
from instep.tables.rows import Rows, append_rows, delete_rows
from instep.tables.write import check_layout, create_table, evolve, set_layout

Row = tuple[Any, ...]  # values of any type, the key first

STRUCT = Column(0, "s", "struct", children=(Column(0, "a", "int"), Column(0, "c", "string")))


@dataclass(slots=True)
class History:
    """A lake with one table on two branches, each state of which is a commit."""

    repo: Repository
    commits: list[str]

    def commit(self, table: TableContent, ref: str = "main") -> TableContent:
        with self.repo.store.transaction(ref) as tx:
            changes = {"table/sales": table.to_content()}
            edit = Edit(self.repo.resolve(ref), changes, "ana", "More", "run_0")
            self.commits.append(publish(tx, self.repo, ref, edit).id)
        return table

    def created(self, *columns: Column, partition: Sequence[Part] = ()) -> TableContent:
        return create_table(
            self.repo.root, "sales", columns, at=self.repo.clock(), partition=partition
        )

    def appended(self, table: TableContent, select: str, ref: str = "main") -> TableContent:
        found = append_rows(self.repo.root, table, Rows(select), at=self.repo.clock())
        return self.commit(found, ref)

    def evolved(self, table: TableContent, change: Change, ref: str = "main") -> TableContent:
        return self.commit(evolve(self.repo.root, table, change, at=self.repo.clock()), ref)

    def table(self, commit: str) -> TableContent:
        return TableContent.from_content(self.repo.content(commit, "table/sales"))

    def rows(self, commit: str) -> list[Row]:
        with DuckDB(self.repo.root / "staging") as engine:
            engine.view(file_set(self.repo.root, self.table(commit), "t"))
            return sorted(engine.rows("SELECT * FROM t"), key=str)

    def read_bare(self, commit: str, row_filter: str = "") -> list[int]:
        """Returns the keys that bare pyiceberg finds."""
        table = bare_table(self.repo.root, metadata_path(self.repo.root, self.table(commit)))
        scan = table.scan(row_filter) if row_filter else table.scan()
        return sorted(int(n or 0) for n in scan.to_arrow()["n"].to_pylist())

    def erase(self, where: str) -> int:
        done = erased_rows(self.repo, "sales", where, "Request.", "ben", False)
        assert isinstance(done, ErasedRows)
        return done.erasure.rows

    def holds_without(self, where: str, *gone: int) -> None:
        """Erases, and holds that in each commit only the rows of these keys are gone."""
        before = [self.rows(commit) for commit in self.commits]
        self.erase(where)
        for commit, rows in zip(self.commits, before, strict=True):
            assert self.rows(commit) == [row for row in rows if row[0] not in gone]
        check(self.repo)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return _history(tmp_path)


def _history(folder: Path) -> History:
    instants = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=n) for n in count())
    repo = create_repository(folder / "lake", lambda: next(instants), "ana")
    with repo.store.transaction() as tx:
        create_ref(tx, "x", RefKind.BRANCH, repo.resolve("main"), owner="ana", at=repo.clock())
    return History(repo, [])


def _swapped(schema: Schema, ids: Iterator[int]) -> Schema:
    for path, name in (("s.a", "other"), ("s.c", "a"), ("s.other", "c")):
        schema = renamed(schema, path, name)
    return schema


@pytest.mark.parametrize(
    ("change", "where", "gone"),
    [
        (lambda schema, ids: renamed(schema, "s.a", "b"), "s.b = 1", [1]),
        (lambda schema, ids: renamed(schema, "s.a", "b"), "s IS NOT NULL AND s.b IS NULL", [2]),
        (lambda schema, ids: renamed(schema, "s.a", "b"), "s.b IS NOT NULL AND n < 9", [0, 1, 3]),
        (_swapped, "s.c = 1", [1]),
        (
            lambda schema, ids: added(schema, ids, Column(0, "d", "int", initial_default="7"),
                                      parent="s"),
            "s.d = 7 AND n = 1", [1],
        ),
        (lambda schema, ids: promoted(schema, "s.a", "long"), "s.a + 3000000000 > 3000000002", [3]),
        (lambda schema, ids: dropped(schema, "s.a"), "s.c = 'p1'", [1]),
    ],
)  # fmt: skip
def test_rows_are_found_by_the_names_that_nested_fields_have_now(
    history: History, change: Change, where: str, gone: list[int]
) -> None:
    table = history.created(Column(0, "n", "long"), STRUCT)
    rows = "SELECT i AS n, {'a': if(i = 2, NULL, i::INT), 'c': 'p' || i} AS s FROM range(4) r(i)"
    table = history.evolved(history.appended(table, rows), change)
    history.appended(table, "SELECT 99 AS n, NULL AS s")
    history.holds_without(where, *gone)


@pytest.mark.parametrize(
    "change",
    [
        lambda schema, ids: dropped(schema, "x"),
        lambda schema, ids: promoted(schema, "f", "double"),
    ],
)
def test_a_state_from_before_its_columns_changed_keeps_them(
    history: History, change: Change
) -> None:
    table = history.created(
        Column(0, "n", "long"), Column(0, "x", "string"), Column(0, "f", "float")
    )
    table = history.appended(
        table, "SELECT i AS n, 'v' || i AS x, (0.1 * i)::FLOAT AS f FROM range(4) r(i)"
    )
    for _ in range(4):  # states are told apart by digests: none of them is to count
        table = history.evolved(table, change)
        change = lambda schema, ids: added(schema, ids, Column(0, f"c{next(ids)}", "int"))  # noqa: E731
    history.holds_without("n = 2", 2)
    # A bound of a float is right where the column is a double by now.
    assert history.read_bare(history.commits[-1], "n > 0") == [1, 3]
    (file,) = data_files(history.repo.root, history.table(history.commits[-1]))
    assert [one.upper for one in file.columns if one.field_id == 3] == ["0.30000001192092896"]


def test_a_file_that_a_merge_gave_to_a_widened_branch_stays_readable_for_the_other(
    history: History,
) -> None:
    root, at = history.repo.root, history.repo.clock
    table = history.created(Column(0, "n", "long"), Column(0, "f", "float"))
    base = history.appended(table, "SELECT i AS n, 0.5::FLOAT AS f FROM range(3) r(i)")
    ours = history.evolved(base, lambda schema, ids: promoted(schema, "f", "double"), "x")
    theirs = base
    for n in (10, 20, 30):
        more = f"SELECT i + {n} AS n, 0.25::FLOAT AS f FROM range(3) r(i)"
        theirs = history.appended(theirs, more)
    merged = merge_rows(root, base, ours, theirs, ["n"], at=at()).content
    assert merged is not None
    history.commit(merged, "x")
    history.holds_without("n = 31 OR f = 0.5", 0, 1, 2, 31)


def test_rows_are_found_where_one_branch_only_has_widened_a_column(history: History) -> None:
    columns = (Column(0, "n", "long"), Column(0, "f", "float"), Column(0, "d", "decimal(9,2)"))
    table = history.created(*columns)
    rows = "SELECT {0} AS n, ({0} / 2)::FLOAT AS f, 1.25::DECIMAL({1},2) AS d".format
    table = history.appended(table, rows(1, 9))
    table = history.evolved(table, lambda schema, ids: promoted(schema, "f", "double"), "x")
    table = history.evolved(table, lambda schema, ids: promoted(schema, "d", "decimal(18,2)"), "x")
    history.appended(table, rows(2, 18).replace("FLOAT", "DOUBLE"), "x")
    history.holds_without("f = 0.5 OR f = 1.0 AND d = 1.25", 1, 2)


@pytest.mark.parametrize("before", [(), (Part("a"),)])
def test_a_file_stays_in_its_partition_where_new_ones_have_another(
    history: History, before: tuple[Part, ...]
) -> None:
    columns = (Column(0, "n", "long"), Column(0, "a", "string"), Column(0, "b", "string"))
    table = history.created(*columns, partition=before)
    rows = "SELECT i + {} AS n, 'x' AS a, 'y' AS b FROM range(4) r(i)".format
    table = history.appended(table, rows(0))
    after = [Part("b" if before else "a")]
    table = set_layout(history.repo.root, table, after, (), at=history.repo.clock())
    history.appended(table, rows(10))
    history.holds_without("n = 2", 2)
    later = [0, 1, 3, 10, 11, 12, 13]
    for commit, expected in zip(history.commits, ([0, 1, 3], later), strict=True):
        for name, value, found in (("a", "x", expected), ("b", "y", expected), ("b", "x", [])):
            assert history.read_bare(commit, f"{name} = '{value}'") == found


def test_columns_may_have_any_name(history: History) -> None:
    names = ("_column_2", "_column_1", "place of the row", "file of the row", "file_row_number")
    table = history.created(*(Column(0, name, "long") for name in names))
    values = ", ".join(f"{'i' if n == 0 else '3 - i'} AS {quoted(name)}"
                       for n, name in enumerate(names))  # fmt: skip
    history.appended(table, f"SELECT {values} FROM range(4) r(i)")
    history.holds_without('"_column_2" = 0 OR "_column_1" = 2 OR "place of the row" = 0', 0, 1, 3)


def test_a_file_of_another_writer_has_the_same_columns_after(history: History) -> None:
    inner = StructType(NestedField(5, "x", LongType(), required=True))
    schema = IcebergSchema(
        NestedField(1, "n", LongType(), required=True),
        NestedField(2, "b", FixedType(3)),
        NestedField(3, "u", UUIDType()),
        NestedField(4, "s", inner),
        NestedField(6, "l", ListType(7, StringType(), element_required=True)),
    )
    repo, values = history.repo, (b"abc", b"0" * 16, {"x": 7}, ["a", "b"])
    with Lake(repo).edit("x", message="More", author="ana") as edit:
        table = edit.catalog.create_table("default.sales", schema)
        columns = {"n": list(range(3))} | {
            field.name: [value, None, value]
            for field, value in zip(schema.fields[1:], values, strict=True)
        }
        table.append(pa.table(columns, schema=table.schema().as_arrow()))
    history.commits.append(repo.resolve("x"))

    def layout() -> str:
        (file,) = data_files(repo.root, history.table(history.commits[0]))
        return repr(pq.ParquetFile(file.path).schema).partition("\n")[2].partition("{")[2]

    before = layout()
    assert all(text in before for text in ("required int64", "fixed_len_byte_array(3)", "(UUID)"))
    history.holds_without("n = 0 AND s.x = 7", 0)
    assert layout() == before
    assert history.read_bare(history.commits[0]) == [1, 2]


def test_a_time_of_older_spark_is_written_again_as_what_the_table_says(history: History) -> None:
    at = datetime(2020, 9, 13, 12, 26, 40, 123456, tzinfo=UTC)
    rows = pa.table({"n": [1, 2], "seen": pa.array([at, at], pa.timestamp("us", "UTC"))})
    schema = IcebergSchema(
        NestedField(1, "n", LongType()),
        NestedField(2, "seen", TimestamptzType()),
    )
    with Lake(history.repo).edit("x", message="More", author="ana") as edit:
        table = edit.catalog.create_table("default.sales", schema)
        add_file(table, rows, use_deprecated_int96_timestamps=True)
    history.commits.append(history.repo.resolve("x"))
    history.holds_without("seen > TIMESTAMPTZ '2020-01-01' AND n = 1", 1)
    (file,) = data_files(history.repo.root, history.table(history.commits[0]))
    assert pq.read_schema(file.path).field("seen").type == pa.timestamp("us", "UTC")


def test_a_file_that_is_gone_is_said_to_be(history: History) -> None:
    table = history.appended(history.created(Column(0, "n", "long")), "SELECT 1 AS n")
    (file,) = data_files(history.repo.root, table)
    Path(file.path).unlink()
    with pytest.raises(InvalidError) as caught:
        history.erase("n = 1")
    assert caught.value.kind == "damaged-file"
    assert Path(file.path).name in str(caught.value)


Step = tuple[str, str, int, int]

_STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["append", "append", "append", "delete", "rename", "drop", "add", "add within",
             "promote", "layout", "layout", "merge"]
        ),
        st.sampled_from(["main", "x"]),
        st.integers(0, 20),
        st.integers(0, 5),
    ),
    min_size=5,
    max_size=16,
)  # fmt: skip

COLUMNS = (
    Column(0, "n", "long"),
    Column(0, "g", "string"),
    Column(0, "k", "int"),
    Column(0, "f", "float"),
    STRUCT,
)
WIDER = {"int": "long", "float": "double"}
LAYOUTS = ((), (Part("g"),), (Part("k"),), (Part("g"), Part("k")))


def _fields(schema: Schema) -> list[tuple[str, tuple[Column, ...]]]:
    """Returns the path of each column but the key, and of the fields of structs, with what it is.

    A field comes behind the column that it lies in.
    """
    found: list[tuple[str, tuple[Column, ...]]] = []
    for column in schema.columns[1:]:
        found.append((column.name, (column,)))
        found += [(f"{column.name}.{child.name}", (column, child)) for child in column.children]
    return found


def _value(column: Column, n: int) -> str:
    """SQL of a value of a column in the row of the key `n`."""
    if n % 6 == column.id % 6:
        return f"CAST(NULL AS {column.sql_type})"
    if column.type == "struct":
        return f"{{{', '.join(f'{quoted(c.name)}: {_value(c, n)}' for c in column.children)}}}"
    text = {"string": "'{}'", "float": "{} / 4", "double": "{} / 4"}.get(column.type, "{}")
    return f"CAST({text.format((n + column.id) % 4)} AS {column.sql_type})"


def _select(schema: Schema, numbers: Sequence[int]) -> str:
    rows = (
        ", ".join(
            f"{n}::BIGINT AS n" if column.name == "n" else f"{_value(column, n)} AS {column.name}"
            for column in schema.columns
        )
        for n in numbers
    )
    return " UNION ALL ".join(f"SELECT {row}" for row in rows)


def _changed(act: str, at: int, value: int) -> Change:
    def change(schema: Schema, ids: Iterator[int]) -> Schema:
        path, chain = _fields(schema)[at % len(_fields(schema))]
        match act:
            case "rename":
                return renamed(schema, path, "abcdkg"[value])
            case "drop" if chain[-1].is_nested:
                return schema  # DuckDB fails to read a field of a struct that a file has not
            case "drop":
                return dropped(schema, path)
            case "promote":
                return promoted(schema, path, WIDER.get(chain[-1].type, "string"))
            case _:
                default = "3" if value % 2 else None
                new = Column(0, "abcdkg"[value], "int", initial_default=default)
                parent = chain[0].name if act == "add within" else ""
                return added(schema, ids, new, parent=parent)

    return change


def _played(history: History, steps: Sequence[Step]) -> None:
    root, at, numbers = history.repo.root, history.repo.clock, count(100)
    table = history.created(*COLUMNS)
    table = history.appended(table, _select(schema_of(root, table), range(6)))
    history.commit(table, "x")
    heads, base = {"main": table, "x": table}, table
    for act, ref, place, value in steps:
        table = heads[ref]
        try:
            match act:
                case "append":
                    new = [next(numbers) for _ in range(value + 1)]
                    now = append_rows(
                        root, table, Rows(_select(schema_of(root, table), new)), at=at()
                    )
                case "delete":
                    now = delete_rows(root, table, f"n % 10 = {value}", at=at())
                case "layout":
                    now = set_layout(root, table, LAYOUTS[place % len(LAYOUTS)], (), at=at())
                case "merge":
                    other = heads["x" if ref == "main" else "main"]
                    merged = merge_rows(root, base, table, other, ["n"], at=at()).content
                    if merged is None:
                        continue
                    now = base = merged
                    heads = {"main": merged, "x": merged}
                    history.commit(merged, "x" if ref == "main" else "main")
                case _:
                    now = evolve(root, table, _changed(act, place, value), at=at())
                    check_layout(root, now)
        except (InvalidError, ConflictError):
            continue
        heads[ref] = history.commit(now, ref)


def _by_id(field: Any, value: Any) -> Iterator[tuple[int, Any]]:  # an Arrow field, a Python value
    yield int(field.metadata[b"PARQUET:field_id"]), value
    if pa.types.is_struct(field.type):
        for inner in field.type:
            yield from _by_id(inner, None if value is None else value[inner.name])


def _seen(row: Mapping[int, Any], chain: Sequence[Column]) -> Any:
    """What a row of a file shows of a field, if it has that."""
    outer, inner = chain[0], chain[-1]
    if outer.id not in row:
        return _default(outer) if inner is outer else None
    if row[outer.id] is None:
        return None
    return row[inner.id] if inner.id in row else _default(inner)


def _default(column: Column) -> int | None:
    return None if column.initial_default is None else int(column.initial_default)


def _met(history: History, commit: str, fits: Callable[[Mapping[int, Any]], bool]) -> set[int]:
    """The keys of rows that meet a condition, read file by file with pyarrow alone."""
    found = set()
    for file in data_files(history.repo.root, history.table(commit)):
        rows = pq.ParquetFile(file.path).read()
        for values in rows.to_pylist():
            row = dict(pair for f in rows.schema for pair in _by_id(f, values[f.name]))
            if fits(row):
                found.add(row[1])
    return found


def _filtered(history: History, commit: str) -> dict[tuple[str, Any], list[int]]:
    """What bare pyiceberg finds by each value of the columns that tables are partitioned by."""
    schema = schema_of(history.repo.root, history.table(commit))
    numbers = list(range(4))
    values: dict[str, Sequence[int | str]] = {
        "string": [str(n) for n in numbers],
        "int": numbers,
        "long": numbers,
    }
    return {
        (column.name, value): history.read_bare(commit, f"{column.name} = {value!r}")
        for column in schema.columns[1:]
        for value in values.get(column.type, [])
    }


def _erased_after(history: History, steps: Sequence[Step], place: int, wanted: int | None) -> None:
    """Plays the steps, erases by one field, and compares every commit with what its files held."""
    _played(history, steps)
    newest = schema_of(history.repo.root, history.table(history.repo.resolve("main")))
    leaves = [(path, chain) for path, chain in _fields(newest) if not chain[-1].is_nested]
    path, chain = leaves[place % len(leaves)] if leaves else ("n", (newest.columns[0],))
    value: Any = wanted
    if wanted is not None and chain[-1].type in ("float", "double", "string"):
        value = wanted / 4 if chain[-1].type != "string" else str(wanted)
    where = f"{path} IS NULL" if value is None else f"{path} = {value!r}"
    before = [history.rows(commit) for commit in history.commits]
    bare = [_filtered(history, commit) for commit in history.commits]
    gone = [
        _met(history, commit, lambda row: _seen(row, chain) == value) for commit in history.commits
    ]

    history.erase(where)

    for commit, rows, found, met in zip(history.commits, before, bare, gone, strict=True):
        kept = [row for row in rows if row[0] not in met]
        assert history.rows(commit) == kept
        assert history.read_bare(commit) == sorted(row[0] for row in kept)
        left = {one: [n for n in keys if n not in met] for one, keys in found.items()}
        assert _filtered(history, commit) == left
    check(history.repo)


_WANTED = st.one_of(st.none(), st.integers(0, 3))
_SETTINGS = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(_STEPS, st.integers(0, 20), _WANTED)
@settings(_SETTINGS, max_examples=2)
def test_erasure_after_any_changes_of_columns_and_partitions_takes_the_rows_alone(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step], place: int, wanted: int | None
) -> None:
    _erased_after(_history(tmp_path_factory.mktemp("history")), steps, place, wanted)


@pytest.mark.long
@given(_STEPS, st.integers(0, 20), _WANTED)
@settings(_SETTINGS, max_examples=100, derandomize=False)
def test_erasure_after_many_changes_of_columns_and_partitions_takes_the_rows_alone(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step], place: int, wanted: int | None
) -> None:
    _erased_after(_history(tmp_path_factory.mktemp("history")), steps, place, wanted)
