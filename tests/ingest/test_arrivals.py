"""What fits is merged, what does not is held, what cannot be read is recorded as refused."""

from __future__ import annotations

import gzip
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from arrival_builders import HEADER, READINGS, merge_contract, month, rows_of, state_of, write
from garbage import gc

from instep.changes import gate
from instep.changes.gate import open_change
from instep.changes.records import Kind, State, list_changes
from instep.changes.revert import undo_on_main
from instep.cli.wholeness import check
from instep.errors import InvalidError, NotFoundError, RefusedError
from instep.history.edits import Edit
from instep.history.repository import MAIN, Repository
from instep.ingest.accept import accept, refuse
from instep.ingest.arrive import ingest
from instep.ingest.arrived import Arrived, held_error
from instep.ingest.files import UNREADABLE
from instep.ingest.records import arrival_of_change
from instep.tables.content import TableContent
from instep.tables.read import data_files


@pytest.fixture
def lake(repo: Repository) -> Repository:
    merge_contract(repo, READINGS)
    return repo


def arrive(repo: Repository, file: Path, table: str | None = None) -> Arrived:
    return ingest(repo, file.parent, file, "ana", table=table)


def table_files(repo: Repository) -> list[str]:
    content = repo.content(repo.resolve(MAIN), "table/readings")
    return [file.path for file in data_files(repo.root, TableContent.from_content(content))]


def unchanged(repo: Repository, file: Path, kind: str) -> str:
    """Ingests a file that cannot be read: main stays, and it is recorded if there is one."""
    before = repo.resolve(MAIN)
    with repo.store.reading() as tx:
        known = {change.number for change in list_changes(tx)}
    with pytest.raises(InvalidError) as caught:
        arrive(repo, file)
    message = caught.value.message
    assert caught.value.kind == kind, message
    assert repo.resolve(MAIN) == before
    with repo.store.reading() as tx:
        new = [change for change in list_changes(tx) if change.number not in known]
        if kind not in UNREADABLE:
            assert new == []
            return message
        [change] = new
        arrival = arrival_of_change(tx, change.number)
    assert (change.state, change.author, change.ended_by) == (State.REFUSED, "ana", "ana")
    assert change.why and message.startswith(change.why)
    assert (arrival.file_name, arrival.held_for) == (file.name, kind)
    assert repo.objects.get(arrival.file_digest) == file.read_bytes()
    return message


def test_what_fits_is_merged_by_policy(lake: Repository, tmp_path: Path) -> None:
    arrived = arrive(lake, write(tmp_path / "readings-1.csv", month(1)))
    assert arrived.state is State.MERGED
    assert arrived.commit == lake.resolve(MAIN)
    [(rows, nulls, first)] = rows_of(
        lake, 'select count(*), count(*) - count(late), min("at")::varchar from readings'
    )
    assert (rows, nulls, first) == (400, 8, "2013-01-01 00:00:00+00")


def test_the_same_file_arrives_once(lake: Repository, tmp_path: Path) -> None:
    first = arrive(lake, write(tmp_path / "readings-1.csv", month(1)))
    again = arrive(lake, write(tmp_path / "readings-copy.csv", month(1)))
    assert again.was_here and again.arrival.change == first.arrival.change
    assert rows_of(lake, "select count(*) from readings") == [(400,)]


def test_a_file_that_is_sent_again_with_other_contents_is_noted_where_rows_are_added(
    lake: Repository, tmp_path: Path
) -> None:
    first = arrive(lake, write(tmp_path / "readings-1.csv", month(1)))
    again = arrive(lake, write(tmp_path / "readings-1.csv", month(2)))
    assert again.state is State.MERGED
    assert f"came before with other contents, as change {first.arrival.change}" in again.to_text()
    other = arrive(lake, write(tmp_path / "readings-3.csv", month(3)))
    assert "came before" not in other.to_text()


def test_a_draft_that_was_deleted_is_made_anew_when_the_file_arrives_again(
    repo: Repository, tmp_path: Path
) -> None:
    file = write(tmp_path / "trips.csv", month(1))
    held = arrive(repo, file)
    assert held.draft is not None
    held.draft.unlink()
    with pytest.raises(RefusedError, match="again for a draft"):
        accept(repo, held.arrival.change, "ana")
    again = arrive(repo, file)
    assert again.was_here and again.arrival.change == held.arrival.change
    assert held.draft.is_file()


