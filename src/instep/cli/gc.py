"""`instep gc`: delete what nothing names and nobody could need, and say what and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.output import emit, json_option, project_option, table
from instep.cli.progress import say
from instep.cli.project import open_project
from instep.history.collection import Collected, collect
from instep.history.retention import Policy, Verdict
from instep.lake import retention_of


@dataclass(frozen=True, slots=True)
class Collection:
    """What a collection did, or, dry, would do now."""

    collected: Collected
    policy: Policy

    def to_json(self) -> dict[str, Json]:
        found = self.collected
        return {
            "generation": found.generation,
            "dry_run": found.is_dry,
            "keep_days": self.policy.keep_days,
            "staging_days": self.policy.staging_days,
            "reached": found.reached,
            "deleted": 0 if found.is_dry else found.count(Verdict.DELETE),
            "unreached": [line.to_json() for line in found.lines],
            "left_alone": list(found.spared),
        }

    def to_text(self) -> str:
        found = self.collected
        lines = [f"{found.reached:,} files are needed and stay."]
        rows = [
            (line.kind, f"{line.count:,}", f"{line.size_bytes:,}", _what(found, line.verdict))
            for line in found.lines
        ]
        if rows:
            lines.append(table(rows, ("unreached", "count", "bytes", "what was done, and why")))
        else:
            lines.append("Nothing is unreached.")
        lines += [f"left alone: {reason}" for reason in found.spared]
        if not found.is_dry and found.count(Verdict.CONDEMN):
            lines.append(
                "What was condemned now is deleted by a later collection, after "
                f"{self.policy.keep_days} days ({self.policy.staging_days} in staging) on which "
                "the lake is at work."
            )
        return "\n".join(lines)


def _what(found: Collected, verdict: Verdict) -> str:
    match verdict:
        case Verdict.CONDEMN:
            return f"{'would be ' if found.is_dry else ''}condemned: first seen unreached"
        case Verdict.WAIT:
            return "kept: not condemned for long enough"
        case Verdict.NEEDED:
            return "kept: a writer is at work that began before"
        case Verdict.DELETE:
            return f"{'would be ' if found.is_dry else ''}deleted: nobody could need it"


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option(
    "--keep",
    default=None,
    show_default="policies.keep of main",
    type=click.IntRange(0, 36_500),
    metavar="DAYS",
    help="For how many days at work what is unreached stays, this time.",
)
@project_option
@json_option
def gc(dry_run: bool, keep: int | None, project: Path | None, as_json: bool) -> None:
    """Delete what no commit, change, run or arrival names, and no writer could need.

    \b
    Example:  instep gc --dry-run
              instep gc --keep 90
    """
    opened = open_project(project)
    repo = opened.repo
    policy = Policy(keep_days=opened.config().keep_days if keep is None else keep)
    emit(
        Collection(collect(repo, retention_of(repo), policy, is_dry=dry_run, say=say), policy),
        as_json,
    )
