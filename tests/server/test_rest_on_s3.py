"""A client of the catalog whose lake is in PostgreSQL and on S3: its files go there directly."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from buckets import KEYS, Bucket
from pyiceberg.exceptions import RESTError
from rest import Server, make_branch, make_shared_project, people, rows, serving
from storm import Fault, Storm, storm
from wire import end_sessions

from instep.errors import InvalidError
from instep.history.places import here, s3_root
from instep.history.repository import Repository
from instep.tables.addresses import client_properties, name_below, plain_address

TABLE = "default.people"
SECRET = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@pytest.fixture
def weather(s3_url: str) -> Iterator[Storm]:
    with storm(s3_url) as found:
        yield found


@pytest.fixture
def lake(tmp_path: Path, bucket: Bucket, weather: Storm, postgres_url: str) -> Repository:
    made = make_shared_project(tmp_path, Bucket(weather.url, bucket.name), postgres_url)
    make_branch(made, "work")
    return made


@pytest.fixture
def server(tmp_path: Path, lake: Repository) -> Iterator[Server]:
    with serving(tmp_path, "--as", "ana") as running:
        yield running


def test_what_a_client_writes_is_read_by_instep_on_this_machine_and_another(
    server: Server, lake: Repository, bucket: Bucket, tmp_path: Path
) -> None:
    table = server.catalog("work").create_table(TABLE, schema=people().schema)
    assert table.location().startswith(f"{bucket.address}/tables/")
    table.append(people((1, "ana"), (2, "ben")))
    table.append(people((3, "cleo")))
    table.delete("id = 2")
    table.upsert(people((3, "Cleo"), (4, "dan")), join_cols=["id"])
    found = [(1, "ana"), (3, "Cleo"), (4, "dan")]
    assert [(one["id"], one["name"]) for one in rows(lake, "work", "people")] == found
    assert table.scan().to_arrow().num_rows == 3
    other = Repository(
        bucket.root(tmp_path / "elsewhere"), lake.store, lake.objects, lake.nodes, lake.clock
    )
    assert rows(other, "work", "people") == rows(lake, "work", "people")


def test_a_client_goes_on_after_the_database_was_restarted(
    server: Server, lake: Repository, postgres_url: str
) -> None:
    table = server.catalog("work").create_table(TABLE, schema=people().schema)
    for number in range(3):
        end_sessions(postgres_url)
        table.append(people((number, "ana")))
    end_sessions(postgres_url)
    assert [one["id"] for one in rows(lake, "work", "people")] == [0, 1, 2]


def test_a_client_is_told_where_the_files_are_and_never_a_secret(
    server: Server, weather: Storm
) -> None:
    asking = partial(server.ask, X_Iceberg_Access_Delegation="vended-credentials,remote-signing")
    told = server.ask("GET", "config?warehouse=work")
    assert told.json()["defaults"] == {
        "s3.endpoint": weather.url,
        "s3.path-style-access": "true",
        "s3.region": "us-east-1",
        "client.region": "us-east-1",
    }
    body = {"name": "t", "schema": people_schema(), "stage-create": False}
    tables = "work/namespaces/default/tables"
    for reply in (
        told,
        asking("GET", "config?warehouse=work"),
        asking("POST", tables, {**body, "stage-create": True}),
        asking("POST", tables, body),
        asking("GET", f"{tables}/t"),
        asking("POST", f"{tables}/t", {"requirements": [], "updates": []}),
    ):
        assert reply.status_code == 200
        assert "storage-credentials" not in reply.json()
        assert not reply.json().get("config")
        assert not [name for name in SECRET if KEYS[name] in reply.text]


def people_schema() -> dict[str, object]:
    field = {"id": 1, "name": "id", "type": "long", "required": False}
    return {"type": "struct", "schema-id": 0, "fields": [field]}


def test_where_the_store_is_is_told_as_far_as_the_lake_says_it(tmp_path: Path) -> None:
    def told(endpoint: str | None, region: str | None) -> dict[str, str]:
        return client_properties(s3_root("s3://bucket/lake", tmp_path, endpoint, region))

    at = {"s3.region": "eu-central-1", "client.region": "eu-central-1"}
    assert told(None, None) == client_properties(tmp_path) == {}
    assert told(None, "eu-central-1") == at
    assert told("http://store", "eu-central-1") == {
        "s3.endpoint": "http://store",
        "s3.path-style-access": "true",
        **at,
    }


def test_a_store_that_refuses_the_server_leaves_the_branch_where_it_was(
    server: Server, lake: Repository, weather: Storm
) -> None:
    server.catalog("work").create_table(TABLE, schema=people().schema)
    before = lake.resolve("work")
    weather.always = Fault.DENIED
    body = {
        "requirements": [],
        "updates": [{"action": "set-properties", "updates": {"owner": "ana"}}],
    }
    path = "work/namespaces/default/tables/people"
    reply = server.ask("POST", path, body)
    error = reply.json()["error"]
    assert (reply.status_code, error["kind"]) == (503, "bucket-access-denied")
    assert reply.headers["Retry-After"]
    assert not [word for word in ("AccessDenied", "s3:") if word in error["message"]]
    assert lake.resolve("work") == before
    weather.always = None
    assert server.ask("POST", path, body).status_code == 200


def test_a_location_elsewhere_is_refused(server: Server) -> None:
    with pytest.raises(RESTError, match="Leave the location out"):
        server.catalog("work").create_table(
            TABLE, schema=people().schema, location="s3://another/place"
        )


@pytest.mark.parametrize(
    "address",
    [
        "s3://other/lake/tables/t/data/a.parquet",
        "s3a://bucket/lake/tables/t/data/a.parquet",
        "s3://bucket/lake/tables/t/data/../../../secret",
        "s3://bucket/lake/tables/t/data//a.parquet",
        "s3://bucket/lake/tables/t/data",
        "/lake/tables/t/data/a.parquet",
    ],
)
def test_an_address_that_is_not_in_the_table_is_refused(tmp_path: Path, address: str) -> None:
    folder = s3_root("s3://bucket/lake", tmp_path, None, None) / "tables/t/data"
    assert name_below(folder, f"{folder}/n=1/a.parquet") == "n=1/a.parquet"
    with pytest.raises(InvalidError, match="lies outside the table"):
        name_below(folder, address)
    assert here(folder).is_relative_to(tmp_path)


def test_an_address_of_a_folder_is_the_same_however_it_is_written() -> None:
    for text in ("/a/b", "file:/a/b", "file:///a/b", "/a/b/", "//a/b"):
        assert plain_address(text) == "/a/b"
    assert plain_address("s3://bucket/a/") == "s3://bucket/a"
