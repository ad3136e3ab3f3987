"""Columns within columns arrive as their contract says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from arrival_builders import merge_contract, rows_of

from instep.changes.records import State
from instep.contracts.document import parse
from instep.errors import InvalidError
from instep.history.repository import MAIN, Repository
from instep.ingest.arrive import ingest
from instep.ingest.arrived import Arrived
from instep.tables.content import TableContent
from instep.tables.read import schema_of

CALLS = """\
apiVersion: v3.1.0
kind: DataContract
id: calls
version: 1.0.0
status: active
servers:
  - {server: files, type: local, path: "calls-*.parquet", format: parquet}
schema:
  - name: calls
    customProperties:
      - {property: maxQuarantined, value: 0.8}
    properties:
      - {name: id, logicalType: integer, primaryKey: true}
      - name: place
        logicalType: object
        required: true
        properties:
          - {name: city, logicalType: string, required: true}
          - name: point
            logicalType: object
            properties:
              - {name: x, logicalType: number}
              - {name: y, logicalType: number}
      - name: tags
        logicalType: array
        items: {logicalType: string}
      - name: parts
        logicalType: array
        items:
          logicalType: object
          properties:
            - {name: n, logicalType: integer, required: true}
"""

GOOD = (
    "{'city': 'Bonn', 'point': {'x': 1.0::double, 'y': 2.0::double}} as place, "
    "['a', 'b'] as tags, [{'n': 1::bigint}] as parts"
)


def arrive(repo: Repository, folder: Path, sql: str, name: str = "calls-1.parquet") -> Arrived:
    import duckdb

    duckdb.execute(f"COPY ({sql}) TO '{folder / name}' (FORMAT parquet)")
    return ingest(repo, folder, folder / name, "ana")


def fault(before: str, after: str) -> str:
    assert before in CALLS
    with pytest.raises(InvalidError) as caught:
        parse(CALLS.replace(before, after), "contracts/calls.yaml")
    return f"{caught.value.kind}: {caught.value.message}"


def test_nested_columns_become_columns_with_children(repo: Repository, tmp_path: Path) -> None:
    merge_contract(repo, CALLS, "calls")
    arrived = arrive(repo, tmp_path, f"select range as id, {GOOD} from range(5)")
    assert (arrived.state, arrived.arrival.quarantined) == (State.MERGED, 0)
    table = TableContent.from_content(repo.content(repo.resolve(MAIN), "table/calls"))
    schema = schema_of(repo.root, table)
    assert [one.full_type for one in schema.columns] == [
        "long",
        "struct<city: string, point: struct<x: double, y: double>>",
        "list<string>",
        "list<struct<n: long>>",
    ]
    ids = [one.id for one in schema.fields()]
    assert len(set(ids)) == len(ids) and min(ids) > 0
    found = rows_of(repo, "select place.point.y, tags[2], parts[1].n from calls", "calls")
    assert found == [(2.0, "b", 1)] * 5


def test_fields_stand_in_any_order_and_of_narrower_types(repo: Repository, tmp_path: Path) -> None:
    merge_contract(repo, CALLS, "calls")
    sql = (
        "select 1 as id, {'point': {'y': 2::float, 'x': 1::float}, 'city': 'Bonn'} as place, "
        "[]::varchar[] as tags, null::struct(n smallint)[] as parts"
    )
    assert arrive(repo, tmp_path, sql).arrival.quarantined == 0
    assert rows_of(repo, "select place.point.x from calls", "calls") == [(1.0,)]


@pytest.mark.parametrize(
    ("before", "after", "term"),
    [
        ("{'city': 'Bonn', ", "{'city': if(range = 0, null, 'Bonn'), ", "place.fields"),
        ("[{'n': 1::bigint}]", "[{'n': if(range = 0, null, 1)}]", "parts.fields"),
        ("[{'n': 1::bigint}]", "[{'n': if(range = 0, 1.5::double, 1)}]", "parts.type"),
        ("'b'] as tags", "'b'] as tags, 1 as more", ""),
        ("{'n': 1::bigint}", "{'n': 1, 'm': if(range = 0, 'x', null)}", "parts.type"),
        ("{'n': 1::bigint}", "{'z': 1}", "parts.type"),
        ("['a', 'b'] as tags", "'a' as tags", "tags.type"),
        ("{'city': 'Bonn', ", "{'town': 'Bonn', ", "place.type"),
        ("['a', 'b'] as tags", "timestamp_ns '2026-01-01' as tags", "tags.type"),
    ],
)
def test_rows_that_break_a_nested_column_are_set_aside(
    repo: Repository, tmp_path: Path, before: str, after: str, term: str
) -> None:
    merge_contract(repo, CALLS, "calls")
    assert before in GOOD
    found = arrive(
        repo, tmp_path, f"select range as id, {GOOD.replace(before, after)} from range(4)"
    )
    assert (term in found.broken) if term else not found.broken
    if found.state is State.MERGED and term:
        assert found.arrival.quarantined == 1


def test_a_keyed_table_takes_nested_columns(repo: Repository, tmp_path: Path) -> None:
    keyed = "customProperties:\n      - {property: mergePolicy, value: keyed}\n"
    text = CALLS.replace("customProperties:\n", keyed)
    merge_contract(repo, text, "calls")
    arrive(repo, tmp_path, f"select range as id, {GOOD} from range(5)")
    sql = f"select range + 3 as id, {GOOD.replace('Bonn', 'Ulm')} from range(4)"
    arrive(repo, tmp_path, sql, "calls-2.parquet")
    found = rows_of(repo, "select place.city, count(*) from calls group by all order by 1", "calls")
    assert found == [("Bonn", 3), ("Ulm", 4)]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("name: x, ", "name: x, logicalTypeOptions: {minimum: 0}, ", "unsupported-term"),
        ("{name: x, ", "{name: x, primaryKey: true, ", "unsupported-term"),
        ("{name: x, ", "{name: x, partitioned: true, ", "unsupported-term"),
        ("{logicalType: string}", "{logicalType: string, unique: true}", "unsupported-term"),
        ("        items: {logicalType: string}\n", "", 'expected "items"'),
        ("{name: y,", "{name: X,", '"x" stands twice'),
        ("{name: id, ", "{name: id, items: {logicalType: string}, ", "expected it at an object"),
        ("{name: city, ", "{name: city, logicaltype: x, ", "unknown-key"),
    ],
)
def test_what_is_not_checked_within_a_column_is_refused(
    before: str, after: str, expected: str
) -> None:
    assert expected in fault(before, after)


def test_a_contract_tells_its_nested_types() -> None:
    told: Any = parse(CALLS, "contracts/calls.yaml").to_json()["columns"]
    assert told[3]["type"] == "list<struct<n: long>>"


def test_the_draft_of_a_file_with_nested_columns_tells_them(
    repo: Repository, tmp_path: Path
) -> None:
    held = arrive(repo, tmp_path, f"select range as id, {GOOD} from range(3)")
    assert held.draft is not None
    drafted = parse(held.draft.read_text(), "contracts/calls_1.yaml")
    assert [one.full_type for one in drafted.schema.columns] == [
        "long",
        "struct<city: string, point: struct<x: double, y: double>>",
        "list<string>",
        "list<struct<n: long>>",
    ]
