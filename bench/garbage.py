"""Garbage collection over a million files in a thousand tables: the mark, first and once more.

The lake is made once and kept: each table has a thousand empty data files in several manifests,
with statistics of eight columns. Cold is a process that finds none of the lake's metadata in the
page cache; warm is the next one. Both are whole commands that find nothing to delete.
"""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from bench.figures import FOLDER, Figure, say
from bench.processes import Took, run
from instep.clock import system_clock
from instep.engines.engine import ColumnStatistics, WrittenFile
from instep.engines.schema import Column
from instep.history.edits import Edit, publish
from instep.history.repository import MAIN, create_repository
from instep.tables.write import append, create_table, data_folder

TABLES = int(os.environ.get("BENCH_GC_TABLES", "1000"))
FILES = 1000
APPENDS = 4
COLD_S = 120
WARM_S = 15
COLUMNS = 8


def cold() -> Iterator[Figure]:
    project = _lake()
    _forget_cached(project / "lake")
    yield _figure("gc-cold", _collect(project), COLD_S)


def warm() -> Iterator[Figure]:
    project = _lake()
    _collect(project)
    yield _figure("gc-warm", _collect(project), WARM_S)


def _figure(name: str, took: Took, bar: float) -> Figure:
    facts = {"tables": TABLES, "files": TABLES * FILES, "peak_mib": took.peak_bytes / 2**20}
    return Figure(name, took.seconds, "s", bar, "bar", facts)


def _collect(project: Path) -> Took:
    return run([sys.executable, "-m", "instep", "gc"], project, measure_memory=True)


def _lake() -> Path:
    project = FOLDER / f"garbage-{TABLES}"
    if (project / "made").exists():
        return project
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir(parents=True)
    (project / "instep.yaml").write_text("lake: lake\npeople: [ana]\n")
    repo = create_repository(project / "lake", system_clock, "ana")
    changes = {}
    for number in range(TABLES):
        if number % 50 == 0:
            say(f"making table {number} of {TABLES}")
        columns = [Column(0, f"c{one}", "long") for one in range(COLUMNS)]
        table = create_table(repo.root, "t", columns, at=system_clock())
        for _ in range(APPENDS):
            files = _files(data_folder(repo.root, table))
            table = append(repo.root, table, files, at=system_clock())
        changes[f"table/t{number}"] = table.to_content()
    with repo.store.transaction() as tx:
        edit = Edit(repo.resolve(MAIN), changes, "ana", "tables", "bench")
        publish(tx, repo, MAIN, edit)
    repo.store.close()
    (project / "made").touch()
    return project


def _files(folder: Path) -> list[WrittenFile]:
    statistics = tuple(
        ColumnStatistics(one, 40_000, 10_000, 17, 0, "1000000", "2000000")
        for one in range(1, COLUMNS + 1)
    )
    found = []
    for _ in range(FILES // APPENDS):
        path = folder / f"{uuid.uuid4().hex}.parquet"
        path.touch()
        digest = uuid.uuid4().hex * 2
        found.append(WrittenFile(str(path), 10_000, 1_000_000, digest, statistics))
    return found


def _forget_cached(lake: Path) -> None:
    """Removes what Instep keeps of manifests, and takes the rest out of the page cache."""
    shutil.rmtree(lake / "cache", ignore_errors=True)
    os.sync()
    for path in (lake / "catalog.sqlite", *lake.glob("tables/*/metadata/*")):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
