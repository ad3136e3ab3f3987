"""Edits of tables from Python: rows, tables and columns, as one commit or none."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from garbage import commit, contract
from hypothesis import given, settings
from hypothesis import strategies as st
from table_acts import ACTS, Act, Append, Delete, Model, Overwrite, Upsert, as_arrow, written

from instep.errors import ConflictError, InstepError, InvalidError, NotFoundError, RefusedError
from instep.history.refs import RefKind, create_ref
from instep.history.repository import MAIN, Repository, create_repository
from instep.lake import Lake
from instep.tables.condition import files_that_may_match
from instep.tables.edit import TableEdit
from instep.tables.read import data_files
from instep.tables.upkeep import compact_table

NUMBERS = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "name": ["a", "b", "c"]})


@pytest.fixture
def lake(repo: Repository) -> Lake:
    """A lake with a branch `work` on which nothing stands yet."""
    return with_branch(repo)


def with_branch(repo: Repository) -> Lake:
    with repo.store.transaction() as tx:
        commit = repo.resolve(MAIN)
        create_ref(tx, "work", RefKind.BRANCH, commit, owner="ana", at=repo.clock())
    return Lake(repo)


def editing(lake: Lake, message: str = "work") -> Any:  # a context manager of TableEdit
    return lake.edit("work", message=message, author="ana")


def rows(lake: Lake, table: str = "t") -> list[tuple[Any, ...]]:
    found = lake.branch("work").table(table).sql(f'select * from "{table}" order by all')
    return [tuple(row.values()) for row in found.to_pylist()]


def test_two_tables_in_one_edit_are_one_commit(lake: Lake) -> None:
    before = lake.branch("work").commit

    with editing(lake, "two tables") as edit:
        edit.create("one", NUMBERS)
        edit.create("two", "select id + 10 as id from one")

    assert edit.committed is not None
    assert edit.committed.message == "two tables"
    assert edit.committed.parents == (before,)
    assert lake.branch("work").keys("table") == ("table/one", "table/two")
    assert rows(lake, "two") == [(11,), (12,), (13,)]


def test_an_edit_that_raises_or_changes_nothing_commits_nothing(lake: Lake) -> None:
    before = lake.branch("work").commit

    with editing(lake) as edit:
        assert edit.table_names() == ()
    assert edit.committed is None
    with pytest.raises(KeyError), editing(lake) as edit:
        edit.create("t", NUMBERS)
        raise KeyError

    assert lake.branch("work").commit == before


def test_rows_come_from_anything_that_gives_arrow_and_from_sql(lake: Lake) -> None:
    import duckdb
    import pandas as pd
    import polars as pl

    with editing(lake) as edit:
        edit.create("t", columns={"id": "long", "name": "string"})
        edit.append("t", NUMBERS)
        edit.append("t", pl.DataFrame({"id": [4], "name": ["d"]}))
        edit.append("t", pd.DataFrame({"id": [5], "name": ["e"]}))
        edit.append("t", duckdb.sql("select 6 as id, 'f' as name"))
        edit.append("t", "select id + 6 as id, name from t where id = 1")
        with pytest.raises(InvalidError) as caught:
            edit.append("t", 7)

    assert caught.value.kind == "not-rows"
    assert rows(lake) == [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e"), (6, "f"), (7, "a")]


def test_a_delete_writes_only_the_files_again_that_hold_a_matching_row(lake: Lake) -> None:
    with editing(lake) as edit:
        edit.create("t", NUMBERS)
        edit.append("t", "select 10 as id, 'x' as name union all select 11, null")
        edit.append("t", "select 20 as id, 'y' as name")
    before = {file.path for file in _files(lake)}

    with editing(lake) as edit:
        edit.delete("t", where="id = 10 or id = 20  -- and no more")

    after = {file.path for file in _files(lake)}
    assert rows(lake) == [(1, "a"), (2, "b"), (3, "c"), (11, None)]
    assert len(before - after) == 2
    assert len(after - before) == 1


def test_a_delete_leaves_rows_of_which_the_condition_is_null(lake: Lake) -> None:
    with editing(lake) as edit:
        edit.create("t", "select 1 as id, null::varchar as name union all select 2, 'b'")
        edit.delete("t", where="name = 'b'")

    assert rows(lake) == [(1, None)]


def test_an_overwrite_takes_rows_only_where_they_belong(lake: Lake) -> None:
    with editing(lake) as edit:
        edit.create(
            "t", "select timestamptz '2013-01-01' + interval (n) day as at, n from range(60) r(n)"
        )
    january = ("at", "2013-01-01", "2013-02-01")

    with editing(lake) as edit:
        edit.overwrite("t", "select timestamptz '2013-01-05' as at, 500 as n", inside=january)
        with pytest.raises(InvalidError) as caught:
            edit.overwrite("t", "select timestamptz '2013-02-01' as at, 1 as n", inside=january)

    assert caught.value.kind == "outside-slice"
    found = rows(lake)
    assert len(found) == 30
    assert found[0] == (datetime(2013, 1, 5, tzinfo=UTC), 500)
    with editing(lake) as edit:
        edit.overwrite("t", "select timestamptz '2014-01-01' as at, 1 as n")
    assert len(rows(lake)) == 1


def test_an_upsert_replaces_rows_of_its_keys_and_adds_the_others(lake: Lake) -> None:
    with editing(lake) as edit:
        edit.create("t", NUMBERS)
        edit.append("t", "select 100 as id, 'z' as name")
    untouched = _files(lake)[1].path

    with editing(lake) as edit:
        edit.upsert("t", "select 2 as id, 'B' as name union all select 4, 'd'", key="id")

    assert rows(lake) == [(1, "a"), (2, "B"), (3, "c"), (4, "d"), (100, "z")]
    assert untouched in {file.path for file in _files(lake)}


@pytest.mark.parametrize(
    ("select", "kind"),
    [
        ("select 1 as id, 'x' as name union all select 1, 'y'", "duplicate-key"),
        ("select null::bigint as id, 'x' as name", "null-in-key"),
    ],
)
def test_an_upsert_without_one_row_a_key_is_refused(lake: Lake, select: str, kind: str) -> None:
    with editing(lake) as edit:
        edit.create("t", NUMBERS)
        with pytest.raises(InvalidError) as caught:
            edit.upsert("t", select, key=["id"])
        assert caught.value.kind == kind
        with pytest.raises(InvalidError) as caught:
            edit.upsert("t", select)
        assert caught.value.kind == "no-key"


def test_columns_and_layout_change_without_a_rewrite(lake: Lake) -> None:
    with editing(lake) as edit:
        edit.create("t", "select 1::integer as id, 'a' as name, {'x': 1} as deep")
        edit.add_column("t", "more", "double", after="id")
        edit.add_column("t", "deep.y", "VARCHAR[]")
        edit.rename_column("t", "name", "title")
        edit.promote_column("t", "id", "long")
        edit.move_column("t", "title", after="")
        edit.drop_column("t", "deep.x")
        edit.set_layout("t", partition=["title"], sort=["id"])
        edit.append("t", "select 'b' as title, 5000000000 as id, 0.5::double as more, "
                         "{'y': ['q']} as deep")  # fmt: skip

    assert rows(lake) == [("a", 1, None, {"y": None}), ("b", 5_000_000_000, 0.5, {"y": ["q"]})]
    assert [file.partition for file in _files(lake)] == [(), ("b",)]


def test_tables_are_renamed_and_dropped_and_names_are_told(lake: Lake) -> None:
    with editing(lake) as edit:
        edit.create("t", NUMBERS)
        edit.create("other", NUMBERS)
    uuid = lake.branch("work").table("t").content.uuid

    with editing(lake) as edit:
        edit.rename("t", "renamed")
        edit.drop("other")
        acts: list[tuple[Callable[[], None], type[InstepError], str]] = [
            (lambda: edit.append("t", NUMBERS), NotFoundError, "no-such-table"),
            (lambda: edit.create("renamed", NUMBERS), ConflictError, "table-exists"),
            (lambda: edit.create("x"), InvalidError, "no-columns"),
            (lambda: edit.delete("renamed"), InvalidError, "no-condition"),
        ]
        for act, error, kind in acts:
            with pytest.raises(error) as caught:
                act()
            assert caught.value.kind == kind
        assert "renamed: none -> 3 rows" in repr(edit)

    assert lake.branch("work").keys("table") == ("table/renamed",)
    assert lake.branch("work").table("renamed").content.uuid == uuid
    with pytest.raises(RefusedError) as closed:
        edit.append("renamed", NUMBERS)
    assert closed.value.kind == "edit-closed"


def test_a_protected_branch_refuses_an_edit_and_says_the_way(lake: Lake) -> None:
    with (
        pytest.raises(RefusedError, match="propose") as caught,
        lake.edit(MAIN, message="no", author="ana"),
    ):
        pass

    assert caught.value.kind == "protected-branch"


def test_two_edits_at_once_that_append_both_succeed(lake: Lake) -> None:
    with editing(lake) as edit:
        edit.create("t", NUMBERS)

    with editing(lake) as first, editing(lake) as second:
        first.append("t", "select 10 as id, 'x' as name")
        second.append("t", "select 20 as id, 'y' as name")

    assert [row[0] for row in rows(lake)] == [1, 2, 3, 10, 20]


def test_of_two_edits_at_once_that_change_rows_the_second_is_told_who_was_first(
    lake: Lake,
) -> None:
    with editing(lake) as edit:
        edit.create("t", NUMBERS)
        edit.create("other", NUMBERS)

    with pytest.raises(ConflictError, match="was first") as caught, editing(lake) as second:
        with editing(lake, "was first") as first:
            first.append("t", "select 10 as id, 'x' as name")
        second.delete("t", where="id = 1")
    with pytest.raises(ConflictError), editing(lake) as second:
        second.append("other", "select max(id) + 1 as id, 'new' as name from t")
        with editing(lake) as first:
            first.append("t", "select 30 as id, 'x' as name")

    assert caught.value.kind == "keys-moved"
    assert [row[0] for row in rows(lake)] == [1, 2, 3, 10, 30]
    assert len(rows(lake, "other")) == 3


def test_an_append_is_made_again_though_what_it_began_with_was_compacted(lake: Lake) -> None:
    with editing(lake) as edit:
        edit.create("t", NUMBERS)
        edit.append("t", NUMBERS)
    with editing(lake) as late:
        late.append("t", NUMBERS)
        done = compact_table(lake.repo, "work", "t", lambda content: False)
        assert not done.why_not
        with editing(lake) as first:
            first.append("t", NUMBERS)
    assert rows(lake) == sorted(4 * [(1, "a"), (2, "b"), (3, "c")])


def test_sql_that_fails_in_a_row_of_a_table_is_an_invalid_input(lake: Lake) -> None:
    with editing(lake) as edit:
        edit.create("t", NUMBERS)
    for select in ("select name::date from t", "select nope from t"):
        with pytest.raises(InvalidError) as raised:
            lake.branch("work").table("t").sql(select)
        assert raised.value.kind == "sql-failed"


def test_sql_that_names_no_table_of_the_branch_says_which_there_are(lake: Lake) -> None:
    with editing(lake) as edit:
        edit.create("numbers", NUMBERS)
    for select in ("select * from descriptio", "select * from number join numbers using (id)"):
        with (
            pytest.raises(InvalidError, match=r"expected one of numbers\.") as raised,
            editing(lake) as edit,
        ):
            edit.append("numbers", select)
        assert raised.value.kind == "sql-failed"
    with editing(lake) as edit:
        edit.append("numbers", "with number as (select * from NUMBERS) select * from number")
        edit.append("numbers", "select id, name from numbers join numbers other using (id, name)")
    assert rows(lake, "numbers") == sorted(6 * [(1, "a"), (2, "b"), (3, "c")])


@pytest.mark.parametrize(
    "where", ["true) or (true", "id = 1) --", "true; select 1", "", "id, name"]
)
def test_a_condition_is_one_expression(lake: Lake, where: str) -> None:
    with editing(lake) as edit:
        edit.create("t", NUMBERS)
    with pytest.raises(InvalidError) as raised, editing(lake) as edit:
        edit.delete("t", where=where)
    assert raised.value.kind == "sql-failed"
    assert len(rows(lake)) == 3


UUID = uuid.UUID(int=7)

ARROW: dict[str, tuple[pa.Array[Any], str]] = {
    "nanoseconds": (pa.array([1_000, None], pa.timestamp("ns", "UTC")), "timestamptz"),
    "time in nanoseconds": (pa.array([1_000, None], pa.time64("ns")), "time"),
    "within": (pa.array([{"a": [1_000]}, None],
               pa.struct([("a", pa.list_(pa.timestamp("ns")))])), "struct<a: list<timestamp>>"),
    "in a map": (pa.array([[("k", 1_000)], None],
                 pa.map_(pa.string(), pa.timestamp("ns"))), "map<string, timestamp>"),
    "half": (pa.array([1.5, None], pa.float16()), "float"),
    "wide decimal": (pa.array([Decimal("1.5"), None], pa.decimal256(38, 2)), "decimal(38,2)"),
    "UUID": (pa.array([UUID.bytes, None], pa.uuid()), "uuid"),
    "dictionary": (pa.array(["a", None]).dictionary_encode(), "string"),
    "views": (pa.array(["a", None], pa.string_view()), "string"),
    "unsigned": (pa.array([2**63 - 1, None], pa.uint64()), "long"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARROW)
def test_values_of_arrow_s_types_stay_what_they_are(lake: Lake, name: str) -> None:
    values, kind = ARROW[name]
    with editing(lake) as edit:
        edit.create("t", pa.table({"id": [1, 2], "v": values}))
    found = lake.branch("work").table("t")

    assert found.schema.column("v").full_type == kind
    expected = (
        values.cast(found.arrow()["v"].type) if name != "UUID" else pa.array([str(UUID), None])
    )
    assert found.sql("select v from t order by id")["v"].to_pylist() == expected.to_pylist()


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1], pa.timestamp("ns")),
        pa.array([[1_001]], pa.list_(pa.timestamp("ns"))),
        pa.array([Decimal("1.5")], pa.decimal256(40, 2)),
        pa.array([2**64 - 1], pa.uint64()),
        pa.array([{}], pa.struct([])),
        pa.array([1], pa.duration("us")),
    ],
    ids=lambda values: str(values.type),
)
def test_values_that_a_table_cannot_hold_are_refused(lake: Lake, values: pa.Array[Any]) -> None:
    with pytest.raises(InvalidError), editing(lake) as edit:
        edit.create("t", pa.table({"v": values}))


def test_sql_s_plain_fractions_and_texts_of_uuids_fit_their_columns(lake: Lake) -> None:
    with editing(lake) as edit:
        edit.create("t", columns={"price": "double", "code": "uuid"})
        edit.append("t", f"select 1.1 as price, '{UUID}' as code")
    with pytest.raises(InvalidError) as raised, editing(lake) as edit:
        edit.append("t", "select 1.123456789012345678 as price, null as code")
    assert raised.value.kind == "type-mismatch"
    with pytest.raises(InvalidError, match="Could not convert") as raised, editing(lake) as edit:
        edit.append("t", "select 1 as price, 'none' as code")

    assert rows(lake) == [(1.1, str(UUID))]


@pytest.mark.parametrize("where", ["id", "name", "id + 1", "id in (1, 2) and count(*) > 1"])
@pytest.mark.parametrize("is_empty", [True, False])
def test_a_condition_is_true_or_false(lake: Lake, where: str, is_empty: bool) -> None:
    with editing(lake) as edit:
        edit.create("t", NUMBERS.slice(0, 0 if is_empty else 3))
    for act in (edit_delete, edit_overwrite):
        with pytest.raises(InvalidError) as raised, editing(lake) as edit:
            act(edit, where)
        assert raised.value.kind == "sql-failed"


def edit_delete(edit: TableEdit, where: str) -> None:
    edit.delete("t", where=where)


def edit_overwrite(edit: TableEdit, where: str) -> None:
    edit.overwrite("t", NUMBERS.slice(0, 0), where=where)


@pytest.mark.parametrize("layout", [{"partition": ["name"]}, {"sort": ["name"]}])
def test_a_column_that_files_are_laid_out_by_stays(lake: Lake, layout: Any) -> None:
    with editing(lake) as edit:
        edit.create("t", NUMBERS, **layout)
    with pytest.raises(InvalidError) as raised, editing(lake) as edit:
        edit.drop_column("t", "name")
    assert raised.value.kind == "column-in-layout"

    with editing(lake) as edit:
        edit.set_layout("t")
        edit.drop_column("t", "name")
        edit.append("t", "select 4 as id")
        edit.catalog.load_table("default.t").append(pa.table({"id": [5]}))
    assert rows(lake) == [(1,), (2,), (3,), (4,), (5,)]


@pytest.mark.parametrize(
    ("names", "kind"), [(["a", "A"], "repeated-column"), (["a", ""], "bad-column-name")]
)
def test_columns_of_rows_are_named_as_they_came_or_refused(
    lake: Lake, names: list[str], kind: str
) -> None:
    with pytest.raises(InvalidError) as raised, editing(lake) as edit:
        edit.create("t", pa.table([pa.array([1]), pa.array([2])], names=names))
    assert raised.value.kind == kind


@pytest.mark.parametrize(
    "act",
    [
        lambda edit: edit.append("t", "select max(id) + 1 as id, name from t group by name"),
        lambda edit: edit.upsert("t", "select 9 as id, 'new' as name", key="id"),
        lambda edit: edit.overwrite("t", "select 9 as id, 'new' as name", where="id = 9"),
        lambda edit: (edit.delete("t", where="id = 9"), edit.append("t", NUMBERS)),
    ],
    ids=["read", "upserted", "overwritten", "deleted"],
)
def test_what_only_adds_files_but_looked_at_rows_is_not_made_again(lake: Lake, act: Any) -> None:
    with editing(lake) as edit:
        edit.create("t", NUMBERS)
    with pytest.raises(ConflictError, match="by ana") as raised, editing(lake) as late:
        act(late)
        with editing(lake) as first:
            first.append("t", "select 9 as id, 'first' as name")
    assert raised.value.kind == "keys-moved"
    assert [row for row in rows(lake) if row[0] == 9] == [(9, "first")]


def test_edits_of_different_tables_at_once_both_succeed(lake: Lake) -> None:
    with editing(lake) as edit:
        edit.create("t", NUMBERS)
        edit.create("other", NUMBERS)

    with editing(lake) as first, editing(lake) as second:
        first.delete("t", where="true")
        second.delete("other", where="id < 3")

    assert rows(lake) == []
    assert rows(lake, "other") == [(3, "c")]


CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: t
version: 1.0.0
status: active
servers:
  - {{server: here, type: local, path: "t-*.csv", format: csv}}
schema:
  - name: t
    customProperties:
      - {{property: mergePolicy, value: {policy}}}
    properties:
      - {{name: id, logicalType: integer, required: true, primaryKey: true, primaryKeyPosition: 1}}
      - {{name: name, logicalType: string}}
"""


