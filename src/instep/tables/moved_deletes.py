"""Writes position delete files again when a lake has another root: they name data files by path.

Instep itself finds the data files wherever the lake is; other readers compare whole paths, and
would give back rows that were deleted. A new file counts as the one that it stands for, so a
content's digest stays. Deletion vectors name no file in themselves, and stay as they are.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

from instep.history.objects import write_durably
from instep.tables.addresses import plain_address
from instep.tables.copies import verified
from instep.tables.manifest import Entries

_PATH_ID = b"2147483546"
"""The field id that Iceberg reserves for the path in a position delete file."""


def renamed(folder: Path, entries: Entries, before: str, after: str) -> Entries:
    """Returns delete files, written anew, that name data files below `after` instead of `before`.

    Both are addresses of the table's folder; the files are in `folder`.
    """
    names, sizes, digests = list(entries.base.names), list(entries.base.sizes), entries.digests[:]
    origins = dict(entries.origins)
    for index, applies in enumerate(entries.base.applies):
        if applies.offset is not None:
            continue
        found = verified(folder / "data" / names[index], digests[index])
        data = _written(found, before, after)
        digest = hashlib.sha256(data).hexdigest()
        # Named by its bytes: states that shared a file share the new one.
        write_durably(folder / "data" / f"{digest[:32]}-deletes.parquet", data)
        origins.setdefault(index, (digests[index],))
        names[index], sizes[index] = f"{digest[:32]}-deletes.parquet", len(data)
        digests[index] = digest
    return Entries(
        replace(entries.base, names=names, sizes=sizes), digests, entries.columns, origins
    )


def _written(file: bytes, before: str, after: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(file))
    place = next(
        number
        for number, field in enumerate(table.schema)
        if (field.metadata or {}).get(b"PARQUET:field_id") == _PATH_ID
    )
    paths = [_moved(str(path), before, after) for path in table.column(place).to_pylist()]
    column = pa.array(paths, table.schema.field(place).type)
    told = io.BytesIO()
    pq.write_table(table.set_column(place, table.schema.field(place), column), told)
    return told.getvalue()


def _moved(path: str, before: str, after: str) -> str:
    plain = plain_address(path)
    return f"{after}/{plain.removeprefix(f'{before}/')}" if plain.startswith(f"{before}/") else path
