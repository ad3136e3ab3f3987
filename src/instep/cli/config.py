"""`instep config`: the resolved values of a pipeline, and setting one of them in its file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.output import emit, json_option, project_option, table
from instep.cli.project import find_folder, open_project
from instep.history.objects import write_durably
from instep.pipelines.capture import read_pipeline
from instep.pipelines.config import PipelineConfig
from instep.pipelines.edit import Edited, set_value
from instep.pipelines.prepare import lake_source


@dataclass(frozen=True, slots=True)
class Shown:
    config: PipelineConfig

    def to_json(self) -> Json:
        return {
            "pipeline": self.config.name,
            "values": [value.to_json() for value in self.config.values],
        }

    def to_text(self) -> str:
        rows = [
            [
                one.name,
                one.origin,
                one.value if isinstance(one.value, str) else json.dumps(one.value),
            ]
            for one in self.config.values
        ]
        return table(rows, ("name", "from", "value"), indent="")


@dataclass(frozen=True, slots=True)
class Set:
    path: str
    name: str
    edited: Edited

    def to_json(self) -> Json:
        return {
            "file": self.path,
            "name": self.name,
            "before": self.edited.before,
            "after": self.edited.after,
        }

    def to_text(self) -> str:
        before = self.edited.before if self.edited.before is not None else "absent"
        return (
            f"{self.path}: {self.name} was {before}, is {self.edited.after}.\n"
            "This is a draft on disk; a run on a branch captures it."
        )


@click.group(name="config")
def config() -> None:
    """Read or set values of a pipeline's configuration.

    \b
    Example:  instep config show delay
              instep config set delay slice.to 2013-10-01
    """


@config.command()
@click.argument("pipeline")
@click.option("--at", help="A branch or commit; default: the draft on disk.")
@project_option
@json_option
def show(pipeline: str, at: str | None, project: Path | None, as_json: bool) -> None:
    """Every resolved value, and the line it comes from.

    \b
    Example:  instep config show delay
    """
    if at is None:
        found, _ = read_pipeline(find_folder(project), pipeline)
    else:
        repo = open_project(project).repo
        found = lake_source(repo, repo.resolve(at), pipeline).config
    emit(Shown(found), as_json)


@config.command(name="set")
@click.argument("pipeline")
@click.argument("name")
@click.argument("value")
@project_option
@json_option
def set_(pipeline: str, name: str, value: str, project: Path | None, as_json: bool) -> None:
    """Set one value in the file on disk, keeping comments; the result is validated first.

    \b
    Example:  instep config set delay slice.to 2013-10-01
              instep config set delay steps.delay.seed 8
    """
    folder = find_folder(project)
    found, _ = read_pipeline(folder, pipeline)
    file = folder / found.path
    edited = set_value(file.read_text(encoding="utf-8"), found.path, name, value)
    write_durably(file, edited.text.encode())
    emit(Set(found.path, name, edited), as_json)
