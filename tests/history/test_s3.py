"""Files on S3: they walk like a path, and a store in trouble publishes nothing by half."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from buckets import Bucket
from lakes import fill_lake
from storm import Fault, Storm, storm

from instep.cli.backup import back_up
from instep.cli.wholeness import check
from instep.clock import system_clock
from instep.engines.duckdb import DuckDB
from instep.engines.engine import DeleteFile
from instep.engines.schema import Column, Schema
from instep.errors import InstepError, NotFoundError, RefusedError, UnavailableError
from instep.history import places, s3_requests
from instep.history.objects import ERASED, Objects, file_digest, write_all_durably, write_durably
from instep.history.places import at_hand, here, linked, on_s3, s3_root
from instep.history.repository import create_repository
from instep.history.s3 import S3Path, check_bucket
from instep.history.s3_requests import STREAM_ATTEMPTS
from instep.history.store import Database
from instep.tables.content import TableContent
from instep.tables.read import data_files, file_set, row_count, schema_of
from instep.tables.write import append, create_table, data_folder, replace

PUTS_OF_AN_APPEND = 6
"""The data file, the manifest, the manifest list, a copy of each, the metadata."""

ICEBERG_KEYS = {"s3.access-key-id": "tester", "s3.secret-access-key": "not-checked"}
AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def weather(s3_url: str) -> Iterator[Storm]:
    with storm(s3_url) as found:
        yield found


@pytest.fixture
def place(bucket: Bucket, weather: Storm, tmp_path: Path) -> Path:
    """A lake's root whose every request goes through the weather."""
    return bucket.root(tmp_path / "here", weather.url)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits half a second where half a minute is waited, and tries twice: to be done sooner."""
    monkeypatch.setattr(s3_requests, "READ_WAIT_S", 0.5)
    monkeypatch.setattr(s3_requests, "ATTEMPTS", 2)


@pytest.fixture
def attempts(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often a request is made in a test's `fault`: twice where clients pause the longest."""
    if fault is Fault.THROTTLED:
        monkeypatch.setattr(s3_requests, "ATTEMPTS", 2)
    return s3_requests.ATTEMPTS


def test_a_place_on_s3_walks_like_a_path(bucket: Bucket, tmp_path: Path) -> None:
    root = bucket.root(tmp_path)
    path = root / "tables" / "t" / "data" / "one.parquet"
    assert str(path) == f"s3://{bucket.name}/lake/tables/t/data/one.parquet"
    assert (path.name, path.stem, str(path.parent)) == (
        "one.parquet",
        "one",
        f"{root}/tables/t/data",
    )
    assert root / str(path) == path
    assert root / "/staging/one" == Path("/staging/one")
    assert path.relative_to(root).as_posix() == "tables/t/data/one.parquet"
    assert not (root / "tables2").is_relative_to(root / "tables")
    assert here(path) == tmp_path / "tables/t/data/one.parquet"
    with pytest.raises(TypeError):
        os.fspath(path)
    with pytest.raises(FileNotFoundError):
        path.stat()
    for name in ("one.parquet", "two.parquet"):
        write_durably(path.with_name(name), name.encode())
    write_durably(root / "tables/t/metadata/x.json", b"{}")
    assert path.read_bytes() == b"one.parquet"
    assert [one.name for one in path.parent.iterdir()] == ["one.parquet", "two.parquet"]
    assert [one.name for one in (root / "tables/t").iterdir()] == ["data", "metadata"]
    assert {one.name for one in root.rglob("*")} == {"one.parquet", "two.parquet", "x.json"}
    assert [one.name for one in root.glob("tables/*/meta*")] == ["metadata"]
    assert path.parent.is_dir()
    assert not path.is_dir()
    path.unlink()
    assert not path.exists()


def test_a_field_id_is_taken_once(place: Path) -> None:
    (place / "column-7").touch(exist_ok=False)
    with pytest.raises(FileExistsError):
        (place / "column-7").touch(exist_ok=False)


def test_a_lost_reply_to_a_claim_counts_as_taken(place: Path, weather: Storm) -> None:
    weather.faults["PUT"] = [Fault.LOST]
    with pytest.raises(FileExistsError):
        (place / "column-8").touch(exist_ok=False)


@pytest.mark.parametrize("fault", [Fault.FAILS, Fault.THROTTLED, Fault.LOST])
def test_a_store_that_recovers_is_not_noticed(
    place: Path, weather: Storm, fault: Fault, attempts: int
) -> None:
    weather.faults = {"PUT": [fault] * (attempts - 1), "HEAD": [fault], "GET": [fault]}
    blobs = Objects(place / "objects")
    digest = blobs.put(b"as it was")
    (file,) = blobs.files(digest)
    here(file).unlink()
    assert blobs.get(digest) == b"as it was"


