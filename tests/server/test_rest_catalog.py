"""pyiceberg's own REST catalog against a real server: whatever it can do, Instep reads after.

All of it again with the lake in PostgreSQL and on S3, where `test_rest_on_s3` is the sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from buckets import make_bucket
from pyiceberg.exceptions import (
    CommitFailedException,
    ForbiddenError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType, NestedField, StringType
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from rest import Server, make_branch, make_project, make_shared_project, people, rows, serving

from instep.history.commits import first_parents
from instep.history.refs import RefKind
from instep.history.repository import Repository
from instep.lake import Lake

TABLE = "default.people"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rest")


@pytest.fixture(scope="module", params=["folder", pytest.param("s3", marks=pytest.mark.long)])
def lake(project: Path, request: pytest.FixtureRequest) -> Repository:
    """One lake for all: each test works on a branch of its own."""
    if request.param == "folder":
        return make_project(project / "folder")
    bucket = make_bucket(request.getfixturevalue("s3_url"))
    return make_shared_project(project / "s3", bucket, request.getfixturevalue("postgres_url"))


@pytest.fixture(scope="module")
def server(lake: Repository) -> Iterator[Server]:
    with serving(lake.here.parent, "--as", "ana") as running:
        yield running
        assert running.stop() == 0


def made(server: Server, branch: str) -> Table:
    """Returns a new table with two rows on a branch."""
    wanted = people((1, "ana"), (2, "ben"))
    table: Table = server.catalog(branch).create_table(TABLE, schema=wanted.schema)
    table.append(wanted)
    return table


def commits(lake: Repository, branch: str) -> list[tuple[str, str, str]]:
    """Returns author, origin and message of a branch's commits, latest first."""
    with lake.store.reading() as tx:
        found = list(first_parents(tx, lake.resolve(branch), 100))
    return [(one.author, one.origin, one.message) for one in found]


def test_every_operation_of_a_client_is_read_by_instep(server: Server, lake: Repository) -> None:
    branch = make_branch(lake, "every")
    catalog = server.catalog(branch)
    table = made(server, branch)
    table.append(people((3, "cleo")))
    table.delete("id = 2")
    table.upsert(people((3, "Cleo"), (4, "dan")), join_cols=["id"])
    expected = [(1, "ana"), (3, "Cleo"), (4, "dan")]
    assert [(one["id"], one["name"]) for one in rows(lake, branch, "people")] == expected
    with table.update_schema() as schema:
        schema.add_column("age", LongType())
        schema.rename_column("name", "called")
    table.overwrite(people((9, "zoe")).rename_columns(["id", "called"]))
    assert rows(lake, branch, "people") == [{"id": 9, "called": "zoe", "age": None}]
    with table.update_spec() as spec:
        spec.add_field("id", IdentityTransform(), "slot")
    table.append(people((5, "eve")).rename_columns(["id", "called"]))
    assert [one["id"] for one in rows(lake, branch, "people")] == [5, 9]
    with table.transaction() as transaction:
        transaction.set_properties(owner="ana")
    assert catalog.load_table(TABLE).properties["owner"] == "ana"
    catalog.rename_table(TABLE, "default.staff")
    assert catalog.list_tables("default") == [("default", "staff")]
    assert rows(lake, branch, "staff")[0]["called"] == "eve"
    catalog.drop_table("default.staff")
    assert not catalog.table_exists("default.staff")
    assert Lake(lake).branch(branch).keys("table") == ()


def test_appends_of_one_transaction_are_made_again_after_those_of_another_client(
    server: Server, lake: Repository
) -> None:
    branch = make_branch(lake, "two")
    made(server, branch)
    first, second = (server.catalog(branch).load_table(TABLE) for _ in range(2))
    with first.transaction() as late:
        late.append(people((3, "cleo")))
        second.append(people((4, "dan")))
        late.append(people((5, "eve")))
        second.append(people((6, "fay")))
    assert [one["id"] for one in rows(lake, branch, "people")] == [1, 2, 3, 4, 5, 6]
    assert [message for _, _, message in commits(lake, branch)[:3]] == ["append people"] * 3


