"""Writes a Parquet file anew with values of fixed length as such, which DuckDB cannot.

DuckDB writes every BLOB with a length of its own, and other readers of Iceberg refuse that where
a column is fixed[n]. Streams: one batch of rows is in memory at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from instep.engines.schema import Column, Schema, fixed_length

if TYPE_CHECKING:
    import pyarrow as pa


def has_fixed(schema: Schema) -> bool:
    """Returns whether a column, or a field within, has values of fixed length."""
    return any(fixed_length(column.type) for column in schema.fields())


def write_fixed(path: Path, schema: Schema) -> int:
    """Writes the file at `path` anew with fixed lengths, and returns its new size in bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    other = path.with_suffix(".fixed")
    with pq.ParquetFile(path) as file:
        columns = zip(file.schema_arrow, schema.columns, strict=True)
        target = pa.schema([_fixed(found, column) for found, column in columns])
        with pq.ParquetWriter(other, target, compression="zstd") as writer:
            for batch in file.iter_batches():
                writer.write_batch(batch.cast(target))
    other.replace(path)
    return path.stat().st_size


def _fixed(found: pa.Field[Any], column: Column) -> pa.Field[Any]:  # of any type
    """The Arrow field as it was found, its binary parts of the lengths that `column` says."""
    import pyarrow as pa

    inner = [found.type.field(n) for n in range(found.type.num_fields)]
    match column.type:
        case "struct":
            pairs = zip(inner, column.children, strict=True)
            return found.with_type(pa.struct([_fixed(one, child) for one, child in pairs]))
        case "list":
            return found.with_type(pa.list_(_fixed(inner[0], column.children[0])))
        case "map":
            key, value = column.children
            kind = found.type
            return found.with_type(
                pa.map_(_fixed(kind.key_field, key), _fixed(kind.item_field, value))
            )
        case _:
            length = fixed_length(column.type)
            return found.with_type(pa.binary(length)) if length else found
