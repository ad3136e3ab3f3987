"""Which contracts speak of a feature: those of the tables that held it under its own name."""

from __future__ import annotations

from serving_builders import CONTRACT, PIPELINE

from instep.contracts.document import parse
from instep.pipelines.config import parse_pipeline
from instep.serving.origins import Documents, terms_of

FLIGHTS = parse(CONTRACT, "contracts/flights.yaml")


def tables(feature: str, sql: str) -> list[str]:
    pipeline = parse_pipeline(PIPELINE, "pipelines/delay.yaml")
    documents = Documents(
        contracts={"flights": FLIGHTS},
        columns={"flights": FLIGHTS.names},
        pipelines=[(pipeline, {"steps/departures.sql": sql})],
    )
    return [term.table for term in terms_of(documents, "delay", feature)]


def test_a_column_that_was_only_carried_keeps_its_contract() -> None:
    assert tables("dest", "select dest from flights") == ["flights"]


def test_a_renamed_column_is_another_one() -> None:
    assert tables("target", "select dest as target from flights") == []


def test_a_column_made_of_two_is_another_one() -> None:
    assert tables("hour", "select hour + flight as hour from flights") == []


def test_a_column_made_of_one_but_computed_is_another_one() -> None:
    assert tables("hour", "select hour * 60 as hour from flights") == []


def test_a_column_computed_further_in_is_another_one() -> None:
    sql = "with h as (select hour * 60 as hour from flights) select hour from h"
    assert tables("hour", sql) == []
