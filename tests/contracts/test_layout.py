"""A contract says how the files of its table are partitioned and sorted."""

from __future__ import annotations

import pytest

from instep.contracts.document import parse
from instep.errors import InvalidError
from instep.tables.partition import Order, Part

READINGS = """\
apiVersion: v3.1.0
kind: DataContract
id: readings
version: 1.0.0
status: active
schema:
  - name: readings
    customProperties:
      - {property: sortOrder, value: [station, at desc, late asc nulls last]}
    properties:
      - name: station
        logicalType: string
        partitioned: true
        partitionKeyPosition: 2
        customProperties: [{property: partitionTransform, value: "truncate[2]"}]
      - name: at
        logicalType: timestamp
        partitioned: true
        partitionKeyPosition: 1
        customProperties: [{property: partitionTransform, value: month}]
      - {name: kind, logicalType: string, partitioned: true}
      - {name: late, logicalType: integer}
      - {name: speed, logicalType: number, partitioned: false, partitionKeyPosition: -1}
"""


def faults(before: str, after: str) -> str:
    assert before in READINGS
    with pytest.raises(InvalidError) as caught:
        parse(READINGS.replace(before, after), "contracts/readings.yaml")
    assert caught.value.kind == "bad-contract", caught.value.message
    return caught.value.message


def test_partition_fields_stand_by_position_and_those_without_one_last() -> None:
    contract = parse(READINGS, "contracts/readings.yaml")
    assert contract.partition == (Part("at", "month"), Part("station", "truncate[2]"), Part("kind"))
    told = contract.to_json()
    assert told["partition"] == ["month(at)", "truncate[2](station)", "identity(kind)"]


def test_nulls_come_first_where_an_order_rises_and_last_where_it_falls() -> None:
    contract = parse(READINGS, "contracts/readings.yaml")
    assert contract.sort == (
        Order("station"),
        Order("at", is_descending=True, nulls_first=False),
        Order("late", nulls_first=False),
    )
    assert contract.to_json()["sort"] == [
        "station asc nulls first", "at desc nulls last", "late asc nulls last",
    ]  # fmt: skip


def test_a_transform_that_a_column_cannot_have_is_refused_with_its_place() -> None:
    message = faults("value: month", "value: hourly")
    assert "contracts/readings.yaml:16:" in message and 'by "hourly"' in message
    assert "partitioned by" in faults('"truncate[2]"', "day")


def test_a_position_or_a_transform_without_a_partition_is_refused() -> None:
    assert '"partitionKeyPosition" stands at "late"' in faults(
        "{name: late, ", "{name: late, partitionKeyPosition: 3, "
    )
    asked = "{name: late, customProperties: [{property: partitionTransform, value: day}], "
    assert '"partitionTransform" stands at "late"' in faults("{name: late, ", asked)


def test_a_position_that_stands_twice_is_refused() -> None:
    assert "partitionKeyPosition 2 stands twice" in faults("Position: 1", "Position: 2")


def test_a_sort_order_names_each_column_once_and_no_other() -> None:
    assert 'column "statoin" does not exist' in faults("[station, at", "[statoin, at")
    assert '"sortOrder" names "at" twice' in faults("[station, at", "[at, at")
    nested = "logicalType: object, properties: [{name: x, logicalType: string}]"
    assert "not nested" in faults("late, logicalType: integer", f"late, {nested}")


def test_a_nested_column_partitions_no_table() -> None:
    nested = "logicalType: array, items: {logicalType: string}"
    assert "partitioned" in faults("kind, logicalType: string", f"kind, {nested}")
