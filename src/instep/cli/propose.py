"""`instep propose`: evidence is computed, and a change is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.changes.propose import Proposal, propose_branch, propose_project
from instep.cli.comparison import comparison_text
from instep.cli.output import actor_option, emit, json_option, project_option
from instep.cli.progress import say
from instep.cli.project import open_project
from instep.cli.review import Review, review_of


@dataclass(frozen=True, slots=True)
class Proposed:
    proposal: Proposal
    review: Review

    def to_json(self) -> Json:
        return {
            **self.proposal.change.to_json(),
            "is_update": self.proposal.is_update,
            "can_be_merged": self.review.can_be_merged,
            "next": self.review.next_step,
        }

    def to_text(self) -> str:
        change = self.proposal.change
        verb = "Updated" if self.proposal.is_update else "Opened"
        what = f"branch {change.branch}" if change.branch else "the project's files"
        return (
            f"{verb} change {change.number} ({change.kind}): {what}, by {change.author}.\n"
            f"{comparison_text(self.proposal.comparison)}\n"
            f"Next: {self.review.next_step}"
        )


@click.command()
@click.argument("branch", required=False)
@click.option("--title", help="What the change is for, in a line.")
@project_option
@actor_option
@json_option
def propose(
    branch: str | None,
    title: str | None,
    project: Path | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Propose a branch for main; without a branch, the project's own files.

    \b
    Example:  instep propose --as ana
              instep propose try-delay --title "a first model of delays" --as ana
    """
    opened = open_project(project)
    name = opened.actor(actor)
    if branch is None:
        made = propose_project(
            opened.repo, opened.folder, name, title or "The project's files", say
        )
    else:
        made = propose_branch(opened.repo, branch, name, title or f"Branch {branch}", say)
    emit(Proposed(made, review_of(opened.repo, made.change.number)), as_json)
