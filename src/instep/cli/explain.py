"""`instep explain`: why a prediction is what it is, from its receipt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.output import emit, json_option, project_option
from instep.cli.project import open_project
from instep.clock import format_instant
from instep.explain.prediction import ContractInForce, Explanation, explain_receipt
from instep.serving.records import Predicted


@dataclass(frozen=True, slots=True)
class Explained:
    explanation: Explanation

    def to_json(self) -> Json:
        return self.explanation.to_json()

    def to_text(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        found = self.explanation
        record, source = found.prediction, found.prediction.source
        yield f"{record.receipt}, answered {format_instant(record.at)} in {source.environment}"
        match record.outcome:
            case Predicted(value):
                yield f"  prediction     {value}"
            case refused:
                yield f"  refused        {refused.message}"
        yield from (f"  flag           {flag}" for flag in record.flags)
        question = record.question
        key = ", ".join(f"{name}={value}" for name, value in question.key.items())
        yield f"  about          {key}, event time {format_instant(question.event_at)}"
        features = ", ".join(f"{name}={value}" for name, value in question.features.items())
        yield f"  inputs         {features}"
        yield from self._model_lines()
        yield from self._run_lines()
        yield from self._people_lines()

    def _model_lines(self) -> Iterator[str]:
        found, card = self.explanation, self.explanation.card
        source = found.prediction.source
        yield f"  model          {source.model} version {source.version}, {source.digest[:12]}"
        yield f"  chosen because {card.verdict}"
        met = "met" if card.chosen.is_eligible else "not met"
        yield f"  acceptable     {card.acceptable_error}: {met} in every test window"
        inside = found.prediction.question.event_at in card.intended
        yield (
            f"  intended for   {card.intended}: the event is "
            + ("inside" if inside else "OUTSIDE this period")
        )
        yield f"  data commit    {source.commit}"
        yield f"  in force       {_contracts(found.contracts)}"

    def _run_lines(self) -> Iterator[str]:
        found, run = self.explanation, self.explanation.run
        yield f"  run            {run.id} by {run.actor}, {format_instant(run.started_at)}"
        yield f"  slice          {run.slice} at commit {run.input_commit}"
        yield f"  trained on     {found.card.trained}, {found.card.counts.trained:,} rows"
        yield f"  trained under  {_contracts(found.trained_under)}"
        yield from (f"  since then     {one}" for one in found.erased)
        values = len(run.configuration)
        yield f"  configuration  {values} values, seed {found.card.seed}; see --json"
        yield f"  code           {run.code_digest[:16]} ({', '.join(run.code)})"
        yield f"  runtime        {run.runtime_digest[:16]}, engine {run.engine}"

    def _people_lines(self) -> Iterator[str]:
        found = self.explanation
        if found.change is None:
            yield "  proposed       no change brought this model to main: not recorded"
        else:
            change = found.change
            yield (
                f"  proposed       change {change.number} by {change.author}, "
                f"{format_instant(change.opened_at)}: {change.title}"
            )
            for approval in found.approvals:
                yield f"  approved       by {approval.actor}, {format_instant(approval.at)}"
            if change.ended_at is not None:
                yield f"  merged         by {change.ended_by}, {format_instant(change.ended_at)}"
        if found.released is None:
            yield "  released       not recorded"
        else:
            released = found.released
            yield (
                f"  released       by {released.actor}, {format_instant(released.at)}"
                + (f": {released.why}" if released.why else "")
            )


def _contracts(found: Sequence[ContractInForce]) -> str:
    named = (f"{one.table} {one.version} ({str(one.content['blob'])[:8]})" for one in found)
    return ", ".join(named) or "no contract"


@click.command()
@click.argument("receipt")
@project_option
@json_option
def explain(receipt: str, project: Path | None, as_json: bool) -> None:
    """Why a prediction is what it is: inputs, model, run, data, code, and who agreed.

    \b
    Example:  instep explain rcp_01934c1e-...
    """
    emit(Explained(explain_receipt(open_project(project).repo, receipt)), as_json)
