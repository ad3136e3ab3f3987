"""Every type, in and out: our engine, bare pyiceberg and bare DuckDB read the same values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from bare import bare_table
from garbage import branch

from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column
from instep.errors import InvalidError
from instep.history.repository import Repository
from instep.lake import Lake
from instep.tables.compact import compact_state
from instep.tables.content import TableContent
from instep.tables.diff import diff_rows
from instep.tables.merge import merge_rows
from instep.tables.profile_keep import profile_table
from instep.tables.read import data_files, file_set, row_count, schema_of
from instep.tables.rows import Rows, append_rows, delete_rows, upsert_rows
from instep.tables.write import append, create_table, data_folder

AT = datetime(2026, 1, 1, tzinfo=UTC)

VALUES: dict[str, tuple[str, list[str]]] = {
    "boolean": ("BOOLEAN", ["true", "false"]),
    "int": ("INTEGER", ["-2147483648", "2147483647", "0"]),
    "long": ("BIGINT", ["-9223372036854775808", "9223372036854775807"]),
    "float": ("FLOAT", ["'nan'", "'inf'", "'-inf'", "'-0.0'", "1.17549435e-38"]),
    "double": ("DOUBLE", ["'nan'", "'inf'", "'-inf'", "'-0.0'", "5e-324",
                          "1.7976931348623157e308"]),
    "decimal(38,0)": ("DECIMAL(38,0)", ["99999999999999999999999999999999999999", "-1"]),
    "decimal(38,38)": ("DECIMAL(38,38)", ["0.00000000000000000000000000000000000001", "-0.5"]),
    "decimal(4,1)": ("DECIMAL(4,1)", ["-999.9", "0.1"]),
    "decimal(18,9)": ("DECIMAL(18,9)", ["-123456789.123456789"]),
    "date": ("DATE", ["'0001-01-01'", "'1969-12-31'", "'9999-12-31'"]),
    "time": ("TIME", ["'00:00:00'", "'23:59:59.999999'"]),
    "timestamp": ("TIMESTAMP", ["'0001-01-01'", "'1969-12-31 23:59:59.999999'",
                                "'9999-12-31 23:59:59.999999'"]),
    "timestamptz": ("TIMESTAMPTZ", ["'1901-01-01 00:00:00+05:30'", "'2026-03-29 02:30:00+01'"]),
    "string": ("VARCHAR", ["''", "' '", "'é 🚀'", "'a''b'", "repeat('ÿ', 300)"]),
    "uuid": ("UUID", ["'00000000-0000-0000-0000-000000000000'",
                      "'ffffffff-ffff-ffff-ffff-ffffffffffff'"]),
    "binary": ("BLOB", ["''::BLOB", "'\\x00\\xFF'::BLOB"]),
    "fixed[4]": ("BLOB", ["'\\x00\\x00\\xFF\\x27'::BLOB", "'abcd'::BLOB"]),
}  # fmt: skip


def _table(root: Path, columns: list[Column], sql: str) -> TableContent:
    table = create_table(root, "t", columns, at=AT)
    with DuckDB(root / "staging") as engine:
        files = engine.write(sql, schema_of(root, table), data_folder(root, table))
    return append(root, table, files, at=AT)


def _three_readings(root: Path, table: TableContent) -> list[list[str]]:
    """The rows as text: from our engine, from pyiceberg, and from DuckDB over the bare files."""

    with DuckDB(root / "staging") as engine:
        engine.view(file_set(root, table, "t"))
        ours = engine.sql("SELECT * FROM t").to_arrow_table()
    theirs = bare_table(root, table.metadata).scan().to_arrow()
    bare = duckdb.connect()
    bare.execute("SET TimeZone = 'UTC'")
    files = [one.path for one in data_files(root, table)]
    plain = bare.sql(f"SELECT * FROM read_parquet({files!r})").to_arrow_table()
    return [sorted(_shown(row) for row in one.to_pylist()) for one in (ours, theirs, plain)]


def _shown(row: dict[str, Any]) -> str:  # values of any type
    """DuckDB's Arrow tells a UUID as text."""
    return re.sub(r"UUID\(('[^']*')\)", r"\1", repr(list(row.values())))


@pytest.mark.parametrize("kind", VALUES)
def test_every_type_reads_the_same_in_three_readers(tmp_path: Path, kind: str) -> None:
    sql_type, values = VALUES[kind]
    rows = " UNION ALL ".join(
        f"SELECT {n} AS id, CAST({value} AS {sql_type}) AS v, "
        f"[CAST({value} AS {sql_type}), NULL] AS l, {{'f': CAST({value} AS {sql_type})}} AS s"
        for n, value in enumerate([*values, "NULL"])
    )
    columns = [
        Column(0, "id", "int"),
        Column(0, "v", kind),
        Column(0, "l", "list", children=(Column(0, "element", kind),)),
        Column(0, "s", "struct", children=(Column(0, "f", kind),)),
    ]

    table = _table(tmp_path, columns, rows)

    ours, theirs, plain = _three_readings(tmp_path, table)
    assert len(ours) == len(values) + 1
    assert ours == theirs
    assert ours == plain


