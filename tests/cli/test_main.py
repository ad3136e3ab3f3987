"""How a process ends: one message, the family's exit code, and JSON where JSON was asked for."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from shop import Shop, make_shop


def instep(
    folder: Path, *words: str, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "instep", *words],
        cwd=folder,
        env={**os.environ, "INSTEP_ACTOR": "ana"},
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=before,
    )


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return make_shop(tmp_path / "shop").merged()


@pytest.mark.parametrize(
    "words",
    [("review", "abc"), ("refuse", "6"), ("log", "--limit", "-1"), ("plan",), ("nosuchcommand",)],
)
def test_wrong_words_are_an_error_in_json_too(tmp_path: Path, words: tuple[str, ...]) -> None:
    ended = instep(tmp_path, *words, "--json")
    assert ended.returncode == 2
    error = json.loads(ended.stdout)["error"]
    assert (error["family"], error["kind"]) == ("invalid", "usage")
    assert "Traceback" not in ended.stderr


def test_a_full_disk_is_unavailable_and_leaves_main_alone(shop: Shop) -> None:
    file = shop.month(1, rows=3000)
    before = shop.must("show", "main", "--json").json["commit"]["id"]

    def small() -> None:
        # No file of this process may grow beyond 64 KiB: what a full disk does, without one.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))

    ended = instep(shop.folder, "ingest", file, "--json", before=small)
    assert ended.returncode in (6, 8), ended.stderr
    assert json.loads(ended.stdout)["error"]["message"]
    assert shop.must("show", "main", "--json").json["commit"]["id"] == before
    shop.must("ingest", file)


def test_an_interrupted_command_says_so(shop: Shop) -> None:
    file = shop.month(1)
    child = subprocess.Popen(
        [sys.executable, "-m", "instep", "ingest", file],
        cwd=shop.folder,
        env={**os.environ, "INSTEP_ACTOR": "ana", "INSTEP_FAULT": "engine.copy.after=stop"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGCONT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert said.strip().endswith("Interrupted.")
    assert "Traceback" not in said
    shop.must("ingest", file)


def test_names_and_values_in_any_script_arrive_and_run(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop")
    contract = shop.folder / "contracts/sales.yaml"
    valid = "arguments: {validValues: [Köln, Zürich, Łódź]}"
    values = f"quality: [{{metric: invalidValues, {valid}, mustBe: 0}}]"
    contract.write_text(
        contract.read_text().replace(
            "- {name: shop, logicalType: string, required: true}",
            f"- {{name: shop, logicalType: string, required: true, {values}}}\n"
            "      - {name: größe, logicalType: integer}",
        )
    )
    sql = shop.folder / "steps/orders.sql"
    sql.write_text("-- Größe, größer: äöü ñ 日本\n" + sql.read_text() + "-- Łódź äöü;\n")
    shop.merged()
    rows = [f"{n},2013-01-{n % 28 + 1:02}T00:00:00Z,Köln,{n},{n % 20},{n}" for n in range(100)]
    (shop.folder / "sales-2013-01.csv").write_text(
        "\n".join(["id,sold_at,shop,größe,amount,paid", *rows, "100,2013-01-01,Kolin,1,1,1"]) + "\n"
    )
    (arrival,) = shop.must("ingest", "sales-2013-01.csv", "--json").json["arrivals"]
    assert (arrival["rows"], arrival["quarantined"]) == (101, 1)
    shop.must("plan", "demand")


def test_growing_order_numbers_are_no_change_of_unit(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop").merged()
    for month in (1, 2, 3):
        rows = shop.month(month, rows=500)
        text = (shop.folder / rows).read_text().splitlines()
        first = 5001 + 500 * (month - 1)
        lines = [f"{first + n},{line.split(',', 1)[1]}" for n, line in enumerate(text[1:])]
        (shop.folder / rows).write_text("\n".join([text[0], *lines]) + "\n")
        (arrival,) = shop.must("ingest", rows, "--json").json["arrivals"]
        assert arrival["state"] == "merged"
        assert not [one for one in arrival["findings"] if "id" in one["subject"].split(".")[-1:]]
