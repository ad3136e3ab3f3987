"""Tables larger than memory: each act in a process of its own, whose peak must be below 2 GiB.

That is resident memory, mapped files too, as the system tells it at the end. Private memory, what
an allocator keeps and nobody touches too, has a hard limit (RLIMIT_DATA) of 4 GiB: an act that
holds a whole table fails there, at once.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from instep.canonical import JsonObject
from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column
from instep.history.edits import Edit, publish
from instep.history.repository import MAIN, create_repository
from instep.tables.content import TableContent
from instep.tables.read import data_files, row_count, schema_of
from instep.tables.write import append, create_table, data_folder, replace

AT = datetime(2026, 1, 1, tzinfo=UTC)
MIB = 1024**2
TEXTS = 8
ARROW_BYTES_PER_ROW = 8 + 8 + TEXTS * (32 + 4)
WHOLE = 20 * 1024 * MIB // ARROW_BYTES_PER_ROW
"""Rows that are 20 GiB as Arrow, all sides of a diff or merge together."""

COLUMNS = (
    Column(0, "k", "long"),
    Column(0, "amount", "double"),
    *(Column(0, f"t{n}", "string") for n in range(TEXTS)),
)

_LIMITED = """
import json, resource
resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
def told(found):
    # Not getrusage: that counts the process which began this one, too.
    (peak,) = (int(one.split()[1]) * 1024 for one in open("/proc/self/status") if "VmHWM" in one)
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
from instep.history.repository import open_repository
from instep.tables.compact import compact_state
from instep.tables.content import TableContent
table = TableContent.from_content(json.loads(sys.argv[2]))
repo = open_repository(Path(sys.argv[1]), lambda: datetime(2026, 1, 2, tzinfo=UTC))
done = compact_state(repo, table, at=repo.clock())
told([done.before.files, done.after.files])
"""

_MERGE = """
import json, sys
from datetime import UTC, datetime
from pathlib import Path
from instep.tables.content import TableContent
from instep.tables.merge import merge_rows
states = [TableContent.from_content(json.loads(one)) for one in sys.argv[2:5]]
done = merge_rows(Path(sys.argv[1]), *states, ["k"], at=datetime(2026, 1, 2, tzinfo=UTC))
told([done.added, done.changed, done.removed, done.content.to_content()])
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
    """Runs a script in a process that takes less than 2 GiB of memory; returns what it tells."""
    command = [sys.executable, "-c", _LIMITED + script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=7200)
    assert done.returncode == 0, done.stderr[-4000:]
    found, peak = json.loads(done.stdout.splitlines()[-1])
    print(f"peak of {peak / MIB:,.0f} MiB")
    assert peak < 2048 * MIB
    return list(found)


def _written(
    root: Path,
    table: TableContent,
    rows: int,
    key: str,
    amount: str,
    file_bytes: int = 128 * MIB,
    *,
    is_turned: bool = False,
) -> TableContent:
    texts = ", ".join(f"md5((i % 5000 + {n})::VARCHAR) AS t{n}" for n in range(TEXTS))
    select = f"SELECT ({key})::BIGINT k, ({amount})::DOUBLE amount, {texts} "
    select += f"FROM (SELECT {rows - 1} - i AS i" if is_turned else "FROM (SELECT i"
    select += f" FROM range({rows}) r(i))"
    with DuckDB(root / "staging") as engine:
        files = engine.write(select, schema_of(root, table), data_folder(root, table), file_bytes)
    return append(root, table, files, at=AT)


WIDTH = 400
"""Letters of a text that arrives: few long values are sooner written than many short ones."""

ARRIVING = 20 * 1024 * MIB // (8 + 8 + TEXTS * (WIDTH + 4))
"""Rows of an arrival that is 20 GiB as Arrow."""


def _amount(row: int) -> int:
    """Every ten thousandth row breaks the contract."""
    return -1 if row % 10_000 == 17 else row % 1000


