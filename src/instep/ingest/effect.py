"""Is what a batch does to the rows that its table has what a delivery usually does?

Under `keyed` and `replace` rows give way to others, so a key in another spelling, or half a file,
would pass as valid rows. A pure decision over counts, which `ingest.covered` finds. Not here: what
a row promises (`contracts.checks`).
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from instep.canonical import Json
from instep.contracts.terms import Contract, MergePolicy
from instep.findings import Finding, Severity

EFFECT = "effect"
"""What the evidence of a change calls it."""

EMPTY = "empty-table"
"""The kind of the stop that no reason lets in."""

UNUSUAL = ("table-shrinks", "keys-vanish", "rows-double")
"""The kinds of the others; no other terms of a contract are a way out."""

VANISHED_SHARE = 0.2
"""The share of existing keys that may be missing from a delivery of the period they are of."""

RESPELLED_SHARE, RESPELLED = 0.2, 20
"""Which share of the new keys, and how many of them or all, may not be spellings of others."""

FULL_SHARE = 0.8
"""From which share of the existing rows of a period on a batch counts as a delivery of it all."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What becomes of rows: those of the file are new, changed or the same; `gone` had been there.

    Without a key a changed row counts as one gone and one new.
    """

    before: int
    after: int
    new: int
    changed: int
    same: int
    gone: int

    @property
    def sentence(self) -> str:
        return (
            f"{self.new:,} new, {self.changed:,} changed, {self.same:,} the same, "
            f"{self.gone:,} gone: rows {self.before:,} -> {self.after:,}"
        )

    def to_json(self) -> dict[str, Json]:
        return {
            "before": self.before,
            "after": self.after,
            "new": self.new,
            "changed": self.changed,
            "same": self.same,
            "gone": self.gone,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Effect:
        return cls(**{name: int(str(count)) for name, count in value.items()})


@dataclass(frozen=True, slots=True)
class Covered:
    """The rows on both sides where a batch covers what its table had.

    `span` is empty where that is the whole table. `named` counts the existing rows whose key is in
    the batch, `new` the arriving rows whose key is not in the table; None without a key.
    `earlier` counts the existing rows of the nearest earlier event time, where the span is one
    value, as with several files of one day whose event time is a date. `respelled` counts those
    new keys that are existing ones, not in the batch, in another spelling; `spellings` are the
    first of them, each as the table has it and as the batch has it.
    """

    span: tuple[str, str] | None
    existing: int
    arriving: int
    named: int | None = None
    new: int | None = None
    vanished_keys: tuple[str, ...] = ()
    new_keys: tuple[str, ...] = ()
    earlier: int = 0
    respelled: int = 0
    spellings: tuple[tuple[str, str], ...] = ()

    @property
    def vanished(self) -> int:
        return 0 if self.named is None else self.existing - self.named

    @property
    def place(self) -> str:
        return f"from {self.span[0]} to {self.span[1]}" if self.span else "in the whole table"

    @property
    def examples(self) -> str:
        """The first keys that only one side has, as a part of a sentence; may be empty."""
        shown = [
            f"{word} {', '.join(keys)}"
            for word, keys in (("missing", self.vanished_keys), ("new", self.new_keys))
            if keys
        ]
        return f" ({'; '.join(shown)})" if shown else ""

    def to_json(self) -> dict[str, Json]:
        return {
            "span": list(self.span) if self.span else None,
            "existing": self.existing,
            "arriving": self.arriving,
            "named": self.named,
            "new": self.new,
            "vanished_keys": list(self.vanished_keys),
            "new_keys": list(self.new_keys),
            "earlier": self.earlier,
            "respelled": self.respelled,
            "spellings": [list(pair) for pair in self.spellings],
        }


def judge_effect(
    contract: Contract,
    rows: int,
    after: int,
    effect: Effect | None,
    covered: Covered | None,
    accepted: Container[str] = (),
) -> Finding | None:
    """Returns what is to be said of what a batch of `rows` rows does to its table: mostly a stop.

    `accepted` are the kinds of which somebody let an earlier batch of the table in. That its parts
    come in several files, as one for each shop, is then how it is delivered: such a file, which
    names next to none of the existing keys, is told of and not stopped.
    """
    table, is_keyed = contract.table, contract.merge_policy is MergePolicy.KEYED

    def stop(kind: str, message: str, severity: Severity = Severity.STOP) -> Finding:
        evidence: dict[str, Json] = dict(effect.to_json()) if effect else {}
        if covered:
            evidence["covered"] = covered.to_json()
        return Finding(kind, f"table/{table}", severity, message, evidence)

    def usual(kind: str, message: str) -> Finding:
        is_other_part = covered is not None and 10 * (covered.named or 0) < covered.existing
        if kind not in accepted or not is_other_part:
            return stop(kind, message)
        return stop(kind, f"{message} As in a file that was accepted before.", Severity.WARNING)

    if rows and not after:
        had = f"which has {effect.before:,}" if effect and effect.before else "which has none"
        return stop(
            EMPTY,
            f"None of the file's {rows:,} rows fits, and table {table}, {had}, would be empty: "
            "expected at least one row.",
        )
    if effect is None or not effect.before:
        return None
    if not is_keyed and 2 * effect.after < effect.before:
        return stop(
            "table-shrinks",
            f"The file takes the place of {effect.before:,} rows with {effect.after:,}: expected "
            "at least half of them. Is it a part of what was meant?",
        )
    if covered is None:
        return None
    if is_keyed and _is_respelled(covered):
        spellings = ", ".join(f"{old} as {new}" for old, new in covered.spellings)
        return stop(
            "keys-vanish",
            f"{covered.respelled:,} of {covered.new:,} new keys are existing ones {covered.place} "
            f"in another spelling ({spellings}): expected the spelling that the table has. Are "
            "the same rows named otherwise? Under keyed, the old rows would stay beside the new "
            "ones.",
        )
    if _loses_keys(covered, is_keyed):
        share = covered.vanished / covered.existing
        stays = " Under keyed, the old rows would stay beside the new ones." if is_keyed else ""
        return usual(
            "keys-vanish",
            f"{covered.vanished:,} of {covered.existing:,} existing keys ({share:.0%}) "
            f"{covered.place} are not in the file, which has {covered.new or 0:,} that are "
            f"new{covered.examples}: expected at most {VANISHED_SHARE:.0%} to be missing. Are the "
            f"same rows named otherwise?{stays}",
        )
    if _doubles(covered, is_keyed):
        result = covered.existing + (covered.new or 0) if is_keyed else covered.arriving
        return usual(
            "rows-double",
            f"The {covered.existing:,} existing rows {covered.place} would become {result:,}"
            f"{covered.examples}: expected fewer than twice as many in what the table covers "
            "already. Are the same rows named otherwise?",
        )
    return None


def _is_respelled(covered: Covered) -> bool:
    """Says whether too many of the new keys are spellings of keys that the batch does not name."""
    new = covered.new or 0
    few = max(min(RESPELLED, new), RESPELLED_SHARE * new)
    return 0 < covered.respelled >= few


def _loses_keys(covered: Covered, is_keyed: bool) -> bool:
    """Says whether too many keys are missing from what looks like a delivery of all rows there.

    Under `keyed` a batch may be only what changed. It is a delivery of all where it has the size
    of one, with other keys in the place of the missing. It must name half of the keys where no
    event time tells that it is of the same period, or where it may be the next file of a date.
    """
    if covered.named is None or covered.vanished <= VANISHED_SHARE * covered.existing:
        return False
    if not is_keyed:
        return True
    is_full = covered.arriving >= FULL_SHARE * covered.existing
    has_others = (covered.new or 0) > VANISHED_SHARE * covered.existing
    is_same_period = covered.span is not None and not _still_fills(covered)
    return is_full and has_others and (is_same_period or 2 * covered.named >= covered.existing)


def _still_fills(covered: Covered) -> bool:
    """Says whether the rows of one event time would be no more than those of the one before it."""
    return covered.existing + (covered.new or 0) <= covered.earlier


def _doubles(covered: Covered, is_keyed: bool) -> bool:
    if is_keyed:
        has_doubled = covered.new is not None and covered.new >= covered.existing
        # A file that has the rows of before as well has grown: no key of it was named otherwise.
        has_grown = covered.vanished <= VANISHED_SHARE * covered.existing
        return has_doubled and not has_grown and not _still_fills(covered)
    return covered.arriving >= 2 * covered.existing
