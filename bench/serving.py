"""Single-row predictions per second over HTTP: one worker, eight connections, a real model.

The load is made by a process of its own. Durable: the server is killed with SIGKILL under load at
the end, and every receipt that a client had received is looked for. MLflow's scoring server answers
from the same bundle beside it, in a virtual environment that the bench makes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.figures import FOLDER, Figure, say
from bench.flights import served_project
from bench.processes import INSTEP, environment

CONNECTIONS = 8
WARM_S = 2
LOAD_S = 10
KILL_AFTER_S = 3
TARGET_PER_S = 800
TARGET_P99_MS = 30
PEER_PORT = 8797
PEER_WAIT_S = 120
PEER = "mlflow"


def durable() -> Iterator[Figure]:
    project = served_project()
    with _server(project, "durable") as (_, port):
        measured = _load(port, LOAD_S)
    yield _figure("serve-durable", measured, _killed(project))
    yield from _against_peer("serve-durable", measured)


def off() -> Iterator[Figure]:
    with _server(served_project(), "off") as (_, port):
        measured = _load(port, LOAD_S)
    yield _figure("serve-off", measured, {})
    yield from _against_peer("serve-off", measured)


def _figure(bench: str, measured: dict[str, Any], more: dict[str, int]) -> Figure:
    return Figure(
        bench,
        measured["per_second"],
        "requests/s",
        TARGET_PER_S,
        "at least",
        {
            "p50_ms": measured["p50_ms"],
            "p99_ms": measured["p99_ms"],
            "p99_target_ms": TARGET_P99_MS,
            "requests": measured["requests"],
            "failed": measured["failed"],
            "connections": CONNECTIONS,
            **more,
        },
    )


def _killed(project: Path) -> dict[str, int]:
    """Kills a server under load; returns how many receipts clients held, and how many are there."""
    from instep.serving.log_files import read_predictions, recover

    with _server(project, "durable") as (process, port):
        timer = threading.Timer(KILL_AFTER_S, process.send_signal, (signal.SIGKILL,))
        timer.start()
        receipts = set(_load(port, LOAD_S, warm=False)["receipts"])
        timer.join()
    folder = project / "lake" / "predictions"
    recover(folder)
    kept = receipts & {record.receipt for record in read_predictions(folder)}
    return {
        "acknowledged_before_kill": len(receipts),
        "found_after_kill": len(kept),
        "lost": len(receipts) - len(kept),
    }


@contextmanager
def _server(project: Path, mode: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [INSTEP, "serve", "prod", "--port", "0", "--json", "--log", mode]
    process = subprocess.Popen(
        command, cwd=project, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline())
        yield process, int(ready["url"].rpartition(":")[2])
    finally:
        process.kill()
        process.wait()


def _load(
    port: int,
    seconds: float,
    path: str = "/models/delay/predict",
    questions: Path = FOLDER / "questions.jsonl",
    warm: bool = True,
) -> dict[str, Any]:
    if warm:
        _load(port, WARM_S, path, questions, warm=False)
    command = [
        sys.executable,
        str(Path(__file__).with_name("load.py")),
        *("127.0.0.1", str(port), path, str(questions), str(seconds), str(CONNECTIONS)),
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    measured: dict[str, Any] = json.loads(said)
    return measured


def _against_peer(bench: str, ours: dict[str, Any]) -> Iterator[Figure]:
    try:
        version = _install_peer()
        theirs = _measure_peer()
    except (OSError, subprocess.SubprocessError, TimeoutError) as error:
        say(f"MLflow could not be measured beside it: {error}")
        return
    yield Figure(
        bench,
        ours["per_second"],
        "requests/s",
        theirs["per_second"],
        f"{PEER} {version}",
        {
            "peer": PEER,
            "p50_ms": ours["p50_ms"],
            "p99_ms": ours["p99_ms"],
            "peer_p50_ms": theirs["p50_ms"],
            "peer_p99_ms": theirs["p99_ms"],
            "peer_failed": theirs["failed"],
        },
    )


def _install_peer() -> str:
    """Makes the peer's virtual environment once; returns its version."""
    python = FOLDER / "venv" / "bin" / "python"
    if not python.exists():
        say("Installing MLflow into .bench/venv; this takes some minutes the first time.")
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER / "venv")], check=True)
    try:
        return _version(python)
    except subprocess.CalledProcessError:
        needs = (FOLDER / "bundle" / "requirements.txt").read_text().split()
        install = [str(python), "-m", "pip", "install", "--quiet", "mlflow", *needs]
        subprocess.run(install, check=True)
        return _version(python)


def _version(python: Path) -> str:
    ask = [str(python), "-c", "import importlib.metadata as m; print(m.version('mlflow'))"]
    return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()


def _measure_peer() -> dict[str, Any]:
    questions = FOLDER / "peer.jsonl"
    with (FOLDER / "questions.jsonl").open() as asked, questions.open("w") as file:
        for line in asked:
            body = {"dataframe_records": [json.loads(line)["features"]]}
            file.write(json.dumps(body) + "\n")
    with _peer(_serve_command()):
        return _load(PEER_PORT, LOAD_S, "/invocations", questions)


def _serve_command() -> list[str]:
    return [
        str(FOLDER / "venv" / "bin" / "mlflow"),
        *("models", "serve", "--model-uri", str(FOLDER / "bundle"), "--env-manager", "local"),
        *("--host", "127.0.0.1", "--port", str(PEER_PORT), "--workers", "1"),
    ]


@contextmanager
def _peer(command: Sequence[str]) -> Iterator[None]:
    """Runs the peer's server in a process group of its own, and ends all of it."""
    bin_folder = str(FOLDER / "venv" / "bin")
    with (FOLDER / "peer.log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=FOLDER,
            env={**environment(), "PATH": f"{bin_folder}:{os.environ['PATH']}"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_for_peer(process)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _wait_for_peer(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PEER_WAIT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PEER_PORT}/ping", timeout=1).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(f"it did not start; see {FOLDER / 'peer.log'}")
