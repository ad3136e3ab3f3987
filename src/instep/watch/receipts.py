"""What consumers were told about events whose outcome is known now, joined by the model's key."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from math import isfinite
from typing import Any

import numpy as np
import pyarrow as pa

from instep.canonical import Json
from instep.clock import Window, parse_instant
from instep.errors import InvalidError
from instep.models.card import Card
from instep.serving.records import Predicted, PredictionRecord
from instep.watch.alert import Receipts
from instep.watch.comparison import Scored

_SAME = 1e-9
"""How far an answer may be from the score computed now: batches sum in the same order."""

Key = tuple[str, ...]


def join_receipts(
    records: Iterable[PredictionRecord],
    card: Card,
    environment: str,
    digest: str,
    window: Window,
    scored: Scored,
) -> Receipts:
    """Returns how many answers of this model version were about events of `window`, and how good.

    The last answer about an event counts; refusals were no answers.
    """
    answers: dict[Key, float] = {}
    for record in records:
        source, outcome = record.source, record.outcome
        if (
            source.environment == environment
            and source.model == card.model
            and source.digest == digest
            and isinstance(outcome, Predicted)
            and record.question.event_at in window
        ):
            key = _asked(record.question.key, card.key, scored.table.schema)
            answers[key] = float(outcome.value)
    rows = _rows(scored.table, card.key, answers)
    agreeing = acting = right = 0
    for key, place in rows.items():
        agreeing += bool(abs(answers[key] - scored.scores[place]) <= _SAME)
        if card.threshold is not None and answers[key] >= card.threshold:
            acting += 1
            right += bool(scored.has_outcome[place] and scored.observed[place])
    return Receipts(len(rows), agreeing, acting, right, len(answers) - len(rows))


def _rows(table: pa.Table, key: tuple[str, ...], wanted: dict[Key, float]) -> dict[Key, int]:
    """Returns the row of each wanted key that the table has."""
    if not wanted:
        return {}
    columns = [table[name].to_pylist() for name in key]
    found: dict[Key, int] = {}
    for place, values in enumerate(zip(*columns, strict=True)):
        one = tuple(_text(value) for value in values)
        if one in wanted:
            found[one] = place
    return found


def _asked(key: Any, names: tuple[str, ...], schema: pa.Schema) -> Key:  # a mapping as it was sent
    return tuple(_sent(key.get(name), schema.field(name).type) for name in names)


def _sent(value: Json, kind: pa.DataType) -> str:
    if pa.types.is_float32(kind) and isinstance(value, int | float):
        return _text(np.float32(value))
    if pa.types.is_timestamp(kind) and isinstance(value, str):
        try:
            return _text(parse_instant(value))
        except InvalidError:
            return value
    return _text(value)


def _text(value: object) -> str:
    """Returns a key's value as text that is the same for equal values: 1 and 1.0, two spellings."""
    match value:
        case datetime():
            return parse_instant(value).isoformat()
        case bool():
            return str(value)
        case int() | float() | Decimal() if isfinite(value):
            return format(Decimal(str(value)).normalize(), "f")
        case np.generic():
            return _text(value.item())
        case _:
            return str(value)
