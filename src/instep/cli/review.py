"""`instep review` and `instep changes`: a change with its evidence, and all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import click

from instep.canonical import Json
from instep.changes import gate, records
from instep.changes.inputs import Moved
from instep.changes.policy import Decision, Merge, Wait
from instep.changes.records import Approval, Change, Listed, State
from instep.cli.comparison import comparison_of, comparison_text
from instep.cli.output import emit, json_option, project_option, table
from instep.cli.project import open_project
from instep.clock import format_instant
from instep.errors import InstepError
from instep.findings import stops
from instep.history.repository import Repository
from instep.ingest.arrived import findings_of


@dataclass(frozen=True, slots=True)
class Review:
    """A change, who approved it, and whether it could be merged now."""

    change: Change
    approvals: tuple[Approval, ...]
    decision: Decision
    binding: str
    others: tuple[str, ...] = ()
    """The people who are not among its authors."""
    moved: tuple[Moved, ...] = ()
    """What the change was computed from and is another now."""
    not_judged: str = ""
    """Why a held arrival could not be read again by what main is now; empty where it was."""

    @property
    def waits_for(self) -> tuple[str, ...]:
        return self.decision.reasons if isinstance(self.decision, Wait) else ()

    @property
    def can_be_merged(self) -> bool:
        return isinstance(self.decision, Merge)

    @property
    def next_step(self) -> str:
        """What can be done about a change that has not ended, and by whom."""
        number = self.change.number
        by = f" by {' or '.join(self.others)}" if self.others else ""
        if self.change.state is State.HELD and not stops(findings_of(self.change)):
            return f'it fits by now: "instep accept {number}"{by}, or ingest its file again.'
        if self.change.state is State.HELD:
            return (
                f'"instep accept {number}"{by}, with --rename or --why; or '
                f'"instep refuse {number} --why REASON".'
            )
        if self.can_be_merged:
            return f'"instep merge {number}".'
        if not self.others and self.moved:
            return f"{self.waits_for[-1]}."
        return f'"instep approve {number} --to {self.binding[:12]}"{by or " by somebody else"}.'

    def to_json(self) -> dict[str, Json]:
        return {
            **self.change.to_json(),
            "approvals": [approval.to_json() for approval in self.approvals],
            "binding": self.binding,
            "can_be_merged": self.can_be_merged,
            "waits_for": list(self.waits_for),
            "moved_inputs": [str(one) for one in self.moved],
            "not_judged": self.not_judged,
        }

    def to_text(self) -> str:
        change = self.change
        lines = [
            f"Change {change.number} ({change.kind}, {change.state}): {change.title}",
            f"  by {change.author} at {format_instant(change.opened_at)[:19]} UTC, commit "
            f"{change.head[:12]} on {change.base[:12]}; what is agreed to: {self.binding[:12]}",
            comparison_text(comparison_of(change.evidence)),
        ]
        findings = change.evidence.get("findings")
        if isinstance(findings, list):
            lines += [f"  {one['severity']}: {one['message']}" for one in findings]
        lines += [
            f"  approved by {a.actor} at {format_instant(a.at)[:19]} UTC {a.why}".rstrip()
            for a in self.approvals
        ]
        if change.has_ended:
            lines.append(f"  {change.state} by {change.ended_by} {change.why}".rstrip())
        else:
            if self.can_be_merged:
                lines += [f"  agreed to as it is: {one}" for one in self.moved]
            lines += [f"  waits: {reason}" for reason in self.waits_for]
            if self.not_judged:
                lines.append(f"  not judged by what main is now: {self.not_judged}")
            lines.append(f"Next: {self.next_step}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Changes:
    changes: tuple[Listed, ...]

    def to_json(self) -> Json:
        return [change.to_json() for change in self.changes]

    def to_text(self) -> str:
        if not self.changes:
            return "No change is open. See all with --all."
        rows = [
            (
                str(change.number),
                change.state.value,
                change.kind.value,
                change.author,
                format_instant(change.opened_at)[:19],
                change.title,
            )
            for change in self.changes
        ]
        return table(rows, ("change", "state", "kind", "by", "opened (UTC)", "title"))


def review_of(repo: Repository, number: int) -> Review:
    """Returns a change with its approvals and what the gate would say now."""
    with repo.store.reading() as tx:
        change = records.load_change(tx, number)
        return Review(
            change,
            tuple(records.approvals_of(tx, number)),
            gate.judge(tx, repo, change),
            gate.binding_of(tx, repo, change),
            gate.others(tx, repo, change),
            gate.moved_of(tx, repo, change),
        )


@click.command()
@click.argument("change", type=int)
@project_option
@json_option
def review(change: int, project: Path | None, as_json: bool) -> None:
    """A change with its evidence: what it does, who agreed, what it waits for.

    \b
    Example:  instep review 12
    """
    from instep.ingest.merge import judge_again

    repo = open_project(project).repo
    not_judged = ""
    try:
        judge_again(repo, change)
    except InstepError as error:
        not_judged = error.message
    emit(replace(review_of(repo, change), not_judged=not_judged), as_json)


@click.command()
@click.option("--all", "every", is_flag=True, help="Also those that have ended.")
@project_option
@json_option
def changes(every: bool, project: Path | None, as_json: bool) -> None:
    """The open and held changes.

    \b
    Example:  instep changes --all
    """
    repo = open_project(project).repo
    states = () if every else (State.OPEN, State.HELD)
    with repo.store.reading() as tx:
        found = tuple(records.list_changes(tx, *states))
    emit(Changes(found), as_json)
