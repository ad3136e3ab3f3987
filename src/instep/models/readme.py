"""The card of a model as a page for a human, and its scores as a small table."""

from __future__ import annotations

from collections.abc import Sequence

from instep.clock import format_instant
from instep.models.card import Card
from instep.models.choice import CandidateScores
from instep.models.signature import Feature, Signature
from instep.models.spec import AcceptableError, Metric

_SHOWN = 8
"""Categories of a feature that the page lists before it only counts the rest."""


def render_card(card: Card, signature: Signature) -> str:
    """Returns the README of a bundle, in Markdown."""
    counts = card.counts
    share = counts.positives / counts.trained
    lines = [
        f"# Model {card.model}",
        "",
        f"Predicts the probability of `{card.target}`. Made {format_instant(card.made_at)} by "
        f"{card.run}; digest {card.digest[:12]}.",
        "",
        f"- Trained on events {card.trained}: {counts.trained:,} rows, {share:.1%} of them "
        f"`{card.target}`.",
        f"- Tested on {len(card.tested)} windows, {format_instant(card.tested[0].start)} to "
        f"{format_instant(card.tested[-1].end)}; the incomplete window {card.dropped} was dropped.",
        f"- Intended for events {card.intended}.",
        f"- {counts.unknown:,} of {counts.rows:,} rows have no `{card.target}`: counted, neither "
        "trained on nor scored.",
        f"- Acceptable error: {card.acceptable_error}. {card.acceptable_error.why}",
        f"- Chosen: {card.verdict}" if card.choice.beats_constant else f"- {card.verdict}",
        "",
        "## Scores per window",
        "",
        *score_table(card.candidates, card.metric, card.acceptable_error),
        "",
        "## Features",
        "",
        *(f"- `{feature.name}`: {_feature(feature)}" for feature in signature.features),
        "",
        "## Without Instep",
        "",
        "```python",
        "import skops.io, yaml",
        'trusted = yaml.safe_load(open("MLmodel"))["flavors"]["sklearn"]["skops_trusted_types"]',
        'model = skops.io.load("model.skops", trusted=trusted)',
        f"model.predict_proba(rows)[:, 1]  # columns in this order: {', '.join(signature.names)}",
        "```",
        "",
    ]
    return "\n".join(lines)


def score_table(
    candidates: Sequence[CandidateScores], metric: Metric, acceptable: AcceptableError
) -> list[str]:
    """Returns the lines of a table: one row per test window, two columns per candidate.

    The first of the two is the metric of the choice; the second that of the acceptable error, with
    a cross where it was not kept.
    """
    head = ["test window", "rows", "share"]
    for scores in candidates:
        head += [f"{scores.name} {metric}", f"{scores.name} {acceptable.metric}"]
    rows = [head]
    for place, window in enumerate(candidates[0].windows):
        share = f"{window.positives / window.tested:.1%}" if window.tested else "-"
        row = [str(window.fold.test), str(window.tested), share]
        for scores in candidates:
            here = scores.windows[place]
            row += [
                _figure(here.metric),
                _figure(here.acceptable) + ("" if here.is_acceptable else " ✗"),
            ]
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _feature(feature: Feature) -> str:
    missing = ", may be missing" if feature.has_missing else ""
    match feature.type:
        case "category":
            shown = ", ".join(feature.categories[:_SHOWN])
            rest = len(feature.categories) - _SHOWN
            return f"one of {shown}{f' and {rest} more' if rest > 0 else ''}{missing}"
        case "number" if feature.minimum is not None and feature.maximum is not None:
            return f"{feature.minimum:g} to {feature.maximum:g}{missing}"
        case _:
            return f"{feature.type}{missing}"