def test_a_table_is_made_partitioned_and_filled_in_one_commit(
    server: Server, lake: Repository
) -> None:
    branch = make_branch(lake, "filled")
    schema = Schema(
        NestedField(7, "id", LongType(), required=False),
        NestedField(9, "name", StringType(), required=False),
    )
    spec = PartitionSpec(PartitionField(7, 1000, IdentityTransform(), "slot"))
    with server.catalog(branch).create_table_transaction(TABLE, schema, partition_spec=spec) as new:
        new.append(people((1, "ana"), (2, "ben")))
    assert [one["name"] for one in rows(lake, branch, "people")] == ["ana", "ben"]
    assert commits(lake, branch)[0] == ("ana", "rest, asserted", "create people")


def test_each_write_is_a_commit_of_the_client_that_made_it(
    server: Server, lake: Repository
) -> None:
    branch = make_branch(lake, "authors")
    made(server, branch)
    named = server.catalog(branch, **{"header.Instep-Actor": "ben"})
    named.load_table(TABLE).append(people((3, "cleo")))
    assert commits(lake, branch)[:3] == [
        ("ben", "rest, asserted", "append people"),
        ("ana", "rest, asserted", "append people"),
        ("ana", "rest, asserted", "create people"),
    ]


def test_a_listing_comes_in_pages_that_leave_nothing_out(server: Server, lake: Repository) -> None:
    branch = make_branch(lake, "pages")
    catalog = server.catalog(branch, **{"rest-page-size": "2"})
    names = [f"t{number}" for number in range(5)]
    for name in names:
        catalog.create_table(f"default.{name}", schema=people().schema)
    assert catalog.list_tables("default") == [("default", name) for name in names]
    first = server.ask("GET", f"{branch}/namespaces/default/tables?pageSize=2").json()
    assert [one["name"] for one in first["identifiers"]] == ["t0", "t1"]
    catalog.drop_table("default.t1")
    token = first["next-page-token"]
    second = server.ask("GET", f"{branch}/namespaces/default/tables?pageSize=2&pageToken={token}")
    assert [one["name"] for one in second.json()["identifiers"]] == ["t2", "t3"]


def test_of_two_commits_of_one_table_one_wins_and_the_other_is_told(
    server: Server, lake: Repository
) -> None:
    branch = make_branch(lake, "race")
    made(server, branch)
    stale = server.catalog(branch).load_table(TABLE)
    snapshot = stale.metadata.current_snapshot_id
    server.catalog(branch).load_table(TABLE).append(people((4, "dan")))
    body = {
        "requirements": [
            {"type": "assert-ref-snapshot-id", "ref": "main", "snapshot-id": snapshot}
        ],
        "updates": [{"action": "set-properties", "updates": {"late": "yes"}}],
    }
    reply = server.ask("POST", f"{branch}/namespaces/default/tables/people", body)
    assert (reply.status_code, reply.json()["error"]["type"]) == (409, "CommitFailedException")
    assert reply.json()["error"]["kind"] == "requirement-failed"
    assert len(rows(lake, branch, "people")) == 3


def test_clients_that_write_at_once_lose_nothing(server: Server, lake: Repository) -> None:
    branch = make_branch(lake, "crowd")
    made(server, branch)
    for name in ("left", "right"):
        server.catalog(branch).create_table(f"default.{name}", schema=people().schema)

    def write(number: int) -> None:
        name = ("left", "right", "people")[number % 3]
        for _ in range(20):
            try:
                server.catalog(branch).load_table(f"default.{name}").append(
                    people((100 + number, name))
                )
                return
            except CommitFailedException:
                continue
        raise AssertionError("never got its turn")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(12)))
    counted = {name: len(rows(lake, branch, name)) for name in ("left", "right", "people")}
    assert counted == {"left": 4, "right": 4, "people": 6}


