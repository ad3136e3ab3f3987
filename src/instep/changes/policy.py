"""May this change be merged now? One pure function over closed records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import assert_never

from instep.changes.records import Approval, Change, Kind, State
from instep.history.tree import kind_of
from instep.pipelines.project import Approvals


@dataclass(frozen=True, slots=True)
class Merge:
    """Every gate says yes. `approved_by` counts towards it, in the order of agreeing."""

    approved_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Something is missing; each reason says what, and who may give it."""

    reasons: tuple[str, ...]


Decision = Merge | Wait


def kind_of_change(keys: Iterable[str]) -> Kind:
    """Returns the kind of a proposal by what it touches: the one with most at stake wins."""
    kinds = {kind_of(key) for key in keys}
    if "model" in kinds:
        return Kind.MODEL
    if kinds & {"pipeline", "table"} and not kinds & {"config", "contract"}:
        return Kind.PIPELINE
    return Kind.PROJECT


def needed_approvals(policy: Approvals, kind: Kind) -> int:
    """Returns how many people other than the author must agree."""
    match kind:
        case Kind.ARRIVAL:
            return policy.arrival
        case Kind.PROJECT:
            return policy.project
        case Kind.PIPELINE:
            return policy.pipeline
        case Kind.MODEL:
            return policy.model
        case _:
            assert_never(kind)


def decide(
    change: Change,
    approvals: Sequence[Approval],
    *,
    binding: str,
    needed: int,
    people: Sequence[str],
) -> Decision:
    """Returns whether `change` may be merged now.

    Only an approval of exactly this content (`binding`) by somebody else than the author counts.
    `people` are those who may agree, for the message.
    """
    match change.state:
        case State.MERGED | State.REFUSED:
            return Wait((f"it has ended already ({change.state.value})",))
        case State.HELD:
            return Wait(("it is held: its data does not fit its contract",))
        case State.OPEN:
            pass
        case _:
            assert_never(change.state)
    agreed = [a.actor for a in approvals if a.binding == binding and a.actor != change.author]
    agreed = list(dict.fromkeys(agreed))
    if len(agreed) >= needed:
        return Merge(tuple(agreed))
    lapsed = [a.actor for a in approvals if a.binding != binding]
    others = [name for name in people if name != change.author and name not in agreed]
    reasons = [
        f"it has {len(agreed)} of {needed} approvals by somebody else than {change.author}; "
        f"{', '.join(others) or 'nobody else in people:'} may give one"
    ]
    if lapsed:
        reasons.append(
            f"what {', '.join(dict.fromkeys(lapsed))} approved is no longer what would be merged"
        )
    return Wait(tuple(reasons))
