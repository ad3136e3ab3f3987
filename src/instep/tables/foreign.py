"""What another writer's manifests and Parquet files say, in the forms that Instep keeps.

Reads with pyiceberg and pyarrow, which are imported here only when something was written by others.
Bounds become texts; where one is left out, nothing is known, and planning prunes nothing by it.
How many values and nulls a column has is taken from the Parquet file itself, how many NaNs from
the manifest; a count that is left out there is not known either.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instep.engines.engine import ColumnStatistics, WrittenFile
from instep.errors import InvalidError
from instep.history.places import at_hand, drop_copy, on_s3
from instep.tables.addresses import name_below
from instep.tables.manifest import Applies, Partition
from instep.tables.partition import Spec

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ColumnChunkMetaData
    from pyiceberg.manifest import DataFile, ManifestFile

_PATH_ID = 2147483546
"""The field id that Iceberg reserves for the path in a position delete file."""

_RESERVED = 2147483447
"""From here on field ids are Iceberg's own, such as that of a row's id in version 3: no columns."""

_DAY = 24 * 60 * 60 * 1_000_000
"""In microseconds: no time of day is so late, whatever a file holds."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Bounds = Mapping[int, tuple[bytes | None, bytes | None]]
"""The lowest and highest value of columns by field id, in Iceberg's single-value form."""


