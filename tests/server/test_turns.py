"""A request that is sent again waits for its first sending, for a while, and in nobody's way."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from asgi import Slow, Told, ask
from rest import make_branch, make_project, people, serving

from instep.history.commits import first_parents
from instep.server.answers import failed
from instep.server.exchange import application
from instep.server.iceberg import sent_again

TABLE = "work/namespaces/default/tables/people"
MANY = 40
"""More than a server has threads."""


@pytest.mark.parametrize("key", [None, "k"])
def test_who_has_waited_too_long_is_told_to_come_back(key: str | None) -> None:
    slow = Slow()
    app = application(slow, failed, sent_again, wait_s=0.01)

    async def scene() -> tuple[Told, Told, Told]:
        first = asyncio.create_task(ask(app, key=key))
        await asyncio.to_thread(slow.begun.acquire)
        again = await ask(app, key=key)
        slow.may_end.set()
        return await first, again, await ask(app, key=key)

    first, again, later = asyncio.run(scene())
    assert (first.status, again.status, later.status) == (200, 503, 200)
    assert int(again.headers["Retry-After"]) > 0
    assert b'"kind":"request-under-way"' in again.body
    assert slow.asked == 2


def test_those_who_wait_take_no_thread_from_others() -> None:
    slow = Slow()
    app = application(slow, failed, sent_again)

    async def scene() -> list[Told]:
        waiting = [asyncio.create_task(ask(app, key="k")) for _ in range(MANY)]
        await asyncio.to_thread(slow.begun.acquire)
        other = await ask(app, "GET")
        assert (other.status, slow.asked) == (204, 1)
        slow.may_end.set()
        return await asyncio.gather(*waiting)

    assert {told.status for told in asyncio.run(scene())} == {200}
    assert slow.asked == MANY


def test_what_is_not_the_same_does_not_wait() -> None:
    slow = Slow()
    app = application(slow, failed, sent_again, wait_s=0.01)

    async def scene() -> list[Told]:
        asked = [
            asyncio.create_task(ask(app, body=b"one")),
            asyncio.create_task(ask(app, body=b"two")),
            asyncio.create_task(ask(app, body=b"two", key="k")),
        ]
        for _ in asked:
            await asyncio.to_thread(slow.begun.acquire)
        slow.may_end.set()
        return await asyncio.gather(*asked)

    assert {told.status for told in asyncio.run(scene())} == {200}


def test_a_server_whose_branch_is_held_answers_others_and_does_what_was_repeated_once(
    tmp_path: Path,
) -> None:
    repo = make_project(tmp_path)
    make_branch(repo, "work")
    body = {
        "requirements": [],
        "updates": [{"action": "set-properties", "updates": {"owner": "ana"}}],
    }
    with serving(tmp_path, "--as", "ana") as server:
        server.catalog("work").create_table("default.people", schema=people().schema)

        def commit(_: int) -> httpx.Response:
            return server.ask("POST", TABLE, body, Idempotency_Key="once")

        with ThreadPoolExecutor(MANY) as pool:
            with repo.store.transaction():
                replies = [pool.submit(commit, number) for number in range(MANY)]
                assert [server.ask("GET", TABLE).status_code for _ in range(10)] == [200] * 10
            statuses = {one.result().status_code for one in replies}
    assert statuses == {200}
    with repo.store.reading() as tx:
        assert sum(1 for _ in first_parents(tx, repo.resolve("work"), 1000)) == 3
