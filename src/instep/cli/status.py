"""`instep status`: the home page. What differs, what waits for whom, what is live, what is next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json, JsonObject
from instep.changes.records import Listed, State, list_changes
from instep.cli.output import counted, emit, json_option, project_option, table
from instep.cli.project import open_project
from instep.cli.review import Review, review_of
from instep.clock import format_instant
from instep.errors import some_of
from instep.history.refs import RefKind, list_refs
from instep.history.repository import MAIN
from instep.ingest.arrived import NO_CONTRACT
from instep.ingest.records import arrival_of_change
from instep.pipelines.draft import DraftDifference, DraftState, draft_differences
from instep.pipelines.project import KEY as CONFIG
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
    review: Review | None
    """The first change that waits; held ones come first."""
    held_for: str
    """Why that one is held, or empty."""
    tables: tuple[str, ...]
    pipelines: tuple[str, ...]
    files: tuple[str, ...]
    """Files in the project folder that look like data."""
    environments: tuple[Live, ...]
    behind: tuple[str, ...]
    """Environments without a release, or with other models than main that nobody went back to."""

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
        if self.review is not None:
            number = self.review.change.number
            act = "merge" if self.review.can_be_merged else "review"
            return f"instep {'accept' if self.held_for == NO_CONTRACT else act} {number}"
        ingest = f"instep ingest {shlex.quote(self.files[0]) if self.files else 'FILE'}"
        drafts = [draft.key for draft in self.drafts if draft.state is not DraftState.MISSING]
        if drafts and not (self.files and drafts == [CONFIG]):
            return "instep propose"
        if not self.tables:
            return ingest
        if self.pipelines and not self.counts.get("model"):
            if self.branches:
                return f"instep propose {self.branches[0]}"
            return f"instep run {self.pipelines[0]} --branch try-{self.pipelines[0]}"
        if not self.counts.get("model"):
            return f"instep show main --profile {self.tables[0]}"
        if self.behind:
            return f"instep release {self.behind[0]}"
        return f"instep watch {self.environments[0].environment}" if self.environments else LOOK

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


def _is_behind(live: Live, models: Mapping[str, JsonObject]) -> bool:
    if live.operation is None or live.operation.kind == "rollback":
        return live.operation is None  # whoever went back has a reason not to go on yet
    return {model.key: model.content for model in live.models} != dict(models)


LOOK = "instep log main --limit 5"
"""What to look at where nothing has to be done."""

_DATA = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".json", ".jsonl", ".ndjson", ".parquet")


def _data_files(folder: Path) -> tuple[str, ...]:
    """Returns the data files in a project folder and in its `data/`, as one would type them."""
    return tuple(
        str(path.relative_to(folder))
        for place in (folder, folder / "data")
        if place.is_dir()
        for path in sorted(place.iterdir())
        if path.name.lower().endswith(_DATA)
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
        names: dict[str, list[str]] = {}
        for key in repo.entries(main):
            kind, _, name = key.partition("/")
            names.setdefault(kind, []).append(name)
        branches = tuple(ref.name for ref in list_refs(tx, RefKind.BRANCH) if ref.name != MAIN)
        waiting = tuple(list_changes(tx, State.HELD, State.OPEN))
        first = min(waiting, key=lambda one: one.state is not State.HELD, default=None)
        is_held = first is not None and first.state is State.HELD
        held_for = arrival_of_change(tx, first.number).held_for if first and is_held else ""
    live, models = where(repo), repo.entries(main, "model")
    emit(
        Status(
            opened.folder,
            main,
            {kind: len(found) for kind, found in names.items()},
            branches,
            draft_differences(opened.folder, repo, main),
            waiting,
            review_of(repo, first.number) if first else None,
            held_for,
            tuple(sorted(names.get("table", ()))),
            tuple(sorted(names.get("pipeline", ()))),
            _data_files(opened.folder),
            live,
            tuple(one.environment for one in live if _is_behind(one, models)),
        ),
        as_json,
    )
