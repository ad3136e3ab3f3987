"""Tables larger than memory: each act in a process of its own that cannot have more than 2 GiB.

The system refuses what it asks for beyond that (RLIMIT_DATA: all private memory, touched or not),
and its peak of resident memory, which counts mapped files too, is asserted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from instep.canonical import JsonObject
from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column, literal
from instep.history.edits import Edit, publish
from instep.history.repository import MAIN, create_repository
from instep.tables.content import TableContent
from instep.tables.read import row_count, schema_of
from instep.tables.write import append, create_table, data_folder

AT = datetime(2026, 1, 1, tzinfo=UTC)
MIB = 1024**2
TEXTS = 8
ARROW_BYTES_PER_ROW = 8 + 8 + TEXTS * (32 + 4)
WHOLE = 20 * 1024 * MIB // ARROW_BYTES_PER_ROW
"""Rows that are 20 GiB as Arrow, both sides of a diff together."""

COLUMNS = (
    Column(0, "k", "long"),
    Column(0, "amount", "double"),
    *(Column(0, f"t{n}", "string") for n in range(TEXTS)),
)

_LIMITED = """
import json, resource
resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))
def told(found):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps([found, peak]))
"""

_DIFF = """
import json, sys
from pathlib import Path
from instep.tables.content import TableContent
from instep.tables.diff import open_diff
states = [TableContent.from_content(json.loads(one)) for one in sys.argv[2:4]]
with open_diff(Path(sys.argv[1]), *states, ["k"]) as rows:
    found = rows.summary(5)
    written = rows.write(Path(sys.argv[1]) / "apart.parquet")
told([found.added, found.removed, found.changed, written])
"""

_COMPACT = """
import json, sys
from datetime import UTC, datetime
from pathlib import Path
from instep.tables.compact import compact_state
from instep.tables.content import TableContent
table = TableContent.from_content(json.loads(sys.argv[2]))
done = compact_state(Path(sys.argv[1]), table, at=datetime(2026, 1, 2, tzinfo=UTC))
told([done.before.files, done.after.files])
"""

_INGEST = """
import json, sys
from datetime import UTC, datetime
from pathlib import Path
from instep.history.repository import open_repository
from instep.ingest.arrive import ingest
root, file = Path(sys.argv[1]), Path(sys.argv[2])
repo = open_repository(root, lambda: datetime(2026, 1, 2, tzinfo=UTC))
arrived = ingest(repo, root.parent, file, "ana")
told([arrived.state.value, arrived.arrival.rows, arrived.arrival.quarantined])
"""

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: many
version: 1.0.0
status: active
servers:
  - {server: files, type: local, path: "many*.parquet", format: parquet}
  - {server: texts, type: local, path: "many*.csv.gz", format: csv}
schema:
  - name: many
    customProperties:
      - {property: mergePolicy, value: append}
      - {property: maxQuarantined, value: 0.01}
    properties:
      - {name: k, logicalType: integer, primaryKey: true}
      - {name: amount, logicalType: number, logicalTypeOptions: {minimum: 0}}
""" + "\n".join(f"      - {{name: t{n}, logicalType: string}}" for n in range(TEXTS))


def _told(script: str, *arguments: str) -> list[Any]:  # what the script tells
    """Runs a script in a process that cannot have more than 2 GiB; returns what it tells."""
    command = [sys.executable, "-c", _LIMITED + script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=7200, check=True)
    found, peak = json.loads(done.stdout.splitlines()[-1])
    print(f"peak of {peak / MIB:,.0f} MiB")
    assert peak < 2048 * MIB
    return list(found)


def _written(
    root: Path, table: TableContent, rows: int, key: str, amount: str, file_bytes: int = 128 * MIB
) -> TableContent:
    texts = ", ".join(f"md5((i % 5000 + {n})::VARCHAR) AS t{n}" for n in range(TEXTS))
    select = f"SELECT ({key})::BIGINT k, ({amount})::DOUBLE amount, {texts} FROM range({rows}) r(i)"
    with DuckDB(root / "staging") as engine:
        files = engine.write(select, schema_of(root, table), data_folder(root, table), file_bytes)
    return append(root, table, files, at=AT)


WIDTH = 400
"""Letters of a text that arrives: few long values are sooner written than many short ones."""

