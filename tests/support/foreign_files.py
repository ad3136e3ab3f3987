"""Data files as another writer puts them into a table: written by pyarrow, added by pyiceberg."""

from __future__ import annotations

import io
import uuid
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table
from pyiceberg.typedef import Record

Bounds = dict[int, bytes]
"""The lowest or highest values that a manifest tells, by field id."""


def add_file(
    table: Table,
    rows: pa.Table,
    *,
    name: str | None = None,
    lowers: Bounds | None = None,
    uppers: Bounds | None = None,
    **options: Any,  # those of pyarrow's writer
) -> None:
    """Commits a file of `rows`, whose columns get the ids that the table has for their names."""
    schema = pa.schema([_with_id(table, field) for field in rows.schema])
    parquet = io.BytesIO()
    pq.write_table(rows.cast(schema), parquet, **options)
    path = f"{table.location()}/data/{name or uuid.uuid4().hex}.parquet"
    with table.io.new_output(path).create() as output:
        output.write(parquet.getvalue())
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=rows.num_rows,
        file_size_in_bytes=len(parquet.getvalue()),
        lower_bounds=lowers or {},
        upper_bounds=uppers or {},
    )
    with table.transaction() as tx, tx.update_snapshot().fast_append() as snapshot:
        snapshot.append_data_file(file)


def _with_id(table: Table, field: pa.Field[Any]) -> pa.Field[Any]:
    field_id = table.schema().find_field(field.name).field_id
    return field.with_metadata({"PARQUET:field_id": str(field_id)})
