"""Spark writes to branches through the REST catalog; Instep reads, compares and merges it.

Once with the lake's files in a folder, once on S3. Those of one place share a session.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import make_bucket
from commands import must
from rest import (
    Server,
    make_branch,
    make_project,
    make_shared_project,
    people,
    rows,
    serving,
)
from spark import Spark, require_spark, spark_session

from instep.history.edits import Edit, commit_edit
from instep.history.repository import Repository
from instep.lake import Lake
from instep.tables.content import TableContent
from instep.tables.diff import diff_rows
from instep.tables.verify import required_files

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


at_each_place = pytest.mark.parametrize("lake", ["folder", "s3"], indirect=True, scope="module")
"""Where the lake's files are; alone in its decorator, or sessions would be begun more than once."""

at_each_place_at_length = pytest.mark.parametrize(
    "lake",
    ["folder", pytest.param("s3", marks=pytest.mark.long)],
    indirect=True,
    scope="module",
)


@pytest.fixture(scope="module")
def lake(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A lake with the branches that Spark knows as catalogs `work` and `team`."""
    require_spark()
    place = tmp_path_factory.mktemp("spark")
    if request.param == "folder":
        repo = make_project(place)
    else:
        bucket = make_bucket(request.getfixturevalue("s3_url"))
        repo = make_shared_project(place, bucket, request.getfixturevalue("postgres_url"))
    make_branch(repo, "work")
    make_branch(repo, "team/ideas")
    return repo


@pytest.fixture(scope="module")
def project(lake: Repository) -> Path:
    return lake.here.parent


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[Server]:
    with serving(project, "--as", "ana") as running:
        yield running


@pytest.fixture(scope="module")
def spark(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spark]:
    place = tmp_path_factory.mktemp("session")
    with spark_session(place, server.url, server.token, "work", "team/ideas", "main") as running:
        yield running


def content(lake: Repository, ref: str, table: str) -> TableContent:
    return Lake(lake).branch(ref).table(table).content


@at_each_place
@pytest.mark.parametrize("version", ["2", "3"])
def test_what_spark_deletes_by_positions_instep_reads(
    spark: Spark, lake: Repository, version: str
) -> None:
    _write_and_delete(spark, lake, version, "merge-on-read")


@at_each_place_at_length
@pytest.mark.parametrize("version", ["2", pytest.param("3", marks=pytest.mark.long)])
def test_what_spark_writes_anew_to_delete_instep_reads(
    spark: Spark, lake: Repository, version: str
) -> None:
    _write_and_delete(spark, lake, version, "copy-on-write")


@at_each_place_at_length
def test_spark_makes_tables_of_version_3_and_raises_others_to_it(
    spark: Spark, lake: Repository
) -> None:
    version_3 = "tblproperties ('format-version' = '3')"
    made = "work.default.made_of_rows"
    spark.sql(f"create table {made} {version_3} as select id, id * 2 as twice from range(3)")
    assert spark.sql(f"select * from {made} order by id")[2] == {"id": 2, "twice": 4}
    assert rows(lake, "work", "made_of_rows") == [{"id": n, "twice": 2 * n} for n in range(3)]
    raised = "work.default.raised"
    spark.sql(f"create table {raised} (id bigint, name string)")
    spark.sql(f"insert into {raised} values (1, 'ana'), (2, 'ben')")
    spark.sql(f"alter table {raised} set tblproperties ('format-version' = '3')")
    spark.sql(f"alter table {raised} unset tblproperties if exists ('never-there')")
    spark.sql(f"insert into {raised} values (3, 'cleo')")
    spark.sql(f"delete from {raised} where id = 1")
    with Lake(lake).edit("work", message="one more", author="ana") as edit:
        edit.append("raised", "select 4::bigint as id, 'dan' as name")
    expected = [{"id": 2, "name": "ben"}, {"id": 3, "name": "cleo"}, {"id": 4, "name": "dan"}]
    assert rows(lake, "work", "raised") == expected
    assert spark.sql(f"select * from {raised} order by id") == expected


def _write_and_delete(spark: Spark, lake: Repository, version: str, mode: str) -> None:
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


@at_each_place_at_length
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


@at_each_place
def test_what_spark_changed_on_a_branch_is_compared_and_merged(
    spark: Spark, server: Server, lake: Repository, project: Path
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
    must("branch", "merge", "theirs", "work", at=project)
    ids = [one["id"] for one in spark.sql("select id from work.default.people order by id")]
    assert ids == [0, 1, 2, 4, 5, 6, 7, 8, 9, 50, 60]
    assert [one["id"] for one in rows(lake, "work", "people")] == ids


@at_each_place_at_length
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


@at_each_place_at_length
def test_spark_is_told_why_it_may_not_write_and_who_wrote(
    spark: Spark, server: Server, lake: Repository
) -> None:
    error = spark.error("create table main.default.no (id bigint)")
    assert 'Work on another branch, then "instep propose" it' in error
    spark.sql("create table team.default.ours (id bigint)")
    commit = lake.commit(lake.resolve("team/ideas"))
    assert (commit.author, commit.origin) == ("spark", "rest, asserted")
    assert "does not support" in spark.error("create namespace work.other")


@at_each_place
def test_names_of_partitions_that_need_quoting_are_read(spark: Spark, lake: Repository) -> None:
    table, names = "work.default.named_oddly", ["plain", "a b/c+d", "ü=%25", "", "x:y?#"]
    spark.sql(f"create table {table} (id bigint, name string) partitioned by (name)")
    values = ", ".join(f"({number}, '{name}')" for number, name in enumerate(names))
    spark.sql(f"insert into {table} values {values}")
    spark.sql(f"delete from {table} where name = 'plain'")
    found = [one["name"] for one in rows(lake, "work", "named_oddly")]
    assert found == names[1:]
    assert [one["name"] for one in spark.sql(f"select name from {table} order by id")] == found