def test_nested_values_keep_nulls_and_emptiness_at_every_level(tmp_path: Path) -> None:
    sql = """
        SELECT 1 AS id, {'a': {'b': [1, NULL]}, 'c': ''} AS s, [[1], [], NULL] AS l,
            MAP {'k': [1.5::DOUBLE, NULL]} AS m
        UNION ALL SELECT 2, NULL, NULL, NULL
        UNION ALL SELECT 3, {'a': NULL, 'c': NULL}, [], MAP {}
        UNION ALL SELECT 4, {'a': {'b': NULL}, 'c': ' '}, [NULL], MAP {'': NULL}
        UNION ALL SELECT 5, {'a': {'b': []}, 'c': 'x'}, [[NULL]], MAP {'a': [], 'b': ['nan']}
    """
    with DuckDB(tmp_path / "staging") as engine:
        columns = list(engine.describe(sql).columns)

    table = _table(tmp_path, columns, sql)

    ours, theirs, plain = _three_readings(tmp_path, table)
    assert ours == theirs
    assert ours == plain


ODD_NAMES = [
    "select", "a b", 'say "x"', "it's", "a.b.c", "1st", "naïve", "🚀", "日本", "x" * 255, "-", "%",
    "\\", "filename", "file_row_number", "a,b", "(", "f0", "\t", "{}", "a/b",
]  # fmt: skip


def test_odd_names_are_kept_as_columns_and_as_fields_within(tmp_path: Path) -> None:
    fields = tuple(Column(0, name, "int") for name in ODD_NAMES)
    columns = [*fields, Column(0, "nested", "struct", children=fields)]
    quoted = ['"' + name.replace('"', '""') + '"' for name in ODD_NAMES]
    listed = ", ".join(f"{n} AS {name}" for n, name in enumerate(quoted))
    packed = ", ".join(
        "'" + name.replace("'", "''") + f"': {n}" for n, name in enumerate(ODD_NAMES)
    )

    table = _table(tmp_path, columns, f"SELECT {listed}, {{{packed}}} AS nested")

    want = dict(zip(ODD_NAMES, range(len(ODD_NAMES)), strict=True))
    with DuckDB(tmp_path / "staging") as engine:
        engine.view(file_set(tmp_path, table, "t"))
        ours = engine.sql("SELECT * FROM t").to_arrow_table().to_pylist()
    theirs = bare_table(tmp_path, table.metadata).scan().to_arrow()
    assert ours == [{**want, "nested": want}]
    assert theirs.to_pylist() == ours


def test_five_hundred_columns_and_an_empty_table_are_read(tmp_path: Path) -> None:
    columns = [Column(0, f"c{n}", "int") for n in range(500)]
    nested = Column(0, "s", "struct", children=tuple(columns))
    empty = create_table(tmp_path, "t", [*columns, nested], at=AT)
    listed = ", ".join(f"{n} AS c{n}" for n in range(500))

    full = _table(tmp_path, columns, f"SELECT {listed} UNION ALL SELECT {listed}")

    ours, theirs, plain = _three_readings(tmp_path, full)
    assert ours == theirs
    assert ours == plain
    assert row_count(tmp_path, full) == 2
    with DuckDB(tmp_path / "staging") as engine:
        engine.view(file_set(tmp_path, empty, "e"))
        assert engine.rows("SELECT count(*), count(s.c7) FROM e") == [(0, 0)]


@pytest.mark.parametrize(
    ("condition", "rows"),
    [("s.f == 2", 1), ("s.f > 2", 0), ("long < 'ÿ'", 0), ("long == 'a'", 0), ("n == 1", 2)],
)
def test_bounds_prune_files_and_never_a_row_that_is_there(
    tmp_path: Path, condition: str, rows: int
) -> None:

    columns = [
        Column(0, "n", "int"),
        Column(0, "long", "string"),
        Column(0, "s", "struct", children=(Column(0, "f", "int"),)),
    ]
    sql = "SELECT 1 AS n, repeat('ÿ', 400) || {0} AS long, {{'f': {0}}} AS s"

    table = _table(tmp_path, columns, f"{sql.format(1)} UNION ALL {sql.format(2)}")

    found = bare_table(tmp_path, table.metadata).scan(row_filter=condition)
    assert len(found.to_arrow()) == rows
    if condition == "s.f > 2":
        assert not list(found.plan_files())


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("{'f': 'abcde'::BLOB, 'r': 1}", "type-mismatch"),
        ("{'f': NULL, 'r': NULL}", "null-in-required"),
    ],
)
def test_rules_of_fields_within_are_held_when_written(
    tmp_path: Path, value: str, kind: str
) -> None:
    inner = (Column(0, "f", "fixed[4]"), Column(0, "r", "int", required=True))
    columns = [Column(0, "l", "list", children=(Column(0, "element", "struct", children=inner),))]
    good = "{'f': 'abcd'::BLOB, 'r': 1}"

    with pytest.raises(InvalidError, match='"l"') as caught:
        _table(tmp_path, columns, f"SELECT [{good}, {value}] AS l")

    assert caught.value.kind == kind
    _table(tmp_path, columns, f"SELECT [{good}, NULL] AS l UNION ALL SELECT NULL")