@pytest.mark.parametrize(("policy", "taken"), [("append", 2), ("replace", 3), ("keyed", 3)])
def test_an_earlier_file_is_taken_again_only_where_somebody_says_so(
    repo: Repository, tmp_path: Path, policy: str, taken: int
) -> None:
    merge_contract(repo, READINGS.replace("value: append", f"value: {policy}"))
    first = write(tmp_path / "readings-1.csv", month(1))
    later = [[*row[:3], "777"] for row in month(1)] if policy == "keyed" else month(2)
    second = write(tmp_path / "readings-2.csv", later)
    arrived = [arrive(repo, file) for file in (first, first, second, second, first, first)]
    assert [one.was_here for one in arrived] == [False, True, False, True, True, True]
    assert arrived[-1].is_overtaken is (policy != "append")
    assert ("--again" in arrived[-1].to_text()) is (policy != "append")
    again = [ingest(repo, tmp_path, first, "ana", again=True) for _ in range(2)]
    assert sum(not one.was_here for one in (*arrived, *again)) == taken
    assert again[-1].was_here and not again[-1].is_overtaken
    [(is_first,)] = rows_of(repo, "select bool_or(\"at\" < timestamptz '2013-02-01') from readings")
    assert is_first
    if policy == "keyed":
        assert rows_of(repo, "select count(*) from readings where late = 777") == [(0,)]


@pytest.mark.parametrize("policy", ["append", "replace", "keyed"])
def test_a_file_that_waits_or_is_held_is_not_taken_twice(
    repo: Repository, tmp_path: Path, policy: str
) -> None:
    text = READINGS.replace("value: append", f"value: {policy}")
    merge_contract(repo, text, approvals=1)
    waiting = write(tmp_path / "readings-1.csv", month(1))
    held = write(tmp_path / "readings-2.csv", month(2), HEADER.replace("late", "x17"))
    for file, state in ((waiting, State.OPEN), (held, State.HELD)):
        assert arrive(repo, file).state is state
        again = arrive(repo, file)
        assert (again.was_here, again.state) == (True, state)


def test_one_file_without_a_contract_is_held_once(repo: Repository, tmp_path: Path) -> None:
    file = write(tmp_path / "trips.csv", month(1))
    meanwhile: list[Arrived] = []

    def say(text: str) -> None:
        if "drafting" in text:
            meanwhile.append(arrive(repo, file))

    held = ingest(repo, tmp_path, file, "ben", say=say)
    assert held.was_here and held.is_held
    assert held.arrival.change == meanwhile[0].arrival.change
    with repo.store.reading() as tx:
        assert len(list_changes(tx)) == 1


def test_contracts_that_a_file_cannot_fall_under_are_not_read(
    lake: Repository, tmp_path: Path
) -> None:
    merge_contract(lake, 'servers: [{path: "elsewhere-*.csv"}]\nno contract at all', "elsewhere")
    arrived = arrive(lake, write(tmp_path / "readings-1.csv", month(1)))
    assert arrived.state is State.MERGED
    with pytest.raises(InvalidError):
        arrive(lake, write(tmp_path / "elsewhere-1.csv", month(1)))


def test_bad_rows_go_to_quarantine_with_line_reason_and_raw_text(
    lake: Repository, tmp_path: Path
) -> None:
    rows = month(1)
    rows[10][2] = "9999"
    rows[20][3] = "soon"
    arrived = arrive(lake, write(tmp_path / "readings-1.csv", rows))
    assert arrived.state is State.MERGED
    assert arrived.broken == {"distance.maximum": 1, "late.type": 1}
    assert rows_of(lake, "select count(*) from readings") == [(398,)]
    assert arrived.arrival.quarantine is not None
    aside = duckdb.connect().execute(
        "select line, terms, raw->>'late', raw->>'distance' from read_parquet(?) order by line",
        [str(lake.objects.path(arrived.arrival.quarantine))],
    )
    assert aside.fetchall() == [
        (12, "distance.maximum", rows[10][3], "9999"),
        (22, "late.type", "soon", rows[20][2]),
    ]


