"""`instep init`: make a lake for a project, or an empty project first."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.output import actor_option, emit, json_option, project_option
from instep.cli.project import find_folder
from instep.clock import system_clock
from instep.errors import ConflictError
from instep.history.objects import write_durably
from instep.history.repository import create_repository
from instep.pipelines.project import FILE, find_lake, load_project

_EMPTY = """\
# Where the lake is, and who may act. Every other key is in docs/configuration.md.
lake: lake
people: [{person}]
policies:
  # Nobody else can agree yet: changes merge without approval. With a second person, write 1.
  approvals: {{project: 0, pipeline: 0, model: 0}}
environments:
  prod: {{why: What consumers read.}}
"""


@dataclass(frozen=True, slots=True)
class Initialised:
    folder: Path
    lake: Path
    commit: str
    has_files: bool

    def to_json(self) -> dict[str, Json]:
        return {
            "project": str(self.folder),
            "lake": str(self.lake),
            "branch": "main",
            "commit": self.commit,
        }

    def to_text(self) -> str:
        upon = (
            'Next: "instep propose" proposes the contracts, pipelines and configuration here.'
            if self.has_files
            else 'Next: "instep ingest FILE" drafts a contract for your first file.'
        )
        return f"Made a lake in {self.lake}, with an empty branch main.\n{upon}"


@click.command()
@click.option("--empty", is_flag=True, help="Make a new project in this folder first.")
@project_option
@actor_option
@json_option
def init(empty: bool, project: Path | None, actor: str | None, as_json: bool) -> None:
    """Make a lake for this project.

    \b
    Example:  instep init
              instep init --empty --as ana
    """
    person = actor or getpass.getuser()
    if empty:
        folder = (project or Path.cwd()).resolve()
        _write_project(folder, person)
    else:
        folder = find_folder(project)
        load_project(folder)
    place = find_lake(folder)
    repo = create_repository(place.root, system_clock, person, place.database)
    has_files = any(folder.glob("contracts/*.yaml")) or any(folder.glob("pipelines/*.yaml"))
    emit(Initialised(folder, repo.root, repo.resolve("main"), has_files), as_json)


def _write_project(folder: Path, person: str) -> None:
    path = folder / FILE
    if path.exists():
        raise ConflictError(
            f"{path} exists already: expected a folder without a project. "
            'Run "instep init" without --empty.',
            kind="project-exists",
        )
    write_durably(path, _EMPTY.format(person=person).encode())
