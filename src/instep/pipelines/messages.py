"""What a run and its worker say to each other: one JSON object a line.

A request is answered by any number of `progress` lines and then one `result` or `error`. Records
are written out field by field, so that nothing is unpickled and nothing else gets through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instep.canonical import Json, from_microseconds, to_microseconds
from instep.clock import Window
from instep.engines.engine import ColumnStatistics, DeleteFile, FileSet, Slice, WrittenFile
from instep.engines.layout import Layout, PartitionField, SortField
from instep.engines.schema import Column, Schema
from instep.errors import FAMILIES, InstepError, InternalError

Message = dict[str, Any]  # JSON whose shape each pair of functions below agrees on


def file_set_json(one: FileSet) -> dict[str, Json]:
    return {
        "name": one.name,
        "files": list(one.files),
        "schema": schema_json(one.schema),
        "slice": slice_json(one.slice),
        "deletes": {
            path: [
                [d.path, d.rows, d.size_bytes, d.digest, d.data_file, d.offset, d.length]
                for d in deletes
            ]
            for path, deletes in one.deletes.items()
        },
    }


def parse_file_set(body: Message) -> FileSet:
    return FileSet(
        body["name"],
        tuple(body["files"]),
        parse_schema(body["schema"]),
        parse_slice(body["slice"]),
        {
            path: tuple(DeleteFile(*delete) for delete in deletes)
            for path, deletes in body["deletes"].items()
        },
    )


def slice_json(part: Slice | None) -> list[Json] | None:
    return [part.column, *window_json(part.window)] if part else None


def parse_slice(body: list[Any] | None) -> Slice | None:  # JSON
    return Slice(body[0], parse_window(body[1:])) if body else None


def schema_json(schema: Schema) -> list[Json]:
    return [_column_json(column) for column in schema.columns]


def parse_schema(body: list[list[Any]]) -> Schema:
    return Schema(tuple(_parse_column(column) for column in body))


def _column_json(one: Column) -> list[Json]:
    children: list[Json] = [_column_json(child) for child in one.children]
    shape: list[Json] = [one.id, one.name, one.type, one.required, one.doc, children]
    return [*shape, one.initial_default, one.write_default]


def _parse_column(body: list[Any]) -> Column:
    id_, name, type_, required, doc, children, initial, write = body
    inner = tuple(_parse_column(child) for child in children)
    return Column(id_, name, type_, required, doc, inner, initial, write)


def window_json(window: Window) -> list[Json]:
    """Returns a window as two instants in microseconds."""
    return [to_microseconds(window.start), to_microseconds(window.end)]


def parse_window(body: list[int]) -> Window:
    return Window(from_microseconds(body[0]), from_microseconds(body[1]))


def written_json(file: WrittenFile) -> dict[str, Json]:
    return {
        "path": file.path,
        "rows": file.rows,
        "size_bytes": file.size_bytes,
        "digest": file.digest,
        "columns": [
            [c.field_id, c.size_bytes, c.values, c.nulls, c.nans, c.lower, c.upper]
            for c in file.columns
        ],
        "partition": list(file.partition),
    }


def parse_written(body: Message) -> WrittenFile:
    return WrittenFile(
        body["path"],
        body["rows"],
        body["size_bytes"],
        body["digest"],
        tuple(ColumnStatistics(*column) for column in body["columns"]),
        tuple(body["partition"]),
    )


def layout_json(layout: Layout) -> dict[str, Json]:
    return {
        "partition": [
            [f.source_id, f.field_id, f.name, f.transform, f.kind] for f in layout.partition
        ],
        "sort": [[f.source_id, f.is_descending, f.nulls_first] for f in layout.sort],
    }


def parse_layout(body: Message) -> Layout:
    return Layout(
        tuple(PartitionField(*field) for field in body["partition"]),
        tuple(SortField(*field) for field in body["sort"]),
    )


def error_json(error: InstepError) -> dict[str, Json]:
    facts: Mapping[str, Json] = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in error.facts.items()
    }
    return {
        "family": error.family,
        "kind": error.kind,
        "message": error.message,
        "facts": facts,
    }


def parse_error(body: Message) -> InstepError:
    family = next((one for one in FAMILIES if one.family == body["family"]), InternalError)
    facts = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in body["facts"].items()
    }
    return family(body["message"], kind=body["kind"], **facts)
