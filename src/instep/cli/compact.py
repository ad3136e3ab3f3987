"""`instep compact`: the same rows in fewer files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.output import emit, json_option, project_option
from instep.cli.progress import say
from instep.cli.project import open_project
from instep.history.repository import MAIN
from instep.pipelines.records import is_kept_by_run
from instep.tables.upkeep import Compaction, compact_table, plan_compaction


@dataclass(frozen=True, slots=True)
class Compactions:
    """What was done to each table, or, dry, would be."""

    ref: str
    is_dry: bool
    tables: tuple[Compaction, ...]

    def to_json(self) -> Json:
        return {
            "ref": self.ref,
            "dry_run": self.is_dry,
            "tables": [one.to_json() for one in self.tables],
        }

    def to_text(self) -> str:
        if not self.tables:
            return f"{self.ref} has no table: nothing was done."
        lines = [one.to_text() for one in self.tables]
        if self.is_dry:
            lines.append("Nothing was written: without --dry-run this is done.")
        elif any(not one.why_not for one in self.tables):
            lines.append(
                "Commits keep their ids. Files that no commit reads any more go by "
                '"instep gc", in time.'
            )
        return "\n".join(lines)


@click.command()
@click.argument("table", required=False)
@click.option("--ref", default=MAIN, show_default=True, help="The branch whose table it is.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@project_option
@json_option
def compact(
    table: str | None, ref: str, dry_run: bool, project: Path | None, as_json: bool
) -> None:
    """Put the small files of a table together, or those of all tables; no row changes.

    \b
    Example:  instep compact flights --dry-run
              instep compact
    """
    repo = open_project(project).repo
    keys = repo.entries(repo.resolve(ref), "table")
    names = [table] if table else [key.partition("/")[2] for key in keys]
    kept = partial(is_kept_by_run, repo)
    done = tuple(
        plan_compaction(repo, ref, name, kept)
        if dry_run
        else compact_table(repo, ref, name, kept, say=say)
        for name in names
    )
    emit(Compactions(ref, dry_run, done), as_json)
