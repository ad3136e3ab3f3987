"""`instep watch`: what released models promised against what has happened since."""

from __future__ import annotations

from pathlib import Path

import click

from instep.cli.output import emit, json_option, project_option
from instep.cli.progress import say
from instep.cli.project import open_project
from instep.clock import parse_instant


@click.command()
@click.argument("environment")
@click.option("--model", metavar="NAME", help="Watch this model only.")
@click.option(
    "--data", default="main", show_default=True, metavar="REF", help="Where the new events are."
)
@click.option("--until", metavar="INSTANT", help="Look at events before this instant only.")
@project_option
@json_option
def watch(
    environment: str,
    model: str | None,
    data: str,
    until: str | None,
    project: Path | None,
    as_json: bool,
) -> None:
    """Say what changed since the models of ENVIRONMENT were trained, since when, and how sure.

    The events that came since are computed by the model's own pipeline, in a staging area, and
    scored by the released model; answers that were given are joined by their key.

    \b
    Example:  instep watch prod
    """
    opened = open_project(project)

    from instep.watch.watching import watch_environment

    result = watch_environment(
        opened.repo,
        environment,
        say,
        data=data,
        only=model,
        until=parse_instant(until) if until else None,
    )
    emit(result, as_json)
