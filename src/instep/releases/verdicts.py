"""What the gates of a release find on a commit: is every model on it good enough to be used?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from instep.canonical import JsonObject
from instep.findings import Finding, Severity
from instep.history.repository import Repository
from instep.models.card import Card, card_of
from instep.models.choice import no_model
from instep.pipelines.records import load_run
from instep.releases.environments import NOTHING_BEATS_CONSTANT


def model_verdicts(repo: Repository, commit: str) -> tuple[Finding, ...]:
    """Returns what is found of each model of a commit.

    A stop where its acceptable error was not met, or where it is not better than a constant; a
    warning where the commit holds another state of the pipeline than the one that made the model.
    """
    found: list[Finding] = []
    for key, content in repo.entries(commit, "model").items():
        found.extend(_verdicts(key, card_of(repo.objects, content)))
        found.extend(_made_otherwise(repo, commit, key, content))
    return tuple(found)


def _verdicts(key: str, card: Card) -> Iterator[Finding]:
    chosen, error = card.chosen, card.acceptable_error
    missed = [window for window in chosen.windows if not window.is_acceptable]
    if missed:
        windows = ", ".join(str(window.fold.test) for window in missed)
        yield Finding(
            "acceptable-error-missed",
            key,
            Severity.STOP,
            f"{key} missed its acceptable error ({error}) in {len(missed)} of "
            f"{len(chosen.windows)} test windows: {windows}. Train a better one, or change "
            "acceptable_error by review.",
        )
    else:
        yield Finding(
            "acceptable-error-met",
            key,
            Severity.NOTE,
            f"{key} met {error} in all {len(chosen.windows)} test windows.",
        )
    if not card.choice.beats_constant:
        yield Finding(
            NOTHING_BEATS_CONSTANT,
            key,
            Severity.STOP,
            f"{key}: {no_model(card.candidates, card.metric)}. Train on features that tell more, "
            'or on more windows; or release it all the same with "--force --why REASON".',
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