def test_the_key_of_an_upsert_is_that_of_the_contract(lake: Lake) -> None:
    commit(lake.repo, "work", contract__t=contract(lake.repo, CONTRACT.format(policy="keyed")))

    with editing(lake) as edit:
        edit.create("t", NUMBERS)
        edit.upsert("t", "select 2 as id, 'B' as name")

    assert rows(lake) == [(1, "a"), (2, "B"), (3, "c")]


@pytest.mark.parametrize(
    ("policy", "number", "is_done"),
    [("append", 10, True), ("append", 20, False), ("keyed", 10, False), ("replace", 10, False)],
)
def test_an_append_is_made_again_only_as_the_contract_lets(
    lake: Lake, policy: str, number: int, is_done: bool
) -> None:
    commit(lake.repo, "work", contract__t=contract(lake.repo, CONTRACT.format(policy=policy)))
    with editing(lake) as edit:
        edit.create("t", NUMBERS)

    second = editing(lake)
    edit = second.__enter__()
    edit.append("t", f"select {number} as id, 'x' as name")
    with editing(lake) as first:
        first.append("t", "select 20 as id, 'y' as name")

    if is_done:
        second.__exit__(None, None, None)
    else:
        with pytest.raises(ConflictError):
            second.__exit__(None, None, None)
    assert len(rows(lake)) == (5 if is_done else 4)


