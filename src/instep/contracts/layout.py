"""Which partition and which sort order does a contract give the files of its table?

ODCS says of a property that it is `partitioned`, and its `partitionKeyPosition`. Of the transform,
`partitionTransform` of the property, and of the order, `sortOrder` of the table, it knows nothing,
so they stand in `customProperties`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from instep.contracts.faults import Faults, no_such_column
from instep.contracts.odcs import Property, Scalar
from instep.contracts.terms import ColumnTerm
from instep.documents import Place
from instep.engines.schema import Schema
from instep.errors import InvalidError
from instep.tables.partition import Order, Part, make_spec

TRANSFORM = "partitionTransform"
SORT = "sortOrder"

_ORDER = re.compile(r"(.+?)(?:\s+(asc|desc))?(?:\s+nulls\s+(first|last))?", re.IGNORECASE)

_UNSET = -1
"""What ODCS itself writes for a position that is not given."""


def partition_of(
    properties: Sequence[Property], columns: Sequence[ColumnTerm], place: Place, faults: Faults
) -> tuple[Part, ...]:
    """Returns the partition that properties give; what is wrong with it goes to `faults`.

    Those with a position come first, by it; then the others as they stand.
    """
    schema = Schema(
        tuple(replace(one.as_column(), id=number) for number, one in enumerate(columns, 1))
    )
    found: list[tuple[float, int, Part]] = []
    for index, part in enumerate(properties):
        where = (*place, index)
        if not part.partitioned:
            _refuse_rest(part, where, faults)
            continue
        asked = Part(part.name, _transform(part))
        given = part.partitionKeyPosition
        position = math.inf if given is None or given == _UNSET else given
        if given == position and position in [one for one, _, _ in found]:
            faults.add(
                (*where, "partitionKeyPosition"),
                f"partitionKeyPosition {given} stands twice: expected each position once. "
                "Correct one.",
            )
        try:
            make_spec(0, [asked], schema, ())
        except InvalidError as error:
            faults.add(where, error.message)
        found.append((position, index, asked))
    return tuple(asked for _, _, asked in sorted(found, key=lambda one: one[:2]))


def sort_of(
    value: Scalar | list[Scalar] | None,
    columns: Sequence[ColumnTerm],
    place: Place,
    faults: Faults,
) -> tuple[Order, ...]:
    """Returns a sort order such as `[station, at desc nulls first]`.

    Nulls come first when it rises and last when it falls, as Iceberg has it.
    """
    listed = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(_orders([str(one) for one in listed], columns, place, faults))


def _orders(
    listed: Sequence[str], columns: Sequence[ColumnTerm], place: Place, faults: Faults
) -> Iterator[Order]:
    seen: set[str] = set()
    for text in listed:
        found = _ORDER.fullmatch(text.strip())
        name = found[1] if found else text
        column = next((one for one in columns if one.name.lower() == name.lower()), None)
        if found is None or column is None:
            faults.add(place, no_such_column(name, [one.name for one in columns]))
        elif column.children:
            faults.add(
                place,
                f'"{SORT}" names "{name}", a column of type {column.type}: expected a column that '
                "is not nested. Name another.",
            )
        elif column.name in seen:
            faults.add(place, f'"{SORT}" names "{name}" twice: expected it once. Remove one.')
        else:
            seen.add(column.name)
            is_descending = (found[2] or "").lower() == "desc"
            nulls_first = found[3].lower() == "first" if found[3] else not is_descending
            yield Order(column.name, is_descending, nulls_first)


def _transform(part: Property) -> str:
    given = next((one.value for one in part.customProperties if one.property == TRANSFORM), None)
    return "identity" if given is None else str(given)


def _refuse_rest(part: Property, place: Place, faults: Faults) -> None:
    names = [] if part.partitionKeyPosition in (None, _UNSET) else ["partitionKeyPosition"]
    names += [TRANSFORM for one in part.customProperties if one.property == TRANSFORM]
    for name in names:
        faults.add(
            place,
            f'"{name}" stands at "{part.name}", which does not partition the table: expected '
            "partitioned: true beside it. Add that, or remove it.",
        )
