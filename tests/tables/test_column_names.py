"""Columns may be called whatever SQL of our own calls what stands beside them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from garbage import branch, commit, contract

from instep.cli.erase_rows import erased_rows
from instep.engines.schema import free_name
from instep.history.repository import MAIN, Repository
from instep.ingest.arrive import ingest
from instep.lake import Lake
from instep.tables import profile_compute
from instep.tables.partition import Part
from instep.tables.profile_keep import profile_table

NAMES = [
    "file", "file of the row", "path", "path of the file", "place", "picked", "part0", "part1",
    "i", "h", "w", "x", "v", "n", "g", "k", "m", "c", "c0", "f0", "s0", "filename",
    "file_row_number", "rowid", "line", "raw", "raw:file", "raw:raw:file", "row:line", "row:raw",
    "key:met", "key:twice", "terms", "arriving", "typed", "twice", "keys",
]  # fmt: skip
"""All that SQL here gives to columns of its own, and to what such a name would hide."""

CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: t
version: 1.0.0
status: active
servers:
  - {{server: here, type: local, path: "t-*", format: {format}}}
schema:
  - name: t
    customProperties:
      - {{property: mergePolicy, value: append}}
      - {{property: maxQuarantined, value: 1}}
    properties:
{properties}
"""


def table_of(rows: int, first: int = 0) -> pa.Table:
    return pa.table({name: [f"{name}-{first + n}" for n in range(rows)] for name in NAMES})


def test_a_free_name_is_none_of_the_names_in_any_case() -> None:
    assert free_name("line", ["a"]) == "line"
    assert free_name("line", ["LINE", "line_"]) == "line__"


def test_an_edit_and_an_erasure_take_columns_of_any_name(repo: Repository) -> None:
    branch(repo, "work")
    lake = Lake(repo)
    with lake.edit("work", message="names", author="ana") as edit:
        edit.create(
            "t",
            table_of(6),
            partition=[Part("i", "bucket[3]"), Part("part0", "truncate[6]"), Part("h")],
            sort=["w"],
        )
        edit.upsert("t", table_of(2, first=5), key=["file", "h"])
        edit.delete("t", where="\"file of the row\" = 'file of the row-0'")
        edit.overwrite("t", table_of(1, first=1), where="h = 'h-1'")
    found = lake.branch("work").table("t")

    wanted = [{name: f"{name}-{n}" for name in NAMES} for n in range(1, 7)]
    assert sorted(found.arrow().to_pylist(), key=str) == sorted(wanted, key=str)
    for column in profile_table(repo.root, found.content):
        assert (column.distinct, column.maximum) == (6, f"{column.name}-6")
    erased_rows(repo, "t", "path = 'path-2'", "asked", "ana", is_dry=False)
    assert found.rows == 5


def test_columns_of_many_values_are_profiled_under_any_name(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch(repo, "work")
    lake = Lake(repo)
    with lake.edit("work", message="names", author="ana") as edit:
        edit.create("t", table_of(6))
    monkeypatch.setattr(profile_compute, "COUNTED_ROWS", 1)
    monkeypatch.setattr(profile_compute, "COUNTED_VALUES", 1)

    found = profile_table(repo.root, lake.branch("work").table("t").content)

    assert [(column.count, column.distinct) for column in found] == [(6, 6)] * len(NAMES)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_arrives_with_columns_of_any_name(
    repo: Repository, tmp_path: Path, kind: str
) -> None:
    key = {"h": 1, "file": 2}
    listed = "".join(
        f'      - {{name: "{name}", logicalType: string, logicalTypeOptions: {{maxLength: 40}}'
        + (f", primaryKey: true, primaryKeyPosition: {key[name]}}}\n" if name in key else "}\n")
        for name in NAMES
    )
    text = CONTRACT.format(format=kind, properties=listed)
    commit(repo, MAIN, contract__t=contract(repo, text))
    rows = [[f"{name}-{n}" for name in NAMES] for n in range(5)]
    rows[3] = rows[1]  # a key that stands twice
    rows[4][NAMES.index("line")] = "x" * 41
    file = tmp_path / f"t-1.{kind}"
    if kind == "csv":
        file.write_text("\n".join(",".join(row) for row in [NAMES, *rows]) + "\n")
    else:
        columns = zip(*rows, strict=True)
        pq.write_table(pa.table([pa.array(one) for one in columns], names=NAMES), file)

    arrived = ingest(repo, file.parent, file, "ana")

    assert arrived.broken == {"key.unique": 2, "line.maxLength": 1}
    assert Lake(repo).branch().table("t").rows == 2
