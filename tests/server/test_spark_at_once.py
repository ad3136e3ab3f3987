"""Spark commits while others do: what it said it did is there once, what it did not is not there.

Where another commit comes first Spark is answered 409; it then loads the table and commits again,
or ends with an error where what it did depends on rows that have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from pyiceberg.catalog.rest import RestCatalog
from rest import Server, make_branch, make_project, people, rows, serving
from spark import Spark, require_spark, spark_session
from storm import Fault, Storm, storm

from instep.cli.wholeness import check
from instep.history.commits import first_parents
from instep.history.repository import Repository

MERGE_ON_READ = ", ".join(
    f"'write.{what}.mode' = 'merge-on-read'" for what in ("delete", "update", "merge")
)


PATIENT = "'commit.retry.num-retries' = '20', 'commit.retry.max-wait-ms' = '500'"
"""Four times, as is usual, are too few where three write all the time."""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    require_spark()
    repo = make_project(tmp_path_factory.mktemp("spark"))
    make_branch(repo, "work")
    return repo


@pytest.fixture(scope="module")
def server(lake: Repository) -> Iterator[Server]:
    with serving(lake.root.parent, "--as", "ana") as running:
        yield running


@pytest.fixture(scope="module")
def between(server: Server) -> Iterator[Storm]:
    """What Spark's requests go through."""
    with storm(server.url.removesuffix("/iceberg")) as found:
        yield found


@pytest.fixture(scope="module")
def spark(
    server: Server, between: Storm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Spark]:
    place, url = tmp_path_factory.mktemp("one"), f"{between.url}/iceberg"
    with spark_session(place, url, server.token, "work") as running:
        yield running


def make_table(spark: Spark, name: str, version: int, numbers: int) -> str:
    """Makes a table whose ids are those below `numbers`, in one file, and returns its name."""
    table = f"work.default.{name}"
    spark.sql(
        f"create table {table} (id bigint, name string) tblproperties "
        f"('format-version' = '{version}', {PATIENT}, {MERGE_ON_READ})"
    )
    spark.sql(f"insert into {table} select id, concat('n', id) from range(0, {numbers}, 1, 1)")
    return table


def ids(lake: Repository, name: str) -> list[int]:
    return [one["id"] for one in rows(lake, "work", name)]


def commits(lake: Repository) -> int:
    with lake.store.reading() as tx:
        return sum(1 for _ in first_parents(tx, lake.resolve("work"), 1000))


def before_commit(between: Storm, name: str, act: Callable[[], object]) -> None:
    """Lets something happen before the next commit to a table goes on, once."""

    def meanwhile(method: str, path: str) -> None:
        if method == "POST" and path.endswith(f"/tables/{name}"):
            between.meanwhile = None
            between.asked[:] = [f"{method} {path}"]
            act()

    between.meanwhile = meanwhile


@pytest.mark.parametrize(
    ("statement", "found", "again"),
    [
        ("insert into {} values (7, 'spark')", [0, 1, 2, 7, 9], 1),
        ("delete from {} where id = 1", [0, 2, 9], 1),
        ("update {} set id = 5 where id = 0", [1, 2, 5, 9], 1),
        ("alter table {} add column age int", [0, 1, 2, 9], 0),
    ],
    ids=["insert", "delete", "update", "alter"],
)
def test_spark_that_comes_second_tries_again_and_nothing_is_lost_or_doubled(
    spark: Spark, server: Server, lake: Repository, between: Storm,
    statement: str, found: list[int], again: int,
) -> None:  # fmt: skip
    """Columns are added as they are, since the rows of others do not matter to them."""
    name = statement.split()[0]
    table = make_table(spark, name, 2, 3)
    before = commits(lake)
    other = server.catalog("work").load_table(f"default.{name}")
    before_commit(between, name, lambda: other.append(people((9, "pyiceberg"))))
    spark.sql(statement.format(table))
    tried = [one for one in between.asked if one.startswith("POST") and one.endswith(name)]
    assert len(tried) == 1 + again
    assert commits(lake) == before + 2
    assert ids(lake, name) == found
    assert [one["id"] for one in spark.sql(f"select id from {table} order by id")] == found


