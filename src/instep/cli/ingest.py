"""`instep ingest`: let files arrive; each is a change of its own, merged when it fits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.output import actor_option, emit, json_option, project_option
from instep.cli.progress import clear, say
from instep.cli.project import open_project
from instep.errors import InstepError, RefusedError
from instep.ingest.arrive import ingest as arrive
from instep.ingest.arrived import Arrived, held_error


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of the files, in their order; `error` is of the one that ended it."""

    arrivals: tuple[Arrived, ...]
    error: InstepError | None = None

    @property
    def held(self) -> tuple[RefusedError, ...]:
        return tuple(held_error(one) for one in self.arrivals if one.is_held)

    @property
    def errors(self) -> tuple[InstepError, ...]:
        """What is told at the end; the first one's family is that of the whole."""
        return (*([self.error] if self.error else []), *self.held)

    def to_json(self) -> dict[str, Json]:
        shown: dict[str, Json] = {"arrivals": [one.to_json() for one in self.arrivals]}
        if self.errors:
            first = self.errors[0]
            shown["error"] = {
                "family": first.family,
                "kind": first.kind,
                "message": "\n".join(error.message for error in self.errors),
                **json.loads(json.dumps(dict(first.facts), default=str)),
            }
        return shown

    def to_text(self) -> str:
        return "\n".join(one.to_text() for one in self.arrivals if not one.is_held)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--table", metavar="NAME", help="The table; default: by the contract it matches.")
@project_option
@actor_option
@json_option
def ingest(
    files: tuple[Path, ...],
    table: str | None,
    project: Path | None,
    actor: str | None,
    as_json: bool,
) -> int:
    """Let files arrive: keep, check, profile; merge what fits, hold what does not.

    Exit code 5 when one is held: the message says why, and what may be done.

    \b
    Example:  instep ingest data/flights-2013-01.csv data/weather-2013-01.csv --as ana
    """
    opened = open_project(project)
    name = opened.actor(actor)
    arrivals: list[Arrived] = []
    ended: InstepError | None = None
    try:
        for file in files:
            arrivals.append(arrive(opened.repo, opened.folder, file, name, table=table, say=say))
    except InstepError as error:
        ended = error
    result = Ingested(tuple(arrivals), ended)
    if as_json or any(not one.is_held for one in arrivals):
        emit(result, as_json)
    clear()
    for each in result.held:
        click.echo(f"{each.family}: {each.message}", err=True)
    if ended is not None:
        if not as_json:
            raise ended
        click.echo(f"{ended.family}: {ended.message}", err=True)
    return result.errors[0].exit_code if result.errors else 0
