"""How a merged table is defined, against a naive three-way rule over its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from bare import bare_table
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.transforms import BucketTransform, IdentityTransform, MonthTransform

from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column, Schema
from instep.errors import InvalidError
from instep.history.refs import RefKind, create_ref
from instep.history.repository import MAIN, Repository
from instep.lake import Lake
from instep.tables.columns import added, dropped, moved, promoted, renamed
from instep.tables.content import TableContent
from instep.tables.merge import merge_rows
from instep.tables.partition import Order, Part
from instep.tables.read import data_files, file_set, layout_of, load_metadata, schema_of
from instep.tables.row_merge import Choice, Resolution, RowMerge, Take
from instep.tables.write import (
    append,
    create_table,
    data_folder,
    evolve,
    redefined,
    set_columns,
    set_layout,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Definition:
    """All of a table's definition that a side of the test may change; columns are by field id."""

    word: str = "word"
    note: str = ""
    order: tuple[int, ...] = (1, 2, 3)
    identifiers: tuple[int, ...] = ()
    partition: tuple[Part, ...] = ()
    sort: tuple[Order, ...] = ()
    owner: str | None = None
    rows_kept: str | None = "10"


BASE = Definition()
WHAT = {
    "word": 'name of column "word"',
    "note": 'doc of column "day"',
    "order": "order of columns",
    "identifiers": "identifier columns",
    "partition": "partitioning",
    "sort": "sort order",
    "owner": 'property "owner"',
    "rows_kept": 'property "rows.kept"',
}

changes = st.fixed_dictionaries(
    {},
    optional={
        "word": st.sampled_from(["text", "said"]),
        "note": st.sampled_from(["when", "the day"]),
        "order": st.permutations([1, 2, 3]).map(tuple),
        "identifiers": st.sampled_from([(1,), (1, 2)]),
        "partition": st.sampled_from([(Part("day", "month"),), (Part("k", "bucket[4]"),)]),
        "sort": st.sampled_from([(Order("day"),), (Order("k", is_descending=True),)]),
        "owner": st.sampled_from(["ana", "ben"]),
        "rows_kept": st.sampled_from([None, "20"]),
    },
)


def _first(root: Path) -> TableContent:
    columns = [
        Column(0, "k", "long", required=True),
        Column(0, "word", "string", required=True),
        Column(0, "day", "date"),
    ]
    return _defined(root, create_table(root, "t", columns, at=AT), BASE)


def _defined(root: Path, table: TableContent, want: Definition) -> TableContent:
    def change(schema: Schema, ids: object) -> Schema:
        by_id = {column.id: column for column in schema.columns}
        by_id[2] = replace(by_id[2], name=want.word)
        by_id[3] = replace(by_id[3], doc=want.note)
        return Schema(tuple(by_id[field_id] for field_id in want.order), want.identifiers)

    table = evolve(root, table, change, at=AT)
    table = set_layout(root, table, want.partition, want.sort, at=AT)
    properties = {"owner": want.owner, "rows.kept": want.rows_kept}
    told = {name: value for name, value in properties.items() if value is not None}
    return redefined(root, table, {**load_metadata(root, table), "properties": told})


def _with_row(root: Path, table: TableContent, k: int) -> TableContent:
    schema = schema_of(root, table)
    word = next(column.name for column in schema.columns if column.id == 2)
    row = f"SELECT {k}::BIGINT k, 'w{k}' {word}, DATE '2026-0{k}-01' AS day"
    with DuckDB(root / "staging") as engine:
        files = engine.write(row, schema, data_folder(root, table), layout=layout_of(root, table))
    return append(root, table, files, at=AT)


def _told(root: Path, table: TableContent) -> Definition:
    """Reads a table's definition as pyiceberg has it, without Instep."""
    found = bare_table(root, table.metadata)
    names = {field.field_id: field.name for field in found.schema().fields}
    return Definition(
        word=names[2],
        note=found.schema().find_field(3).doc or "",
        order=tuple(names),
        identifiers=tuple(sorted(found.schema().identifier_field_ids)),
        partition=tuple(
            Part(names[one.source_id], str(one.transform)) for one in found.spec().fields
        ),
        sort=tuple(
            Order(names[one.source_id], one.direction.value == "desc")
            for one in found.sort_order().fields
        ),
        owner=found.properties.get("owner"),
        rows_kept=found.properties.get("rows.kept"),
    )


