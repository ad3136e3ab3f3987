"""Iceberg tables: what an append costs as a table grows, and what planning over many files costs.

An append is the whole commit: 1,000 rows made by SQL, written by DuckDB as Parquet with field ids,
hashed and made durable, the manifest, its copy, the manifest list, its copy and the metadata made
durable, and a commit with its record in the catalog (SQLite, synchronous). One engine and one
process serve all appends. pyiceberg does the same rows through its SQL catalog (SQLite), with the
snapshots before the last ten expired after each append; it makes nothing durable.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.figures import FOLDER, Extra, Figure, say
from bench.peers import python_with
from bench.processes import run
from instep.clock import Window, system_clock
from instep.engines.duckdb import DuckDB
from instep.engines.engine import ColumnStatistics, Slice, WrittenFile
from instep.engines.schema import Column
from instep.history.edits import Edit, publish
from instep.history.repository import MAIN, create_repository
from instep.tables.content import TableContent
from instep.tables.read import file_set, schema_of
from instep.tables.write import append, create_table, data_folder

APPENDS = int(os.environ.get("BENCH_APPENDS", "1000"))
PEER_APPENDS = int(os.environ.get("BENCH_PEER_APPENDS", str(APPENDS)))
ROWS = 1000
FILES = 10_000
FIRST = datetime(2020, 1, 1, tzinfo=UTC)

PEER = ("pyiceberg[sql-sqlite]==0.12.0", "pyarrow==26.0.1", "duckdb==2.0.0")

_PEER = """
import json, sys, time
from pathlib import Path
import duckdb
from pyiceberg.catalog.sql import SqlCatalog
folder, out = map(Path, sys.argv[1:3])
catalog = SqlCatalog(
    "peer", uri=f"sqlite:///{folder / 'catalog.db'}", warehouse=f"file://{folder}"
)
catalog.create_namespace("s")
session = duckdb.connect()
session.execute("SET TimeZone = 'UTC'")
selects = json.loads((folder / "rows.json").read_text())
table = catalog.create_table(
    "s.t", session.execute(selects[0]).to_arrow_table().schema,
    properties={"write.parquet.compression-codec": "zstd"},
)
took = []
for select in selects:
    start = time.perf_counter()
    table.append(session.execute(select).to_arrow_table())
    snapshots = sorted(table.metadata.snapshots, key=lambda one: one.sequence_number or 0)
    old = [one.snapshot_id for one in snapshots[:-10]]
    if old:
        table.maintenance.expire_snapshots().by_ids(old).commit()
    took.append((time.perf_counter() - start) * 1000)
out.write_text(json.dumps(took))
"""

TYPES = ("long", "timestamptz", "double", "double", "long", "long", "string", "string", "date",
         "boolean")  # fmt: skip


def appends() -> Iterator[Figure]:
    """Yields median, 99th percentile and growth of our appends, and the median of the peer's."""
    folder = FOLDER / "append"
    shutil.rmtree(folder, ignore_errors=True)
    ours = _our_appends(folder / "ours")
    peer = _peer_appends(folder / "peer")
    shape: Extra = {
        "appends": APPENDS,
        "rows": ROWS,
        "columns": len(TYPES),
        "codec": "zstd",
        "fsyncs": _fsyncs(folder / "fsyncs"),
        "peer": "pyiceberg, SQL catalog on SQLite, 10 snapshots kept, no fsync",
        "peer_appends": PEER_APPENDS,
        "peer_median_ms": statistics.median(peer),
        "peer_p99_ms": _p99(peer),
        "peer_growth": _growth(peer),
    }
    yield Figure("append", statistics.median(ours), "ms", 15, "bar, median", shape)
    yield Figure("append", _p99(ours), "ms", 15, "bar, 99th percentile", shape)
    yield Figure("append", _growth(ours), "ratio", 1.2, "bar, last 100 to first 100", shape)


def plan_cold() -> Iterator[Figure]:
    """Yields how long a new process takes to plan a slice, with everything it imports."""
    yield from _planned("plan-files-cold", 1000)


def plan_warm() -> Iterator[Figure]:
    """Yields how long the same process takes to plan another slice."""
    yield from _planned("plan-files-warm", 100)


def _our_appends(folder: Path) -> list[float]:
    repo = create_repository(folder, system_clock, "ana")
    columns = [Column(0, f"c{n}", kind) for n, kind in enumerate(TYPES)]
    table = create_table(repo.root, "t", columns, at=system_clock())
    schema = schema_of(repo.root, table)
    took = []
    with DuckDB(repo.root / "staging") as engine:
        for number in range(APPENDS):
            start = time.perf_counter()
            files = engine.write(rows_of(number), schema, data_folder(repo.root, table))
            table = append(repo.root, table, files, at=system_clock())
            with repo.store.transaction() as tx:
                changes = {"table/t": table.to_content()}
                edit = Edit(repo.resolve(MAIN), changes, "ana", "rows", "bench")
                publish(tx, repo, MAIN, edit)
            took.append((time.perf_counter() - start) * 1000)
    repo.store.close()
    return took


