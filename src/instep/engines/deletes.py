"""Answers which rows of data files are deleted, from position delete files and deletion vectors.

Equality deletes are not here: a table that has any is refused where its state is read.
Source: https://iceberg.apache.org/spec/ (position deletes), https://iceberg.apache.org/puffin-spec/
(blob type "deletion-vector-v1").
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from instep.engines.engine import DeleteFile
from instep.engines.reading import parquet_sql
from instep.engines.schema import literal
from instep.errors import InvalidError

_SCHEME = "^file:(//)?"
_ROOT = "^.*/([0-9a-f]{8}-[0-9a-f-]{27}/data/)"

_MAGIC = bytes.fromhex("d1d33964")


def position_files(deletes: Mapping[str, Sequence[DeleteFile]]) -> tuple[str, ...]:
    """Returns the Parquet files among the deletes of a file set."""
    found = {one.path for some in deletes.values() for one in some if one.offset is None}
    return tuple(sorted(found))


def positions_sql(paths: Sequence[str], data_files: Iterable[str]) -> str:
    """Returns SQL of (file, pos) of the deleted rows that Parquet delete files list.

    Columns are found by the ids that Iceberg reserves for them. A delete file names a data file as
    it was called where it was written; a lake that was moved, or is read from copies, has it under
    another root. So what counts of a path is what begins with the table's UUID, where it has one.
    """
    rows = parquet_sql(
        paths,
        "schema = MAP {2147483546: {name: 'file', type: 'VARCHAR', default_value: NULL}, "
        "2147483545: {name: 'pos', type: 'BIGINT', default_value: NULL}}",
    )
    known = ", ".join(f"({literal(path)}, {literal(in_lake(path))})" for path in data_files)
    plain = f"regexp_replace(file, {literal(_SCHEME)}, '')"
    return (
        f"SELECT known.path AS file, pos FROM {rows} "
        f"JOIN (VALUES {known}) AS known(path, name) "
        f"ON known.name = regexp_replace({plain}, {literal(_ROOT)}, '\\1')"
    )


def in_lake(path: str) -> str:
    """Returns what is left of a data file's path in a lake that is moved or copied."""
    return re.sub(_ROOT, r"\1", re.sub(_SCHEME, "", path))


def vector_positions(delete: DeleteFile) -> list[int]:
    """Returns the positions in one deletion vector, in their order.

    Raises:
        InvalidError (kind "damaged-file"): the bytes are not a deletion vector.
    """
    assert delete.offset is not None and delete.length is not None, "a deletion vector has a place"
    with Path(delete.path).open("rb") as file:
        file.seek(delete.offset)
        blob = file.read(delete.length)
    if not _is_vector(blob):
        raise InvalidError(
            f"File {delete.path} holds no deletion vector at byte {delete.offset}: expected one "
            f"of {delete.length} bytes. Restore the file from a backup.",
            kind="damaged-file",
            path=delete.path,
        )
    return _decoded(blob[8:-4])


def _is_vector(blob: bytes) -> bool:
    """Length, magic, bitmaps and CRC-32: the length counts magic and bitmaps, as the CRC does."""
    return (
        len(blob) >= 20
        and int.from_bytes(blob[:4], "big") == len(blob) - 8
        and blob[4:8] == _MAGIC
        and int.from_bytes(blob[-4:], "big") == zlib.crc32(blob[4:-4])
    )


def _decoded(data: bytes) -> list[int]:
    """Roaring's portable form for 64 bits: the high 32 bits, then a bitmap of the low ones."""
    from pyroaring import BitMap64

    return list(BitMap64.deserialize(data))
