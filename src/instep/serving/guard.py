"""Whether a model may answer a question, decided before it is asked.

Pure. A guard is made once per model version from its signature, the contracts of the tables its
features came from, and its card; then each question is admitted, perhaps with flags, or refused for
every reason that holds. Refused: an unknown or missing feature, a wrong type of it or of a key
field, a category that training never saw, a value that breaks a contract, and, when the card says
so, a value outside the training range or an event time outside the period the model is intended
for. Flagged: other values and times outside of these, a missing value where training had some.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import TYPE_CHECKING
from uuid import UUID

from instep.canonical import Json
from instep.clock import Window, format_instant, parse_instant
from instep.contracts.terms import Bound, ColumnTerm
from instep.errors import InvalidError
from instep.serving.records import Question, Reason, Refused

if TYPE_CHECKING:
    from instep.models.signature import Feature

Plain = bool | int | float | str

_SHOWN = 6
"""How many of the seen categories a message shows; the whole list is in GET /models."""

_WHOLE_TYPES = frozenset({"int", "long"})


@dataclass(frozen=True, slots=True)
class Term:
    """What the contract of `table` says of the column that a feature is."""

    table: str
    column: ColumnTerm


@dataclass(frozen=True, slots=True)
class Rule:
    """What one feature may be: as training saw it, and as contracts promise it."""

    feature: Feature
    terms: tuple[Term, ...] = ()


@dataclass(frozen=True, slots=True)
class Guard:
    """The rules of one model version, in the order of its features."""

    rules: tuple[Rule, ...]
    key: tuple[str, ...] = ()
    key_types: Mapping[str, str] = field(default_factory=dict)
    """The Iceberg types of key fields; what is not known is not held."""
    intended: Window | None = None
    refuses_outside: bool = False
    refuses_outside_period: bool = False


@dataclass(frozen=True, slots=True)
class Admitted:
    """The values to predict from, in the order of the rules, and what to say about them."""

    row: tuple[Plain | None, ...]
    flags: tuple[str, ...]


def check(guard: Guard, question: Question) -> Admitted | Refused:
    """Returns the row that the model may be asked, or every reason why it may not."""
    reasons = [*_unknown(guard, question), *_key_faults(guard, question)]
    flags: list[str] = []
    row: list[Plain | None] = []
    for rule in guard.rules:
        feature = rule.feature
        value = question.features.get(feature.name)
        read = _read(feature.type, value)
        row.append(read)
        if value is None:
            if feature.has_missing:
                flags.append(f"{feature.name} missing: answered without it")
            else:
                reasons.append(_missing(feature))
        elif read is None:
            reasons.append(_wrong_type(feature, value))
        elif broken := [*_broken_terms(rule, read)]:
            reasons.extend(broken)
        elif _is_unseen(feature, read):
            reasons.append(_unseen(feature, read))
        elif _is_outside(feature, read):
            if guard.refuses_outside:
                reasons.append(_outside(feature, read))
            else:
                flags.append(f"{feature.name} outside training range {_range(feature)}: {read}")
    if guard.intended is not None and question.event_at not in guard.intended:
        if guard.refuses_outside_period:
            reasons.append(_outside_period(guard.intended, question.event_at))
        else:
            flags.append(
                f"time {format_instant(question.event_at)} outside the period the model is "
                f"intended for: {guard.intended}"
            )
    if reasons:
        return Refused(tuple(reasons))
    return Admitted(tuple(row), tuple(flags))


def _read(type_: str, value: Json) -> Plain | None:
    """Returns `value` where it is of the feature's type, else None."""
    if type_ == "boolean":
        return value if isinstance(value, bool) else None
    if type_ == "category":
        return value if isinstance(value, str) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if isfinite(value) else None
    except OverflowError:
        return None


def _unknown(guard: Guard, question: Question) -> Iterator[Reason]:
    known = [rule.feature.name for rule in guard.rules]
    for name in question.features:
        if name not in known:
            yield Reason(
                "unknown-feature",
                name,
                f'Feature "{name}" is not one of the model: expected {", ".join(known)}. '
                + _nearest(name, known, "Remove it."),
            )


def _key_faults(guard: Guard, question: Question) -> Iterator[Reason]:
    for name in guard.key:
        value, type_ = question.key.get(name), guard.key_types.get(name, "")
        if value is None:
            yield Reason(
                "missing-key",
                name,
                f'Key field "{name}" is missing: expected {", ".join(guard.key)}. Send it, so that '
                "the outcome can be joined later.",
            )
        elif not _is_of(type_, value):
            yield Reason(
                "wrong-key-type",
                name,
                f'Key field "{name}" is {_shown(value)}: expected a value of type {type_}, as in '
                f"the table, so that the outcome can be joined later. {_mend(type_, value)}",
            )


def _is_of(type_: str, value: Json) -> bool:
    """Says whether a key's value is what a column of this Iceberg type holds, nothing coerced.

    What is a text in JSON has the one spelling by which its row is found; an instant may have any.
    """
    kind, _, sizes = type_.partition("(")
    match kind:
        case "int" | "long":
            bits = 31 if kind == "int" else 63
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            return is_whole and -(2**bits) <= value < 2**bits
        case "float" | "double":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "decimal":
            scale = int(sizes.rstrip(") ").rpartition(",")[2])
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return is_number and _places(str(value)) <= scale
        case "boolean":
            return isinstance(value, bool)
        case "timestamp" | "timestamptz":
            return isinstance(value, str) and _instant(value) is not None
        case "date" | "time" | "uuid":
            return isinstance(value, str) and _is_spelled(kind, value)
        case "string":
            return isinstance(value, str)
        case _:
            return not kind  # what is not known is not held; no JSON value is a row of the others