ARRIVING = 20 * 1024 * MIB // (8 + 8 + TEXTS * (WIDTH + 4))
"""Rows of an arrival that is 20 GiB as Arrow."""


def _source(path: Path, rows: int, options: str) -> Path:
    """A file whose every ten thousandth row breaks the contract."""
    texts = ", ".join(f"lpad((i % 999 + {n})::VARCHAR, {WIDTH}, 'x') AS t{n}" for n in range(TEXTS))
    amount = "CASE WHEN i % 10000 = 17 THEN -1 ELSE i % 1000 END"
    select = f"SELECT i AS k, ({amount})::DOUBLE AS amount, {texts} FROM range({rows}) r(i)"
    with DuckDB(path.parent / "staging") as engine:
        engine.allow(path.parent)
        engine.run(f"COPY ({select}) TO {literal(str(path))} ({options})")
    return path


@pytest.mark.parametrize(
    ("rows", "name", "options"),
    [
        pytest.param(50_000, "many.parquet", "FORMAT parquet, COMPRESSION zstd", id="small"),
        pytest.param(30_000, "many.csv.gz", "FORMAT csv, COMPRESSION gzip", id="small-csv"),
        pytest.param(
            ARRIVING, "many.parquet", "FORMAT parquet, COMPRESSION zstd", id="20-gib",
            marks=pytest.mark.long,
        ),
        pytest.param(
            ARRIVING // 4, "many.csv.gz", "FORMAT csv, COMPRESSION gzip", id="5-gib-csv",
            marks=pytest.mark.long,
        ),
    ],
)  # fmt: skip
def test_an_arrival_holds_no_whole_table(
    tmp_path: Path, rows: int, name: str, options: str
) -> None:
    repo = create_repository(tmp_path / "lake", lambda: AT, "ana")
    changes: dict[str, JsonObject | None] = {
        "contract/many": {
            "type": "instep.contract.v1", "blob": repo.objects.put(CONTRACT.encode())
        }
    }  # fmt: skip
    with repo.store.transaction() as tx:
        publish(tx, repo, MAIN, Edit(repo.resolve(MAIN), changes, "ana", "contract", "test"))
    file = _source(tmp_path / name, rows, options)

    state, read, aside = _told(_INGEST, str(repo.root), str(file))

    assert (state, read, aside) == ("merged", rows, (rows - 18) // 10_000 + 1)
    table = TableContent.from_content(repo.content(repo.resolve(MAIN), "table/many"))
    assert row_count(repo.root, table) == rows - aside
    assert not any((repo.root / "staging").iterdir())


@pytest.mark.parametrize("key", ["i", "hash(i) >> 1"], ids=["ordered", "scattered"])
@pytest.mark.parametrize(
    ("rows", "every"),
    [
        pytest.param(300_000, 100, id="small"),
        pytest.param(WHOLE // 2, 100, id="20-gib", marks=pytest.mark.long),
        pytest.param(WHOLE // 8, 1, id="5-gib-all-changed", marks=pytest.mark.long),
    ],
)
def test_a_diff_holds_no_whole_table(tmp_path: Path, key: str, rows: int, every: int) -> None:
    table = create_table(tmp_path, "t", COLUMNS, at=AT)
    before = _written(tmp_path, table, rows, key, "i")
    after = _written(
        tmp_path, table, rows, key, f"CASE WHEN i % {every} = 0 THEN i + 0.5 ELSE i END"
    )
    states = [json.dumps(one.to_content()) for one in (before, after)]

    added, removed, changed, written = _told(_DIFF, str(tmp_path), *states)

    count = (rows + every - 1) // every
    assert (added, removed, changed, written) == (0, 0, count, count)
    assert not any((tmp_path / "staging").iterdir())


@pytest.mark.parametrize(
    ("rows", "file_bytes"),
    [
        pytest.param(300_000, MIB // 4, id="small"),
        pytest.param(WHOLE, 8 * MIB, id="20-gib", marks=pytest.mark.long),
    ],
)
def test_a_compaction_holds_no_whole_table(tmp_path: Path, rows: int, file_bytes: int) -> None:
    table = create_table(tmp_path, "t", COLUMNS, at=AT)
    state = _written(tmp_path, table, rows, "i", "i", file_bytes)

    before, after = _told(_COMPACT, str(tmp_path), json.dumps(state.to_content()))

    assert after < before / 2
    assert row_count(tmp_path, state) == rows