def test_a_reply_that_breaks_off_is_read_again(place: Path, weather: Storm) -> None:
    write_durably(place / "note", b"x" * 10_000)
    weather.faults["GET"] = [Fault.CUT, Fault.CUT]
    assert (place / "note").read_bytes() == b"x" * 10_000
    here(place / "note").unlink()
    weather.faults["GET"] = [Fault.CUT, Fault.CUT]
    assert at_hand(place / "note").read_bytes() == b"x" * 10_000


def test_a_stream_whose_reply_breaks_off_is_whole_and_leaves_no_file_here(
    place: Path, weather: Storm
) -> None:
    digest = Objects(place / "objects").put(b"x" * 100_000)
    (file,) = Objects(place / "objects").files(digest)
    here(file).unlink()
    weather.faults["GET"] = [Fault.CUT, Fault.CUT]
    with file.open("rb") as stream:
        assert stream.read() == b"x" * 100_000
    weather.faults["GET"] = [Fault.CUT]
    assert file_digest(file) == digest
    assert weather.faults["GET"] == []
    assert not [one for one in here(place).rglob("*") if one.is_file()]


def test_a_reply_that_breaks_off_is_no_damage_to_doctor_and_backup(
    place: Path, weather: Storm, postgres_url: str, bucket: Bucket, tmp_path: Path
) -> None:
    repo = create_repository(place, system_clock, "ana", Database(postgres_url, bucket.schema))
    fill_lake(repo)
    for act in (lambda: check(repo), lambda: back_up(repo, tmp_path / "backup")):
        weather.faults["GET"] = [None if number % 3 else Fault.CUT for number in range(60)]
        act()
        assert len(weather.faults["GET"]) < 60
    repo.store.close()


@pytest.mark.parametrize(
    ("fault", "kind", "family"),
    [
        (Fault.FAILS, "bucket-failed", UnavailableError),
        (Fault.THROTTLED, "bucket-throttled", UnavailableError),
        (Fault.LOST, "bucket-unreachable", UnavailableError),
        (Fault.DENIED, "bucket-access-denied", RefusedError),
    ],
)
def test_a_store_that_does_not_recover_is_named(
    place: Path,
    weather: Storm,
    fault: Fault,
    kind: str,
    family: type[InstepError],
    attempts: int,
) -> None:
    weather.always = fault
    acts: list[Callable[[], object]] = [
        lambda: (place / "a").write_bytes(b""),
        lambda: (place / "a").read_bytes(),
        lambda: (place / "a").stat(),
        lambda: at_hand(place / "a"),
        lambda: list(place.rglob("*")),
        lambda: check_bucket(_remote(place)),
    ]
    for act in acts:
        weather.asked.clear()
        with pytest.raises(family) as caught:
            act()
        assert caught.value.kind == kind
        assert len(weather.asked) == (1 if fault is Fault.DENIED else attempts)


def test_a_store_that_is_not_there_is_named(tmp_path: Path, bucket: Bucket) -> None:
    with storm(bucket.url) as gone:
        url = gone.url
    with pytest.raises(UnavailableError) as caught:
        check_bucket(_remote(bucket.root(tmp_path, url)))
    assert caught.value.kind == "bucket-unreachable"
    assert "Nothing was published" in caught.value.message


def test_a_bucket_that_is_not_there_is_named(tmp_path: Path, bucket: Bucket) -> None:
    nowhere = s3_root("s3://no-such-bucket-here/lake", tmp_path, bucket.url, None)
    for act in (
        lambda: check_bucket(_remote(nowhere)),
        lambda: (nowhere / "a").write_bytes(b""),
        lambda: (nowhere / "a").read_bytes(),
        lambda: list((nowhere / "a").iterdir()),
    ):
        with pytest.raises(NotFoundError) as caught:
            act()
        assert caught.value.kind == "no-such-bucket"


