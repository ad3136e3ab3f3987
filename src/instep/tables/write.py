"""Makes new states of a table: create, append, replace files, change columns.

Each act takes a state and returns another; nothing existing is touched, so a state that is never
committed is garbage and harms nobody. Everything is durable before a content is returned.
Layout: `tables/<uuid>/data/*.parquet`, `tables/<uuid>/metadata/*`, `tables/<uuid>/profiles/*`.
Deletes of single rows are not here: a file is replaced as a whole.
"""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from instep.canonical import to_microseconds
from instep.engines.engine import DeleteFile, WrittenFile
from instep.engines.schema import Column, Schema
from instep.errors import InternalError, InvalidError
from instep.history.objects import make_folder_durably
from instep.tables.columns import (
    Change,
    check_columns,
    current_schema,
    evolved,
    renamed,
    with_ids,
)
from instep.tables.content import TableContent
from instep.tables.copies import load_base
from instep.tables.field_ids import new_ids
from instep.tables.iceberg import (
    Metadata,
    new_metadata,
    with_current_alone,
    with_layout,
    with_schema,
)
from instep.tables.manifest import Manifest
from instep.tables.partition import Order, Part, Spec, make_order, make_spec
from instep.tables.read import (
    current_snapshot,
    files_digest,
    load_manifests,
    table_folder,
)
from instep.tables.relocate import metadata_here
from instep.tables.small_files import SMALL_BYTES, SMALL_FILES, STANDS_FOR, small_files
from instep.tables.snapshot import (
    Counts,
    Pending,
    Writer,
    deletes_to_drop,
    digest_of_files,
    places_of,
    save,
)
from instep.tables.specs import orders_of, specs_of

_NAME = re.compile(r"[a-z_][a-z0-9_]*")


def check_table_name(name: str) -> None:
    """Holds that a table can have this name.

    Raises:
        InvalidError (kind "bad-name").
    """
    if not _NAME.fullmatch(name):
        raise InvalidError(
            f'Table name "{name}" is not allowed: expected small letters, digits and _, not '
            "beginning with a digit. Choose another name.",
            kind="bad-name",
            name=name,
        )


