"""A request that is nonsense is refused in the protocol's form, wherever the lake is."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from asgi import Told, ask
from databases import on_both
from rest import make_branch

from instep.history.repository import Repository
from instep.server.clients import Clients
from instep.server.iceberg import Service, iceberg

TABLES = "/iceberg/v1/work/namespaces/default/tables"
RENAME = "/iceberg/v1/work/tables/rename"
SCHEMA = {"type": "struct", "schema-id": 0, "fields": []}


@pytest.fixture
def folder(tmp_path: Path, repo: Repository) -> Path:
    """A project whose lake has the branch `work` with the table `people`."""
    (tmp_path / "instep.yaml").write_text("lake: lake\n")
    make_branch(repo, "work")
    created = told(repo, tmp_path, "POST", TABLES, create("people"))
    assert created.status == 200
    return tmp_path


def told(repo: Repository, folder: Path, method: str, path: str, body: bytes = b"") -> Told:
    """Asks the catalog without a socket; an error that it does not answer is raised."""
    clients = Clients(repo, folder, "127.0.0.1", "ana")
    return asyncio.run(
        ask(iceberg(Service(repo, clients)), method, path, body, token=clients.make_token())
    )


def error_of(answer: Told) -> tuple[int, str]:
    error = json.loads(answer.body)["error"]
    assert (answer.status, bool(error["message"])) == (error["code"], True)
    return answer.status, str(error["type"])


def create(name: str) -> bytes:
    return json.dumps({"name": name, "schema": SCHEMA}).encode()


def renamed(before: str, after: str) -> bytes:
    ends = zip(("source", "destination"), (before, after), strict=True)
    return json.dumps({end: {"namespace": ["default"], "name": one} for end, one in ends}).encode()


def with_property(value: bytes) -> bytes:
    update = b'{"action": "set-properties", "updates": {"a": %s}}' % value
    return b'{"requirements": [], "updates": [%s]}' % update


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (TABLES, b"[" * 200_000),
        (TABLES, b'{"a":' * 200_000),
        (TABLES, b'{"name": "deep", "schema": ' + b'{"fields":' * 900 + b"1" + b"}" * 901),
        (TABLES, create("\ud800")),
        (TABLES, b'{"name": "\xed\xa0\x80"}'),
        (TABLES, b"\xff\xfe"),
        (TABLES, create("a\0b")),
        (RENAME, renamed("\ud800", "other")),
        (RENAME, renamed("people", "\ud800")),
        (f"{TABLES}/people", with_property(b'"\\ud800"')),
        (f"{TABLES}/people", with_property(b"9" * 5_000)),
    ],
    ids=lambda value: value[:24] if isinstance(value, bytes) else None,
)
def test_a_body_that_is_no_text_or_too_deep_is_refused(
    repo: Repository, folder: Path, path: str, body: bytes
) -> None:
    before = repo.resolve("work")
    assert error_of(told(repo, folder, "POST", path, body)) == (400, "BadRequestException")
    assert repo.resolve("work") == before


@on_both
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/iceberg/v1/%00/namespaces/default/tables"),
        ("GET", f"{TABLES}/%00"),
        ("GET", "/iceberg/v1/config?warehouse=%00"),
        ("DELETE", f"{TABLES}/a%00b"),
        ("GET", "/iceberg/v1/work/namespaces/%00/tables"),
    ],
)
def test_an_address_with_a_zero_byte_is_refused(
    repo: Repository, folder: Path, method: str, path: str
) -> None:
    assert error_of(told(repo, folder, method, path)) == (400, "BadRequestException")


@on_both
def test_a_table_that_is_renamed_to_its_own_name_is_told_that_there_is_one(
    repo: Repository, folder: Path
) -> None:
    before = repo.resolve("work")
    answer = told(repo, folder, "POST", RENAME, renamed("people", "people"))
    assert error_of(answer) == (409, "AlreadyExistsException")
    assert repo.resolve("work") == before


@on_both
def test_a_name_in_a_body_may_be_any_text(repo: Repository, folder: Path) -> None:
    for name in ("a\0b", "é\U0001f600", "x" * 10_000):
        answer = told(repo, folder, "POST", RENAME, renamed(name, "other"))
        assert error_of(answer) == (404, "NoSuchTableException")
