"""Computing month by month gives the same table as computing it whole, wherever rows fall."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from pipeline_builders import ORDERS, quiet

from instep.clock import Duration, Window, parse_instant, split
from instep.engines.duckdb import DuckDB
from instep.engines.engine import FileSet, Slice, WrittenFile
from instep.engines.schema import Schema
from instep.pipelines.compute import TableWork, compute_table, describe_sql, labels
from instep.pipelines.execute import numbered

START = parse_instant("2013-01-01")
SLICE = Window(START, parse_instant("2013-04-01"))
LOOKBACK = timedelta(hours=2)

# Near the ends of months, where a wrong cut would show: hours from the start of the slice.
hours = st.sampled_from([0, 31 * 24, 59 * 24, 90 * 24]).flatmap(
    lambda edge: st.integers(edge - 5, edge + 5)
)


def values(rows: list[str], columns: str) -> str:
    listed = ", ".join(rows)
    return f"select * from (values {listed}) t({columns})" if rows else ""


def stored(folder: Path, name: str, sql: str, empty: str) -> FileSet:
    with DuckDB(folder / "scratch") as engine:
        schema = numbered(engine.describe(sql or empty))
        files = engine.write(sql or f"{empty} where false", schema, folder / name)
    return FileSet(name, tuple(file.path for file in files), schema)


def at(hour: int) -> str:
    return f"timestamptz '{START + timedelta(hours=hour)}'"


def cut(sets: tuple[FileSet, FileSet], window: Window) -> tuple[FileSet, ...]:
    sales, weather = sets
    wide = Window(window.start - LOOKBACK, window.end)
    return (
        FileSet(sales.name, sales.files, sales.schema, Slice("sold_at", window)),
        FileSet(weather.name, weather.files, weather.schema, Slice("seen_at", wide)),
    )


def computed(
    sets: tuple[FileSet, FileSet], windows: list[Window], folder: Path
) -> tuple[Schema, tuple[WrittenFile, ...]]:
    pieces = tuple(cut(sets, window) for window in windows)
    work = TableWork(ORDERS, pieces, labels(windows), folder / "out", folder / "scratch")
    schema = numbered(describe_sql(work))
    written = compute_table(work, schema, quiet)
    return schema, tuple(file for files in written for file in files)


@settings(max_examples=15)
@given(st.lists(hours, max_size=12), st.sets(hours, max_size=12))
@example([31 * 24], {31 * 24 - 1})
@example([0, 90 * 24], {-1})
def test_months_give_what_the_whole_gives(sold: list[int], seen: set[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sales = values([f"({n}, {at(h)}, 'a', {n}.5)" for n, h in enumerate(sold)],
                       "id, sold_at, shop, amount")  # fmt: skip
        weather = values([f"({at(h)}, {h}.0)" for h in sorted(seen)], "seen_at, rain")
        sets = (
            stored(folder, "sales", sales,
                   f"select 1 as id, {at(0)} as sold_at, 'a' as shop, 1.5 as amount"),
            stored(folder, "weather", weather, f"select {at(0)} as seen_at, 1.0 as rain"),
        )  # fmt: skip
        months = list(split(SLICE, Duration(months=1)))
        assert len(months) == 3
        with DuckDB(folder / "scratch") as engine:
            for place, windows in enumerate((months, [SLICE])):
                schema, files = computed(sets, windows, folder)
                paths = tuple(file.path for file in files)
                engine.view(FileSet(f"side{place}", paths, schema))
                engine.allow(folder)
            rows = [engine.rows(f"select * from side{n} order by all") for n in (0, 1)]
        assert rows[0] == rows[1]
        assert len(rows[0]) == sum(0 <= hour < 90 * 24 for hour in sold)
        weather_of = {row[0]: row[4] for row in rows[0]}
        for number, hour in enumerate(sold):
            if 0 <= hour < 90 * 24:
                expected = float(hour - 1) if hour - 1 in seen else None
                assert weather_of[number] == expected