def _naive(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], take: Take
) -> tuple[Definition, set[str]]:
    """Returns each part by the three-way rule, of `take` where there is a conflict, and these."""
    parts: dict[str, Any] = {}
    conflicts = set()
    for part in (field.name for field in fields(Definition)):
        was = getattr(BASE, part)
        mine, yours = ours.get(part, was), theirs.get(part, was)
        if mine not in (was, yours) and yours != was:
            conflicts.add(WHAT[part])
            parts[part] = mine if take is Take.OURS else yours
        else:
            parts[part] = yours if mine == was else mine
    return Definition(**parts), conflicts


def _check_all_found(root: Path, table: TableContent) -> None:
    """Every row is there for us, and for pyiceberg by each way in which files are told apart."""
    bare = bare_table(root, table.metadata)
    for k in (1, 2, 3):
        for condition in (f"k == {k}", f"day == '2026-0{k}-01'"):
            assert bare.scan(condition).to_arrow().column("k").to_pylist() == [k]
    with DuckDB(root / "staging") as engine:
        engine.view(file_set(root, table, "t"))
        assert engine.rows("SELECT k FROM t ORDER BY k") == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    "examples", [12, pytest.param(150, marks=pytest.mark.long)], ids=["few", "many"]
)
@pytest.mark.parametrize("key", [[], ["k"]], ids=["keyless", "keyed"])
def test_each_part_of_a_definition_is_merged_by_the_three_way_rule(
    examples: int, key: list[str]
) -> None:
    @settings(max_examples=examples)
    @given(ours=changes, theirs=changes, take=st.sampled_from([Take.OURS, Take.THEIRS]))
    def check(ours: dict[str, Any], theirs: dict[str, Any], take: Take) -> None:
        with TemporaryDirectory() as folder:
            root = Path(folder)
            base = _with_row(root, _first(root), 1)
            mine, yours = (
                _with_row(root, _defined(root, base, replace(BASE, **made)), k)
                for k, made in ((2, ours), (3, theirs))
            )
            expected, conflicts = _naive(ours, theirs, take)
            found = merge_rows(root, base, mine, yours, key, at=AT)
            assert {one.what for one in found.definition} == conflicts
            if conflicts:
                assert found.content is None
                found = merge_rows(root, base, mine, yours, key, Resolution({}, take), at=AT)
                assert found.settled == len(conflicts)
            assert found.content is not None
            assert _told(root, found.content) == expected
            _check_all_found(root, found.content)
            # What is merged is a table to go on with.
            _with_row(root, found.content, 4)

    check()


def test_a_conflict_says_what_each_side_has(tmp_path: Path) -> None:
    base = _first(tmp_path)
    ours = _defined(tmp_path, base, replace(BASE, partition=(Part("day", "month"),), owner="ana"))
    theirs = _defined(
        tmp_path, base, replace(BASE, partition=(Part("k"), Part("day")), owner="ben")
    )
    found = merge_rows(tmp_path, base, ours, theirs, ["k"], at=AT)
    assert [str(one) for one in found.definition] == [
        "partitioning: none; ours: month(day); theirs: k, day",
        'property "owner": none; ours: ana; theirs: ben',
    ]


def test_conflicts_are_settled_one_by_one(tmp_path: Path) -> None:
    base = _first(tmp_path)
    ours = _defined(tmp_path, base, replace(BASE, note="ours", sort=(Order("k"),)))
    theirs = _defined(tmp_path, base, replace(BASE, note="theirs", sort=(Order("day"),)))

    def merged(**takes: Choice) -> RowMerge:
        given = Resolution({((), WHAT[part]): choice for part, choice in takes.items()})
        return merge_rows(tmp_path, base, ours, theirs, ["k"], given, at=AT)

    half = merged(note=Choice(Take.THEIRS))
    assert [one.what for one in half.definition] == ["sort order"]
    whole = merged(note=Choice(Take.THEIRS), sort=Choice(Take.OURS))
    assert whole.content is not None
    expected = replace(BASE, note="theirs", sort=(Order("k"),))
    assert _told(tmp_path, whole.content) == expected
    for takes, kind in (
        ({"owner": Choice(Take.OURS)}, "no-such-conflict"),
        ({"note": Choice(Take.GIVEN, "mine")}, "bad-value"),
    ):
        with pytest.raises(InvalidError) as caught:
            merged(**takes)
        assert caught.value.kind == kind


