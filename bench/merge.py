"""Merging two branches that each changed one row in a thousand of ten million, evenly, by key.

Each side's files were all written anew, so no file is shared; the rows they changed are others.
Held against the row diffs of both sides with their common base, in the same process and run. A
merge also writes all files of the result, which a diff does not.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure, say
from bench.processes import run
from bench.rowdiff import AT, COLUMNS, ROWS, fresh, select
from instep.engines.duckdb import DuckDB
from instep.tables.content import TableContent
from instep.tables.diff import diff_rows
from instep.tables.merge import merge_rows
from instep.tables.read import data_files, schema_of
from instep.tables.write import create_table, data_folder, replace

ROUNDS = 3
BAR = 2.0


def keyed() -> Iterator[Figure]:
    """Times merges and diffs in a process of their own."""
    root = fresh("merge-keyed")
    table = create_table(root, "t", COLUMNS, at=AT)
    states: list[TableContent] = []
    for name, changed in (("base", None), ("ours", 7), ("theirs", 500)):
        say(f"Writing {ROWS:,} rows: {name}.")
        gone = [file.path for file in data_files(root, states[0])] if states else []
        with DuckDB(root / "staging") as engine:
            text = select(0, ROWS, changed)
            files = engine.write(text, schema_of(root, table), data_folder(root, table))
        states.append(replace(root, states[0] if states else table, files, gone, at=AT))
    out = root / "timed.json"
    contents = [json.dumps(dict(state.to_content())) for state in states]
    run([sys.executable, "-m", "bench.merge", str(root), str(out), *contents], Path.cwd())
    diffs, merges, peak = json.loads(out.read_text())
    yield Figure(
        "merge-keyed",
        statistics.median(merges),
        "s",
        statistics.median(diffs),
        "row diffs of both sides with the base",
        {
            "target_ratio": BAR,
            "rows": ROWS,
            "changed_each": ROWS // 1000,
            "columns": len(COLUMNS),
            "codec": "zstd",
            "peak_mib": peak / 1024,
            "rounds": ROUNDS,
        },
    )


def _timed(root: Path, out: Path, states: list[TableContent]) -> None:
    base, ours, theirs = states
    diffs, merges = [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for side in (ours, theirs):
            assert diff_rows(root, base, side, ["id"]).changed == ROWS // 1000
        diffs.append(time.perf_counter() - start)
        start = time.perf_counter()
        merged = merge_rows(root, base, ours, theirs, ["id"], at=AT)
        merges.append(time.perf_counter() - start)
        assert merged.changed == ROWS // 1000
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out.write_text(json.dumps([diffs, merges, peak]))


if __name__ == "__main__":
    _timed(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        [TableContent.from_content(json.loads(text)) for text in sys.argv[3:]],
    )
