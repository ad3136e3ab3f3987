"""`instep merge`: bring an approved change to main."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.changes import gate
from instep.changes.gate import Merged
from instep.changes.records import Kind, load_change
from instep.cli.accept import settled_lines, settled_to_json
from instep.cli.output import actor_option, counted, emit, json_option, project_option
from instep.cli.project import open_project
from instep.errors import InstepError
from instep.history.repository import Repository
from instep.ingest.arrived import Arrived
from instep.ingest.by_contract import let_in_what_fits
from instep.ingest.merge import merge_arrival


@dataclass(frozen=True, slots=True)
class MergedChange:
    merged: Merged
    keys: tuple[str, ...]
    held: Mapping[int, Arrived | InstepError]
    """By change, what became of arrivals that were held until a contract became what it is now."""

    def to_json(self) -> dict[str, Json]:
        return {
            **self.merged.change.to_json(),
            "commit": self.merged.commit.id,
            "keys": list(self.keys),
            "approved_by": list(self.merged.approved_by),
            "upkeep": self.merged.upkeep,
            **settled_to_json(self.held),
        }

    def to_text(self) -> str:
        agreed = ", ".join(self.merged.approved_by) or "policy"
        lines = [
            f"Merged change {self.merged.change.number} to main as "
            f"{self.merged.commit.id[:12]}, approved by {agreed}.",
            f"  {counted(len(self.keys), 'key')} changed: {', '.join(self.keys)}",
        ]
        if self.merged.upkeep:
            lines.append(f"  note: {self.merged.upkeep}")
        return "\n".join([*lines, *settled_lines(self.held)])


@click.command()
@click.argument("change", type=int)
@project_option
@actor_option
@json_option
def merge(change: int, project: Path | None, actor: str | None, as_json: bool) -> None:
    """Bring an approved change to main: all of its keys in one commit, or none.

    \b
    Example:  instep merge 12 --as ana
    """
    opened = open_project(project)
    name = opened.actor(actor)
    repo = opened.repo
    merged = _merge(repo, change, name)
    keys = tuple(each.key for each in repo.diff(merged.commit.parents[0], merged.commit.id))
    contracts = [key.removeprefix("contract/") for key in keys if key.startswith("contract/")]
    emit(MergedChange(merged, keys, let_in_what_fits(repo, contracts, name)), as_json)


def _merge(repo: Repository, number: int, actor: str) -> Merged:
    with repo.store.reading() as tx:
        kind = load_change(tx, number).kind
    if kind is Kind.ARRIVAL:
        return merge_arrival(repo, number, actor)
    with repo.store.transaction() as tx:
        return gate.merge(tx, repo, number, actor)
