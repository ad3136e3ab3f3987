"""What is new about a model: its scores in every window, its gain over the constant, its period."""

from __future__ import annotations

from instep.canonical import Json
from instep.changes.key_evidence import KeyEvidence, act_of
from instep.clock import Window
from instep.findings import Finding, Severity
from instep.history.repository import Repository
from instep.history.tree import Difference
from instep.models.card import Card, card_of


def describe_model(repo: Repository, difference: Difference) -> KeyEvidence:
    """Returns the evidence of a model that was added, replaced or removed."""
    before = card_of(repo.objects, difference.before) if difference.before else None
    after = card_of(repo.objects, difference.after) if difference.after else None
    if after is None:
        return KeyEvidence(difference.key, act_of(difference), ("the model is removed",))
    version = str((difference.after or {}).get("version"))
    sentences = [f"version {version}", *_sentences(after)]
    facts: dict[str, Json] = {"version": version, "card": after.to_json()}
    if before is not None:
        shared = _shared_windows(before, after)
        facts["before_on_the_same_windows"] = shared
        sentences.append(
            f"{len(shared)} test windows are the same as those of the version before"
            if shared
            else "no test window is the same as those of the version before: not compared"
        )
        if before.digest == after.digest:
            sentences.append("its parameters are identical to those of the version before")
    return KeyEvidence(
        difference.key,
        act_of(difference),
        tuple(sentences),
        facts,
        _findings(difference.key, after),
    )


def _sentences(card: Card) -> list[str]:
    found = [card.verdict]
    gain = card.choice.gain
    if gain is not None:
        found.append(f"gain over the constant: {gain} {card.metric}")
    found.append(
        f"acceptable error ({card.acceptable_error}): "
        + ("met in every window" if card.chosen.is_eligible else "NOT met in every window")
    )
    found.append(
        f"trained on {card.trained} ({card.counts.trained:,} rows), intended for {card.intended}"
    )
    return found


def _findings(key: str, card: Card) -> tuple[Finding, ...]:
    found = []
    if not card.chosen.is_eligible:
        found.append(
            Finding(
                "acceptable-error-missed",
                key,
                Severity.WARNING,
                f"{key} may be merged and not be released: its acceptable error was not met.",
            )
        )
    if not card.choice.beats_constant:
        found.append(Finding("nothing-beats-constant", key, Severity.WARNING, card.verdict))
    return tuple(found)


def _shared_windows(before: Card, after: Card) -> list[Json]:
    """Returns the scores of both chosen candidates on the test windows that both have."""
    old: dict[Window, float | None] = {
        window.fold.test: window.metric for window in before.chosen.windows
    }
    return [
        {"test": str(window.fold.test), "before": old[window.fold.test], "after": window.metric}
        for window in after.chosen.windows
        if window.fold.test in old
    ]
