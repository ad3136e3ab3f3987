"""`instep init`: make a lake for a project, or an empty project first."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.output import actor_option, emit, json_option, project_option
from instep.cli.project import find_folder, system_user
from instep.clock import system_clock
from instep.errors import ConflictError, InvalidError, NotFoundError
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
            else 'Next: "instep ingest FILE" reads your first file and drafts what it promises.'
        )
        return f"Made a lake in {self.lake}, with an empty branch main.\n{upon}"


@click.command()
@click.option("--empty", is_flag=True, help="Make a new project here, though one may be above.")
@project_option
@actor_option
@json_option
def init(empty: bool, project: Path | None, actor: str | None, as_json: bool) -> None:
    """Make a lake for this project; in a folder that has none, make the project first.

    \b
    Example:  instep init
              instep init --as ana
    """
    found = None if empty else _found(project)
    person = actor or _asked(system_user(), as_json or found is not None)
    folder = found or (project or Path.cwd()).resolve()
    if found is None:
        _write_project(folder, person)
    else:
        load_project(folder)
    place = find_lake(folder)
    repo = create_repository(place.root, system_clock, person, place.database)
    has_files = any(folder.glob("contracts/*.yaml")) or any(folder.glob("pipelines/*.yaml"))
    emit(Initialised(folder, repo.root, repo.resolve("main"), has_files), as_json)


def _found(given: Path | None) -> Path | None:
    """Returns the project folder; None where a new project is to be made in one that is there."""
    try:
        return find_folder(given)
    except NotFoundError:
        if given is not None and not given.is_dir():
            raise
        return None


def _asked(system_user: str, is_quiet: bool) -> str:
    """Returns who begins the project; on a terminal the system's user is offered."""
    if not is_quiet and sys.stdin.isatty() and sys.stdout.isatty():
        name: str = click.prompt("Who are you, as others should read it?", default=system_user)
        return name
    if not system_user:
        raise InvalidError(
            "The operating system has no name for its user: expected who begins this project. "
            "Add --as NAME.",
            kind="no-actor",
        )
    return system_user


def _write_project(folder: Path, person: str) -> None:
    path = folder / FILE
    if path.exists():
        raise ConflictError(
            f"{path} exists already: expected a folder without a project. "
            'Run "instep init" without --empty.',
            kind="project-exists",
        )
    is_plain = re.fullmatch(r"[A-Za-z][\w.-]*", person)
    name = person if is_plain else json.dumps(person, ensure_ascii=False)
    write_durably(path, _EMPTY.format(person=name).encode())
