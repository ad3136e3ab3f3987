"""DuckDB's Iceberg extension by the documented lines, with and without tokens.

Needs what `tests/fetch-duckdb` puts into `.duckdb`, or into the folder INSTEP_DUCKDB.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rest import SECONDS, Server, make_branch, make_project, rows, serving

from instep.history.commits import first_parents
from instep.history.repository import Repository
from instep.lake import Lake

ROOT = Path(__file__).parents[2]
HOME = Path(os.environ.get("INSTEP_DUCKDB", ROOT / ".duckdb"))
PYTHON = HOME / "venv" / "bin" / "python"

ANA = "a-token-of-ana"

_SCRIPT = """
import importlib.util, json, pathlib, sys
import duckdb
connection = duckdb.connect()
for name in ("avro", "httpfs", "iceberg"):
    home = pathlib.Path(importlib.util.find_spec(f"duckdb_extension_{name}").origin).parent
    (path,) = home.glob("extensions/*/*.duckdb_extension")
    connection.execute(f"LOAD '{path}'")
for text in json.load(sys.stdin):
    print(json.dumps([list(row) for row in connection.execute(text).fetchall()]), flush=True)
"""


@pytest.fixture(autouse=True)
def _extension() -> None:
    if not PYTHON.exists():
        pytest.skip(
            f"DuckDB with its Iceberg extension is missing in {HOME}: run tests/fetch-duckdb"
        )


def answers(*statements: str) -> list[Any]:  # rows of any type
    """Returns what a DuckDB of its own process answers to statements, one after the other."""
    outside = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    found = subprocess.run(
        [PYTHON, "-c", _SCRIPT],
        input=json.dumps(statements),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=outside,
    )
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def documented(server: Server, *, with_token: bool) -> str:
    """Returns the line that attaches the catalog, as documented, for this server."""
    page = (ROOT / "docs" / "iceberg-rest.md").read_text(encoding="utf-8")
    lines: list[str] = re.findall(r"^ATTACH .*?;$", page, re.MULTILINE | re.DOTALL)
    (line,) = (line for line in lines if (" TOKEN '" in line) == with_token)
    assert "http://127.0.0.1:8731/iceberg" in line
    return line.replace("http://127.0.0.1:8731/iceberg", server.url).replace(
        "TOKEN '...'", f"TOKEN '{ANA}'"
    )


def made(project: Path, config: str = "") -> Repository:
    """Makes a lake with a branch that has the table `people` with two rows."""
    repo = make_project(project, config)
    make_branch(repo, "try-spark")
    with Lake(repo).edit("try-spark", message="filled", author="ana") as edit:
        edit.create("people", "select * from (values (1::bigint, 'ana'), (2, 'ben')) t(id, name)")
    return repo


def test_duckdb_reads_a_branch_without_a_token(tmp_path: Path) -> None:
    made(tmp_path)
    with serving(tmp_path) as server:
        found = answers(
            documented(server, with_token=False),
            "SELECT * FROM lake.default.people ORDER BY id",
        )
    assert found[-1] == [[1, "ana"], [2, "ben"]]


def test_duckdb_writes_to_a_branch_with_a_token(tmp_path: Path) -> None:
    repo = made(tmp_path, "people:\n  ana: {role: r, token: {secret: ANA_TOKEN}}\n")
    with serving(tmp_path, "--as", "ana", ANA_TOKEN=ANA) as server:
        found = answers(
            documented(server, with_token=True),
            "INSERT INTO lake.default.people VALUES (3, 'cleo')",
            "UPDATE lake.default.people SET name = 'Ben' WHERE id = 2",
            "DELETE FROM lake.default.people WHERE id = 1",
            "CREATE TABLE lake.default.made AS SELECT 7::BIGINT AS id, DATE '2026-05-05' AS day",
            "SELECT * FROM lake.default.people ORDER BY id",
        )
    assert found[-1] == [[2, "Ben"], [3, "cleo"]]
    expected = [{"id": 2, "name": "Ben"}, {"id": 3, "name": "cleo"}]
    assert rows(repo, "try-spark", "people") == expected
    assert [str(row["day"]) for row in rows(repo, "try-spark", "made")] == ["2026-05-05"]
    with repo.store.reading() as tx:
        latest = next(iter(first_parents(tx, repo.resolve("try-spark"), 1)))
    assert (latest.author, latest.origin) == ("ana", "rest, authenticated")
