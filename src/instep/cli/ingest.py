"""`instep ingest`: let files arrive; each is a change of its own, merged when it fits."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.output import actor_option, emit, json_option, project_option
from instep.cli.progress import clear, say
from instep.cli.project import Project, open_project
from instep.contracts.infer import with_pattern
from instep.errors import InstepError
from instep.history.objects import write_durably
from instep.ingest.arrive import ingest as arrive
from instep.ingest.arrived import Arrived, held_error


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of the files, in their order: each arrived, or its error says why not."""

    files: tuple[Arrived | InstepError, ...]

    @property
    def arrivals(self) -> tuple[Arrived, ...]:
        return tuple(one for one in self.files if isinstance(one, Arrived))

    @property
    def errors(self) -> tuple[InstepError, ...]:
        """What is told at the end, of files that did not arrive first; by it the command exits."""
        failed = [one for one in self.files if isinstance(one, InstepError)]
        return (*failed, *(held_error(one) for one in self.arrivals if one.is_held))

    def to_json(self) -> dict[str, Json]:
        shown: dict[str, Json] = {"arrivals": [one.to_json() for one in self.arrivals]}
        if self.errors:
            told = [_error_to_json(error) for error in self.errors]
            message = "\n".join(error.message for error in self.errors)
            shown["error"] = {**told[0], "message": message}
            shown["errors"] = list(told)
        return shown

    def to_text(self) -> str:
        return "\n".join(one.to_text() for one in self.arrivals if not one.is_held)


def _arrived(opened: Project, file: Path, actor: str, table: str | None, asks: bool) -> Arrived:
    """Lets one file arrive, in a table that somebody is asked for where that is open."""
    try:
        return arrive(opened.repo, opened.folder, file, actor, table=table, say=say)
    except InstepError as error:
        chosen = _asked_table(opened.folder, file, error) if asks else None
        if chosen is None:
            raise
    return arrive(opened.repo, opened.folder, file, actor, table=chosen, say=say)


def _asked_table(folder: Path, file: Path, error: InstepError) -> str | None:
    """Returns the table that somebody at a terminal says a file is for, where that is the question.

    If it is more of a table that is there, the contract on disk takes later files too.
    """
    if error.kind != "which-table" or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    table, own, pattern = (str(error.facts[name]) for name in ("table", "own", "pattern"))
    clear()
    question = f"{file.name} is named like the files of table {table}. Is it more of them?"
    if not click.confirm(question, default=True):
        return own
    path = folder / "contracts" / f"{table}.yaml"
    text = with_pattern(path.read_text(encoding="utf-8"), pattern) if path.is_file() else None
    if text is not None:
        write_durably(path, text.encode())
        click.echo(f'contracts/{table}.yaml takes {pattern} from now on: "instep propose" it.')
    return table


def _error_to_json(error: InstepError) -> dict[str, Json]:
    facts = json.loads(json.dumps(dict(error.facts), default=str))
    return {"family": error.family, "kind": error.kind, "message": error.message, **facts}


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--table", metavar="NAME", help="The table; default: by the contract it matches.")
@click.option("--again", is_flag=True, help="Take a file once more that later ones overtook.")
@project_option
@actor_option
@json_option
def ingest(
    files: tuple[Path, ...],
    table: str | None,
    again: bool,
    project: Path | None,
    actor: str | None,
    as_json: bool,
) -> int:
    """Let files arrive: keep, check, profile; merge what fits, hold what does not.

    A file that cannot be taken stops no other. Exit code 5 when one is held: the message says why,
    and what may be done.

    \b
    Example:  instep ingest data/flights-2013-01.csv data/weather-2013-01.csv --as ana
    """
    opened = open_project(project)
    name = opened.actor(actor)
    found: list[Arrived | InstepError] = []

    def take(file: Path, table: str | None) -> Arrived:
        return arrive(opened.repo, opened.folder, file, name, table=table, again=again, say=say)

    for file in files:
        try:
            found.append(take(file, table))
        except InstepError as error:
            chosen = None if as_json else _asked_table(opened.folder, file, error)
            if chosen is not None:
                found.append(take(file, chosen))
                continue
            if len(files) == 1 and not as_json:
                raise
            found.append(error)
    result = Ingested(tuple(found))
    if as_json or any(not one.is_held for one in result.arrivals):
        emit(result, as_json)
    clear()
    for each in result.errors:
        click.echo(f"{each.family}: {each.message}", err=True)
    return result.errors[0].exit_code if result.errors else 0
