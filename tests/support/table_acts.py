"""Acts on a table of an id and a text, and the dictionary that says which rows they leave."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from hypothesis import strategies as st

Model = dict[int, str | None]

_KEYS = st.integers(0, 9)
_ROWS = st.dictionaries(_KEYS, st.sampled_from(["a", "b", None]), min_size=1, max_size=4)


@dataclass(frozen=True, slots=True)
class Append:
    """Those of the rows whose id is not there yet."""

    rows: Model


@dataclass(frozen=True, slots=True)
class Upsert:
    rows: Model


@dataclass(frozen=True, slots=True)
class Delete:
    """Rows from id `low` to `high`, with both."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Overwrite:
    """Rows from id `low` to before `high`, by one where there may be any."""

    low: int
    high: int


Act = Append | Upsert | Delete | Overwrite

ACTS: st.SearchStrategy[Act] = st.one_of(
    st.builds(Append, _ROWS),
    st.builds(Upsert, _ROWS),
    st.builds(Delete, _KEYS, _KEYS),
    st.builds(Overwrite, _KEYS, _KEYS),
)


def written(model: Model, act: Act) -> Model:
    """Does an act to the model, and returns the rows that it writes."""
    new: Model = {}
    gone = range(0)
    match act:
        case Append(rows):
            new = {key: text for key, text in rows.items() if key not in model}
        case Upsert(rows):
            new = rows
        case Delete(low, high):
            gone = range(low, high + 1)
        case Overwrite(low, high):
            gone = range(low, high)
            new = {low: "over"} if gone else {}
    for key in gone:
        model.pop(key, None)
    model.update(new)
    return new


def as_arrow(rows: Model, name: str, ids: pa.DataType) -> pa.Table:
    """Returns rows whose text is in column `name`."""
    texts = pa.array(list(rows.values()), pa.string())
    return pa.table({"id": pa.array(list(rows), ids), name: texts})
