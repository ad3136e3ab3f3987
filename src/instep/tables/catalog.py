"""pyiceberg's catalog over a commit, or over an edit: what tools of Iceberg see of a lake.

There is one namespace, `default`; the table `default.flights` is the key `table/flights`. Over a
commit everything is read only. Over an edit each commit of a table is staged, and nothing reaches
a branch before the edit itself is committed. There are no views. Files are deleted by garbage
collection only, so nothing can be purged.
This module is imported only where a catalog is asked for: pyiceberg alone costs 0.6 s.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from pyiceberg.catalog import Catalog, MetastoreCatalog, PropertiesUpdateSummary
from pyiceberg.exceptions import (
    NamespaceAlreadyExistsError,
    NamespaceNotEmptyError,
    NoSuchNamespaceError,
    NoSuchTableError,
    NoSuchViewError,
    TableAlreadyExistsError,
)
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import CommitTableResponse, StagedTable, Table, Transaction
from pyiceberg.table.metadata import TableMetadata, new_table_metadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortOrder
from pyiceberg.table.update import TableRequirement, TableUpdate
from pyiceberg.typedef import EMPTY_DICT, Identifier, Properties

from instep.errors import InvalidError, RefusedError
from instep.tables.addresses import client_properties
from instep.tables.adopt import adopt
from instep.tables.client_commits import committed, loaded, metadata_json
from instep.tables.content import TableContent
from instep.tables.write import check_table_name, make_table_folder

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.io import FileIO
    from pyiceberg.table import UpsertResult
    from pyiceberg.table.inspect import InspectTable
    from pyiceberg.table.update.snapshot import UpdateSnapshot
    from pyiceberg.view import View
    from pyiceberg.view.metadata import ViewVersion

NAMESPACE = "default"
"""The only namespace: the tables of a commit have plain names."""


class Tables(Protocol):
    """Where a catalog finds tables, and stages what is made of them."""

    def table_names(self) -> tuple[str, ...]:
        """Returns the names of all tables, in their order."""

    def find_table(self, name: str) -> TableContent | None:
        """Returns a table as it is now, or None."""

    def depend_on(self, name: str) -> None:
        """Says that rows of a table decided what is written; then it must not have moved at all."""

    def stage(self, name: str, content: TableContent | None) -> None:
        """Sets a table, or removes it.

        Raises:
            RefusedError (kind "read-only").
        """


Options = ParamSpec("Options")
Found = TypeVar("Found")


class LakeTransaction(Transaction):
    """A transaction that tells plain appends from all that looks at the rows that are there.

    Both may add files and nothing else, as an upsert does when no key is met; but only appends
    mean the same on a table that moved meanwhile. What looked at rows may commit nothing at all.
    """

    _table: LakeTable
    _is_appending = False
    _only_appends = True

    def append(
        self,
        df: pa.Table | pa.RecordBatchReader,
        snapshot_properties: dict[str, str] = EMPTY_DICT,
        branch: str | None = MAIN_BRANCH,
    ) -> None:
        with self._appending():
            super().append(df, snapshot_properties, branch)

    def upsert(self, *args: Any, **options: Any) -> UpsertResult:  # as pyiceberg has them
        self._depend()
        return super().upsert(*args, **options)

    def update_snapshot(self, *args: Any, **options: Any) -> UpdateSnapshot:  # as above
        self._depend()
        return super().update_snapshot(*args, **options)

    def commit_transaction(self) -> Table:
        self._table.is_appending = self._only_appends
        try:
            return super().commit_transaction()
        finally:
            self._table.is_appending = False

    def _stage(
        self,
        updates: tuple[TableUpdate, ...],
        requirements: tuple[TableRequirement, ...] = (),
    ) -> Transaction:
        self._depend()
        return super()._stage(updates, requirements)

    def _rebuild_snapshot_updates(self) -> None:
        with self._appending() if self._only_appends else nullcontext():
            super()._rebuild_snapshot_updates()

    @contextmanager
    def _appending(self) -> Iterator[None]:
        before, self._is_appending = self._is_appending, True
        try:
            yield
        finally:
            self._is_appending = before

    def _depend(self) -> None:
        if not self._is_appending:
            self._only_appends = False
            self._table.catalog.depend_on(self._table)


def _looking(
    read: Callable[Concatenate[Table, Options], Found],
) -> Callable[Concatenate[LakeTable, Options], Found]:
    """Returns `read`, a method of pyiceberg's, which first says that rows are looked at."""

    @wraps(read)
    def reading(table: LakeTable, /, *args: Options.args, **options: Options.kwargs) -> Found:
        table.catalog.depend_on(table)
        return read(table, *args, **options)

    return reading


