"""`instep undo`: set back what a commit or a change did, by a new change or commit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.changes.revert import Undone, commit_of_change, undo_on_branch, undo_on_main
from instep.cli.comparison import comparison_text
from instep.cli.output import actor_option, emit, json_option, project_option
from instep.cli.progress import say
from instep.cli.project import open_project
from instep.history.repository import MAIN, Repository


@dataclass(frozen=True, slots=True)
class Result:
    """What was undone where, and what that makes stale."""

    on: str
    done: Undone

    def to_json(self) -> dict[str, Json]:
        undo, proposal, commit = self.done.undo, self.done.proposal, self.done.commit
        return {
            "undoes": undo.undone.id,
            "on": self.on,
            "keys": list(undo.changes),
            "stale": [one.to_json() for one in undo.stale],
            "change": proposal.change.number if proposal else None,
            "commit": commit.id if commit else None,
        }

    def to_text(self) -> str:
        return "\n".join([*self._what(), *self._stale(), self._next()])

    def _what(self) -> list[str]:
        undo, proposal, commit = self.done.undo, self.done.proposal, self.done.commit
        if proposal is not None:
            change = proposal.change
            verb = "Updated" if proposal.is_update else "Opened"
            return [
                f"{verb} change {change.number} ({change.kind}): {change.title}",
                comparison_text(proposal.comparison),
            ]
        assert commit is not None, "an undo is proposed or committed"
        return [
            f"{self.on} is at {commit.id[:12]}: {undo.title}",
            *(f"  ~ {key}" for key in undo.changes),
        ]

    def _stale(self) -> list[str]:
        undo = self.done.undo
        if not undo.stale:
            return ["Nothing else was made from what is set back."]
        return ["Stale then, until it is made again:", *(f"  {one}" for one in undo.stale)]

    def _next(self) -> str:
        undo, proposal = self.done.undo, self.done.proposal
        pipelines = list(dict.fromkeys(one.pipeline for one in undo.stale))
        where = self.on if proposal is None else "NAME"
        runs = [f'"instep run {name} --branch {where}"' for name in pipelines]
        if proposal is not None:
            number = proposal.change.number
            merge = f'somebody else agrees ("instep approve {number}"), "instep merge {number}"'
            return f"Next: {', then '.join([merge, *runs])}."
        return f"Next: {', then '.join(runs or [f'{chr(34)}instep log {self.on}{chr(34)}'])}."


@click.command()
@click.argument("what", nargs=-1, required=True)
@click.option("--on", default=MAIN, show_default=True, help="The branch on which it is undone.")
@click.option("--only", multiple=True, metavar="KEY", help="Keep to this key; may be repeated.")
@click.option("--why", default="", help="The reason, kept with the change.")
@project_option
@actor_option
@json_option
def undo(
    what: tuple[str, ...],
    on: str,
    only: tuple[str, ...],
    why: str,
    project: Path | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Set the keys of a commit, or of a merged change, back to what they were before it.

    On main this opens a change, to be agreed to like any other; on a branch of your own it is a
    new commit. What was made from these keys is listed.

    \b
    Example:  instep undo change 12 --only table/departures --why "wrong unit" --as ana
              instep undo 3f2a9c01 --on try-delay --as ana
    """
    opened = open_project(project)
    name, repo = opened.actor(actor), opened.repo
    commit = _commit(repo, what)
    if on == MAIN:
        done = undo_on_main(repo, commit, only, author=name, why=why, say=say)
    else:
        done = undo_on_branch(repo, on, commit, only, author=name, why=why)
    emit(Result(on, done), as_json)


def _commit(repo: Repository, what: tuple[str, ...]) -> str:
    """Returns the commit that "change 12", "12", a ref, `ref@instant` or a commit id names."""
    words = what[1:] if len(what) == 2 and what[0] == "change" else what
    if len(words) != 1:
        raise click.UsageError('Expected one commit, or "change" and its number.')
    (word,) = words
    if word.isdecimal() and len(word) < 8:
        with repo.store.reading() as tx:
            return commit_of_change(tx, int(word))
    return repo.resolve(word)
