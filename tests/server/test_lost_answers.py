"""A database that is lost during a commit: done once, or said to be unknown, and never made up."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from pyiceberg.exceptions import CommitStateUnknownException
from rest import Server, make_branch, make_project, people, rows, serving
from wire import BEGIN, COMMIT, Wire, end_sessions

from instep.clock import system_clock
from instep.history.commits import first_parents
from instep.history.repository import Repository, create_repository
from instep.history.store import Database

TABLE = "work/namespaces/default/tables/people"


@pytest.fixture
def wire(postgres_url: str) -> Iterator[Wire]:
    made = Wire(f"{postgres_url.partition('host=')[2]}/.s.PGSQL.5432")
    yield made
    made.close()


@pytest.fixture
def far(tmp_path: Path, wire: Wire, postgres_url: str) -> Repository:
    """A project whose server reaches the database through the wire, and its lake without it."""
    schema = f"rest_{tmp_path.name.lower()}"
    url = f"postgresql://postgres@127.0.0.1:{wire.port}/postgres?sslmode=disable&gssencmode=disable"
    (tmp_path / "instep.yaml").write_text(
        f"lake: {{folder: lake, database: '{url}', schema: {schema}}}\n"
    )
    repo = create_repository(tmp_path / "lake", system_clock, "ana", Database(postgres_url, schema))
    make_branch(repo, "work")
    return repo


@pytest.fixture
def server(tmp_path: Path, far: Repository) -> Iterator[Server]:
    with serving(tmp_path, "--as", "ana") as running:
        running.catalog("work").create_table("default.people", schema=people().schema)
        yield running


def alter(value: str) -> dict[str, Any]:
    return {
        "requirements": [],
        "updates": [{"action": "set-properties", "updates": {"owner": value}}],
    }


def length(repo: Repository) -> int:
    with repo.store.reading() as tx:
        return sum(1 for _ in first_parents(tx, repo.resolve("work"), 1000))


def test_a_commit_whose_confirmation_was_lost_is_read_back_and_answered(
    server: Server, far: Repository, wire: Wire
) -> None:
    before = length(far)
    wire.loses_answer_to = COMMIT
    reply = server.ask("POST", TABLE, alter("ana"), Idempotency_Key="k")
    assert wire.loses_answer_to is None
    assert (reply.status_code, length(far)) == (200, before + 1)
    assert reply.json()["metadata"]["properties"]["owner"] == "ana"


@pytest.mark.parametrize("key", [{}, {"Idempotency_Key": "k"}], ids=["no-key", "key"])
def test_a_commit_that_nobody_can_be_asked_about_is_answered_as_unknown(
    server: Server, far: Repository, wire: Wire, key: dict[str, str]
) -> None:
    before = length(far)
    wire.refuses_after_loss = True
    wire.loses_answer_to = COMMIT
    reply = server.ask("POST", TABLE, alter("ben"), **key)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (500, 500)
    assert (error["type"], error["kind"]) == ("CommitStateUnknownException", "commit-unknown")
    wire.refuses = wire.refuses_after_loss = False
    again = server.ask("POST", TABLE, alter("ben"), **key)
    assert again.json()["metadata"]["properties"]["owner"] == "ben"
    # Without a key nobody can tell the second request from another one of the same text.
    assert length(far) == before + (1 if key else 2)


def test_a_client_is_told_that_its_append_may_be_there_and_finds_it(
    server: Server, far: Repository, wire: Wire
) -> None:
    table = server.catalog("work").load_table("default.people")
    wire.refuses_after_loss = True
    wire.loses_answer_to = COMMIT
    with pytest.raises(CommitStateUnknownException):
        table.append(people((1, "ana")))
    wire.refuses = wire.refuses_after_loss = False
    assert [one["id"] for one in rows(far, "work", "people")] == [1]
    assert server.catalog("work").load_table("default.people").scan().to_arrow().num_rows == 1


def test_a_database_that_is_gone_before_a_commit_leaves_nothing_and_says_so(
    server: Server, far: Repository, wire: Wire
) -> None:
    before = length(far)
    wire.refuses = True
    wire.loses_answer_to = BEGIN
    reply = server.ask("POST", TABLE, alter("cleo"))
    error = reply.json()["error"]
    assert (reply.status_code, error["type"]) == (503, "ServiceUnavailableException")
    wire.refuses = False
    assert length(far) == before
    assert server.ask("GET", TABLE).status_code == 200


def test_a_database_that_was_restarted_between_two_requests_is_not_noticed(
    server: Server, far: Repository, postgres_url: str
) -> None:
    def ask(number: int) -> int:
        body = alter(str(number)) if number % 2 else None
        return server.ask("POST" if body else "GET", TABLE, body).status_code

    with ThreadPoolExecutor(8) as pool:  # so that several threads of it have sessions
        assert set(pool.map(ask, [0] * 8)) == {200}
    end_sessions(postgres_url)
    assert {ask(number) for number in range(8)} == {200}
    assert far.resolve("work")


def test_a_request_that_is_sent_again_while_the_first_is_under_way_is_done_once(
    tmp_path: Path,
) -> None:
    repo = make_project(tmp_path / "near")
    make_branch(repo, "work")
    with serving(tmp_path / "near", "--as", "ana") as server:
        table = server.catalog("work").create_table("default.people", schema=people().schema)
        body = {
            "requirements": [
                {"type": "assert-last-assigned-field-id", "last-assigned-field-id": 2}
            ],
            "updates": [
                {
                    "action": "add-schema",
                    "schema": {
                        **table.schema().model_dump(mode="json", by_alias=True),
                        "schema-id": 1,
                        "fields": [
                            *table.schema().model_dump(mode="json", by_alias=True)["fields"],
                            {"id": 3, "name": "age", "type": "long", "required": False},
                        ],
                    },
                    "last-column-id": 3,
                },
                {"action": "set-current-schema", "schema-id": -1},
            ],
        }

        def ask(_: int) -> httpx.Response:
            return server.ask("POST", TABLE, body, Idempotency_Key="once")

        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(ask, range(8)))
    assert {reply.status_code for reply in replies} == {200}
    assert length(repo) == 3