def create_table(
    root: Path,
    name: str,
    columns: Sequence[Column],
    *,
    at: datetime,
    partition: Sequence[Part] = (),
    sort: Sequence[Order] = (),
) -> TableContent:
    """Returns a new table without rows; its columns get the field ids 1 to n, in their order.

    Raises:
        InvalidError (kind "bad-name", "repeated-column", "unsupported-type", "no-such-column",
            "bad-transform").
    """
    check_table_name(name)
    schema = Schema(with_ids(columns, itertools.count(1)))
    check_columns(schema)
    table = str(uuid.uuid4())
    folder = make_table_folder(root, table)
    spec = make_spec(0, partition, schema, ())
    order = make_order(1 if sort else 0, sort, schema)
    metadata = new_metadata(table, str(folder), schema, spec, order, to_microseconds(at) // 1000)
    return save(root, table, metadata, files_digest(()), {})


def make_table_folder(root: Path, table: str) -> Path:
    """Returns the folder of a new table, made durably."""
    folder = root / "tables" / table
    for part in ("data", "metadata", "profiles"):
        make_folder_durably(folder / part)
    return folder


def data_folder(root: Path, content: TableContent) -> Path:
    """Returns the folder into which an engine writes files for `append` and `replace`."""
    return table_folder(root, content) / "data"


def append(
    root: Path, content: TableContent, files: Sequence[WrittenFile], *, at: datetime
) -> TableContent:
    """Returns the table with `files` added; they must lie in its data folder, durable.

    The same files can be appended again to a newer state: an append is an operation, not a value.

    Raises:
        InternalError (kind "misplaced-file").
    """
    return replace(root, content, files, (), at=at)


def replace(
    root: Path,
    content: TableContent,
    added: Sequence[WrittenFile],
    removed: Collection[str],
    *,
    at: datetime,
    deletes: Sequence[DeleteFile] = (),
) -> TableContent:
    """Returns the table without the files `removed` (absolute paths) and with `added`.

    `deletes` are new delete files, each of one data file of this state. A delete file goes with its
    data file, or as soon as no file is left that it could apply to.

    Raises:
        ConflictError (kind "file-not-live"): one of `removed`, or the data file of a delete file,
            is not in this state.
        InternalError (kind "misplaced-file").
        InternalError (kind "other-partition"): a file was laid out by another partition spec.
    """
    if not added and not removed and not deletes:
        return content
    return _with_files(root, content, added, removed, deletes, at, is_rewriting=False)


def rewritten(
    root: Path,
    content: TableContent,
    added: Sequence[WrittenFile],
    removed: Collection[str],
    *,
    at: datetime,
    keeps_past: bool = False,
    specs: Mapping[str, int] = MappingProxyType({}),
) -> TableContent:
    """Returns what may stand for a state: other files, under metadata that knows no older snapshot.

    For compaction and erasure: snapshots of other commits would keep the files that went. With
    `keeps_past` it knows them, and says which it stands for: a client may hold that one. `specs`
    has the ids of the partition specs of added files, by path, that were not laid out as new ones.

    Raises:
        ConflictError (kind "file-not-live").
        InternalError (kinds "misplaced-file", "other-partition").
    """
    return _with_files(
        root, content, added, removed, (), at, is_rewriting=True, keeps_past=keeps_past, specs=specs
    )


def _with_files(
    root: Path,
    content: TableContent,
    added: Sequence[WrittenFile],
    removed: Collection[str],
    deletes: Sequence[DeleteFile],
    at: datetime,
    *,
    is_rewriting: bool,
    keeps_past: bool = True,
    specs: Mapping[str, int] = MappingProxyType({}),
) -> TableContent:
    metadata = metadata_here(root, content)
    folder = table_folder(root, content)
    _check_placed(folder, [*(one.path for one in added), *(one.path for one in deletes)])
    manifests = [one for one in load_manifests(folder, metadata) if one.live_files]
    writer = Writer(folder, metadata)
    places = places_of(folder, manifests, removed)
    gone = deletes_to_drop(folder, manifests, places)
    places |= gone
    kept: list[Manifest | Pending] = [
        _without(writer, one, places.get(number, ()), keeps_past)
        for number, one in enumerate(manifests)
    ]
    kept = [one for one in kept if isinstance(one, Manifest) or one.marked]
    by_spec: dict[int, list[WrittenFile]] = {}
    for file in added:
        by_spec.setdefault(specs.get(file.path, metadata["default-spec-id"]), []).append(file)
    for spec_id, files in by_spec.items():
        _check_partitioned(files, writer.specs[spec_id])
        kept.append(writer.added(files, writer.specs[spec_id]))
    kept += writer.deletes(manifests, deletes)
    summary = _summary(
        metadata,
        (_counts_of(added), _counts_at(folder, manifests, places, is_deletes=False)),
        (_counts_of(deletes), _counts_at(folder, manifests, places, is_deletes=True)),
    )
    if is_rewriting:
        summary["operation"] = "replace"
    if is_rewriting and keeps_past:
        summary[STANDS_FOR] = str(metadata["current-snapshot-id"])
    after = writer.snapshot(writer.merged(kept), summary, to_microseconds(at) // 1000)
    if not keeps_past:
        after = with_current_alone(after)
    return writer.save(root, content.uuid, after, digest_of_files(folder, kept))


def _without(
    writer: Writer, manifest: Manifest, indexes: Collection[int], keeps_past: bool
) -> Manifest | Pending:
    """A snapshot without a past says nothing of files that went."""
    if not keeps_past and (indexes or manifest.deleted[0]):
        return writer.only(manifest, indexes)
    return writer.without(manifest, indexes) if indexes else manifest


def set_columns(
    root: Path,
    content: TableContent,
    columns: Sequence[Column],
    *,
    at: datetime,
    anew: Collection[str] = (),
) -> TableContent:
    """Returns the table with `columns`: a known name keeps its field id, a new one gets a new id.

    So does one named in `anew`, whose rows the caller writes anew. Ids given in `columns` are
    ignored. Data files are not touched: a new column reads as null in old rows. An id is never used
    twice in a table's life, whatever the branch.

    Raises:
        InvalidError (kind "repeated-column", "unsupported-type").
        InvalidError (kind "type-mismatch"): a column's type cannot be read from the old files.
        InvalidError (kind "null-in-required"): a new column is required, but old rows lack it.
    """

    def change(schema: Schema, ids: Iterator[int]) -> Schema:
        has_rows = current_snapshot(metadata_here(root, content)) is not None
        return evolved(schema, columns, ids, has_rows=has_rows, anew=anew)

    return evolve(root, content, change, at=at)


def rename_column(
    root: Path, content: TableContent, before: str, after: str, *, at: datetime
) -> TableContent:
    """Returns the table with one column under another name; its field id stays.

    Raises:
        InvalidError (kind "no-such-column", "repeated-column", "bad-column-name").
    """
    return evolve(root, content, lambda schema, _: renamed(schema, before, after), at=at)


def evolve(root: Path, content: TableContent, change: Change, *, at: datetime) -> TableContent:
    """Returns the table with its columns changed by functions of `columns`; no file is touched.

    New field ids are reserved as they are taken: none is used twice in a table's life, whatever
    the branch.

    Raises: as `change`.
    """
    metadata = metadata_here(root, content)
    before = current_schema(metadata)
    folder = table_folder(root, content)
    after = change(before, new_ids(folder, metadata["last-column-id"]))
    if after == before:
        return content
    return _with_schema(root, content, metadata, after, at)


def redefined(root: Path, content: TableContent, metadata: Metadata) -> TableContent:
    """Returns the table under metadata that defines it anew; its files are as they were."""
    if metadata == metadata_here(root, content):
        return content
    return save(root, content.uuid, metadata, content.files, {})


def check_layout(root: Path, content: TableContent) -> None:
    """Holds that the columns are there by which new files are partitioned and sorted.

    Raises:
        InvalidError (kind "column-in-layout").
    """
    metadata = metadata_here(root, content)
    spec = specs_of(metadata)[metadata["default-spec-id"]]
    order = orders_of(metadata)[metadata["default-sort-order-id"]]
    there = {field.id for field in current_schema(metadata).fields()}
    used = [*(one.source_id for one in spec.fields), *(one.source_id for one in order.fields)]
    for field_id in set(used) - there:
        name = next(
            (
                field["name"]
                for schema in metadata["schemas"]
                for field in schema["fields"]
                if field["id"] == field_id
            ),
            str(field_id),
        )
        raise InvalidError(
            f'Column "{name}" shall go, but new files are partitioned or sorted by it: expected it '
            "to stay, or another layout. Set the layout first.",
            kind="column-in-layout",
            column=name,
        )


def set_layout(
    root: Path,
    content: TableContent,
    partition: Sequence[Part],
    sort: Sequence[Order],
    *,
    at: datetime,
) -> TableContent:
    """Returns the table whose new files are partitioned and sorted this way; old files stay.

    Raises:
        InvalidError (kind "no-such-column", "bad-transform").
    """
    metadata = metadata_here(root, content)
    schema = current_schema(metadata)
    specs = specs_of(metadata)
    spec = make_spec(max(specs) + 1, partition, schema, list(specs.values()))
    spec = next((one for one in specs.values() if one.fields == spec.fields), spec)
    orders = orders_of(metadata)
    order = make_order(max(orders) + 1 if sort else 0, sort, schema)
    order = next((one for one in orders.values() if one.fields == order.fields), order)
    if (spec.id, order.id) == (metadata["default-spec-id"], metadata["default-sort-order-id"]):
        return content
    after = with_layout(metadata, spec, order, to_microseconds(at) // 1000)
    return save(root, content.uuid, after, content.files, {})


def _with_schema(
    root: Path, content: TableContent, metadata: Metadata, schema: Schema, at: datetime
) -> TableContent:
    after = with_schema(metadata, schema, to_microseconds(at) // 1000)
    return save(root, content.uuid, after, content.files, {})


def _summary(
    metadata: Metadata, data: tuple[Counts, Counts], deletes: tuple[Counts, Counts]
) -> dict[str, str]:
    """What came and went; totals are carried from the parent, no manifest is read for them."""
    (added, removed), (new, dropped) = data, deletes
    is_append = not removed.files and not new.files
    parent = current_snapshot(metadata)
    before = parent["summary"] if parent else {}

    def total(name: str, change: int) -> int:
        return int(before.get(name, 0)) + change

    size = added.size_bytes + new.size_bytes - removed.size_bytes - dropped.size_bytes
    counts = {
        "added-data-files": added.files,
        "added-records": added.rows,
        "added-files-size": added.size_bytes + new.size_bytes,
        "added-delete-files": new.files,
        "added-position-deletes": new.rows,
        "deleted-data-files": removed.files,
        "deleted-records": removed.rows,
        "removed-delete-files": dropped.files,
        "total-data-files": total("total-data-files", added.files - removed.files),
        "total-records": total("total-records", added.rows - removed.rows),
        "total-files-size": total("total-files-size", size),
        "total-delete-files": total("total-delete-files", new.files - dropped.files),
        "total-position-deletes": total("total-position-deletes", new.rows - dropped.rows),
        "total-equality-deletes": 0,
        SMALL_FILES: small_files(before) + added.small - removed.small,
    }
    operation = "append" if is_append else "overwrite" if added.files else "delete"
    return {"operation": operation, **{name: str(count) for name, count in counts.items()}}


def _counts_of(files: Sequence[WrittenFile | DeleteFile]) -> Counts:
    return Counts(
        len(files),
        sum(file.rows for file in files),
        sum(file.size_bytes for file in files),
        sum(file.size_bytes < SMALL_BYTES for file in files),
    )


def _counts_at(
    folder: Path,
    manifests: Sequence[Manifest],
    places: Mapping[int, Sequence[int]],
    *,
    is_deletes: bool,
) -> Counts:
    """Counts the data files, or the delete files, that go."""
    found = Counts()
    for number, indexes in places.items():
        if manifests[number].holds_deletes == is_deletes:
            base = load_base(folder, manifests[number])
            rows = sum(base.rows[index] for index in indexes)
            sizes = [base.sizes[index] for index in indexes]
            small = sum(size < SMALL_BYTES for size in sizes)
            found = found.plus(Counts(len(indexes), rows, sum(sizes), small))
    return found


def _check_partitioned(files: Sequence[WrittenFile], spec: Spec) -> None:
    for file in files:
        if not spec.may_hold(file.partition):
            raise InternalError(
                f"File {file.path} has the partition values {list(file.partition)}: expected "
                f"values of {[one.name for one in spec.fields]}, by which it is to be "
                "partitioned. Report this as a fault of Instep.",
                kind="other-partition",
                path=file.path,
            )


def _check_placed(folder: Path, paths: Sequence[str]) -> None:
    for path in paths:
        if not str(folder / path).startswith(f"{folder}/data/"):
            raise InternalError(
                f"File {path} lies outside the table: expected a file in {folder / 'data'}. "
                "Report this as a fault of Instep.",
                kind="misplaced-file",
                path=path,
            )
