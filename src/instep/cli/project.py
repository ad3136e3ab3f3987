"""Where a command works and who acts: the project folder, its lake, the actor."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from pathlib import Path

from instep.changes.people import check_actor, current_config, who_acts
from instep.clock import system_clock
from instep.errors import NotFoundError
from instep.history.repository import Repository, open_repository
from instep.pipelines.project import FILE, ProjectConfig, find_lake
from instep.tables.erased_copies import forget_erased


@dataclass(frozen=True, slots=True)
class Project:
    """A project folder and its lake, opened."""

    folder: Path
    repo: Repository

    def config(self) -> ProjectConfig:
        """Returns main's configuration; before the first merge, the project's own file."""
        return current_config(self.repo, self.folder)

    def actor(self, name: str | None) -> str:
        """Returns who acts, one of the project's people."""
        config = self.config()
        return check_actor(config, who_acts(config, name, system_user()))


def system_user() -> str:
    """Returns the name of the operating system's user, or nothing where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return ""


def find_folder(given: Path | None) -> Path:
    """Returns the project folder: the one given, or the nearest above that has an instep.yaml.

    Raises:
        NotFoundError (kind "no-project").
    """
    if given is not None:
        folders = [given.resolve()]
    else:
        here = Path.cwd()
        folders = [here, *here.parents]
    for folder in folders:
        if (folder / FILE).is_file():
            return folder
    raise NotFoundError(
        f"No {FILE} in {folders[0]}{'' if given else ' or above'}: expected a project folder. "
        'Go to one, name it with --project, or make one with "instep init".',
        kind="no-project",
    )


def open_project(given: Path | None) -> Project:
    """Opens the lake of a project."""
    folder = find_folder(given)
    place = find_lake(folder)
    repo = open_repository(place.root, system_clock, place.database)
    forget_erased(repo)
    return Project(folder, repo)
