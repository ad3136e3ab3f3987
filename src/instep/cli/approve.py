"""`instep approve` and `instep reject`: a person's yes or no to somebody else's change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.changes import gate
from instep.changes.records import Change, load_change
from instep.cli.output import actor_option, emit, json_option, project_option, reason_option
from instep.cli.project import open_project


@dataclass(frozen=True, slots=True)
class Decided:
    change: Change
    actor: str
    verb: str
    upon: str

    def to_json(self) -> dict[str, Json]:
        return {**self.change.to_json(), "decided": self.verb, "by": self.actor}

    def to_text(self) -> str:
        return (
            f"{self.actor} {self.verb} change {self.change.number}: {self.change.title}{self.upon}"
        )


@click.command()
@click.argument("change", type=int)
@click.option("--to", "expected", metavar="BINDING", help="Only what review showed as this.")
@click.option("--why", default="", help="A reason, kept with the approval.")
@project_option
@actor_option
@json_option
def approve(
    change: int,
    expected: str | None,
    why: str,
    project: Path | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Agree to exactly what a change holds now, with its evidence.

    \b
    Example:  instep approve 12 --as ben
              instep approve 12 --to 3f9a1c20be44 --as ben
    """
    opened = open_project(project)
    name = opened.actor(actor)
    with opened.repo.store.transaction() as tx:
        approval = gate.approve(tx, opened.repo, change, name, why, expected)
        found = load_change(tx, change)
    upon = f' ({approval.binding[:12]}).\nNext: "instep merge {change}".'
    emit(Decided(found, name, "approved", upon), as_json)


@click.command()
@click.argument("change", type=int)
@reason_option("The reason, kept with the change.")
@project_option
@actor_option
@json_option
def reject(change: int, why: str, project: Path | None, actor: str | None, as_json: bool) -> None:
    """End a change without merging it.

    \b
    Example:  instep reject 12 --why "the test window is too short" --as ben
    """
    opened = open_project(project)
    name = opened.actor(actor)
    with opened.repo.store.transaction() as tx:
        found = gate.reject(tx, opened.repo, change, name, why)
    emit(Decided(found, name, "rejected", f"\nReason: {why}"), as_json)
