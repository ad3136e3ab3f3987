"""Reads a contract: an ODCS v3.1 document, strictly.

A key that ODCS does not have is an error with its place and the nearest known key. A key of ODCS
that only describes is accepted; one that promises a check which is not run is refused, so that a
contract never says more than what is checked. What ODCS has no word for stands in
`customProperties`: of a schema object `eventTime`, `mergePolicy`, `maxQuarantined`, `sortOrder`; of
a property `unit`, `partitionTransform`; of a server `nullMarker`, `encoding`.

ODCS leaves three meanings open; here `required: true` means never null, `mustBeBetween` includes
both its ends, and a primary key is required.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

from instep.contracts.columns import (
    Own,
    column_of,
    is_row_level,
    own_properties,
    refuse_quality,
    valid,
)
from instep.contracts.faults import Faults, no_such_column
from instep.contracts.layout import SORT, TRANSFORM, partition_of, sort_of
from instep.contracts.odcs import Arguments, Document, Property, Quality, Server
from instep.contracts.terms import (
    BatchTerm,
    ColumnTerm,
    Contract,
    Format,
    MergePolicy,
    Metric,
    Operator,
    Source,
)
from instep.documents import Place, read_document

__all__ = ["Contract", "parse"]


def parse(text: str, path: str) -> Contract:
    """Returns the contract that `text` is; `path` is what messages call the document.

    Raises:
        InvalidError (kinds "bad-yaml", "unknown-key", "bad-document"): as `read_document`.
        InvalidError (kind "unsupported-term"): a key promises a check that is not run.
        InvalidError (kind "bad-contract"): its parts do not fit each other.
    """
    document = read_document(text, path, Document)
    faults = Faults()
    _refuse_document(document, faults)
    contract = _contract(document, faults)
    faults.throw(text, path)
    return contract


def _contract(document: Document, faults: Faults) -> Contract:
    table = document.schema_[0]
    place: Place = ("schema", 0)
    columns = tuple(
        column_of(part, (*place, "properties", index), faults)
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
    own = own_properties(
        table.customProperties,
        ("eventTime", "mergePolicy", "maxQuarantined", SORT),
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
            if not is_row_level(quality):
                batch.extend(_batch_terms(quality, (part.name,), where, faults))
    for term in batch:
        for name in term.columns:
            if name.lower() not in names:
                faults.add((*place, "quality"), no_such_column(name, names))
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
        partition=partition_of(table.properties, columns, (*place, "properties"), faults),
        sort=sort_of(own.get(SORT), columns, _OBJECT, faults),
    )


def _refuse_document(document: Document, faults: Faults) -> None:
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
    SORT: "the schema object",
    TRANSFORM: "a property",
    "unit": "a property",
    "nullMarker": "a server",
    "encoding": "a server",
}


def _is_name(name: str) -> bool:
    return bool(name) and name.isascii() and name.isidentifier() and name == name.lower()


def _batch_terms(
    quality: Quality, columns: tuple[str, ...], place: Place, faults: Faults
) -> Iterator[BatchTerm]:
    match quality.type:
        case "text":
            return
        case "sql" | "custom":
            faults.refuse(place, "type", "Write it as a library metric or a step of a pipeline.")
            return
    refuse_quality(quality, place, faults)
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
    arguments = quality.arguments or Arguments()
    yield BatchTerm(
        metric=metric,
        columns=columns or tuple(arguments.properties or ()),
        operator=operator,
        operands=operands,
        percent=quality.unit == "percent",
        pattern=arguments.pattern,
        values=tuple(str(item) for item in valid(quality)),
    )


def _metric(
    quality: Quality, columns: tuple[str, ...], place: Place, faults: Faults
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
    arguments = quality.arguments or Arguments()
    if arguments.missingValues is not None:
        faults.refuse((*place, "arguments"), "missingValues", "Name null markers at the server.")
    if name == Metric.DUPLICATES.value and not columns and not arguments.properties:
        faults.add(place, '"duplicateValues" names no columns: expected arguments.properties.')
        return None
    if name == Metric.INVALID.value and not valid(quality) and not arguments.pattern:
        faults.add(place, '"invalidValues" says not which values are valid: add validValues.')
        return None
    return Metric(name)


def _key(properties: Sequence[Property]) -> tuple[str, ...]:
    parts = [
        (part.primaryKeyPosition or index + 1, index, part.name)
        for index, part in enumerate(properties)
        if part.primaryKey
    ]
    return tuple(name for _, _, name in sorted(parts))


_OBJECT: Place = ("schema", 0, "customProperties")


def _event_time(own: Own, columns: Sequence[ColumnTerm], faults: Faults) -> str | None:
    name = own.get("eventTime")
    if name is None:
        return None
    column = next((column for column in columns if column.name == name), None)
    if column is None:
        faults.add(_OBJECT, no_such_column(str(name), [column.name for column in columns]))
    elif column.type not in ("date", "timestamp", "timestamptz"):
        faults.add(
            _OBJECT,
            f'event time "{name}" has type {column.type}: expected a date or a timestamp. '
            "Name another column.",
        )
    return str(name)


def _merge_policy(own: Own, faults: Faults) -> MergePolicy:
    name = own.get("mergePolicy", MergePolicy.APPEND.value)
    if name in [policy.value for policy in MergePolicy]:
        return MergePolicy(str(name))
    faults.add(
        _OBJECT,
        f'merge policy "{name}" is not known: expected one of '
        f"{', '.join(policy.value for policy in MergePolicy)}. Correct it.",
    )
    return MergePolicy.APPEND


def _share(own: Own, faults: Faults) -> Decimal:
    value = own.get("maxQuarantined", 0.01)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return Decimal(str(value))
    faults.add(_OBJECT, f'"maxQuarantined" is {value!r}: expected a share from 0 to 1. Correct it.')
    return Decimal("0.01")


def _source(server: Server, place: Place, faults: Faults) -> Source:
    own = own_properties(
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


ENCODINGS = ("utf-8", "utf-16", "latin-1", "windows-1252")
