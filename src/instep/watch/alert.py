"""What a comparison means, in sentences, and what one can decide. One cause, one alert. Pure.

The rule: calibration moved when a change is found with p at most `CONVINCING_P`, and the gap of the
watched events is material and its interval excludes none. Everything else that is off at the same
time is said in the same alert. Nothing found is said too, and so is too little to tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from instep.canonical import Json
from instep.clock import format_instant
from instep.findings import Finding, Severity
from instep.models.card import Card
from instep.watch.comparison import Comparison, Level

CONVINCING_P = 0.01
"""The p-value from which a change is believed: one false alarm in a hundred watches."""

MATERIAL_GAP = 0.02
"""The gap between promised and observed share that is worth a sentence: two points."""


@dataclass(frozen=True, slots=True)
class Receipts:
    """Answers that consumers were given for the watched events, joined by key.

    `agreeing` answers equal the score computed now; `unmatched` have no event in the data.
    """

    answered: int
    agreeing: int
    acting: int
    acting_right: int
    unmatched: int

    def to_json(self) -> dict[str, Json]:
        return {
            "answered": self.answered,
            "agreeing": self.agreeing,
            "acting": self.acting,
            "acting_right": self.acting_right,
            "unmatched": self.unmatched,
        }


@dataclass(frozen=True, slots=True)
class Alert:
    """One finding with its sentences, in the order they are worth reading, and its decisions.

    A decision is a sentence and the command that does it.
    """

    finding: Finding
    sentences: tuple[str, ...]
    decisions: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Json]:
        return {
            "finding": self.finding.to_json(),
            "sentences": list(self.sentences),
            "decisions": [{"decision": d, "command": c} for d, c in self.decisions],
        }


def calibration_moved(found: Comparison) -> bool:
    """Returns whether the scores no longer promise what happens, and that is no accident."""
    interval = found.now.interval
    return (
        found.since is not None
        and found.since.change.p_value <= CONVINCING_P
        and abs(found.now.gap) >= MATERIAL_GAP
        and interval is not None
        and (interval[0] > 0 or interval[1] < 0)
    )


def ranks_worse(found: Comparison, card: Card) -> bool:
    """Returns whether the metric of the choice is below its worst tested window."""
    if found.metric_now is None or found.metric_worst is None:
        return False
    return card.metric.oriented(found.metric_now) < card.metric.oriented(found.metric_worst)


def raise_alert(
    card: Card,
    found: Comparison,
    environment: str,
    pipeline: str,
    receipts: Receipts,
    brought_by: Sequence[str],
    *,
    has_version_before: bool,
) -> Alert:
    """Returns the one alert about `found`.

    `brought_by` are sentences about the commits that brought the watched events;
    `has_version_before` says whether a rollback of the model would find one to go back to.
    """
    kind, severity = _classify(card, found)
    sentences = (
        _headline(card, found),
        *_since(found),
        *_quality(card, found),
        *_features(found),
        *_cause(card, found, brought_by),
        *_affected(card, found, environment, receipts),
    )
    finding = Finding(
        kind=kind,
        subject=f"model/{card.model}",
        severity=severity,
        message=sentences[0],
        evidence=found.to_json(),
    )
    if severity is Severity.NOTE:
        decisions: tuple[tuple[str, str], ...] = (
            ("Nothing needs a decision; look again later", f"instep watch {environment}"),
        )
    else:
        decisions = tuple(_decisions(card, found, environment, pipeline, has_version_before))
    return Alert(finding, sentences, decisions)


def _classify(card: Card, found: Comparison) -> tuple[str, Severity]:
    if calibration_moved(found):
        return "calibration-moved", Severity.WARNING
    if not found.is_acceptable:
        return "acceptable-error-missed", Severity.WARNING
    if ranks_worse(found, card):
        return "ranks-worse", Severity.WARNING
    if found.shifts and found.shifts[0].is_material:
        return "features-shifted", Severity.WARNING
    if found.outside_period:
        return "outside-intended-period", Severity.WARNING
    if found.since is None or found.now.error is None:
        return "too-few-days", Severity.NOTE
    return "unchanged", Severity.NOTE


def _headline(card: Card, found: Comparison) -> str:
    now, before = found.now, found.tested
    verb = "rose" if now.observed > before.observed else "fell"
    return (
        f"The share of {card.target} events {verb} to {now.observed:.1%} ({found.window}, "
        f"{now.rows:,} events), from {found.share_trained:.1%} of the rows trained on "
        f"({card.trained}) and {before.observed:.1%} as tested ({_period(card)}); model "
        f"{card.model} promised {now.promised:.1%}."
    )


def _since(found: Comparison) -> Iterator[str]:
    now, since = found.now, found.since
    if since is None or now.interval is None:
        yield (
            "Too few days have known outcomes to tell a change from an accident: this is not a "
            "sign that all is well."
        )
        return
    yield (
        f"Observed less promised is now {_points(now.gap)} ({_range(now)}, the day as the unit); "
        f"in the tested windows it was {_points(found.tested.gap)} ({_range(found.tested)})."
    )
    sure = (
        f"p = {since.change.p_value:g}, if weeks are exchangeable when nothing changes; a season "
        "that the tested windows do not have looks the same"
    )
    if not calibration_moved(found):
        yield f"No lasting change of the daily gap can be told ({sure})."
        return
    yield (
        f"The change began about {since.day} (90 % sure of {since.earliest} to {since.latest}), "
        f"from {_points(since.change.before)} to {_points(since.change.after)} a day ({sure})."
    )


def _quality(card: Card, found: Comparison) -> Iterator[str]:
    if found.metric_now is not None and found.metric_worst is not None:
        held = "is below its worst" if ranks_worse(found, card) else "held"
        yield (
            f"{card.metric} {held}: {found.metric_now:.3f} now, {found.metric_worst:.3f} to "
            f"{found.metric_best:.3f} as tested."
        )
    else:
        yield f"{card.metric} is undefined for these events."
    figure = "undefined" if found.acceptable_now is None else f"{found.acceptable_now:.3f}"
    kept = "is kept" if found.is_acceptable else "is NOT kept"
    acting = "" if card.threshold is None else f", of {found.acting:,} events above it"
    yield f"The acceptable error ({card.acceptable_error}) {kept}: {figure}{acting}."


def _features(found: Comparison) -> Iterator[str]:
    if not found.shifts:
        return
    material = [shift for shift in found.shifts if shift.is_material]
    if material:
        listed = "; ".join(f"{s.feature} ({s.distance:.2f}: {s.text})" for s in material)
        yield f"What the model sees moved against its training rows: {listed}."
    else:
        largest = found.shifts[0]
        yield (
            "What the model sees hardly moved against its training rows; most moved "
            f"{largest.feature} ({largest.distance:.2f} of 1: {largest.text})."
        )
    if found.unseen:
        listed = ", ".join(f"{c} ({f}, {rows} events)" for f, c, rows in found.unseen)
        yield f"New categories, which serving refuses: {listed}."


def _cause(card: Card, found: Comparison, brought_by: Sequence[str]) -> Iterator[str]:
    if calibration_moved(found):
        seen = found.now.promised - found.tested.promised
        whole = found.now.observed - found.tested.observed
        yield (
            f"Of the change of {_points(whole)}, what the model sees accounts for "
            f"{_points(seen)}: the rest is that events with the same features turn out otherwise, "
            f"or that {card.target} is recorded otherwise."
        )
        since = found.since
        if since is not None and card.trained.start.date() <= since.day < card.trained.end.date():
            yield (
                f"It began before training ended ({format_instant(card.trained.end)}): "
                f"{(since.day - card.trained.start.date()).days} of the "
                f"{(card.trained.end - card.trained.start).days} days trained on are from before."
            )
    yield from brought_by


def _affected(card: Card, found: Comparison, environment: str, receipts: Receipts) -> Iterator[str]:
    if not receipts.answered:
        yield f"Affected: readers of model {card.model} in {environment}; no receipt fits an event."
    else:
        right = (
            f", {receipts.acting} of them above {card.threshold:g} ({receipts.acting_right} of "
            f"those {card.target})"
            if card.threshold is not None
            else ""
        )
        odd = receipts.answered - receipts.agreeing
        same = (
            f"{odd} of them were asked with other features than the data has now"
            if odd
            else "all of them equal the score computed now"
        )
        yield (
            f"Affected: {receipts.answered} answers that {environment} gave about these events"
            f"{right}; {same}."
        )
    if receipts.unmatched:
        yield f"Answers about events that the data does not have: {receipts.unmatched}."
    if found.outside_period:
        yield (
            f"{found.outside_period:,} of {found.rows:,} events are outside the period for which "
            f"the model is intended ({card.intended})."
        )
    if found.unknown:
        yield f"{found.unknown:,} events have no {card.target}: counted, not scored."
    if found.left_out.before:
        yield (
            f"{found.left_out.before:,} rows are from before {format_instant(found.window.start)}, "
            "the end of what the model was trained on: no new events, left out."
        )
    if found.left_out.after:
        yield f"{found.left_out.after:,} rows are from after the watched time: left out."


def _decisions(
    card: Card, found: Comparison, environment: str, pipeline: str, has_version_before: bool
) -> Iterator[tuple[str, str]]:
    until = format_instant(found.window.end)
    past = (
        f": the events have passed {format_instant(card.intended.end)}, until when it is intended"
        if found.window.end > card.intended.end
        else ""
    )
    yield (
        f"Train again on data to {until}, then propose and release{past}",
        f"instep config set {pipeline} slice.to {until} && "
        f"instep run {pipeline} --branch {pipeline}-{until}",
    )
    if has_version_before:
        yield (
            "Go back to the version before",
            f"instep rollback {environment} --only model/{card.model} --why ...",
        )
    if found.window.end <= card.intended.end:
        yield (
            f"Keep it, intended until {format_instant(card.intended.end)}, and watch what is "
            "decided from the scores",
            f"instep watch {environment}",
        )


def _period(card: Card) -> str:
    return f"{format_instant(card.tested[0].start)} to {format_instant(card.tested[-1].end)}"


def _range(level: Level) -> str:
    if level.interval is None:
        return "too few days for an interval"
    return f"95 % interval {level.interval[0] * 100:+.1f} to {level.interval[1] * 100:+.1f}"


def _points(share: float) -> str:
    return f"{share * 100:+.1f} points"
