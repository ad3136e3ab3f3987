"""What one property of a contract promises: its type, its bounds, its values.

`required: true` means never null, and a primary key is required.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal, InvalidOperation

from instep.clock import parse_instant
from instep.contracts.faults import Faults
from instep.contracts.layout import TRANSFORM
from instep.contracts.odcs import Custom, Options, Property, Quality, Scalar
from instep.contracts.terms import (
    Bound,
    ColumnTerm,
    Metric,
)
from instep.documents import Place
from instep.engines.schema import PRIMITIVE_TYPES, sql_type_of
from instep.errors import InvalidError

_TYPES = {
    "string": "string",
    "date": "date",
    "timestamp": "timestamptz",
    "time": "time",
    "number": "double",
    "integer": "long",
    "boolean": "boolean",
}
"""The Iceberg type that a logical type means when no physical type is given."""


_NESTED = {"object": "properties", "array": "items"}
"""The logical types that hold others, and the key that says which."""


_NUMBERS = ("int", "long", "float", "double", "decimal")


_TIMES = ("date", "time", "timestamp", "timestamptz")


_FITTING: dict[str, tuple[str, ...]] = {
    "string": ("string", "uuid"),
    "date": ("date",),
    "timestamp": ("timestamp", "timestamptz"),
    "time": ("time",),
    "number": _NUMBERS,
    "integer": ("int", "long"),
    "boolean": ("boolean",),
}


_SQL_NAMES = {sql: iceberg for iceberg, sql in PRIMITIVE_TYPES.items()}


def column_of(part: Property, place: Place, faults: Faults) -> ColumnTerm:
    """Returns the terms of one property; what is wrong with it goes to `faults`."""
    if part.logicalType in _NESTED:
        return _nested_column(part, place, faults)
    options = part.logicalTypeOptions
    inside = (*place, "logicalTypeOptions")
    _refuse_property(part, place, faults)
    for option in ("items", "properties"):
        if getattr(part, option) is not None:
            faults.add(
                (*place, option),
                f'"{option}" stands at a column of type {part.logicalType}: expected it at an '
                "object (properties) or an array (items). Remove it.",
            )
    type_ = _type(part, place, faults)
    own = own_properties(
        part.customProperties, ("unit", TRANSFORM), (*place, "customProperties"), faults
    )
    values: tuple[str, ...] = ()
    pattern = options.pattern
    for index, quality in enumerate(part.quality):
        if is_row_level(quality):
            where = (*place, "quality", index)
            refuse_quality(quality, where, faults)
            values = tuple(
                _text(value, type_, (*where, "validValues"), faults) for value in valid(quality)
            )
            pattern = (quality.arguments.pattern if quality.arguments else None) or pattern
            if not values and not (quality.arguments and quality.arguments.pattern):
                faults.add(
                    where,
                    '"invalidValues" says not which values are valid: expected validValues or a '
                    "pattern under arguments. Add one.",
                )
    fault = _pattern_fault(pattern)
    if fault:
        faults.add((*inside, "pattern"), fault)
    if pattern is not None and type_ != "string":
        faults.add(
            (*inside, "pattern"),
            f'"pattern" stands at a column of type {type_}: expected a string column. Remove it.',
        )
    if (options.minLength is not None or options.maxLength is not None) and type_ != "string":
        faults.add(
            inside,
            f"a length stands at a column of type {type_}: expected a string column. Remove it.",
        )
    return ColumnTerm(
        name=part.name,
        type=type_,
        required=part.required or part.primaryKey,
        minimum=_bound(options, "minimum", "exclusiveMinimum", type_, inside, faults),
        maximum=_bound(options, "maximum", "exclusiveMaximum", type_, inside, faults),
        shortest=options.minLength,
        longest=options.maxLength,
        pattern=pattern,
        values=values,
        unit=str(own.get("unit") or ""),
        description=part.description,
    )


def _nested_column(part: Property, place: Place, faults: Faults) -> ColumnTerm:
    """Returns the terms of an object or an array: its fields, and that they are not null.

    A term that is not checked within is refused.
    """
    _refuse_nested(part, place, faults)
    _refuse_property(part, place, faults)
    children: tuple[ColumnTerm, ...] = ()
    if part.logicalType == "array":
        if part.items is not None:
            inner = part.items.model_copy(update={"name": "element"})
            children = (_within(inner, (*place, "items"), faults),)
    else:
        fields = part.properties or []
        children = tuple(
            _within(one, (*place, "properties", index), faults) for index, one in enumerate(fields)
        )
        names = [one.name.lower() for one in children]
        for index, name in enumerate(names):
            if name in names[:index]:
                faults.add(
                    (*place, "properties", index, "name"),
                    f'field "{name}" stands twice: expected names that differ, ignoring case. '
                    "Remove one.",
                )
    wanted = _NESTED[part.logicalType]
    if not children:
        faults.add(
            place,
            f'"{part.name}" of type {part.logicalType} says not what is in it: expected '
            f'"{wanted}". Add it.',
        )
        return ColumnTerm(part.name, "string")
    return ColumnTerm(
        name=part.name,
        type="list" if part.logicalType == "array" else "struct",
        required=part.required or part.primaryKey,
        description=part.description,
        children=children,
    )


def _within(part: Property, place: Place, faults: Faults) -> ColumnTerm:
    """Returns the terms of a field within a nested column."""
    if part.logicalType not in _NESTED:
        _refuse_nested(part, place, faults)
    return column_of(part, place, faults)


def _refuse_nested(part: Property, place: Place, faults: Faults) -> None:
    """Refuses what only a column that is not nested can promise."""
    mend = 'Expected "required" as the only term of a nested field. Remove it.'
    given = [
        name
        for name in ("primaryKey", "partitioned", "quality", "customProperties")
        if getattr(part, name)
    ]
    options = part.logicalTypeOptions.model_dump(exclude_none=True)
    given += ["logicalTypeOptions"] if options.keys() - {"timezone", "defaultTimezone"} else []
    for name in given:
        faults.refuse(place, name, mend)


def _pattern_fault(pattern: str | None) -> str | None:
    """Says what is wrong with a regular expression; RE2, which runs it, looks neither around nor
    back."""
    if pattern is None:
        return None
    if re.search(r"\(\?(?:[=!]|<[=!])|\\[1-9]", pattern):
        return (
            f'pattern "{pattern}" looks around or back, which is not supported: expected RE2 '
            "syntax. Write it without."
        )
    try:
        re.compile(pattern)
    except re.error as error:
        return f'pattern "{pattern}" is no regular expression: {error}. Correct it.'
    return None


def _refuse_property(part: Property, place: Place, faults: Faults) -> None:
    options = part.logicalTypeOptions
    inside = (*place, "logicalTypeOptions")
    for option in (
        "format", "multipleOf", "minItems", "maxItems", "uniqueItems", "minProperties",
        "maxProperties", "required",
    ):  # fmt: skip
        if getattr(options, option) is not None:
            faults.refuse(inside, option, "Remove it, or say it as a pattern or a range.")
    if options.defaultTimezone not in (None, "UTC", "Etc/UTC"):
        faults.refuse(inside, "defaultTimezone", 'Times without a zone are UTC: write "UTC".')
    if options.timezone is not None and part.logicalType != "timestamp":
        faults.add(inside, '"timezone" belongs to a timestamp column only. Remove it.')
    if part.unique:
        faults.refuse(place, "unique", "Use primaryKey, or a duplicateValues term.")
    if part.relationships is not None:
        faults.refuse(place, "relationships", "Remove it.")
    if part.physicalName not in (None, part.name):
        faults.add(
            (*place, "physicalName"),
            f'"physicalName" is "{part.physicalName}": expected the name "{part.name}", since a '
            "source's own names are mapped by `instep accept --rename`. Remove it.",
        )


def _type(part: Property, place: Place, faults: Faults) -> str:
    if part.physicalType is None:
        zoned = part.logicalTypeOptions.timezone
        return "timestamp" if zoned is False else _TYPES[part.logicalType]
    text = part.physicalType.strip()
    type_ = _SQL_NAMES.get(text.upper(), text.lower().replace(" ", ""))
    try:
        sql_type_of(type_)
    except InvalidError as error:
        faults.add((*place, "physicalType"), error.message)
        return _TYPES[part.logicalType]
    family = type_.partition("(")[0]
    if family not in _FITTING[part.logicalType]:
        faults.add(
            (*place, "physicalType"),
            f'physical type "{part.physicalType}" does not hold the logical type '
            f'"{part.logicalType}": expected one of {", ".join(_FITTING[part.logicalType])}. '
            "Correct one of the two.",
        )
    return type_


def _bound(
    options: Options, closed: str, opened: str, type_: str, place: Place, faults: Faults
) -> Bound | None:
    inclusive, exclusive = getattr(options, closed), getattr(options, opened)
    if inclusive is not None and exclusive is not None:
        faults.add(
            (*place, opened), f'"{closed}" and "{opened}" stand together: expected one of them.'
        )
    option = closed if inclusive is not None else opened
    value = inclusive if inclusive is not None else exclusive
    if value is None:
        return None
    family = type_.partition("(")[0]
    if family not in _NUMBERS and family not in _TIMES:
        faults.add(
            (*place, option),
            f'"{option}" stands at a column of type {type_}: expected a number or a time. '
            "Remove it.",
        )
        return None
    return Bound(_text(value, type_, (*place, option), faults), exclusive=option == opened)


def _text(value: Scalar, type_: str, place: Place, faults: Faults) -> str:
    """Returns `value` as text that casts to `type_`; a value that does not is a fault."""
    family = type_.partition("(")[0]
    readers: dict[str, Callable[[Scalar], str]] = {
        "string": str,
        "uuid": str,
        "boolean": lambda given: str(bool(given)).lower() if isinstance(given, bool) else "",
        "int": _whole,
        "long": _whole,
        "date": lambda given: parse_instant(_temporal(given)).date().isoformat(),
        "timestamp": lambda given: (
            parse_instant(_temporal(given)).replace(tzinfo=None).isoformat(sep=" ")
        ),
        "timestamptz": lambda given: parse_instant(_temporal(given)).isoformat(sep=" "),
        "time": str,
    }
    try:
        text = readers.get(family, _number)(value)
    except (InvalidError, InvalidOperation, ValueError, TypeError):
        text = ""
    if not text and value != "":
        faults.add(
            place, f"value {value!r} does not fit type {type_}: expected one of it. Correct it."
        )
    return text


def _whole(value: Scalar) -> str:
    number = Decimal(str(value))
    return f"{number:.0f}" if number == number.to_integral_value() else ""


def _number(value: Scalar) -> str:
    if isinstance(value, bool):
        raise TypeError
    number = Decimal(str(value))
    return f"{number:f}" if number.is_finite() else ""


def _temporal(value: Scalar) -> str | date | datetime:
    if isinstance(value, str | date | datetime):
        return value
    raise TypeError


def is_row_level(quality: Quality) -> bool:
    """Tells whether no single row may break the term, so that rows rather than batches do."""
    return (
        quality.type == "library" and quality.metric == Metric.INVALID.value and quality.mustBe == 0
    )


def valid(quality: Quality) -> Sequence[Scalar]:
    """Returns the values that a term allows, wherever it names them."""
    return (quality.arguments.validValues if quality.arguments else None) or (
        quality.validValues or ()
    )


def refuse_quality(quality: Quality, place: Place, faults: Faults) -> None:
    """Records what a term promises beyond what is checked."""
    for option in ("schedule", "scheduler"):
        if getattr(quality, option) is not None:
            faults.refuse(place, option, "Remove it: terms are checked when data arrives.")
    if quality.severity not in (None, "error"):
        faults.refuse(place, "severity", 'Every term holds its rows or batch: write "error".')


Own = dict[str, Scalar | list[Scalar] | None]


def own_properties(
    customs: Sequence[Custom], known: tuple[str, ...], place: Place, faults: Faults
) -> Own:
    found: Own = {}
    for index, custom in enumerate(customs):
        if custom.property in known:
            found[custom.property] = custom.value
            continue
        near = difflib.get_close_matches(custom.property, known, n=1, cutoff=0.5)
        mend = f'Did you mean "{near[0]}"?' if near else "Remove it, or move it to the top."
        faults.add(
            (*place, index, "property"),
            f'key "{custom.property}" is not known: expected one of {", ".join(known)}. {mend}',
            "unknown-key",
        )
    return found
