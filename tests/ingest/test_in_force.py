"""A contract is found without being parsed, and never overlooked."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

import pytest
from arrival_builders import READINGS
from hypothesis import given
from hypothesis import strategies as st

from instep.contracts.document import parse
from instep.errors import InvalidError
from instep.ingest.in_force import Near, may_match, named_paths, near_table, table_name

PATH = 'path: "readings-*.csv"\n'

WAYS = (
    "path: 'readings-*.csv'\n",
    "path: readings-*.csv\n",
    "path: readings-*.csv  # monthly\n",
    "path:   data/in/readings-*.csv\n",
    '"path": "readings-*.csv"\n',
    "'path': \"readings-*.csv\"\n",
    '"p\\x61th": "readings-*.csv"\n',
    'path: "read\\x69ngs-*.csv"\n',
    "path: >-\n      readings-*.csv\n",
    "path: |-\n      readings-*.csv\n",
    "path:\n      readings-*.csv\n",
    "path: &files readings-*.csv\n",
    "? path\n    : readings-*.csv\n",
)


@pytest.mark.parametrize("way", WAYS)
def test_a_path_is_seen_however_it_is_written(way: str) -> None:
    text = READINGS.replace(PATH, way)
    assert [one.pattern.rpartition("/")[2] for one in parse(text, "t").sources] == [
        "readings-*.csv"
    ]
    assert may_match(text, "readings-2013.csv")
    assert may_match(text, "readings-2013.csv.gz")


@pytest.mark.parametrize("value", ["readings-*.csv", "'readings-*.csv'", '"readings-*.csv"'])
def test_a_path_in_braces_is_seen(value: str) -> None:
    start, end = READINGS.index("  - server:"), READINGS.index("schema:")
    server = f"  - {{server: till, type: local, path: {value}, format: csv}}\n"
    text = READINGS[:start] + server + READINGS[end:]
    assert len(parse(text, "t").sources) == 1
    assert may_match(text, "readings-2013.csv")
    assert not may_match(text, "weather-2013.csv")


def test_an_alias_and_a_second_line_are_seen() -> None:
    alias = READINGS.replace("id: readings", "id: &it readings-*.csv").replace(PATH, "path: *it\n")
    folded = READINGS.replace(PATH, "path: readings\n      -*.csv\n")
    for text in (alias, folded):
        for source in parse(text, "t").sources:
            assert may_match(text, source.pattern.replace("*", "1"))


@pytest.mark.parametrize("way", WAYS[:6])
def test_a_contract_of_other_files_is_passed_over(way: str) -> None:
    assert not may_match(READINGS.replace(PATH, way), "weather-2013.csv")


@given(st.text(alphabet="ab*?[]/. #:,'\"{}\\\u00e9\u2028\x85-", min_size=1, max_size=12))
def test_no_pattern_is_overlooked(pattern: str) -> None:
    quoted = re.sub(r'(["\\])', r"\\\1", pattern)
    single = pattern.replace("'", "''")
    for way in (f'path: "{quoted}"\n', f"path: '{single}'\n", f"path: {pattern}\n"):
        text = READINGS.replace(PATH, way)
        try:
            sources = parse(text, "t").sources
        except InvalidError:
            continue
        for source in sources:
            name = re.sub(r"[*?\[\]]", "a", source.pattern.rsplit("/", 1)[-1])
            if fnmatchcase(name, source.pattern.rsplit("/", 1)[-1]):
                assert may_match(text, name), (text, name)


def test_a_table_is_named_by_its_file() -> None:
    assert table_name("My Trips-2013.csv.gz") == "my_trips_2013"
    assert table_name("2013.csv") == "t_2013"
    assert table_name("Café Straße.csv") == "cafe_strasse"
    assert table_name("cafe\u0301.csv") == "cafe"
    assert table_name("Łódź.csv") is None
    assert table_name("--.csv") is None


@pytest.mark.parametrize(
    ("file", "tables", "pattern"),
    [
        ("trips2.csv", {"trips": ["trips.csv"], "zones": ["zones.csv"]}, "trips*.csv"),
        ("trips-2024-02.csv.gz", {"trips": []}, "trips*.csv.gz"),
        ("trips-2024.csv", {"trips_2023": []}, "trips*.csv"),
        ("Trips (1).csv", {"trips": []}, "Trips*.csv"),
        ("my trips 3.csv", {"my_trips": []}, "my trips*.csv"),
        ("orders2.csv", {"sales": ["in/orders1.csv"]}, "orders*.csv"),
        ("2020-03-20.csv", {"cases": ["2020-03-19.csv"]}, "????-??-??.csv"),
        ("20200320.csv", {"cases": ["2020-03-19.csv"]}, None),
        ("trips2.csv", {"trips2": [], "trips": []}, None),
        ("trip.csv", {"trips": []}, None),
        ("zones2.csv", {"trips": []}, None),
        ("trips.csv", {"trips": []}, None),
    ],
)
def test_a_file_is_near_a_table_when_their_names_differ_in_digits_alone(
    file: str, tables: dict[str, list[str]], pattern: str | None
) -> None:
    near = near_table(file, tables)
    assert (near.pattern if near else None) == pattern
    if near is not None:
        assert fnmatchcase(file, near.pattern)
        assert near == Near(next(iter(tables)), table_name(file) or "", near.pattern)


def test_the_paths_of_a_contract_are_seen_without_parsing_it() -> None:
    assert named_paths(READINGS) == ["readings-*.csv"]
