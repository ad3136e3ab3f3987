"""What a client's commit makes of a table: its requirements held, its updates applied.

The rules are pyiceberg's own, which is imported only when somebody writes. Here its errors, and
pydantic's about what was sent, become Instep's.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instep.errors import ConflictError, InvalidError
from instep.server.answers import bad_request
from instep.tables.addresses import plain_address
from instep.tables.content import TableContent
from instep.tables.iceberg import Metadata

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pyiceberg.table.update import TableRequirement, TableUpdate

FORMAT_VERSIONS = ("2", "3")


@dataclass(frozen=True, slots=True)
class TableChange:
    """What a client wants of one table; `snapshot` is one that it adds, by which it is known."""

    name: str
    requirements: tuple[TableRequirement, ...]
    updates: tuple[TableUpdate, ...]

    @property
    def makes_table(self) -> bool:
        return any(one.type == "assert-create" for one in self.requirements)

    @property
    def uuid(self) -> str:
        """Returns the table's uuid as a change that makes it tells it; "" where it does not."""
        told = [str(one.uuid) for one in self.updates if one.action == "assign-uuid"]
        return told[-1] if told else ""

    @property
    def adds_snapshot(self) -> bool:
        return any(one.action == "add-snapshot" for one in self.updates)

    @property
    def operation(self) -> str:
        """What the change does: of snapshots what Iceberg calls it."""
        words = [
            one.snapshot.summary.operation.value
            for one in self.updates
            if one.action == "add-snapshot" and one.snapshot.summary
        ]
        if self.makes_table:
            return "create"
        return " and ".join(dict.fromkeys(words)) or "alter"


def parse_change(name: str, body: dict[str, Any]) -> TableChange:  # JSON from outside
    """Returns a change as a typed record.

    Raises:
        InvalidError (kind "bad-request"): among others an update that is not known here.
    """
    requirements, updates = _adapters()
    with _reading():
        return TableChange(
            name,
            requirements.validate_python(body.get("requirements", [])),
            updates.validate_python(body.get("updates", [])),
        )


def changed(root: Path, before: TableContent | None, change: TableChange) -> TableContent:
    """Returns the state that `change` makes of `before`, None for no table.

    Raises:
        ConflictError (kind "requirement-failed"): the table is not as the client knows it.
        InvalidError (kind "bad-request"): an update cannot be applied to it.
        InvalidError: as `tables.adopt.adopt`.
    """
    from pyiceberg.exceptions import CommitFailedException, ValidationError

    from instep.tables.client_commits import committed

    with _reading():
        try:
            return committed(root, before, change.requirements, change.updates)
        except CommitFailedException as error:
            raise ConflictError(
                f'Table "{change.name}" is not as the client knows it: {error}. Expected its state '
                "of before. Load the table again, then commit again.",
                kind="requirement-failed",
                table=change.name,
            ) from None
        except (ValidationError, NotImplementedError) as error:
            raise ValueError(str(error)) from None


def new_table(body: dict[str, Any], location: Path, table: str) -> Metadata:  # as above
    """Returns the metadata of a table that a client asked to be made, with field ids from 1 on.

    Raises:
        InvalidError (kind "bad-request", "unsupported-operation").
    """
    from pyiceberg.catalog.rest import CreateTableRequest
    from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
    from pyiceberg.table.metadata import new_table_metadata
    from pyiceberg.table.sorting import UNSORTED_SORT_ORDER

    from instep.tables.client_commits import metadata_json

    with _reading():
        wanted = CreateTableRequest.model_validate(
            {"location": None, "partition-spec": None, "write-order": None, **body}
        )
        properties = dict(wanted.properties)
        check_location(wanted.location, location)
        if properties.get("format-version", "2") not in FORMAT_VERSIONS:
            raise ValueError(f"format version {properties['format-version']} is not 2 or 3")
        made = new_table_metadata(
            wanted.table_schema,
            wanted.partition_spec or UNPARTITIONED_PARTITION_SPEC,
            wanted.write_order or UNSORTED_SORT_ORDER,
            str(location),
            properties,
            uuid.UUID(table),
        )
    return metadata_json(made)


def check_location(wanted: str | None, location: Path) -> None:
    """Holds that a table is not to lie elsewhere than the lake puts it.

    Raises:
        InvalidError (kind "unsupported-operation").
    """
    if wanted and plain_address(wanted) != str(location):
        raise InvalidError(
            f'A table at "{wanted}" was asked for: expected none, because the lake says where its '
            "tables lie. Leave the location out.",
            kind="unsupported-operation",
        )


@cache
def _adapters() -> tuple[TypeAdapter[Any], TypeAdapter[Any]]:  # tuples of unions of records
    from pydantic import TypeAdapter
    from pyiceberg.table.update import TableRequirement, TableUpdate

    return TypeAdapter(tuple[TableRequirement, ...]), TypeAdapter(tuple[TableUpdate, ...])


@contextmanager
def _reading() -> Iterator[None]:
    """Says of what a client sent what is wrong with it; pydantic's errors are ValueErrors too."""
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        told = error.errors(include_url=False, include_input=False)
        faults = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in told]
        raise bad_request("; ".join(faults[:5])) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise bad_request(str(error)) from None
