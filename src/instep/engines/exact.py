"""Writes some rows of a Parquet file again, their columns exactly as they are in it.

DuckDB says of a column that it may be null, or not, by what its plan happens to know of the rows,
and knows no bytes of one length. Streams: one batch of rows is in memory at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def write_rows_of(
    base: Path,
    places: pa.ChunkedArray[Any],  # of whole numbers
    target: Path,
) -> int:
    """Writes the rows at these places of `base`, in its order; returns the bytes of the file."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(base, coerce_int96_timestamp_unit="us") as file:
        is_wanted = np.zeros(file.metadata.num_rows, bool)
        for chunk in places.chunks:
            is_wanted[chunk.to_numpy()] = True
        with pq.ParquetWriter(target, file.schema_arrow, compression="zstd") as writer:
            start = 0
            for batch in file.iter_batches():
                end = start + batch.num_rows
                writer.write_batch(batch.filter(pa.array(is_wanted[start:end])))
                start = end
    return target.stat().st_size
