"""`instep show`: what a commit holds, or a change with its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json, JsonObject
from instep.cli.output import counted, emit, json_option, project_option, table
from instep.cli.profiles import shown_profile
from instep.cli.progress import say
from instep.cli.project import open_project
from instep.cli.review import review_of
from instep.clock import format_instant
from instep.errors import InvalidError, RefusedError
from instep.history.commits import Commit
from instep.history.repository import Repository
from instep.ingest.quarantine import QuarantinedRow, quarantined_rows
from instep.models.card import card_of
from instep.tables.content import TableContent
from instep.tables.read import file_count, metadata_path, row_count, schema_of


@dataclass(frozen=True, slots=True)
class Shown:
    """A commit and its keys; tables with the absolute path of their Iceberg metadata."""

    name: str
    commit: Commit
    keys: Mapping[str, JsonObject]

    def to_json(self) -> dict[str, Json]:
        return {"name": self.name, "commit": self.commit.to_json(), "keys": dict(self.keys)}

    def to_text(self) -> str:
        commit = self.commit
        lines = [
            f"{self.name} is commit {commit.id}",
            f"  by {commit.author} at {format_instant(commit.at)[:19]} UTC, {commit.origin}: "
            f"{commit.message}",
        ]
        rows = [(key, _summary(facts)) for key, facts in self.keys.items()]
        return "\n".join([*lines, table(rows)])


def _summary(facts: JsonObject) -> str:
    if "rows" in facts:
        return f"{facts['rows']:,} rows in {facts['files']} files, {facts['metadata_location']}"
    if "version" in facts:
        verdict = facts.get("verdict")
        return f"version {facts['version']}" + (f": {verdict}" if verdict else "")
    return str(facts.get("blob") or "")[:12]


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The rows of an arrival that were set aside, in the order of their lines."""

    change: int
    rows: tuple[QuarantinedRow, ...]

    def to_json(self) -> dict[str, Json]:
        return {"change": self.change, "rows": [row.to_json() for row in self.rows]}

    def to_text(self) -> str:
        if not self.rows:
            return f"Change {self.change} has no row in quarantine."
        head = f"{counted(len(self.rows), 'row')} of change {self.change} in quarantine:"
        return "\n".join(
            [head, *(f"  line {row.line}: breaks {row.terms}: {row.raw}" for row in self.rows)]
        )


@click.command()
@click.argument("what", default="main")
@click.option("--quarantine", is_flag=True, help="Of an arrival: the rows set aside, with reasons.")
@click.option("--profile", metavar="TABLE", help="What a table's columns look like.")
@project_option
@json_option
def show(
    what: str, quarantine: bool, profile: str | None, project: Path | None, as_json: bool
) -> None:
    """What a commit, branch or environment holds; with a number, that change.

    \b
    Example:  instep show prod
              instep show main@2026-11-01 --json
              instep show 12 --quarantine
              instep show main --profile flights
    """
    repo = open_project(project).repo
    if profile is not None:
        emit(shown_profile(repo, what, profile), as_json)
        return
    is_change = what.isdecimal() and len(what) < 8
    if quarantine and not is_change:
        raise InvalidError(
            f'"{what}" has no quarantine of its own: expected the number of an arrival. See '
            '"instep changes --all".',
            kind="not-an-arrival",
        )
    if quarantine:
        emit(Quarantine(int(what), quarantined_rows(repo, int(what))), as_json)
        return
    if is_change:
        emit(review_of(repo, int(what)), as_json)
        return
    commit = repo.commit(repo.resolve(what))
    keys: dict[str, JsonObject] = {}
    for key, content in repo.entries(commit.id).items():
        say(f"reading {key}")
        keys[key] = _facts(repo, key, content)
    emit(Shown(what, commit, keys), as_json)


def _facts(repo: Repository, key: str, content: JsonObject) -> JsonObject:
    match key.partition("/")[0]:
        case "table":
            return _table_facts(repo, content)
        case "model":
            with suppress(RefusedError):  # its card was erased
                return {**content, "verdict": card_of(repo.objects, content).verdict}
    return content


def _table_facts(repo: Repository, content: JsonObject) -> dict[str, Json]:
    table_content = TableContent.from_content(content)
    return {
        **content,
        "metadata_location": str(metadata_path(repo.root, table_content)),
        "rows": row_count(repo.root, table_content),
        "files": file_count(repo.root, table_content),
        "schema": schema_of(repo.root, table_content).to_json(),
    }
