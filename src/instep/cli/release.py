"""`instep release` and `instep rollback`: move an environment, through its gates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.output import (
    actor_option,
    counted,
    emit,
    json_option,
    project_option,
    reason_option,
)
from instep.cli.project import open_project
from instep.clock import format_instant
from instep.releases import environments
from instep.releases.environments import Moved
from instep.releases.verdicts import model_verdicts


@dataclass(frozen=True, slots=True)
class MovedEnvironment:
    moved: Moved

    def to_json(self) -> Json:
        return self.moved.to_json()

    def to_text(self) -> str:
        moved = self.moved
        verb = "Released" if moved.kind == "release" else "Rolled back"
        came = f" from {moved.before[:12]}" if moved.before else ", its first release"
        lines = [
            f"{verb} {moved.environment} to {moved.commit[:12]}{came}, by {moved.actor} at "
            f"{format_instant(moved.at)[:19]} UTC.",
            f"  {counted(len(moved.keys), 'key')} changed there: {', '.join(moved.keys)}",
        ]
        if moved.kind == "rollback" and not moved.lived_before:
            lines.append(
                "  This state of all keys never lived together in this environment before."
            )
        lines.extend(f"  {finding.severity}: {finding.message}" for finding in moved.findings)
        lines.append('Next: "instep where".')
        return "\n".join(lines)


@click.command()
@click.argument("environment")
@click.argument("commit", default="main")
@click.option("--why", default="", help="The reason, kept with the move.")
@click.option(
    "--force", is_flag=True, help="Release a model that does not beat the constant; needs --why."
)
@project_option
@actor_option
@json_option
def release(
    environment: str,
    commit: str,
    why: str,
    force: bool,
    project: Path | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Move an environment to a commit of main (default: its head), if every gate says yes.

    \b
    Example:  instep release prod --as ben --why "the model was approved"
              instep release prod --as ben --force --why "a trial of the whole path"
    """
    opened = open_project(project)
    name = opened.actor(actor)
    repo = opened.repo
    target = repo.resolve(commit)
    with repo.store.transaction() as tx:
        moved = environments.release(
            tx,
            repo,
            environment,
            target,
            actor=name,
            why=why,
            judge=partial(model_verdicts, repo),
            force=force,
        )
    emit(MovedEnvironment(moved), as_json)


@click.command()
@click.argument("environment")
@click.option("--only", metavar="KEY", help="Move one key back, such as model/delay.")
@reason_option("The reason, kept with the move.")
@project_option
@actor_option
@json_option
def rollback(
    environment: str,
    only: str | None,
    why: str,
    project: Path | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Move an environment back to what it was before its last move, or one key of it.

    \b
    Example:  instep rollback prod --why "answers look wrong" --as ben
              instep rollback prod --only model/delay --why "worse on Mondays" --as ben
    """
    opened = open_project(project)
    name = opened.actor(actor)
    repo = opened.repo
    with repo.store.transaction() as tx:
        moved = environments.rollback(
            tx,
            repo,
            environment,
            only=only,
            actor=name,
            why=why,
            judge=partial(model_verdicts, repo),
        )
    emit(MovedEnvironment(moved), as_json)
