"""Who may ask for predictions: here all but pages in browsers, elsewhere who proves who they are.

What holds for every application on the socket is in `server/test_doors`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commands import start
from plain_http import JSON, SECONDS, Answer, Headers, bearer, tell
from serving_builders import JULY, learn, move, put_lake

from instep.clock import system_clock
from instep.history.repository import create_repository, open_repository

QUESTION = json.dumps(
    {
        "key": {"flight": 1},
        "time": JULY,
        "features": {"hour": 9, "dest": "BOS", "wind_speed": 4.5},
    }
).encode()
PREDICT = "/models/delay/predict"


@dataclass(frozen=True, slots=True)
class Server:
    """An `instep serve prod` that said it is ready."""

    ready: Mapping[str, Any]  # JSON

    def tell(self, method: str, path: str, headers: Headers = (), host: str = "") -> Answer:
        body = QUESTION if path == PREDICT else b""
        return tell(str(self.ready["url"]), method, path, headers, body, host)

    def predict(self, *headers: tuple[str, str], host: str = "") -> Answer:
        return self.tell("POST", PREDICT, headers, host)


@contextmanager
def serving(project: Path, *options: str, **variables: str) -> Iterator[Server]:
    words = ("serve", "prod", "--port", "0", "--json", *options)
    running = start(*words, at=project, actor="", env=variables, seconds=0)
    try:
        yield Server(json.loads(running.out.readline()))
    finally:
        running.kill()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose lake has a model `delay`, released to prod."""
    return make(tmp_path_factory.mktemp("open"))


def make(folder: Path, config: str = "") -> Path:
    (folder / "instep.yaml").write_text(f"lake: lake\n{config}")
    put_lake(create_repository(folder / "lake", system_clock, "ana"))
    return folder


@pytest.fixture(scope="module")
def near(project: Path) -> Iterator[Server]:
    """A server that this machine alone reaches."""
    with serving(project) as running:
        yield running


@pytest.fixture(scope="module")
def far(project: Path) -> Iterator[Server]:
    """A server that others reach."""
    with serving(project, "--host", "0.0.0.0") as running:
        yield running


def test_an_anonymous_client_of_this_machine_is_answered(near: Server) -> None:
    assert near.ready["token"] is None
    assert near.predict(JSON).status == 200
    assert near.tell("GET", "/models").status == 200
    assert near.tell("GET", "/health").json["requests"]["answered"] >= 1


@pytest.mark.parametrize(
    ("headers", "host", "status"),
    [
        ([JSON], "evil.example", 421),
        ([JSON, ("Origin", "http://evil.example")], "", 403),
        ([JSON, ("Origin", "null")], "", 403),
        ([JSON, ("Sec-Fetch-Site", "cross-site")], "", 403),
        ([("Content-Type", "text/plain;charset=UTF-8")], "", 415),
        ([("Content-Type", "application/x-www-form-urlencoded")], "", 415),
        ([], "", 415),
    ],
)
def test_a_page_in_a_browser_asks_for_no_prediction(
    near: Server, headers: Headers, host: str, status: int
) -> None:
    before = near.tell("GET", "/health").json["requests"]
    answer = near.predict(*headers, host=host)
    assert answer.status == status
    assert answer.json["error"]["family"] in ("refused", "invalid")
    assert near.tell("GET", "/health").json["requests"] == before


def test_a_page_under_a_name_of_its_own_reads_neither_models_nor_health(near: Server) -> None:
    for path in ("/models", "/health"):
        assert near.tell("GET", path, host="evil.example").status == 421


def test_an_anonymous_client_of_the_network_learns_only_whether_the_server_is_well(
    far: Server,
) -> None:
    for method, path in (("POST", PREDICT), ("GET", "/models"), ("GET", "/"), ("HEAD", "/health")):
        answer = far.tell(method, path, [JSON])
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    health = far.tell("GET", "/health")
    assert (health.status, health.json) == (200, {"status": "ok"})
    assert far.tell("GET", "/iceberg/v1/config").status == 401


def test_who_has_the_token_of_the_process_is_answered_beyond_loopback(far: Server) -> None:
    token = bearer(far.ready["token"])
    assert far.predict(JSON, token).json["receipt"].startswith("rcp_")
    assert far.tell("GET", "/models", [token]).status == 200
    assert far.tell("GET", "/health", [token]).json["commit"] == far.ready["commit"]
    assert far.tell("GET", "/health", [bearer("wrong")]).status == 401


def test_a_stranger_is_refused_before_their_question_is_read(far: Server) -> None:
    address = str(far.ready["url"])
    answer = tell(address, "POST", PREDICT, [JSON, ("Content-Length", "9000")])
    assert (answer.status, answer.kind, answer.is_closed) == (401, "not-authenticated", True)
    size = ("Content-Length", str(2 << 20))
    token = bearer(far.ready["token"])
    answer = tell(address, "POST", PREDICT, [JSON, token, size])
    assert (answer.status, answer.kind, answer.is_closed) == (400, "request-too-large", True)


def test_a_person_with_a_token_is_answered_and_guesses_are_slowed(tmp_path: Path) -> None:
    make(tmp_path, "people: {ana: {token: {secret: T_ANA}}}\n")
    with serving(tmp_path, "--allow-host", "box.example", T_ANA="a-token-of-ana") as server:
        assert server.ready["token"] is None
        asked = [server.predict(JSON, bearer(f"guess{number}")) for number in range(6)]
        assert [answer.status for answer in asked] == [401] * 5 + [429]
        assert asked[5].kind == "too-many-guesses"
        assert int(asked[5].headers["retry-after"]) > 0
        again = server.predict(JSON, bearer("a-token-of-ana"))
        assert again.status == 429
    with serving(tmp_path, "--allow-host", "box.example", T_ANA="a-token-of-ana") as server:
        ana = (JSON, bearer("a-token-of-ana"))
        assert server.predict(*ana, host="box.example").status == 200
        for number in range(6):
            server.predict(JSON, bearer(f"guess{number}"))
        assert server.predict(*ana).status == 200


def test_trouble_is_told_without_where_the_lake_is_on_this_machine(tmp_path: Path) -> None:
    repo = open_repository(make(tmp_path) / "lake", system_clock)
    with serving(tmp_path) as server:
        commit = learn(repo, version="2", seed=2)
        files = repo.content(commit, "model/delay")["files"]
        assert isinstance(files, Mapping)
        for digest in files.values():
            repo.objects.existing(str(digest)).unlink()
        move(repo, commit)
        deadline = time.monotonic() + SECONDS
        while (health := server.tell("GET", "/health").json)["status"] != "degraded":
            assert time.monotonic() < deadline
    assert "expected it in objects." in health["trouble"]
    assert str(tmp_path) not in health["trouble"]
