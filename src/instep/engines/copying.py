"""Copies the rows of a SELECT into Parquet files with field ids; nothing is durable yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import duckdb

from instep.engines.conform import check_required, rules_within
from instep.engines.engine import WrittenFile
from instep.engines.layout import (
    PLAIN,
    Layout,
    order_by,
    partition_columns,
    partition_names,
    partition_of,
)
from instep.engines.reading import parquet_sql
from instep.engines.schema import Column, Schema, literal, quoted
from instep.engines.statistics import file_statistics

_ONE_FILE = "FILE_SIZE_BYTES '1TB'"

ROW_GROUP_ROWS = 122_880
"""DuckDB's own number of rows in a row group."""


def copied(
    connection: duckdb.DuckDBPyConnection,
    select: str,
    schema: Schema,
    out: Path,
    target_bytes: int,
    layout: Layout,
) -> list[WrittenFile]:
    """Copies rows into files: one pass, and a second over each partitioned file to sort it.

    DuckDB keeps a sort order within a file, but not when it also partitions.
    """
    order = order_by(layout.sort, schema)
    if not layout.partition:
        return _copied(connection, f"{select}{order}", schema, out, _at_most(target_bytes))
    columns = ", ".join(partition_columns(layout, schema))
    split = f"SELECT *, {columns} FROM ({select})"
    names = ", ".join(partition_names(layout, schema))
    options = f"{_at_most(target_bytes)}, PARTITION_BY ({names})"
    found = _copied(connection, split, schema, out, options, layout)
    if not order:
        return found
    listed = ", ".join(quoted(name) for name in schema.names)
    done = []
    for number, one in enumerate(found):
        query = f"SELECT {listed} FROM {parquet_sql([one.path])}{order}"
        (file,) = _copied(connection, query, schema, out / f"sorted-{number}", _ONE_FILE)
        Path(one.path).unlink()
        done.append(replace(file, partition=one.partition))
    return done


def copied_as_one(
    connection: duckdb.DuckDBPyConnection,
    select: str,
    schema: Schema,
    out: Path,
    row_group_rows: int = ROW_GROUP_ROWS,
) -> WrittenFile:
    """Copies rows, at least one, into one file; all its row groups but the last have so many."""
    options = f"{_ONE_FILE}, ROW_GROUP_SIZE {row_group_rows}"
    (file,) = _copied(connection, select, schema, out, options)
    return file


def check_copied(
    connection: duckdb.DuckDBPyConnection, schema: Schema, files: Sequence[WrittenFile]
) -> None:
    """Holds that files have what the schema requires of their values.

    Raises:
        InvalidError (kinds "null-in-required", "type-mismatch").
    """
    check_required(schema, [one.columns for one in files])
    rules = rules_within(schema)  # of which statistics do not tell
    if not rules or not files:
        return
    counts = ", ".join(f"count(*) FILTER (WHERE {rule.condition})" for rule in rules)
    source = parquet_sql(one.path for one in files)
    (row,) = connection.execute(f"SELECT {counts} FROM {source}").fetchall()
    for rule, rows in zip(rules, row, strict=True):
        if rows:
            raise rule.broken(rule.column, rows)


def _at_most(target_bytes: int) -> str:
    return f"FILE_SIZE_BYTES {target_bytes}"


def _copied(
    connection: duckdb.DuckDBPyConnection,
    select: str,
    schema: Schema,
    out: Path,
    options: str,
    layout: Layout = PLAIN,
) -> list[WrittenFile]:
    """Copies rows into a folder; the files have no digest yet."""
    ids = ", ".join(f"{quoted(column.name)}: {_ids(column)}" for column in schema.columns)
    written = connection.execute(
        f"COPY ({select}) TO {literal(str(out))} (FORMAT parquet, COMPRESSION zstd, "
        f"FIELD_IDS {{{ids}}}, {options}, RETURN_STATS)"
    ).fetchall()
    return [
        WrittenFile(
            row[0], row[1], row[2], "", file_statistics(row[4], schema),
            partition_of(layout, schema, row[5] or {}),
        )
        for row in written
        if row[1]
    ]  # fmt: skip


def _ids(column: Column) -> str:
    """The field ids of a column and of what is in it, as COPY wants them."""
    if not column.is_nested:
        return str(column.id)
    inner = "".join(f", {quoted(child.name)}: {_ids(child)}" for child in column.children)
    return f"{{__duckdb_field_id: {column.id}{inner}}}"
