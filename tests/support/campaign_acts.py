"""The acts that write to a lake, each with the state in which it is given."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
from campaign import DATABASE, Act, World
from commands import SECONDS, must, run
from shop import CONFIG, CONTRACT, Shop, make_shop

from instep.cli.claim import UNFINISHED
from instep.clock import system_clock
from instep.errors import NotFoundError
from instep.history.objects import Objects
from instep.history.repository import open_repository
from instep.lake import open_lake
from instep.pipelines.project import find_lake
from instep.serving.flush import REF, TABLE
from instep.serving.log_files import read_predictions
from instep.serving.process import predictions_folder

ROWS = 30
"""In a month: a lake of few bytes, with a file of each kind."""

_LEFT = b"left by somebody"
_OLD_CONTRACT = hashlib.sha256(CONTRACT.encode()).hexdigest()
_HELD_HEADER = "id,sold_at,shop,sum,paid"
_RELATIVE = "lake: lake\n"


def _project(world: World) -> None:
    make_shop(world.shop)
    if world.catalog is not None:
        schema = world.catalog.database.schema
        lake = f"{{folder: lake, database: {{secret: {DATABASE}}}, schema: {schema}}}"
        config = CONFIG.replace(_RELATIVE, f"lake: {lake}\n")
        (world.shop / "instep.yaml").write_text(config)
        world.catalog.remove()


def _made(world: World) -> None:
    _project(world)
    world.must("init")


def _proposed(world: World) -> None:
    _made(world)
    world.must("propose")


def _approved(world: World) -> None:
    _proposed(world)
    world.must("approve", "1", actor="ben")


def _merged(world: World) -> None:
    _approved(world)
    world.must("merge", "1")
    for month in (1, 2, 3):
        Shop(world.shop).month(month, ROWS)


def _ingested(world: World) -> None:
    _merged(world)
    world.must("ingest", "sales-2013-01.csv")


def _three_months(world: World) -> None:
    _merged(world)
    world.must("ingest", *(f"sales-2013-{month:02}.csv" for month in (1, 2, 3)))


def _held(world: World) -> None:
    _ingested(world)
    name = Shop(world.shop).month(2, ROWS, _HELD_HEADER)
    assert run("ingest", name, at=world.shop, env=world.env).code == 5


def _released(world: World) -> None:
    _ingested(world)
    world.must("release", "prod")
    world.must("ingest", "sales-2013-02.csv")
    world.must("release", "prod")


def _branched(world: World) -> None:
    _ingested(world)
    world.must("branch", "make", "try")


def _left(world: World) -> None:
    """Condemned garbage: a blob that nothing names, and the commit of a branch that is gone."""
    _branched(world)
    world.must("undo", "change", "2", "--on", "try")
    world.must("branch", "delete", "try")
    _objects(world.shop).put(_LEFT)
    world.must("gc", "--keep", "0")


def _left_now(world: World) -> object:
    return _objects(world.shop).has(hashlib.sha256(_LEFT).hexdigest())


def _new_contract(world: World) -> None:
    _ingested(world)
    contract = world.shop / "contracts" / "sales.yaml"
    contract.write_text(CONTRACT.replace("version: 1.0.0", "version: 1.0.1"))
    number = str(world.must("propose", "--json").json["change"])
    world.must("approve", number, actor="ben")
    world.must("merge", number)


def _old_bytes_gone(world: World) -> None:
    assert not _objects(world.shop).path(_OLD_CONTRACT).exists()


def _backed_up(world: World) -> None:
    _ingested(world)
    world.must("backup", str(world.work / "backup"))
    make_shop(world.work / "again")


def _finished(world: World) -> None:
    """Nothing says any more that the lake is still being made."""
    assert not (find_lake(world.work / "again").root / UNFINISHED).exists()


def _restores(world: World) -> None:
    """Makes a lake, with its catalog in SQLite, of what was backed up."""
    make_shop(world.work / "again")
    must("restore", "../backup", at=world.work / "again")


def _moved(world: World) -> None:
    _ingested(world)
    world.shop.rename(world.work / "elsewhere")


def _served(world: World) -> None:
    _three_months(world)
    world.must("run", "demand", "--branch", "try")
    number = str(world.must("propose", "try", "--json").json["change"])
    world.must("approve", number, actor="ben")
    world.must("merge", number)
    # Of so few rows nobody can tell that the model beats the constant.
    world.must("release", "prod", "--force", "--why", "few rows are faster", actor="ben")


def _ask(url: str) -> str:
    """Asks for one prediction; returns its receipt."""
    features = {"shop": "a", "amount": 20.5}
    body = {"key": {"id": 1}, "time": "2013-04-03T00:00:00Z", "features": features}
    try:
        reply = httpx.post(f"{url}/models/demand/predict", json=body, timeout=SECONDS)
    except httpx.TransportError:
        return ""
    return str(reply.json().get("receipt", ""))


def _answered(world: World) -> object:
    """Returns what was asked and answered; a table that has more, or twice, is wrong besides."""
    logged, copied = _logged(world), _copied(world)
    return sorted({*logged.values()}), sorted(copied - Counter(logged.keys()))


def _all_copied(world: World) -> None:
    assert _copied(world) == Counter(_logged(world).keys())


def _logged(world: World) -> dict[str, str]:
    """Returns the questions in the log of predictions, by their receipts."""
    folder = predictions_folder(find_lake(world.shop).root)
    return {one.receipt: json.dumps(one.question.key) for one in read_predictions(folder)}


def _copied(world: World) -> Counter[str]:
    """Returns the receipts in the table of predictions."""
    lake = open_lake(world.shop)
    try:
        with suppress(NotFoundError):
            return Counter(map(str, lake.at(REF).table(TABLE).arrow()["receipt"].to_pylist()))
    finally:
        lake.repo.store.close()
    return Counter()


def _objects(folder: Path) -> Objects:
    place = find_lake(folder)
    repo = open_repository(place.root, system_clock, place.database)
    repo.store.close()
    return repo.objects


ACTS = (
    Act(("init",), _project, again=4),
    Act(("propose",), _made),
    Act(("approve", "1"), _proposed, actor="ben"),
    Act(("merge", "1"), _approved, again=5),
    Act(("ingest", "sales-2013-01.csv"), _merged),
    Act(("accept", "3", "--rename", "sum=amount"), _held, again=5, actor="ben"),
    Act(("refuse", "3", "--why", "a test"), _held, again=5, actor="ben"),
    Act(("release", "prod"), _ingested, again=5),
    Act(("rollback", "prod", "--why", "a test"), _released, again=5),
    Act(("undo", "change", "2"), _ingested),
    Act(("undo", "change", "2", "--on", "try"), _branched, again=5),
    Act(("branch", "make", "try"), _ingested, again=4),
    Act(("branch", "rename", "try", "other"), _branched, again=3),
    Act(("branch", "protect", "try"), _branched),
    Act(("branch", "delete", "try"), _branched, again=3),
    Act(("tag", "make", "v1"), _ingested, again=4),
    Act(("gc", "--keep", "0"), _left, seen=_left_now),
    Act(("erase", _OLD_CONTRACT, "--why", "a test"), _new_contract, check=_old_bytes_gone),
    Act(("backup", "../backup"), _ingested, again=4, check=_restores),
    Act(("run", "demand", "--branch", "try"), _three_months, is_slow=True),
    Act(
        ("serve", "prod", "--port", "0", "--json"),
        _served,
        ask=_ask,
        kept=_answered,
        check=_all_copied,
        is_slow=True,
    ),
)

ON_SQLITE = (
    Act(("restore", "../backup"), _backed_up, again=4, check=_finished, at="again"),
    Act(("doctor", "--relocate", "copied"), _moved, again=5, at="elsewhere"),
)
"""Acts that are told apart by where the catalog is a file."""