@dataclass(frozen=True, slots=True)
class Told:
    """One live file as a manifest tells of it; `name` is its path below the data folder.

    `applies` is None for a data file.
    """

    name: str
    rows: int
    size_bytes: int
    snapshot_id: int
    sequence_number: int
    is_added: bool
    partition: Partition
    applies: Applies | None
    nans: Mapping[int, int]
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class Leaf:
    """What the footer of a Parquet file says of one column that is not nested.

    `nulls` is None where a row group does not tell.
    """

    field_id: int
    size_bytes: int
    values: int
    nulls: int | None


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it is: its digest, and for Parquet its rows and columns.

    `layout` is how it describes its columns, the same text for files that do so alike.
    """

    digest: str
    size_bytes: int
    rows: int
    leaves: tuple[Leaf, ...]
    field_ids: frozenset[int]
    layout: str


def manifest_files(path: Path) -> list[ManifestFile]:
    """Returns the manifests that a manifest list names."""
    from pyiceberg.io.pyarrow import PyArrowFileIO
    from pyiceberg.manifest import read_manifest_list

    return list(read_manifest_list(PyArrowFileIO().new_input(str(at_hand(path)))))


def load_told(folder: Path, path: Path, manifest: ManifestFile, spec: Spec) -> list[Told]:
    """Returns the live files of one manifest of the table in `folder`.

    Raises:
        InvalidError (kind "equality-deletes"): it deletes rows by their values.
        InvalidError (kind "foreign-file"): a file lies elsewhere, or is not Parquet.
    """
    from pyiceberg.avro.file import AvroFile
    from pyiceberg.io.pyarrow import PyArrowFileIO
    from pyiceberg.manifest import (
        MANIFEST_ENTRY_SCHEMAS,
        DataFile,
        DataFileContent,
        FileFormat,
        ManifestEntry,
        ManifestEntryStatus,
    )

    found = []
    # pyiceberg's own reader leaves out what only version 3 has: where a deletion vector lies.
    with AvroFile[ManifestEntry](
        PyArrowFileIO().new_input(str(at_hand(path))),
        MANIFEST_ENTRY_SCHEMAS[3],
        read_types={-1: ManifestEntry, 2: DataFile},
        read_enums={0: ManifestEntryStatus, 101: FileFormat, 134: DataFileContent},
    ) as entries:
        for entry in entries:
            if entry.status == ManifestEntryStatus.DELETED:
                continue
            file = entry.data_file
            if file.content == DataFileContent.EQUALITY_DELETES:
                raise equality_deletes(folder.name)
            sequence, snapshot = entry.sequence_number, entry.snapshot_id
            found.append(
                Told(
                    name=name_below(folder / "data", file.file_path),
                    rows=file.record_count,
                    size_bytes=file.file_size_in_bytes,
                    snapshot_id=manifest.added_snapshot_id or 0 if snapshot is None else snapshot,
                    sequence_number=manifest.sequence_number if sequence is None else sequence,
                    is_added=entry.status == ManifestEntryStatus.ADDED,
                    partition=_partition(spec, file.partition),
                    applies=_applies(folder, file),
                    nans=file.nan_value_counts or {},
                    bounds=_bounds(file),
                )
            )
            _check_format(file, found[-1])
    return found


def equality_deletes(table: str) -> InvalidError:
    return InvalidError(
        f"Table {table} has equality deletes: expected rows deleted by their position, or files "
        "written anew. Have the writer use copy-on-write or position deletes.",
        kind="equality-deletes",
        table=table,
    )


def seen(path: Path, *, is_data: bool) -> Seen:
    """Returns what a file is, read once from front to back, and makes it durable.

    Of one on S3 a copy is brought: what an earlier one here holds is not believed.

    Raises:
        InvalidError (kind "no-field-ids"): a column of a data file has no field id.
        InvalidError (kind "damaged-file"): it is not there, or is no Parquet file.
    """
    drop_copy(path)
    try:
        local = at_hand(path)
        with local.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            if on_s3(path) is None:
                os.fsync(file.fileno())
    except FileNotFoundError:
        raise _damaged(path, "it is not there") from None
    if not is_data:
        return Seen(digest, size, 0, (), frozenset(), "")
    rows, leaves, ids, layout = _footer(path, local)
    return Seen(digest, size, rows, leaves, ids, layout)


def written_file(folder: Path, told: Told, found: Seen, kinds: Mapping[int, str]) -> WrittenFile:
    """Returns the record of a live file; `kinds` are the types of fields that are not nested.

    Raises:
        InvalidError (kind "damaged-file"): the file is not what the manifest says.
    """
    path = folder / "data" / told.name
    for what, expected, actual in (
        ("bytes", told.size_bytes, found.size_bytes),
        ("rows", told.rows, found.rows if told.applies is None else told.rows),
    ):
        if expected != actual:
            raise _damaged(path, f"it has {actual} {what}, and its manifest says {expected}")
    columns = tuple(
        ColumnStatistics(
            leaf.field_id,
            leaf.size_bytes,
            leaf.values,
            leaf.nulls,
            _nans(kinds.get(leaf.field_id), told.nans.get(leaf.field_id)),
            *_bound_texts(kinds.get(leaf.field_id), told.bounds.get(leaf.field_id)),
        )
        for leaf in found.leaves
    )
    return WrittenFile(
        str(path), told.rows, found.size_bytes, found.digest, columns, told.partition
    )


def value_text(kind: str, value: Any) -> str | None:  # as pyiceberg gives values of a type
    """Returns a value as statistics have it; None for what they leave out: NaN, far years."""
    match kind:
        case "boolean":
            return "true" if value else "false"
        case "int" | "long":
            return str(int(value))
        case "float" | "double":
            return None if math.isnan(value) else repr(float(value))
        case "date":
            return _day(value)
        case "time":
            return _moment(int(value), "time")
        case "timestamp" | "timestamptz":
            return _moment(int(value), kind)
        case "uuid":
            return str(value if isinstance(value, uuid.UUID) else uuid.UUID(bytes=bytes(value)))
        case "string":
            return str(value)
        case _ if kind.startswith("decimal"):
            return format(value, "f")
        case _:
            return bytes(value).hex().upper()


def _day(value: int | date) -> str | None:
    if isinstance(value, date):
        return value.isoformat()
    try:
        return (_EPOCH.date() + timedelta(days=value)).isoformat()
    except OverflowError:
        return None


def _moment(microseconds: int, kind: str) -> str | None:
    if kind == "time" and microseconds >= _DAY:
        return None
    try:
        at = _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return None
    match kind:
        case "time":
            return at.time().isoformat()
        case "timestamp":
            return at.replace(tzinfo=None).isoformat()
        case _:
            return at.isoformat()


def _partition(spec: Spec, values: Any) -> Partition:  # a pyiceberg Record
    return tuple(
        None if value is None else _partition_text(field.result, value)
        for field, value in zip(spec.fields, list(values)[: len(spec.fields)], strict=True)
    )


def _partition_text(kind: str, value: Any) -> str:  # as above
    if kind in ("float", "double"):
        return repr(float(value))
    text = value_text(kind, value)
    if text is None:
        raise InvalidError(
            f"A file has the partition {value!r} of type {kind}: expected a value that Instep can "
            "hold. Write its rows into another table.",
            kind="unsupported-type",
            type=kind,
        )
    return text


def _applies(folder: Path, file: DataFile) -> Applies | None:
    from pyiceberg.manifest import DataFileContent

    if file.content == DataFileContent.DATA:
        return None
    # Found by place: pyiceberg's record has names only for what version 2 knows.
    referenced, offset, length = file[len(file) - 3], file[len(file) - 2], file[len(file) - 1]
    if referenced is None:
        lower = (file.lower_bounds or {}).get(_PATH_ID)
        upper = (file.upper_bounds or {}).get(_PATH_ID)
        referenced = lower.decode() if lower and lower == upper else None
    data_file = None if referenced is None else name_below(folder / "data", referenced)
    return Applies(data_file, offset, length)


def _bounds(file: DataFile) -> Bounds:
    lowers, uppers = file.lower_bounds or {}, file.upper_bounds or {}
    return {one: (lowers.get(one), uppers.get(one)) for one in {*lowers, *uppers}}


def _nans(kind: str | None, told: int | None) -> int | None:
    return told if kind in (None, "float", "double") else 0


def _bound_texts(
    kind: str | None, bounds: tuple[bytes | None, bytes | None] | None
) -> tuple[str | None, str | None]:
    if kind is None or bounds is None:
        return None, None
    return _bound_text(kind, bounds[0]), _bound_text(kind, bounds[1])


def _bound_text(kind: str, bound: bytes | None) -> str | None:
    from pyiceberg.conversions import from_bytes
    from pyiceberg.types import NestedField

    if bound is None:
        return None
    parsed: Any = NestedField(1, "bound", kind).field_type  # a PrimitiveType, as `kind` is one's
    try:
        return value_text(kind, from_bytes(parsed, bound))
    except (ValueError, ArithmeticError, struct.error):
        return None  # another type's bytes, from before a promotion, or a text cut in a letter


def _check_format(file: DataFile, told: Told) -> None:
    wanted = "PUFFIN" if told.applies and told.applies.offset is not None else "PARQUET"
    if file.file_format.value != wanted:
        raise InvalidError(
            f"File {file.file_path} is {file.file_format.value}: expected {wanted}. "
            'Set the table\'s property "write.format.default" to "parquet".',
            kind="foreign-file",
            path=file.file_path,
        )


def _footer(path: Path, local: Path) -> tuple[int, tuple[Leaf, ...], frozenset[int], str]:
    """Returns rows, columns, all field ids and the layout of a Parquet file, read at `local`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(local) as file:
            metadata, schema = file.metadata, file.schema_arrow
            layout = repr(file.schema).partition("\n")[2]  # behind the address in memory
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, str(error)) from error
    ids: set[int] = set()
    leaves = [field_id for field in schema for field_id in _leaf_ids(path, field, ids)]
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    found = []
    for place, field_id in enumerate(leaves):
        if field_id >= _RESERVED:
            continue
        chunks = [group.column(place) for group in groups]
        found.append(
            Leaf(
                field_id,
                sum(one.total_compressed_size for one in chunks),
                sum(one.num_values for one in chunks),
                _nulls(chunks),
            )
        )
    own = frozenset(one for one in ids if one < _RESERVED)
    return metadata.num_rows, tuple(found), own, layout


