"""`instep ingest`: let files arrive; each is a change of its own, merged when it fits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.output import actor_option, emit, json_option, project_option
from instep.cli.progress import say
from instep.cli.project import open_project
from instep.errors import InstepError, RefusedError
from instep.ingest.arrive import Arrived, held_error
from instep.ingest.arrive import ingest as arrive


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of the files, in their order."""

    arrivals: tuple[Arrived, ...]

    @property
    def held(self) -> tuple[RefusedError, ...]:
        return tuple(held_error(one) for one in self.arrivals if one.is_held)

    def to_json(self) -> dict[str, Json]:
        shown: dict[str, Json] = {"arrivals": [one.to_json() for one in self.arrivals]}
        if self.held:
            first = self.held[0]
            shown["error"] = {
                "family": first.family,
                "kind": first.kind,
                "message": "\n".join(error.message for error in self.held),
                **first.facts,
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
    try:
        for file in files:
            arrivals.append(arrive(opened.repo, opened.folder, file, name, table=table, say=say))
    except InstepError:
        if arrivals and not as_json:
            emit(Ingested(tuple(arrivals)), as_json)
        raise
    result = Ingested(tuple(arrivals))
    if as_json or any(not one.is_held for one in arrivals):
        emit(result, as_json)
    for error in result.held:
        click.echo(f"{error.family}: {error.message}", err=True)
    return RefusedError.exit_code if result.held else 0