def test_an_append_under_a_contract_is_made_again_though_its_table_was_compacted(
    lake: Lake,
) -> None:
    commit(lake.repo, "work", contract__t=contract(lake.repo, CONTRACT.format(policy="append")))
    with editing(lake) as edit:
        edit.create("t", NUMBERS)
        edit.append("t", "select 4 as id, 'd' as name")
    with editing(lake) as late:
        late.append("t", "select 5 as id, 'e' as name")
        assert not compact_table(lake.repo, "work", "t", lambda content: False).why_not
        with editing(lake) as first:
            first.append("t", "select 6 as id, 'f' as name")

    assert [row[0] for row in rows(lake)] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ConflictError), editing(lake) as late:
        late.append("t", "select 7 as id, 'late' as name")
        assert not compact_table(lake.repo, "work", "t", lambda content: False).why_not
        with editing(lake) as first:
            first.append("t", "select 7 as id, 'first' as name")
    assert rows(lake)[-1] == (7, "first")


UNTYPED = [
    "select 4 as id, null as name",
    pa.table({"id": [4], "name": pa.nulls(1)}),
    pa.table({"id": pa.nulls(1), "name": pa.nulls(1)}),
]


@pytest.mark.parametrize("more", UNTYPED, ids=["SQL", "Arrow", "all"])
def test_rows_that_are_null_without_a_type_fit_a_column_of_any(lake: Lake, more: Any) -> None:
    with editing(lake) as edit:
        edit.create("t", NUMBERS)
        edit.append("t", more)
        edit.overwrite("t", more, where="name is null")
        edit.create("deep", "select {'a': 1, 'b': ['x']} as s, map {'k': 1} as m")
        edit.append("deep", "select {'a': null, 'b': []} as s, null as m")

    assert rows(lake)[-1][1] is None
    assert rows(lake, "deep")[-1] == ({"a": None, "b": []}, None)


