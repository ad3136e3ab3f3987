"""`instep log`: the operations of a branch or environment, latest first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.output import emit, json_option, project_option, table
from instep.cli.project import open_project
from instep.clock import format_instant
from instep.history.commits import Commit, load_commit
from instep.history.operations import Operation, operations
from instep.history.refs import get_ref


@dataclass(frozen=True, slots=True)
class Log:
    """Moves of one ref, latest first, each with the commit that it led to."""

    ref: str
    entries: tuple[tuple[Operation, Commit | None], ...]
    more: int

    def to_json(self) -> dict[str, Json]:
        return {
            "ref": self.ref,
            "operations": [
                {**operation.to_json(), "commit": commit.to_json() if commit else None}
                for operation, commit in self.entries
            ],
            "more": self.more,
        }

    def to_text(self) -> str:
        rows = [
            (
                (operation.after or "deleted")[:12],
                format_instant(operation.at)[:19],
                operation.actor,
                operation.kind,
                commit.origin if commit else "",
                operation.why,
            )
            for operation, commit in self.entries
        ]
        header = ("commit", "at (UTC)", "by", "act", "origin", "why")
        rest = f"\n  … and {self.more} earlier; see --limit." if self.more else ""
        return f"{self.ref}, latest first:\n{table(rows, header)}{rest}"


@click.command()
@click.argument("ref", default="main")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000))
@project_option
@json_option
def log(ref: str, limit: int, project: Path | None, as_json: bool) -> None:
    """The history of a branch or environment: who moved it, when, why.

    \b
    Example:  instep log main --limit 5
    """
    repo = open_project(project).repo
    with repo.store.reading() as tx:
        get_ref(tx, ref)
        chain = list(reversed(operations(tx, ref)))
        entries = tuple(
            (operation, load_commit(tx, operation.after) if operation.after else None)
            for operation in chain[:limit]
        )
    emit(Log(ref, entries, max(0, len(chain) - limit)), as_json)