def _parquet(path: Path, rows: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [pa.array([str(i + n).rjust(WIDTH, "x") for i in range(999)]) for n in range(TEXTS)]
    kind = pa.dictionary(pa.int32(), pa.string())
    fields: list[pa.Field[Any]] = [pa.field(f"t{n}", kind) for n in range(TEXTS)]  # of any type
    fields = [pa.field("k", pa.int64()), pa.field("amount", pa.float64()), *fields]
    schema = pa.schema(fields)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, rows, 100_000):
            some = range(start, min(start + 100_000, rows))
            places = pa.array([i % 999 for i in some], pa.int32())
            amounts = pa.array([float(_amount(i)) for i in some])
            values = (pa.DictionaryArray.from_arrays(places, one) for one in texts)
            columns: list[pa.Array[Any]] = [pa.array(some), amounts, *values]  # of three types
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _csv(path: Path, rows: int) -> None:
    texts = [",".join(str(i + n).rjust(WIDTH, "x") for n in range(TEXTS)) for i in range(999)]
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.write(f"k,amount,{','.join(f't{n}' for n in range(TEXTS))}\n")
        for i in range(rows):
            file.write(f"{i},{_amount(i)},{texts[i % 999]}\n")


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        pytest.param(50_000, "many.parquet", id="small"),
        pytest.param(30_000, "many.csv.gz", id="small-csv"),
        pytest.param(ARRIVING, "many.parquet", id="20-gib", marks=pytest.mark.long),
        pytest.param(ARRIVING // 5, "many.csv.gz", id="4-gib-csv", marks=pytest.mark.long),
    ],
)
def test_an_arrival_holds_no_whole_table(tmp_path: Path, rows: int, name: str) -> None:
    repo = create_repository(tmp_path / "lake", lambda: AT, "ana")
    changes: dict[str, JsonObject | None] = {
        "contract/many": {
            "type": "instep.contract.v1", "blob": repo.objects.put(CONTRACT.encode())
        }
    }  # fmt: skip
    with repo.store.transaction() as tx:
        publish(tx, repo, MAIN, Edit(repo.resolve(MAIN), changes, "ana", "contract", "test"))
    file = tmp_path / name
    (_parquet if name.endswith(".parquet") else _csv)(file, rows)

    state, read, aside = _told(_INGEST, str(repo.root), str(file))

    assert (state, read, aside) == ("merged", rows, (rows - 18) // 10_000 + 1)
    table = TableContent.from_content(repo.content(repo.resolve(MAIN), "table/many"))
    assert row_count(repo.root, table) == rows - aside
    assert not any((repo.root / "staging").iterdir())


@pytest.mark.parametrize(
    ("key", "is_turned"),
    [("i", False), ("i", True), ("hash(i) >> 1", True)],
    ids=["same-order", "ordered", "scattered"],
)
@pytest.mark.parametrize(
    ("rows", "every"),
    [
        pytest.param(300_000, 100, id="small"),
        pytest.param(WHOLE // 2, 100, id="20-gib", marks=pytest.mark.long),
        pytest.param(WHOLE // 8, 1, id="5-gib-all-changed", marks=pytest.mark.long),
    ],
)
def test_a_diff_holds_no_whole_table(
    tmp_path: Path, key: str, is_turned: bool, rows: int, every: int
) -> None:
    table = create_table(tmp_path, "t", COLUMNS, at=AT)
    before = _written(tmp_path, table, rows, key, "i")
    moved = f"CASE WHEN i % {every} = 0 THEN i + 0.5 ELSE i END"
    after = _written(tmp_path, table, rows, key, moved, is_turned=is_turned)
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
    root = create_repository(tmp_path / "lake", lambda: AT, "ana").root
    table = create_table(root, "t", COLUMNS, at=AT)
    state = _written(root, table, rows, "i", "i", file_bytes)

    before, after = _told(_COMPACT, str(root), json.dumps(state.to_content()))

    assert after < before / 2
    assert row_count(root, state) == rows


@pytest.mark.parametrize("key", ["i", "hash(i) >> 1"], ids=["ordered", "scattered"])
@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(300_000, id="small"),
        pytest.param(WHOLE // 3, id="20-gib", marks=pytest.mark.long),
    ],
)
def test_a_merge_holds_no_whole_table(tmp_path: Path, key: str, rows: int) -> None:
    base = _written(tmp_path, create_table(tmp_path, "t", COLUMNS, at=AT), rows, key, "i")
    whole = [file.path for file in data_files(tmp_path, base)]
    ours, theirs = (
        replace(tmp_path, _written(tmp_path, base, rows, key, amount), (), whole, at=AT)
        for amount in (f"CASE WHEN i % 100 = {n} THEN i + 0.5 ELSE i END" for n in (0, 1))
    )
    states = [json.dumps(one.to_content()) for one in (base, ours, theirs)]

    added, changed, removed, merged = _told(_MERGE, str(tmp_path), *states)

    assert (added, changed, removed) == (0, (rows + 98) // 100, 0)
    assert row_count(tmp_path, TableContent.from_content(merged)) == rows
    assert not any((tmp_path / "staging").iterdir())
