"""`kill -9` at every named place of every act that writes: before or after, never between.

Each act is first run once while it writes down the places that it passes. Then, from the same
state, it is killed at each of them; what branches and environments show must be the state from
before or from after, and the same command must work afterwards.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from shop import Done, Shop, make_shop

State = dict[str, Any]  # what each ref shows, in facts that two runs of one act share


@dataclass(frozen=True, slots=True)
class Act:
    """A command, and what brings a shop to the state in which it is given."""

    name: str
    words: tuple[str, ...]
    actor: str
    prepare: Callable[[Shop], None]


def _until_arrived(shop: Shop) -> None:
    shop.merged()
    for month in (1, 2, 3):
        shop.month(month)


def _until_ingested(shop: Shop) -> None:
    _until_arrived(shop)
    shop.must("ingest", *(f"sales-2013-{month:02}.csv" for month in (1, 2, 3)))


def _until_run(shop: Shop) -> None:
    _until_ingested(shop)
    shop.must("run", "demand", "--branch", "try")


def _until_approved(shop: Shop) -> None:
    _until_run(shop)
    number = shop.must("propose", "try", "--json").json["change"]
    shop.must("approve", str(number), actor="ben")


def _until_merged(shop: Shop) -> None:
    _until_approved(shop)
    shop.must("merge", "5")


ACTS = (
    Act("ingest", ("ingest", "sales-2013-01.csv"), "ana", _until_arrived),
    Act("run", ("run", "demand", "--branch", "try"), "ana", _until_ingested),
    Act("propose", ("propose", "try"), "ana", _until_run),
    Act("merge", ("merge", "5"), "ana", _until_approved),
    Act("release", ("release", "prod"), "ben", _until_merged),
)


def state_of(shop: Shop) -> State:
    """Returns what main, the branch and the environment show, and the changes there are."""
    found: State = {"changes": len(shop.must("changes", "--all", "--json").json)}
    for ref in ("main", "try", "prod"):
        shown = shop.instep("show", ref, "--json")
        found[ref] = _keys(shown) if shown.code == 0 else None
    return found


def _keys(shown: Done) -> dict[str, Any]:
    """Returns the keys with their rows or blob; a killed run uses up a model's version number."""
    return {
        key: facts.get("rows", facts.get("blob", "")) for key, facts in shown.json["keys"].items()
    }


def _places(trace: Path, every: bool) -> list[str]:
    """Returns the places passed, each as "name:count"; without `every`, each name's last pass."""
    passed = trace.read_text().split()
    return passed if every else list({place.partition(":")[0]: place for place in passed}.values())


def _kill_everywhere(act: Act, folder: Path, every: bool) -> None:
    shop = make_shop(folder / "shop")
    act.prepare(shop)
    before = state_of(shop)
    saved = folder / "saved"
    shutil.copytree(shop.folder, saved)

    trace = folder / "trace"
    done = shop.instep(*act.words, actor=act.actor, env={"INSTEP_FAULT_TRACE": str(trace)})
    assert done.code == 0, done.err
    after = state_of(shop)
    assert after != before

    places = _places(trace, every)
    assert len({place.partition(":")[0] for place in places}) >= 3
    for place in places:
        shutil.rmtree(shop.folder)
        shutil.copytree(saved, shop.folder)
        killed = shop.instep(*act.words, actor=act.actor, env={"INSTEP_FAULT": place})
        assert killed.code != 0, f"{place} was not reached"
        state = state_of(shop)
        assert state in (before, after), f"{act.name} killed at {place} left {state}"
        again = shop.instep(*act.words, actor=act.actor)
        if state == before:
            assert again.code == 0, f"after {place}: {again.err}"
            assert state_of(shop) == after, f"after {place}"


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_kill_at_any_place_leaves_before_or_after(act: Act, tmp_path: Path) -> None:
    _kill_everywhere(act, tmp_path, every=False)


@pytest.mark.long
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_kill_at_every_place_leaves_before_or_after(act: Act, tmp_path: Path) -> None:
    _kill_everywhere(act, tmp_path, every=True)