def _wrapped(kind: str, value: str) -> dict[str, str]:
    """A value by itself, and in every kind of nesting, as SQL."""
    one = f"CAST({value} AS {VALUES[kind][0]})"
    return {
        "v": one,
        "in_list": f"[{one}, NULL]",
        "in_struct": f"{{'f': {one}, 'l': [{one}]}}",
        "in_map": f"MAP {{'k': {one}, '': NULL}}",
        "deep": f"[{{'m': MAP {{'a': [{one}]}}}}]",
        "as_key": "NULL" if value == "NULL" else f"MAP {{{one}: 1}}",
    }


def _wrapped_rows(kind: str, first: int, values: Sequence[str]) -> str:
    """SQL of one row a value, numbered from `first`."""
    return " UNION ALL ".join(
        f"SELECT {first + n}::BIGINT AS id, "
        + ", ".join(f"{sql} AS {name}" for name, sql in _wrapped(kind, value).items())
        for n, value in enumerate(values)
    )


def _texts(lake: Lake, first: int) -> list[dict[str, Any]]:
    """The rows of a hundred ids from `first` as DuckDB's texts, which tell -0.0 from 0.0."""
    names = ("v", "in_list", "in_struct", "in_map", "deep", "as_key")
    listed = ", ".join(f"{name}::VARCHAR AS {name}" for name in names)
    sql = f"SELECT {listed} FROM t WHERE id >= {first} AND id < {first + 100} ORDER BY id"
    return list(lake.branch("work").table("t").sql(sql).to_pylist())


SHORT = ("double", "decimal(38,38)", "uuid", "fixed[4]")


@pytest.mark.parametrize(
    "kind", [pytest.param(one, marks=() if one in SHORT else pytest.mark.long) for one in VALUES]
)
def test_every_type_goes_through_every_act(repo: Repository, kind: str) -> None:
    values = [*VALUES[kind][1], "NULL"]
    count = len(values)
    branch(repo, "work")
    lake, root, at = Lake(repo), repo.root, repo.clock()

    def editing() -> Any:  # a context manager of TableEdit
        return lake.edit("work", message="types", author="ana")

    one = VALUES[kind][0]
    columns = {
        "v": kind, "in_list": f"{one}[]", "in_struct": f"STRUCT(f {one}, l {one}[])",
        "in_map": f"MAP(VARCHAR, {one})", "deep": f"STRUCT(m MAP(VARCHAR, {one}[]))[]",
        "as_key": f"MAP({one}, INTEGER)",
    }  # fmt: skip
    with editing() as edit:
        edit.create("t", columns={"id": "long", **columns})
        edit.append("t", _wrapped_rows(kind, 0, values))
        edit.append("t", _wrapped_rows(kind, 100, values))
    moved = "SELECT * REPLACE (id + 200 AS id) FROM t WHERE id < 100"
    arrow = lake.branch("work").table("t").sql(moved)
    with editing() as edit:
        edit.append("t", arrow)
        table = edit.catalog.load_table("default.t")
        theirs = table.scan("id < 100").to_arrow()
        ids = pa.array([one + 300 for one in theirs["id"].to_pylist()], pa.int64())
        table.append(theirs.set_column(0, table.schema().as_arrow().field("id"), ids))
    before = lake.branch("work").table("t").content
    assert compact_state(lake.repo, before, at=at).now is not None
    written = _texts(lake, 0)
    assert len(written) == count
    assert [_texts(lake, first) for first in (100, 200, 300)] == [written] * 3

    # Each row gets the values of another: what differs is what the texts say.
    ours = upsert_rows(root, before, Rows(_wrapped_rows(kind, 0, values[::-1])), ["id"], at=at)
    changed = sum(one != two for one, two in zip(written, written[::-1], strict=True))
    found = diff_rows(root, before, ours, ["id"])
    assert (found.added, found.removed, found.changed) == (0, 0, changed)
    found = diff_rows(root, before, ours, [])
    assert (found.added, found.removed) == (changed, changed)

    theirs_state = delete_rows(root, before, "id = 100", at=at)
    more = Rows(_wrapped_rows(kind, 900, values))
    theirs_state = append_rows(root, theirs_state, more, at=at)
    merged = merge_rows(root, before, ours, theirs_state, ["id"], at=at)
    assert merged.content is not None
    assert row_count(root, merged.content) == 5 * count - 1
    assert all(one.count == 5 * count - 1 for one in profile_table(root, merged.content))