def test_missing_credentials_are_an_access_denied(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(RefusedError) as caught:
        (bucket.root(tmp_path) / "a").read_bytes()
    assert caught.value.kind == "bucket-access-denied"


def test_a_table_in_a_storm_is_whole_or_as_before(place: Path, weather: Storm) -> None:
    """The store fails at one request after another until an append gets through."""
    table = create_table(place, "t", (Column(0, "n", "long"),), at=AT)
    table = _more(place, table, 3)
    calm: list[Fault | None] = [None]
    for number in range(PUTS_OF_AN_APPEND):
        weather.faults["PUT"] = [*calm * number, Fault.DENIED]
        with pytest.raises(InstepError):
            _more(place, table, 5)
        weather.faults.clear()
        assert row_count(place, table) == 3
    weather.faults["PUT"] = [Fault.LOST, Fault.THROTTLED, Fault.FAILS]
    after = _more(place, table, 5)
    weather.faults.clear()
    assert (_counted(place, table), _counted(place, after)) == (3, 8)


def test_a_store_that_is_slow_is_waited_for(place: Path, weather: Storm) -> None:
    weather.delay_s = 0.1
    table = _more(place, create_table(place, "t", (Column(0, "n", "long"),), at=AT), 5)
    assert _counted(place, table) == 5


def test_a_store_that_is_silent_is_given_up_and_named(
    place: Path, weather: Storm, impatient: None
) -> None:
    acts: list[Callable[[], object]] = [
        lambda: (place / "a").write_bytes(b""),
        lambda: (place / "a").read_bytes(),
        lambda: at_hand(place / "b"),
        lambda: check_bucket(_remote(place)),
    ]
    weather.always = Fault.STALLS
    for act in acts:
        weather.asked.clear()
        with pytest.raises(UnavailableError) as caught:
            act()
        assert caught.value.kind == "bucket-unreachable"
        assert "Nothing was published" in caught.value.message
        assert len(weather.asked) == s3_requests.ATTEMPTS


def test_a_store_that_stays_silent_is_given_up_in_time_however_often_it_may_be_asked(
    place: Path, weather: Storm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the middle of an act: a whole object is brought by several requests."""
    (place / "a").write_bytes(b"as it was")
    monkeypatch.setattr(s3_requests, "READ_WAIT_S", 0.5)
    monkeypatch.setattr(s3_requests, "ANSWER_WAIT_S", 1.5)
    remote = on_s3(place)
    assert remote is not None
    remote.bucket._clients.clear()  # the next one waits as long as is set now
    acts: list[tuple[str, Callable[[], object]]] = [
        ("PUT", lambda: (place / "a").write_bytes(b"")),
        ("GET", lambda: (place / "a").read_bytes()),
        ("GET", lambda: at_hand(place / "a")),
    ]
    for method, act in acts:
        weather.asked.clear()
        weather.faults = {method: [Fault.STALLS] * 100}
        with pytest.raises(UnavailableError, match=r"within 1\.5 seconds") as caught:
            act()
        assert caught.value.kind == "bucket-unreachable"
        asked = [one for one in weather.asked if one.startswith(method)]
        assert len(asked) <= 2 < s3_requests.ATTEMPTS


def test_an_object_whose_bytes_stop_coming_is_given_up_and_named(
    place: Path, weather: Storm, impatient: None
) -> None:
    (place / "a").write_bytes(b"x" * 10_000)
    acts: list[Callable[[], object]] = [
        lambda: (place / "a").read_bytes(),
        lambda: at_hand(place / "a"),
    ]
    for act in acts:
        weather.asked.clear()
        weather.faults["GET"] = [Fault.HANGS] * 100
        with pytest.raises(UnavailableError) as caught:
            act()
        assert caught.value.kind == "bucket-unreachable"
        assert sum(1 for one in weather.asked if one.startswith("GET")) == STREAM_ATTEMPTS
    weather.faults["GET"] = [Fault.HANGS]
    assert (place / "a").read_bytes() == b"x" * 10_000


def test_a_store_that_falls_silent_for_a_moment_is_not_noticed(
    place: Path, weather: Storm, impatient: None
) -> None:
    weather.faults = {"PUT": [Fault.STALLS], "GET": [Fault.STALLS]}
    blobs = Objects(place / "objects")
    digest = blobs.put(b"as it was")
    (stored,) = blobs.files(digest)
    here(stored).unlink()
    assert blobs.get(digest) == b"as it was"


def test_a_table_whose_store_falls_silent_is_whole_or_as_before(
    place: Path, weather: Storm, impatient: None
) -> None:
    table = _more(place, create_table(place, "t", (Column(0, "n", "long"),), at=AT), 3)
    for number in range(PUTS_OF_AN_APPEND):
        weather.faults["PUT"] = [*([None] * number), *([Fault.STALLS] * 2 * PUTS_OF_AN_APPEND)]
        with pytest.raises(UnavailableError):
            _more(place, table, 5)
        weather.faults.clear()
        assert row_count(place, table) == 3
    assert _counted(place, _more(place, table, 5)) == 8


def test_another_machine_reads_what_this_one_wrote(bucket: Bucket, tmp_path: Path) -> None:
    one, two = bucket.root(tmp_path / "one"), bucket.root(tmp_path / "two")
    table = _more(one, create_table(one, "t", (Column(0, "n", "long"),), at=AT), 100)
    assert _counted(two, table) == 100
    assert _counted(one, _more(two, table, 10)) == 110


def test_bare_pyiceberg_reads_a_table_where_it_is(bucket: Bucket, tmp_path: Path) -> None:
    from pyiceberg.table import StaticTable

    root = bucket.root(tmp_path)
    table = _more(root, create_table(root, "t", (Column(0, "n", "long"),), at=AT), 100)
    properties = {"s3.endpoint": bucket.url, "s3.region": "us-east-1", **ICEBERG_KEYS}
    found = StaticTable.from_metadata(str(root / table.metadata), properties)
    assert set(found.scan().to_arrow()["n"].to_pylist()) == set(range(100))
    (planned,) = found.scan().plan_files()
    assert planned.file.file_path.startswith(f"{root}/tables/")


def test_a_lake_on_s3_needs_its_client(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(NotFoundError) as caught:
        (bucket.root(tmp_path) / "a").read_bytes()
    assert caught.value.kind == "no-s3-client"


def test_deleted_rows_stay_deleted_where_files_are_read_from_copies(
    bucket: Bucket, tmp_path: Path
) -> None:
    root = bucket.root(tmp_path / "one")
    table = _more(root, create_table(root, "t", (Column(0, "n", "long"),), at=AT), 10)
    (live,) = data_files(root, table)
    columns = (Column(2147483546, "file_path", "string", True), Column(2147483545, "pos", "long"))
    with DuckDB(root / "staging") as engine:
        (made,) = engine.write(
            f"select '{live.path}' as file_path, unnest([2, 5]) as pos",
            Schema(columns),
            data_folder(root, table),
        )
    delete = DeleteFile(made.path, made.rows, made.size_bytes, made.digest, live.path)
    table = replace(root, table, (), (), deletes=[delete], at=AT)
    for other in (root, bucket.root(tmp_path / "two")):
        with DuckDB(other / "staging") as engine:
            found = engine.source(file_set(other, table, "t"), file_name="path")
            rows = engine.rows(f"select n, path from {found} order by n")
        assert [n for n, _ in rows] == [0, 1, 3, 4, 6, 7, 8, 9]
        assert {path for _, path in rows} == {live.path}


def test_copies_that_nobody_uses_are_dropped_oldest_first(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "KEPT_BYTES", 2_500)
    monkeypatch.setattr(places, "_LOOK_BYTES", 0)
    root = bucket.root(tmp_path / "here")
    paths = [root / f"tables/t/data/{n}.parquet" for n in range(6)]
    for path in paths:
        write_durably(path, b"x" * 1_000)
        here(path).unlink()
    held = linked(paths[0], tmp_path / "in")
    for path in paths[1:]:
        assert at_hand(path).stat().st_size == 1_000
    assert held.read_bytes() == b"x" * 1_000
    left = [path.name for path in paths if here(path).exists()]
    assert left[0] == "0.parquet", "somebody reads it"
    assert left[-1] == "5.parquet"
    assert 3 <= len(left) <= 5


def test_erased_bytes_are_not_stored_again(bucket: Bucket, tmp_path: Path) -> None:
    blobs = Objects(bucket.root(tmp_path) / "objects")
    digest = blobs.put(b"a secret")
    write_durably(blobs.note(digest), b"by ana")
    for file in blobs.files(digest):
        file.unlink()
    puts: list[Callable[[], str]] = [
        lambda: blobs.put(b"a secret"),
        lambda: blobs.put_file(_file(tmp_path)),
    ]
    for put in puts:
        with pytest.raises(RefusedError) as caught:
            put()
        assert caught.value.kind == "erased"
        assert not blobs.files(digest)
    assert blobs.note(digest).name.endswith(ERASED)
    assert not blobs.has(digest)


def test_digests_are_those_of_what_the_store_has(bucket: Bucket, tmp_path: Path) -> None:
    root = bucket.root(tmp_path)
    write_all_durably({root / "a": b"one", root / "b": b"two"})
    before = file_digest(root / "a")
    (root / "a").write_bytes(b"other")
    assert at_hand(root / "a").read_bytes() == b"one"
    assert file_digest(root / "a") != before


def _file(folder: Path) -> Path:
    path = folder / "given"
    path.write_bytes(b"a secret")
    return path


def _remote(path: Path) -> S3Path:
    found = on_s3(path)
    assert found is not None
    return found


def _more(root: Path, table: TableContent, rows: int) -> TableContent:
    with DuckDB(root / "staging") as engine:
        sql = f"select range n from range({rows})"
        files = engine.write(sql, schema_of(root, table), data_folder(root, table))
    return append(root, table, files, at=AT)


def _counted(root: Path, table: TableContent) -> int:
    with DuckDB(root / "staging") as engine:
        engine.view(file_set(root, table, "t"))
        return int(engine.rows("select count(*) from t")[0][0])
