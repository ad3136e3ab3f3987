"""The example's SQL uses what was known before a departure, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instep.pipelines.config import SqlStep, parse_pipeline
from instep.pipelines.lineage import analyse
from instep.pipelines.plan import row_time

EXAMPLE = Path(__file__).parents[2] / "examples/flights"
SQL = (EXAMPLE / "steps/departures.sql").read_text()
HOUR = datetime(2013, 1, 31, 22, tzinfo=UTC)

FLIGHT: dict[str, Any] = {
    "carrier": "UA",
    "flight": 1,
    "time_hour": HOUR,
    "minute": 30,
    "origin": "EWR",
    "dest": "IAH",
    "hour": 17,
    "distance": 1400,
    "dep_delay": 10,
    "air_time": 200,
    "arr_delay": 20,
}


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as made:
        made.execute("set timezone = 'UTC'")
        made.execute(
            "create table flights(carrier text, flight bigint, time_hour timestamptz, "
            "minute bigint, origin text, dest text, hour bigint, distance bigint, "
            "dep_delay bigint, air_time bigint, arr_delay bigint)"
        )
        made.execute(
            "create table weather(origin text, time_hour timestamptz, wind_speed double, "
            "precip double, visib double)"
        )
        yield made


def departures(
    connection: duckdb.DuckDBPyConnection,
    flights: list[dict[str, Any]],
    weather: list[tuple[str, datetime, float]],
) -> list[dict[str, Any]]:
    connection.execute("delete from flights")
    connection.execute("delete from weather")
    for flight in flights:
        connection.execute(
            f"insert into flights values ({', '.join('?' * len(FLIGHT))})", list(flight.values())
        )
    for origin, at, wind in weather:
        connection.execute("insert into weather values (?, ?, ?, 0, 10)", [origin, at, wind])
    found = connection.execute(SQL)
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def test_the_weather_is_that_of_the_same_airport_an_hour_before(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    (row,) = departures(
        connection,
        [FLIGHT],
        [
            ("EWR", HOUR, 99.0),
            ("EWR", HOUR - timedelta(hours=1), 7.0),
            ("EWR", HOUR - timedelta(hours=2), 98.0),
            ("JFK", HOUR - timedelta(hours=1), 97.0),
        ],
    )

    assert row["wind_speed"] == 7.0


def test_a_departure_without_weather_stays(connection: duckdb.DuckDBPyConnection) -> None:
    (row,) = departures(connection, [FLIGHT], [("EWR", HOUR, 99.0)])

    assert row["wind_speed"] is None


def test_an_outcome_is_known_after_delay_flight_and_an_hour_on_the_ground(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    (row,) = departures(connection, [FLIGHT], [])

    assert row["scheduled_at"] == HOUR + timedelta(minutes=30)
    assert row["known_at"] == HOUR + timedelta(minutes=30 + 10 + 200 + 60)


@pytest.mark.parametrize(("arr_delay", "late"), [(15, False), (16, True), (-5, False)])
def test_late_is_more_than_fifteen_minutes(
    connection: duckdb.DuckDBPyConnection, arr_delay: int, late: bool
) -> None:
    (row,) = departures(connection, [{**FLIGHT, "arr_delay": arr_delay}], [])

    assert row["late"] is late


def test_cancelled_and_diverted_departures_have_no_outcome(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    cancelled = {**FLIGHT, "dep_delay": None, "air_time": None, "arr_delay": None}
    diverted = {**FLIGHT, "air_time": None, "arr_delay": None}

    rows = departures(connection, [cancelled, diverted], [])

    assert [(row["late"], row["known_at"]) for row in rows] == [(None, None), (None, None)]


def test_the_months_of_the_example_write_all_rows_and_need_no_time() -> None:
    config = parse_pipeline((EXAMPLE / "pipelines/delay.yaml").read_text(), "delay.yaml")
    weather = ("origin", "time_hour", "wind_speed", "precip", "visib")
    found = analyse(SQL, "departures.sql", {"flights": tuple(FLIGHT), "weather": weather}.get)
    step = config.steps[0]
    assert isinstance(step, SqlStep) and step.every is not None

    assert row_time(step, config, found) is None
    assert found.copies["time_hour"] == "flights.time_hour"


hours = st.integers(-48, 48).map(lambda hour: HOUR + timedelta(hours=hour))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(times=st.lists(hours, max_size=6), weather=st.lists(hours, max_size=6, unique=True))
def test_months_computed_apart_give_the_same_as_computed_whole(
    connection: duckdb.DuckDBPyConnection, times: list[datetime], weather: list[datetime]
) -> None:
    flights = [{**FLIGHT, "flight": number, "time_hour": at} for number, at in enumerate(times)]
    wind = [("EWR", at, float(number)) for number, at in enumerate(weather)]
    month = datetime(2013, 2, 1, tzinfo=UTC)
    lookback = timedelta(hours=1)

    whole = departures(connection, flights, wind)
    january = departures(
        connection,
        [flight for flight in flights if flight["time_hour"] < month],
        [one for one in wind if one[1] < month],
    )
    february = departures(
        connection,
        [flight for flight in flights if flight["time_hour"] >= month],
        [one for one in wind if one[1] >= month - lookback],
    )

    assert sorted(whole, key=_flight) == sorted([*january, *february], key=_flight)


def test_nothing_that_is_known_only_afterwards_is_a_feature() -> None:
    from instep.pipelines.config import TrainStep, parse_pipeline

    path = "examples/flights/pipelines/delay.yaml"
    pipeline = parse_pipeline((Path(__file__).parents[2] / path).read_text(), path)
    (step,) = (step for step in pipeline.steps if isinstance(step, TrainStep))

    afterwards = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "known_at", "late"}
    assert not afterwards & set(step.spec.features)


def _flight(row: dict[str, Any]) -> int:
    return int(row["flight"])
