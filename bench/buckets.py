"""What an append costs when a table's files are on S3: requests that wait for one another.

The append is that of the bench `append`, without its commit, which asks no store: 1,000 rows
written by DuckDB, the data file, and all that Iceberg and Instep keep of it. The server is moto's,
in a process of its own; every request waits 30 ms before it is sent. A request that begins before
another has ended does not wait for it: the critical path is the longest chain of those that do.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, local
from typing import Any

from bench.figures import FOLDER, Extra, Figure
from bench.tables import ROWS, TYPES, rows_of
from instep.clock import system_clock
from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column
from instep.history.places import on_s3, s3_root
from instep.tables.read import schema_of
from instep.tables.write import append, create_table, data_folder

DELAY_S = 0.03
APPENDS = int(os.environ.get("BENCH_S3_APPENDS", "30"))
BAR = 10

_SERVE = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print("http://%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


@dataclass(slots=True)
class Requests:
    """Counts requests, and the longest chain of those that waited for one another."""

    count: int = 0
    longest: int = 0
    _depth: local = field(default_factory=local)
    _lock: Lock = field(default_factory=Lock)

    def begin(self, **told: Any) -> None:  # as botocore hands it over
        with self._lock:
            self.count += 1
            self._depth.now = self.longest + 1
        time.sleep(DELAY_S)

    def end(self, **told: Any) -> None:  # as above
        with self._lock:
            self.longest = max(self.longest, self._depth.now)


def s3_append() -> Iterator[Figure]:
    """Yields the requests on the critical path of an append, and its median time."""
    folder = FOLDER / "s3-append"
    shutil.rmtree(folder, ignore_errors=True)
    with _server() as url:
        counts, longest, took = _appends(folder, url)
    shape: Extra = {
        "appends": APPENDS,
        "rows": ROWS,
        "columns": len(TYPES),
        "delay_ms": DELAY_S * 1000,
        "requests": max(counts),
        "median_ms": statistics.median(took),
    }
    yield Figure("s3-append", max(longest), "requests", BAR, "bar, on the critical path", shape)


def _appends(folder: Path, url: str) -> tuple[list[int], list[int], list[float]]:
    root = s3_root("s3://bench/lake", folder, url, None)
    remote = on_s3(root)
    assert remote is not None, "the root was made as one on S3"
    client = remote.bucket.client()
    client.create_bucket(Bucket="bench")
    events = client.meta.events
    table = create_table(
        root, "t", [Column(0, f"c{n}", kind) for n, kind in enumerate(TYPES)], at=system_clock()
    )
    counts, longest, took = [], [], []
    for number in range(APPENDS):
        seen = Requests()
        events.register("before-send.s3", seen.begin, unique_id="begin")
        events.register("after-call.s3", seen.end, unique_id="end")
        start = time.perf_counter()
        with DuckDB(root / "staging") as engine:
            schema = schema_of(root, table)
            files = engine.write(rows_of(number), schema, data_folder(root, table))
        table = append(root, table, files, at=system_clock())
        took.append((time.perf_counter() - start) * 1000)
        events.unregister("before-send.s3", unique_id="begin")
        events.unregister("after-call.s3", unique_id="end")
        counts.append(seen.count)
        longest.append(seen.longest)
    return counts, longest, took


@contextmanager
def _server() -> Iterator[str]:
    """Gives the address of a server that ends with the context."""
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "not-checked",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None, "it was asked for"
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