def test_files_that_both_layouts_number_alike_keep_their_own(tmp_path: Path) -> None:
    """Both sides' new specs and fields have the same numbers, and mean different things."""
    base = _with_row(tmp_path, _first(tmp_path), 1)
    by_k = set_layout(tmp_path, base, [Part("k")], (), at=AT)
    ours = set_layout(tmp_path, _with_row(tmp_path, by_k, 2), (), (), at=AT)
    theirs = _with_row(tmp_path, set_layout(tmp_path, base, [Part("day")], (), at=AT), 3)
    merged = merge_rows(tmp_path, base, ours, theirs, ["k"], at=AT)
    assert merged.content is not None
    assert _told(tmp_path, merged.content).partition == (Part("day"),)
    _check_all_found(tmp_path, merged.content)
    ids = {one.field_id for one in layout_of(tmp_path, merged.content).partition}
    assert ids.isdisjoint(one.field_id for one in layout_of(tmp_path, by_k).partition)


def test_their_files_are_taken_as_they_are_under_their_new_layout(tmp_path: Path) -> None:
    base = _with_row(tmp_path, _first(tmp_path), 1)
    ours = _with_row(tmp_path, base, 2)
    theirs = _with_row(tmp_path, set_layout(tmp_path, base, [Part("day")], (), at=AT), 3)
    merged = merge_rows(tmp_path, base, ours, theirs, ["k"], at=AT)
    assert merged.content is not None
    known = {file.path for state in (ours, theirs) for file in data_files(tmp_path, state)}
    assert {file.path for file in data_files(tmp_path, merged.content)} == known
    _check_all_found(tmp_path, merged.content)


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_layout_by_a_column_that_the_other_side_dropped_is_a_conflict(
    tmp_path: Path, *, is_ours: bool
) -> None:
    base = _first(tmp_path)
    fewer = set_columns(tmp_path, base, schema_of(tmp_path, base).columns[:2], at=AT)
    by_day = set_layout(tmp_path, base, [Part("day")], [Order("day")], at=AT)
    ours, theirs = (by_day, fewer) if is_ours else (fewer, by_day)
    found = merge_rows(tmp_path, base, ours, theirs, ["k"], at=AT)
    assert [one.what for one in found.definition] == ["partitioning", "sort order"]
    valid, invalid = (Take.THEIRS, Take.OURS) if is_ours else (Take.OURS, Take.THEIRS)
    found = merge_rows(tmp_path, base, ours, theirs, ["k"], Resolution({}, invalid), at=AT)
    assert [one.what for one in found.definition] == ["partitioning", "sort order"]
    found = merge_rows(tmp_path, base, ours, theirs, ["k"], Resolution({}, valid), at=AT)
    assert found.content is not None
    assert layout_of(tmp_path, found.content).partition == ()


def test_an_identifier_that_the_other_side_dropped_is_a_conflict(tmp_path: Path) -> None:
    base = _first(tmp_path)
    ours = _defined(tmp_path, base, replace(BASE, identifiers=(1, 2)))
    theirs = evolve(tmp_path, base, lambda schema, _: dropped(schema, "word"), at=AT)

    found = merge_rows(tmp_path, base, ours, theirs, ["k"], at=AT)
    assert [str(one) for one in found.definition] == [
        "identifier columns: none; ours: k, word; theirs: none"
    ]
    found = merge_rows(tmp_path, base, ours, theirs, ["k"], Resolution({}, Take.THEIRS), at=AT)
    assert found.content is not None
    assert schema_of(tmp_path, found.content).identifiers == ()


def _names(root: Path, ours: TableContent, theirs: TableContent, base: TableContent) -> list[str]:
    merged = merge_rows(root, base, ours, theirs, ["k"], at=AT)
    assert merged.content is not None
    return list(schema_of(root, merged.content).names)


def _with_columns(root: Path, table: TableContent, *names: str, after: str | None) -> TableContent:
    for name in names:
        column = Column(0, name, "long")
        table = evolve(
            root,
            table,
            lambda schema, ids, column=column: added(schema, ids, column, after=after),  # type: ignore[misc]  # the loop's value, bound
            at=AT,
        )
    return table


def test_new_columns_of_both_sides_keep_their_places(tmp_path: Path) -> None:
    base = _first(tmp_path)
    ours = _with_columns(tmp_path, base, "last", after=None)
    theirs = _with_columns(tmp_path, base, "end", after=None)
    theirs = _with_columns(tmp_path, theirs, "next", after="k")
    theirs = _with_columns(tmp_path, theirs, "head", after="")
    expected = ["head", "k", "next", "word", "day", "last", "end"]
    assert _names(tmp_path, ours, theirs, base) == expected
    theirs = evolve(tmp_path, theirs, lambda schema, _: moved(schema, "day", after="k"), at=AT)
    expected = ["head", "k", "day", "next", "word", "end", "last"]
    assert _names(tmp_path, ours, theirs, base) == expected


