"""Spark writes to branches through the REST catalog; Instep reads, compares and merges it.

Needs Java 17 and what `tests/fetch-spark` puts into `.spark`, or into the folder INSTEP_SPARK; a
test fetches nothing itself. All share one session, which takes ten seconds to begin.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rest import SECONDS, Server, make_branch, make_project, people, rows, serving

from instep.history.edits import Edit, commit_edit
from instep.history.repository import Repository
from instep.lake import Lake
from instep.tables.content import TableContent
from instep.tables.diff import diff_rows
from instep.tables.verify import required_files

HOME = Path(os.environ.get("INSTEP_SPARK", Path(__file__).parents[2] / ".spark"))
SESSION = Path(__file__).parents[1] / "support" / "spark_session.py"


CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: people
version: 1.0.0
status: active
schema:
  - name: people
    customProperties: [{property: mergePolicy, value: keyed}]
    properties:
      - {name: id, logicalType: integer, required: true, primaryKey: true, primaryKeyPosition: 1}
      - {name: name, logicalType: string}
"""


@dataclass(frozen=True, slots=True)
class Spark:
    """A session that answers SQL; its process ends with its input."""

    process: subprocess.Popen[str]

    def sql(self, text: str) -> list[dict[str, Any]]:
        """Returns the rows of a statement; values are of any type."""
        told = self._told(text)
        assert "error" not in told, f"{text}\n{told.get('error')}"
        found: list[dict[str, Any]] = told["rows"]
        return found

    def error(self, text: str) -> str:
        """Returns what a statement fails with."""
        return str(self._told(text).get("error", ""))

    def _told(self, text: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(text) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A lake with the branches that Spark knows as catalogs `work` and `team`."""
    for what, is_there in (
        ("Java", shutil.which("java") is not None),
        (f"Spark in {HOME}", (HOME / "venv" / "bin" / "python").exists()),
        (f"Iceberg's JAR in {HOME}", (HOME / "iceberg.jar").exists()),
    ):
        if not is_there:
            pytest.skip(f"{what} is missing: run tests/fetch-spark")
    repo = make_project(tmp_path_factory.mktemp("spark"))
    make_branch(repo, "work")
    make_branch(repo, "team/ideas")
    return repo


@pytest.fixture(scope="module")
def server(lake: Repository) -> Iterator[Server]:
    with serving(lake.root.parent, "--as", "ana") as running:
        yield running


@pytest.fixture(scope="module")
def spark(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spark]:
    place = tmp_path_factory.mktemp("session")
    outside = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    process = subprocess.Popen(
        [
            HOME / "venv" / "bin" / "python", SESSION, HOME / "iceberg.jar", server.url,
            "work", "team/ideas", "main",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=place,
        env={**outside, "SPARK_LOCAL_IP": "127.0.0.1"},
    )  # fmt: skip
    try:
        running = Spark(process)
        assert "ready" in running.answer()
        yield running
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait(timeout=SECONDS)
        process.stdout.close()


def content(lake: Repository, ref: str, table: str) -> TableContent:
    return Lake(lake).branch(ref).table(table).content


@pytest.mark.parametrize(
    ("version", "mode"),
    [
        ("2", "copy-on-write"),
        ("2", "merge-on-read"),
        ("3", "merge-on-read"),
        pytest.param("3", "copy-on-write", marks=pytest.mark.long),
    ],
)
def test_what_spark_writes_and_deletes_instep_reads(
    spark: Spark, lake: Repository, version: str, mode: str
) -> None:
    name = f"orders_{mode[:4]}{version}".replace("-", "_")
    table = f"work.default.{name}"
    properties = ", ".join(
        f"'write.{what}.mode' = '{mode}'" for what in ("delete", "update", "merge")
    )
    spark.sql(
        f"create table {table} (id bigint, item string, day date) partitioned by (days(day)) "
        f"tblproperties ('format-version' = '{version}', {properties})"
    )
    spark.sql(
        f"insert into {table} select id, concat('item ', id), "
        "date_add(date '2026-01-01', cast(id % 3 as int)) from range(60)"
    )
    spark.sql(f"delete from {table} where id % 10 = 3")
    spark.sql(f"update {table} set item = 'changed' where id = 4")
    spark.sql(f"alter table {table} add column amount double")
    spark.sql(f"alter table {table} rename column item to what")
    spark.sql(f"insert into {table} values (100, 'new', date '2026-01-09', 2.5)")
    theirs = spark.sql(f"select * from {table} order by id")
    ours = [
        {
            key: str(value) if key == "day" else value
            for key, value in row.items()
            if value is not None
        }
        for row in rows(lake, "work", name)
    ]
    assert ours == theirs
    assert len(ours) == 55
    assert Lake(lake).branch("work").table(name).rows == 55


def test_spark_makes_replaces_merges_and_renames(spark: Spark, lake: Repository) -> None:
    spark.sql("create table work.default.made using iceberg as select id from range(5)")
    spark.sql(
        "create or replace table work.default.made using iceberg "
        "as select id, concat('n', id) as name from range(3)"
    )
    spark.sql(
        "merge into work.default.made t using (select 2L as id, 'two' as name union all "
        "select 9L, 'nine') s on t.id = s.id when matched then update set t.name = s.name "
        "when not matched then insert *"
    )
    spark.sql("alter table work.default.made rename to default.named")
    found = [(one["id"], one["name"]) for one in rows(lake, "work", "named")]
    assert found == [(0, "n0"), (1, "n1"), (2, "two"), (9, "nine")]
    assert spark.sql("select count(*) as n from work.default.named.snapshots")[0]["n"] > 0
    spark.sql("drop table work.default.named")
    assert not spark.sql("show tables in work.default like 'named'")


def test_what_spark_changed_on_a_branch_is_compared_and_merged(
    spark: Spark, server: Server, lake: Repository
) -> None:
    """Both sides change a table that has a contract; nobody's rows are lost."""
    blob = lake.objects.put(CONTRACT.encode())
    contract = {"type": "instep.contract.v1", "blob": blob}
    edit = Edit(lake.resolve("work"), {"contract/people": contract}, "ana", "A contract", "test")
    commit_edit(lake, "work", edit)
    catalog = server.catalog("work")
    wanted = people(*((number, f"p{number}") for number in range(10)))
    catalog.create_table("default.people", schema=wanted.schema).append(wanted)
    before = content(lake, "work", "people")
    make_branch(lake, "theirs", at="work")
    spark.sql("delete from work.default.people where id = 3")
    spark.sql("insert into work.default.people values (50, 'spark')")
    found = diff_rows(lake.root, before, content(lake, "work", "people"), ["id"])
    assert (found.added, found.removed, found.changed) == (1, 1, 0)
    assert {row.key for row in found.sample} == {("3",), ("50",)}
    server.catalog("theirs").load_table("default.people").append(people((60, "other")))
    done = subprocess.run(
        [sys.executable, "-m", "instep", "branch", "merge", "theirs", "work", "--as", "ana"],
        cwd=lake.root.parent, capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    ids = [one["id"] for one in spark.sql("select id from work.default.people order by id")]
    assert ids == [0, 1, 2, 4, 5, 6, 7, 8, 9, 50, 60]
    assert [one["id"] for one in rows(lake, "work", "people")] == ids


def test_no_statement_of_spark_deletes_a_file_that_a_commit_needs(
    spark: Spark, lake: Repository
) -> None:
    table = "work.default.kept"
    spark.sql(f"create table {table} (id bigint)")
    spark.sql(f"insert into {table} values (1)")
    before = content(lake, "work", "kept")
    spark.sql(f"insert overwrite {table} values (2)")
    for statement in (
        "call work.system.expire_snapshots(table => 'default.kept', "
        "older_than => timestamp '2030-01-01 00:00:00')",
        "call work.system.remove_orphan_files(table => 'default.kept')",
        f"drop table {table} purge",
    ):
        assert "GC is disabled" in spark.error(statement), statement
    spark.sql(f"drop table {table}")
    assert all(one.path.exists() for one in required_files(lake.root, before, set()))


def test_spark_is_told_why_it_may_not_write_and_who_wrote(
    spark: Spark, server: Server, lake: Repository
) -> None:
    error = spark.error("create table main.default.no (id bigint)")
    assert 'Work on another branch, then "instep propose" it' in error
    spark.sql("create table team.default.ours (id bigint)")
    commit = lake.commit(lake.resolve("team/ideas"))
    assert (commit.author, commit.origin) == ("spark", "rest, asserted")
    assert "does not support" in spark.error("create namespace work.other")
