"""Ten million rows arrive, and a file of 2,000 columns: checked, profiled, written.

Each is held against a bare DuckDB COPY of its file.

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

WIDE_COLUMNS = 2_000
WIDE_ROWS = 10
WIDE_LIMIT_S = 10.0
HELD = 5
"""How a command ends that holds a file."""

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


_BARE_WIDE = """
import sys, duckdb
connection = duckdb.connect()
connection.execute(f"create table wide as from read_csv('{sys.argv[1]}')")
connection.execute("summarize wide").fetchall()
connection.execute(f"copy wide to '{sys.argv[2]}' (format parquet, compression zstd)")
"""


def wide() -> Iterator[Figure]:
    """A file of many columns and few rows: its draft, then its rows by the draft as it is."""
    FOLDER.mkdir(exist_ok=True)
    source = FOLDER / "wide.csv"
    kinds = (lambda n: str(n), lambda n: f"{n / 7:.3f}", lambda n: f"t{n}", lambda n: f"00{n}")
    lines = [[f"c{column}" for column in range(WIDE_COLUMNS)]]
    lines += [[kinds[c % 4](r * c) for c in range(WIDE_COLUMNS)] for r in range(1, WIDE_ROWS + 1)]
    source.write_text("\n".join(",".join(line) for line in lines) + "\n")
    bare: list[float] = []
    drafted: list[float] = []
    arrived: list[float] = []
    for _ in range(ROUNDS):
        target = FOLDER / "wide.parquet"
        bare.append(
            run([sys.executable, "-c", _BARE_WIDE, str(source), str(target)], FOLDER).seconds
        )
        project = _empty_project("wide")
        command = [INSTEP, "ingest", str(source), "--as", "ana"]
        drafted.append(run(command, project, exits=HELD).seconds)
        draft = (project / "contracts" / "wide.yaml").read_text()
        project = _empty_project("wide")
        (project / "contracts").mkdir()
        (project / "contracts" / "wide.yaml").write_text(draft)
        _merge_contracts(project)
        arrived.append(run(command, project).seconds)
    for name, took in (("wide-draft", drafted), ("wide", arrived)):
        yield Figure(
            name,
            statistics.median(took),
            "s",
            statistics.median(bare),
            "bare DuckDB read_csv, SUMMARIZE and COPY",
            {
                "columns": WIDE_COLUMNS,
                "rows": WIDE_ROWS,
                "limit_s": WIDE_LIMIT_S,
                "rounds": ROUNDS,
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
    folder = _empty_project("ingest")
    (folder / "contracts").mkdir()
    (folder / "contracts" / "flights.yaml").write_text(_contract())
    _merge_contracts(folder)
    return folder


def _merge_contracts(folder: Path) -> None:
    """Puts the contracts of a new project on its main."""
    run([INSTEP, "propose", "--as", "ana"], folder)
    run([INSTEP, "approve", "1", "--as", "ben"], folder)
    run([INSTEP, "merge", "1", "--as", "ana"], folder)


def _empty_project(name: str) -> Path:
    """Returns a new project that has a lake and no contract."""
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(EXAMPLE / "instep.yaml", folder)
    run([INSTEP, "init", "--as", "ana"], folder)
    return folder
