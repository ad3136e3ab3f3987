"""A contract is read strictly, and never says more than what is checked."""

from __future__ import annotations

from decimal import Decimal

import pytest

from instep.contracts.document import parse
from instep.contracts.terms import Bound, Contract, MergePolicy
from instep.errors import InvalidError

WEATHER = """\
apiVersion: v3.1.0
kind: DataContract
id: weather
version: 1.0.0
status: active
description:
  purpose: >-
    Hourly weather at the three airports.
tags: [nyc]
servers:
  - server: files
    type: local
    path: "weather*.csv"
    format: csv
    customProperties:
      - {property: nullMarker, value: NA}
schema:
  - name: weather
    physicalType: table
    customProperties:
      - {property: eventTime, value: time_hour}
      - {property: mergePolicy, value: append}
      - {property: maxQuarantined, value: 0.02}
    properties:
      - name: time_hour
        logicalType: timestamp
        primaryKey: true
        primaryKeyPosition: 2
      - name: origin
        logicalType: string
        primaryKey: true
        primaryKeyPosition: 1
        quality:
          - metric: invalidValues
            arguments: {validValues: [EWR, JFK, LGA]}
            mustBe: 0
      - name: wind_speed
        logicalType: number
        logicalTypeOptions: {minimum: 0, exclusiveMaximum: 250.5}
        customProperties:
          - {property: unit, value: mph}
      - name: hour
        logicalType: integer
        physicalType: INTEGER
        quality:
          - metric: nullValues
            mustBeLessOrEqualTo: 2.5
            unit: percent
    quality:
      - metric: rowCount
        mustBeBetween: [1, 100000]
"""


def refused(text: str, kind: str) -> str:
    with pytest.raises(InvalidError) as caught:
        parse(text, "contracts/weather.yaml")
    assert caught.value.kind == kind, caught.value.message
    return caught.value.message


def read() -> Contract:
    return parse(WEATHER, "contracts/weather.yaml")


def test_terms_are_read_into_records() -> None:
    contract = read()
    assert contract.table == "weather"
    assert contract.purpose == "Hourly weather at the three airports."
    assert contract.key == ("origin", "time_hour")
    assert contract.event_time == "time_hour"
    assert contract.merge_policy is MergePolicy.APPEND
    assert contract.max_quarantined == Decimal("0.02")
    time_hour, origin, wind, hour = contract.columns
    assert (time_hour.type, time_hour.required) == ("timestamptz", True)
    assert origin.values == ("EWR", "JFK", "LGA")
    assert (wind.minimum, wind.maximum) == (Bound("0"), Bound("250.5", exclusive=True))
    assert wind.unit == "mph"
    assert hour.type == "int"
    assert contract.sources[0].null_markers == ("", "NA")
    assert [term.sentence for term in contract.batch] == [
        "rowCount is between 1 and 100000",
        "nullValues of hour is at most 2.5 percent",
    ]


def test_between_includes_both_its_ends() -> None:
    rows = read().batch[0]
    assert [rows.holds(count, count) for count in (0, 1, 100_000, 100_001)] == [
        False,
        True,
        True,
        False,
    ]


def test_an_unknown_key_is_named_with_its_place_and_the_nearest_known_key() -> None:
    message = refused(
        WEATHER.replace("        logicalTypeOptions", "        logicalTypeOption"), "unknown-key"
    )
    assert "contracts/weather.yaml:39:9" in message
    assert 'Did you mean "logicalTypeOptions"?' in message


def test_a_misspelt_custom_property_is_an_unknown_key() -> None:
    message = refused(WEATHER.replace("maxQuarantined", "maxQuarantine"), "unknown-key")
    assert "contracts/weather.yaml:23:" in message
    assert 'Did you mean "maxQuarantined"?' in message


@pytest.mark.parametrize(
    ("before", "after", "option"),
    [
        ("        physicalType: INTEGER", "        unique: true", "unique"),
        ("{minimum: 0,", "{multipleOf: 2,", "multipleOf"),
        ("tags: [nyc]", "slaProperties: [{property: latency, value: 1}]", "slaProperties"),
        ("metric: rowCount", "type: sql\n        query: select 1", "type"),
        ("metric: rowCount", "metric: freshness", "freshness"),
        ("metric: rowCount", "metric: rowCount\n        severity: warning", "severity"),
        ("physicalType: table", "relationships: []", "relationships"),
    ],
)
def test_a_term_that_would_not_be_checked_is_refused(before: str, after: str, option: str) -> None:
    assert f'"{option}"' in refused(WEATHER.replace(before, after), "unsupported-term")


def test_keys_that_only_describe_are_accepted() -> None:
    text = WEATHER.replace("tags: [nyc]", "team: {name: ops}\nprice: {priceAmount: 1}\ndomain: sky")
    assert parse(text, "c.yaml").table == "weather"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("value: time_hour}", "value: origin}"),
        ("value: time_hour}", "value: nowhere}"),
        ("value: append}", "value: upsert}"),
        ("value: 0.02}", "value: 2}"),
        ("name: hour\n", "name: Origin\n"),
        ("minimum: 0,", "minimum: low,"),
        ("physicalType: INTEGER", "physicalType: DATE"),
        ("physicalType: INTEGER", "physicalType: geometry"),
        ("- name: weather", "- name: Weather Table"),
        ("mustBeBetween: [1, 100000]", "mustBe: 1\n        mustNotBe: 2"),
        ("mustBeBetween: [1, 100000]", "mustBeBetween: [2, 1]"),
        ("        logicalType: integer\n", "        logicalType: array\n"),
        (
            "      - name: origin\n        logicalType: string",
            "      - name: origin\n        logicalType: string\n"
            "        logicalTypeOptions: {pattern: '^(?!X)'}",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_their_place(before: str, after: str) -> None:
    assert before in WEATHER
    message = refused(WEATHER.replace(before, after), "bad-contract")
    assert message.startswith("contracts/weather.yaml:")


def test_a_table_updated_by_key_needs_one() -> None:
    text = WEATHER.replace("value: append}", "value: keyed}")
    assert parse(text, "c.yaml").merge_policy is MergePolicy.KEYED
    refused(text.replace("primaryKey: true", "required: true"), "bad-contract")


def test_all_faults_are_gathered() -> None:
    text = WEATHER.replace("value: append}", "value: upsert}").replace("minimum: 0,", "minimum: x,")
    assert len(refused(text, "bad-contract").splitlines()) == 2


def test_the_terms_are_shown_in_words() -> None:
    shown = read().to_json()
    assert shown["key"] == ["origin", "time_hour"]
    columns = shown["columns"]
    assert isinstance(columns, list)
    assert columns[2]["terms"] == ["is at least 0", "is below 250.5"]
