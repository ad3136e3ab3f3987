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
from instep.tables.diff import SAMPLED_ROWS


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
@click.option("--table", metavar="NAME", help="Compare the rows of this table only.")
@click.option("--key", multiple=True, metavar="COLUMN", help="Pair rows by it.")
@click.option("--tolerance", multiple=True, metavar="[COLUMN=]NUMBER[%]", help="Equal floats.")
@click.option("--limit", default=SAMPLED_ROWS, type=click.IntRange(0, 1000), help="Rows shown.")
@click.option(
    "--rows",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write all differing rows there, as Parquet.",
)
@click.option("--profile", metavar="TABLE", help="What a table's columns look like, in words.")
@project_option
@json_option
def diff(
    before: str,
    after: str,
    table: str | None,
    key: tuple[str, ...],
    tolerance: tuple[str, ...],
    limit: int,
    rows: Path | None,
    profile: str | None,
    project: Path | None,
    as_json: bool,
) -> None:
    """Keys, schema and rows that differ between two branches, commits or instants.

    \b
    Example:  instep diff main try-delay
              instep diff main@2026-11-01 main
              instep diff main try-delay --table flights --tolerance 1% --rows apart.parquet
              instep diff main try-delay --profile flights
    """
    if table is None and (key or tolerance or rows):
        raise click.UsageError("--key, --tolerance and --rows need --table NAME.")
    repo = open_project(project).repo
    if profile is not None:
        emit(profile_diff(repo, before, after, profile), as_json)
        return
    commits = repo.resolve(before), repo.resolve(after)
    if table is None:
        emit(Diff((before, after), compare(repo, *commits, say)), as_json)
        return
    from instep.cli.table_diff import compare_table, parse_tolerances

    tolerances = parse_tolerances(tolerance)
    emit(compare_table(repo, commits, table, key, tolerances, limit, rows), as_json)