class LakeTable(Table):
    """A table that says when its rows were looked at, or what tells of them: counts and bounds."""

    catalog: LakeCatalog
    is_appending = False
    """Whether what is being committed only appends."""

    def transaction(self) -> Transaction:
        return LakeTransaction(self)

    @property
    def inspect(self) -> InspectTable:
        self.catalog.depend_on(self)
        return super().inspect

    scan = _looking(Table.scan)
    incremental_append_scan = _looking(Table.incremental_append_scan)
    current_snapshot = _looking(Table.current_snapshot)
    snapshots = _looking(Table.snapshots)
    snapshot_by_id = _looking(Table.snapshot_by_id)
    snapshot_by_name = _looking(Table.snapshot_by_name)
    snapshot_as_of_timestamp = _looking(Table.snapshot_as_of_timestamp)
    to_bodo = _looking(Table.to_bodo)
    to_daft = _looking(Table.to_daft)
    to_polars = _looking(Table.to_polars)
    __datafusion_table_provider__ = _looking(Table.__datafusion_table_provider__)


class LakeCatalog(MetastoreCatalog):
    """The tables of a lake as pyiceberg sees them, at a commit or inside an edit."""

    def __init__(self, root: Path, tables: Tables, name: str) -> None:
        super().__init__(name)
        self._root = root.resolve()
        self._tables = tables

    # Tables

    def create_table(
        self,
        identifier: str | Identifier,
        schema: Schema | pa.Schema,
        location: str | None = None,
        partition_spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
        sort_order: SortOrder = UNSORTED_SORT_ORDER,
        properties: Properties = EMPTY_DICT,
    ) -> Table:
        staged = self._create_staged_table(
            identifier, schema, location, partition_spec, sort_order, properties
        )
        name = self._name(identifier)
        self._tables.stage(name, adopt(self._root, None, metadata_json(staged.metadata)))
        return self.load_table(identifier)

    def load_table(self, identifier: str | Identifier) -> Table:
        name = self._name(identifier)
        content = self._existing(name)
        metadata, location = loaded(self._root, content)
        return LakeTable(
            identifier=(NAMESPACE, name),
            metadata=metadata,
            metadata_location=location,
            io=self._io(metadata.properties, location),
            catalog=self,
        )

    def commit_table(
        self,
        table: Table,
        requirements: tuple[TableRequirement, ...],
        updates: tuple[TableUpdate, ...],
    ) -> CommitTableResponse:
        name = self._name(table.name())
        base = self._tables.find_table(name)
        content = committed(self._root, base, requirements, updates)
        if content != base:
            self._tables.stage(name, content)
        if not (isinstance(table, LakeTable) and table.is_appending):
            self.depend_on(table)
        metadata, location = loaded(self._root, content)
        return CommitTableResponse.model_validate(
            {"metadata": metadata, "metadata-location": location}
        )

    def depend_on(self, table: Table) -> None:
        """Says that rows of a table decided what is written."""
        self._tables.depend_on(self._name(table.name()))

    def rename_table(
        self, from_identifier: str | Identifier, to_identifier: str | Identifier
    ) -> Table:
        before, after = self._name(from_identifier), self._name(to_identifier)
        content = self._existing(before)
        self._refuse_existing(after)
        self._tables.stage(after, content)
        self._tables.stage(before, None)
        return self.load_table(to_identifier)

    def drop_table(self, identifier: str | Identifier) -> None:
        name = self._name(identifier)
        self._existing(name)
        self._tables.stage(name, None)

    def purge_table(self, identifier: str | Identifier) -> None:
        raise RefusedError(
            f"Table {self._name(identifier)} cannot be purged: expected it to be dropped, because "
            "earlier commits hold it still. Drop it; garbage collection deletes what nothing "
            "names any more.",
            kind="no-purge",
        )

    def register_table(
        self, identifier: str | Identifier, metadata_location: str, overwrite: bool = False
    ) -> Table:
        """Sets a table to a state whose metadata another writer has put into its folder."""
        name = self._name(identifier)
        base = self._tables.find_table(name)
        if not overwrite:
            self._refuse_existing(name)
        io = self._io(EMPTY_DICT, metadata_location)
        metadata = FromInputFile.table_metadata(io.new_input(metadata_location))
        self._tables.stage(name, adopt(self._root, base, metadata_json(metadata)))
        self._tables.depend_on(name)
        return self.load_table(identifier)

    # Namespaces

    def list_tables(self, namespace: str | Identifier) -> list[Identifier]:
        self._check_namespace(namespace)
        return [(NAMESPACE, name) for name in self._tables.table_names()]

    def list_namespaces(self, namespace: str | Identifier = ()) -> list[Identifier]:
        if Catalog.identifier_to_tuple(namespace):
            self._check_namespace(namespace)
            return []
        return [(NAMESPACE,)]

    def load_namespace_properties(self, namespace: str | Identifier) -> Properties:
        self._check_namespace(namespace)
        return {}

    def create_namespace(
        self, namespace: str | Identifier, properties: Properties = EMPTY_DICT
    ) -> None:
        if Catalog.identifier_to_tuple(namespace) == (NAMESPACE,):
            raise NamespaceAlreadyExistsError(f"Namespace {NAMESPACE} exists already")
        raise InvalidError(
            f'Namespace "{namespace}" cannot be made: expected "{NAMESPACE}", the only one. '
            "Use it, or another branch.",
            kind="one-namespace",
        )

    def drop_namespace(self, namespace: str | Identifier) -> None:
        self._check_namespace(namespace)
        raise NamespaceNotEmptyError(f"Namespace {NAMESPACE} is always there")

    def update_namespace_properties(
        self,
        namespace: str | Identifier,
        removals: set[str] | None = None,
        updates: Properties = EMPTY_DICT,
    ) -> PropertiesUpdateSummary:
        self._check_namespace(namespace)
        raise InvalidError(
            f'Namespace "{NAMESPACE}" has no properties: expected those of a table. '
            "Set them there.",
            kind="one-namespace",
        )

    # Views

    def list_views(self, namespace: str | Identifier) -> list[Identifier]:
        self._check_namespace(namespace)
        return []

    def view_exists(self, identifier: str | Identifier) -> bool:
        return False

    def load_view(self, identifier: str | Identifier) -> View:
        raise NoSuchViewError(f"View does not exist: {identifier}")

    def drop_view(self, identifier: str | Identifier) -> None:
        raise NoSuchViewError(f"View does not exist: {identifier}")

    def create_view(
        self,
        identifier: str | Identifier,
        schema: Schema | pa.Schema,
        view_version: ViewVersion,
        location: str | None = None,
        properties: Properties = EMPTY_DICT,
    ) -> View:
        raise _no_views(identifier)

    def register_view(self, identifier: str | Identifier, metadata_location: str) -> View:
        raise _no_views(identifier)

    def _create_staged_table(
        self,
        identifier: str | Identifier,
        schema: Schema | pa.Schema,
        location: str | None = None,
        partition_spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
        sort_order: SortOrder = UNSORTED_SORT_ORDER,
        properties: Properties = EMPTY_DICT,
    ) -> StagedTable:
        name = self._name(identifier)
        check_table_name(name)
        self._refuse_existing(name)
        table = uuid.uuid4()
        folder = make_table_folder(self._root, str(table))
        metadata = new_table_metadata(
            location=location.rstrip("/") if location else str(folder),
            schema=self._convert_schema_if_needed(schema),
            partition_spec=partition_spec,
            sort_order=sort_order,
            properties=properties,
            table_uuid=table,
        )
        return StagedTable(
            identifier=(NAMESPACE, name),
            metadata=metadata,
            metadata_location=f"{folder}/metadata/staged.metadata.json",
            io=self._io(properties, str(folder)),
            catalog=self,
        )

    @staticmethod
    def _delete_old_metadata(io: FileIO, base: TableMetadata, metadata: TableMetadata) -> None:
        """Files are deleted by garbage collection only, whatever a table's properties say."""

    def _io(self, properties: Properties, location: str) -> FileIO:
        return self._load_file_io({**client_properties(self._root), **properties}, location)

    def _name(self, identifier: str | Identifier) -> str:
        parts = Catalog.identifier_to_tuple(identifier)
        if len(parts) == 2 and parts[0] == NAMESPACE:
            return parts[1]
        raise NoSuchTableError(
            f"Table does not exist: {'.'.join(parts)}. Tables are called {NAMESPACE}.NAME"
        )

    def _existing(self, name: str) -> TableContent:
        content = self._tables.find_table(name)
        if content is None:
            raise NoSuchTableError(f"Table does not exist: {NAMESPACE}.{name}")
        return content

    def _refuse_existing(self, name: str) -> None:
        if self._tables.find_table(name) is not None:
            raise TableAlreadyExistsError(f"Table {NAMESPACE}.{name} already exists")

    def _check_namespace(self, namespace: str | Identifier) -> None:
        if Catalog.identifier_to_tuple(namespace) != (NAMESPACE,):
            raise NoSuchNamespaceError(
                f"Namespace does not exist: {namespace}. The only one is {NAMESPACE}"
            )

    def __repr__(self) -> str:
        return f"LakeCatalog({self.name}: {', '.join(self._tables.table_names()) or 'no tables'})"


def _no_views(identifier: str | Identifier) -> InvalidError:
    return InvalidError(
        f"View {identifier} cannot be made: expected a table, since a lake has no views. "
        "Write a SQL step that makes a table.",
        kind="no-views",
    )
