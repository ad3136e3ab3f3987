"""What profiles cost: one file appended to a thousand; ten million rows written with and without.

`write` compares with a bare DuckDB COPY of the same rows with the same codec, row groups and
columns, threads and memory limit, in a process of its own just before each round.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import FOLDER, Figure, say
from bench.processes import Took, run

ROUNDS = 3
FILES = 1_000
FILE_ROWS = 1_000
WRITTEN_ROWS = 10_000_000
TARGET_COLUMN_MS = 10.0
TARGET_WRITE = 1.2
TARGET_PROFILED = 1.9
THREADS = 2
TABLE = "measurements"

_ROWS = """
    select (range + {start})::bigint as id, (range % 1000)::int as kind,
    timestamptz '2020-01-01 00:00:00+00' + to_seconds(range + {start}) as at,
    (hash(range + {start}) % 1000000) / 1000.0::double as price,
    (hash(range + {start} + 7) % 10000)::int as quantity,
    'c' || (hash(range + {start} + 3) % 16) as carrier,
    'N' || (hash(range + {start} + 5) % 4000) as tail,
    (hash(range + {start} + 13) / 1.8446744073709552e19)::double as score,
    (hash(range + {start} + 9) % 2 = 0) as flag,
    'note ' || (hash(range + {start} + 11) % 1000000) as note
    from range({rows})
"""
COLUMNS = 10

_BARE = """
import sys, duckdb
source, target, threads, limit, size = sys.argv[1:]
connection = duckdb.connect(config={
    "threads": int(threads), "preserve_insertion_order": False, "memory_limit": limit + "B"})
