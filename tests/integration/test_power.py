"""A power loss at every fsync of real commands: whole, before or after, and after once answered."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from campaign import Act, Campaign, World
from campaign_acts import ACTS, ON_SQLITE
from forks import Forks, started
from power import Call, Disk, File, Folder, Survives, recorded

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed: system calls go unseen"
)

SAMPLED = ("init", "merge 1", "ingest sales-2013-01.csv", "restore ../backup")
EVERY = (*ACTS, *ON_SQLITE)


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with started(tmp_path_factory.mktemp("forks")) as made:
        yield made


def _losses(
    act: Act, forks: Forks, folder: Path, deaf_to: frozenset[type]
) -> tuple[int, list[str]]:
    """Returns how many power losses were looked at, and what was wrong after them."""
    campaign = Campaign(World(forks, folder), act)
    campaign.prepare()
    campaign.world.reset()
    disk = Disk(campaign.world.work, deaf_to)
    env = {"INSTEP_ACTOR": act.actor}
    made = recorded(act.words, campaign.folder, env, folder / "calls")
    looked, wrong, is_answered = 0, list[str](), False
    for number, call in enumerate(made):
        is_answered = is_answered or _is_answer(call)
        if not disk.apply(call) and not _is_answer(call):
            continue
        for survives in Survives:
            disk.restore(survives)
            looked += 1
            for problem in campaign.wrong_state(is_done=is_answered):
                wrong.append(f"{act.name}, call {number} ({call.name}), {survives}: {problem}")
    assert is_answered, "no answer was seen"
    return looked, wrong


def _is_answer(call: Call) -> bool:
    return call.name == "write" and call.handle == "1" and call.result > 0


@pytest.mark.parametrize(
    "act", [act for act in EVERY if act.name in SAMPLED], ids=lambda act: act.name[:20]
)
def test_a_power_loss_leaves_before_or_after(act: Act, forks: Forks, tmp_path: Path) -> None:
    looked, wrong = _losses(act, forks, tmp_path, frozenset())
    assert wrong == []
    assert looked >= 10


@pytest.mark.parametrize("deaf_to", [File, Folder], ids=["files", "folders"])
def test_a_disk_that_does_not_sync_is_seen_to_lose(
    deaf_to: type, forks: Forks, tmp_path: Path
) -> None:
    (act,) = (act for act in ACTS if act.name == "merge 1")
    (ingest,) = (act for act in ACTS if act.name == "ingest sales-2013-01.csv")
    for one in (act, ingest):
        _, wrong = _losses(one, forks, tmp_path / one.words[0], frozenset({deaf_to}))
        assert wrong


@pytest.mark.long
@pytest.mark.parametrize("act", EVERY, ids=lambda act: act.name[:20])
def test_a_power_loss_in_any_act_leaves_before_or_after(
    act: Act, forks: Forks, tmp_path: Path
) -> None:
    _, wrong = _losses(act, forks, tmp_path, frozenset())
    assert wrong == []
