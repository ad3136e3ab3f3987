"""`instep run`: a pipeline on a branch, as one commit or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json, JsonObject
from instep.cli.output import actor_option, emit, json_option, project_option, table
from instep.cli.progress import say, show_printed
from instep.cli.project import open_project
from instep.cost.estimate import describe_bytes, describe_seconds
from instep.errors import InvalidError
from instep.models.card import Card
from instep.models.choice import CandidateScores
from instep.pipelines.run import RunRequest, RunResult, StepResult, run_pipeline


@dataclass(frozen=True, slots=True)
class Ran:
    result: RunResult

    def to_json(self) -> Json:
        return self.result.to_json()

    def to_text(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        run = self.result.run
        new = " (new)" if self.result.is_new_branch else ""
        yield f"{run.id} of {run.pipeline} on {run.branch}{new}, slice {run.slice}"
        for step in self.result.steps:
            yield f"  {_step(step)}"
        for text in run.metrics.values():
            yield from card_lines(Card.from_json(text))
        yield from self._commit_lines()
        if run.actual.get("steps"):
            yield f"Took {_cost(run.actual)}; estimated {_cost(run.estimated)}."
        if self.result.changed:
            yield (f'Next: "instep diff main {run.branch}", then "instep propose {run.branch}".')

    def _commit_lines(self) -> Iterator[str]:
        result = self.result
        commit = str(result.run.output_commit)[:12]
        if result.changed:
            yield f"Commit {commit} changes {', '.join(result.changed)}."
        else:
            yield f"Nothing changed: {result.run.branch} stays at {commit}."
        if result.captured:
            yield f"From the project folder: {', '.join(result.captured)}."
        if result.left:
            left = ", ".join(f"{one.key} ({one.state})" for one in result.left)
            yield (
                f"Not taken from it, and other there than on {result.run.branch}: {left}. "
                'It counts by "instep propose".'
            )


def card_lines(card: Card) -> Iterator[str]:
    """Yields a model's scores per window as a small table, and what was chosen and why."""
    yield f"Model {card.model}: {card.metric} | {card.acceptable_error.metric} per test window"
    names = [scores.name for scores in card.candidates]
    rows = []
    for place, fold in enumerate(card.candidates[0].windows):
        cells = [_score(scores, place) for scores in card.candidates]
        rows.append([str(fold.fold.test), f"{fold.tested:,}", *cells])
    yield table(rows, ("test window", "rows", *names))
    met = "met in every window" if card.chosen.is_eligible else "NOT met: may not be released"
    yield f"  acceptable error: {card.acceptable_error}: {met}"
    if card.choice.beats_constant:
        yield f"  chosen: {card.choice.name}. {card.choice.reason}"
        yield f"  gain over the constant: {card.choice.gain} {card.metric}"
    else:
        yield f"  {card.verdict}"
    yield f"  incomplete window dropped: {card.dropped}; intended for {card.intended}"


def _score(scores: CandidateScores, place: int) -> str:
    window = scores.windows[place]
    mark = "" if window.is_acceptable else " x"
    return f"{_figure(window.metric)} | {_figure(window.acceptable)}{mark}"


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _step(step: StepResult) -> str:
    if step.actual is None:
        return f"{step.name} -> {step.output}: reused, nothing that reaches it changed"
    took = f"{describe_seconds(step.actual.seconds)}, {describe_bytes(step.actual.memory_bytes)}"
    pieces = step.computed + step.reused
    part = f"{step.computed} of {pieces} periods computed" if pieces > 1 else "computed"
    return f"{step.name} -> {step.output}: {part} in {took} ({'; '.join(step.why)})"


def _cost(found: JsonObject) -> str:
    seconds, memory = found.get("seconds"), found.get("memory_bytes")
    assert isinstance(seconds, int | float) and isinstance(memory, int | float)
    return f"{describe_seconds(seconds)} and {describe_bytes(memory)}"


@click.command()
@click.argument("pipeline")
@click.option("--branch", help="The branch to publish on; made from main if it is missing.")
@click.option("--accept-runtime", is_flag=True, help="Reuse what another runtime computed.")
@project_option
@actor_option
@json_option
def run(
    pipeline: str,
    branch: str | None,
    accept_runtime: bool,
    project: Path | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Capture a pipeline, run it, and publish all it made as one commit on a branch.

    \b
    Example:  instep run delay --branch try-delay --as ana
    """
    if branch is None:
        raise InvalidError(
            f'Run of "{pipeline}" has no branch: expected one, because files on disk are a draft '
            f"and main changes by review only. Add --branch try-{pipeline}.",
            kind="no-branch",
        )
    opened = open_project(project)
    config = opened.config()
    request = RunRequest(
        pipeline=pipeline,
        folder=opened.folder,
        branch=branch,
        actor=opened.actor(actor),
        accept_runtime=accept_runtime,
        budget=config.run_budget,
    )
    emit(Ran(run_pipeline(opened.repo, request, say, show_printed)), as_json)
