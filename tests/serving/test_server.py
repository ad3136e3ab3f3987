"""A real server on a real lake: what answers says who it is, and what it said is never lost."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from commands import KILLED, Running, start
from serving_builders import JULY, SPEC, learn, move, put_lake

from instep.canonical import Json
from instep.clock import system_clock
from instep.errors import InvalidError, NotFoundError, UnavailableError
from instep.history.repository import Repository, create_repository, open_repository
from instep.models.spec import Outside
from instep.serving.flush import flush
from instep.serving.guard import Admitted, Plain, check
from instep.serving.http import bind
from instep.serving.log_files import find_receipt, read_predictions, recover
from instep.serving.process import predictions_folder
from instep.serving.records import Predicted, Question, Refused
from instep.serving.served import load_served

SECONDS = 60
"""The most any one step may take; on a busy machine scikit-learn alone imports for several."""

Reply = Mapping[str, Any]  # JSON


@dataclass(frozen=True, slots=True)
class Server:
    """One `instep serve` process that said it is ready."""

    running: Running
    ready: Reply

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    def predict(self, features: Mapping[str, object], model: str = "delay") -> httpx.Response:
        body = {"key": {"flight": 1}, "time": JULY, "features": features}
        return httpx.post(f"{self.url}/models/{model}/predict", json=body, timeout=SECONDS)

    def health(self) -> Reply:
        found: Reply = httpx.get(f"{self.url}/health", timeout=SECONDS).json()
        return found


@contextmanager
def serving(project: Path, *options: str, fault: str = "") -> Iterator[Server]:
    words = ("serve", "prod", "--port", "0", "--json", *options)
    running = start(*words, at=project, fault=fault, seconds=0)
    try:
        yield Server(running, json.loads(running.out.readline()))
    finally:
        running.kill()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose lake has a model `delay`, released to prod."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "instep.yaml").write_text("lake: lake\n")
    put_lake(create_repository(folder / "lake", system_clock, "ana"))
    return folder


@pytest.fixture(scope="module")
def lake(project: Path) -> Repository:
    return open_repository(project / "lake", system_clock)


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[Server]:
    with serving(project) as running:
        yield running


FITTING: dict[str, Json] = {"hour": 9, "dest": "BOS", "wind_speed": 4.5}


def test_an_answer_names_its_model_version_and_commit_and_carries_a_receipt(
    server: Server, lake: Repository
) -> None:
    reply = server.predict(FITTING)
    body = reply.json()
    assert reply.status_code == 200
    assert 0 <= body["prediction"] <= 1
    assert (body["model"], body["version"], body["environment"]) == ("delay", "1", "prod")
    assert body["commit"] == server.ready["commit"]
    assert body["flags"] == []
    record = find_receipt(predictions_folder(lake.root), body["receipt"])
    assert record.outcome == Predicted(body["prediction"])
    assert record.question.features == FITTING


def test_health_counts_mistakes_of_clients_apart_from_failures_of_the_service(
    server: Server,
) -> None:
    before = server.health()["requests"]
    assert server.predict(FITTING, model="dlay").status_code == 404
    assert httpx.get(f"{server.url}/nowhere", timeout=SECONDS).status_code == 404
    url = f"{server.url}/models/delay/predict"
    json_type = {"content-type": "application/json"}
    reply = httpx.post(url, content=b"{", headers=json_type, timeout=SECONDS)
    assert reply.status_code == 400
    after = server.health()["requests"]
    changed = {name: after[name] - before[name] for name in after}
    assert changed == {"answered": 0, "refused": 0, "bad_requests": 3, "failed": 0}


def test_the_catalog_of_tables_is_served_beside_the_predictions(server: Server) -> None:
    told = httpx.get(f"{server.ready['iceberg']}/v1/config?warehouse=prod", timeout=SECONDS).json()
    assert told["overrides"] == {"prefix": "prod"}


def test_a_refusal_has_a_receipt_too_and_says_what_was_seen(
    server: Server, lake: Repository
) -> None:
    reply = server.predict({**FITTING, "dest": "ILM"})
    body = reply.json()
    assert reply.status_code == 422
    assert body["error"]["kind"] == "prediction-refused"
    assert '"ILM", which training never saw: expected one of ATL, BOS, SFO' in reply.text.replace(
        '\\"', '"'
    )
    record = find_receipt(predictions_folder(lake.root), body["receipt"])
    assert isinstance(record.outcome, Refused)


def test_a_penguin_breaks_the_contract_of_the_table_that_the_feature_came_from(
    server: Server,
) -> None:
    body = server.predict({**FITTING, "dest": "penguin"}).json()
    (reason,) = body["error"]["reasons"]
    assert reason["kind"] == "breaks-contract"
    assert "the contract of flights says that it matches" in reason["message"]


def test_missing_weather_and_a_value_outside_training_are_answered_and_flagged(
    server: Server,
) -> None:
    body = server.predict({"hour": 2, "dest": "BOS", "wind_speed": None}).json()
    assert body["flags"] == [
        "hour outside training range 5..23: 2",
        "wind_speed missing: answered without it",
    ]


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "kind"),
    [
        ("POST", "/models/delay/predict", b"penguin", 400, "bad-request"),
        ("POST", "/models/delay/predict", b"x" * (1024 * 1024 + 1), 400, "request-too-large"),
        ("POST", "/models/arrival/predict", b"{}", 404, "no-such-model"),
        ("GET", "/models/delay/predict", b"", 404, "no-such-route"),
    ],
)
def test_what_cannot_be_answered_is_an_error_of_its_family(
    server: Server, method: str, path: str, content: bytes, status: int, kind: str
) -> None:
    headers = {"Content-Type": "application/json"}
    reply = httpx.request(
        method, server.url + path, content=content, headers=headers, timeout=SECONDS
    )
    assert (reply.status_code, reply.json()["error"]["kind"]) == (status, kind)


def test_the_models_say_what_they_take(server: Server) -> None:
    (model,) = httpx.get(f"{server.url}/models", timeout=SECONDS).json()["models"]
    assert [feature["name"] for feature in model["features"]] == ["hour", "dest", "wind_speed"]
    assert model["terms"]["dest"][0] == "flights: is not null"
    assert model["intended_for"] == "2013-07-01 to 2013-08-15"


def test_answers_in_a_batch_are_those_of_the_model_alone(server: Server, lake: Repository) -> None:
    asked: list[dict[str, Plain]] = [
        {"hour": 5 + n % 19, "dest": "BOS", "wind_speed": n / 3} for n in range(64)
    ]
    with ThreadPoolExecutor(8) as pool:
        replies = [reply.json() for reply in pool.map(server.predict, asked)]
    model = load_served(lake, "prod").model("delay")
    columns = {name: [one[name] for one in asked] for name in FITTING}
    assert [reply["prediction"] for reply in replies] == list(model.predict(columns))
    assert len({reply["receipt"] for reply in replies}) == 64


def test_two_servers_on_one_port_are_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UnavailableError) as error:
        bind("127.0.0.1", taken.getsockname()[1])
    assert error.value.kind == "port-in-use"


def test_what_the_training_step_says_of_other_periods_is_what_is_served(repo: Repository) -> None:
    put_lake(repo)
    answered = load_served(repo, "prod").model("delay")
    spec = replace(SPEC, outside_period=Outside.REFUSE)
    move(repo, learn(repo, version="2", seed=2, spec=spec))
    refused = load_served(repo, "prod").model("delay")
    asked = Question({"flight": 1}, datetime(2014, 1, 1, tzinfo=UTC), FITTING)

    assert isinstance(check(answered.guard, asked), Admitted)
    verdict = check(refused.guard, asked)
    assert isinstance(verdict, Refused)
    assert [reason.kind for reason in verdict.reasons] == ["outside-intended-period"]
    shown = [model.to_json()["outside_period"] for model in (answered, refused)]
    assert shown == ["answer", "refuse"]


def test_a_branch_is_not_served(lake: Repository) -> None:
    with pytest.raises(InvalidError, match='"main" is a branch: expected an environment') as error:
        load_served(lake, "main")
    assert error.value.kind == "not-an-environment"


def test_an_environment_without_a_model_is_not_served(repo: Repository) -> None:
    move(repo, repo.resolve("main"))
    with pytest.raises(NotFoundError, match="has no model") as error:
        load_served(repo, "prod")
    assert error.value.kind == "nothing-to-serve"


def test_a_server_follows_the_environment_and_each_answer_says_what_answered(
    tmp_path: Path,
) -> None:
    (tmp_path / "instep.yaml").write_text("lake: lake\n")
    repo = create_repository(tmp_path / "lake", system_clock, "ana")
    first = put_lake(repo)
    with serving(tmp_path) as server:
        second = learn(repo, version="2", seed=2)
        move(repo, second)
        _until(lambda: server.health()["commit"] == second)
        assert server.predict(FITTING).json()["version"] == "2"
        move(repo, first)
        _until(lambda: server.health()["commit"] == first)
        assert server.predict(FITTING).json()["version"] == "1"


def test_a_stopped_server_ends_its_log_copies_it_to_its_table_and_exits_with_zero(
    project: Path, lake: Repository
) -> None:
    with serving(project) as server:
        receipt = server.predict(FITTING).json()["receipt"]
        assert server.running.stop().code == 0
    folder = predictions_folder(project / "lake")
    assert find_receipt(folder, receipt).receipt == receipt
    assert flush(lake, folder).records == 0


def test_off_answers_without_a_receipt_and_counts_it(project: Path) -> None:
    with serving(project, "--log", "off") as server:
        assert server.predict(FITTING).json()["receipt"] is None
        assert server.health()["log"]["unlogged"] == 1


@pytest.mark.parametrize(
    ("mode", "fault"),
    [
        ("durable", "predictions.append.before:20"),
        ("durable", "predictions.append.after:20"),
        ("durable", "predictions.sync.before:20"),
        ("durable", "predictions.sync.after:20"),
        ("batched", "predictions.append.after:20"),
    ],
)
def test_an_acknowledged_prediction_survives_kill_9(project: Path, mode: str, fault: str) -> None:
    acknowledged: list[str] = []

    def ask(server: Server) -> None:
        with httpx.Client(base_url=server.url, timeout=SECONDS) as client:
            body = {"key": {"flight": 1}, "time": JULY, "features": FITTING}
            try:
                while True:
                    reply = client.post("/models/delay/predict", json=body)
                    acknowledged.append(reply.json()["receipt"])
            except httpx.HTTPError:
                return

    with serving(project, "--log", mode, fault=fault) as server:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ask, [server] * 4))
        assert server.running.done().code == KILLED
    folder = predictions_folder(project / "lake")
    recover(folder)
    assert set(acknowledged) <= {record.receipt for record in read_predictions(folder)}


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
