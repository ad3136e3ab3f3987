"""Reads a contract: an ODCS v3.1 document, strictly.

A key that ODCS does not have is an error with its place and the nearest known key. A key of ODCS
that only describes is accepted; one that promises a check which is not run is refused, so that a
contract never says more than what is checked. What ODCS has no word for stands in
`customProperties`: of a schema object `eventTime`, `mergePolicy`, `maxQuarantined`; of a property
`unit`; of a server `nullMarker`, `encoding`.

ODCS leaves three meanings open; here `required: true` means never null, `mustBeBetween` includes
both its ends, and a primary key is required.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from instep.clock import parse_instant
from instep.contracts.terms import (
    BatchTerm,
    Bound,
    ColumnTerm,
    Contract,
    Format,
    MergePolicy,
    Metric,
    Operator,
    Source,
)
from instep.documents import Place, load_yaml, position, read_document
from instep.engines.schema import PRIMITIVE_TYPES, sql_type_of
from instep.errors import InvalidError

__all__ = ["Contract", "parse"]

Scalar = bool | int | float | str | datetime | date
Descriptive = object
"""The type of a key that is accepted and only read by people."""

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


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Custom(_Shape):
    property: str
    value: Scalar | list[Scalar] | None = None
    id: Descriptive = None
    description: Descriptive = None


class _Description(_Shape):
    purpose: str = ""
    limitations: Descriptive = None
    usage: Descriptive = None
    authoritativeDefinitions: Descriptive = None  # noqa: N815, the key's name in ODCS
    customProperties: Descriptive = None  # noqa: N815


class _Options(_Shape):
    minimum: Scalar | None = None
    maximum: Scalar | None = None
    exclusiveMinimum: Scalar | None = None  # noqa: N815
    exclusiveMaximum: Scalar | None = None  # noqa: N815
    minLength: int | None = Field(default=None, ge=0)  # noqa: N815
    maxLength: int | None = Field(default=None, ge=0)  # noqa: N815
    pattern: str | None = None
    timezone: bool | None = None
    defaultTimezone: str | None = None  # noqa: N815
    format: Scalar | None = None
    multipleOf: Scalar | None = None  # noqa: N815
    minItems: Scalar | None = None  # noqa: N815
    maxItems: Scalar | None = None  # noqa: N815
    uniqueItems: Scalar | None = None  # noqa: N815
    minProperties: Scalar | None = None  # noqa: N815
    maxProperties: Scalar | None = None  # noqa: N815
    required: list[str] | None = None


class _Arguments(_Shape):
    properties: list[str] | None = None
    validValues: list[Scalar] | None = None  # noqa: N815
    pattern: str | None = None
    missingValues: list[Scalar | None] | None = None  # noqa: N815


class _Quality(_Shape):
    metric: str | None = None
    type: Literal["library", "text", "sql", "custom"] = "library"
    arguments: _Arguments | None = None
    validValues: list[Scalar] | None = None  # noqa: N815
    mustBe: int | float | None = None  # noqa: N815
    mustNotBe: int | float | None = None  # noqa: N815
    mustBeGreaterThan: int | float | None = None  # noqa: N815
    mustBeGreaterOrEqualTo: int | float | None = None  # noqa: N815
    mustBeLessThan: int | float | None = None  # noqa: N815
    mustBeLessOrEqualTo: int | float | None = None  # noqa: N815
    mustBeBetween: list[int | float] | None = None  # noqa: N815
    mustNotBeBetween: list[int | float] | None = None  # noqa: N815
    unit: Literal["rows", "percent"] = "rows"
    query: Descriptive = None
    engine: Descriptive = None
    implementation: Descriptive = None
    schedule: Descriptive = None
    scheduler: Descriptive = None
    severity: str | None = None
    id: Descriptive = None
    name: Descriptive = None
    description: Descriptive = None
    dimension: Descriptive = None
    businessImpact: Descriptive = None  # noqa: N815
    method: Descriptive = None
    tags: Descriptive = None
    authoritativeDefinitions: Descriptive = None  # noqa: N815


class _Element(_Shape):
    id: Descriptive = None
    name: str
    physicalName: str | None = None  # noqa: N815
    physicalType: str | None = None  # noqa: N815
    description: str = ""
    businessName: Descriptive = None  # noqa: N815
    authoritativeDefinitions: Descriptive = None  # noqa: N815
    tags: Descriptive = None
    quality: list[_Quality] = []
    relationships: Descriptive = None
    customProperties: list[_Custom] = []  # noqa: N815


class _Property(_Element):
    logicalType: Literal[  # noqa: N815
        "string", "date", "timestamp", "time", "number", "integer", "object", "array", "boolean"
    ]
    logicalTypeOptions: _Options = _Options()  # noqa: N815
    required: bool = False
    primaryKey: bool = False  # noqa: N815
    primaryKeyPosition: int | None = None  # noqa: N815
    unique: bool = False
    partitioned: bool = False
    partitionKeyPosition: Descriptive = None  # noqa: N815
    items: Descriptive = None
    properties: Descriptive = None
    examples: Descriptive = None
    classification: Descriptive = None
    criticalDataElement: Descriptive = None  # noqa: N815
    encryptedName: Descriptive = None  # noqa: N815
    transformSourceObjects: Descriptive = None  # noqa: N815
    transformLogic: Descriptive = None  # noqa: N815
    transformDescription: Descriptive = None  # noqa: N815


class _Object(_Element):
    properties: list[_Property] = Field(min_length=1)
    logicalType: Literal["object"] = "object"  # noqa: N815
    dataGranularityDescription: Descriptive = None  # noqa: N815


class _Server(_Shape):
    server: str
    type: str
    path: str | None = None
    format: Literal["csv", "parquet"] | None = None
    delimiter: str | None = None
    id: Descriptive = None
    description: Descriptive = None
    environment: Descriptive = None
    roles: Descriptive = None
    customProperties: list[_Custom] = []  # noqa: N815


class _Document(_Shape):
    apiVersion: Literal["v3.1.0"]  # noqa: N815
    kind: Literal["DataContract"]
    id: str
    version: str
    status: Literal["proposed", "draft", "active", "deprecated", "retired"]
    schema_: list[_Object] = Field(alias="schema", min_length=1)
    name: str | None = None
    description: _Description = _Description()
    servers: list[_Server] = []
    quality: Descriptive = None
    slaProperties: Descriptive = None  # noqa: N815
    tenant: Descriptive = None
    domain: Descriptive = None
    dataProduct: Descriptive = None  # noqa: N815
    tags: Descriptive = None
    authoritativeDefinitions: Descriptive = None  # noqa: N815
    support: Descriptive = None
    price: Descriptive = None
    team: Descriptive = None
    roles: Descriptive = None
    contractCreatedTs: Descriptive = None  # noqa: N815
    customProperties: list[_Custom] = []  # noqa: N815


class _Faults:
    """Gathers what is wrong, each with its place in the document."""

    def __init__(self) -> None:
        self.found: list[tuple[Place, str, str]] = []

    def add(self, place: Place, message: str, kind: str = "bad-contract") -> None:
        self.found.append((place, message, kind))

    def refuse(self, place: Place, option: str, mend: str) -> None:
        """Records an option that promises something that is not checked."""
        self.add(
            (*place, option),
            f'"{option}" would promise a check that is not run: expected only terms that are '
            f"checked. {mend}",
            "unsupported-term",
        )

    def throw(self, text: str, path: str) -> None:
        if not self.found:
            return
        tree = load_yaml(text, path)
        lines = [
            f"{path}:{line}:{column}: {message}"
            for place, message, _ in self.found
            for line, column in [position(tree, place)]
        ]
        kinds = {kind for _, _, kind in self.found}
        if kinds == {"unknown-key"}:
            raise InvalidError("\n".join(lines), kind="unknown-key", path=path, faults=(*lines,))
        if kinds == {"unsupported-term"}:
            raise InvalidError(
                "\n".join(lines), kind="unsupported-term", path=path, faults=(*lines,)
            )
        raise InvalidError("\n".join(lines), kind="bad-contract", path=path, faults=(*lines,))


def parse(text: str, path: str) -> Contract:
    """Returns the contract that `text` is; `path` is what messages call the document.

    Raises:
        InvalidError (kinds "bad-yaml", "unknown-key", "bad-document"): as `read_document`.
        InvalidError (kind "unsupported-term"): a key promises a check that is not run.
        InvalidError (kind "bad-contract"): its parts do not fit each other.
    """
    document = read_document(text, path, _Document)
    faults = _Faults()
    _refuse_document(document, faults)
    contract = _contract(document, faults)
    faults.throw(text, path)
    return contract


def _contract(document: _Document, faults: _Faults) -> Contract:
    table = document.schema_[0]
    place: Place = ("schema", 0)
    columns = tuple(
        _column(part, (*place, "properties", index), faults)
        for index, part in enumerate(table.properties)
    )
    names = [column.name.lower() for column in columns]
    for index, name in enumerate(names):
        if name in names[:index]:
            faults.add(
                (*place, "properties", index, "name"),
                f'column "{name}" stands twice: expected names that differ, ignoring case. '
                "Remove one.",
            )
    own = _customs(
        table.customProperties,
        ("eventTime", "mergePolicy", "maxQuarantined"),
        (*place, "customProperties"),
        faults,
    )
    batch = [
        term
        for index, quality in enumerate(table.quality)
        for term in _batch_terms(quality, (), (*place, "quality", index), faults)
    ]
    for number, part in enumerate(table.properties):
        for index, quality in enumerate(part.quality):
            where = (*place, "properties", number, "quality", index)
            if not _is_row_level(quality):
                batch.extend(_batch_terms(quality, (part.name,), where, faults))
    for term in batch:
        for name in term.columns:
            if name.lower() not in names:
                faults.add((*place, "quality"), _no_such_column(name, names))
    key = _key(table.properties)
    policy = _merge_policy(own, faults)
    if policy is MergePolicy.KEYED and not key:
        faults.add(
            _OBJECT,
            'merge policy "keyed" stands without a key: expected primaryKey: true at a property. '
            "Add it, or append.",
        )
    return Contract(
        table=table.name,
        version=document.version,
        purpose=document.description.purpose,
        columns=columns,
        key=key,
        event_time=_event_time(own, columns, faults),
        merge_policy=policy,
        max_quarantined=_share(own, faults),
        sources=tuple(
            _source(server, ("servers", index), faults)
            for index, server in enumerate(document.servers)
        ),
        batch=tuple(batch),
    )


def _refuse_document(document: _Document, faults: _Faults) -> None:
    if len(document.schema_) > 1:
        faults.add(
            ("schema", 1),
            f"{len(document.schema_)} tables stand in one contract: expected one. Write one file "
            "for each table.",
        )
    if document.quality is not None:
        faults.add(
            ("quality",),
            '"quality" stands at the top: expected it inside a schema object or a property. '
            "Move it there.",
        )
    if document.slaProperties is not None:
        faults.refuse((), "slaProperties", "Remove it, or say it in description.usage.")
    for index, custom in enumerate(document.customProperties):
        if custom.property in _OWN_PLACES:
            faults.add(
                ("customProperties", index),
                f'"{custom.property}" stands at the top: expected it in customProperties of '
                f"{_OWN_PLACES[custom.property]}. Move it there.",
            )
    table = document.schema_[0]
    if table.relationships is not None:
        faults.refuse(("schema", 0), "relationships", "Remove it.")
    if not _is_name(table.name):
        faults.add(
            ("schema", 0, "name"),
            f'table name "{table.name}" cannot be used: expected lower-case letters, digits and '
            "underscores. Correct it.",
        )


_OWN_PLACES = {
    "eventTime": "the schema object",
    "mergePolicy": "the schema object",
    "maxQuarantined": "the schema object",
    "unit": "a property",
    "nullMarker": "a server",
    "encoding": "a server",
}


def _is_name(name: str) -> bool:
    return bool(name) and name.isascii() and name.isidentifier() and name == name.lower()


def _column(part: _Property, place: Place, faults: _Faults) -> ColumnTerm:
    options = part.logicalTypeOptions
    inside = (*place, "logicalTypeOptions")
    _refuse_property(part, place, faults)
    type_ = _type(part, place, faults)
    own = _customs(part.customProperties, ("unit",), (*place, "customProperties"), faults)
    values: tuple[str, ...] = ()
    pattern = options.pattern
    for index, quality in enumerate(part.quality):
        if _is_row_level(quality):
            where = (*place, "quality", index)
            _refuse_quality(quality, where, faults)
            values = tuple(
                _text(value, type_, (*where, "validValues"), faults) for value in _valid(quality)
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


def _refuse_property(part: _Property, place: Place, faults: _Faults) -> None:
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
    if part.partitioned:
        faults.refuse(place, "partitioned", "Remove it: the layout is not part of a promise.")
    for option in ("relationships", "items", "properties"):
        if getattr(part, option) is not None:
            faults.refuse(place, option, "Remove it.")
    if part.physicalName not in (None, part.name):
        faults.add(
            (*place, "physicalName"),
            f'"physicalName" is "{part.physicalName}": expected the name "{part.name}", since a '
            "source's own names are mapped by `instep accept --rename`. Remove it.",
        )


def _type(part: _Property, place: Place, faults: _Faults) -> str:
    if part.logicalType in ("object", "array"):
        faults.add(
            (*place, "logicalType"),
            f'logical type "{part.logicalType}" is not supported: expected one of '
            f"{', '.join(_TYPES)}. Split the column into plain ones.",
        )
        return "string"
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
    options: _Options, closed: str, opened: str, type_: str, place: Place, faults: _Faults
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


def _text(value: Scalar, type_: str, place: Place, faults: _Faults) -> str:
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


def _is_row_level(quality: _Quality) -> bool:
    """Tells whether no single row may break the term, so that rows rather than batches do."""
    return (
        quality.type == "library" and quality.metric == Metric.INVALID.value and quality.mustBe == 0
    )


def _valid(quality: _Quality) -> Sequence[Scalar]:
    return (quality.arguments.validValues if quality.arguments else None) or (
        quality.validValues or ()
    )


def _batch_terms(
    quality: _Quality, columns: tuple[str, ...], place: Place, faults: _Faults
) -> Iterator[BatchTerm]:
    match quality.type:
        case "text":
            return
        case "sql" | "custom":
            faults.refuse(place, "type", "Write it as a library metric or a step of a pipeline.")
            return
    _refuse_quality(quality, place, faults)
    metric = _metric(quality, columns, place, faults)
    chosen = [(op, value) for op in Operator if (value := getattr(quality, op.value)) is not None]
    if len(chosen) != 1:
        faults.add(
            place,
            f"the term has {len(chosen)} comparisons: expected one of "
            f"{', '.join(op.value for op in Operator)}. Keep one.",
        )
        return
    operator, value = chosen[0]
    operands = tuple(Decimal(str(item)) for item in (value if isinstance(value, list) else [value]))
    if len(operands) != (2 if isinstance(value, list) else 1) or operands[0] > operands[-1]:
        faults.add(place, f'"{operator.value}" is {value}: expected two numbers in their order.')
        return
    if metric is None:
        return
    arguments = quality.arguments or _Arguments()
    yield BatchTerm(
        metric=metric,
        columns=columns or tuple(arguments.properties or ()),
        operator=operator,
        operands=operands,
        percent=quality.unit == "percent",
        pattern=arguments.pattern,
        values=tuple(str(item) for item in _valid(quality)),
    )


def _refuse_quality(quality: _Quality, place: Place, faults: _Faults) -> None:
    for option in ("schedule", "scheduler"):
        if getattr(quality, option) is not None:
            faults.refuse(place, option, "Remove it: terms are checked when data arrives.")
    if quality.severity not in (None, "error"):
        faults.refuse(place, "severity", 'Every term holds its rows or batch: write "error".')


def _metric(
    quality: _Quality, columns: tuple[str, ...], place: Place, faults: _Faults
) -> Metric | None:
    name = quality.metric or ""
    allowed = (
        (Metric.NULLS, Metric.INVALID, Metric.DUPLICATES)
        if columns
        else (Metric.ROWS, Metric.DUPLICATES)
    )
    if name not in [metric.value for metric in allowed]:
        level = "a property" if columns else "a schema object"
        faults.add(
            (*place, "metric"),
            f'metric "{name}" of {level} is not checked: expected one of '
            f"{', '.join(metric.value for metric in allowed)}. Correct it.",
            "unsupported-term",
        )
        return None
    arguments = quality.arguments or _Arguments()
    if arguments.missingValues is not None:
        faults.refuse((*place, "arguments"), "missingValues", "Name null markers at the server.")
    if name == Metric.DUPLICATES.value and not columns and not arguments.properties:
        faults.add(place, '"duplicateValues" names no columns: expected arguments.properties.')
        return None
    if name == Metric.INVALID.value and not _valid(quality) and not arguments.pattern:
        faults.add(place, '"invalidValues" says not which values are valid: add validValues.')
        return None
    return Metric(name)


def _key(properties: Sequence[_Property]) -> tuple[str, ...]:
    parts = [
        (part.primaryKeyPosition or index + 1, index, part.name)
        for index, part in enumerate(properties)
        if part.primaryKey
    ]
    return tuple(name for _, _, name in sorted(parts))


Own = dict[str, Scalar | list[Scalar] | None]


def _customs(
    customs: Sequence[_Custom], known: tuple[str, ...], place: Place, faults: _Faults
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


_OBJECT: Place = ("schema", 0, "customProperties")


def _event_time(own: Own, columns: Sequence[ColumnTerm], faults: _Faults) -> str | None:
    name = own.get("eventTime")
    if name is None:
        return None
    column = next((column for column in columns if column.name == name), None)
    if column is None:
        faults.add(_OBJECT, _no_such_column(str(name), [column.name for column in columns]))
    elif column.type not in ("date", "timestamp", "timestamptz"):
        faults.add(
            _OBJECT,
            f'event time "{name}" has type {column.type}: expected a date or a timestamp. '
            "Name another column.",
        )
    return str(name)


def _merge_policy(own: Own, faults: _Faults) -> MergePolicy:
    name = own.get("mergePolicy", MergePolicy.APPEND.value)
    if name in [policy.value for policy in MergePolicy]:
        return MergePolicy(str(name))
    faults.add(
        _OBJECT,
        f'merge policy "{name}" is not known: expected one of '
        f"{', '.join(policy.value for policy in MergePolicy)}. Correct it.",
    )
    return MergePolicy.APPEND


def _share(own: Own, faults: _Faults) -> Decimal:
    value = own.get("maxQuarantined", 0.01)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return Decimal(str(value))
    faults.add(_OBJECT, f'"maxQuarantined" is {value!r}: expected a share from 0 to 1. Correct it.')
    return Decimal("0.01")


def _source(server: _Server, place: Place, faults: _Faults) -> Source:
    own = _customs(
        server.customProperties, ("nullMarker", "encoding"), (*place, "customProperties"), faults
    )
    if server.type != "local":
        faults.add(
            (*place, "type"), f'server type "{server.type}" is not supported: expected "local".'
        )
    if server.path is None or server.format is None:
        faults.add(place, 'the server lacks "path" or "format": expected both. Add them.')
        return Source("", Format.CSV)
    encoding = str(own.get("encoding", "utf-8")).lower()
    if encoding not in ENCODINGS:
        faults.add(
            (*place, "customProperties"),
            f'encoding "{encoding}" is not supported: expected one of {", ".join(ENCODINGS)}. '
            "Convert the files.",
        )
    delimiter = server.delimiter if server.delimiter is not None else ","
    if len(delimiter) != 1:
        faults.add((*place, "delimiter"), f'delimiter "{delimiter}": expected one character.')
    markers = own.get("nullMarker", "")
    listed = markers if isinstance(markers, list) else [markers]
    return Source(
        pattern=server.path,
        format=Format(server.format),
        delimiter=delimiter,
        null_markers=tuple(dict.fromkeys(["", *(str(item) for item in listed if item)])),
        encoding=encoding,
    )


ENCODINGS = ("utf-8", "utf-16", "latin-1")


def _no_such_column(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    mend = f'Did you mean "{near[0]}"?' if near else "Correct the name."
    return f'column "{name}" does not exist: expected one of {", ".join(names)}. {mend}'
