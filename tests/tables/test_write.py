"""Table states: what Iceberg's own readers see, what is kept, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from bare import bare_table

from instep.clock import Window
from instep.engines.duckdb import DuckDB
from instep.engines.engine import Slice, WrittenFile
from instep.engines.schema import Column, Schema
from instep.errors import ConflictError, InternalError, InvalidError, NotFoundError
from instep.tables.content import TableContent
from instep.tables.manifest import MERGED_MANIFESTS
from instep.tables.read import (
    data_files,
    file_count,
    file_set,
    files_digest,
    load_metadata,
    row_count,
    schema_of,
    size_bytes,
)
from instep.tables.write import (
    append,
    create_table,
    data_folder,
    rename_column,
    replace,
    set_columns,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = (Column(0, "n", "long"), Column(0, "t", "string"))

EVERY_TYPE = """
    SELECT unnest([true, false, NULL]) b, unnest([1::INTEGER, -2147483648, NULL]) i,
        unnest([9223372036854775807, -1, NULL]) l, unnest([1.5::FLOAT, 'nan', NULL]) f,
        unnest(['-inf'::DOUBLE, 2.25, NULL]) d,
        unnest([DATE '1969-12-31', DATE '2013-01-01', NULL]) da,
        unnest([TIME '23:59:59.999999', TIME '00:00:00', NULL]) ti,
        unnest([TIMESTAMP '1901-01-01 01:02:03.000004', TIMESTAMP '2013-01-01', NULL]) ts,
        unnest([TIMESTAMPTZ '2013-01-01 05:00:00-05', TIMESTAMPTZ '1969-01-01 00:00:00+00',
            NULL]) tz,
        unnest(['é', '', NULL]) s, unnest(['00000000-0000-4000-8000-000000000001'::UUID,
            'ffffffff-ffff-4fff-8fff-ffffffffffff', NULL]) u,
        unnest(['\\xAB\\x00'::BLOB, ''::BLOB, NULL]) bi,
        unnest([-1.25::DECIMAL(9,2), 9999999.99, NULL]) de,
        unnest([0::DECIMAL(38,10), -12345678901234567890.0123456789, NULL]) big
