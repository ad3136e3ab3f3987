"""What became of one file, and in which words it is told."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from instep.canonical import Json
from instep.changes.records import Change, State
from instep.contracts.type_changes import way_out
from instep.errors import RefusedError
from instep.findings import Finding, Severity
from instep.ingest.effect import EFFECT, EMPTY, UNUSUAL, Effect
from instep.ingest.records import Arrival

NO_CONTRACT = "no-contract"
"""What a file is held for whose table has no contract."""


_WORDS = {
    Severity.STOP: "accepted in spite of this",
    Severity.WARNING: "warning",
    Severity.NOTE: "note",
}
"""How a finding is told of an arrival that is held no more."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """What became of one file; `state` is that of its change, and it may have been here before."""

    arrival: Arrival
    state: State
    findings: tuple[Finding, ...] = ()
    commit: str | None = None
    was_here: bool = False
    draft: Path | None = None
    broken: Mapping[str, int] = field(default_factory=dict)
    upkeep: str = ""
    """What was done to the table's files after it, in words."""
    is_overtaken: bool = False
    """Whether it was here before, and other files took the place of its rows since."""
    effect: Effect | None = None
    """What becomes of the rows of its table; None where rows are only added, or none was read."""

    @property
    def is_held(self) -> bool:
        return self.state is State.HELD

    def to_json(self) -> dict[str, Json]:
        return {
            **self.arrival.to_json(),
            "state": self.state.value,
            "commit": self.commit,
            "skipped": self.was_here,
            "overtaken": self.is_overtaken,
            "broken": dict(self.broken),
            "effect": self.effect.to_json() if self.effect else None,
            "findings": [finding.to_json() for finding in self.findings],
            "draft": str(self.draft) if self.draft else None,
            "upkeep": self.upkeep,
        }

    def to_text(self) -> str:
        arrival = self.arrival
        if self.was_here and not self.is_held:
            more = (
                " Others came in after it: --again takes it once more." if self.is_overtaken else ""
            )
            return (
                f"{arrival.file_name}: the same file arrived before, as change {arrival.change} "
                f"({self.state.value}): skipped.{more}"
            )
        if self.is_held:
            return held_error(self).message
        good = arrival.rows - arrival.quarantined
        where = f"merged as change {arrival.change}"
        if self.state is State.OPEN:
            where = f"fits, and waits for approval as change {arrival.change}"
        rows = f"{good:,} rows" if good else "no row"
        line = f"{arrival.file_name}: {rows} into {arrival.table}, {where}"
        if arrival.quarantined:
            terms = ", ".join(f"{name} {count}" for name, count in self.broken.items())
            line += f"; {arrival.quarantined:,} in quarantine ({terms})"
        upkeep = [f"  note: {self.upkeep}"] if self.upkeep else []
        effect = [f"  {self.effect.sentence}"] if self.effect else []
        return "\n".join([line, *effect, *self._notes(), *upkeep])

    def _notes(self) -> list[str]:
        """What is worth a line; columns that moved share one."""
        told = ("quarantined-rows", "distribution-change")
        lines = [
            f"  {_WORDS[finding.severity]}: {finding.message}"
            for finding in self.findings
            if finding.kind not in told
        ]
        moved = dict.fromkeys(
            finding.subject.rpartition(".")[2]
            for finding in self.findings
            if finding.kind == "distribution-change"
        )
        if moved:
            lines.append(
                f"  note: {', '.join(moved)} moved further than ever before "
                f'("instep review {self.arrival.change}")'
            )
        return lines


def held_error(arrived: Arrived) -> RefusedError:
    """Returns why an arrival is held, on what evidence, and what may be done next."""
    arrival = arrived.arrival
    number = arrival.change
    stops = [finding for finding in arrived.findings if finding.severity is Severity.STOP]
    evidence = " ".join(finding.message for finding in stops)
    if not stops:
        evidence = "It fits by now, but would take the place of rows that came in after it."
    if arrived.effect is not None and arrived.effect.before:
        evidence += f" Accepted, it makes {arrived.effect.sentence}."
    again = "is still held" if arrived.was_here else "is held"
    return RefusedError(
        f"{arrival.file_name} {again} as change {number}: {evidence} {_next_step(arrival, stops)}",
        kind="arrival-held",
        change=number,
        table=arrival.table,
        held_for=arrival.held_for,
    )


def _next_step(arrival: Arrival, stops: list[Finding]) -> str:
    number = arrival.change
    turn_away = f'"instep refuse {number} --why REASON"'
    if not stops:
        return f'Next: "instep accept {number}", or {turn_away}.'
    if any(one.kind == EMPTY for one in stops):
        return f"Next: {_by_contract(arrival)}; or {turn_away}."
    match arrival.held_for:
        case "renamed-column":
            pairs = " ".join(
                "--rename " + shlex.quote(f"{one.evidence['new']}={one.evidence['old']}")
                for one in stops
                if one.kind == "renamed-column"
            )
            accept = f'"instep accept {number} {pairs}"'
        case "missing-column":
            accept = (
                f'"instep accept {number} --rename NEW=OLD" if it has '
                f"another name; {_by_contract(arrival)}"
            )
        case "no-contract":
            return f'Next: read the draft, then "instep accept {number}"; or {turn_away}.'
        case kind:
            accept = f'"instep accept {number} --why REASON"'
            if kind not in UNUSUAL:
                accept += f"; {_by_terms(arrival, stops)}"
    return f"Next: {accept}, or {turn_away}."


def _by_terms(arrival: Arrival, stops: list[Finding]) -> str:
    """As `_by_contract`; the type of a column is only corrected where the table can have it."""
    fixed: set[str] = set()
    others: set[str] = set()
    for stop in stops:
        listed, broken = stop.evidence.get("fixed_types"), stop.evidence.get("broken")
        names = {str(name) for name in listed} if isinstance(listed, list) else set()
        fixed |= names
        terms = {str(name) for name in broken} if isinstance(broken, dict) else {stop.kind}
        others |= terms - {f"{name}.type" for name in names}
    ways = [_by_contract(arrival)] if others else []
    for name in sorted(fixed):
        way = way_out(arrival.table, name, str(arrival.change)).rstrip(".")
        ways.append(
            f"{name} cannot become another type in table {arrival.table}, which has rows: "
            f"{way[0].lower()}{way[1:]}"
        )
    return "; ".join(ways)


def _by_contract(arrival: Arrival) -> str:
    """Returns the way out where the data is right and its contract is not."""
    return (
        f"if the contract is wrong, correct contracts/{arrival.table}.yaml and "
        '"instep propose" it: once that is merged, the file comes in by itself if it fits'
    )


def effect_of(change: Change) -> Effect | None:
    """Returns what a change's evidence says becomes of the rows of its table."""
    keys = change.evidence.get("keys")
    for key in keys if isinstance(keys, list) else []:
        facts = key.get("facts") if isinstance(key, dict) else None
        effect = facts.get(EFFECT) if isinstance(facts, dict) else None
        if isinstance(effect, dict):
            return Effect.from_json(effect)
    return None


def findings_of(change: Change) -> tuple[Finding, ...]:
    """Returns the findings that a change's evidence holds."""
    listed = change.evidence.get("findings")
    found = []
    for one in listed if isinstance(listed, list) else []:
        assert isinstance(one, dict)
        evidence = one.get("evidence")
        found.append(
            Finding(
                str(one["kind"]),
                str(one["subject"]),
                Severity(str(one["severity"])),
                str(one["message"]),
                evidence if isinstance(evidence, dict) else {},
            )
        )
    return tuple(found)
