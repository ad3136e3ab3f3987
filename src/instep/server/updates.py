"""What a client's commit makes of a table: its requirements held, its updates applied.

The rules are pyiceberg's own, which is imported only when somebody writes. Here its errors, and
pydantic's about what was sent, become Instep's.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from instep.errors import ConflictError, InvalidError
from instep.server.answers import bad_request
from instep.tables.addresses import plain_address
from instep.tables.content import TableContent
from instep.tables.iceberg import Metadata

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pyiceberg.table.update import TableRequirement, TableUpdate

FORMAT_VERSIONS = ("2", "3")

_DEFAULTS = ("initial-default", "write-default")

_NOT_KEPT: Mapping[str, str] = {
    "set-statistics": "files of statistics are not kept",
    "remove-statistics": "files of statistics are not kept",
    "set-partition-statistics": "files of statistics are not kept",
    "remove-partition-statistics": "files of statistics are not kept",
    "add-encryption-key": "files are not encrypted",
    "remove-encryption-key": "files are not encrypted",
}
"""Updates of the protocol that no table here takes, and why."""


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
        InvalidError (kind "bad-request"): among others an update that the protocol does not have.
        InvalidError (kind "unsupported-operation"): one that it has, and that is not carried out.
    """
    requirements, updates = _adapters()
    _check_updates(body.get("updates", []))
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

    from instep.tables.client_commits import check_defaults, metadata_json

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
        told = metadata_json(made)
        with_ids = _with_defaults(told["schemas"][0], body["schema"])
        check_defaults(with_ids, told["format-version"])
    return {**told, "schemas": [with_ids]}


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


def _with_defaults(numbered: Any, wanted: Any) -> Any:  # types in Iceberg's JSON
    """Returns a type whose fields have the defaults of the one that was wanted.

    pyiceberg, which gives the fields their ids, leaves them out.
    """
    if not isinstance(numbered, dict):
        return numbered
    made = {
        key: _with_defaults(value, wanted[key])
        for key, value in numbered.items()
        if key in ("type", "element", "key", "value")
    }
    if "fields" in numbered:
        pairs = zip(numbered["fields"], wanted["fields"], strict=True)
        made["fields"] = [_with_defaults(field, told) for field, told in pairs]
    given = {key: wanted[key] for key in _DEFAULTS if wanted.get(key) is not None}
    return {**numbered, **made, **given}


def _check_updates(updates: Any) -> None:  # JSON from outside
    """Holds that all updates are carried out.

    Raises:
        InvalidError (kind "bad-request", "unsupported-operation").
    """
    if not isinstance(updates, list) or not all(isinstance(one, dict) for one in updates):
        raise bad_request("updates is not a list of objects")
    actions = [str(one.get("action")) for one in updates]
    for action, update in zip(actions, updates, strict=True):
        version = update.get("format-version")
        if action in _NOT_KEPT:
            raise _unsupported(f'The update "{action}"', _NOT_KEPT[action])
        if action not in _actions():
            raise bad_request(f'it has the update "{action}", which the protocol has not')
        if action == "upgrade-format-version" and version not in (1, 2, 3):
            raise _unsupported(f"Format version {version}", "a table has version 2 or 3")
    for action in reversed(actions):
        if action == "set-current-schema":
            return
        if action == "add-schema":
            raise _unsupported("A schema that does not become the current one", "it is not kept")


def _unsupported(what: str, why: str) -> InvalidError:
    return InvalidError(
        f"{what} is not supported: {why}. Expected an update that is carried out whole. Nothing "
        "was changed. Leave it out.",
        kind="unsupported-operation",
    )


@cache
def _actions() -> frozenset[str]:
    """Returns the updates that pyiceberg knows."""
    from pyiceberg.table.update import TableUpdate

    kinds = get_args(get_args(TableUpdate)[0])
    return frozenset(str(one.model_fields["action"].default) for one in kinds)


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