def _peer_appends(folder: Path) -> list[float]:
    folder.mkdir(parents=True)
    out = folder / "took.json"
    rows = json.dumps([rows_of(number) for number in range(PEER_APPENDS)])
    (folder / "rows.json").write_text(rows)
    say(f"{PEER_APPENDS} appends by the peer.")
    run([str(python_with("pyiceberg", PEER)), "-c", _PEER, str(folder), str(out)], folder)
    took: list[float] = json.loads(out.read_text())
    return took


def rows_of(number: int) -> str:
    """Returns SQL that gives the rows of one append."""
    base = number * ROWS
    return (
        f"SELECT range + {base} AS c0, TIMESTAMPTZ '2020-01-01 00:00:00+00' + "
        f"INTERVAL (range + {base}) MINUTE AS c1, (hash(range + {base}) % 1000000) / 7.0::DOUBLE "
        "AS c2, sqrt(range) AS c3, (range % 7)::BIGINT AS c4, (range * 31)::BIGINT AS c5, "
        "'name ' || range AS c6, 'kind ' || (range % 5) AS c7, DATE '2020-01-01' + "
        f"({number} % 365) AS c8, range % 2 = 0 AS c9 FROM range({ROWS})"
    )


def _fsyncs(folder: Path) -> int:
    """Counts what one commit makes durable besides the catalog's own write-ahead log."""
    count = 0
    plain = os.fsync

    def counted(handle: int) -> None:
        nonlocal count
        count += 1
        plain(handle)

    table = create_table(folder, "t", [Column(0, "n", "long")], at=system_clock())
    os.fsync = counted  # type: ignore[assignment]  # a count around the call itself
    try:
        with DuckDB(folder / "staging") as engine:
            files = engine.write(
                "SELECT 1::BIGINT AS n", schema_of(folder, table), data_folder(folder, table)
            )
        append(folder, table, files, at=system_clock())
    finally:
        os.fsync = plain
    return count


def _p99(took: list[float]) -> float:
    return statistics.quantiles(took, n=100, method="inclusive")[98]


def _growth(took: list[float]) -> float:
    tenth = max(1, len(took) // 10)
    return statistics.mean(took[-tenth:]) / statistics.mean(took[:tenth])


def _planned(name: str, bar: float) -> Iterator[Figure]:
    for columns, files in ((10, FILES), (500, FILES // 10)):
        root, table = _many_files(columns, files)
        command = [sys.executable, "-m", "bench.tables", str(root)]
        command.append(json.dumps(table.to_content()))
        if name == "plan-files-cold":
            took = [run(command, Path.cwd()).seconds * 1000 for _ in range(5)]
        else:
            _plan(root, table, 0)
            took = [_plan(root, table, day) for day in range(1, 6)]
        shape: Extra = {"columns": columns, "files": files, "slice_days": 1, "order": "hours mixed"}
        yield Figure(name, statistics.median(took), "ms", bar, "bar", shape)


def _plan(root: Path, table: TableContent, day: int) -> float:
    start = time.perf_counter()
    at = FIRST + timedelta(days=day)
    planned = file_set(root, table, "t", Slice("c1", Window(at, at + timedelta(days=1))))
    took = (time.perf_counter() - start) * 1000
    if len(planned.files) != 24:
        raise RuntimeError(f"{len(planned.files)} files were planned, not those of 24 hours")
    return took


def _many_files(columns: int, files: int) -> tuple[Path, TableContent]:
    """Makes a table of an hour a file; the files themselves are not there.

    Hours are mixed, so that every manifest spans nearly all and none can be left unopened.
    """
    folder = FOLDER / f"many-mixed-{columns}-{files}"
    made = folder / "table.json"
    if not made.exists():
        say(f"making a table of {files} files and {columns} columns")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        named = [Column(0, f"c{n}", TYPES[n % len(TYPES)]) for n in range(columns)]
        table = create_table(folder, "t", named, at=FIRST)
        data = data_folder(folder, table)
        for first in range(0, files, 20):
            hours = [number * 7919 % files for number in range(first, min(first + 20, files))]
            batch = [_file(data, named, hour) for hour in hours]
            table = append(folder, table, batch, at=FIRST)
        made.write_text(json.dumps(table.to_content()))
    return folder, TableContent.from_content(json.loads(made.read_text()))


def _file(data: Path, columns: list[Column], hour: int) -> WrittenFile:
    at = FIRST + timedelta(hours=hour)
    bounds = {
        "long": (str(hour), str(hour + 1000)),
        "double": (f"{hour}.25", f"{hour}.75"),
        "timestamptz": (at.isoformat(), (at + timedelta(minutes=59)).isoformat()),
        "string": (f"name {hour}", f"name {hour + 1}"),
        "date": (at.date().isoformat(), at.date().isoformat()),
        "boolean": ("false", "true"),
    }
    found = tuple(
        ColumnStatistics(n, 4000, ROWS, 0, 0, *bounds[column.type])
        for n, column in enumerate(columns, 1)
    )
    name = uuid.uuid4().hex
    return WrittenFile(str(data / f"{name}.parquet"), ROWS, 40_000, name * 2, found)


if __name__ == "__main__":
    _plan(Path(sys.argv[1]), TableContent.from_content(json.loads(sys.argv[2])), 0)
