"""A draft loses nothing of a value and says so, however many columns a file has."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from arrival_builders import merge_contract, rows_of

from instep.changes.records import State
from instep.contracts.infer import guess_columns
from instep.history.repository import Repository
from instep.ingest.arrive import ingest
from instep.ingest.arrived import Arrived, held_error
from instep.ingest.quarantine import quarantined_rows


def drafted(repo: Repository, file: Path) -> tuple[str, str]:
    """Returns the draft of a first file, and what was told of it."""
    held = ingest(repo, file.parent, file, "ana")
    assert held.draft is not None
    return held.draft.read_text(), held_error(held).message


def taken(repo: Repository, file: Path) -> Arrived:
    """Lets a file arrive twice: its draft is merged in between as it is."""
    text, _ = drafted(repo, file)
    merge_contract(repo, text, file.stem)
    return ingest(repo, file.parent, file, "ana")


def kinds(values: list[str]) -> tuple[str, str]:
    """Returns the Iceberg type a column of these texts is drafted as, and why."""
    connection = duckdb.connect()
    connection.execute("CREATE TABLE t AS SELECT unnest(?::VARCHAR[]) AS a", [values])
    [guess] = guess_columns(connection, "t", {"a": "VARCHAR"})
    return guess.type, guess.why


@pytest.mark.parametrize(
    ("values", "kind", "why"),
    [
        (["0", "-3", "+7"], "long", ""),
        (["0.5", "0", "-0.3", "1e5"], "double", ""),
        (["00731", "1002"], "string", "a: text, 1 value begins with 0"),
        (["007", "0.5", "00.5"], "string", "a: text, 2 values begin with 0"),
        (["-9223372036854775808", "9223372036854775807"], "long", ""),
        (["9223372036854775808", "1"], "decimal(38,0)", "a: decimal(38,0), beyond what 64 bits"),
        (["9" * 38, f"-{'9' * 38}"], "decimal(38,0)", "a: decimal(38,0), beyond what 64 bits"),
        (["9" * 39, "1"], "string", "a: text, 1 number has more digits"),
        (["9007199254740993", "0.5"], "string", "a: text, 1 number has more digits"),
        (["9007199254740992", "0.5"], "double", ""),
        (["1_000", "2"], "string", ""),
        (["2020-01-01", "2020-01-02"], "date", ""),
        (["true", "False"], "boolean", ""),
    ],
)
def test_a_text_column_is_drafted_as_a_type_that_keeps_every_value(
    values: list[str], kind: str, why: str
) -> None:
    drafted_as, told = kinds(values)
    assert drafted_as == kind
    assert told.startswith(why) and bool(told) == bool(why)


def test_digits_that_a_number_would_lose_arrive_as_they_were_written(
    repo: Repository, tmp_path: Path
) -> None:
    file = tmp_path / "trips.csv"
    file.write_text(f"trip_id,seat,code\n00731,9223372036854775808,{'9' * 39}\n00732,1,2\n")
    text, told = drafted(repo, file)
    for fact in ("trip_id: text, 2 values begin with 0", "seat: decimal(38,0)", "code: text"):
        assert fact in told and fact in text
    merge_contract(repo, text, "trips")
    assert ingest(repo, tmp_path, file, "ana").state is State.MERGED
    assert rows_of(repo, "select trip_id, seat, code from trips order by seat desc", "trips") == [
        ("00731", Decimal(9223372036854775808), "9" * 39),
        ("00732", Decimal(1), "2"),
    ]


def test_whole_numbers_that_a_column_cannot_hold_go_to_quarantine(
    repo: Repository, tmp_path: Path
) -> None:
    file = tmp_path / "sums.csv"
    file.write_text("a,b\n1,0.5\n")
    merge_contract(repo, drafted(repo, file)[0].replace("append}", "append}\n      - {property: "
                   "maxQuarantined, value: 1}"), "sums")  # fmt: skip
    file.write_text(
        "a,b\n9223372036854775808,1\n9223372036854775807,9007199254740993\n2,9007199254740992\n"
    )
    arrived = ingest(repo, tmp_path, file, "ana")
    assert arrived.broken == {"a.type": 1, "b.type": 1}
    assert rows_of(repo, "select a, b from sums", "sums") == [(2, 9007199254740992.0)]


def test_nanoseconds_and_unsigned_numbers_of_parquet_have_types_of_their_own(
    repo: Repository, tmp_path: Path
) -> None:
    file = tmp_path / "events.parquet"
    table = pa.table(
        {
            "at": pa.array([1_000, None], pa.timestamp("ns")),
            "zoned": pa.array([1_000, 2_000], pa.timestamp("ns", "UTC")),
            "fine": pa.array([1_001, 2_000], pa.timestamp("ns")),
            "day": pa.array([3_600_000_000_000, 0], pa.time64("ns")),
            "u8": pa.array([1, 255], pa.uint8()),
            "u16": pa.array([1, 65_535], pa.uint16()),
            "u32": pa.array([1, 2**32 - 1], pa.uint32()),
            "u64": pa.array([1, 2**64 - 1], pa.uint64()),
            "price": pa.array([Decimal("1.10"), Decimal("12345678901234567.89")]),
        }
    )
    pq.write_table(table, file)
    assert taken(repo, file).state is State.MERGED
    found = rows_of(
        repo,
        "select typeof(columns(*)) from events limit 1",
        "events",
    )
    assert found == [
        ("TIMESTAMP WITH TIME ZONE", "TIMESTAMP WITH TIME ZONE", "VARCHAR", "TIME", "BIGINT",
         "BIGINT", "BIGINT", "DECIMAL(20,0)", "DECIMAL(19,2)")
    ]  # fmt: skip
    assert rows_of(
        repo,
        "select u32, u64, price, fine, zoned::varchar from events order by u8 desc limit 1",
        "events",
    ) == [
        (
            2**32 - 1,
            Decimal(2**64 - 1),
            Decimal("12345678901234567.89"),
            "1970-01-01 00:00:00.000002",
            "1970-01-01 00:00:00.000002+00",
        )
    ]


def test_hundreds_of_columns_arrive_by_their_draft(repo: Repository, tmp_path: Path) -> None:
    file = tmp_path / "wide.csv"
    names = [f"c{number}" for number in range(600)]
    rows = [[str(number * row) for number in range(600)] for row in range(1, 11)]
    file.write_text("\n".join(",".join(row) for row in [names, *rows]) + "\n")
    assert taken(repo, file).state is State.MERGED
    assert rows_of(repo, "select sum(c0), sum(c7), sum(c599) from wide", "wide") == [
        (0, 7 * 55, 599 * 55)
    ]
    rows[3][5], rows[3][7] = "many", ""
    file.write_text("\n".join(",".join(row) for row in [names, *rows]) + "\n")
    held = ingest(repo, tmp_path, file, "ana")
    assert (held.state, held.broken) == (State.HELD, {"c5.type": 1})
    [row] = quarantined_rows(repo, held.arrival.change)
    assert (row.line, row.terms) == (5, "c5.type")
    assert json.loads(row.raw) == {**dict(zip(names, rows[3], strict=True)), "c7": None}


def test_a_null_marker_is_drafted_only_where_the_other_values_are_no_text(
    repo: Repository, tmp_path: Path
) -> None:
    file = tmp_path / "people.csv"
    file.write_text("iso2,surname\nDE,Null\nNA,NULL\nFR,N/A\nZA,null\n")
    text, told = drafted(repo, file)
    assert "nullMarker" not in text and "null" not in told
    assert "never null, 4 different values" in text
    merge_contract(repo, text, "people")
    assert ingest(repo, tmp_path, file, "ana").state is State.MERGED
    assert rows_of(repo, "select iso2, surname from people", "people") == [
        ("DE", "Null"), ("NA", "NULL"), ("FR", "N/A"), ("ZA", "null"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "logical"),
    [
        (["1", "22"], "integer"),
        (["0.5", "2"], "number"),
        (["2020-01-01", "2020-01-02"], "date"),
        (["2020-01-01 10:00:00", "2020-01-02 11:00:00"], "timestamp"),
        (["true", "false"], "boolean"),
    ],
)
@pytest.mark.parametrize("marker", ["NA", "N/A", "NULL", "null"])
def test_what_a_marker_makes_null_is_counted_alike_in_the_draft_and_in_the_table(
    repo: Repository, tmp_path: Path, values: list[str], logical: str, marker: str
) -> None:
    file = tmp_path / "seen.csv"
    first, second = values
    file.write_text(f'a,code\n{first},DE\n{marker},{marker}\n{second},FR\n"",\n')
    text, told = drafted(repo, file)
    assert f"{{property: nullMarker, value: {json.dumps([marker])}}}" in text
    assert f"logicalType: {logical}\n        # seen: null in 2 of 4 rows, 2 different" in text
    assert "logicalType: string\n        # seen: null in 2 of 4 rows, 2 different" in text
    lost = f'code: "{marker}" stands in 1 row, which becomes null, as it means null in a'
    assert lost in told and f"# {lost}" in text
    merge_contract(repo, text, "seen")
    assert ingest(repo, tmp_path, file, "ana").state is State.MERGED
    nulls = "select count(*) - count(a), count(*) - count(code) from seen"
    assert rows_of(repo, nulls, "seen") == [(2, 2)]


def test_a_text_column_loses_only_the_markers_that_other_columns_need(
    repo: Repository, tmp_path: Path
) -> None:
    file = tmp_path / "several.csv"
    file.write_text("n,d,code,other\n1,NULL,NA,NA\nNA,2020-01-01,NULL,NA\nNA,2020-01-02,null,NA\n")
    text, told = drafted(repo, file)
    assert 'nullMarker, value: ["NA", "NULL"]' in text
    assert 'code: "NA" stands in 1 row, which becomes null, as it means null in n' in told
    assert 'code: "NULL" stands in 1 row, which becomes null, as it means null in d' in told
    assert 'other: "NA" stands in 3 rows, which become null, as it means null in n' in told
    merge_contract(repo, text, "several")
    assert ingest(repo, tmp_path, file, "ana").state is State.MERGED
    assert rows_of(repo, "select n, d, code, other from several", "several") == [
        (1, None, None, None),
        (None, date(2020, 1, 1), None, None),
        (None, date(2020, 1, 2), "null", None),
    ]


def test_the_texts_of_a_parquet_file_are_no_markers(repo: Repository, tmp_path: Path) -> None:
    file = tmp_path / "coded.parquet"
    pq.write_table(pa.table({"a": ["1", "NA"], "b": [1, None]}), file)
    text, _ = drafted(repo, file)
    assert "seen: never null, 2 different values" in text and "nullMarker" not in text
    merge_contract(repo, text, "coded")
    assert ingest(repo, tmp_path, file, "ana").state is State.MERGED
    assert rows_of(repo, "select a from coded", "coded") == [("1",), ("NA",)]


def test_what_parquet_knows_of_its_values_and_a_contract_does_not_is_told(
    repo: Repository, tmp_path: Path
) -> None:
    file = tmp_path / "calls.parquet"
    table = pa.table(
        {
            "took": pa.array([90, 91], pa.duration("s")),
            "waited": pa.array([90, 91], pa.duration("ns")),
            "tags": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
            "at": pa.array([1, 2], pa.timestamp("us")),
            "zoned": pa.array([1, 2], pa.timestamp("us", "UTC")),
            "deep": [{"at": datetime(2020, 1, 1), "n": 1}, None],
            "name": pa.array(["é\\".encode(), b"b"]),
            "photo": pa.array([b"\xff\xd8", None]),
            "within": [[b"\xff"], []],
            "maps": pa.array([[], None], pa.list_(pa.map_(pa.string(), pa.int64()))),
            "n": [1, 2],
        }
    )
    pq.write_table(table, file)
    text, told = drafted(repo, file)
    for why in (
        "took: duration in seconds, as an integer",
        "waited: duration in nanoseconds, as an integer",
        "tags: text, as a contract has no type for a map",
        "at: times without a zone, read as UTC",
        "deep: times without a zone within it, read as UTC",
        "name: text, of bytes that are UTF-8",
        "photo: left out, as a contract has no type for bytes",
        "within: left out, as a contract has no type for the bytes within it",
        "maps: left out, as a contract has no type for the maps within it",
    ):
        assert why in told and f"# {why}" in text
    assert "zoned: " not in told and "n: " not in told.replace("within: ", "")
    merge_contract(repo, text, "calls")
    arrived = ingest(repo, tmp_path, file, "ana")
    assert arrived.state is State.MERGED
    unknown = [one.subject for one in arrived.findings if one.kind == "unknown-column"]
    assert unknown == ["table/calls.photo", "table/calls.within", "table/calls.maps"]
    found = rows_of(repo, 'select took, waited, "at"::varchar, name from calls order by n', "calls")
    assert found == [
        (90, 90, "1970-01-01 00:00:00.000001+00", "é\\"),
        (91, 91, "1970-01-01 00:00:00.000002+00", "b"),
    ]


def test_bytes_are_text_only_where_they_are_utf_8(repo: Repository, tmp_path: Path) -> None:
    file = tmp_path / "names.parquet"
    pq.write_table(pa.table({"name": pa.array([b"a", None]), "n": [1, 2]}), file)
    text, _ = drafted(repo, file)
    merge_contract(repo, text.replace("append}", "append}\n      - {property: maxQuarantined, "
                   "value: 1}"), "names")  # fmt: skip
    names = pa.array(["é".encode(), b"\xff", b"\\xFF", None])
    pq.write_table(pa.table({"name": names, "n": [1, 2, 3, 4]}), file)
    assert ingest(repo, tmp_path, file, "ana").broken == {"name.type": 1}
    rows = "select name, n from names order by n"
    assert rows_of(repo, rows, "names") == [("é", 1), ("\\xFF", 3), (None, 4)]
