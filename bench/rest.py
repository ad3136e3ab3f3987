"""The Iceberg REST catalog over HTTP: loading a table of 1,000 files, and committing to one.

One server process with one worker. A commit is an append by pyiceberg: it has written a data file,
a manifest and a manifest list, and what is measured is its request, in which the server makes them
a state of its own. The second figure is a commit that only sets a property.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from bench.figures import Figure
from bench.processes import environment
from instep.clock import system_clock
from instep.engines.engine import WrittenFile
from instep.engines.schema import Column
from instep.history.edits import Edit, commit_edit
from instep.history.refs import RefKind, create_ref
from instep.history.repository import MAIN, create_repository
from instep.tables.write import append, create_table, data_folder

FILES = 1000
LOADS = 600
CLIENTS = 4
COMMITS = 100
ROWS = 1000
LOAD_MS, LOADS_PER_S, COMMIT_MS = 20, 200, 40
_TABLE = "/iceberg/v1/work/namespaces/default/tables/readings"


def load() -> Iterator[Figure]:
    with _server() as (host, port, _):
        _load(host, port, 20)
        started = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as pool:
            took = list(pool.map(lambda _: _load(host, port, LOADS // CLIENTS), range(CLIENTS)))
        per_second = LOADS / (time.perf_counter() - started)
        alone = _load(host, port, 100)
    more = {
        "files": FILES,
        "clients": CLIENTS,
        "p50_ms_at_full": median(one for times in took for one in times) * 1000,
    }
    yield Figure("rest-load", median(alone) * 1000, "ms", LOAD_MS, "at most", more)
    yield Figure("rest-load-rate", per_second, "loads/s", LOADS_PER_S, "at least", more)


def commit() -> Iterator[Figure]:
    with _server() as (host, port, token):
        appends = _append(f"http://{host}:{port}/iceberg", token, COMMITS)
        alters = _alter(host, port, token, COMMITS)
    shape = {"files": FILES, "commits": COMMITS}
    yield Figure(
        "rest-commit", median(appends) * 1000, "ms", COMMIT_MS, "at most",
        {**shape, "rows": ROWS, "p99_ms": _p99(appends)},
    )  # fmt: skip
    yield Figure(
        "rest-commit-properties", median(alters) * 1000, "ms", COMMIT_MS, "at most",
        {**shape, "p99_ms": _p99(alters)},
    )  # fmt: skip


def _p99(took: list[float]) -> float:
    return sorted(took)[-1 - len(took) // 100] * 1000


def _load(host: str, port: int, times: int) -> list[float]:
    connection = http.client.HTTPConnection(host, port, timeout=60)
    return [_asked(connection, "GET", {}, None) for _ in range(times)]


def _append(url: str, token: str, times: int) -> list[float]:
    """Appends as a client does, and returns how long each of its commits took to be answered."""
    import pyarrow as pa
    from pyiceberg.catalog.rest import RestCatalog
    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter

    took: list[float] = []

    class Timed(HTTPAdapter):
        def send(
            self, request: PreparedRequest, *args: Any, **options: Any
        ) -> Response:  # as given
            started = time.perf_counter()
            reply = super().send(request, *args, **options)
            if request.method == "POST":
                took.append(time.perf_counter() - started)
            return reply

    catalog = RestCatalog("bench", uri=url, warehouse="work", token=token)
    catalog._session.mount("http://", Timed())
    table = catalog.load_table("default.readings")
    rows = pa.table({"n": pa.array(range(ROWS), pa.int64())})
    for _ in range(times + 1):
        table.append(rows)
    return took[1:]  # the first imports pyiceberg


def _alter(host: str, port: int, token: str, times: int) -> list[float]:
    connection = http.client.HTTPConnection(host, port, timeout=60)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    return [
        _asked(
            connection,
            "POST",
            headers,
            {
                "requirements": [],
                "updates": [{"action": "set-properties", "updates": {"n": str(number)}}],
            },
        )
        for number in range(times)
    ]


def _asked(
    connection: http.client.HTTPConnection, method: str, headers: dict[str, str], body: object
) -> float:
    started = time.perf_counter()
    connection.request(method, _TABLE, None if body is None else json.dumps(body), headers)
    reply = connection.getresponse()
    told = reply.read()
    took = time.perf_counter() - started
    assert reply.status == 200, told
    return took


@contextmanager
def _server() -> Iterator[tuple[str, int, str]]:
    """Runs a server, and yields its host, its port and the token of its process."""
    with tempfile.TemporaryDirectory() as place:
        _fill(Path(place))
        process = subprocess.Popen(
            [sys.executable, "-m", "instep", "serve", "--port", "0", "--json", "--as", "ana"],
            cwd=place,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert process.stdout is not None
        try:
            ready = json.loads(process.stdout.readline())
            address = urlsplit(ready["url"])
            yield str(address.hostname), int(address.port or 0), ready["token"]
        finally:
            process.terminate()
            process.wait(timeout=60)


def _fill(project: Path) -> None:
    """Makes a lake whose branch `work` has a table of many files; that they are not there is so."""
    (project / "instep.yaml").write_text("lake: lake\n")
    repo = create_repository(project / "lake", system_clock, "ana")
    with repo.store.transaction() as tx:
        create_ref(tx, "work", RefKind.BRANCH, repo.resolve(MAIN), owner="ana", at=repo.clock())
    table = create_table(repo.root, "readings", [Column(0, "n", "long")], at=repo.clock())
    data = data_folder(repo.root, table)
    files = [
        WrittenFile(f"{data}/{number}.parquet", 1000, 8000, f"{number:064x}", ())
        for number in range(FILES)
    ]
    table = append(repo.root, table, files, at=repo.clock())
    changes = {"table/readings": table.to_content()}
    commit_edit(repo, "work", Edit(repo.resolve("work"), changes, "ana", "Many files", "bench"))
