"""`instep status`: the home page. What differs, what waits for whom, what is live, what is next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.changes.records import Listed, State, list_changes
from instep.cli.output import counted, emit, json_option, project_option, table
from instep.cli.project import open_project
from instep.clock import format_instant
from instep.errors import some_of
from instep.history.refs import RefKind, list_refs
from instep.history.repository import MAIN
from instep.pipelines.draft import DraftDifference, DraftState, draft_differences
from instep.releases.environments import Live, where


@dataclass(frozen=True, slots=True)
class Status:
    """Where a project stands."""

    folder: Path
    main: str
    counts: dict[str, int]
    branches: tuple[str, ...]
    drafts: tuple[DraftDifference, ...]
    waiting: tuple[Listed, ...]
    environments: tuple[Live, ...]

    def to_json(self) -> dict[str, Json]:
        return {
            "project": str(self.folder),
            "main": self.main,
            "keys": dict(self.counts),
            "branches": list(self.branches),
            "draft": [difference.to_json() for difference in self.drafts],
            "waiting": [
                {
                    "change": change.number,
                    "state": change.state.value,
                    "kind": change.kind.value,
                    "title": change.title,
                    "author": change.author,
                }
                for change in self.waiting
            ],
            "environments": [
                {
                    "environment": live.environment,
                    "commit": live.commit,
                    "is_main": live.commit == self.main,
                    "models": {
                        model.key: str(model.content.get("version")) for model in live.models
                    },
                }
                for live in self.environments
            ],
            "next": self.next_command(),
        }

    def to_text(self) -> str:
        held = ", ".join(counted(count, kind) for kind, count in sorted(self.counts.items()))
        lines = [f"{self.folder}", f"main is {self.main[:12]} with {held or 'nothing yet'}"]
        if self.branches:
            lines.append(f"branches: {some_of(self.branches)}")
        lines += self._environment_lines()
        if self.drafts:
            lines.append("on disk, not on main:")
            rows = [(one.key, one.state.value, ", ".join(one.files)) for one in self.drafts]
            lines.append(table(rows))
        if self.waiting:
            lines.append("waiting for somebody:")
            lines.append(table([self._waiting_row(change) for change in self.waiting]))
        lines.append(f"next: {self.next_command()}")
        return "\n".join(lines)

    def next_command(self) -> str:
        """Returns the command that is most likely useful now."""
        held = [change for change in self.waiting if change.state is State.HELD]
        if held:
            return f"instep review {held[0].number}"
        if self.waiting:
            return f"instep review {self.waiting[0].number}"
        if any(difference.state is not DraftState.MISSING for difference in self.drafts):
            return "instep propose"
        if not self.counts.get("table"):
            return "instep ingest FILE"
        if self.counts.get("pipeline") and not self.counts.get("model"):
            return "instep run PIPELINE --branch NAME"
        unreleased = [live for live in self.environments if live.commit is None]
        if self.counts.get("model") and unreleased:
            return f"instep release {unreleased[0].environment}"
        return "instep log"

    def _environment_lines(self) -> list[str]:
        found = []
        for live in self.environments:
            if live.commit is None or live.operation is None:
                found.append(f"{live.environment}: nothing released")
                continue
            models = ", ".join(f"{m.key} {m.content.get('version')}" for m in live.models)
            place = "main" if live.commit == self.main else live.commit[:12]
            found.append(
                f"{live.environment} is at {place} since "
                f"{format_instant(live.operation.at)[:19]} UTC"
                + (f" with {models}" if models else "")
            )
        return found

    def _waiting_row(self, change: Listed) -> tuple[str, ...]:
        return (
            f"change {change.number}",
            change.state.value,
            change.kind.value,
            f"by {change.author}",
            change.title,
            f"instep review {change.number}",
        )


@click.command()
@project_option
@json_option
def status(project: Path | None, as_json: bool) -> None:
    """Where am I: disk against main, what waits for whom, what is live, what is next.

    \b
    Example:  instep status
    """
    opened = open_project(project)
    repo = opened.repo
    with repo.store.reading() as tx:
        main = repo.resolve(MAIN)
        counts: dict[str, int] = {}
        for key in repo.entries(main):
            kind = key.partition("/")[0]
            counts[kind] = counts.get(kind, 0) + 1
        branches = tuple(ref.name for ref in list_refs(tx, RefKind.BRANCH) if ref.name != MAIN)
        waiting = tuple(list_changes(tx, State.HELD, State.OPEN))
    emit(
        Status(
            opened.folder,
            main,
            counts,
            branches,
            draft_differences(opened.folder, repo, main),
            waiting,
            where(repo),
        ),
        as_json,
    )