connection.execute(
    f"copy (select * from read_parquet('{source}')) to '{target}' "
    f"(format parquet, compression zstd, file_size_bytes {size})"
)
"""


def reprofile() -> Iterator[Figure]:
    """One file appended to a table of 1,000: its own profile, and merging it with all others."""
    import duckdb

    from instep.clock import system_clock
    from instep.engines.duckdb import DuckDB
    from instep.tables.profile_keep import profile_files, profile_table
    from instep.tables.read import DataFile, schema_of
    from instep.tables.write import append, create_table, data_folder

    root = FOLDER / "reprofile"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    say(f"Writing {FILES:,} files.")
    files: list[DataFile] = []
    with DuckDB(root / "staging", threads=THREADS) as engine:
        rows = engine.describe(_ROWS.format(start=0, rows=FILE_ROWS))
        table = create_table(root, TABLE, rows.columns, at=system_clock())
        schema, folder = schema_of(root, table), data_folder(root, table)
        for place in range(FILES + ROUNDS):
            sql = _ROWS.format(start=place * FILE_ROWS, rows=FILE_ROWS)
            files += engine.write(sql, schema, folder)
    table = append(root, table, files[:FILES], at=system_clock())
    start = time.perf_counter()
    profile_table(root, table)
    first = time.perf_counter() - start
    alone, all_in = [], []
    for file in files[FILES:]:
        table = append(root, table, [file], at=system_clock())
        start = time.perf_counter()
        profile_files(root, table, [file])
        alone.append((time.perf_counter() - start) * 1e3)
        start = time.perf_counter()
        profile_table(root, table)
        all_in.append(alone[-1] + (time.perf_counter() - start) * 1e3)
    yield Figure(
        "reprofile",
        statistics.median(all_in),
        "ms",
        statistics.median(alone) + TARGET_COLUMN_MS * COLUMNS,
        "one file's profile and 10 ms per column",
        {
            "one_file_ms": statistics.median(alone),
            "columns": COLUMNS,
            "files": FILES,
            "rows_per_file": FILE_ROWS,
            "all_profiled_first_s": first,
            "rounds": ROUNDS,
            "duckdb": duckdb.__version__,
        },
    )


def write() -> Iterator[Figure]:
    """Ten million rows through an edit (write, append, commit), and with profiles."""
    from instep.engines.duckdb import MEMORY_LIMIT_BYTES, TARGET_FILE_BYTES

    source, target, lake = _source(), FOLDER / "bare", FOLDER / "write"
    limits = [str(THREADS), str(MEMORY_LIMIT_BYTES), str(TARGET_FILE_BYTES)]
    bare: list[Took] = []
    took: dict[str, list[Took]] = {"plain": [], "profiled": []}
    told: dict[str, float] = {}
    for _ in range(ROUNDS):
        command = [sys.executable, "-c", _BARE, str(source), str(target), *limits]
        bare.append(run(command, FOLDER, measure_memory=True))
        shutil.rmtree(target)
        for how, times in took.items():
            shutil.rmtree(lake, ignore_errors=True)
            _begin(lake)
            command = [sys.executable, "-m", "bench.profiles", str(lake), str(source), how]
            times.append(run(command, Path.cwd(), measure_memory=True))
            told = json.loads((lake / "told.json").read_text())
    shutil.rmtree(lake)
    against = statistics.median(one.seconds for one in bare)
    for how, target_ratio in (("plain", TARGET_WRITE), ("profiled", TARGET_PROFILED)):
        yield Figure(
            "write" if how == "plain" else "write-profiled",
            statistics.median(one.seconds for one in took[how]),
            "s",
            against,
            "bare DuckDB COPY",
            {
                "target_ratio": target_ratio,
                "rows": WRITTEN_ROWS,
                "columns": COLUMNS,
                "files": told["files"],
                "codec": "zstd",
                "threads": THREADS,
                "peak_mib": max(one.peak_bytes for one in took[how]) / 1024**2,
                "bare_peak_mib": max(one.peak_bytes for one in bare) / 1024**2,
                "rounds": ROUNDS,
            },
        )


def _source() -> Path:
    """Returns the Parquet file that is written again, made once."""
    import duckdb

    path = FOLDER / "measurements.parquet"
    if not path.exists():
        say("Writing ten million rows.")
        FOLDER.mkdir(exist_ok=True)
        draft = path.with_suffix(".draft")
        connection = duckdb.connect(config={"preserve_insertion_order": False})
        rows = _ROWS.format(start=0, rows=WRITTEN_ROWS)
        connection.execute(f"copy ({rows}) to '{draft}' (format parquet, compression zstd)")
        draft.rename(path)
    return path


def _begin(lake: Path) -> None:
    from instep.clock import system_clock
    from instep.history.repository import create_repository

    create_repository(lake, system_clock, "bench")


def _write_once(lake: Path, source: Path, how: str) -> None:
    """The process that is timed: a new table of all rows, in an edit that becomes a commit."""
    from instep.clock import system_clock
    from instep.engines.duckdb import DuckDB
    from instep.history.edits import Edit, publish
    from instep.history.repository import MAIN, open_repository
    from instep.tables.profile_keep import profile_table
    from instep.tables.read import file_count, schema_of
    from instep.tables.write import append, create_table, data_folder

    repo = open_repository(lake, system_clock)
    sql = f"select * from read_parquet('{source}')"
    with DuckDB(repo.root / "staging", threads=THREADS) as engine:
        engine.allow(source)
        table = create_table(repo.root, TABLE, engine.describe(sql).columns, at=system_clock())
        files = engine.write(sql, schema_of(repo.root, table), data_folder(repo.root, table))
    table = append(repo.root, table, files, at=system_clock())
    if how == "profiled":
        profile_table(repo.root, table)
    changes = {f"table/{TABLE}": table.to_content()}
    edit = Edit(repo.resolve(MAIN), changes, "bench", "ten million rows", "bench")
    with repo.store.transaction() as tx:
        publish(tx, repo, MAIN, edit)
    (lake / "told.json").write_text(json.dumps({"files": file_count(repo.root, table)}))


if __name__ == "__main__":
    _write_once(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
