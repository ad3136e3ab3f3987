"""`instep accept` and `instep refuse`: somebody's decision about a held arrival."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.changes.records import State
from instep.cli.output import actor_option, emit, json_option, project_option, reason_option
from instep.cli.progress import say
from instep.cli.project import open_project
from instep.errors import InstepError, InvalidError
from instep.ingest import accept as acts
from instep.ingest.arrived import Arrived, held_error
from instep.ingest.batch import Outcome
from instep.ingest.by_contract import AcceptedDraft, accept_draft, has_draft


@dataclass(frozen=True, slots=True)
class DecidedArrival:
    arrived: Arrived
    actor: str
    why: str

    def to_json(self) -> dict[str, Json]:
        return {**self.arrived.to_json(), "by": self.actor, "why": self.why}

    def to_text(self) -> str:
        arrival = self.arrived.arrival
        if self.arrived.state is State.REFUSED:
            return f"{self.actor} refused change {arrival.change} ({arrival.file_name}): {self.why}"
        return f"{self.actor} accepted change {arrival.change}. {self.arrived.to_text()}"


@dataclass(frozen=True, slots=True)
class AcceptedContract:
    """A drafted contract, accepted for the held arrival `change`, and what came in by it."""

    change: int
    draft: AcceptedDraft
    actor: str
    why: str

    @property
    def exit_code(self) -> int:
        """That of why the arrival is not in, if it is not."""
        match self.draft.settled.get(self.change):
            case InstepError() as error:
                return error.exit_code
            case Arrived(is_held=True) as arrived:
                return held_error(arrived).exit_code
            case _:
                return 0

    def to_json(self) -> dict[str, Json]:
        own = self.draft.settled.get(self.change)
        return {
            **(own.to_json() if isinstance(own, Arrived) else {"change": self.change}),
            "by": self.actor,
            "why": self.why,
            "contract_change": self.draft.contract.number,
            **settled_to_json(self.draft.settled),
        }

    def to_text(self) -> str:
        contract = self.draft.contract
        title = contract.title[0].lower() + contract.title[1:]
        line = f"{self.actor} accepted {title}, as change {contract.number}."
        return "\n".join([line, *settled_lines(self.draft.settled)])


def settled_lines(settled: Mapping[int, Arrived | InstepError]) -> Iterator[str]:
    """Yields a line for each held arrival of a table whose contract is another now."""
    for number, one in settled.items():
        match one:
            case InstepError():
                yield f"Change {number} stays held: {one.message}"
            case Arrived():
                yield one.to_text()


def settled_to_json(settled: Mapping[int, Arrived | InstepError]) -> dict[str, Json]:
    """Returns the arrivals as `instep ingest` shows them, and the errors of those not read."""
    return {
        "arrivals": [one.to_json() for one in settled.values() if isinstance(one, Arrived)],
        "errors": [
            {"change": number, "family": one.family, "kind": one.kind, "message": one.message}
            for number, one in settled.items()
            if isinstance(one, InstepError)
        ],
    }


@dataclass(frozen=True, slots=True)
class PreviewedArrival:
    """What accepting a held arrival would do to main as it is now."""

    change: int
    outcome: Outcome

    def to_json(self) -> dict[str, Json]:
        seen, effect = self.outcome.examined, self.outcome.effect
        return {
            "change": self.change,
            "table": self.outcome.reading.contract.table,
            "rows": seen.rows,
            "quarantined": seen.quarantined,
            "broken": dict(seen.broken),
            "effect": effect.to_json() if effect else None,
            "findings": [finding.to_json() for finding in seen.findings],
            "needs_reason": bool(self.outcome.stops),
        }

    def to_text(self) -> str:
        seen, effect = self.outcome.examined, self.outcome.effect
        table = self.outcome.reading.contract.table
        good = seen.rows - seen.quarantined if self.outcome.content else 0
        lines = [f"Accepting change {self.change} now would bring {good:,} rows into {table}."]
        if seen.quarantined:
            terms = ", ".join(f"{name} {count}" for name, count in seen.broken)
            lines.append(f"  {seen.quarantined:,} rows would stay in quarantine ({terms})")
        if effect is not None:
            lines.append(f"  {effect.sentence}")
        lines += [f"  {finding.severity}: {finding.message}" for finding in seen.findings]
        return "\n".join([*lines, "Nothing was changed."])


@click.command()
@click.argument("change", type=int)
@click.option(
    "--rename",
    "renames",
    multiple=True,
    is_flag=False,
    flag_value="",
    metavar="[NEW=OLD]",
    help="The file's name for a column of the table; alone: the renames that were recognised.",
)
@click.option("--why", default="", help="The reason, kept with the change.")
@click.option("--dry-run", is_flag=True, help="Only say what it would do now.")
@project_option
@actor_option
@json_option
def accept(
    change: int,
    renames: tuple[str, ...],
    why: str,
    dry_run: bool,
    project: Path | None,
    actor: str | None,
    as_json: bool,
) -> int:
    """Let a held arrival in: it counts as an approval, by somebody else than whoever ingested it.

    \b
    Example:  instep accept 1
              instep accept 12 --rename arrival_delay=arr_delay --as ben
              instep accept 12 --why "the sensor was moved" --as ben
              instep accept 12 --rename --dry-run
    """
    opened = open_project(project)
    pairs = _pairs(renames) if renames else None
    if dry_run:
        emit(PreviewedArrival(change, acts.preview(opened.repo, change, pairs)), as_json)
        return 0
    name = opened.actor(actor)
    if has_draft(opened.repo, opened.folder, change):
        if pairs is not None:
            raise InvalidError(
                f"Change {change} has no contract yet, so there is no column to rename: expected "
                "none of --rename. Correct the draft instead.",
                kind="bad-rename",
            )
        brought = accept_draft(opened.repo, opened.folder, change, name, why, say)
        result = AcceptedContract(change, brought, name, why)
        emit(result, as_json)
        return result.exit_code
    arrived = acts.accept(opened.repo, change, name, rename=pairs, why=why)
    emit(DecidedArrival(arrived, name, why), as_json)
    return 0


@click.command()
@click.argument("change", type=int)
@reason_option("The reason, kept with the change.")
@project_option
@actor_option
@json_option
def refuse(change: int, why: str, project: Path | None, actor: str | None, as_json: bool) -> None:
    """Turn a held arrival away; its file is kept.

    \b
    Example:  instep refuse 12 --why "kilometres, not miles" --as ben
    """
    opened = open_project(project)
    name = opened.actor(actor)
    emit(DecidedArrival(acts.refuse(opened.repo, change, name, why), name, why), as_json)


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """Reads NEW=OLD; the bare option gives no pairs.

    Raises:
        InvalidError (kind "bad-rename").
    """
    pairs = {}
    for text in filter(None, texts):
        new, equals, old = text.partition("=")
        if not equals or not new or not old:
            raise InvalidError(
                f'Rename "{text}" cannot be read: expected NEW=OLD, the file\'s name and the '
                "table's. Write for example --rename arrival_delay=arr_delay.",
                kind="bad-rename",
            )
        pairs[new] = old
    return pairs
