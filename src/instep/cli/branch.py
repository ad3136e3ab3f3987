"""`instep branch` and `instep tag`: list, make, rename, delete, protect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.changes import branches
from instep.cli.branch_merge import merge
from instep.cli.output import actor_option, emit, json_option, project_option, table
from instep.cli.project import open_project
from instep.clock import format_instant
from instep.history.refs import Ref, RefKind, list_refs


@dataclass(frozen=True, slots=True)
class Refs:
    """The branches, or the tags."""

    kind: RefKind
    refs: tuple[Ref, ...]

    def to_json(self) -> Json:
        return [_json(ref) for ref in self.refs]

    def to_text(self) -> str:
        if not self.refs:
            return f'There is no {self.kind} yet. Make one with "instep {self.kind} make".'
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
        return table(rows, (self.kind.value, "commit", "owner", "made at (UTC)", ""))


@dataclass(frozen=True, slots=True)
class Acted:
    """A branch or tag, and what was done to it."""

    ref: Ref
    sentence: str

    def to_json(self) -> Json:
        return {**_json(self.ref), "did": self.sentence}

    def to_text(self) -> str:
        return self.sentence


def _json(ref: Ref) -> dict[str, Json]:
    return {
        "name": ref.name,
        "kind": ref.kind.value,
        "commit": ref.commit,
        "owner": ref.owner,
        "created_at": format_instant(ref.created_at),
        "protected": ref.is_protected,
    }


why_option = click.option("--why", default="", help="The reason, kept in the chain of the name.")


def _group(kind: RefKind, example: str, what: str) -> click.Group:
    """Returns the commands of one kind of ref; both kinds have the same."""

    @click.group(
        name=kind.value,
        invoke_without_command=True,
        help=f"{what}\n\n\b\nExample:  instep {kind}",
    )
    @project_option
    @json_option
    @click.pass_context
    def group(context: click.Context, project: Path | None, as_json: bool) -> None:
        if context.invoked_subcommand is None:
            _list(kind, project, as_json)

    @group.command(name="list", help=_help(kind, "list", "List all, with owner and time."))
    @project_option
    @json_option
    def list_(project: Path | None, as_json: bool) -> None:
        _list(kind, project, as_json)

    @group.command(help=_help(kind, f"make {example} --as ana", "Make one at a commit."))
    @click.argument("name")
    @click.option("--at", default="main", show_default=True, help="The commit it begins at.")
    @why_option
    @project_option
    @actor_option
    @json_option
    def make(
        name: str, at: str, why: str, project: Path | None, actor: str | None, as_json: bool
    ) -> None:
        opened = open_project(project)
        who, repo = opened.actor(actor), opened.repo
        commit = repo.resolve(at)
        with repo.store.transaction(name) as tx:
            made = branches.make(tx, repo, kind, name, commit, actor=who, why=why)
        emit(Acted(made, f"Made {kind} {name} at {commit[:12]}."), as_json)

    @group.command(
        help=_help(
            kind,
            f"rename {example} {example}-again --as ana",
            "Give one another name; the old name's history stays.",
        )
    )
    @click.argument("name")
    @click.argument("new")
    @why_option
    @project_option
    @actor_option
    @json_option
    def rename(
        name: str, new: str, why: str, project: Path | None, actor: str | None, as_json: bool
    ) -> None:
        opened = open_project(project)
        who, repo = opened.actor(actor), opened.repo
        with repo.store.transaction(name, new) as tx:
            renamed = branches.rename(tx, repo, kind, name, new, actor=who, why=why)
        emit(Acted(renamed, f"Renamed {kind} {name} to {new}."), as_json)

    @group.command(
        help=_help(
            kind,
            f"delete {example} --as ana",
            "Delete one; its history stays, its commits a while.",
        )
    )
    @click.argument("name")
    @why_option
    @project_option
    @actor_option
    @json_option
    def delete(name: str, why: str, project: Path | None, actor: str | None, as_json: bool) -> None:
        opened = open_project(project)
        who, repo = opened.actor(actor), opened.repo
        with repo.store.transaction(name) as tx:
            gone = branches.delete(tx, repo, kind, name, actor=who, why=why)
        sentence = (
            f"Deleted {kind} {name}, which was at {gone.commit[:12]}. Its history stays: "
            f'"instep log {name}".'
        )
        emit(Acted(gone, sentence), as_json)

    @group.command(
        help=_help(kind, f"protect {example} --as ana", "Refuse direct writes and deletion.")
    )
    @click.argument("name")
    @click.option("--off", is_flag=True, help="End the protection.")
    @why_option
    @project_option
    @actor_option
    @json_option
    def protect(
        name: str, off: bool, why: str, project: Path | None, actor: str | None, as_json: bool
    ) -> None:
        opened = open_project(project)
        who, repo = opened.actor(actor), opened.repo
        with repo.store.transaction(name) as tx:
            ref = branches.protect(tx, repo, kind, name, not off, actor=who, why=why)
        sentence = f"{kind.capitalize()} {name} is {'open again' if off else 'protected'}."
        emit(Acted(ref, sentence), as_json)

    return group


def _help(kind: RefKind, example: str, what: str) -> str:
    return f"{what}\n\n\b\nExample:  instep {kind} {example}"


def _list(kind: RefKind, project: Path | None, as_json: bool) -> None:
    repo = open_project(project).repo
    with repo.store.reading() as tx:
        found = tuple(list_refs(tx, kind))
    emit(Refs(kind, found), as_json)


branch = _group(
    RefKind.BRANCH, "try-weather", "List the branches, or make, rename, delete, protect, merge one."
)
branch.add_command(merge)
tag = _group(
    RefKind.TAG, "quarter-1", "List the tags, or make, rename, delete, protect one: it never moves."
)
