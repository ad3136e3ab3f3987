"""`instep erase`: remove an object, or rows of a table, through all history; keep who and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.output import actor_option, emit, json_option, project_option, reason_option
from instep.cli.project import open_project
from instep.clock import format_instant
from instep.errors import InvalidError
from instep.history.erasure import Erasure
from instep.history.erasure import erase as erase_objects
from instep.lake import retention_of


@dataclass(frozen=True, slots=True)
class Erased:
    erasures: tuple[Erasure, ...]

    def to_json(self) -> Json:
        return [one.to_json() for one in self.erasures]

    def to_text(self) -> str:
        return "\n".join(
            f"{one.digest} is erased, {one.size_bytes:,} bytes, by {one.actor} at "
            f"{format_instant(one.at)}: {one.why}"
            for one in self.erasures
        )


@click.command()
@click.argument("what", metavar="KEY|DIGEST|TABLE")
@click.option("--where", metavar="SQL", help="Erase the rows of a table for which this is true.")
@reason_option("The reason, kept with the digest.")
@click.option("--dry-run", is_flag=True, help="With --where: only say what would be erased.")
@project_option
@actor_option
@json_option
def erase(
    what: str,
    where: str | None,
    why: str,
    dry_run: bool,
    project: Path | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Remove an object's bytes, or rows of a table, from the lake and all its history, for good.

    The condition is not kept, only its digest: write no personal value into --why.

    \b
    Example:  instep erase 4f2a90c1 --why "A customer asked for it." --as ben
              instep erase sales --where "customer = 17" --why "Request 4711." --as ben
    """
    opened = open_project(project)
    repo = opened.repo
    name = opened.actor(actor)
    if where is not None:
        from instep.cli.erase_rows import erased_rows

        table = what.removeprefix("table/")
        emit(erased_rows(repo, table, where, why, name, dry_run), as_json)
        return
    if dry_run:
        raise InvalidError(
            "--dry-run was given without --where: expected both, since only rows are searched "
            "for. Leave it out, or say which rows.",
            kind="usage",
        )
    emit(Erased(erase_objects(repo, what, name, why, retention_of(repo).reach.objects)), as_json)
