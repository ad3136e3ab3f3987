"""What a batch does to rows that are there is counted; what no delivery does usually is held."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from arrival_builders import merge_contract, rows_of, write

from instep.changes.records import State
from instep.errors import RefusedError
from instep.history.repository import MAIN, Repository
from instep.ingest.accept import accept
from instep.ingest.arrive import ingest
from instep.ingest.arrived import Arrived, held_error
from instep.ingest.effect import Effect

CODES = """\
apiVersion: v3.1.0
kind: DataContract
id: codes
version: 1.0.0
status: active
servers:
  - {server: here, type: local, path: "codes-*.csv", format: csv}
schema:
  - name: codes
    customProperties:
      - {property: mergePolicy, value: POLICY}
    properties:
      - {name: code, logicalType: string, primaryKey: true}
      - {name: value, logicalType: integer}
"""

TIMED = """\
apiVersion: v3.1.0
kind: DataContract
id: visits
version: 1.0.0
status: active
servers:
  - {server: here, type: local, path: "visits-*.csv", format: csv}
schema:
  - name: visits
    customProperties:
      - {property: eventTime, value: at}
      - {property: mergePolicy, value: POLICY}
    properties:
      - {name: code, logicalType: string, primaryKey: true}
      - {name: at, logicalType: TYPE}
      - {name: value, logicalType: integer}
