"""A power loss at any moment of real commands: whole, before or after, and after once answered."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from campaign import Act, Campaign, Catalog, World
from campaign_acts import ACTS, ON_SQLITE
from campaign_power import losses
from power import File, Folder
from wire import Wire

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed: system calls go unseen"
)

SAMPLED = ("init", "merge 1", "ingest sales-2013-01.csv", "restore ../backup")
SAMPLED_ON_POSTGRES = "ingest sales-2013-01.csv"
EVERY = (*ACTS, *ON_SQLITE)
unsynced = pytest.mark.parametrize("deaf_to", [File, Folder], ids=["files", "folders"])


def _act(name: str) -> Act:
    (found,) = (act for act in EVERY if act.name == name)
    return found


@pytest.mark.parametrize(
    "act", [act for act in EVERY if act.name in SAMPLED], ids=lambda act: act.name[:20]
)
def test_a_power_loss_leaves_before_or_after(act: Act, tmp_path: Path) -> None:
    looked, wrong = losses(Campaign(World(tmp_path), act), tmp_path / "calls")
    assert wrong == []
    assert looked >= 10


def test_a_power_loss_leaves_before_or_after_beside_postgres(
    tmp_path: Path, catalog: Catalog, wire: Wire
) -> None:
    campaign = Campaign(World(tmp_path, catalog), _act(SAMPLED_ON_POSTGRES))
    looked, wrong = losses(campaign, tmp_path / "calls", wire=wire)
    assert wrong == []
    assert looked >= 10


@unsynced
def test_a_disk_that_does_not_sync_is_seen_to_lose(deaf_to: type, tmp_path: Path) -> None:
    for name in ("merge 1", "ingest sales-2013-01.csv"):
        campaign = Campaign(World(tmp_path / name), _act(name))
        _, wrong = losses(campaign, tmp_path / "calls", frozenset({deaf_to}))
        assert wrong


@unsynced
def test_a_disk_that_does_not_sync_is_seen_to_lose_beside_postgres(
    deaf_to: type, tmp_path: Path, catalog: Catalog, wire: Wire
) -> None:
    campaign = Campaign(World(tmp_path, catalog), _act(SAMPLED_ON_POSTGRES))
    _, wrong = losses(campaign, tmp_path / "calls", frozenset({deaf_to}), wire)
    assert wrong


@pytest.mark.long
@pytest.mark.parametrize("act", EVERY, ids=lambda act: act.name[:20])
def test_a_power_loss_in_any_act_leaves_before_or_after(act: Act, tmp_path: Path) -> None:
    _, wrong = losses(Campaign(World(tmp_path), act), tmp_path / "calls")
    assert wrong == []


@pytest.mark.long
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name[:20])
def test_a_power_loss_in_any_act_leaves_before_or_after_beside_postgres(
    act: Act, tmp_path: Path, catalog: Catalog, wire: Wire
) -> None:
    campaign = Campaign(World(tmp_path, catalog), act)
    _, wrong = losses(campaign, tmp_path / "calls", wire=wire)
    assert wrong == []
