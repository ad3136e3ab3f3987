"""`instep where`: which model version and which data are live, since when, by whom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.output import emit, json_option, project_option, table
from instep.cli.project import open_project
from instep.clock import format_instant, parse_instant
from instep.releases.environments import Live
from instep.releases.environments import where as live_at


@dataclass(frozen=True, slots=True)
class Whereabouts:
    at: str | None
    environments: tuple[Live, ...]

    def to_json(self) -> Json:
        return {
            "at": self.at,
            "environments": [
                {
                    "environment": live.environment,
                    "commit": live.commit,
                    "since": format_instant(live.operation.at) if live.operation else None,
                    "by": live.operation.actor if live.operation else None,
                    "act": live.operation.kind if live.operation else None,
                    "why": live.operation.why if live.operation else None,
                    "models": [
                        {
                            "model": model.key.partition("/")[2],
                            "version": model.content.get("version"),
                            "digest": model.content.get("digest"),
                            "run": model.content.get("run"),
                            "since": format_instant(model.since),
                            "by": model.by,
                        }
                        for model in live.models
                    ],
                }
                for live in self.environments
            ],
        }

    def to_text(self) -> str:
        rows: list[tuple[str, ...]] = []
        for live in self.environments:
            if live.commit is None or live.operation is None:
                rows.append((live.environment, "nothing released", "", "", "", ""))
                continue
            act = live.operation
            rows.append(
                (
                    live.environment,
                    "data commit",
                    live.commit[:12],
                    format_instant(act.at)[:19],
                    act.actor,
                    f"{act.kind}: {act.why}" if act.why else act.kind,
                )
            )
            rows.extend(
                (
                    "",
                    model.key,
                    str(model.content.get("version")),
                    format_instant(model.since)[:19],
                    model.by,
                    "",
                )
                for model in live.models
            )
        if not rows:
            return "No environment is declared. Add one under environments: in instep.yaml."
        header = ("environment", "what", "version", "since (UTC)", "by", "why")
        when = f"As it was at {self.at}:\n" if self.at else ""
        return when + table(rows, header)


@click.command()
@click.option("--at", metavar="INSTANT", help="As it was then, such as 2026-11-21T10:00:00Z.")
@project_option
@json_option
def where(at: str | None, project: Path | None, as_json: bool) -> None:
    """What is live in each environment: model version and data commit, since when, by whom.

    \b
    Example:  instep where
              instep where --at 2026-11-21T10:00:00Z
    """
    repo = open_project(project).repo
    instant = parse_instant(at) if at else None
    emit(Whereabouts(at, live_at(repo, instant)), as_json)