"""

HEADER = "code,at,value"


def arrive(repo: Repository, file: Path) -> Arrived:
    return ingest(repo, file.parent, file, "ana")


def codes(repo: Repository, policy: str, text: str = CODES) -> None:
    merge_contract(repo, text.replace("POLICY", policy), "codes")


def visits(repo: Repository, policy: str, kind: str = "timestamp") -> None:
    text = TIMED.replace("POLICY", policy).replace("logicalType: TYPE", f"logicalType: {kind}")
    merge_contract(repo, text, "visits")


def bring(repo: Repository, folder: Path, name: str, rows: list[list[str]]) -> Arrived:
    table = name.partition("-")[0]
    header = HEADER if table == "visits" else "code,value"
    return arrive(repo, write(folder / f"{name}.csv", rows, header))


def days(month: int, keys: range, spelled: str = "03", value: int = 0) -> list[list[str]]:
    """One row a key, spread over the 28 days of a month."""
    return [
        [
            format(key, spelled),
            f"2024-{month:02}-{1 + n * 28 // len(keys):02}T{n % 24:02}:00:00Z",
            str(key + value),
        ]
        for n, key in enumerate(keys)
    ]


def whole_month(month: int) -> list[list[str]]:
    """300 rows whose keys are of this month alone."""
    return days(month, range(month * 300, month * 300 + 300))


def counted(repo: Repository, table: str) -> object:
    [(rows,)] = rows_of(repo, f"select count(*) from {table}", table)
    return rows


@pytest.mark.parametrize("policy", ["keyed", "replace"])
def test_keys_in_another_spelling_are_held_without_an_event_time(
    repo: Repository, tmp_path: Path, policy: str
) -> None:
    codes(repo, policy)
    bring(repo, tmp_path, "codes-1", [[f"{n:03}", str(n)] for n in range(100)])
    held = bring(repo, tmp_path, "codes-2", [[str(n), str(n)] for n in range(100)])
    assert (held.state, held.arrival.held_for) == (State.HELD, "keys-vanish")
    message = held_error(held).message
    side_by_side = '"000" as "0", "001" as "1", "002" as "2"'
    listed = 'missing "000", "001", "002"; new "0", "1", "10"'
    assert (side_by_side if policy == "keyed" else listed) in message
    assert "100 new" in message and "instep accept" in message and "--why" in message
    assert counted(repo, "codes") == 100
    assert accept(repo, held.arrival.change, "ben", why="they are others").state is State.MERGED


@pytest.mark.parametrize("share", [0.4, 1.0])
@pytest.mark.parametrize("policy", ["keyed", "replace"])
def test_keys_of_a_period_that_are_spelled_otherwise_are_held(
    repo: Repository, tmp_path: Path, policy: str, share: float
) -> None:
    visits(repo, policy)
    first = days(1, range(300))
    bring(repo, tmp_path, "visits-1", first)
    if policy == "keyed":
        bring(repo, tmp_path, "visits-2", days(2, range(300, 600)))
    other = [
        [row[0] if n >= share * 300 else f"K{row[0]}", *row[1:]] for n, row in enumerate(first)
    ]
    held = bring(repo, tmp_path, "visits-3", other)
    assert held.arrival.held_for == "keys-vanish"
    assert "from 2024-01-" in held_error(held).message


def test_a_change_of_case_in_part_of_a_table_without_event_time_is_held(
    repo: Repository, tmp_path: Path
) -> None:
    codes(repo, "keyed")
    rows = [[f"k{n:03}", str(n)] for n in range(100)]
    bring(repo, tmp_path, "codes-1", rows)
    held = bring(
        repo, tmp_path, "codes-2", [[row[0].upper(), row[1]] for row in rows[:40]] + rows[40:]
    )
    assert held.arrival.held_for == "keys-vanish"


SPELLINGS: dict[str, Callable[[int], tuple[str, str]]] = {
    "zeros": lambda n: (f"{n:03}", f"{n}"),
    "zeros within": lambda n: (f"k-{n:03}", f"k-{n}"),
    "case": lambda n: (f"ab{n}", f"AB{n}"),
    "spaces around": lambda n: (f"k{n}", f"\u00a0k{n}\u2003"),
    "a separator": lambda n: (f"k-{n}", f"k{n}"),
    "another separator": lambda n: (f"12-{n:03}", f"12/{n:03}"),
    "dates": lambda n: (f"{2000 + n}-01-05", f"{2000 + n}0105"),
    "thousands": lambda n: (f"{n:03}.456.789-09", f"{n:03}45678909"),
    "composed letters": lambda n: (f"caf\u00e9{n}", f"cafe\u0301{n}"),
    "full width": lambda n: (f"A{n}", f"\uff21{n}"),
}


@pytest.mark.parametrize("few", [95, 3])
@pytest.mark.parametrize("name", SPELLINGS)
def test_by_key_existing_keys_in_another_spelling_are_held_however_many_they_are(
    repo: Repository, tmp_path: Path, name: str, few: int
) -> None:
    codes(repo, "keyed")
    rows = [SPELLINGS[name](n) for n in range(100)]
    bring(repo, tmp_path, "codes-1", [[had, "1"] for had, _ in rows])
    held = bring(repo, tmp_path, "codes-2", [[spelled, "1"] for _, spelled in rows[-few:]])
    assert held.arrival.held_for == "keys-vanish"
    message = held_error(held).message
    assert f"{few} of {few} new keys" in message
    assert sum(f'"{had}" as "{spelled}"' in message for had, spelled in rows) == 3


def test_a_fifth_of_the_new_keys_in_another_spelling_is_held(
    repo: Repository, tmp_path: Path
) -> None:
    codes(repo, "keyed")
    bring(repo, tmp_path, "codes-1", [[f"k{n:04}", "1"] for n in range(1000)])
    for spelled, others in ((19, 60), (20, 81)):
        rows = [[f"K{n:04}", "1"] for n in range(spelled)] + [[f"x{n}", "1"] for n in range(others)]
        assert bring(repo, tmp_path, f"codes-{spelled}", rows).state is State.MERGED, spelled
    rows = [[f"K{n:04}", "1"] for n in range(100, 120)] + [[f"y{n}", "1"] for n in range(80)]
    assert bring(repo, tmp_path, "codes-4", rows).arrival.held_for == "keys-vanish"


def test_late_rows_of_a_period_in_another_spelling_are_held(
    repo: Repository, tmp_path: Path
) -> None:
    visits(repo, "keyed")
    bring(repo, tmp_path, "visits-1", days(1, range(1000), "05"))
    held = bring(repo, tmp_path, "visits-2", days(1, range(100, 160), "d"))
    assert held.arrival.held_for == "keys-vanish"
    assert "new keys are existing ones from 2024-01-" in held_error(held).message


def test_a_key_of_text_and_numbers_is_held_when_its_text_is_spelled_otherwise(
    repo: Repository, tmp_path: Path
) -> None:
    key = "name: value, logicalType: integer"
    codes(repo, "keyed", CODES.replace(key, f"{key}, primaryKey: true"))
    bring(repo, tmp_path, "codes-1", [[f"k{n:03}", str(n % 7)] for n in range(100)])
    other = bring(repo, tmp_path, "codes-2", [[f"K{n:03}", str(n % 7 + 10)] for n in range(30)])
    assert other.state is State.MERGED, held_error(other).message
    held = bring(repo, tmp_path, "codes-3", [[f"K{n:03}", str(n % 7)] for n in range(30)])
    assert held.arrival.held_for == "keys-vanish"
    assert '("k000", "0") as ("K000", "0")' in held_error(held).message


OTHERS: dict[str, tuple[Callable[[int], str], Callable[[int], str]]] = {
    "hierarchies": (lambda n: f"1-{n}", lambda n: f"{n}-1"),
    "parts that join alike": (lambda n: f"0-1{n}", lambda n: f"1-{n}"),
    "order lines": (lambda n: f"{n}-11", lambda n: f"{n}1-1"),
    "decimals": (lambda n: f"0.{n:03}", lambda n: f"0.0{n:03}"),
    "versions": (lambda n: f"{n}1", lambda n: f"{n}.1"),
    "signed numbers": (lambda n: f"{n + 1}", lambda n: f"-{n + 1}"),
    "signs": (lambda n: f"c{n}", lambda n: f"c{n}+"),
    "prefixes": (lambda n: f"{n}", lambda n: f"x{n}"),
    "trailing zeros": (lambda n: f"{n + 1}", lambda n: f"{n + 1}000"),
    "hashes": (lambda n: sha256(f"a{n}".encode()).hexdigest()[:8],
               lambda n: sha256(f"b{n}".encode()).hexdigest()[:8]),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_new_keys_that_only_resemble_existing_ones_are_not_held(
    repo: Repository, tmp_path: Path, name: str
) -> None:
    codes(repo, "keyed")
    had, new = OTHERS[name]
    first = {had(n) for n in range(500)}
    bring(repo, tmp_path, "codes-1", [[key, "1"] for key in sorted(first)])
    rows = [[key, "1"] for key in sorted({new(n) for n in range(400)} - first)]
    arrived = bring(repo, tmp_path, "codes-2", rows)
    assert arrived.state is State.MERGED, held_error(arrived).message


def test_the_effect_is_counted_told_and_recorded(repo: Repository, tmp_path: Path) -> None:
    codes(repo, "keyed")
    first = bring(repo, tmp_path, "codes-1", [[f"{n}", str(n)] for n in range(1800)])
    assert first.effect == Effect(0, 1800, 1800, 0, 0, 0)
    rows = [[f"{n}", str(n + 1 if n < 412 else n)] for n in range(1712)]
    again = bring(repo, tmp_path, "codes-2", [*rows, *([f"x{n}", "0"] for n in range(88))])
    assert again.effect == Effect(1800, 1888, 88, 412, 1300, 0)
    sentence = "88 new, 412 changed, 1,300 the same, 0 gone: rows 1,800 -> 1,888"
    assert sentence in again.to_text()
    assert again.to_json()["effect"] == again.effect.to_json()


@pytest.mark.parametrize("key", [", primaryKey: true", ""])
def test_the_effect_of_a_replacement_names_what_is_gone(
    repo: Repository, tmp_path: Path, key: str
) -> None:
    codes(repo, "replace", CODES.replace(", primaryKey: true", key))
    bring(repo, tmp_path, "codes-1", [[f"{n}", str(n)] for n in range(100)])
    rows = [[f"{n}", str(n if n > 20 else -1)] for n in range(10, 104)]
    arrived = bring(repo, tmp_path, "codes-2", rows)
    expected = Effect(100, 94, 4, 11, 79, 10) if key else Effect(100, 94, 15, 0, 79, 21)
    assert arrived.effect == expected


def test_a_replacement_by_a_small_part_is_held(repo: Repository, tmp_path: Path) -> None:
    codes(repo, "replace", CODES.replace(", primaryKey: true", ""))
    bring(repo, tmp_path, "codes-1", [[f"{n}", str(n)] for n in range(300)])
    held = bring(repo, tmp_path, "codes-2", [[f"{n}", str(n)] for n in range(3)])
    assert held.arrival.held_for == "table-shrinks"
    assert "300 rows with 3" in held_error(held).message
    assert counted(repo, "codes") == 300
    accept(repo, held.arrival.change, "ben", why="the others are closed")
    assert counted(repo, "codes") == 3


@pytest.mark.parametrize("most", ["0.01", "1"])
@pytest.mark.parametrize("had", [0, 100])
@pytest.mark.parametrize("policy", ["replace", "append", "keyed"])
def test_accepting_never_publishes_an_empty_table(
    repo: Repository, tmp_path: Path, policy: str, had: int, most: str
) -> None:
    quarantine = f"\n      - {{property: maxQuarantined, value: {most}}}"
    codes(repo, policy, CODES.replace("value: POLICY}", f"value: POLICY}}{quarantine}"))
    if had:
        bring(repo, tmp_path, "codes-1", [[f"{n}", str(n)] for n in range(had)])
    before = repo.resolve(MAIN)
    arrived = bring(repo, tmp_path, "codes-2", [[f"x{n}", "no number"] for n in range(100)])
    if had and policy != "replace":
        assert (arrived.state is State.MERGED) == (most == "1")
        return
    assert arrived.state is State.HELD
    with pytest.raises(RefusedError) as refused:
        accept(repo, arrived.arrival.change, "ben", why="keep the raw rows")
    assert refused.value.kind == "empty-result"
    assert repo.resolve(MAIN) == before


MERGED = [
    ("a correction", [days(1, range(1000)), days(1, range(1000), value=1)[:5]]),
    ("late rows", [days(1, range(1000)), days(1, range(1000, 1300))]),
    ("a large correction", [days(1, range(1000)), days(1, range(1000), value=1)[:900]]),
    ("a cumulative export", [days(1, range(300)), days(1, range(300)) + days(2, range(300, 600))]),
    (
        "months in order",
        [days(month, range(month * 300, month * 300 + 300)) for month in (1, 2, 3)],
    ),
    ("an older month", [days(month, range(month * 300, month * 300 + 300)) for month in (2, 1)]),
    (
        "a month of which a few rows came early",
        [days(1, range(300)) + days(2, range(300, 310)), days(2, range(310, 600))],
    ),
    (
        "an outlier in time",
        [
            days(1, range(300)),
            [["late", "2024-01-20T00:00:00Z", "1"], *days(3, range(600, 900))],
            [["early", "1970-01-01T00:00:00Z", "1"], *days(4, range(900, 1200))],
        ],
    ),
    (
        "hours of a day",
        [
            [
                [f"{hour * 100 + n}", f"2024-01-01T{hour:02}:{n % 60:02}:00Z", "1"]
                for n in range(100)
            ]
            for hour in range(4)
        ],
    ),
]


@pytest.mark.parametrize(("what", "files"), MERGED, ids=[what for what, _ in MERGED])
def test_usual_deliveries_by_key_are_not_held(
    repo: Repository, tmp_path: Path, what: str, files: list[list[list[str]]]
) -> None:
    visits(repo, "keyed")
    for n, rows in enumerate(files):
        arrived = bring(repo, tmp_path, f"visits-{n}", rows)
        assert arrived.state is State.MERGED, f"{what}: {held_error(arrived).message}"


def test_new_keys_fewer_than_the_table_has_are_not_held(repo: Repository, tmp_path: Path) -> None:
    codes(repo, "keyed")
    for n, size in enumerate((1000, 900, 1500, 5)):
        rows = [[f"{n}-{row}", "1"] for row in range(size)]
        assert bring(repo, tmp_path, f"codes-{n}", rows).state is State.MERGED


def test_a_window_that_moves_on_is_not_held(repo: Repository, tmp_path: Path) -> None:
    visits(repo, "replace", "date")
    rows = [
        [f"{n}", f"2024-{1 + day // 28:02}-{1 + day % 28:02}", "1"]
        for day in range(120)
        for n in range(day * 10, day * 10 + 10)
    ]
    for n, start in enumerate((0, 1, 8)):
        window = rows[start * 10 : (start + 90) * 10]
        arrived = bring(repo, tmp_path, f"visits-{n}", window)
        assert arrived.state is State.MERGED, held_error(arrived).message


def test_a_replacement_by_more_of_the_same_and_a_new_period_is_not_held(
    repo: Repository, tmp_path: Path
) -> None:
    visits(repo, "replace")
    months = [whole_month(month) for month in (1, 2, 3)]
    for n, files in enumerate((months[:1], months[:2], months, months[2:] + months[1:2])):
        rows = [row for month in files for row in month]
        arrived = bring(repo, tmp_path, f"visits-{n}", rows)
        assert arrived.state is State.MERGED, held_error(arrived).message


def hour(day: int, number: int) -> list[list[str]]:
    return [[f"{day}-{number}-{n}", f"2024-01-{day:02}", "1"] for n in range(100)]


def test_of_several_files_of_a_date_only_the_first_ever_to_double_it_is_held(
    repo: Repository, tmp_path: Path
) -> None:
    visits(repo, "keyed", "date")
    held = []
    for day in (1, 2, 5):
        for number in range(4):
            arrived = bring(repo, tmp_path, f"visits-{day}-{number}", hour(day, number))
            if arrived.is_held:
                held.append((day, number))
                accept(repo, arrived.arrival.change, "ben", why="four files a day")
    assert held == [(1, 1)]
    third = [row for number in range(3) for row in hour(6, number)]
    assert bring(repo, tmp_path, "visits-6", third).state is State.MERGED
    lost = [[f"K{row[0]}", *row[1:]] if n < 90 else row for n, row in enumerate(third)]
    assert bring(repo, tmp_path, "visits-7", lost).arrival.held_for == "keys-vanish"
    spelled = [[row[0].replace("-", "/"), *row[1:]] for row in hour(6, 1)]
    assert bring(repo, tmp_path, "visits-8", spelled).arrival.held_for == "keys-vanish"
    assert bring(repo, tmp_path, "visits-9", hour(6, 3)).state is State.MERGED
    again = [[f"K{row[0]}", *row[1:]] for number in range(4) for row in hour(5, number)]
    told = bring(repo, tmp_path, "visits-again", again)
    assert told.state is State.MERGED and "As in a file that was accepted before" in told.to_text()


def shop(name: str, month: int) -> list[list[str]]:
    """Rows of one month in one of several shops, whose keys are its own."""
    return [[f"{name}-{row[0]}", *row[1:]] for row in whole_month(month)]


def test_a_file_for_each_shop_is_held_once_and_told_from_then_on(
    repo: Repository, tmp_path: Path
) -> None:
    visits(repo, "keyed")
    assert bring(repo, tmp_path, "visits-a3", shop("a", 3)).state is State.MERGED
    held = bring(repo, tmp_path, "visits-b3", shop("b", 3))
    assert held.state is State.HELD
    accept(repo, held.arrival.change, "ben", why="one file for each shop")
    assert bring(repo, tmp_path, "visits-a4", shop("a", 4)).state is State.MERGED
    told = bring(repo, tmp_path, "visits-b4", shop("b", 4))
    assert told.state is State.MERGED
    assert "As in a file that was accepted before." in told.to_text()
    half = [[f"x{row[0]}", *row[1:]] if n % 2 else row for n, row in enumerate(shop("a", 4))]
    rest = [*half, *shop("b", 4)]
    assert bring(repo, tmp_path, "visits-half", rest).arrival.held_for == "keys-vanish"
    respelled = [[row[0].upper(), *row[1:]] for row in shop("b", 4)]
    assert bring(repo, tmp_path, "visits-upper", respelled).arrival.held_for == "keys-vanish"


def test_a_table_that_grows_to_more_than_twice_its_rows_is_not_held(
    repo: Repository, tmp_path: Path
) -> None:
    codes(repo, "keyed")
    for number, count in enumerate((10, 25, 60)):
        rows = [[f"c{key:03}", "1"] for key in range(count)]
        assert bring(repo, tmp_path, f"codes-{number}", rows).state is State.MERGED
    assert counted(repo, "codes") == 60
