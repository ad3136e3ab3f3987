"""Who writes waits for the lake's lock in nobody's way, and of too many the last does not wait."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from asgi import Slow, ask
from rest import make_branch, make_project, people, serving

from instep import faults
from instep.history.repository import Repository
from instep.server.answers import failed
from instep.server.clients import Clients
from instep.server.crews import WRITES_AT_ONCE, WRITES_WAITING
from instep.server.exchange import application
from instep.server.iceberg import Service, iceberg, sent_again
from instep.server.reading import find_place, get_table, load_state

TABLE = "/iceberg/v1/work/namespaces/default/tables/people"
MOST = WRITES_AT_ONCE + WRITES_WAITING


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    made = make_project(tmp_path)
    make_branch(made, "work")
    with serving(tmp_path, "--as", "ana") as server:
        server.catalog("work").create_table("default.people", schema=people().schema)
    yield made
    faults.watch(None)


def set_property(name: str) -> bytes:
    update = {"action": "set-properties", "updates": {name: "1"}}
    return json.dumps({"requirements": [], "updates": [update]}).encode()


def test_who_reads_is_answered_while_commits_wait_for_the_lock_of_the_lake(
    tmp_path: Path, repo: Repository
) -> None:
    waiting = threading.Semaphore(0)
    faults.watch(lambda place: waiting.release() if place == "rest.commit.before" else None)
    clients = Clients(repo, tmp_path, "127.0.0.1", "ana")
    app, token = iceberg(Service(repo, clients)), clients.make_token()

    async def scene() -> set[int]:
        with repo.store.transaction():
            commits = [
                asyncio.create_task(
                    ask(app, path=TABLE, body=set_property(f"p{number}"), token=token)
                )
                for number in range(WRITES_AT_ONCE)
            ]
            for _ in commits:
                await asyncio.to_thread(waiting.acquire)
            for path in ("/iceberg/v1/config", TABLE):
                assert (await ask(app, "GET", path)).status == 200
            assert not any(one.done() for one in commits)
        return {told.status for told in await asyncio.gather(*commits)}

    assert asyncio.run(scene()) <= {200, 409}
    state = get_table(repo, find_place(repo, "work"), "people")
    found = load_state(repo, state, for_writing=False).metadata["properties"]
    assert [name for name in found if name.startswith("p")]


def test_of_too_many_who_write_the_last_is_told_to_come_back_and_readers_are_not() -> None:
    slow = Slow()
    app = application(slow, failed, sent_again)

    async def scene() -> None:
        taken = [asyncio.create_task(ask(app, body=b"%d" % number)) for number in range(MOST)]
        for _ in range(WRITES_AT_ONCE):
            await asyncio.to_thread(slow.begun.acquire)
        late = await ask(app, body=b"late")
        assert (late.status, json.loads(late.body)["error"]["kind"]) == (503, "server-busy")
        assert int(late.headers["Retry-After"]) > 0
        assert (await ask(app, "GET")).status == 204
        assert slow.asked == WRITES_AT_ONCE
        slow.may_end.set()
        assert {told.status for told in await asyncio.gather(*taken)} == {200}
        assert (await ask(app, body=b"late")).status == 200

    asyncio.run(scene())
