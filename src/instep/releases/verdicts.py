"""What the gates of a release find on a commit: is every model on it good enough to be used?"""

from __future__ import annotations

from collections.abc import Mapping

from instep.canonical import JsonObject
from instep.findings import Finding, Severity
from instep.history.repository import Repository
from instep.models.card import card_of
from instep.pipelines.records import load_run


def model_verdicts(repo: Repository, commit: str) -> tuple[Finding, ...]:
    """Returns what is found of each model of a commit.

    A stop where its acceptable error was not met; a warning where the commit holds another state
    of the pipeline than the one that made the model.
    """
    found: list[Finding] = []
    for key, content in repo.entries(commit, "model").items():
        found.append(_verdict(repo, key, content))
        found.extend(_made_otherwise(repo, commit, key, content))
    return tuple(found)


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


def _made_otherwise(
    repo: Repository, commit: str, key: str, content: JsonObject
) -> tuple[Finding, ...]:
    with repo.store.reading() as tx:
        run = load_run(tx, str(content["run"]))
    pipeline = repo.find(commit, f"pipeline/{run.pipeline}")
    files = pipeline.get("files") if pipeline else None
    if files == run.code:
        return ()
    held = files if isinstance(files, Mapping) else {}
    differing = sorted(
        path for path in held.keys() | run.code.keys() if held.get(path) != run.code.get(path)
    )
    return (
        Finding(
            "made-by-another-pipeline",
            key,
            Severity.WARNING,
            f"{key} version {content['version']} was made by another state of "
            f"pipeline/{run.pipeline} than the one beside it ({', '.join(differing)} differ).",
        ),
    )
