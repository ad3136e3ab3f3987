"""What a commit of an Iceberg client makes of a table's state: its requirements held, then applied.

pyiceberg's own types are used, so this module is imported only where a client commits.
"""

from __future__ import annotations

from pathlib import Path

from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table.metadata import TableMetadata, TableMetadataUtil
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.update import (
    AddSchemaUpdate,
    RemovePropertiesUpdate,
    SetPropertiesUpdate,
    TableRequirement,
    TableUpdate,
    UpgradeFormatVersionUpdate,
    update_table_metadata,
)

from instep.canonical import from_microseconds
from instep.engines.defaults import checked_default
from instep.errors import InvalidError
from instep.tables.added import appended_files
from instep.tables.adopt import adopt
from instep.tables.columns import parse_schema
from instep.tables.content import TableContent
from instep.tables.copies import load_json
from instep.tables.field_ids import last_taken
from instep.tables.iceberg import Metadata
from instep.tables.read import table_folder
from instep.tables.relocate import state_here
from instep.tables.small_files import STANDS_FOR
from instep.tables.write import append


def loaded(root: Path, content: TableContent) -> tuple[TableMetadata, str]:
    """Returns a state as pyiceberg has it, and where its metadata is.

    Its last column id is the last that any branch has taken, so that a new column gets a free one.
    """
    here = state_here(root, content, {})
    path = root / here.metadata
    told = load_json(path, here.digest)
    last = last_taken(table_folder(root, content), told["last-column-id"])
    metadata = TableMetadataUtil.parse_obj({**told, "last-column-id": last})
    return metadata, str(path)


def committed(
    root: Path,
    base: TableContent | None,
    requirements: tuple[TableRequirement, ...],
    updates: tuple[TableUpdate, ...],
) -> TableContent:
    """Returns the state that `updates` make of `base`; None is a table that is being created.

    A client may know the snapshot that `base` had before an automatic compaction: then what it
    appended is added to the compacted files, and of anything else it has the files that it knew.

    Raises:
        pyiceberg's CommitFailedException: a requirement is not met.
        InvalidError: as `check_defaults` and `adopt`.
    """
    now = loaded(root, base)[0] if base else None
    current = _as_known(now, requirements)
    metadata = _updated(current, updates)
    if base is not None and metadata == current:
        return base
    content = adopt(root, base, metadata_json(metadata))
    if base is not None and current is not now:
        files = appended_files(root, base, content)
        if files is not None:
            return append(root, base, files, at=from_microseconds(metadata.last_updated_ms * 1000))
    return content


def check_defaults(schema: Metadata, version: int) -> None:
    """Holds that a schema's defaults are values of their columns, and allowed in a format version.

    Raises:
        InvalidError (kinds "bad-value", "foreign-metadata").
    """
    for column in parse_schema(schema).fields():
        for text in (column.initial_default, column.write_default):
            if text is None:
                continue
            if version < 3:
                raise InvalidError(
                    f'Column "{column.name}" has the default {text} in a table of format version '
                    f"{version}: expected version 3. Set format-version to 3 before.",
                    kind="foreign-metadata",
                )
            checked_default(column, text)


def _updated(current: TableMetadata | None, updates: tuple[TableUpdate, ...]) -> TableMetadata:
    """Returns what updates make of a table; None is one that is being created.

    The format version is raised first, here: pyiceberg does so up to version 2 only. A property
    that is not there is taken away without a word, as by Iceberg's own library.
    """
    base = MetastoreCatalog._empty_table_metadata() if current is None else current
    names = set(base.properties)
    others: list[TableUpdate] = []
    for update in updates:
        match update:
            case UpgradeFormatVersionUpdate(format_version=3):
                base = _version_3(base)
            case SetPropertiesUpdate():
                names.update(update.updates)
                others.append(update)
            case RemovePropertiesUpdate():
                there = [name for name in update.removals if name in names]
                names.difference_update(there)
                others.append(RemovePropertiesUpdate(removals=there))
            case _:
                others.append(update)
    made = update_table_metadata(base, tuple(others), enforce_validation=current is None)
    for one in others:
        if isinstance(one, AddSchemaUpdate):
            schema = one.schema_.model_dump(mode="json", by_alias=True, exclude_none=True)
            check_defaults(schema, made.format_version)
    return made


def _version_3(metadata: TableMetadata) -> TableMetadata:
    if metadata.format_version == 3:
        return metadata
    told = metadata.model_copy(update={"format_version": 3, "next_row_id": 0})
    return TableMetadataUtil._construct_without_validation(told)


def _as_known(
    now: TableMetadata | None, requirements: tuple[TableRequirement, ...]
) -> TableMetadata | None:
    """Returns a table as it meets requirements: as it is, or as before it was compacted.

    Raises:
        pyiceberg's CommitFailedException: as it is it does not meet them, nor as it was.
    """
    try:
        for requirement in requirements:
            requirement.validate(now)
    except CommitFailedException:
        before = _before_compaction(now) if now else None
        if before is None:
            raise
        return _as_known(before, requirements)
    return now


def _before_compaction(now: TableMetadata) -> TableMetadata | None:
    """Returns metadata whose current snapshot is the one that the compaction's stands for."""
    snapshot = now.current_snapshot()
    told = snapshot.summary.get(STANDS_FOR) if snapshot and snapshot.summary else None
    before = now.snapshot_by_id(int(told)) if told else None
    if before is None:
        return None
    main = now.refs[MAIN_BRANCH].model_copy(update={"snapshot_id": before.snapshot_id})
    update = {
        "current_snapshot_id": before.snapshot_id,
        "last_sequence_number": before.sequence_number,
        "snapshots": [one for one in now.snapshots if one != snapshot],
        "refs": {**now.refs, MAIN_BRANCH: main},
    }
    if before.first_row_id is not None and before.added_rows is not None:
        update["next_row_id"] = before.first_row_id + before.added_rows
    return now.model_copy(update=update)


def metadata_json(metadata: TableMetadata) -> Metadata:
    """Returns pyiceberg's metadata as JSON."""
    # Not `model_dump_json`: that of version 3 only says that pyiceberg does not write it yet.
    told: Metadata = metadata.model_dump(mode="json", by_alias=True, exclude_none=True)
    # pyiceberg leaves out where row ids begin, and Iceberg's own library then reads nothing.
    return (
        {**told, "next-row-id": told.get("next-row-id", 0)} if told["format-version"] > 2 else told
    )