def test_all_rows_of_a_duplicate_key_go_to_quarantine(lake: Repository, tmp_path: Path) -> None:
    rows = month(1)
    arrived = arrive(lake, write(tmp_path / "readings-1.csv", [*rows, rows[0]]))
    assert arrived.broken == {"key.unique": 2}
    later = [*month(2), rows[5]]
    arrived = arrive(lake, write(tmp_path / "readings-2.csv", later))
    assert arrived.broken == {"key.unique": 1}


def test_too_many_bad_rows_hold_the_batch(lake: Repository, tmp_path: Path) -> None:
    rows = month(1)
    for row in rows[:40]:
        row[2] = "-1"
    arrived = arrive(lake, write(tmp_path / "readings-1.csv", rows))
    assert arrived.state is State.HELD
    message = held_error(arrived).message
    assert "40 of 400 rows (10.0%) break a term, above 5 %: distance.minimum 40" in message
    assert held_error(arrived).kind == "arrival-held"
    with pytest.raises(InvalidError) as silent:
        accept(lake, arrived.arrival.change, "ben")
    assert silent.value.kind == "needs-reason"
    accepted = accept(lake, arrived.arrival.change, "ben", why="a broken sensor, known")
    assert accepted.state is State.MERGED
    assert rows_of(lake, "select count(*) from readings") == [(360,)]


def test_accepting_a_batch_without_a_good_row_says_what_came_of_it(
    lake: Repository, tmp_path: Path
) -> None:
    arrive(lake, write(tmp_path / "readings-1.csv", month(1)))
    rows = [[*row[:2], "-1", row[3]] for row in month(2)]
    held = arrive(lake, write(tmp_path / "readings-2.csv", rows))
    said = accept(lake, held.arrival.change, "ben", why="keep the raw rows").to_text()
    assert "no row into readings, merged as change 2; 400 in quarantine" in said
    assert "accepted in spite of this: 400 of 400 rows" in said
    assert "stop" not in said


def test_a_renamed_column_is_held_accepted_and_remembered(lake: Repository, tmp_path: Path) -> None:
    arrive(lake, write(tmp_path / "readings-1.csv", month(1)))
    renamed = HEADER.replace("late", "lateness_minutes")
    held = arrive(lake, write(tmp_path / "readings-2.csv", month(2), renamed))
    assert held.state is State.HELD
    assert held.arrival.held_for == "renamed-column"
    message = held_error(held).message
    assert '"late" is missing and "lateness_minutes" looks like it' in message
    number = held.arrival.change
    assert f"instep accept {number} --rename lateness_minutes=late" in message

    with pytest.raises(RefusedError) as own:
        accept(lake, number, "ana", rename={})
    assert own.value.kind == "own-arrival"
    with pytest.raises(RefusedError) as missing:
        accept(lake, number, "ben", why="never mind")
    assert missing.value.kind == "still-held"

    assert accept(lake, number, "ben", rename={}).state is State.MERGED
    assert rows_of(lake, "select count(*), count(late) from readings") == [(800, 784)]
    later = arrive(lake, write(tmp_path / "readings-3.csv", month(3), renamed))
    assert later.state is State.MERGED
    old = arrive(lake, write(tmp_path / "readings-4.csv", month(4)))
    assert old.state is State.MERGED


def test_another_unit_is_held_with_its_factor_and_refused(lake: Repository, tmp_path: Path) -> None:
    arrive(lake, write(tmp_path / "readings-1.csv", month(1)))
    rows = month(2)
    for row in rows:
        row[2] = repr(float(row[2]) * 1.609344)
    held = arrive(lake, write(tmp_path / "readings-2.csv", rows))
    assert held.arrival.held_for == "unit-factor"
    assert (
        "distance: every quantile is 1.609 times the nearest accepted batch: kilometres instead of "
        "miles?" in held_error(held).message
    )
    refuse(lake, held.arrival.change, "ben", "kilometres")
    assert state_of(lake, held.arrival.change) == "refused"
    assert rows_of(lake, "select count(*) from readings") == [(400,)]
    assert arrive(lake, write(tmp_path / "readings-2b.csv", month(2))).state is State.MERGED


