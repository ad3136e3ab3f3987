"""`instep diff`: what differs between two commits, in keys, schema and rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.changes.evidence import Comparison, compare
from instep.cli.comparison import comparison_text
from instep.cli.output import counted, emit, json_option, project_option
from instep.cli.profiles import profile_diff
from instep.cli.progress import say
from instep.cli.project import open_project


@dataclass(frozen=True, slots=True)
class Diff:
    names: tuple[str, str]
    comparison: Comparison

    def to_json(self) -> Json:
        return self.comparison.to_json()

    def to_text(self) -> str:
        before, after = self.names
        keys = counted(len(self.comparison.keys), "key")
        return (
            f"From {before} ({self.comparison.before[:12]}) to {after} "
            f"({self.comparison.after[:12]}), {keys} changed:\n"
            f"{comparison_text(self.comparison)}"
        )


@click.command()
@click.argument("before")
@click.argument("after")
@click.option("--profile", metavar="TABLE", help="What a table's columns look like, in words.")
@project_option
@json_option
def diff(before: str, after: str, profile: str | None, project: Path | None, as_json: bool) -> None:
    """Keys, schema and rows that differ between two branches, commits or instants.

    \b
    Example:  instep diff main try-delay
              instep diff main@2026-11-01 main
              instep diff main@2026-11-01 main --profile flights
    """
    repo = open_project(project).repo
    if profile is not None:
        emit(profile_diff(repo, before, after, profile), as_json)
        return
    found = compare(repo, repo.resolve(before), repo.resolve(after), say)
    emit(Diff((before, after), found), as_json)
