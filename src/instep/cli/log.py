"""`instep log`: what happened to a branch, tag or environment, latest first, with filters."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.output import emit, json_option, project_option, table
from instep.cli.project import open_project
from instep.clock import format_instant, parse_instant
from instep.history.log import Entry, Filter, entries


@dataclass(frozen=True, slots=True)
class Log:
    """Moves of one ref, or commits behind one, latest first."""

    ref: str
    entries: tuple[Entry, ...]
    has_more: bool

    def to_json(self) -> dict[str, Json]:
        return {
            "ref": self.ref,
            "operations": [
                {
                    **(entry.operation.to_json() if entry.operation else {}),
                    "commit": entry.commit.to_json() if entry.commit else None,
                }
                for entry in self.entries
            ],
            "has_more": self.has_more,
        }

    def to_text(self) -> str:
        if not self.entries:
            return f"{self.ref}: nothing that was asked for."
        rows = [_row(entry) for entry in self.entries]
        header = ("commit", "at (UTC)", "by", "act", "origin", "why")
        rest = "\n  … and more, earlier; see --limit." if self.has_more else ""
        return f"{self.ref}, latest first:\n{table(rows, header)}{rest}"


def _row(entry: Entry) -> tuple[str, ...]:
    operation, commit = entry.operation, entry.commit
    forgotten = "forgotten" if operation and operation.after else ""
    origin = commit.origin if commit else forgotten
    if operation is not None:
        return (
            (operation.after or "gone")[:12],
            format_instant(operation.at)[:19],
            operation.actor,
            operation.kind,
            origin,
            operation.why,
        )
    assert commit is not None, "an entry has an operation or a commit"
    at = format_instant(commit.at)[:19]
    return commit.id[:12], at, commit.author, "commit", origin, commit.message


@click.command()
@click.argument("ref", default="main")
@click.option("--key", help="What changed this key, such as model/delay.")
@click.option("--by", metavar="NAME", help="What this person did.")
@click.option("--since", metavar="INSTANT", help="From this instant on.")
@click.option("--until", metavar="INSTANT", help="Before this instant.")
@click.option("--run", metavar="RUN", help="What this run made, or brought in.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000))
@project_option
@json_option
def log(
    ref: str,
    key: str | None,
    by: str | None,
    since: str | None,
    until: str | None,
    run: str | None,
    limit: int,
    project: Path | None,
    as_json: bool,
) -> None:
    """The history of a branch, tag or environment: who moved it, when, why; of a commit, its past.

    \b
    Example:  instep log main --limit 5
              instep log main --key model/delay --by ana --since 2026-11-01
    """
    repo = open_project(project).repo
    wanted = Filter(
        key,
        by,
        parse_instant(since) if since else None,
        parse_instant(until) if until else None,
        run,
    )
    with repo.store.reading() as tx:
        found = tuple(islice(entries(tx, repo, ref, wanted), limit + 1))
    emit(Log(ref, found[:limit], len(found) > limit), as_json)