@pytest.mark.parametrize("new", ["select 1 as id, null as odd", pa.table({"odd": pa.nulls(1)})])
def test_a_new_column_that_is_null_without_a_type_is_refused(lake: Lake, new: Any) -> None:
    said = '"odd" is null in all rows'
    with pytest.raises(InvalidError, match=said) as raised, editing(lake) as edit:
        edit.create("t", new)

    assert raised.value.kind == "unsupported-type"


@pytest.mark.parametrize(
    "value", ["time '24:00:00'", "[time '24:00:00']", "{'a': map {'k': [time '24:00:00']}}"]
)
def test_the_end_of_a_day_is_no_time(lake: Lake, value: str) -> None:
    with pytest.raises(InvalidError, match="24:00:00 in 1 rows") as raised, editing(lake) as edit:
        edit.create("t", f"select {value} as at union all select null")

    assert raised.value.kind == "type-mismatch"


@pytest.mark.parametrize(
    "value", ["date 'infinity'", "timestamp '-infinity'", "{'a': timestamptz 'infinity'}"]
)
def test_an_infinite_time_is_none_that_others_know(lake: Lake, value: str) -> None:
    with pytest.raises(InvalidError, match="infinity in some row") as raised, editing(lake) as edit:
        edit.create("t", f"select {value} as at union all select null")

    assert raised.value.kind == "type-mismatch"