def test_spark_whose_rows_were_changed_meanwhile_fails_and_changes_nothing(
    spark: Spark, server: Server, lake: Repository, between: Storm
) -> None:
    table = make_table(spark, "raced", 2, 3)
    other = server.catalog("work").load_table("default.raced")
    before_commit(between, "raced", lambda: other.append(people((1, "another one"))))
    assert "conflicting files" in spark.error(f"delete from {table} where id = 1")
    assert ids(lake, "raced") == [0, 1, 1, 2]
    before_commit(between, "raced", lambda: other.refresh().delete("id = 2"))
    assert spark.error(f"update {table} set name = 'new' where id = 2") != ""
    assert ids(lake, "raced") == [0, 1, 1]
    spark.sql(f"delete from {table} where id = 1")
    assert ids(lake, "raced") == [0]


@pytest.mark.parametrize("fault", [Fault.THROTTLED, Fault.LOST])
def test_spark_that_is_put_off_or_loses_its_answer_asks_again_and_writes_once(
    spark: Spark, lake: Repository, between: Storm, fault: Fault
) -> None:
    name = fault.name.lower()
    table = make_table(spark, name, 2, 3)
    before = commits(lake)
    between.asked.clear()
    between.faults["POST"] = [fault]
    spark.sql(f"insert into {table} values (7, 'spark')")
    assert len([one for one in between.asked if one.startswith("POST")]) == 2
    assert commits(lake) == before + 1
    assert ids(lake, name) == [0, 1, 2, 7]


def test_pyiceberg_that_comes_after_spark_tries_again_too(
    spark: Spark, server: Server, lake: Repository, between: Storm
) -> None:
    table = make_table(spark, "second", 2, 3)
    url = f"{between.url}/iceberg"
    catalog = RestCatalog("lake", uri=url, warehouse="work", token=str(server.token))
    other = catalog.load_table("default.second")

    def spark_first() -> None:
        spark.sql(f"insert into {table} values (7, 'spark')")

    before_commit(between, "second", spark_first)
    other.append(people((9, "pyiceberg")))
    assert ids(lake, "second") == [0, 1, 2, 7, 9]


def wait_for_all(work: list[Future[None]]) -> None:
    for one in work:
        one.result()


@pytest.mark.long
@pytest.mark.parametrize("version", [2, 3])
def test_two_sessions_and_pyiceberg_at_once_lose_and_double_no_row(
    spark: Spark, server: Server, lake: Repository, version: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    """All land but what deletes from a file from which another has deleted meanwhile.

    pyiceberg does not write tables of version 3: there the two are alone.
    """
    name = f"crowd{version}"
    table = make_table(spark, name, version, 60)
    times, others = range(6), [3000, 4000] if version == 2 else []

    def appends(session: Spark, first: int) -> None:
        for number in times:
            session.sql(f"insert into {table} values ({first + number}, 'spark')")

    def deletes(session: Spark, first: int) -> set[int]:
        gone = {first + number for number in times}
        return {one for one in gone if not session.error(f"delete from {table} where id = {one}")}

    def pyiceberg(first: int) -> None:
        client = server.catalog("work").load_table(f"default.{name}")
        for number in times:
            client.append(people((first + number, "pyiceberg")))

    with ExitStack() as ends:
        place = tmp_path_factory.mktemp("two")
        second = ends.enter_context(spark_session(place, server.url, server.token, "work"))
        pool = ends.enter_context(ThreadPoolExecutor(3))
        adding = [pool.submit(appends, spark, 1000), pool.submit(appends, second, 2000)]
        wait_for_all([*adding, *(pool.submit(pyiceberg, first) for first in others[:1])])
        removing = [pool.submit(deletes, spark, 0), pool.submit(deletes, second, 30)]
        wait_for_all([pool.submit(pyiceberg, first) for first in others[1:]])
        gone = removing[0].result() | removing[1].result()
    added = [first + number for first in (1000, 2000, *others) for number in times]
    wanted = sorted([*(set(range(60)) - gone), *added])
    assert gone
    assert ids(lake, name) == wanted
    assert [one["id"] for one in spark.sql(f"select id from {table} order by id")] == wanted
    check(lake)
