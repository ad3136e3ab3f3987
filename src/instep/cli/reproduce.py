"""`instep reproduce`: an old run again, compared with what it made then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.output import emit, json_option, project_option, table
from instep.cli.progress import say
from instep.cli.project import open_project
from instep.pipelines.reproduce import Reproduction, reproduce_run


@dataclass(frozen=True, slots=True)
class Reproduced:
    found: Reproduction

    def to_json(self) -> Json:
        return self.found.to_json()

    def to_text(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        run = self.found.run
        yield (
            f"{run.id} of {run.pipeline} by {run.actor}, again from commit "
            f"{run.input_commit[:12]} and code {run.code_digest[:12]}: {self.found.sameness}"
        )
        yield table([[one.key, str(one.sameness)] for one in self.found.outputs])
        for one in self.found.erased:
            yield f"  erased: {one}"
        if self.found.runtime:
            yield f"  the runtime is another one: {'; '.join(self.found.runtime)}"
        else:
            yield "  the runtime is the same"


@click.command()
@click.argument("run")
@project_option
@json_option
def reproduce(run: str, project: Path | None, as_json: bool) -> None:
    """Run an old run again on its pinned commit with its kept code, and compare; keeps nothing.

    \b
    Example:  instep reproduce run_019a3c5e
    """
    opened = open_project(project)
    emit(Reproduced(reproduce_run(opened.repo, run, opened.folder, say)), as_json)
