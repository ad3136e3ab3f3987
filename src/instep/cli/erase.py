"""`instep erase`: remove the bytes of an object through all history, and keep who and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.output import actor_option, emit, json_option, project_option
from instep.cli.project import open_project
from instep.clock import format_instant
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
@click.argument("what", metavar="KEY|DIGEST")
@click.option("--why", required=True, help="The reason, kept with the digest.")
@project_option
@actor_option
@json_option
def erase(what: str, why: str, project: Path | None, actor: str | None, as_json: bool) -> None:
    """Remove an object's bytes from the lake and all its history, for good.

    \b
    Example:  instep erase 4f2a90c1 --why "A customer asked for it." --as ben
    """
    opened = open_project(project)
    repo = opened.repo
    name = opened.actor(actor)
    emit(Erased(erase_objects(repo, what, name, why, retention_of(repo).reach.objects)), as_json)
