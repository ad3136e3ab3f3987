"""May this change be merged now? One pure function over closed records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import assert_never

from instep.changes.inputs import Moved
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


def kinds_of_change(keys: Iterable[str]) -> frozenset[Kind]:
    """Returns every kind of change that a proposal of these keys is at once."""
    found = set()
    for key in keys:
        match kind_of(key):
            case "model":
                found.add(Kind.MODEL)
            case "pipeline" | "table":
                found.add(Kind.PIPELINE)
            case _:
                found.add(Kind.PROJECT)
    return frozenset(found)


def main_kind(kinds: Iterable[Kind]) -> Kind:
    """Returns by which kind a change is listed; what it needs goes by all of them."""
    order = (Kind.PROJECT, Kind.MODEL, Kind.PIPELINE)
    found = frozenset(kinds)
    return next((kind for kind in order if kind in found), Kind.PROJECT)


def needed_approvals(policy: Approvals, kinds: Iterable[Kind]) -> int:
    """Returns how many people other than its authors must agree to a change of all these kinds."""
    return max((_needed(policy, kind) for kind in kinds), default=policy.project)


def _needed(policy: Approvals, kind: Kind) -> int:
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
    authors: frozenset[str],
    people: Sequence[str],
    moved: Sequence[Moved] = (),
) -> Decision:
    """Returns whether `change` may be merged now.

    Only an approval of exactly this content (`binding`), by one of the `people` (anybody, where
    none are listed) who is not among its `authors`, counts. What was computed from inputs that
    `moved` since needs somebody to agree to that, even where its kind needs nobody.
    """
    can_nobody = bool(people) and authors.issuperset(people)
    needed = max(needed, 1) if moved else needed
    match change.state:
        case State.MERGED | State.REFUSED:
            return Wait((f"it has ended already ({change.state.value})",))
        case State.HELD:
            return Wait(("it is held: somebody has to decide about its data",))
        case State.OPEN:
            pass
        case _:
            assert_never(change.state)
    agreed = list(
        dict.fromkeys(
            a.actor
            for a in approvals
            if a.binding == binding and a.actor not in authors and (not people or a.actor in people)
        )
    )
    if len(agreed) >= needed:
        return Merge(tuple(agreed))
    lapsed = [a.actor for a in approvals if a.binding != binding]
    others = [name for name in people if name not in authors and name not in agreed]
    # Alone one cannot agree to inputs that moved, but one can run on what they are now.
    reasons = (
        []
        if can_nobody and moved
        else [
            f"it has {len(agreed)} of {needed} approvals by somebody else than "
            f"{', '.join(sorted(authors))}; "
            f"{', '.join(others) or 'nobody else in people:'} may give one"
        ]
    )
    if lapsed:
        reasons.append(
            f"what {', '.join(dict.fromkeys(lapsed))} approved is no longer what would be merged"
        )
    reasons += map(str, moved)
    if moved:
        agree = f', or agree to it as it is ("instep approve {change.number}")'
        reasons.append(
            f'run it on what main is now ("instep run {moved[0].pipeline} --branch NEW") and '
            f"propose that{'' if can_nobody else agree}"
        )
    return Wait(tuple(reasons))