def test_a_column_that_is_left_out_gets_its_default(lake: Lake) -> None:
    with editing(lake) as edit:
        edit.create("t", NUMBERS)
        edit.add_column("t", "late", "decimal(4,2)", default="1.5")
        edit.add_column("t", "raw", "binary", default="00fF")
        edit.append("t", "select 4 as id, 'd' as name")
        edit.append("t", "select 5 as id, 'e' as name, null as late, null as raw")
        edit.upsert("t", "select 1 as id, 'A' as name, 2.25 as late", key="id")
    late = lake.branch("work").table("t").sql("select id, late, hex(raw) r from t order by id")

    assert [(one["id"], str(one["late"]), one["r"]) for one in late.to_pylist()] == [
        (1, "2.25", "00FF"), (2, "1.50", "00FF"), (3, "1.50", "00FF"), (4, "1.50", "00FF"),
        (5, "None", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        ("int", "abc"), ("int", "1.5"), ("int", "2147483648"), ("boolean", "yes"),
        ("binary", "xyz"), ("fixed[2]", "00"), ("decimal(4,2)", "1.555"), ("decimal(4,2)", "100"),
        ("double", "nan"), ("date", "infinity"), ("time", "24:00:00"), ("uuid", "x"),
        ("timestamp", "2020-01-01T00:00:00Z"), ("timestamptz", "2020-01-01T00:00:00"),
        ("INT[]", "[1]"), ("float", "1e39"), ("double", "1e400"),
        ("time", "12:00:00.1234567"), ("timestamp", "2026-01-01T00:00:00.123456789"),
        ("timestamptz", "2026-01-01T00:00:00,1234567+00:00"),
    ],
)  # fmt: skip
def test_a_default_is_a_value_of_its_column(lake: Lake, kind: str, default: str) -> None:
    said = r'default ".*" of column "odd"'
    with pytest.raises(InvalidError, match=said) as raised, editing(lake) as edit:
        edit.create("t", NUMBERS)
        edit.add_column("t", "odd", kind, default=default)

    assert raised.value.kind == "bad-value"


