"""`instep branch`: list the branches, or make one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.output import actor_option, emit, json_option, project_option, table
from instep.cli.project import open_project
from instep.clock import format_instant
from instep.history.refs import Ref, RefKind, create_ref, list_refs
from instep.pipelines.project import refuse_environment_name


@dataclass(frozen=True, slots=True)
class Branches:
    refs: tuple[Ref, ...]

    def to_json(self) -> Json:
        return [
            {
                "name": ref.name,
                "kind": ref.kind.value,
                "commit": ref.commit,
                "owner": ref.owner,
                "created_at": format_instant(ref.created_at),
                "protected": ref.is_protected,
            }
            for ref in self.refs
        ]

    def to_text(self) -> str:
        rows = [
            (
                ref.name,
                ref.commit[:12],
                ref.owner,
                format_instant(ref.created_at)[:19],
                "protected" if ref.is_protected else "",
            )
            for ref in self.refs
        ]
        return table(rows, ("branch", "commit", "owner", "made at (UTC)", ""))


@click.command()
@click.argument("name", required=False)
@click.option("--at", default="main", show_default=True, help="The commit it begins at.")
@project_option
@actor_option
@json_option
def branch(
    name: str | None, at: str, project: Path | None, actor: str | None, as_json: bool
) -> None:
    """List the branches, or make one at a commit.

    \b
    Example:  instep branch
              instep branch try-weather --at main --as ana
    """
    opened = open_project(project)
    repo = opened.repo
    if name is not None:
        owner = opened.actor(actor)
        commit = repo.resolve(at)
        with repo.store.transaction() as tx:
            refuse_environment_name(repo, tx, name)
            create_ref(tx, name, RefKind.BRANCH, commit, owner=owner, at=repo.clock())
    with repo.store.reading() as tx:
        refs = tuple(list_refs(tx, RefKind.BRANCH))
    emit(Branches(refs), as_json)
