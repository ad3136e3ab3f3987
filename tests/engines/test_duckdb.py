"""The DuckDB engine: what it reads, what it refuses, what it writes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import count
from pathlib import Path

import duckdb
import pytest

from instep.clock import Window
from instep.engines.duckdb import DuckDB
from instep.engines.engine import FileSet, Slice
from instep.engines.schema import Column, Schema
from instep.engines.types import iceberg_column
from instep.errors import InternalError, InvalidError, UnavailableError

NUMBERS = Schema((Column(1, "n", "long"), Column(2, "t", "string")))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DuckDB]:
    with DuckDB(tmp_path / "temp") as engine:
        yield engine


def _written(tmp_path: Path, sql: str, schema: Schema) -> tuple[str, ...]:
    with DuckDB(tmp_path / "temp") as engine:
        return tuple(file.path for file in engine.write(sql, schema, tmp_path / "data"))


def test_a_column_renamed_since_its_file_is_read_by_its_id(tmp_path: Path, engine: DuckDB) -> None:
    files = _written(tmp_path, "SELECT 7::BIGINT n, 'x' t", NUMBERS)
    later = Schema(
        (Column(2, "text", "string"), Column(3, "added", "date"), Column(1, "m", "long"))
    )

    engine.view(FileSet("later", files, later))

    assert engine.rows("SELECT text, added, m FROM later") == [("x", None, 7)]


@pytest.mark.parametrize(
    "kind",
    [
        *("n BIGINT", "n TIMESTAMPTZ", "n UUID", "n DECIMAL(9, 2)", "n BLOB"),
        'n STRUCT("a b" TIMESTAMPTZ, c BIGINT)',
        "n MAP(VARCHAR, STRUCT(a BIGINT)[])",
        "renamed BIGINT",
    ],
)
def test_sql_is_planned_by_the_rows_that_files_hold(
    tmp_path: Path, engine: DuckDB, kind: str
) -> None:
    """A join holds its smaller side: so the engine must know which it is."""
    name, _, sql_type = kind.partition(" ")
    column = _with_ids(iceberg_column(sql_type, "n"), count(1))
    files = _written(tmp_path, f"SELECT NULL::{sql_type} AS n FROM range(5000)", Schema((column,)))
    engine.view(FileSet("numbers", files, Schema((replace(column, name=name),))))

    ((_, plan),) = engine.run("EXPLAIN SELECT * FROM numbers")

    assert "~5,000 rows" in plan
    assert engine.describe("SELECT * FROM numbers").columns[0].full_type == column.full_type


def _with_ids(column: Column, numbers: Iterator[int]) -> Column:
    """Returns a column with ids, and all within it."""
    number = next(numbers)
    children = tuple(_with_ids(child, numbers) for child in column.children)
    return replace(column, id=number, children=children)


def test_a_folder_named_after_a_value_adds_no_column(tmp_path: Path, engine: DuckDB) -> None:
    (file,) = _written(tmp_path, "SELECT 7::BIGINT n, 'x' t", NUMBERS)
    moved = tmp_path / "t=other" / "file.parquet"
    moved.parent.mkdir()
    Path(file).rename(moved)

    engine.view(FileSet("moved", (str(moved),), NUMBERS))

    assert engine.rows("SELECT * FROM moved") == [(7, "x")]


def test_a_star_in_a_path_is_no_pattern(tmp_path: Path) -> None:
    """Partitions lie in folders called by their values."""
    folder = tmp_path / "a*[b]?"
    values = ["a*b", "aXb", "a?b", "[a]", "'*"]
    files = []
    with DuckDB(folder / "temp") as engine:
        for value in values:
            sql = f"SELECT range AS n, $${value}$$ AS t FROM range(2)"
            (file,) = engine.write(sql, NUMBERS, folder / "data" / f"t={value}")
            files.append(file.path)

    with DuckDB(folder / "temp") as engine:
        engine.view(FileSet("whole", tuple(files), NUMBERS))
        placed = engine.source(
            FileSet("placed", tuple(files), NUMBERS), row_number="row", file_name="file"
        )
        engine.lock()
        expected = sorted((n, value) for n in (0, 1) for value in values)
        assert sorted(engine.rows("SELECT * FROM whole")) == expected
        found = engine.rows(f"SELECT file, row, n, t FROM {placed}")
        assert len(found) == len(expected)
        for file_name, row, n, value in found:
            assert Path(file_name).parent.name == f"t={value}"
            assert row == n


def test_a_view_without_files_has_columns_and_no_rows(engine: DuckDB) -> None:
    engine.view(FileSet("nothing", (), NUMBERS))

    assert engine.rows("SELECT * FROM nothing") == []
    assert engine.describe("SELECT * FROM nothing").names == ("n", "t")


def test_a_file_without_field_ids_is_refused(tmp_path: Path, engine: DuckDB) -> None:
    path = tmp_path / "foreign.parquet"
    duckdb.sql(f"COPY (SELECT 1::BIGINT n, 'x' t) TO '{path}' (FORMAT parquet)")

    with pytest.raises(InvalidError, match="without a field id") as caught:
        engine.view(FileSet("foreign", (str(path),), NUMBERS))
    assert caught.value.kind == "no-field-ids"


def test_a_file_that_holds_another_type_is_refused(tmp_path: Path, engine: DuckDB) -> None:
    files = _written(tmp_path, "SELECT 7::BIGINT n, 'x' t", NUMBERS)

    with pytest.raises(InvalidError) as caught:
        engine.view(FileSet("wrong", files, Schema((Column(2, "t", "long"),))))
    assert caught.value.kind == "type-mismatch"


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_file_is_named(tmp_path: Path, engine: DuckDB, damage: str) -> None:
    files = _written(tmp_path, "SELECT 7::BIGINT n, 'x' t", NUMBERS)
    path = Path(files[0])
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(InvalidError, match=path.name) as caught:
        engine.view(FileSet("damaged", files, NUMBERS))
    assert caught.value.kind == "damaged-file"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("timestamptz", "TIMESTAMPTZ '2013-01-01 00:00:00+00' + to_hours(range::INT * 12)"),
        ("timestamp", "TIMESTAMP '2013-01-01' + to_hours(range::INT * 12)"),
    ],
)
def test_a_slice_is_half_open(tmp_path: Path, engine: DuckDB, kind: str, value: str) -> None:
    schema = Schema((Column(1, "n", "long"), Column(2, "at", kind)))
    files = _written(tmp_path, f"SELECT range n, {value} AS at FROM range(10)", schema)
    window = Window(datetime(2013, 1, 2, tzinfo=UTC), datetime(2013, 1, 3, tzinfo=UTC))

    engine.view(FileSet("part", files, schema, Slice("at", window)))

    assert engine.rows("SELECT n FROM part ORDER BY n") == [(2,), (3,)]


def test_a_slice_of_dates_takes_dates_whose_midnight_is_inside(
    tmp_path: Path, engine: DuckDB
) -> None:
    schema = Schema((Column(1, "day", "date"),))
    files = _written(tmp_path, "SELECT DATE '2013-01-01' + range::INT AS day FROM range(4)", schema)
    window = Window(datetime(2013, 1, 1, 6, tzinfo=UTC), datetime(2013, 1, 3, 6, tzinfo=UTC))

    engine.view(FileSet("part", files, schema, Slice("day", window)))

    assert engine.rows("SELECT day FROM part ORDER BY day") == [
        (date(2013, 1, 2),),
        (date(2013, 1, 3),),
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM glob('/*')",
    ],
)
def test_only_registered_files_can_be_read(tmp_path: Path, engine: DuckDB, sql: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")

    with pytest.raises(InvalidError) as caught:
        engine.rows(sql.format(secret=secret))
    assert caught.value.kind == "sql-not-allowed"


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELECT 1; SELECT 2",
        "DROP TABLE x",
        "SET threads = 1",
        "ATTACH 'x.db'",
        "INSTALL httpfs",
    ],
)
def test_only_one_select_is_run(engine: DuckDB, sql: str) -> None:
    with pytest.raises(InvalidError) as caught:
        engine.rows(sql)
    assert caught.value.kind == "not-a-select"


def test_inputs_cannot_be_added_after_the_first_statement(tmp_path: Path, engine: DuckDB) -> None:
    (tmp_path / "late.csv").write_text("a\n1\n")
    engine.rows("SELECT 1")

    with pytest.raises(InternalError) as caught:
        engine.allow(tmp_path / "late.csv")
    assert caught.value.kind == "engine-locked"


@pytest.mark.parametrize("end", ["", ";", " ; ", "-- done", "; -- done", " /* ; */ ;"])
def test_a_statement_may_end_as_people_end_it(tmp_path: Path, engine: DuckDB, end: str) -> None:
    sql = f"SELECT 1::BIGINT n, ';' t{end}"

    assert engine.describe(sql).names == ("n", "t")
    assert engine.write(sql, NUMBERS, tmp_path / "data")[0].columns[1].lower == ";"


@pytest.mark.parametrize("sql", ["SELECT nope FROM range(1)", "SELECT * FROM nope", "SELEC 1"])
def test_wrong_sql_is_an_invalid_input(engine: DuckDB, sql: str) -> None:
    with pytest.raises(InvalidError) as caught:
        engine.describe(sql)
    assert caught.value.kind == "sql-failed"


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        (
            "SELECT * FROM descriptio",
            'table "descriptio": expected one of trips. Correct the name.',
        ),
        ("SELECT * FROM trip", 'table "trip": expected one of trips. Did you mean "trips"?'),
        (
            "SELECT kmm FROM trips",
            'column "kmm": expected a column of its tables. Did you mean "km"?',
        ),
        ("SELECT zzzzz FROM trips", 'column "zzzzz": expected a column of its tables.'),
    ],
)
def test_an_unknown_name_is_answered_with_what_is_there_and_never_from_duckdb_s_catalog(
    engine: DuckDB, sql: str, says: str
) -> None:
    engine.view(FileSet("trips", (), Schema((Column(1, "km", "long"),))))
    for asked in (engine.describe, engine.rows, engine.arrow):
        with pytest.raises(InvalidError) as caught:
            asked(sql)
        assert caught.value.kind == "sql-failed"
        assert says in caught.value.message
        assert "pg_" not in caught.value.message
        assert "Error:" not in caught.value.message


def test_what_fails_in_a_row_is_an_invalid_input_too(engine: DuckDB) -> None:
    sql = "SELECT t::DATE d FROM (VALUES ('2026-01-01'), ('soon')) v(t)"
    for asked in (engine.arrow, engine.rows):
        with pytest.raises(InvalidError, match="soon") as caught:
            asked(sql)
        assert caught.value.kind == "sql-failed"
    assert engine.arrow("SELECT 1 AS n").to_pylist() == [{"n": 1}]


def test_types_are_inferred_as_iceberg_names_them(engine: DuckDB) -> None:
    found = engine.describe(
        "SELECT 1::TINYINT a, sum(range) b, avg(range) c, now() d, 1.25 e, 'x' f, true g "
        "FROM range(3) -- sums are HUGEINT in DuckDB"
    )

    assert [column.type for column in found.columns] == [
        "int", "long", "double", "timestamptz", "decimal(3,2)", "string", "boolean",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "value",
    ["INTERVAL 1 DAY", "'1'::BIT", "{'a': [INTERVAL 1 DAY]}", "row(1, 2)",
     "union_value(u := 1)", "TIMESTAMP_NS '2026-01-01'", "1::VARIANT", "MAP {'1'::BIT: 1}"],
)  # fmt: skip
def test_types_without_an_iceberg_equivalent_are_refused_by_name(
    engine: DuckDB, value: str
) -> None:
    with pytest.raises(InvalidError, match='"odd') as caught:
        engine.describe(f"SELECT {value} AS odd")
    assert caught.value.kind == "unsupported-type"


def test_a_sum_that_does_not_fit_a_long_fails(tmp_path: Path, engine: DuckDB) -> None:
    schema = Schema((Column(1, "s", "long"),))

    with pytest.raises(InvalidError, match="out of range") as caught:
        engine.write("SELECT sum(9223372036854775807) s FROM range(2)", schema, tmp_path / "data")
    assert caught.value.kind == "sql-failed"
    assert not list((tmp_path / "data").glob("*"))


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT 1.5::DOUBLE n, 'x' t", "type-mismatch"),
        ("SELECT 1::BIGINT n", "no-such-column"),
        ("SELECT 1::BIGINT n, 'x' t, 2 more", "unexpected-column"),
        ("SELECT 1::BIGINT n, 'x' t, 'y' T", "repeated-column"),
    ],
)
def test_rows_that_do_not_conform_are_not_written(
    tmp_path: Path, engine: DuckDB, sql: str, kind: str
) -> None:
    with pytest.raises(InvalidError) as caught:
        engine.write(sql, NUMBERS, tmp_path / "data")
    assert caught.value.kind == kind


def test_a_null_in_a_required_column_leaves_no_file(tmp_path: Path, engine: DuckDB) -> None:
    schema = Schema((Column(1, "n", "long", required=True),))

    with pytest.raises(InvalidError, match="1 rows") as caught:
        engine.write("SELECT nullif(range, 1) n FROM range(3)", schema, tmp_path / "data")
    assert caught.value.kind == "null-in-required"
    assert not list((tmp_path / "data").glob("*"))


def test_no_rows_give_no_files(tmp_path: Path, engine: DuckDB) -> None:
    assert engine.write("SELECT 1::BIGINT n, 'x' t WHERE false", NUMBERS, tmp_path / "data") == ()


def test_a_written_file_tells_its_rows_digest_and_bounds(tmp_path: Path, engine: DuckDB) -> None:
    import hashlib

    schema = Schema((Column(5, "x", "double"), Column(9, "t", "string")))
    sql = "SELECT unnest([1.5, 'nan'::DOUBLE, NULL, -2.0]) x, unnest(['b', 'a', NULL, NULL]) t"
    (file,) = engine.write(sql, schema, tmp_path / "data")

    x, t = file.columns
    assert (file.rows, x.field_id, t.field_id) == (4, 5, 9)
    assert (x.nulls, x.nans, t.nulls) == (1, 1, 2)
    assert (float(x.lower or 0), float(x.upper or 0), t.lower, t.upper) == (-2.0, 1.5, "a", "b")
    assert file.digest == hashlib.sha256(Path(file.path).read_bytes()).hexdigest()
    assert file.size_bytes == Path(file.path).stat().st_size


def test_large_results_are_cut_into_files(tmp_path: Path, engine: DuckDB) -> None:
    schema = Schema((Column(1, "n", "double"),))
    files = engine.write(
        "SELECT random() n FROM range(600000)", schema, tmp_path / "data", target_bytes=1 << 20
    )

    assert len(files) > 1
    assert sum(file.rows for file in files) == 600_000


def test_an_engine_leaves_nothing_behind(tmp_path: Path) -> None:
    with DuckDB(tmp_path / "temp") as engine:
        engine.rows("SELECT 1")

    assert list((tmp_path / "temp").iterdir()) == []


def test_a_statement_that_needs_more_memory_than_allowed_says_so(tmp_path: Path) -> None:
    with (
        DuckDB(tmp_path / "temp", memory_limit_bytes=32 << 20) as engine,
        pytest.raises(UnavailableError) as caught,
    ):
        engine.rows("SELECT len(list(range)) FROM range(20000000)")
    assert caught.value.kind == "out-of-memory"


def test_a_disk_that_cannot_be_written_is_unavailable(tmp_path: Path, engine: DuckDB) -> None:
    (own,) = (tmp_path / "temp").iterdir()
    shutil.rmtree(own)

    with pytest.raises(UnavailableError) as caught:
        engine.write("SELECT 1::BIGINT n, 'x' t", NUMBERS, tmp_path / "data")
    assert caught.value.kind == "disk-failed"


def test_a_slice_needs_a_column_of_time(tmp_path: Path, engine: DuckDB) -> None:
    files = _written(tmp_path, "SELECT 7::BIGINT n, 'x' t", NUMBERS)
    window = Window(datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 2, tzinfo=UTC))

    with pytest.raises(InvalidError) as caught:
        engine.view(FileSet("part", files, NUMBERS, Slice("n", window)))
    assert caught.value.kind == "not-a-time"