"""


def _written(root: Path, table: TableContent, sql: str) -> tuple[WrittenFile, ...]:
    with DuckDB(root / "staging") as engine:
        return engine.write(sql, schema_of(root, table), data_folder(root, table))


def _appended(root: Path, table: TableContent, *numbers: int) -> TableContent:
    listed = ", ".join(f"({n}, 'row {n}')" for n in numbers)
    sql = f"SELECT n::BIGINT AS n, t FROM (VALUES {listed}) v(n, t)"
    return append(root, table, _written(root, table, sql), at=AT)


def _numbers(root: Path, table: TableContent) -> list[int]:
    with DuckDB(root / "staging") as engine:
        engine.view(file_set(root, table, "t"))
        return [row[0] for row in engine.rows('SELECT n FROM "t" ORDER BY n')]


def _arrow(root: Path, table: TableContent, **scan: Any) -> Any:

    return bare_table(root, table.metadata).scan(**scan).to_arrow()


def test_every_primitive_type_reads_the_same_in_bare_pyiceberg_and_bare_duckdb(
    tmp_path: Path,
) -> None:

    with DuckDB(tmp_path / "staging") as engine:
        columns = engine.describe(EVERY_TYPE).columns
    table = create_table(tmp_path, "t", columns, at=AT)
    table = append(tmp_path, table, _written(tmp_path, table, EVERY_TYPE), at=AT)
    with DuckDB(tmp_path / "staging") as engine:
        engine.view(file_set(tmp_path, table, "t"))
        ours = engine.rows("SELECT * REPLACE (bi::VARCHAR AS bi) FROM t ORDER BY i, l")

    static = bare_table(tmp_path, table.metadata)
    planned = [task.file.file_path for task in static.scan().plan_files()]
    bare = duckdb.connect()
    bare.execute("SET TimeZone = 'UTC'")
    arrow = static.scan().to_arrow()  # noqa: F841  (DuckDB finds it by its name)

    query = "SELECT * REPLACE (bi::VARCHAR AS bi) FROM {} ORDER BY i, l"
    assert repr(bare.execute(query.format(f"read_parquet({planned!r})")).fetchall()) == repr(ours)
    assert repr(bare.execute(query.format("arrow")).fetchall()) == repr(ours)
    assert [column.type for column in schema_of(tmp_path, table).columns] == [
        "boolean", "int", "long", "float", "double", "date", "time", "timestamp", "timestamptz",
        "string", "uuid", "binary", "decimal(9,2)", "decimal(38,10)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("i == -2147483648", 1),
        ("l > 9223372036854775806", 1),
        ("d < -1000", 1),
        ("da == '1969-12-31'", 1),
        ("ts < '1901-01-02T00:00:00'", 1),
        ("tz >= '2013-01-01T10:00:00+00:00'", 1),
        ("s == 'é'", 1),
        ("de < 0", 1),
        ("big < 0", 1),
        ("b == true", 1),
        ("i > 1", 0),
        ("de > 9999999.99", 0),
    ],
)
def test_the_bounds_that_pyiceberg_prunes_by_lose_no_row(
    tmp_path: Path, condition: str, rows: int
) -> None:
    with DuckDB(tmp_path / "staging") as engine:
        columns = engine.describe(EVERY_TYPE).columns
    table = create_table(tmp_path, "t", columns, at=AT)
    table = append(tmp_path, table, _written(tmp_path, table, EVERY_TYPE), at=AT)

    assert _arrow(tmp_path, table, row_filter=condition).num_rows == rows


def test_a_state_is_not_changed_by_what_is_made_from_it(tmp_path: Path) -> None:
    empty = create_table(tmp_path, "t", COLUMNS, at=AT)
    one = _appended(tmp_path, empty, 1)
    two = _appended(tmp_path, one, 2)
    other = _appended(tmp_path, one, 3)

    assert [_numbers(tmp_path, state) for state in (empty, one, two, other)] == [
        [], [1], [1, 2], [1, 3],
    ]  # fmt: skip
    assert _arrow(tmp_path, empty).num_rows == 0
    assert sorted(_arrow(tmp_path, other)["n"].to_pylist()) == [1, 3]


def test_many_appends_keep_few_snapshots_and_few_manifests(tmp_path: Path) -> None:

    table = create_table(tmp_path, "t", COLUMNS, at=AT)
    (file,) = _written(tmp_path, table, "SELECT 1::BIGINT AS n, 'x' AS t")
    appends = MERGED_MANIFESTS + 5
    for number in range(appends):
        path = Path(file.path).with_name(f"{number}.parquet")
        path.hardlink_to(file.path)
        copy = WrittenFile(str(path), file.rows, file.size_bytes, file.digest, file.columns)
        table = append(tmp_path, table, [copy], at=AT + timedelta(seconds=number))

    static = bare_table(tmp_path, table.metadata)
    snapshot = static.current_snapshot()
    assert snapshot is not None
    assert len(static.metadata.snapshots) == 10
    assert len(snapshot.manifests(static.io)) <= MERGED_MANIFESTS
    assert static.scan().to_arrow().num_rows == row_count(tmp_path, table) == appends
    assert file_count(tmp_path, table) == appends
    sequences = {
        entry.data_file.file_path: entry.sequence_number
        for manifest in snapshot.manifests(static.io)
        for entry in manifest.fetch_manifest_entry(static.io)
    }
    assert sorted(filter(None, sequences.values())) == list(range(1, appends + 1))


def test_replaced_files_are_gone_for_every_reader(tmp_path: Path) -> None:
    table = create_table(tmp_path, "t", COLUMNS, at=AT)
    for number in (1, 2, 3):
        table = _appended(tmp_path, table, number)
    removed = data_files(tmp_path, table)[1]
    added = _written(tmp_path, table, "SELECT 20::BIGINT AS n, 'new' AS t")

    table = replace(tmp_path, table, added, [removed.path], at=AT)
    emptied = replace(tmp_path, table, (), [f.path for f in data_files(tmp_path, table)], at=AT)
    again = _appended(tmp_path, emptied, 7)

    assert _numbers(tmp_path, table) == [1, 3, 20]
    assert sorted(_arrow(tmp_path, table)["n"].to_pylist()) == [1, 3, 20]
    assert _arrow(tmp_path, emptied).num_rows == row_count(tmp_path, emptied) == 0
    assert _arrow(tmp_path, again)["n"].to_pylist() == _numbers(tmp_path, again) == [7]


def test_a_file_that_is_not_live_cannot_be_replaced(tmp_path: Path) -> None:
    table = _appended(tmp_path, create_table(tmp_path, "t", COLUMNS, at=AT), 1)
    gone = data_files(tmp_path, table)[0].path
    table = replace(tmp_path, table, (), [gone], at=AT)

    with pytest.raises(ConflictError) as caught:
        replace(tmp_path, table, (), [gone], at=AT)
    assert caught.value.kind == "file-not-live"


def test_the_files_digest_is_that_of_the_live_files_whatever_their_order(tmp_path: Path) -> None:
    empty = create_table(tmp_path, "t", COLUMNS, at=AT)
    first = _written(tmp_path, empty, "SELECT 1::BIGINT AS n, 'x' AS t")
    second = _written(tmp_path, empty, "SELECT 2::BIGINT AS n, 'x' AS t")
    one_way = append(tmp_path, append(tmp_path, empty, first, at=AT), second, at=AT)
    other_way = append(tmp_path, append(tmp_path, empty, second, at=AT), first, at=AT)

    assert one_way.files == other_way.files == files_digest([first[0].digest, second[0].digest])
    assert one_way.metadata != other_way.metadata


def test_a_renamed_column_keeps_its_id_and_its_rows(tmp_path: Path) -> None:
    table = _appended(tmp_path, create_table(tmp_path, "t", COLUMNS, at=AT), 1)
    table = rename_column(tmp_path, table, "t", "text", at=AT)
    table = append(tmp_path, table, _written(tmp_path, table, "SELECT 2 n, 'new' text"), at=AT)

    assert schema_of(tmp_path, table).column("text").id == 2
    assert sorted(_arrow(tmp_path, table)["text"].to_pylist()) == ["new", "row 1"]
    with DuckDB(tmp_path / "staging") as engine:
        engine.view(file_set(tmp_path, table, "t"))
        assert engine.rows("SELECT text FROM t ORDER BY n") == [("row 1",), ("new",)]


def test_two_branches_never_give_two_columns_one_id(tmp_path: Path) -> None:
    table = create_table(tmp_path, "t", COLUMNS, at=AT)
    one = set_columns(tmp_path, table, (*COLUMNS, Column(0, "a", "date")), at=AT)
    two = set_columns(tmp_path, table, (*COLUMNS, Column(0, "b", "long")), at=AT)
    back = set_columns(tmp_path, one, (*COLUMNS, Column(0, "b", "long")), at=AT)

    ids = [schema_of(tmp_path, state).columns[-1].id for state in (one, two, back)]
    assert ids == [3, 4, 5]


def test_an_added_column_is_null_in_old_rows(tmp_path: Path) -> None:
    table = _appended(tmp_path, create_table(tmp_path, "t", COLUMNS, at=AT), 1)
    table = set_columns(tmp_path, table, (Column(0, "new", "double"), *COLUMNS), at=AT)

    assert _arrow(tmp_path, table).to_pylist() == [{"new": None, "n": 1, "t": "row 1"}]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (Column(0, "n", "string"), "type-mismatch"),
        (Column(0, "new", "long", required=True), "null-in-required"),
        (Column(0, "T", "string"), "repeated-column"),
        (Column(0, "new", "list<int>"), "unsupported-type"),
    ],
)
def test_a_schema_that_old_rows_cannot_have_is_refused(
    tmp_path: Path, column: Column, kind: str
) -> None:
    table = _appended(tmp_path, create_table(tmp_path, "t", COLUMNS, at=AT), 1)
    columns = (column, COLUMNS[1]) if column.name == "n" else (*COLUMNS, column)

    with pytest.raises(InvalidError) as caught:
        set_columns(tmp_path, table, columns, at=AT)
    assert caught.value.kind == kind


def test_a_slice_plans_only_files_that_may_hold_it(tmp_path: Path) -> None:
    columns = (Column(0, "n", "long"), Column(0, "at", "timestamptz"))
    table = create_table(tmp_path, "t", columns, at=AT)
    for day in (1, 2, 3):
        sql = f"SELECT {day}::BIGINT AS n, TIMESTAMPTZ '2013-01-0{day} 00:00:00+00' AS at"
        table = append(tmp_path, table, _written(tmp_path, table, sql), at=AT)
    window = Window(datetime(2013, 1, 2, tzinfo=UTC), datetime(2013, 1, 3, tzinfo=UTC))

    planned = file_set(tmp_path, table, "t", Slice("at", window))

    assert len(planned.files) == 1
    with DuckDB(tmp_path / "staging") as engine:
        engine.view(planned)
        assert engine.rows("SELECT n FROM t") == [(2,)]


def test_totals_are_known_without_reading_manifests(tmp_path: Path) -> None:
    table = _appended(tmp_path, create_table(tmp_path, "t", COLUMNS, at=AT), 1, 2, 3)
    (file,) = data_files(tmp_path, table)
    for part in (tmp_path / "tables" / table.uuid / "metadata").iterdir():
        if part.name != Path(table.metadata).name:
            part.unlink()

    assert row_count(tmp_path, table) == 3
    assert size_bytes(tmp_path, table) == file.size_bytes


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    table = _appended(tmp_path, create_table(tmp_path, "t", COLUMNS, at=AT), 1)
    written = (tmp_path / "tables" / table.uuid / "metadata").glob("*.json")
    for path in [path for path in written if not path.name.startswith("00000-")]:
        before = path.read_bytes()
        path.write_bytes(before.replace(b"1", b"2", 1))
        with pytest.raises(InternalError) as damaged:
            data_files(tmp_path, table)
        assert damaged.value.kind == "damaged-object"
        path.write_bytes(before)
    (tmp_path / table.metadata).unlink()
    with pytest.raises(NotFoundError) as missing:
        data_files(tmp_path, table)
    assert missing.value.kind == "no-such-object"


@pytest.mark.parametrize("name", ["", "Flights", "2013", "a-b", "a b", "../a"])
def test_a_table_name_is_small_letters_digits_and_underscores(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidError) as caught:
        create_table(tmp_path, name, COLUMNS, at=AT)
    assert caught.value.kind == "bad-name"


def test_a_file_outside_the_table_is_refused(tmp_path: Path) -> None:
    table = create_table(tmp_path, "t", COLUMNS, at=AT)
    with pytest.raises(InternalError) as caught:
        append(tmp_path, table, [WrittenFile("/elsewhere.parquet", 1, 1, "0", ())], at=AT)
    assert caught.value.kind == "misplaced-file"


def test_time_never_goes_back_in_metadata(tmp_path: Path) -> None:
    table = create_table(tmp_path, "t", COLUMNS, at=AT)
    files = _written(tmp_path, table, "SELECT 1::BIGINT AS n, 'x' AS t")
    table = append(tmp_path, table, files, at=AT - timedelta(days=1))

    metadata = load_metadata(tmp_path, table)
    assert metadata["last-updated-ms"] == int(AT.timestamp() * 1000)
    assert json.loads((tmp_path / table.metadata).read_text()) == metadata
    assert Schema(COLUMNS).names == schema_of(tmp_path, table).names


def test_reading_and_writing_states_imports_nothing_heavy() -> None:
    code = (
        "import sys, instep.tables.read, instep.tables.write, instep.tables.diff, "
        "instep.tables.profile; "
        "print({'duckdb', 'pyiceberg', 'pyarrow', 'numpy', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"