_SPELLED: Mapping[str, Callable[[str], object]] = {
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "uuid": UUID,
}
_EXAMPLES = {
    "date": "2024-03-01",
    "time": "10:30:00",
    "uuid": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "timestamp": "2024-03-01T10:30:00",
    "timestamptz": "2024-03-01T10:30:00Z",
}


def _is_spelled(kind: str, text: str) -> bool:
    try:
        return str(_SPELLED[kind](text)) == text
    except ValueError:
        return False


def _places(number: str) -> int:
    """Returns the digits after the decimal point."""
    exponent = Decimal(number).normalize().as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def _mend(type_: str, value: Json) -> str:
    if type_ == "date" and isinstance(value, str) and _instant(value) is not None:
        return f'Write it as "{value[:10]}".'  # its own day, in whatever zone
    example = _EXAMPLES.get(type_)
    return f'Write it in the form "{example}".' if example else "Correct the value."


def _instant(text: str) -> datetime | None:
    try:
        return parse_instant(text)
    except InvalidError:
        return None


def _missing(feature: Feature) -> Reason:
    return Reason(
        "missing-feature",
        feature.name,
        f'Feature "{feature.name}" is missing: expected {_kind(feature)}, since training always '
        "had one. Send it.",
    )


def _wrong_type(feature: Feature, value: Json) -> Reason:
    return Reason(
        "wrong-type",
        feature.name,
        f'Feature "{feature.name}" is {_shown(value)}: expected {_kind(feature)}. Correct the '
        "value.",
    )


def _is_unseen(feature: Feature, value: Plain) -> bool:
    return feature.type == "category" and value not in feature.categories


def _unseen(feature: Feature, value: Plain) -> Reason:
    seen = feature.categories
    few = ", ".join(seen[:_SHOWN]) + (f" and {len(seen) - _SHOWN} more" if seen[_SHOWN:] else "")
    return Reason(
        "unseen-category",
        feature.name,
        f'Feature "{feature.name}" is {_shown(value)}, which training never saw: expected one of '
        f"{few}. " + _nearest(str(value), seen, "Decide this one without the model."),
    )


def _is_outside(feature: Feature, value: Plain) -> bool:
    if feature.minimum is None or feature.maximum is None or isinstance(value, (str, bool)):
        return False
    return not feature.minimum <= value <= feature.maximum


def _outside(feature: Feature, value: Plain) -> Reason:
    return Reason(
        "outside-training-range",
        feature.name,
        f'Feature "{feature.name}" is {_shown(value)}, outside the training range '
        f"{_range(feature)}, and the model says outside: refuse. Decide this one without the "
        "model.",
    )


def _outside_period(intended: Window, at: datetime) -> Reason:
    return Reason(
        "outside-intended-period",
        "time",
        f"The event is at {format_instant(at)}, outside the period the model is intended for "
        f"({intended}), and the model says outside_period: refuse. Decide this one without the "
        "model, or train it again on newer data.",
    )


def _broken_terms(rule: Rule, value: Plain) -> Iterator[Reason]:
    for term in rule.terms:
        for promise in broken_promises(term.column, value):
            yield Reason(
                "breaks-contract",
                rule.feature.name,
                f'Feature "{rule.feature.name}" is {_shown(value)}: the contract of {term.table} '
                f"says that it {promise}. Correct the value.",
            )


def broken_promises(column: ColumnTerm, value: Plain) -> Iterator[str]:
    """Yields, in words, each promise of a column that a present value breaks."""
    if column.type in _WHOLE_TYPES and isinstance(value, float) and not value.is_integer():
        yield "is a whole number"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if column.minimum is not None and not _is_above(value, column.minimum):
            yield f"is {'above' if column.minimum.exclusive else 'at least'} {column.minimum.value}"
        if column.maximum is not None and not _is_below(value, column.maximum):
            yield f"is {'below' if column.maximum.exclusive else 'at most'} {column.maximum.value}"
    if isinstance(value, str):
        if column.shortest is not None and len(value) < column.shortest:
            yield f"has at least {column.shortest} characters"
        if column.longest is not None and len(value) > column.longest:
            yield f"has at most {column.longest} characters"
        if column.pattern is not None and not re.search(column.pattern, value):
            yield f"matches {column.pattern}"
    if column.values and not _is_one_of(value, column.values):
        yield f"is one of {', '.join(column.values)}"


def _is_above(value: int | float, bound: Bound) -> bool:
    limit = _decimal(bound.value)
    return limit is None or value > limit or (value == limit and not bound.exclusive)


def _is_below(value: int | float, bound: Bound) -> bool:
    limit = _decimal(bound.value)
    return limit is None or value < limit or (value == limit and not bound.exclusive)


def _is_one_of(value: Plain, allowed: Sequence[str]) -> bool:
    if isinstance(value, (str, bool)):
        return str(value) in allowed
    return any(value == _decimal(text) for text in allowed)


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _nearest(name: str, known: Sequence[str], otherwise: str) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f'Did you mean "{near[0]}"?' if near else otherwise


def _range(feature: Feature) -> str:
    return f"{feature.minimum:g}..{feature.maximum:g}"


def _kind(feature: Feature) -> str:
    match feature.type:
        case "boolean":
            return "true or false"
        case "category":
            return "a text"
        case _:
            return "a finite number"


def _shown(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)
