"""Every act that writes, broken at every named place by a kill or by its disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaign import Act, Campaign, World
from campaign_acts import ACTS, ON_SQLITE

SAMPLED, SAMPLED_OF_SLOW = 2, 1
"""Faults of each act in the short suite."""
TRIED_OF_SLOW = 60
"""Faults of a slow act in the long suite, which tries all of every other."""
EXPECTED = 1_000
"""Faults that the long suite tries at least."""


def _prepared(folder: Path, act: Act) -> Campaign:
    campaign = Campaign(World(folder), act)
    campaign.prepare()
    return campaign


@pytest.mark.parametrize("act", (*ACTS, *ON_SQLITE), ids=lambda act: act.name[:20])
def test_some_faults_leave_before_or_after(act: Act, tmp_path: Path) -> None:
    campaign = _prepared(tmp_path, act)
    for fault in campaign.sample(SAMPLED_OF_SLOW if act.is_slow else SAMPLED):
        campaign.break_at(fault)
    assert campaign.wrong == []


@pytest.mark.long
def test_a_thousand_faults_leave_before_or_after(tmp_path: Path) -> None:
    tried, wrong = 0, []
    for number, act in enumerate((*ACTS, *ON_SQLITE)):
        campaign = _prepared(tmp_path / str(number), act)
        for fault in campaign.sample(TRIED_OF_SLOW) if act.is_slow else campaign.faults():
            campaign.break_at(fault)
        tried += campaign.tried
        wrong += campaign.wrong
    assert wrong == []
    assert tried >= EXPECTED
