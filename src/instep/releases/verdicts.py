"""What the gates of a release find on a commit: is every model on it good enough to be used?"""

from __future__ import annotations

from instep.canonical import JsonObject
from instep.findings import Finding, Severity
from instep.history.repository import Repository
from instep.models.card import card_of


def model_verdicts(repo: Repository, commit: str) -> tuple[Finding, ...]:
    """Returns one finding per model of a commit: a stop where its acceptable error was not met."""
    models = repo.entries(commit, "model")
    return tuple(_verdict(repo, key, content) for key, content in models.items())


def _verdict(repo: Repository, key: str, content: JsonObject) -> Finding:
    card = card_of(repo.objects, content)
    chosen, error = card.chosen, card.acceptable_error
    missed = [window for window in chosen.windows if not window.is_acceptable]
    if card.choice.is_releasable:
        return Finding(
            "acceptable-error-met",
            key,
            Severity.NOTE,
            f"{key} met {error} in all {len(chosen.windows)} test windows.",
        )
    windows = ", ".join(str(window.fold.test) for window in missed)
    return Finding(
        "acceptable-error-missed",
        key,
        Severity.STOP,
        f"{key} missed its acceptable error ({error}) in {len(missed)} of {len(chosen.windows)} "
        f"test windows: {windows}. Train a better one, or change acceptable_error by review.",
    )
