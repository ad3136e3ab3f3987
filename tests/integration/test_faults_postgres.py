"""The acts on PostgreSQL: killed at named places, and with each of its answers lost in turn."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaign import UNANSWERED, Act, Campaign, Catalog, World
from campaign_acts import ACTS
from wire import Wire

SAMPLED = {"merge 1", "branch make try"}
SAMPLED_FAULTS = 4
TRIED_OF_SLOW = 10
EXPECTED = 300
"""Lost answers and named faults that the long suite tries at least."""


def _prepared(act: Act, folder: Path, catalog: Catalog) -> Campaign:
    campaign = Campaign(World(folder, catalog), act)
    campaign.prepare()
    return campaign


def _lose_answers(campaign: Campaign, wire: Wire, count: int | None = None) -> None:
    """Loses each answer of an act in turn, or `count` of them."""
    campaign.world.reset()
    wire.questions = 0
    assert campaign.run().code == 0
    asked = wire.questions
    for number in range(asked) if count is None else (n * asked // count for n in range(count)):
        campaign.world.reset()
        wire.questions, wire.loses_answer_number = 0, number + 1
        ended = campaign.run()
        wire.loses_answer_number = 0
        campaign.look(f"answer {number + 1} of {asked} lost", ended, UNANSWERED)


@pytest.mark.parametrize(
    "act", [act for act in ACTS if act.name in SAMPLED], ids=lambda act: act.name
)
def test_faults_and_lost_answers_leave_before_or_after(
    act: Act, tmp_path: Path, catalog: Catalog, wire: Wire
) -> None:
    campaign = _prepared(act, tmp_path, catalog)
    for fault in campaign.sample(SAMPLED_FAULTS):
        campaign.break_at(fault)
    _lose_answers(campaign, wire, SAMPLED_FAULTS)
    assert campaign.wrong == []


@pytest.mark.long
def test_hundreds_of_faults_and_lost_answers_leave_before_or_after(
    tmp_path: Path, catalog: Catalog, wire: Wire
) -> None:
    tried, wrong = 0, list[str]()
    for number, act in enumerate(ACTS):
        campaign = _prepared(act, tmp_path / str(number), catalog)
        limit = TRIED_OF_SLOW if act.is_slow else None
        for fault in campaign.sample(TRIED_OF_SLOW):
            campaign.break_at(fault)
        _lose_answers(campaign, wire, limit)
        tried += campaign.tried
        wrong += campaign.wrong
    assert wrong == []
    assert tried >= EXPECTED
