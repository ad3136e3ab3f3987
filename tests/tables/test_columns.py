"""Columns that change, nested ones too: what old files read as, here and in bare pyiceberg."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bare import bare_table

from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column, Schema
from instep.errors import InvalidError
from instep.tables import columns as evolution
from instep.tables.columns import Change, parse_schema, schema_json
from instep.tables.content import TableContent
from instep.tables.diff import diff_rows
from instep.tables.profile_keep import profile_table
from instep.tables.read import file_set, load_manifests, load_metadata, schema_of, table_folder
from instep.tables.write import append, create_table, data_folder, evolve, set_columns

AT = datetime(2026, 1, 1, tzinfo=UTC)

NESTED = """
    SELECT 1::INTEGER AS id, {'city': 'Oslo', 'code': 7::INTEGER} AS home,
        [{'price': 1.5::FLOAT, 'what': 'tea'}, NULL] AS lines,
        MAP {'a': {'n': 1::INTEGER}} AS tags
    UNION ALL SELECT 2, NULL, [], MAP {}
    UNION ALL SELECT 3, {'city': NULL, 'code': NULL}, [{'price': NULL, 'what': ''}],
        MAP {'b': NULL}
"""


def _table(root: Path, sql: str) -> TableContent:
    with DuckDB(root / "staging") as engine:
        columns = engine.describe(sql).columns
    return _appended(root, create_table(root, "t", columns, at=AT), sql)


def _appended(root: Path, table: TableContent, sql: str) -> TableContent:
    with DuckDB(root / "staging") as engine:
        files = engine.write(sql, schema_of(root, table), data_folder(root, table))
    return append(root, table, files, at=AT)


def _changed(root: Path, table: TableContent, *changes: Change) -> TableContent:
    for change in changes:
        table = evolve(root, table, change, at=AT)
    return table


def _ours(root: Path, table: TableContent) -> list[dict[str, Any]]:  # rows of any columns
    with DuckDB(root / "staging") as engine:
        engine.view(file_set(root, table, "t"))
        rows = engine.rows("SELECT * FROM t ORDER BY id")
    return [dict(zip(schema_of(root, table).names, row, strict=True)) for row in rows]


def _theirs(root: Path, table: TableContent) -> list[dict[str, Any]]:  # as above

    scan = bare_table(root, table.metadata).scan()
    rows = scan.to_arrow().to_pylist(maps_as_pydicts="strict")
    return sorted(rows, key=lambda row: int(row["id"]))


def test_a_renamed_field_within_reads_what_it_held_and_not_null(tmp_path: Path) -> None:
    table = _changed(
        tmp_path,
        _table(tmp_path, NESTED),
        lambda schema, _: evolution.renamed(schema, "home.city", "town"),
        lambda schema, _: evolution.renamed(schema, "lines.element.price", "cost"),
        lambda schema, _: evolution.renamed(schema, "tags.value.n", "count"),
    )

    first = _ours(tmp_path, table)[0]

    assert first["home"] == {"town": "Oslo", "code": 7}
    assert first["lines"] == [{"cost": 1.5, "what": "tea"}, None]
    assert first["tags"] == {"a": {"count": 1}}
    assert _ours(tmp_path, table) == _theirs(tmp_path, table)


def test_fields_within_are_added_dropped_moved_and_promoted_without_a_rewrite(
    tmp_path: Path,
) -> None:
    table = _changed(
        tmp_path,
        _table(tmp_path, NESTED),
        lambda s, _: evolution.promoted(s, "home.code", "long"),
        lambda s, _: evolution.moved(s, "home.code", after=""),
        lambda s, ids: evolution.added(
            s, ids, Column(0, "zip", "string"), parent="home", after="code"
        ),
        lambda s, _: evolution.promoted(s, "lines.element.price", "double"),
        lambda s, _: evolution.dropped(s, "lines.element.what"),
        lambda s, ids: evolution.added(s, ids, Column(0, "m", "date"), parent="tags.value"),
    )
    table = _appended(
        tmp_path,
        table,
        "SELECT 4 AS id, {'code': 9223372036854775807, 'zip': 'N', 'city': 'Rome'} AS home, "
        "[{'price': 0.1::DOUBLE}] AS lines, MAP {'c': {'n': 1, 'm': DATE '2026-01-01'}} AS tags",
    )

    rows = _ours(tmp_path, table)

    assert rows[0]["home"] == {"code": 7, "zip": None, "city": "Oslo"}
    assert rows[1]["home"] is None
    assert rows[3]["home"] == {"code": 9223372036854775807, "zip": "N", "city": "Rome"}
    assert rows[0]["lines"] == [{"price": 1.5}, None]
    assert rows == _theirs(tmp_path, table)


@pytest.mark.parametrize(("name", "parent"), [("name", ""), ("city", "home")])
def test_a_column_added_under_the_name_of_a_dropped_one_has_none_of_its_values(
    tmp_path: Path, name: str, parent: str
) -> None:
    before = _table(tmp_path, "SELECT 1 AS id, 'x' AS name, {'city': 'Oslo', 'n': 1} AS home")
    path = f"{parent}.{name}" if parent else name

    after = _changed(
        tmp_path,
        before,
        lambda schema, _: evolution.dropped(schema, path),
        lambda schema, ids: evolution.added(schema, ids, Column(0, name, "string"), parent=parent),
    )

    (row,) = _ours(tmp_path, after)
    assert (row[parent] if parent else row)[name] is None
    assert [row] == _theirs(tmp_path, after)
    old = {field.id for field in schema_of(tmp_path, before).fields()}
    new = {field.id for field in schema_of(tmp_path, after).fields()}
    assert len(new - old) == 1
    assert min(new - old) > max(old)


def test_two_branches_of_a_table_never_give_two_columns_one_id(tmp_path: Path) -> None:
    table = _table(tmp_path, "SELECT 1 AS id")

    ids = {
        schema_of(tmp_path, branch).column("new").id
        for branch in (
            _changed(tmp_path, table, lambda s, i: evolution.added(s, i, Column(0, "new", "int")))
            for _ in range(3)
        )
    }

    assert len(ids) == 3


def test_a_default_is_what_rows_from_before_the_column_read(tmp_path: Path) -> None:
    defaults = {
        "boolean": "true", "int": "7", "long": "-9", "float": "0.5", "double": "1e300",
        "decimal(9,2)": "1.25", "string": "it's", "date": "1969-12-31", "time": "23:59:59.999999",
        "timestamp": "2020-01-01T00:00:00.000001", "binary": "00ff27",
        "timestamptz": "1901-01-01T00:00:00+00:00", "fixed[2]": "abcd",
        "uuid": "00000000-0000-4000-8000-000000000001",
    }  # fmt: skip
    table = _table(tmp_path, "SELECT 1 AS id, {'n': 1} AS s")
    for number, (kind, text) in enumerate(defaults.items()):
        column = Column(0, f"d{number}", kind, initial_default=text, write_default=text)
        table = evolve(tmp_path, table, _adding(column, ""), at=AT)
    table = evolve(tmp_path, table, _adding(Column(0, "m", "int", initial_default="3"), "s"), at=AT)

    assert _ours(tmp_path, table) == _theirs(tmp_path, table)
    assert _ours(tmp_path, table)[0]["s"] == {"n": 1, "m": 3}


def test_only_a_table_with_a_default_is_of_format_version_3(tmp_path: Path) -> None:
    before = _table(tmp_path, "SELECT 1 AS id")
    after = evolve(tmp_path, before, _adding(Column(0, "d", "int", initial_default="7"), ""), at=AT)
    after = _appended(tmp_path, after, "SELECT 2 AS id, 8 AS d UNION ALL SELECT 3, NULL")

    metadata = load_metadata(tmp_path, after)

    assert load_metadata(tmp_path, before)["format-version"] == 2
    assert (metadata["format-version"], metadata["next-row-id"]) == (3, 2)
    assert metadata["snapshots"][-1]["first-row-id"] == 0
    assert [row["d"] for row in _ours(tmp_path, after)] == [7, 8, None]
    assert _ours(tmp_path, after) == _theirs(tmp_path, after)


def test_rows_deleted_by_their_values_are_refused_and_never_read(tmp_path: Path) -> None:
    table = _table(tmp_path, "SELECT 1 AS id")
    metadata = load_metadata(tmp_path, table)
    metadata["snapshots"][-1]["summary"]["total-equality-deletes"] = "1"

    with pytest.raises(InvalidError, match="1 equality deletes") as caught:
        load_manifests(table_folder(tmp_path, table), metadata)
    assert caught.value.kind == "equality-deletes"


def test_nested_columns_are_profiled_and_compared(tmp_path: Path) -> None:
    before = _table(tmp_path, NESTED)
    after = _appended(
        tmp_path, before, f"SELECT id + 2 AS id, * EXCLUDE (id) FROM ({NESTED}) WHERE id = 2"
    )

    profiles = {one.name: one for one in profile_table(tmp_path, after)}
    diff = diff_rows(tmp_path, before, after, ["id"])

    assert (profiles["home"].count, profiles["home"].nulls) == (4, 2)
    assert (diff.added, diff.removed, diff.changed) == (1, 0, 0)


def test_a_nested_value_that_changed_is_a_changed_row(tmp_path: Path) -> None:
    before = _table(tmp_path, NESTED)
    empty = create_table(tmp_path, "t", schema_of(tmp_path, before).columns, at=AT)
    after = _appended(tmp_path, empty, NESTED.replace("'Oslo'", "'Rome'"))

    diff = diff_rows(tmp_path, before, after, ["id"])

    assert (diff.added, diff.removed, diff.changed) == (0, 0, 1)


def _adding(column: Column, parent: str) -> Change:
    return lambda schema, ids: evolution.added(schema, ids, column, parent=parent)


SCHEMA = Schema(
    (
        Column(1, "id", "int", required=True),
        Column(
            2, "home", "struct", children=(Column(3, "city", "string"), Column(4, "n", "int"))
        ),
        Column(5, "list", "list", children=(Column(6, "element", "float"),)),
        Column(
            7, "map", "map", children=(
                Column(8, "key", "struct", True, children=(Column(9, "k", "int"),)),
                Column(10, "value", "decimal(9,2)"),
            ),
        ),
    )
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda s, i: evolution.added(s, i, Column(0, "ID", "int")), "repeated-column"),
        (lambda s, i: evolution.added(s, i, Column(0, "", "int")), "bad-column-name"),
        (lambda s, i: evolution.added(s, i, Column(0, "x", "timestamp_ns")), "unsupported-type"),
        (lambda s, i: evolution.added(s, i, Column(0, "x", "int", True)), "null-in-required"),
        (lambda s, i: evolution.added(s, i, Column(0, "x", "int"), parent="id"),
         "not-a-struct-field"),
        (lambda s, i: evolution.added(s, i, Column(0, "x", "int"), parent="map.key"),
         "not-a-struct-field"),
        (lambda s, i: evolution.added(s, i, Column(0, "x", "int"), after="no"), "no-such-column"),
        (lambda s, i: evolution.dropped(s, "home.no"), "no-such-column"),
        (lambda s, i: evolution.dropped(s, "list.element"), "not-a-struct-field"),
        (lambda s, i: evolution.dropped(evolution.dropped(s, "home.n"), "home.city"), "no-columns"),
        (lambda s, i: evolution.renamed(s, "map.value", "x"), "not-a-struct-field"),
        (lambda s, i: evolution.renamed(s, "home.city", "N"), "repeated-column"),
        (lambda s, i: evolution.renamed(s, "list", "home.n"), "repeated-column"),
        (lambda s, i: evolution.promoted(s, "id", "double"), "type-mismatch"),
        (lambda s, i: evolution.promoted(s, "map.value", "decimal(9,3)"), "type-mismatch"),
        (lambda s, i: evolution.promoted(s, "home", "string"), "type-mismatch"),
        (lambda s, i: evolution.made_optional(s, "map.key"), "not-a-struct-field"),
    ],
)  # fmt: skip
def test_what_iceberg_does_not_allow_is_refused(change: Change, kind: str) -> None:
    with pytest.raises(InvalidError) as caught:
        change(SCHEMA, iter(range(100, 110)))
    assert caught.value.kind == kind


def test_identifiers_stay_as_long_as_iceberg_allows_them() -> None:
    fields = (
        Column(3, "a", "long", required=True),
        Column(4, "b", "string", required=True),
    )
    place = Column(2, "place", "struct", required=True, children=fields)
    schema = Schema((Column(1, "k", "long", required=True), place), (1, 3, 4))
    assert evolution.renamed(schema, "place.a", "c").identifiers == (1, 3, 4)
    assert evolution.dropped(schema, "place.b").identifiers == (1, 3)
    assert evolution.made_optional(schema, "place.a").identifiers == (1, 4)
    assert evolution.made_optional(schema, "place").identifiers == (1,)
    kept = evolution.evolved(schema, schema.columns[:1], iter(()), has_rows=True)
    assert parse_schema(schema_json(kept, 1)) == Schema(schema.columns[:1], (1,))


def test_allowed_changes_keep_every_id() -> None:
    after = evolution.made_optional(SCHEMA, "id")
    after = evolution.promoted(after, "list.element", "double")
    after = evolution.promoted(after, "map.value", "decimal(12,2)")
    after = evolution.moved(after, "map", after="id")

    assert [column.name for column in after.columns] == ["id", "map", "home", "list"]
    assert {field.id for field in after.fields()} == set(range(1, 11))
    assert parse_schema(schema_json(after, 3)) == after


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT n FROM t WHERE s.a IS NULL", [(0,), (1,)]),
        ("SELECT n FROM t WHERE s.a = 1", [(9,)]),
        ("SELECT count(*) FROM t", [(3,)]),
        ("SELECT count(s), max(s.b), count(l) FROM t", [(1, "x", 1)]),
        ("SELECT n FROM t WHERE l IS NULL AND s IS NULL", [(0,), (1,)]),
    ],
)
def test_nested_columns_that_older_files_lack_are_null_in_their_rows(
    tmp_path: Path, sql: str, rows: list[tuple[object, ...]]
) -> None:
    first = (Column(0, "n", "long"),)
    within = (Column(0, "a", "int"), Column(0, "b", "string"))
    struct = Column(0, "s", "struct", children=within)
    several = Column(0, "l", "list", children=(Column(0, "element", "struct", children=within),))
    table = create_table(tmp_path, "t", first, at=AT)
    table = _appended(tmp_path, table, "SELECT i AS n FROM range(2) r(i)")
    table = set_columns(tmp_path, table, (*first, struct, several), at=AT)
    row = "SELECT 9::BIGINT n, {'a': 1, 'b': 'x'} s, [{'a': 1, 'b': 'x'}] l"
    table = _appended(tmp_path, table, row)
    with DuckDB(tmp_path / "staging") as engine:
        engine.view(file_set(tmp_path, table, "t"))
        assert sorted(engine.rows(sql)) == rows
