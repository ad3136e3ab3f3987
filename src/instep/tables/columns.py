"""Answers what columns a table has and may have next: Iceberg's JSON of a schema, and evolution.

Evolution is a pure function from one schema to the next that keeps every field id and takes new
ones from `ids`, so data files are never touched. Fields within are named by a dotted path
("address.city", "lines.element.price"); no two fields of a table have one path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from instep.engines.defaults import going_on, with_type
from instep.engines.schema import UNTYPED, Column, Schema, check_names, sql_type_of
from instep.engines.types import typed_as
from instep.errors import InvalidError

Change = Callable[[Schema, Iterator[int]], Schema]
"""One step of evolution: the schema before, new field ids, the schema after."""


def schema_json(schema: Schema, schema_id: int) -> dict[str, Any]:  # Iceberg's JSON
    """Returns a schema as Iceberg writes it in metadata."""
    fields = [_field_json(column) for column in schema.columns]
    told = {"type": "struct", "schema-id": schema_id, "fields": fields}
    if schema.identifiers:
        told["identifier-field-ids"] = list(schema.identifiers)
    return told


def parse_schema(told: Mapping[str, Any]) -> Schema:  # as above
    """Returns a schema from what Iceberg writes in metadata.

    Raises:
        InvalidError (kind "unsupported-type").
    """
    identifiers = tuple(sorted(told.get("identifier-field-ids") or ()))
    return Schema(tuple(_parse_field(field) for field in told["fields"]), identifiers)


def current_schema(metadata: Mapping[str, Any]) -> Schema:  # as above
    """Returns the current schema inside Iceberg metadata."""
    current = metadata["current-schema-id"]
    return parse_schema(next(one for one in metadata["schemas"] if one["schema-id"] == current))


def with_ids(columns: Sequence[Column], ids: Iterator[int]) -> tuple[Column, ...]:
    """Returns columns with new field ids: those of one level first, then what lies within each."""
    level = [replace(column, id=next(ids)) for column in columns]
    return tuple(replace(column, children=with_ids(column.children, ids)) for column in level)


def added(
    schema: Schema,
    ids: Iterator[int],
    column: Column,
    *,
    parent: str = "",
    after: str | None = None,
    has_rows: bool = True,
) -> Schema:
    """Returns the schema with `column`, at the end of its struct or just behind the field `after`.

    `parent` is the path of a struct, "" for the table; `after=""` puts the column first.

    Raises:
        InvalidError (kind "no-such-column", "not-a-struct-field", "bad-column-name",
            "repeated-column", "unsupported-type", "null-in-required").
    """
    (new,) = with_ids([column], ids)
    if has_rows and new.required and new.initial_default is None:
        raise _may_lack(new)

    def put(fields: tuple[Column, ...]) -> tuple[Column, ...]:
        place = len(fields) if after is None else _place_behind(fields, after)
        return (*fields[:place], new, *fields[place:])

    return _checked(_edited(schema, parent, put))


def dropped(schema: Schema, path: str) -> Schema:
    """Returns the schema without one field; a later one of its name is another column.

    Raises:
        InvalidError (kind "no-such-column", "not-a-struct-field", "no-columns").
    """
    parent, found = _split(schema, path)
    after = _edited(schema, parent, lambda fields: tuple(f for f in fields if f.id != found.id))
    fields = _find(after, parent).children if parent else after.columns
    if not fields:
        raise InvalidError(
            f'Column "{path}" is the only one there: expected another beside it. '
            "Add one before, or drop what it lies in.",
            kind="no-columns",
            column=path,
        )
    return after


def renamed(schema: Schema, path: str, name: str) -> Schema:
    """Returns the schema with one field under another name; its id stays.

    Raises:
        InvalidError (kind "no-such-column", "not-a-struct-field", "bad-column-name",
            "repeated-column").
    """
    parent, found = _split(schema, path)
    return _checked(_edited(schema, parent, _replacing(found, replace(found, name=name))))


def moved(schema: Schema, path: str, *, after: str) -> Schema:
    """Returns the schema with one field just behind its sibling `after`, or first for "".

    Raises:
        InvalidError (kind "no-such-column", "not-a-struct-field").
    """
    parent, found = _split(schema, path)

    def move(fields: tuple[Column, ...]) -> tuple[Column, ...]:
        others = tuple(field for field in fields if field.id != found.id)
        place = _place_behind(others, after)
        return (*others[:place], found, *others[place:])

    return _edited(schema, parent, move)


def promoted(schema: Schema, path: str, type_: str) -> Schema:
    """Returns the schema with one primitive field of a wider type, which old files can be read as.

    Raises:
        InvalidError (kind "no-such-column", "type-mismatch").
    """
    found = _find(schema, path)
    if found.is_nested or not is_promotion(found.type, type_):
        raise _unreadable(path, found, type_)
    return _changed(schema, found.id, with_type(found, type_))


def made_optional(schema: Schema, path: str) -> Schema:
    """Returns the schema with one field that may be null.

    Raises:
        InvalidError (kind "no-such-column", "not-a-struct-field"): the key of a map is never null.
    """
    found = _find(schema, path)
    if path.endswith(".key") and _find(schema, path.removesuffix(".key")).type == "map":
        raise _not_a_struct_field(path)
    return _changed(schema, found.id, replace(found, required=False))


def evolved(
    schema: Schema,
    columns: Sequence[Column],
    ids: Iterator[int],
    *,
    has_rows: bool,
    anew: Collection[str] = (),
) -> Schema:
    """Returns a schema of `columns`, whose ids are ignored: a known name keeps its id.

    Those named in `anew` get a new one: their rows are to be written anew. Fields within are
    matched by name too. A column without a type keeps the one it has, and one
    without defaults those.

    Raises:
        InvalidError (kind "repeated-column", "unsupported-type", "bad-column-name").
        InvalidError (kind "type-mismatch"): a column's type cannot be read from the old files.
        InvalidError (kind "null-in-required"): a new column is required, but old rows lack it.
    """
    typed = typed_as(columns, schema.columns)
    check_columns(Schema(typed))
    names = {name.lower() for name in anew}
    return schema.with_columns(_matched(schema.columns, typed, ids, has_rows, names))


def check_columns(schema: Schema) -> None:
    """Holds that columns have types, and names that no two share, ignoring case.

    Raises:
        InvalidError (kind "repeated-column", "unsupported-type", "bad-column-name").
    """
    for path, column in paths(schema.columns):
        if column.type == UNTYPED:
            raise _untyped(path)
        if not column.is_nested:
            sql_type_of(column.type)
    check_names((path, column.name) for path, column in paths(schema.columns))


def _checked(schema: Schema) -> Schema:
    check_columns(schema)
    return schema


def paths(columns: Sequence[Column], prefix: str = "") -> Iterator[tuple[str, Column]]:
    """Yields every column and every field within by its path ("place.zip"), outer ones first."""
    for column in columns:
        yield f"{prefix}{column.name}", column
        yield from paths(column.children, f"{prefix}{column.name}.")


def _find(schema: Schema, path: str) -> Column:
    for name, column in paths(schema.columns):
        if name.lower() == path.lower():
            return column
    known = ", ".join(name for name, _ in paths(schema.columns))
    raise InvalidError(
        f'Column "{path}" does not exist: expected one of {known}. Correct the name.',
        kind="no-such-column",
        column=path,
    )


def _split(schema: Schema, path: str) -> tuple[str, Column]:
    """Returns the path of the struct that a field lies in, "" for the table, and the field."""
    found = _find(schema, path)
    parents = [
        (name, column)
        for name, column in paths(schema.columns)
        if any(child.id == found.id for child in column.children)
    ]
    if not parents:
        return "", found
    ((name, parent),) = parents
    if parent.type != "struct":
        raise _not_a_struct_field(path)
    return name, found


def _edited(
    schema: Schema, parent: str, edit: Callable[[tuple[Column, ...]], tuple[Column, ...]]
) -> Schema:
    """Returns the schema with the fields of one struct, or of the table for "", edited."""
    if not parent:
        return schema.with_columns(edit(schema.columns))
    struct = _find(schema, parent)
    if struct.type != "struct":
        raise InvalidError(
            f'Column "{parent}" is {struct.full_type}: expected a struct. '
            "Name a struct, or the element, key or value of what is one.",
            kind="not-a-struct-field",
            column=parent,
        )
    if any(_is_in_key(column, struct.id) for column in schema.fields()):
        raise InvalidError(
            f'Column "{parent}" is the key of a map: expected a struct elsewhere, since keys '
            "that were equal might differ then. Add a new map.",
            kind="not-a-struct-field",
            column=parent,
        )
    return _changed(schema, struct.id, replace(struct, children=edit(struct.children)))


def _is_in_key(column: Column, field_id: int) -> bool:
    return column.type == "map" and any(
        field.id == field_id for field in column.children[0].fields()
    )


def _changed(schema: Schema, field_id: int, after: Column) -> Schema:
    def change(column: Column) -> Column:
        if column.id == field_id:
            return after
        return replace(column, children=tuple(change(child) for child in column.children))

    return schema.with_columns(change(column) for column in schema.columns)


def _replacing(before: Column, after: Column) -> Callable[[tuple[Column, ...]], tuple[Column, ...]]:
    return lambda fields: tuple(after if field.id == before.id else field for field in fields)


def _place_behind(fields: Sequence[Column], after: str) -> int:
    if not after:
        return 0
    return fields.index(Schema(tuple(fields)).column(after)) + 1


def _matched(
    before: Sequence[Column],
    after: Sequence[Column],
    ids: Iterator[int],
    has_rows: bool,
    anew: Collection[str] = (),
) -> tuple[Column, ...]:
    known = {column.name.lower(): column for column in before}
    level = []
    for column in after:
        old = known.get(column.name.lower())
        if has_rows and _may_be_null(old, column):
            raise _may_lack(column)
        if column.name.lower() in anew:
            old = None
        if old is not None and not is_promotion(old.type, column.type):
            raise _unreadable(column.name, old, column.full_type)
        level.append((old, going_on(old, column) if old else replace(column, id=next(ids))))
    return tuple(
        replace(
            column,
            children=_matched(
                old.children if old else (), column.children, ids, has_rows and old is not None
            ),
        )
        for old, column in level
    )


def _may_be_null(old: Column | None, column: Column) -> bool:
    """Whether rows that are there may be null in a column that is required from now on."""
    if old is None:
        return column.required and column.initial_default is None
    return column.required and not old.required


def is_promotion(before: str, after: str) -> bool:
    """Whether Iceberg lets a column change its type without rewriting files (spec)."""
    if before == after or (before, after) in {("int", "long"), ("float", "double")}:
        return True
    old, new = (re.fullmatch(r"decimal\((\d+), ?(\d+)\)", kind) for kind in (before, after))
    return bool(old and new and old[2] == new[2] and int(new[1]) >= int(old[1]))


def _untyped(path: str) -> InvalidError:
    return InvalidError(
        f'Column "{path}" is null in all rows and has no type: expected one, since the table has '
        "no such column yet. Cast it, as by CAST(NULL AS VARCHAR), or name its type.",
        kind="unsupported-type",
        column=path,
    )


def _unreadable(path: str, found: Column, type_: str) -> InvalidError:
    return InvalidError(
        f'Column "{path}" is {found.full_type} in the table: {type_} cannot be read '
        "from its files. Give the new column another name.",
        kind="type-mismatch",
        column=path,
    )


def _may_lack(column: Column) -> InvalidError:
    return InvalidError(
        f'Column "{column.name}" is required, but rows of the table may lack it: expected '
        "an optional column. Make it optional, or rewrite the table.",
        kind="null-in-required",
        column=column.name,
    )


def _not_a_struct_field(path: str) -> InvalidError:
    return InvalidError(
        f'Column "{path}" is part of a list or map: expected a column, or a field of a struct. '
        "Change the list or map itself.",
        kind="not-a-struct-field",
        column=path,
    )


def _field_json(column: Column) -> dict[str, Any]:
    told = {
        "id": column.id,
        "name": column.name,
        "required": column.required,
        "type": _type_json(column),
    }
    if column.doc:
        told["doc"] = column.doc
    if column.initial_default is not None:
        told["initial-default"] = _default_json(column.type, column.initial_default)
    if column.write_default is not None:
        told["write-default"] = _default_json(column.type, column.write_default)
    return told


def _type_json(column: Column) -> Any:  # a text, or an object for nested types
    match column.type:
        case "struct":
            return {"type": "struct", "fields": [_field_json(child) for child in column.children]}
        case "list":
            (element,) = column.children
            return {
                "type": "list",
                "element-id": element.id,
                "element-required": element.required,
                "element": _type_json(element),
            }
        case "map":
            key, value = column.children
            return {
                "type": "map",
                "key-id": key.id,
                "key": _type_json(key),
                "value-id": value.id,
                "value-required": value.required,
                "value": _type_json(value),
            }
        case _:
            return column.type


def _parse_field(told: Mapping[str, Any]) -> Column:
    type_, children = _parse_type(told["type"])
    return Column(
        told["id"],
        told["name"],
        type_,
        children=children,
        required=bool(told["required"]),
        doc=told.get("doc", ""),
        initial_default=_parse_default(told.get("initial-default")),
        write_default=_parse_default(told.get("write-default")),
    )


def _parse_type(told: Any) -> tuple[str, tuple[Column, ...]]:  # as _type_json made it
    if isinstance(told, str):
        return told.replace(", ", ","), ()
    match told["type"]:
        case "struct":
            return "struct", tuple(_parse_field(field) for field in told["fields"])
        case "list":
            return "list", (_parse_inner(told, "element", bool(told["element-required"])),)
        case _:
            value = _parse_inner(told, "value", bool(told["value-required"]))
            return "map", (_parse_inner(told, "key", True), value)


def _parse_inner(told: Any, name: str, required: bool) -> Column:  # as above
    type_, children = _parse_type(told[name])
    return Column(told[f"{name}-id"], name, type_, required, children=children)


def _default_json(type_: str, text: str) -> Any:  # a JSON value of the column's type
    """A default in Iceberg's JSON form: numbers and truth as such, all others as text."""
    match type_:
        case "boolean":
            return text == "true"
        case "int" | "long":
            return int(text)
        case "float" | "double":
            return float(text)
        case _:
            return text


def _parse_default(told: Any) -> str | None:  # as _default_json made it
    if told is None or isinstance(told, str):
        return told
    return str(told).lower() if isinstance(told, bool) else repr(told)