@pytest.mark.parametrize("kind", ["unknown", "gibberish", "INT[", "timestamp_ns", "decimal(39,0)"])
def test_a_type_that_is_none_is_refused(lake: Lake, kind: str) -> None:
    with pytest.raises(InvalidError) as raised, editing(lake) as edit:
        edit.create("t", columns={"odd": kind})

    assert raised.value.kind == "unsupported-type"


@settings(max_examples=12)
@given(acts=st.lists(ACTS | st.just("rename"), max_size=6))
def test_any_acts_leave_the_rows_that_a_dictionary_would(
    tmp_path_factory: pytest.TempPathFactory, acts: list[Act | str]
) -> None:
    repo = create_repository(tmp_path_factory.mktemp("lake") / "lake", _clock, "ana")
    lake = with_branch(repo)
    model: Model = {}
    name = "v0"
    with editing(lake) as edit:
        edit.create("t", columns={"id": "long", "v0": "string"})
    for number, act in enumerate(acts):
        with editing(lake) as edit:
            name = _apply(edit, model, act, name, number)
        assert dict(rows(lake)) == model
        assert len(rows(lake)) == len(model)
    repo.store.close()


def _apply(edit: TableEdit, model: Model, act: Act | str, name: str, number: int) -> str:
    """Does an act to the table and to the model; returns the name of the column of texts."""
    if isinstance(act, str):
        edit.rename_column("t", name, f"v{number + 1}")
        return f"v{number + 1}"
    new = as_arrow(written(model, act), name, pa.int64())
    match act:
        case Append():
            edit.append("t", new)
        case Upsert():
            edit.upsert("t", new, key="id")
        case Delete(low, high):
            edit.delete("t", where=f"id between {low} and {high}")
        case Overwrite(low, high):
            edit.overwrite("t", new, where=f"id >= {low} and {high} > id")
    return name


