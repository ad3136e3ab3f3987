"""DuckDB's Iceberg extension by the documented lines, with and without tokens.

Needs what `tests/fetch-duckdb` puts into `.duckdb`, or into the folder INSTEP_DUCKDB.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
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
    found = _run(statements)
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def failure(*statements: str) -> str:
    """Returns what the last of some statements fails with."""
    found = _run(statements)
    assert len(found.stdout.splitlines()) == len(statements) - 1, found.stderr
    return found.stderr


def _run(statements: Sequence[str]) -> subprocess.CompletedProcess[str]:
    outside = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [PYTHON, "-c", _SCRIPT],
        input=json.dumps(statements),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=outside,
    )


def documented(server: Server, token: str | None = None) -> str:
    """Returns the line that attaches the catalog, as documented, for this server."""
    page = (ROOT / "docs" / "iceberg-rest.md").read_text(encoding="utf-8")
    lines: list[str] = re.findall(r"^ATTACH .*?;$", page, re.MULTILINE | re.DOTALL)
    (line,) = (line for line in lines if (" TOKEN '" in line) == (token is not None))
    assert "http://127.0.0.1:8731/iceberg" in line
    there = line.replace("http://127.0.0.1:8731/iceberg", server.url)
    return there.replace("TOKEN '...'", f"TOKEN '{token}'")


def made(project: Path, config: str = "") -> Repository:
    """Makes a lake with a branch that has the table `people` with two rows."""
    repo = make_project(project, config)
    make_branch(repo, "try-spark")
    with Lake(repo).edit("try-spark", message="filled", author="ana") as edit:
        edit.create("people", "select * from (values (1::bigint, 'ana'), (2, 'ben')) t(id, name)")
    return repo


def test_duckdb_reads_a_branch_without_a_token_and_is_told_that_it_may_not_write(
    tmp_path: Path,
) -> None:
    repo = made(tmp_path)
    with serving(tmp_path, "--as", "ana") as server:
        found = answers(documented(server), "SELECT * FROM lake.default.people ORDER BY id")
        assert found[-1] == [[1, "ana"], [2, "ben"]]
        error = failure(documented(server), "INSERT INTO lake.default.people VALUES (3, 'cleo')")
    assert "token" in error
    assert len(rows(repo, "try-spark", "people")) == 2


@pytest.mark.parametrize(
    ("config", "basis"),
    [
        ("people:\n  ana: {role: r, token: {secret: ANA_TOKEN}}\n", "authenticated"),
        ("", "asserted"),
    ],
    ids=["a person's token", "the token of the process"],
)
def test_duckdb_writes_to_a_branch_with_a_token(tmp_path: Path, config: str, basis: str) -> None:
    repo = made(tmp_path, config)
    with serving(tmp_path, "--as", "ana", ANA_TOKEN=ANA) as server:
        found = answers(
            documented(server, server.token or ANA),
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
    assert (latest.author, latest.origin) == ("ana", f"rest, {basis}")
