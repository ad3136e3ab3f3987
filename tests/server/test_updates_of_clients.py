"""Every update that the protocol has is carried out, and read back, or refused: none is dropped.

Raw requests to a real server, as any engine sends them; what holds is read from the table as it is
loaded afterwards.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pyiceberg.table.update import TableUpdate
from rest import Body, Server, make_branch, make_project, people, rows, serving

from instep.history.repository import Repository
from instep.lake import Lake

BRANCH = "work"
TABLES = f"{BRANCH}/namespaces/default/tables"

ONLY_IN_THE_PROTOCOL = {"add-encryption-key", "remove-encryption-key"}
"""Updates that pyiceberg does not know yet."""

Metadata = dict[str, Any]  # Iceberg's JSON
Updates = Callable[[Metadata], list[Body]]
Holds = Callable[[Metadata], bool]

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("updates")


@pytest.fixture(scope="module")
def lake(project: Path) -> Repository:
    repo = make_project(project)
    make_branch(repo, BRANCH)
    return repo


@pytest.fixture(scope="module")
def server(project: Path, lake: Repository) -> Iterator[Server]:
    with serving(project, "--as", "ana") as running:
        yield running


@pytest.fixture
def table(server: Server) -> str:
    """A new table of two snapshots, with the rows 1 and 2."""
    name = f"t{next(_numbers)}"
    made = server.catalog(BRANCH).create_table(f"default.{name}", schema=people().schema)
    made.append(people((1, "ana")))
    made.append(people((2, "ben")))
    return name


def loaded(server: Server, table: str) -> Metadata:
    found: Metadata = server.ask("GET", f"{TABLES}/{table}").json()["metadata"]
    return found


def sent(server: Server, table: str, updates: list[Body], *requirements: Body) -> tuple[int, str]:
    """Returns the status of a commit, and the type of its error, "" for none."""
    body = {"requirements": list(requirements), "updates": updates}
    reply = server.ask("POST", f"{TABLES}/{table}", body)
    told = reply.json().get("error", {"type": "", "message": "x", "code": reply.status_code})
    assert told["message"]
    assert told["code"] == reply.status_code
    return reply.status_code, told["type"]


def one(action: str, **fields: Any) -> Updates:  # as the protocol has it
    update = {name.replace("_", "-"): value for name, value in fields.items()}
    return lambda metadata: [{"action": action, **update}]


def schema(metadata: Metadata) -> Metadata:
    """Returns the current schema with a column more, whose id is free."""
    (now,) = (s for s in metadata["schemas"] if s["schema-id"] == metadata["current-schema-id"])
    new = {"id": metadata["last-column-id"] + 1, "name": "age", "type": "long", "required": False}
    return {**now, "schema-id": now["schema-id"] + 1, "fields": [*now["fields"], new]}


def first_snapshot(metadata: Metadata) -> Metadata:
    return min(metadata["snapshots"], key=lambda snapshot: snapshot["sequence-number"])


def staged_snapshot(metadata: Metadata) -> list[Body]:
    """Adds a snapshot that lists what the current one does."""
    current = metadata["current-snapshot-id"]
    (now,) = (s for s in metadata["snapshots"] if s["snapshot-id"] == current)
    number = metadata["last-sequence-number"] + 1
    told = {**now, "snapshot-id": 77, "parent-snapshot-id": current, "sequence-number": number}
    return [{"action": "add-snapshot", "snapshot": told}]


SPEC = {"spec-id": 1, "fields": [
    {"source-id": 1, "field-id": 1000, "name": "slot", "transform": "identity"}
]}  # fmt: skip
ORDER = {"order-id": 1, "fields": [
    {"source-id": 1, "transform": "identity", "direction": "asc", "null-order": "nulls-first"}
]}  # fmt: skip


def statistics(metadata: Metadata) -> Body:
    folder = metadata["location"]
    return {
        "snapshot-id": metadata["current-snapshot-id"],
        "statistics-path": f"{folder}/metadata/one.stats",
        "file-size-in-bytes": 10,
        "file-footer-size-in-bytes": 5,
        "blob-metadata": [],
    }


CARRIED_OUT: dict[str, tuple[Updates, Holds]] = {
    "assign-uuid": (
        lambda told: [{"action": "assign-uuid", "uuid": told["table-uuid"]}],
        lambda told: True,
    ),
    "upgrade-format-version": (
        one("upgrade-format-version", format_version=3),
        lambda told: (told["format-version"], told["next-row-id"]) == (3, 0),
    ),
    "add-schema": (
        lambda told: [
            {"action": "add-schema", "schema": schema(told)},
            {"action": "set-current-schema", "schema-id": -1},
        ],
        lambda told: (
            [
                field["name"]
                for each in told["schemas"]
                if each["schema-id"] == told["current-schema-id"]
                for field in each["fields"]
            ]
            == ["id", "name", "age"]
        ),
    ),
    "set-current-schema": (one("set-current-schema", schema_id=0), lambda told: True),
    "add-spec": (
        one("add-spec", spec=SPEC),
        lambda told: SPEC in told["partition-specs"] and told["default-spec-id"] == 0,
    ),
    "set-default-spec": (
        lambda told: [
            {"action": "add-spec", "spec": SPEC},
            {"action": "set-default-spec", "spec-id": -1},
        ],
        lambda told: told["default-spec-id"] == 1,
    ),
    "add-sort-order": (
        one("add-sort-order", sort_order=ORDER),
        lambda told: ORDER in told["sort-orders"] and told["default-sort-order-id"] == 0,
    ),
    "set-default-sort-order": (
        lambda told: [
            {"action": "add-sort-order", "sort-order": ORDER},
            {"action": "set-default-sort-order", "sort-order-id": -1},
        ],
        lambda told: told["default-sort-order-id"] == 1,
    ),
    "add-snapshot": (
        staged_snapshot,
        lambda told: 77 in {each["snapshot-id"] for each in told["snapshots"]},
    ),
    "set-snapshot-ref": (
        lambda told: [
            {
                "action": "set-snapshot-ref",
                "ref-name": "main",
                "type": "branch",
                "snapshot-id": first_snapshot(told)["snapshot-id"],
                "min-snapshots-to-keep": 5,
            }
        ],
        lambda told: (
            told["refs"]["main"]["snapshot-id"]
            == told["current-snapshot-id"]
            == first_snapshot(told)["snapshot-id"]
            and told["refs"]["main"]["min-snapshots-to-keep"] == 5
        ),
    ),
    "remove-snapshots": (
        lambda told: [
            {
                "action": "remove-snapshots",
                "snapshot-ids": [first_snapshot(told)["snapshot-id"]],
            }
        ],
        lambda told: len(told["snapshots"]) == 1,
    ),
    "remove-snapshot-ref": (
        one("remove-snapshot-ref", ref_name="main"),
        lambda told: "main" not in told["refs"] and told.get("current-snapshot-id", -1) == -1,
    ),
    "set-location": (
        lambda told: [{"action": "set-location", "location": told["location"]}],
        lambda told: True,
    ),
    "set-properties": (
        one("set-properties", updates={"owner": "ana"}),
        lambda told: told["properties"]["owner"] == "ana",
    ),
    "remove-properties": (
        lambda told: [
            {"action": "set-properties", "updates": {"a": "1", "b": "2"}},
            {"action": "remove-properties", "removals": ["a", "never-there"]},
        ],
        lambda told: told["properties"]["b"] == "2" and "a" not in told["properties"],
    ),
    "remove-partition-specs": (
        lambda told: [
            {"action": "add-spec", "spec": SPEC},
            {"action": "remove-partition-specs", "spec-ids": [1]},
        ],
        lambda told: [each["spec-id"] for each in told["partition-specs"]] == [0],
    ),
    "remove-schemas": (
        lambda told: [
            {"action": "add-schema", "schema": schema(told)},
            {"action": "set-current-schema", "schema-id": -1},
            {"action": "remove-schemas", "schema-ids": [0]},
        ],
        lambda told: [each["schema-id"] for each in told["schemas"]] == [1],
    ),
}

BAD, UNSUPPORTED = (400, "BadRequestException"), (406, "UnsupportedOperationException")

REFUSED: dict[str, list[tuple[Updates, tuple[int, str]]]] = {
    "assign-uuid": [(one("assign-uuid", uuid="0198f1c5-73ab-7a37-9c41-000000000000"), BAD)],
    "upgrade-format-version": [
        (one("upgrade-format-version", format_version=1), BAD),
        (one("upgrade-format-version", format_version=4), UNSUPPORTED),
    ],
    "add-schema": [
        (lambda told: [{"action": "add-schema", "schema": schema(told)}], UNSUPPORTED),
        (
            lambda told: [
                {"action": "add-schema", "schema": with_default(schema(told), 7)},
                {"action": "set-current-schema", "schema-id": -1},
            ],
            BAD,  # version 2 has no defaults
        ),
        (
            lambda told: [
                {"action": "upgrade-format-version", "format-version": 3},
                {"action": "add-schema", "schema": with_default(schema(told), "seven")},
                {"action": "set-current-schema", "schema-id": -1},
            ],
            BAD,
        ),
    ],
    "set-current-schema": [(one("set-current-schema", schema_id=9), BAD)],
    "add-spec": [(one("add-spec", spec={**SPEC, "spec-id": 0}), BAD)],
    "set-default-spec": [(one("set-default-spec", spec_id=9), BAD)],
    "add-sort-order": [(one("add-sort-order", sort_order={**ORDER, "order-id": 0}), BAD)],
    "set-default-sort-order": [(one("set-default-sort-order", sort_order_id=9), BAD)],
    "add-snapshot": [(one("add-snapshot", snapshot={"snapshot-id": 5}), BAD)],
    "set-snapshot-ref": [
        (one("set-snapshot-ref", ref_name="main", type="branch", snapshot_id=5), BAD),
        (
            lambda told: [
                {
                    "action": "set-snapshot-ref",
                    "ref-name": "v1",
                    "type": "tag",
                    "snapshot-id": told["current-snapshot-id"],
                }
            ],
            BAD,
        ),
    ],
    "remove-snapshots": [(one("remove-snapshots", snapshot_ids=[5]), BAD)],
    "set-location": [(one("set-location", location="/elsewhere"), BAD)],
    "set-properties": [(one("set-properties", updates={"write.data.path": "/elsewhere"}), BAD)],
    "set-statistics": [
        (lambda told: [{"action": "set-statistics", "statistics": statistics(told)}], UNSUPPORTED)
    ],
    "remove-statistics": [(one("remove-statistics", snapshot_id=5), UNSUPPORTED)],
    "set-partition-statistics": [
        (
            lambda told: [
                {
                    "action": "set-partition-statistics",
                    "partition-statistics": {
                        "snapshot-id": told["current-snapshot-id"],
                        "statistics-path": f"{told['location']}/metadata/one.parquet",
                        "file-size-in-bytes": 10,
                    },
                }
            ],
            UNSUPPORTED,
        )
    ],
    "remove-partition-statistics": [
        (one("remove-partition-statistics", snapshot_id=5), UNSUPPORTED)
    ],
    "remove-partition-specs": [(one("remove-partition-specs", spec_ids=[0]), BAD)],
    "remove-schemas": [(one("remove-schemas", schema_ids=[0]), BAD)],
    "add-encryption-key": [
        (
            one("add-encryption-key", encryption_key={"key-id": "k", "encrypted-key-metadata": ""}),
            UNSUPPORTED,
        )
    ],
    "remove-encryption-key": [(one("remove-encryption-key", key_id="k"), UNSUPPORTED)],
}


def with_default(schema: Metadata, value: Any) -> Metadata:  # a JSON value
    *fields, last = schema["fields"]
    return {**schema, "fields": [*fields, {**last, "initial-default": value}]}


def test_no_update_of_the_protocol_is_left_out_here() -> None:
    known = {action_of(kind) for kind in kinds()}
    assert CARRIED_OUT.keys() | REFUSED.keys() == known | ONLY_IN_THE_PROTOCOL


def kinds() -> tuple[Any, ...]:  # pyiceberg's records
    return get_args(get_args(TableUpdate)[0])


def action_of(kind: Any) -> str:  # as above
    return str(kind.model_fields["action"].default)


@pytest.mark.parametrize("action", CARRIED_OUT)
def test_an_update_that_is_carried_out_is_there_when_the_table_is_loaded(
    server: Server, lake: Repository, table: str, action: str
) -> None:
    updates, holds = CARRIED_OUT[action]
    assert sent(server, table, updates(loaded(server, table))) == (200, "")
    assert holds(loaded(server, table))
    columns = Lake(lake).branch(BRANCH).table(table).schema.names
    age = ", 5::bigint as age" if "age" in columns else ""
    with Lake(lake).edit(BRANCH, message="one more", author="ana") as edit:
        edit.append(table, f"select 9::bigint as id, 'zoe' as name{age}")
    assert 9 in [row["id"] for row in rows(lake, BRANCH, table)]


@pytest.mark.parametrize(
    ("updates", "expected"),
    [
        pytest.param(*case, id=f"{action}-{number}")
        for action, cases in REFUSED.items()
        for number, case in enumerate(cases)
    ],
)
def test_an_update_that_is_refused_says_so_and_changes_nothing(
    server: Server, table: str, updates: Updates, expected: tuple[int, str]
) -> None:
    before = loaded(server, table)
    assert sent(server, table, updates(before)) == expected
    assert loaded(server, table) == before
    mixed = [*updates(before), {"action": "set-properties", "updates": {"owner": "ana"}}]
    assert sent(server, table, mixed) == expected
    assert loaded(server, table) == before


@pytest.mark.parametrize(
    "updates",
    [[{"action": "paint"}], [{"no": "action"}], ["text"], {"action": "assign-uuid"}],
    ids=str,
)
def test_what_is_no_update_of_the_protocol_is_named_in_our_own_words(
    server: Server, table: str, updates: Any
) -> None:
    reply = server.ask("POST", f"{TABLES}/{table}", {"requirements": [], "updates": updates})
    assert (reply.status_code, reply.json()["error"]["type"]) == BAD
    assert "tag" not in reply.json()["error"]["message"]
    assert "model" not in reply.json()["error"]["message"]


def created(server: Server, name: str, fields: list[Body], **body: Any) -> Body:  # as above
    """Returns the answer to a request to make a table."""
    wanted = {"type": "struct", "schema-id": 0, "fields": fields}
    reply = server.ask("POST", TABLES, {"name": name, "schema": wanted, **body})
    return {"status": reply.status_code, **reply.json()}


DEFAULTS = {
    "long": 5,
    "boolean": False,
    "double": 1.5,
    "string": "5",
    "date": "2026-05-05",
    "time": "10:00:00",
    "timestamptz": "2026-05-05T00:00:00+00:00",
    "decimal(5, 2)": "1.50",
    "uuid": "0198f1c5-73ab-7a37-9c41-000000000000",
    "binary": "00ff",
}


def with_defaults() -> list[Body]:
    """Returns a field of every kind with defaults, alone and within a struct, a list and a map."""
    fields = [
        {
            "id": number,
            "name": f"c{number}",
            "type": kind,
            "required": False,
            "initial-default": value,
            "write-default": value,
        }
        for number, (kind, value) in enumerate(DEFAULTS.items(), 1)
    ]
    inner = {**fields[0], "id": 21, "name": "inner"}
    struct = {"type": "struct", "fields": [inner]}
    listed = {"type": "list", "element-id": 31, "element-required": False, "element": {
        "type": "struct", "fields": [{**inner, "id": 32}]
    }}  # fmt: skip
    mapped = {"type": "map", "key-id": 41, "key": "string", "value-id": 42,
              "value-required": False, "value": {
                  "type": "struct", "fields": [{**inner, "id": 43}]
              }}  # fmt: skip
    nested = {"s": struct, "l": listed, "m": mapped}
    return [
        *fields,
        *(
            {"id": 50 + number, "name": name, "type": kind, "required": False}
            for number, (name, kind) in enumerate(nested.items())
        ),
    ]


def defaults_in(told: Any) -> Iterator[tuple[str, Any, Any]]:  # Iceberg's JSON
    """Yields the name and the defaults of every field that has any."""
    if isinstance(told, list):
        for each in told:
            yield from defaults_in(each)
    elif isinstance(told, dict):
        if "initial-default" in told:
            yield told["name"], told["initial-default"], told.get("write-default")
        yield from defaults_in(list(told.values()))


def test_a_table_that_is_made_in_version_3_has_the_defaults_it_was_asked_with(
    server: Server, lake: Repository
) -> None:
    fields = with_defaults()
    told = created(server, "made", fields, properties={"format-version": "3"})
    assert told["status"] == 200
    for found in (told["metadata"], loaded(server, "made")):
        assert found["format-version"] == 3
        assert list(defaults_in(found["schemas"])) == list(defaults_in(fields))
    with Lake(lake).edit(BRANCH, message="a row", author="ana") as edit:
        edit.append("made", "select 6::bigint as c1, null as s, null as l, null as m")
    (row,) = rows(lake, BRANCH, "made", order="c1")
    assert (row["c1"], row["c4"], str(row["c8"])) == (6, "5", "1.50")


@pytest.mark.parametrize("at_first", ["2", "3"])
def test_a_staged_table_becomes_one_of_version_3_with_its_defaults(
    server: Server, lake: Repository, at_first: str
) -> None:
    name = f"staged{at_first}"
    fields = with_defaults() if at_first == "3" else []
    plain: list[Body] = [{"id": 1, "name": "id", "type": "long", "required": False}]
    properties = {"format-version": at_first}
    staged = {"stage-create": True, "properties": properties}
    told = created(server, name, fields or plain, **staged)
    assert told["status"] == 200
    metadata = told["metadata"]
    assert list(defaults_in(metadata["schemas"])) == list(defaults_in(fields))
    wanted = metadata["schemas"][0]
    if not fields:
        wanted = with_default(wanted, 7)
    updates: list[Body] = [
        {"action": "assign-uuid", "uuid": metadata["table-uuid"]},
        {"action": "upgrade-format-version", "format-version": 3},
        {"action": "add-schema", "schema": wanted},
        {"action": "set-current-schema", "schema-id": -1},
        {"action": "add-spec", "spec": {"spec-id": 0, "fields": []}},
        {"action": "set-default-spec", "spec-id": -1},
        {"action": "add-sort-order", "sort-order": {"order-id": 0, "fields": []}},
        {"action": "set-default-sort-order", "sort-order-id": -1},
        {"action": "set-location", "location": metadata["location"]},
    ]
    assert sent(server, name, updates, {"type": "assert-create"}) == (200, "")
    found = loaded(server, name)
    assert (found["format-version"], found["next-row-id"]) == (3, 0)
    assert list(defaults_in(found["schemas"])) == list(defaults_in([wanted]))


@pytest.mark.parametrize(
    ("version", "value"), [("2", 7), ("3", "seven")], ids=["in version 2", "of another type"]
)
@pytest.mark.parametrize("stage", [False, True])
def test_a_default_that_a_table_cannot_have_is_refused_when_it_is_made(
    server: Server, version: str, value: Any, stage: bool
) -> None:
    field = {"id": 1, "name": "id", "type": "long", "required": False, "write-default": value}
    told = created(
        server,
        f"wrong{next(_numbers)}",
        [field],
        **{"stage-create": stage, "properties": {"format-version": version}},
    )
    assert (told["status"], told["error"]["type"]) == BAD
    assert '"id"' in told["error"]["message"]
