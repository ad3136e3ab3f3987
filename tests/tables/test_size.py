"""Tables larger than memory: each act in a process of its own, whose peak of memory is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column
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

_DIFF = """
import json, resource, sys
from pathlib import Path
from instep.tables.content import TableContent
from instep.tables.diff import open_diff
states = [TableContent.from_content(json.loads(one)) for one in sys.argv[2:4]]
with open_diff(Path(sys.argv[1]), *states, ["k"]) as rows:
    found = rows.summary(5)
    written = rows.write(Path(sys.argv[1]) / "apart.parquet")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([found.added, found.removed, found.changed, written, peak]))
"""

_COMPACT = """
import json, resource, sys
from datetime import UTC, datetime
from pathlib import Path
from instep.tables.compact import compact_state
from instep.tables.content import TableContent
table = TableContent.from_content(json.loads(sys.argv[2]))
done = compact_state(Path(sys.argv[1]), table, at=datetime(2026, 1, 2, tzinfo=UTC))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([done.before.files, done.after.files, peak]))
"""


def _written(
    root: Path, table: TableContent, rows: int, key: str, amount: str, file_bytes: int = 128 * MIB
) -> TableContent:
    texts = ", ".join(f"md5((i % 5000 + {n})::VARCHAR) AS t{n}" for n in range(TEXTS))
    select = f"SELECT ({key})::BIGINT k, ({amount})::DOUBLE amount, {texts} FROM range({rows}) r(i)"
    with DuckDB(root / "staging") as engine:
        files = engine.write(select, schema_of(root, table), data_folder(root, table), file_bytes)
    return append(root, table, files, at=AT)


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

    command = [sys.executable, "-c", _DIFF, str(tmp_path), *states]
    done = subprocess.run(command, capture_output=True, text=True, timeout=7200, check=True)

    added, removed, changed, written, peak = json.loads(done.stdout.splitlines()[-1])
    count = (rows + every - 1) // every
    assert (added, removed, changed, written) == (0, 0, count, count)
    assert peak < 2048 * MIB
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

    command = [sys.executable, "-c", _COMPACT, str(tmp_path), json.dumps(state.to_content())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=7200, check=True)

    before, after, peak = json.loads(done.stdout.splitlines()[-1])
    assert after < before / 2
    assert row_count(tmp_path, state) == rows
    assert peak < 2048 * MIB
