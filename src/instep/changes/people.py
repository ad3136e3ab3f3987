"""Who may act: the people of `config/instep`, as the lake knows it."""

from __future__ import annotations

from pathlib import Path

from instep.errors import InvalidError, RefusedError
from instep.history.repository import MAIN, Repository
from instep.pipelines.project import ProjectConfig, lake_config, load_project


def current_config(repo: Repository, project: Path) -> ProjectConfig:
    """Returns main's configuration; before the first merge, the project's own file."""
    return lake_config(repo, repo.resolve(MAIN)) or load_project(project)


def who_acts(config: ProjectConfig, named: str | None, system_user: str) -> str | None:
    """Returns who acts: who is named, else the system's user where they are one of the people,
    else the only person there is; None where that leaves a choice."""
    if named:
        return named
    if not config.people or system_user in config.people:
        return system_user
    return next(iter(config.people)) if len(config.people) == 1 else None


def check_actor(config: ProjectConfig, actor: str | None) -> str:
    """Returns `actor`, who must be one of the people; with nobody listed anyone may act.

    Raises:
        InvalidError (kind "no-actor"): nobody was named.
        RefusedError (kind "unknown-actor").
    """
    known = ", ".join(config.people) or "anybody, since people: is empty"
    if not actor:
        raise InvalidError(
            f"Nobody is named as acting: expected one of {known}. "
            "Add --as NAME, or set INSTEP_ACTOR.",
            kind="no-actor",
        )
    if config.people and actor not in config.people:
        raise RefusedError(
            f'"{actor}" is not among the people of this project: expected one of {known}. '
            "Correct the name, or propose a change of people: in instep.yaml.",
            kind="unknown-actor",
            actor=actor,
        )
    return actor