def test_a_unit_is_named_even_where_its_values_break_their_terms(
    lake: Repository, tmp_path: Path
) -> None:
    arrive(lake, write(tmp_path / "readings-1.csv", month(1)))
    for name, column, factor in (("a", 2, 1000), ("b", 3, 1 / 60)):
        rows = month(2)
        for row in rows:
            row[column] = row[column] if row[column] == "NA" else repr(float(row[column]) * factor)
        held = arrive(lake, write(tmp_path / f"readings-2{name}.csv", rows))
        assert held.arrival.held_for == "unit-factor"
        assert "every quantile is" in held_error(held).message
        assert held.arrival.quarantined > 100


def test_a_missing_column_is_held_and_can_be_mapped_by_hand(
    lake: Repository, tmp_path: Path
) -> None:
    file = write(tmp_path / "readings-1.csv", month(1), HEADER.replace("late", "x17"))
    held = arrive(lake, file)
    assert held.arrival.held_for == "missing-column"
    with pytest.raises(InvalidError) as unnamed:
        accept(lake, held.arrival.change, "ben", rename={})
    assert unnamed.value.kind == "no-rename"
    with pytest.raises(InvalidError) as wrong:
        accept(lake, held.arrival.change, "ben", rename={"x17": "later"})
    assert wrong.value.kind == "bad-rename"
    accepted = accept(lake, held.arrival.change, "ben", rename={"x17": "late"})
    assert accepted.state is State.MERGED


def test_an_unknown_column_is_told_and_not_stored(lake: Repository, tmp_path: Path) -> None:
    rows = [[*row, "extra"] for row in month(1)]
    arrived = arrive(lake, write(tmp_path / "readings-1.csv", rows, f"{HEADER},note"))
    assert arrived.state is State.MERGED
    assert [finding.kind for finding in arrived.findings] == ["unknown-column"]


def test_a_file_without_a_contract_drafts_one_and_is_held(repo: Repository, tmp_path: Path) -> None:
    file = write(tmp_path / "My Trips-2013.csv", month(1))
    held = arrive(repo, file)
    assert held.arrival.held_for == "no-contract"
    assert held.draft == tmp_path / "contracts" / "my_trips_2013.yaml"
    draft = held.draft.read_text()
    assert f"instep accept {held.arrival.change}" in held_error(held).message
    with pytest.raises(RefusedError):
        accept(repo, held.arrival.change, "ben")
    merge_contract(repo, draft, "my_trips_2013")
    again = arrive(repo, file)
    assert again.state is State.MERGED
    assert state_of(repo, held.arrival.change) == "refused"
    [(rows, late)] = rows_of(repo, "select count(*), sum(late) from my_trips_2013", "my_trips_2013")
    assert rows == 400 and isinstance(late, int)


def test_a_held_file_without_a_contract_is_accepted_after_it_has_one(
    repo: Repository, tmp_path: Path
) -> None:
    held = arrive(repo, write(tmp_path / "trips.csv", month(1)))
    assert held.draft is not None
    merge_contract(repo, held.draft.read_text(), "trips")
    assert accept(repo, held.arrival.change, "ben").state is State.MERGED


