"""Ten million rows arrive: checked, profiled, written; against a bare DuckDB COPY of the file.

The file is the flights of 2013 thirty times over, each time shifted by whole years so that keys
stay unique. The COPY has the same codec and the same number of threads, and runs in a process of
its own just before each arrival. Memory is that of the process and its children together.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.figures import FOLDER, Figure, say
from bench.flights import EXAMPLE, csv_files
from bench.processes import INSTEP, Took, run

COPIES = 30
ROUNDS = 3
TARGET_RATIO = 2.5
MEMORY_LIMIT_BYTES = 2 * 1024**3
LEAST_TERMS = 30

_BARE = """
import sys, duckdb
connection = duckdb.connect(config={"threads": int(sys.argv[3]), "preserve_insertion_order": False})
connection.execute(
    f"copy (select * from read_parquet('{sys.argv[1]}')) to '{sys.argv[2]}' "
    "(format parquet, compression zstd)"
)
"""


def ingest() -> Iterator[Figure]:
    source = _source()
    threads = os.cpu_count() or 1
    copies: list[float] = []
    arrivals: list[Took] = []
    accepted = 0
    for _ in range(ROUNDS):
        target = FOLDER / "bare.parquet"
        bare = [sys.executable, "-c", _BARE, str(source), str(target), str(threads)]
        copies.append(run(bare, FOLDER).seconds)
        target.unlink()
        project = _project()
        arrivals.append(
            run([INSTEP, "ingest", str(source), "--as", "ana"], project, measure_memory=True)
        )
        accepted = _accepted(project)
    seconds = statistics.median(took.seconds for took in arrivals)
    terms = _terms()
    yield Figure(
        "ingest",
        seconds,
        "s",
        statistics.median(copies),
        "bare DuckDB COPY",
        {
            "target_ratio": TARGET_RATIO,
            "rows": _rows(source),
            "rows_accepted": accepted,
            "terms": terms,
            "terms_enough": terms >= LEAST_TERMS,
            "peak_mib": max(took.peak_bytes for took in arrivals) / 1024**2,
            "peak_limit_mib": MEMORY_LIMIT_BYTES / 1024**2,
            "rounds": ROUNDS,
            "threads": threads,
        },
    )


def _source() -> Path:
    """Returns the Parquet file that arrives, made once."""
    import duckdb

    path = FOLDER / "flights-many.parquet"
    if not path.exists():
        say("Writing ten million flights.")
        FOLDER.mkdir(exist_ok=True)
        draft = path.with_suffix(".draft")
        connection = duckdb.connect(config={"preserve_insertion_order": False})
        connection.execute("set timezone = 'UTC'")
        flights = f"read_csv('{csv_files()['flights']}', nullstr = 'NA', sample_size = -1)"
        connection.execute(
            "copy (select * exclude (copy) replace "
            "(time_hour::timestamptz + to_years(copy::integer) as time_hour) "
            f"from {flights}, (select unnest(range({COPIES})) as copy)) "
            f"to '{draft}' (format parquet, compression zstd)"
        )
        draft.rename(path)
    return path


def _rows(source: Path) -> int:
    import duckdb

    found = duckdb.connect().execute(f"select count(*) from read_parquet('{source}')").fetchone()
    return int(found[0]) if found else 0


def _accepted(project: Path) -> int:
    """Returns the rows that main has after the arrival."""
    from instep.clock import system_clock
    from instep.history.repository import MAIN, open_repository
    from instep.tables.content import TableContent
    from instep.tables.read import row_count

    repo = open_repository(project / "lake", system_clock)
    content = repo.content(repo.resolve(MAIN), "table/flights")
    return row_count(repo.root, TableContent.from_content(content))


def _contract() -> str:
    """Returns the example's contract of flights, for a Parquet file."""
    text = (EXAMPLE / "contracts" / "flights.yaml").read_text()
    return (
        text.replace('path: "flights-*.csv"', 'path: "flights-*.parquet"')
        .replace("format: csv", "format: parquet")
        .replace("    customProperties:\n      - {property: nullMarker, value: NA}\n", "")
    )


def _terms() -> int:
    from instep.contracts.document import parse

    contract = parse(_contract(), "contracts/flights.yaml")
    columns = sum(len(list(column.sentences())) for column in contract.columns)
    return columns + len(contract.batch) + bool(contract.key)


def _project() -> Path:
    """Returns a new project whose main has the contract of flights and no rows yet."""
    folder = FOLDER / "ingest"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "contracts").mkdir(parents=True)
    (folder / "contracts" / "flights.yaml").write_text(_contract())
    shutil.copy(EXAMPLE / "instep.yaml", folder)
    run([INSTEP, "init", "--as", "ana"], folder)
    run([INSTEP, "propose", "--as", "ana"], folder)
    run([INSTEP, "approve", "1", "--as", "ben"], folder)
    run([INSTEP, "merge", "1", "--as", "ana"], folder)
    return folder
