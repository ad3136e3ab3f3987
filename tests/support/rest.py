"""A real `instep serve` process without an environment, and the clients that ask it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
from buckets import Bucket
from commands import Running, start
from pyiceberg.catalog.rest import RestCatalog

from instep.clock import system_clock
from instep.history.refs import RefKind, create_ref
from instep.history.repository import MAIN, Repository, create_repository
from instep.history.store import Database
from instep.lake import Lake

SECONDS = 60
"""The most any one step may take on a busy machine."""

Body = Mapping[str, Any]  # JSON


@dataclass(frozen=True, slots=True)
class Server:
    """One server process that said it is ready."""

    running: Running
    ready: Body

    @property
    def url(self) -> str:
        return str(self.ready["iceberg"])

    @property
    def token(self) -> str | None:
        """The token of the process, if it has made one."""
        found = self.ready["token"]
        return None if found is None else str(found)

    def ask(
        self, method: str, path: str, body: Body | None = None, **headers: str
    ) -> httpx.Response:
        """Sends one request with the process's token; `_` in a header's name stands for `-`."""
        if self.token is not None:
            headers = {"Authorization": f"Bearer {self.token}", **headers}
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return httpx.request(
            method, f"{self.url}/v1/{path}", json=body, headers=named, timeout=SECONDS
        )

    def catalog(self, warehouse: str, **properties: str) -> RestCatalog:
        if self.token is not None and not properties.keys() & {"token", "credential"}:
            properties["token"] = self.token
        return RestCatalog("lake", uri=self.url, warehouse=warehouse, **properties)

    def stop(self) -> int:
        return self.running.stop().code


@contextmanager
def serving(project: Path, *options: str, fault: str = "", **variables: str) -> Iterator[Server]:
    """Runs `instep serve`; variables are set in its environment."""
    words = ("serve", "--port", "0", "--json", *options)
    running = start(*words, at=project, actor="", fault=fault, env=variables, seconds=0)
    try:
        yield Server(running, json.loads(running.out.readline()))
    finally:
        running.kill()


def make_project(folder: Path, config: str = "") -> Repository:
    """Makes a project with an empty lake, and opens the lake."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "instep.yaml").write_text(f"lake: lake\n{config}")
    return create_repository(folder / "lake", system_clock, "ana")


def make_shared_project(folder: Path, bucket: Bucket, url: str) -> Repository:
    """Makes a project whose lake is in PostgreSQL at `url`, with its files in a bucket."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "instep.yaml").write_text(bucket.project_line(url) + "\n")
    database = Database(url, bucket.schema)
    return create_repository(bucket.root(folder / "lake"), system_clock, "ana", database)


def make_branch(repo: Repository, name: str, at: str = MAIN, kind: RefKind = RefKind.BRANCH) -> str:
    """Makes a ref at what another is at, and returns its name."""
    with repo.store.transaction() as tx:
        create_ref(tx, name, kind, repo.resolve(at), owner="ana", at=repo.clock())
    return name


def rows(repo: Repository, ref: str, table: str, order: str = "id") -> list[dict[str, Any]]:
    """Returns a table's rows as Instep's own engine reads them; values are of any type."""
    found = Lake(repo).branch(ref).table(table).sql(f'select * from "{table}" order by {order}')
    return list(found.to_pylist())


def people(*rows: tuple[int, str]) -> pa.Table:
    """Returns a small table of (id, name)."""
    numbers = pa.array([number for number, _ in rows], pa.int64())
    return pa.table({"id": numbers, "name": pa.array([name for _, name in rows], pa.string())})