def test_fields_within_a_column_are_merged_as_columns_are(tmp_path: Path) -> None:
    within = tuple(Column(0, name, "int") for name in ("a", "b"))
    columns = [Column(0, "k", "long"), Column(0, "s", "struct", children=within)]
    base = create_table(tmp_path, "t", columns, at=AT)
    with DuckDB(tmp_path / "staging") as engine:
        files = engine.write(
            "SELECT 1::BIGINT k, {a: 1, b: 2} s",
            schema_of(tmp_path, base),
            data_folder(tmp_path, base),
        )
    base = append(tmp_path, base, files, at=AT)
    ours = evolve(tmp_path, base, lambda schema, _: renamed(schema, "s.a", "first"), at=AT)
    ours = evolve(tmp_path, ours, lambda schema, _: moved(schema, "s.b", after=""), at=AT)
    new = Column(0, "c", "int")
    theirs = evolve(tmp_path, base, lambda schema, ids: added(schema, ids, new, parent="s"), at=AT)
    theirs = evolve(tmp_path, theirs, lambda schema, _: promoted(schema, "s.a", "long"), at=AT)
    merged = merge_rows(tmp_path, base, ours, theirs, ["k"], at=AT)
    assert merged.content is not None
    (_, struct) = schema_of(tmp_path, merged.content).columns
    assert struct.full_type == "struct<b: int, first: long, c: int>"
    rows = bare_table(tmp_path, merged.content.metadata).scan().to_arrow().to_pylist()
    assert rows == [{"k": 1, "s": {"b": 2, "first": 1, "c": None}}]
    third = evolve(tmp_path, base, lambda schema, _: renamed(schema, "s.a", "one"), at=AT)
    clash = merge_rows(tmp_path, base, ours, third, ["k"], at=AT)
    assert [one.what for one in clash.definition] == ['name of column "s.a"']


def test_what_pyiceberg_set_on_a_branch_comes_with_it(repo: Repository) -> None:
    """Names of partition fields and orders by a transform, too, which Instep does not make."""
    lake = Lake(repo)
    states: list[TableContent] = []
    with repo.store.transaction() as tx:
        create_ref(tx, "a", RefKind.BRANCH, repo.resolve(MAIN), owner="ana", at=repo.clock())
    with lake.edit("a", message="made", author="ana") as edit:
        edit.create("t", columns={"k": "long", "day": "date"}, partition=[Part("k", "bucket[2]")])
        edit.append("t", "select 1::bigint k, date '2026-01-01' as day")
    for name in ("b", "a"):
        with repo.store.transaction() as tx:
            if name == "b":
                create_ref(
                    tx, name, RefKind.BRANCH, repo.resolve("a"), owner="ana", at=repo.clock()
                )
                states.append(lake.branch("a").table("t").content)
        with lake.edit(name, message="changed", author="ana") as edit:
            table = edit.catalog.load_table("default.t")
            if name == "a":
                table.append(_arrow(2))
                continue
            with table.update_spec() as spec:
                spec.add_field("day", MonthTransform(), "in_month")
            with table.update_sort_order() as order:
                order.asc("k", BucketTransform(2)).desc("day", IdentityTransform())
            with table.update_schema() as schema:
                schema.update_column("day", doc="of the sale").move_first("day")
            with table.transaction() as transaction:
                transaction.set_properties(owner="ana")
            table.append(_arrow(3))
    base = states[0]
    ours, theirs = (lake.branch(name).table("t").content for name in ("a", "b"))
    merged = merge_rows(repo.root, base, ours, theirs, ["k"], at=AT).content
    assert merged is not None
    found, wanted = (bare_table(repo.root, one.metadata) for one in (merged, theirs))
    assert found.schema() == wanted.schema()
    assert found.spec().fields == wanted.spec().fields
    assert found.sort_order().fields == wanted.sort_order().fields
    assert found.properties == wanted.properties
    assert set(found.scan().to_arrow().column("k").to_pylist()) == {1, 2, 3}
    assert found.scan("day == '2026-03-01'").to_arrow().column("k").to_pylist() == [3]


def _arrow(k: int) -> Any:  # pyarrow's table
    from datetime import date

    import pyarrow as pa

    return pa.table({"k": pa.array([k], pa.int64()), "day": [date(2026, k, 1)]})
