"""`instep plan`: what a run would do and cost, and where each value comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.output import emit, json_option, project_option, table
from instep.cli.project import open_project
from instep.clock import Window, format_instant
from instep.cost.estimate import describe, money
from instep.history.repository import MAIN
from instep.pipelines.compute import THREADS
from instep.pipelines.plan import Piece, RunPlan, StepPlan
from instep.pipelines.prepare import Planner, check_slices_used, disk_source
from instep.pipelines.project import Prices
from instep.pipelines.runtime import load_runtime


@dataclass(frozen=True, slots=True)
class Planned:
    plan: RunPlan
    at: str
    is_verbose: bool
    prices: Prices | None

    def to_json(self) -> Json:
        return {**self.plan.to_json(), "at": self.at, "price": self._price()}

    def to_text(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        config = self.plan.config
        yield f"Plan of {config.name} on {self.at} ({self.plan.commit[:12]}), slice {config.slice}"
        for step in self.plan.steps:
            yield from step_lines(step)
        price = self._price()
        cost = f", about {price} {self.prices.currency}" if price and self.prices else ""
        yield f"Estimate: {describe(self.plan.estimate)}{cost}"
        if not self.is_verbose:
            yield "Every resolved value and where it came from: --verbose"
            return
        yield "Configuration:"
        rows = [[one.name, one.origin, _shown(one.value)] for one in config.values]
        yield table(rows, ("name", "from", "value"))
        yield f"Runtime: {self.plan.runtime_digest[:12]}"

    def _price(self) -> str | None:
        if self.prices is None:
            return None
        return f"{money(self.plan.estimate.seconds, THREADS, self.prices.cpu_hour):.4f}"


def step_lines(step: StepPlan) -> Iterator[str]:
    """Yields what one step would do: how much is reused, and why the rest is not."""
    computed, total = len(step.computed), len(step.pieces)
    if step.is_reused:
        yield f"  {step.step.name} -> {step.output}: reused, nothing that reaches it changed"
        return
    part = f"{computed} of {total} periods computed" if total > 1 else "computed"
    yield f"  {step.step.name} -> {step.output}: {part}"
    column = next((piece.writes.column for piece in step.pieces if piece.writes), None)
    if column is not None:
        yield f"    writes the rows whose {column} lies in the period; others are only read"
    for reason, pieces in _by_reason(step.computed).items():
        where = f" in {_periods(pieces)}" if total > 1 else ""
        yield f"    {reason}{where}"
    if step.past and step.dropped and not step.computed:
        yield f"    {len(step.dropped)} periods are left out: they are no longer in the slice"


def _by_reason(pieces: tuple[Piece, ...]) -> dict[str, list[Piece]]:
    found: dict[str, list[Piece]] = {}
    for piece in pieces:
        for reason in piece.reasons:
            found.setdefault(str(reason), []).append(piece)
    return found


def _periods(pieces: list[Piece]) -> str:
    windows = [piece.window for piece in pieces if piece.window]
    merged: list[Window] = []
    for window in windows:
        if merged and merged[-1].end == window.start:
            merged[-1] = Window(merged[-1].start, window.end)
        else:
            merged.append(window)
    return ", ".join(f"{format_instant(w.start)} to {format_instant(w.end)}" for w in merged)


def _shown(value: Json) -> str:
    match value:
        case None:
            return "-"
        case str():
            return value
        case _:
            import json

            return json.dumps(value)


@click.command()
@click.argument("pipeline")
@click.option("--at", default=MAIN, help="The branch or commit to plan on; default: main.")
@click.option("--verbose", is_flag=True, help="Every resolved value, and where it came from.")
@click.option("--accept-runtime", is_flag=True, help="Reuse what another runtime computed.")
@project_option
@json_option
def plan(
    pipeline: str,
    at: str,
    verbose: bool,
    accept_runtime: bool,
    project: Path | None,
    as_json: bool,
) -> None:
    """What a run would compute or reuse, why, and what it should cost; changes nothing.

    \b
    Example:  instep plan delay
              instep plan delay --at try-delay --verbose
    """
    opened = open_project(project)
    repo = opened.repo
    source = disk_source(opened.folder, pipeline)
    runtime = load_runtime(repo.here / "cache" / "runtime")
    planner = Planner(repo, repo.resolve(at), source, runtime, accept_runtime)
    found = planner.plan_all()
    check_slices_used(found)
    emit(Planned(found, at, verbose, opened.config().prices), as_json)