def test_unreadable_files_are_refused_with_a_record(lake: Repository, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.csv", month(1)).read_bytes()
    packed = gzip.compress(whole)

    def file(name: str, data: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    unchanged(lake, tmp_path / "readings-none.csv", "missing-file")
    unchanged(lake, file("readings-empty.csv", b""), "empty-file")
    unchanged(lake, file("readings-header.csv", HEADER.encode()), "no-rows")
    unchanged(lake, file("readings-header2.csv", HEADER.encode() + b"\n"), "no-rows")
    unchanged(lake, file("readings-cut.csv", whole[: len(whole) // 2 - 6]), "truncated-file")
    unchanged(lake, file("readings-quote.csv", whole + b'A,"2013'), "truncated-file")
    unchanged(lake, file("readings-cut.csv.gz", packed[:-40]), "truncated-file")
    unchanged(lake, file("readings-latin.csv", whole + "Ä,x,1,2\n".encode("latin-1")),
              "wrong-encoding")  # fmt: skip
    unchanged(lake, file("readings-utf16.csv", whole.decode().encode("utf-16")), "wrong-encoding")
    unchanged(lake, file("readings-wide.csv", b"station,at\nA,2013-01-01,3\nA,1\n"), "bad-row")
    unchanged(lake, file("readings-twice.csv", b"station,Station\nA,B\n"), "bad-header")
    unchanged(lake, file("readings-parquet.csv", b"PAR1xxxxPAR1"), "wrong-format")


def test_another_delimiter_than_the_contract_says_is_named(
    lake: Repository, tmp_path: Path
) -> None:
    whole = write(tmp_path / "whole.csv", month(1)).read_text()
    file = tmp_path / "readings-1.csv"
    file.write_text(whole.replace(",", ";").replace("00Z;1", "00Z;1,5"))
    assert "by ';': expected ','" in unchanged(lake, file, "wrong-delimiter")


WORDS = "town;degrees\nKöln;1\nZürich;2\n"


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "windows-1252", "utf-8"])
def test_the_encoding_of_a_first_file_is_seen_drafted_and_read(
    repo: Repository, tmp_path: Path, encoding: str
) -> None:
    file = tmp_path / "towns.csv"
    words = WORDS if encoding == "latin-1" else WORDS.replace("Zürich", "Zürich – „See“")
    file.write_bytes(words.encode(encoding))
    held = arrive(repo, file)
    draft = (tmp_path / "contracts" / "towns.yaml").read_text()
    assert ("not UTF-8" in held_error(held).message) == (encoding != "utf-8")
    assert (f"value: {encoding}" in draft) == (encoding != "utf-8")
    merge_contract(repo, draft, "towns")
    assert accept(repo, held.arrival.change, "ben").state is State.MERGED
    assert rows_of(repo, "select town from towns order by degrees", "towns") == [
        ("Köln",),
        ("Zürich" if encoding == "latin-1" else "Zürich – „See“",),
    ]


def test_the_encoding_of_a_packed_file_is_that_of_what_it_holds(
    repo: Repository, tmp_path: Path
) -> None:
    file = tmp_path / "towns.csv.gz"
    file.write_bytes(gzip.compress(WORDS.encode("latin-1")))
    assert "read as latin-1" in held_error(arrive(repo, file)).message


def test_a_first_file_in_no_known_encoding_is_told_so(repo: Repository, tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_bytes(b"item,price\nbread,2 \x81\n")
    assert "neither UTF-8, UTF-16, Latin-1 nor Windows-1252" in unchanged(
        repo, file, "wrong-encoding"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("odd.jsonl", '{"a": 1, "b": {"c": [1, 2]}}\n{"a": 2}\n'),
        ("odd.json", '[\n  {"a": 1}\n]\n'),
        ("odd.csv", '[{"a": 1}]'),
    ],
)
def test_a_first_file_of_json_is_told_so(
    repo: Repository, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidError, match="is JSON") as caught:
        arrive(repo, tmp_path / name)
    assert caught.value.kind == "wrong-format"


def test_a_file_name_in_other_letters_needs_a_table(repo: Repository, tmp_path: Path) -> None:
    file = tmp_path / "продажи.csv"
    file.write_text("a,b\n1,2\n")
    assert "--table" in unchanged(repo, file, "no-table-name")
    assert arrive(repo, file, "sales").arrival.table == "sales"


def test_a_cut_inside_the_last_value_is_noticed(lake: Repository, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.csv", month(1)).read_text()
    cut = tmp_path / "readings-cut.csv"
    head = whole.rstrip("\n").rsplit(",", 2)[0]
    cut.write_text(f"{head},12,-")
    unchanged(lake, cut, "truncated-file")


def test_gzip_and_a_byte_order_mark_are_read(lake: Repository, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.csv", month(1)).read_bytes()
    path = tmp_path / "readings-1.csv.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + whole.replace(b"\n", b"\r\n")))
    assert arrive(lake, path).state is State.MERGED


PARQUET = READINGS.replace("readings-*.csv", "readings-*.parquet").replace(
    "    format: csv\n    customProperties:\n      - {property: nullMarker, value: NA}\n",
    "    format: parquet\n",
)


def test_nan_in_parquet_lies_in_no_range_whoever_wrote_it(repo: Repository, tmp_path: Path) -> None:
    """Others' footers leave NaN out of the bounds by which DuckDB reads."""
    merge_contract(repo, PARQUET)
    at = datetime(2013, 1, 1, tzinfo=UTC)
    rows = pa.table(
        {
            "station": ["A"] * 100,
            "at": [at + timedelta(hours=n) for n in range(100)],
            "distance": [math.nan if n == 7 else float(n) for n in range(100)],
            "late": [1] * 100,
        }
    )
    pq.write_table(rows, tmp_path / "readings-1.parquet")

    arrived = arrive(repo, tmp_path / "readings-1.parquet")

    assert arrived.broken == {"distance.minimum": 1, "distance.maximum": 1}
    assert rows_of(repo, "select count(*), max(distance) from readings") == [(99, 99.0)]


def test_parquet_arrives_with_its_own_types(repo: Repository, tmp_path: Path) -> None:
    merge_contract(repo, PARQUET)
    file = tmp_path / "readings-1.parquet"
    duckdb.connect().execute(
        "copy (select 'A' as station, timestamptz '2013-01-01 00:00:00+00' + to_hours(i::int) as "
        "at, i::integer as distance, case when i = 7 then 1.5 else i end as late "
        f"from range(400) t(i)) to '{file}' (format parquet)"
    )
    arrived = arrive(repo, file)
    assert arrived.state is State.MERGED
    assert arrived.broken == {"late.type": 1}
    cut = tmp_path / "readings-2.parquet"
    cut.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(InvalidError) as caught:
        arrive(repo, cut)
    assert caught.value.kind == "truncated-file"
    damaged = bytearray(file.read_bytes())
    damaged[40:400] = bytes(360)
    cut.write_bytes(damaged)
    with pytest.raises(InvalidError) as caught:
        arrive(repo, cut)
    assert caught.value.kind == "truncated-file"


def test_no_number_is_set_aside_and_does_not_break_the_profile(
    lake: Repository, tmp_path: Path
) -> None:
    rows = month(1)
    for index, text in enumerate(("nan", "inf", "-Infinity", "1e400")):
        rows[index][2] = text
    rows[4][3] = "5.0000000001"
    arrived = arrive(lake, write(tmp_path / "readings-1.csv", rows))
    assert arrived.state is State.MERGED
    assert arrived.broken == {"distance.type": 4, "late.type": 1}
    assert rows_of(lake, "select count(*), bool_and(isfinite(distance)) from readings") == [
        (395, True)
    ]


def test_times_that_no_other_reader_knows_are_set_aside(lake: Repository, tmp_path: Path) -> None:
    merge_contract(
        lake, READINGS.replace("name: late, logicalType: integer", "name: late, logicalType: time")
    )
    rows = [[*row[:3], "12:00:00"] for row in month(1)]
    rows[0][3] = "24:00:00"
    rows[1][1], rows[2][1] = "infinity", "-infinity"

    arrived = arrive(lake, write(tmp_path / "readings-1.csv", rows))

    assert arrived.broken == {"late.type": 1, "at.type": 2}
    assert arrived.state is State.MERGED


@pytest.mark.parametrize(("policy", "rows"), [("replace", 400), ("keyed", 470)])
def test_a_table_is_replaced_or_updated_by_key(
    repo: Repository, tmp_path: Path, policy: str, rows: int
) -> None:
    merge_contract(repo, READINGS.replace("value: append", f"value: {policy}"))
    first = month(1)
    arrive(repo, write(tmp_path / "readings-1.csv", first))
    second = [[*row[:3], "777"] for row in first[:330]] + month(2)[:70]
    assert arrive(repo, write(tmp_path / "readings-2.csv", second)).state is State.MERGED
    found = rows_of(repo, "select count(*), count(*) filter (late = 777) from readings")
    assert found == [(rows, 330)]


def test_rows_by_key_leave_files_without_their_keys_as_they_are(
    repo: Repository, tmp_path: Path
) -> None:
    merge_contract(repo, READINGS.replace("value: append", "value: keyed"))
    for number in (1, 2):
        arrive(repo, write(tmp_path / f"readings-{number}.csv", month(number)))
    first, second = table_files(repo)
    arrive(repo, write(tmp_path / "readings-3.csv", [[*month(2)[5][:3], "777"]]))
    assert first in table_files(repo)
    assert second not in table_files(repo)
    found = rows_of(repo, "select count(*), count(*) filter (late = 777) from readings")
    assert found == [(800, 1)]


def test_a_file_none_of_whose_rows_fits_takes_no_row_by_key(
    repo: Repository, tmp_path: Path
) -> None:
    merge_contract(repo, READINGS.replace("value: append", "value: keyed"))
    arrive(repo, write(tmp_path / "readings-1.csv", month(1)))
    wrong = [[*row[:2], "-1", row[3]] for row in month(2)]
    held = arrive(repo, write(tmp_path / "readings-2.csv", wrong))
    accepted = accept(repo, held.arrival.change, "ben", why="Keep the raw rows.")
    assert accepted.state is State.MERGED
    assert rows_of(repo, "select count(*) from readings") == [(400,)]


def test_a_derived_table_takes_no_file(repo: Repository, tmp_path: Path) -> None:
    merge_contract(repo, READINGS.replace("value: append", "value: derived"))
    with pytest.raises(InvalidError) as caught:
        arrive(repo, write(tmp_path / "readings-1.csv", month(1)))
    assert caught.value.kind == "derived-table"


def test_a_file_of_two_contracts_needs_a_table(lake: Repository, tmp_path: Path) -> None:
    merge_contract(lake, READINGS.replace("name: readings", "name: others"), "others")
    file = write(tmp_path / "readings-1.csv", month(1))
    with pytest.raises(InvalidError) as caught:
        arrive(lake, file)
    assert caught.value.kind == "ambiguous-file"
    assert arrive(lake, file, "others").arrival.table == "others"


def test_only_a_held_arrival_is_decided_about(lake: Repository, tmp_path: Path) -> None:
    number = arrive(lake, write(tmp_path / "readings-1.csv", month(1))).arrival.change
    with pytest.raises(RefusedError) as merged:
        accept(lake, number, "ben")
    assert merged.value.kind == "not-held"
    with lake.store.transaction() as tx:
        base = lake.resolve(MAIN)
        other = open_change(
            tx,
            lake,
            kind=Kind.PROJECT,
            title="no arrival",
            edit=Edit(base, {}, "ana", "no arrival", "test"),
            evidence={},
        )
    with pytest.raises(NotFoundError) as caught:
        accept(lake, other.number, "ben")
    assert caught.value.kind == "no-such-arrival"


def test_the_file_of_a_refused_arrival_goes_and_may_be_brought_again(
    lake: Repository, tmp_path: Path
) -> None:
    rows = month(1)
    for row in rows[:40]:
        row[2] = "-1"
    held = arrive(lake, write(tmp_path / "readings-1.csv", rows))
    digest = held.arrival.file_digest
    for _ in range(2):
        gc(lake)
    assert lake.objects.has(digest)
    refuse(lake, held.arrival.change, "ben", "not ours")
    for _ in range(2):
        gc(lake)
    assert not lake.objects.has(digest)
    check(lake)
    again = arrive(lake, write(tmp_path / "readings-1.csv", rows))
    assert (again.was_here, again.state) == (False, State.HELD)
    assert lake.objects.has(digest)


def test_an_arrival_is_undone_under_a_later_one_and_its_file_comes_again(
    lake: Repository, tmp_path: Path
) -> None:
    first = arrive(lake, write(tmp_path / "readings-1.csv", month(1)))
    arrive(lake, write(tmp_path / "readings-2.csv", month(2)))
    both = len(rows_of(lake, "SELECT * FROM readings"))
    assert first.commit is not None
    undone = undo_on_main(lake, first.commit, (), author="ana", why="wrong", say=lambda text: None)
    assert undone.proposal is not None
    number = undone.proposal.change.number
    with lake.store.transaction() as tx:
        gate.approve(tx, lake, number, "ben")
        back = gate.merge(tx, lake, number, "ana").commit
    assert len(rows_of(lake, "SELECT * FROM readings")) == both - first.arrival.rows
    again = arrive(lake, write(tmp_path / "readings-1.csv", month(1)))
    assert (again.was_here, again.state) == (False, State.MERGED)
    assert len(rows_of(lake, "SELECT * FROM readings")) == both
    assert back.id != again.commit