@pytest.mark.parametrize(
    ("name", "kind", "way"),
    [
        ("main", None, '"instep propose" it'),
        ("prod", RefKind.ENVIRONMENT, '"instep release prod" moves it'),
        ("v1", RefKind.TAG, '"instep branch make NAME --at v1"'),
    ],
)
def test_what_changes_by_review_or_never_refuses_writes_and_says_the_way(
    server: Server, lake: Repository, name: str, kind: RefKind | None, way: str
) -> None:
    if kind is not None:
        make_branch(lake, name, kind=kind)
    before = lake.resolve(name)
    with pytest.raises(ForbiddenError, match=way):
        server.catalog(name).create_table("default.new", schema=people().schema)
    assert lake.resolve(name) == before


def test_a_commit_and_an_instant_are_read_and_never_written(
    server: Server, lake: Repository
) -> None:
    branch = make_branch(lake, "back")
    table = made(server, branch)
    then = lake.resolve(branch)
    at = lake.commit(then).at.isoformat()
    table.append(people((3, "cleo")))
    for name in (then, then[:12], f"{branch}@{at}"):
        old = server.catalog(name).load_table(TABLE)
        assert old.scan().to_arrow().num_rows == 2, name
        with pytest.raises(ForbiddenError, match="never changes"):
            old.append(people((4, "dan")))


def test_a_branch_whose_name_has_a_slash_is_a_warehouse_too(
    server: Server, lake: Repository
) -> None:
    branch = make_branch(lake, "team/ideas")
    made(server, branch)
    assert len(rows(lake, branch, "people")) == 2


def test_columns_added_on_two_branches_never_share_an_id_and_merge(
    server: Server, lake: Repository
) -> None:
    branch = make_branch(lake, "base")
    made(server, branch)
    other = make_branch(lake, "other", at=branch)
    for name, column in ((branch, "age"), (other, "city")):
        with server.catalog(name).load_table(TABLE).update_schema() as schema:
            schema.add_column(column, StringType())
    ids = {
        column.name: column.id
        for name in (branch, other)
        for column in Lake(lake).branch(name).table("people").schema.columns
    }
    assert sorted(ids.values()) == [1, 2, 3, 4]


def test_a_client_that_sends_a_commit_twice_adds_its_rows_once(
    server: Server, lake: Repository
) -> None:
    branch = make_branch(lake, "twice")
    made(server, branch)
    catalog = server.catalog(branch)
    catalog._session.mount("http://", _Twice())
    catalog.load_table(TABLE).append(people((3, "cleo")))
    assert [one["id"] for one in rows(lake, branch, "people")] == [1, 2, 3]


class _Twice(HTTPAdapter):
    """Sends each request a second time, as whoever lost the first answer does."""

    def send(self, request: PreparedRequest, *args: object, **options: object) -> Response:
        super().send(request, *args, **options)  # type: ignore[arg-type]  # as they come
        return super().send(request, *args, **options)  # type: ignore[arg-type]  # as they come


def test_what_is_not_there_or_not_possible_is_said_as_the_client_knows_it(
    server: Server, lake: Repository
) -> None:
    branch = make_branch(lake, "errors")
    catalog = server.catalog(branch)
    made(server, branch)
    with pytest.raises(NoSuchTableError):
        catalog.load_table("default.nothing")
    with pytest.raises(TableAlreadyExistsError):
        catalog.create_table(TABLE, schema=people().schema)
    with pytest.raises(NoSuchNamespaceError):
        catalog.list_tables("elsewhere")
    with pytest.raises(ForbiddenError, match="instep gc"):
        catalog.purge_table(TABLE)
    with pytest.raises(NotImplementedError):
        catalog.create_namespace("elsewhere")
    assert catalog.list_views("default") == []
