"""How a comparison of two commits is shown: by key, in sentences, with scores as small tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from instep.canonical import Json
from instep.changes.evidence import Comparison
from instep.changes.key_evidence import KeyEvidence
from instep.cli.output import table

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def comparison_text(comparison: Comparison) -> str:
    """Returns the differences by key."""
    lines = [line for key in comparison.keys for line in _key_lines(key)]
    lines.extend(f"  {finding.severity}: {finding.message}" for finding in comparison.findings)
    return "\n".join(lines) or "  nothing differs"


def comparison_of(evidence: Mapping[str, Json]) -> Comparison:
    """Returns the comparison that was recorded with a change, without its findings' evidence."""
    keys = evidence.get("keys")
    return Comparison(
        before=str(evidence.get("before", "")),
        after=str(evidence.get("after", "")),
        keys=tuple(_key(item) for item in _list(keys) if isinstance(item, Mapping)),
    )


def _key(item: Mapping[str, Json]) -> KeyEvidence:
    facts = item.get("facts")
    return KeyEvidence(
        key=str(item["key"]),
        act=str(item["act"]),
        sentences=tuple(str(sentence) for sentence in _list(item.get("sentences"))),
        facts=facts if isinstance(facts, Mapping) else {},
    )


def _key_lines(key: KeyEvidence) -> list[str]:
    lines = [f"  {_SIGNS.get(key.act, ' ')} {key.key}"]
    lines.extend(f"      {sentence}" for sentence in key.sentences)
    card = key.facts.get("card")
    if isinstance(card, Mapping):
        lines.append(scores_text(card))
    sample = _list(key.facts.get("sample"))
    if sample:
        lines.extend(f"      {_row(row)}" for row in sample[:3] if isinstance(row, Mapping))
    return lines


def scores_text(card: Mapping[str, Json], indent: str = "      ") -> str:
    """Returns a model card's scores: a row per test window, two columns per candidate."""
    candidates = [one for one in _list(card.get("candidates")) if isinstance(one, Mapping)]
    choice = card.get("choice")
    chosen = choice.get("candidate") if isinstance(choice, Mapping) else None
    header = ["test window"]
    for candidate in candidates:
        mark = "*" if candidate.get("name") == chosen else ""
        header += [f"{candidate.get('name')}{mark}", "accept"]
    columns = [_list(candidate.get("windows")) for candidate in candidates]
    rows = [
        [_window(windows[0]), *(cell for window in windows for cell in _cells(window))]
        for windows in zip(*columns, strict=True)
    ]
    metric = card.get("metric")
    return (
        f"{indent}{metric} per test window, and the figure of the acceptable error; * is chosen\n"
        + table(rows, header, indent + "  ")
    )


def _cells(window: Json) -> tuple[str, str]:
    if not isinstance(window, Mapping):
        return "?", "?"
    met = "" if window.get("is_acceptable") else " no"
    return _figure(window.get("metric")), _figure(window.get("acceptable")) + met


def _window(window: Json) -> str:
    test = window.get("test") if isinstance(window, Mapping) else None
    return f"{test['from']} to {test['to']}" if isinstance(test, Mapping) else "?"


def _figure(value: Json) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "undefined"


def _row(row: Mapping[str, Json]) -> str:
    return ", ".join(f"{name}={value}" for name, value in row.items())


def _list(value: Json) -> Sequence[Json]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()
