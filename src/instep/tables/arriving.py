"""Which rows that somebody has in Python can enter a table: anything that gives Arrow, as a stream.

Values stay what they are, or are refused: what DuckDB cannot read, and nanoseconds, which no type
of a table holds, are cast to the nearest type that can, and that fails where a value would change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instep.engines.schema import check_names
from instep.errors import InvalidError

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_DIGITS = 38
"""Of a decimal, in Iceberg."""


def stream_of(rows: Any) -> pa.RecordBatchReader:  # of any library
    """Returns rows as a stream of Arrow batches, which is read once.

    Raises:
        InvalidError (kind "not-rows"): they give no Arrow.
        InvalidError (kinds "bad-column-name", "repeated-column", "unsupported-type").
    """
    import pyarrow as pa

    try:
        stream = pa.RecordBatchReader.from_stream(rows)
    except TypeError:
        raise InvalidError(
            f"Rows are a {type(rows).__name__}: expected SQL, or what gives Arrow, such as a "
            "pyarrow, polars or pandas table or a DuckDB relation. Convert them.",
            kind="not-rows",
        ) from None
    # DuckDB would give these other names, and say nothing.
    check_names(zip(stream.schema.names, stream.schema.names, strict=True))
    wanted = pa.schema(
        [field.with_type(_held_as(field.type, field.name)) for field in stream.schema]
    )
    return stream if wanted.equals(stream.schema) else stream.cast(wanted)


def _held_as(kind: pa.DataType, path: str) -> pa.DataType:
    """Returns the Arrow type as which DuckDB can read values of a type, and a table hold them."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_time64(kind) and kind.unit == "ns":
        return pa.time64("us")
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_decimal256(kind):
        if kind.precision > _MOST_DIGITS:
            raise _unsupported(path, str(kind), f"at most {_MOST_DIGITS} digits")
        return pa.decimal128(kind.precision, kind.scale)
    if pa.types.is_struct(kind):
        if not kind.num_fields:
            raise _unsupported(path, "a struct without fields", "at least one field")
        return pa.struct([_field(kind.field(n), path) for n in range(kind.num_fields)])
    if pa.types.is_list(kind):
        return pa.list_(_field(kind.value_field, path))
    if pa.types.is_large_list(kind):
        return pa.large_list(_field(kind.value_field, path))
    if pa.types.is_map(kind):
        key, item = _field(kind.key_field, path), _field(kind.item_field, path)
        pairs: pa.DataType = pa.map_(key, item)  # type: ignore[call-overload]  # stubs lack fields
        return pairs
    return kind


def _field(field: pa.Field[Any], path: str) -> pa.Field[Any]:  # of any type
    return field.with_type(_held_as(field.type, f"{path}.{field.name}"))


def _unsupported(path: str, found: str, expected: str) -> InvalidError:
    return InvalidError(
        f'Column "{path}" is {found}: expected {expected}. Cast the column, or leave it out.',
        kind="unsupported-type",
        column=path,
    )
