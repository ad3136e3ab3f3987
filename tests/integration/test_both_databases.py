"""Every command works the same whichever database holds the catalog."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from commands import start
from databases import on_every
from shop import CONFIG, Shop, make_shop

from instep.history.places import on_s3
from instep.history.store import Database

SECONDS = 60


@pytest.fixture
def shop(
    tmp_path: Path, root: Path, database: Database | None, monkeypatch: pytest.MonkeyPatch
) -> Shop:
    made = make_shop(tmp_path / "shop")
    if database is not None:
        monkeypatch.setenv("SHOP_DATABASE", database.url)
        remote = on_s3(root)
        files = f"files: {root}, endpoint: '{remote.bucket.endpoint}', " if remote else ""
        lake = (
            f"{{folder: lake, {files}database: {{secret: SHOP_DATABASE}}, "
            f"schema: {database.schema}}}"
        )
        config = CONFIG.replace("lake: lake\n", f"lake: {lake}\n")
        (made.folder / "instep.yaml").write_text(config)
    return made


# On SQLite the walk goes this way, and every other test of whole commands a part of it. With the
# files on S3 the catalog is in PostgreSQL as well.
@pytest.mark.parametrize(
    ("database", "root"),
    [
        pytest.param("sqlite", "folder", marks=pytest.mark.long),
        pytest.param("postgres", "folder", marks=pytest.mark.long),
        ("postgres", "s3"),
    ],
    indirect=True,
    ids=["sqlite", "postgres", "s3"],
)
def test_the_whole_way_from_an_arrival_to_an_explained_answer(
    shop: Shop, database: Database | None
) -> None:
    shop.merged()
    files = [shop.month(1), shop.month(2), shop.month(3)]
    arrived = shop.must("ingest", *files, "--json").json
    assert [one["state"] for one in arrived["arrivals"]] == ["merged"] * 3
    ran = shop.must("run", "demand", "--branch", "try", "--json").json
    assert shop.must("diff", "main", "try", "--json").json["after"] == ran["output_commit"]
    number = str(shop.must("propose", "try", "--json").json["change"])
    assert shop.instep("approve", number).code == 5
    shop.must("approve", number, actor="ben")
    shop.must("merge", number)
    released = shop.must("release", "prod", actor="ben").out
    assert "prod" in released
    (live,) = shop.must("where", "--json").json["environments"]
    status = shop.must("status", "--json").json
    assert live["commit"] == status["main"]
    assert status["keys"]["table"] == 2
    receipt = ask(shop)["receipt"]
    explained = shop.must("explain", receipt, "--json")
    assert ran["output_commit"] in explained.out
    for words in (["log"], ["changes", "--all"], ["branch"], ["plan", "demand"]):
        shop.must(*words, "--json")
    assert shop.instep("watch", "prod").code == 2  # nothing has come since
    shop.must("ingest", shop.month(4))
    (watched,) = shop.must("watch", "prod", "--json").json["models"]
    assert watched["comparison"]["rows"] == 300
    assert (shop.folder / "lake" / "catalog.sqlite").exists() == (database is None)


@on_every
def test_a_second_lake_in_one_place_is_refused(shop: Shop) -> None:
    shop.must("init")
    assert json.loads(shop.instep("init", "--json").out)["error"]["kind"] == "lake-exists"


def ask(shop: Shop) -> Any:  # what the service answered
    """Serves prod for one question and returns the answer."""

    def asked(url: str) -> str:
        question = {
            "key": {"id": 1},
            "time": "2013-04-02T00:00:00Z",
            "features": {"shop": "a", "amount": 20.5},
        }
        reply = httpx.post(f"{url}/models/demand/predict", json=question, timeout=SECONDS)
        assert reply.status_code == 200, reply.text
        return reply.text

    done = start("serve", "prod", "--port", "0", "--json", at=shop.folder).done(asked)
    assert done.code == 0, done
    return json.loads(done.answer)
