"""Which rows differ between two states of a table that share no file, and between two that do.

Ten million rows of ten columns on each side, one in a thousand changed, evenly; keyed by `id`. Each
contender is a process of its own that reads the same Parquet files, with the same threads, and its
time is that of the comparison, imports left out. The hand-written join counts added, removed and
changed rows with all values compared; Instep also keeps the rows and shows a sample. datacompy
compares two polars frames that it reads itself, in an environment of its own. The rows changed in
one column, and the others were written again as the same bytes, which Instep does not read; so all
is measured once more with the rows of one side turned round, where it reads everything.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench.figures import FOLDER, Figure, say
from bench.peers import python_with
from bench.processes import run
from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column
from instep.tables.content import TableContent
from instep.tables.diff import diff_rows
from instep.tables.read import data_files, schema_of
from instep.tables.write import append, create_table, data_folder, replace

ROWS = int(os.environ.get("BENCH_ROWS", "10000000"))
FILES = int(os.environ.get("BENCH_FILES", "1000"))
ROWS_PER_FILE = 20_000
ROUNDS = 3
HAND_BAR = 1.3
PEER_BAR = 5.0
MEMORY_BAR_BYTES = 4 * 1024**3
FILES_BAR_MS = 50.0
PEER = ("datacompy==1.1.0",)
AT = datetime(2026, 1, 1, tzinfo=UTC)

COLUMNS = (
    Column(0, "id", "long"), Column(0, "carrier", "int"), Column(0, "flight", "string"),
    Column(0, "city", "string"), Column(0, "tail", "string"), Column(0, "delay", "double"),
    Column(0, "distance", "double"), Column(0, "at", "timestamptz"),
    Column(0, "late", "boolean"), Column(0, "seats", "long"),
)  # fmt: skip

_INSTEP = """
import json, sys, time
from pathlib import Path
import duckdb
from instep.tables.content import TableContent
from instep.tables.diff import diff_rows
root, before, after, out = sys.argv[1:5]
states = [TableContent.from_content(json.loads(one)) for one in (before, after)]
start = time.perf_counter()
found = diff_rows(Path(root), *states, ["id"])
seconds = time.perf_counter() - start
Path(out).write_text(json.dumps([seconds, found.added, found.removed, found.changed]))
"""

_HAND = """
import json, sys, time
from pathlib import Path
import duckdb
before, after, threads, out = sys.argv[1:5]
connection = duckdb.connect(config={"threads": int(threads), "preserve_insertion_order": False})
start = time.perf_counter()
names = [one[0] for one in connection.execute(f"describe from read_parquet({before})").fetchall()]
differs = " or ".join(f"o.{name} is distinct from n.{name}" for name in names if name != "id")
found = connection.execute(
    f"select count(*) filter (o.id is null), count(*) filter (n.id is null), "
    f"count(*) filter (o.id is not null and n.id is not null and ({differs})) "
    f"from read_parquet({before}) o full join read_parquet({after}) n on o.id = n.id"
).fetchone()
Path(out).write_text(json.dumps([time.perf_counter() - start, *found]))
"""

_PEER = """
import json, sys, time
from pathlib import Path
import datacompy, polars
before, after, out = sys.argv[1:4]
start = time.perf_counter()
frames = [polars.read_parquet(json.loads(one.replace("'", '"'))) for one in (before, after)]
found = datacompy.PolarsCompare(*frames, join_columns=["id"], df1_name="a", df2_name="b")
changed = len(found.intersect_rows) - found.count_matching_rows()
counts = [len(found.df2_unq_rows), len(found.df1_unq_rows), changed]
Path(out).write_text(json.dumps([time.perf_counter() - start, *counts]))
"""


def rowdiff() -> Iterator[Figure]:
    for name, is_turned in (("rowdiff", False), ("rowdiff-turned", True)):
        yield _compared(name, *_states(is_turned))


def _compared(name: str, root: Path, before: TableContent, after: TableContent) -> Figure:
    files = [str([file.path for file in data_files(root, one)]) for one in (before, after)]
    contents = [json.dumps(one.to_content()) for one in (before, after)]
    threads = str(os.cpu_count() or 1)
    expected = [0, 0, ROWS // 1000]
    contenders = {
        "hand": [sys.executable, "-c", _HAND, *files, threads],
        "ours": [sys.executable, "-c", _INSTEP, str(root), *contents],
        "peer": [str(python_with("datacompy", PEER)), "-c", _PEER, *files],
    }
    took: dict[str, list[tuple[float, int]]] = {one: [] for one in contenders}
    for _ in range(ROUNDS):
        for one, command in contenders.items():
            took[one].append(_timed(command, expected))
    seconds = {one: statistics.median(found[0] for found in took[one]) for one in took}
    peaks = {one: max(found[1] for found in took[one]) / 1024**2 for one in took}
    return Figure(
        name,
        seconds["ours"],
        "s",
        seconds["hand"],
        "hand-written DuckDB full join",
        {
            "target_ratio": HAND_BAR,
            "datacompy_s": seconds["peer"],
            "datacompy_over_ours": seconds["peer"] / seconds["ours"],
            "target_datacompy_over_ours": PEER_BAR,
            "rows": ROWS,
            "changed": expected[2],
            "peak_mib": peaks["ours"],
            "peak_limit_mib": MEMORY_BAR_BYTES / 1024**2,
            "datacompy_peak_mib": peaks["peer"],
            "rounds": ROUNDS,
            "threads": int(threads),
        },
    )


def files() -> Iterator[Figure]:
    """One of many files was rewritten; against reading both versions of it, all columns."""
    root = fresh("rowdiff-files")
    table = create_table(root, "t", COLUMNS, at=AT)
    say(f"Writing {FILES:,} files.")
    with DuckDB(root / "staging") as engine:
        for n in range(FILES):
            first = n * ROWS_PER_FILE
            text = select(first, first + ROWS_PER_FILE)
            written = engine.write(text, schema_of(root, table), data_folder(root, table))
            table = append(root, table, written, at=AT)
            if n == FILES // 2:
                old = written[0]
        first = (FILES // 2) * ROWS_PER_FILE
        text = select(first, first + ROWS_PER_FILE, changed=7)
        new = engine.write(text, schema_of(root, table), data_folder(root, table))
    after = replace(root, table, new, [old.path], at=AT)
    ours, reads = [], []
    for _ in range(ROUNDS * 3):
        start = time.perf_counter()
        _read([old.path, new[0].path])
        reads.append((time.perf_counter() - start) * 1000)
        start = time.perf_counter()
        found = diff_rows(root, table, after, ["id"])
        ours.append((time.perf_counter() - start) * 1000)
        assert found.changed == ROWS_PER_FILE // 1000
    milliseconds, read = statistics.median(ours), statistics.median(reads)
    yield Figure(
        "rowdiff-files",
        milliseconds,
        "ms",
        read + FILES_BAR_MS,
        "reading 2 files + 50 ms",
        {"files": FILES, "read_ms": read, "rows_per_file": ROWS_PER_FILE},
    )


def _read(paths: list[str]) -> None:
    import duckdb

    with duckdb.connect() as connection:
        hashed = f"SELECT sum(hash(columns(*))::UHUGEINT) FROM read_parquet({paths})"
        connection.execute(hashed).fetchall()


def _states(is_turned: bool) -> tuple[Path, TableContent, TableContent]:
    root = fresh("rowdiff")
    table = create_table(root, "t", COLUMNS, at=AT)
    states = []
    for changed in (None, 7):
        say(f"Writing {ROWS:,} rows.")
        with DuckDB(root / "staging") as engine:
            text = select(0, ROWS, changed, is_turned=is_turned and changed is not None)
            files = engine.write(text, schema_of(root, table), data_folder(root, table))
        states.append(append(root, table, files, at=AT))
    return root, states[0], states[1]


def select(first: int, end: int, changed: int | None = None, *, is_turned: bool = False) -> str:
    """SQL of rows; every thousandth, from the one numbered `changed`, has another delay."""
    number = f"{first + end - 1} - i" if is_turned else "i"
    delay = "(hash(i + 2) % 1000000) / 997.0"
    if changed is not None:
        delay = f"CASE WHEN i % 1000 = {changed} THEN {delay} + 1 ELSE {delay} END"
    return (
        "SELECT i::BIGINT id, (i % 1000)::INT carrier, 'flight-' || (hash(i) % 100000) flight, "
        "'city ' || (hash(i + 1) % 500) city, md5(i::VARCHAR) tail, "
        f"({delay})::DOUBLE delay, ((hash(i + 3) % 1000) / 3)::DOUBLE distance, "
        "TIMESTAMPTZ '2020-01-01' + to_seconds(i) AS at, hash(i + 4) % 2 = 0 late, "
        f"(hash(i + 5) % 100000)::BIGINT seats "
        f"FROM (SELECT {number} AS i FROM range({first}, {end}) r(i))"
    )


def fresh(name: str) -> Path:
    root = FOLDER / name
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    return root


def _timed(command: list[str], expected: list[int]) -> tuple[float, int]:
    """Returns the seconds that a contender says it took, and its peak of memory in bytes."""
    out = FOLDER / "rowdiff.json"
    took = run([*command, str(out)], FOLDER, measure_memory=True)
    seconds, *counts = json.loads(out.read_text())
    if counts != expected:
        raise RuntimeError(f"{command[0]} found {counts}: expected {expected}.")
    return float(seconds), took.peak_bytes
