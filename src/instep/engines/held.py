"""Answers how Parquet files hold the columns of a table, and whether they can be read as such.

DuckDB reads a column without a field id as NULL, and the fields of a struct by name, both without
a word; so the ids of every file are looked at first, those of nested fields among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from instep.engines.reading import paths_sql
from instep.engines.schema import Column, Schema
from instep.engines.types import iceberg_column, is_readable
from instep.errors import InvalidError

Node = Mapping[str, Any]  # name, field_id, type, children: a row of DuckDB's parquet_schema

_TypeOf = Callable[[Node], str]
"""The Iceberg type of a node that is not nested."""


@dataclass(frozen=True, slots=True)
class Footer:
    """What files of one layout say of their columns.

    `counts_nan`: the greatest value that a footer tells of a column is NaN where one is there.
    DuckDB believes that of all files; only its own are so, others leave NaN out.
    """

    nodes: Sequence[Node]
    counts_nan: bool


@dataclass(frozen=True, slots=True)
class Held:
    """Files that hold their columns in one way.

    `columns` are the nested columns that are not built like those of the table, by field id, with
    the names and types of the files. `names` are those that the table's columns have in the files,
    by field id, if all are there in the table's types, so that no schema need be given; or none.
    `lacked` are the nested columns that are not in them, by field id. `counts_nan` is the footers'.
    """

    files: tuple[str, ...]
    columns: Mapping[int, Column]
    names: Mapping[int, str]
    lacked: frozenset[int]
    counts_nan: bool


def layouts_sql(files: Iterable[str]) -> str:
    """Returns SQL that lists files by the fields of their `Footer`."""
    paths = paths_sql(files)
    return (
        "SELECT list(file_name ORDER BY file_name), nodes, counts_nan FROM (SELECT file_name, "
        "list({'name': name, 'field_id': field_id, 'type': duckdb_type, 'children': num_children} "
        f"ORDER BY column_id) AS nodes FROM parquet_schema({paths}) "
        "WHERE column_id > 0 GROUP BY file_name) JOIN (SELECT file_name, "
        "coalesce(starts_with(created_by, 'DuckDB version '), false) AS counts_nan "
        f"FROM parquet_file_metadata({paths})) USING (file_name) GROUP BY nodes, counts_nan"
    )


def columns_sql(path: str) -> str:
    """Returns SQL of all nodes of one file, with what only `columns_of` asks for."""
    return (
        "SELECT list({'name': name, 'field_id': field_id, 'type': duckdb_type, "
        "'children': num_children, 'required': repetition_type = 'REQUIRED', "
        "'length': CASE WHEN type = 'FIXED_LEN_BYTE_ARRAY' THEN type_length END} "
        f"ORDER BY column_id) FROM parquet_schema({paths_sql([path])}) WHERE column_id > 0"
    )


def columns_of(nodes: Sequence[Node], path: str) -> Schema:
    """Returns all columns of one file as it has them, with its own names and types.

    Raises:
        InvalidError (kind "no-field-ids", "unsupported-type").
    """
    rest = iter(nodes)
    found = []
    for node in rest:
        _id_of(node, [path])
        found.append(_node(node, rest, [path], _exact_type))
    return Schema(tuple(column for column in found if column is not None))


def held_alike(files: Sequence[str], footer: Footer, schema: Schema) -> Held:
    """Returns how files of one layout hold the columns of `schema`.

    Raises:
        InvalidError (kind "no-field-ids"): a column, or a field within, has no id.
        InvalidError (kind "type-mismatch"): a column cannot be read as the table's type.
        InvalidError (kind "unsupported-type").
    """
    wanted = {column.id: column for column in schema.columns}
    rest = iter(footer.nodes)
    found: dict[int, Column] = {}
    plain: dict[int, str] = {}
    names: list[str] = []
    there: set[int] = set()
    for node in rest:
        field_id = _id_of(node, files)
        there.add(field_id)
        names.append(node["name"].lower())
        column = _node(node, rest, files, _read_type if field_id in wanted else None)
        if column is None:
            continue
        if _is_one_type(node["type"], wanted[field_id].sql_type):
            plain[field_id] = column.name
        if not is_readable(column, wanted[field_id]):
            raise InvalidError(
                f'File {files[0]} holds column "{column.name}" as {column.full_type}: expected '
                f"{wanted[field_id].full_type}. Write the file again with the table's type.",
                kind="type-mismatch",
                path=files[0],
            )
        if column.is_nested and not _is_alike(column, wanted[field_id]):
            found[field_id] = column
    lacked = frozenset(one.id for one in schema.columns if one.is_nested and one.id not in there)
    is_plain = not found and plain.keys() == wanted.keys() and len(names) == len(set(names))
    return Held(tuple(files), found, plain if is_plain else {}, lacked, footer.counts_nan)


@lru_cache(maxsize=1024)  # DuckDB takes a tenth of a millisecond, and tables have many columns
def _is_one_type(one: str, two: str) -> bool:
    """Whether two texts of DuckDB's are of one type, such as TIMESTAMPTZ by its long name."""
    import duckdb

    return one == two or duckdb.sqltype(one) == duckdb.sqltype(two)


def _read_type(node: Node) -> str:
    return iceberg_column(str(node["type"]), node["name"]).type


def _exact_type(node: Node) -> str:
    """As it is read, but bytes of one length are told apart."""
    kind = _read_type(node)
    return f"fixed[{node['length']}]" if kind == "binary" and node["length"] else kind


def _node(
    node: Node, rest: Iterator[Node], files: Sequence[str], type_of: _TypeOf | None
) -> Column | None:
    """Returns one column, its children taken from `rest`; None for one that nobody asks for."""
    kind, count = str(node["type"]), node["children"] or 0
    is_required = bool(node.get("required"))
    if not count:
        if type_of is None:
            return None
        return Column(node["field_id"], node["name"], type_of(node), is_required)
    type_ = "list" if kind.endswith("]") else "map" if kind.startswith("MAP(") else "struct"
    if type_ != "struct":
        # Parquet puts a repeated group without an id between a list or map and what it holds.
        group = next(rest)
        count = group["children"] or 0
    children = []
    for _ in range(count):
        child = next(rest)
        _id_of(child, files)
        children.append(_node(child, rest, files, type_of))
    if type_of is None:
        return None
    names = {"list": ("element",), "map": ("key", "value")}.get(type_)
    built = tuple(child for child in children if child is not None)
    if names:
        built = tuple(replace(child, name=name) for name, child in zip(names, built, strict=True))
    return Column(node["field_id"], node["name"], type_, is_required, children=built)


def _id_of(node: Node, files: Sequence[str]) -> int:
    if node["field_id"] is None:
        raise InvalidError(
            f'File {files[0]} has column "{node["name"]}" without a field id: expected ids in '
            "every file of a table. Write the file again through Instep.",
            kind="no-field-ids",
            path=files[0],
        )
    return int(node["field_id"])


def _is_alike(held: Column, column: Column) -> bool:
    """Whether DuckDB, which reads fields by name, would find those of `column`."""
    return len(held.children) == len(column.children) and all(
        (one.id, one.name) == (two.id, two.name) and _is_alike(one, two)
        for one, two in zip(held.children, column.children, strict=True)
    )