CONDITIONS = st.sampled_from(["id", "d", "s", "n"]).flatmap(
    lambda column: st.tuples(
        st.just(column),
        st.sampled_from(["=", "<", "<=", ">", ">=", "<>"]),
        {
            "id": st.integers(-3, 30).map(str),
            "d": st.integers(1, 28).map(lambda day: f"'2013-01-{day:02}'"),
            "s": st.sampled_from(["''", "'b'", "'ä'", "'zz'"]),
            "n": st.sampled_from(["-1.5", "0.25", "3"]),
        }[column],
    ).map(" ".join)
)


@settings(max_examples=25)
@given(
    conditions=st.lists(CONDITIONS, min_size=1, max_size=3),
    how=st.sampled_from([" and ", " or "]),
)
def test_a_file_that_is_left_out_holds_no_matching_row(
    pruned: Lake, conditions: list[str], how: str
) -> None:
    where = how.join(conditions)
    table = pruned.branch("work").table("t")
    files = data_files(table.repo.root, table.content)

    kept = {file.path for file in files_that_may_match(files, table.schema, where)}

    matching = table.sql(f"select id // 3 as file from t where {where}").to_pylist()
    assert {files[row["file"]].path for row in matching} <= kept


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Nine files of three rows each."""
    lake = with_branch(create_repository(tmp_path_factory.mktemp("p") / "lake", _clock, "ana"))
    select = (
        "select n as id, date '2013-01-01' + n::integer as d, (n / 4)::decimal(6, 2) - 2 as n, "
        "['', 'b', 'ä', 'z', null][1 + n % 5] as s from range({first}, {first} + 3) r(n)"
    )
    with lake.edit("work", message="m", author="ana") as edit:
        edit.create("t", select.format(first=0))
        for first in range(3, 27, 3):
            edit.append("t", select.format(first=first))
    return lake


def _clock() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


def _files(lake: Lake) -> list[Any]:  # DataFile
    table = lake.branch("work").table("t")
    return list(data_files(table.repo.root, table.content))
