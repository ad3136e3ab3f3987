"""One act, and a power loss at each moment from which on something has to be kept.

Such a moment is each fsync, each COMMIT that is sent to PostgreSQL, and the answer of the act. What
PostgreSQL itself keeps is its own: of the lake's files, everything that a transaction names has to
be durable before its COMMIT leaves, for from then on it may be kept.
"""

from __future__ import annotations

from pathlib import Path

from campaign import Act, Campaign
from power import Call, Disk, Survives, asks_commit, recorded
from wire import Wire


def losses(
    campaign: Campaign, to: Path, deaf_to: frozenset[type] = frozenset(), wire: Wire | None = None
) -> tuple[int, list[str]]:
    """Returns how many power losses were looked at, and what was wrong after them.

    The act's system calls are written `to` a file. Its catalog is behind `wire`, or in SQLite.
    """
    world, act = campaign.world, campaign.act
    campaign.prepare()
    world.reset()
    disk = Disk(world.work, deaf_to)
    catalogs = _followed(campaign, wire)
    env = {**world.env, "INSTEP_ACTOR": act.actor}
    made = recorded(act.words, campaign.folder, env, to, act.ask)
    looked, wrong, commits, is_answered = 0, list[str](), 0, False
    for number, call in enumerate(made):
        is_answered = is_answered or _is_answer(act, call)
        commits += asks_commit(call)
        if not disk.apply(call) and not asks_commit(call) and not _is_answer(act, call):
            continue
        for survives in Survives:
            disk.restore(survives)
            if world.catalog is not None:
                world.catalog.show(catalogs[commits])
            looked += 1
            for problem in campaign.wrong_state(is_done=is_answered):
                wrong.append(f"{act.name}, call {number} ({call.name}), {survives}: {problem}")
            if is_answered and act.ask is None and act.check is not None:
                act.check(world)
    assert is_answered, "no answer was seen"
    assert len(catalogs) == 1 + commits, "not every commit was seen"
    return looked, wrong


def _followed(campaign: Campaign, wire: Wire | None) -> list[list[str]]:
    """Returns the catalog's rows as they are, to which those after each commit will be added."""
    catalog = campaign.world.catalog
    if catalog is None or wire is None:
        return [[]]
    found = [catalog.lines()]
    wire.committed = lambda: found.append(catalog.lines())
    return found


def _is_answer(act: Act, call: Call) -> bool:
    """Says whether who gave the act learns by this call that it is done."""
    if act.ask is not None:
        return call.name == "sendto" and b'"receipt"' in call.data
    return call.name == "write" and call.handle == "1" and call.result > 0