def _nulls(chunks: Sequence[ColumnChunkMetaData]) -> int | None:
    found = [one.statistics.null_count if one.statistics else None for one in chunks]
    return None if None in found else sum(one for one in found if one is not None)


def _leaf_ids(path: Path, field: pa.Field[Any], ids: set[int]) -> Iterator[int]:
    """Yields the ids of what is not nested, in Parquet's order, and gathers all ids."""
    import pyarrow as pa

    text = (field.metadata or {}).get(b"PARQUET:field_id")
    if text is None:
        raise InvalidError(
            f'File {path} has column "{field.name}" without a field id: expected ids in '
            "every file of a table. Write the file again through Instep.",
            kind="no-field-ids",
            path=str(path),
        )
    ids.add(int(text))
    if pa.types.is_map(field.type):
        inner = [field.type.key_field, field.type.item_field]
    elif pa.types.is_struct(field.type):
        inner = list(field.type)
    elif pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
        inner = [field.type.value_field]
    else:
        yield int(text)
        return
    for one in inner:
        yield from _leaf_ids(path, one, ids)


def _damaged(path: Path, why: str) -> InvalidError:
    return InvalidError(
        f"File {path} cannot be taken into the table: {why}. Expected a Parquet file as its "
        "manifest tells of it. Write it again.",
        kind="damaged-file",
        path=str(path),
    )
