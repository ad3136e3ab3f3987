"""The protocol as it is on the wire: errors, keys, tokens, and what is left of a lost answer."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import httpx
import pytest
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import UnauthorizedError
from rest import Body, Server, make_branch, make_project, people, rows, serving

from instep.clock import system_clock
from instep.errors import (
    FAMILIES,
    InstepError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from instep.history.commits import first_parents
from instep.history.edits import Edit, publish
from instep.history.locks import writing
from instep.history.refs import delete_ref
from instep.history.repository import Repository, open_repository
from instep.pipelines.project import KEY, config_content
from instep.server.answers import failed
from instep.server.clients import Clients, Tokens
from instep.server.exchange import Request
from instep.server.iceberg import ENDPOINTS, Service, answer
from instep.server.reading import (
    NAMESPACE,
    find_place,
    load_state,
    page,
    state_tag,
    writable,
)
from instep.tables import catalog as pyiceberg_catalog
from instep.tables.compact import compact_state
from instep.tables.content import TableContent

ANA, BEN = "a-token-of-ana", "a-token-of-ben"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("protocol")


@pytest.fixture(scope="module")
def lake(project: Path) -> Repository:
    repo = make_project(project)
    make_branch(repo, "work")
    return repo


@pytest.fixture(scope="module")
def server(project: Path, lake: Repository) -> Iterator[Server]:
    with serving(project, "--as", "ana") as running:
        catalog = running.catalog("work")
        for name in ("left", "right"):
            catalog.create_table(f"default.{name}", schema=people().schema).append(
                people((1, "ana"))
            )
        yield running


def set_property(name: str, value: str, **identifier: Any) -> dict[str, Any]:
    update = {"action": "set-properties", "updates": {name: value}}
    return {**identifier, "requirements": [], "updates": [update]}


def named(name: str) -> Body:
    return {"namespace": ["default"], "name": name}


def length(repo: Repository, branch: str) -> int:
    with repo.store.reading() as tx:
        return sum(1 for _ in first_parents(tx, repo.resolve(branch), 1000))


def test_the_configuration_names_the_prefix_and_exactly_what_is_supported(server: Server) -> None:
    told = server.ask("GET", "config?warehouse=work").json()
    assert told["overrides"] == {"prefix": "work"}
    assert told["endpoints"] == list(ENDPOINTS)
    assert told["idempotency-key-lifetime"] == "P90D"
    assert server.ask("GET", "config").json()["overrides"] == {"prefix": "main"}
    assert server.ask("GET", "config?warehouse=nothing").status_code == 404


def test_the_namespace_is_that_of_the_catalog_over_an_edit() -> None:
    assert NAMESPACE == pyiceberg_catalog.NAMESPACE


@pytest.mark.parametrize(
    ("method", "path", "status", "type_"),
    [
        ("GET", "work/namespaces/default/tables/nothing", 404, "NoSuchTableException"),
        ("GET", "work/namespaces/default.left/tables/files", 404, "NoSuchTableException"),
        ("GET", "work/namespaces/elsewhere/tables", 404, "NoSuchNamespaceException"),
        ("GET", "nowhere/namespaces", 404, "NotFoundException"),
        ("POST", "work/namespaces", 406, "UnsupportedOperationException"),
        ("DELETE", "work/namespaces/default", 406, "UnsupportedOperationException"),
        ("GET", "work/namespaces/default/views", 406, "UnsupportedOperationException"),
        ("POST", "work/namespaces/default/register", 406, "UnsupportedOperationException"),
        ("POST", "work/namespaces/default/tables", 400, "BadRequestException"),
        ("POST", "work/namespaces/default/tables/left", 400, "BadRequestException"),
        ("POST", "work/transactions/commit", 400, "BadRequestException"),
        ("GET", "work/namespaces/default/tables?pageSize=x", 400, "BadRequestException"),
        (
            "GET",
            f"work/namespaces/default/tables?pageSize={'9' * 5000}",
            400,
            "BadRequestException",
        ),
        ("DELETE", "main/namespaces/default/tables/left", 403, "ForbiddenException"),
        (
            "DELETE",
            "work/namespaces/default/tables/left?purgeRequested=true",
            403,
            "ForbiddenException",
        ),
    ],
)
def test_an_error_is_said_in_the_form_of_the_protocol(
    server: Server, method: str, path: str, status: int, type_: str
) -> None:
    reply = server.ask(method, path)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["type"]) == (status, status, type_)
    assert error["message"]
    assert error["kind"]


def test_every_family_of_errors_has_an_answer_and_a_fault_shows_nothing() -> None:
    request = Request("GET", ("iceberg", "v1", "x"), {}, {}, b"")
    found = {one.family: failed(one("It is.", kind="k"), request).status for one in FAMILIES}
    assert found == {
        "invalid": 400,
        "not-found": 500,
        "conflict": 409,
        "refused": 403,
        "unavailable": 503,
        "outcome-unknown": 500,
        "internal": 500,
    }
    assert b"secret" not in failed(RuntimeError("secret"), request).body
    assert b"CommitStateUnknownException" in failed(FAMILIES[5]("?", kind="k"), request).body


@pytest.mark.parametrize("kind", ["no-such-object", "no-such-bucket", "erased"])
def test_what_is_missing_in_the_lake_is_no_table_that_does_not_exist(kind: str) -> None:
    request = Request("GET", ("iceberg", "v1", "x"), {}, {}, b"")
    told = failed(NotFoundError("It is.", kind=kind), request)
    error = json.loads(told.body)["error"]
    assert (told.status, error["type"], error["kind"]) == (500, "InternalServerError", kind)


@pytest.mark.parametrize("kind", ["no-such-key", "no-such-ref", "no-such-commit", "no-such-table"])
def test_what_a_client_can_name_may_not_exist(kind: str) -> None:
    request = Request("GET", ("iceberg", "v1", "x"), {}, {}, b"")
    assert failed(NotFoundError("It is.", kind=kind), request).status == 404


def test_a_table_whose_metadata_is_gone_is_not_said_to_be_missing(
    server: Server, lake: Repository, project: Path
) -> None:
    make_branch(lake, "broken")
    server.catalog("broken").create_table("default.lost", schema=people().schema)
    state = TableContent.from_content(lake.content(lake.resolve("broken"), "table/lost"))
    (lake.root / state.metadata).unlink()
    path = ("iceberg", "v1", "broken", "namespaces", "default", "tables", "lost")
    request = Request("GET", path, {}, {}, b"")
    with pytest.raises(NotFoundError) as caught:
        answer(Service(lake, Clients(lake, project, "127.0.0.1")), request)
    assert caught.value.kind == "no-such-object"
    assert failed(caught.value, request).status == 500


def test_an_error_keeps_the_kind_that_it_has_everywhere(server: Server) -> None:
    def kind(method: str, path: str) -> str:
        return str(server.ask(method, path).json()["error"]["kind"])

    assert kind("GET", "work/namespaces/elsewhere") == "no-such-namespace"
    assert kind("PUT", "work/namespaces/default") == "unsupported-operation"


def test_a_body_that_is_no_commit_is_refused_with_its_place(server: Server) -> None:
    body = {"requirements": [], "updates": [{"action": "add-view-version"}]}
    reply = server.ask("POST", "work/namespaces/default/tables/left", body)
    assert reply.status_code == 400
    assert "add-view-version" in reply.json()["error"]["message"]


def test_a_body_that_is_too_large_is_refused(server: Server) -> None:
    url = f"{server.url}/v1/work/namespaces/default/tables/left"
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {server.token}"}
    reply = httpx.post(url, content=b"x" * (17 << 20), headers=headers, timeout=60)
    assert (reply.status_code, reply.json()["error"]["kind"]) == (400, "request-too-large")


def test_an_unchanged_table_is_not_sent_again(server: Server) -> None:
    path = "work/namespaces/default/tables/right"
    first = server.ask("GET", path)
    tag = first.headers["etag"]
    again = server.ask("GET", path, If_None_Match=tag)
    assert (again.status_code, again.content) == (304, b"")
    assert server.ask("GET", f"{path}?snapshots=refs", If_None_Match=tag).status_code == 200
    server.ask("POST", path, set_property("tag", "moved"))
    assert server.ask("GET", path, If_None_Match=tag).status_code == 200


def test_a_table_is_sent_again_when_a_compaction_has_replaced_its_files(
    server: Server, lake: Repository
) -> None:
    make_branch(lake, "small")
    table = server.catalog("small").create_table("default.parts", schema=people().schema)
    for number in range(3):
        table.append(people((number, "x")))
    path = "small/namespaces/default/tables/parts"
    first = server.ask("GET", path)
    state = TableContent.from_content(lake.content(lake.resolve("small"), "table/parts"))
    with writing(lake.root, lake.store):
        assert compact_state(lake, state, at=lake.clock()).now is not None
    again = server.ask("GET", path, If_None_Match=first.headers["etag"])
    assert again.status_code == 200
    assert again.json()["metadata-location"] != first.json()["metadata-location"]


class Meanwhile(type(Path())):  # type: ignore[misc]  # the class of this machine's paths
    """A lake's root where something happens once it was looked what stands for a state."""

    act: ClassVar[Callable[[], object] | None] = None

    def read_bytes(self) -> bytes:
        try:
            return bytes(super().read_bytes())
        finally:
            if Meanwhile.act is not None and self.parent.name == "replacements":
                act, Meanwhile.act = Meanwhile.act, None
                act()


def test_a_table_that_is_compacted_while_it_is_read_is_one_state_or_the_other(
    server: Server, lake: Repository
) -> None:
    make_branch(lake, "raced")
    table = server.catalog("raced").create_table("default.parts", schema=people().schema)
    for number in range(3):
        table.append(people((number, "x")))
    state = TableContent.from_content(lake.content(lake.resolve("raced"), "table/parts"))

    def compacted() -> None:
        with writing(lake.root, lake.store):
            assert compact_state(lake, state, at=lake.clock()).now is not None

    Meanwhile.act = compacted
    first = load_state(replace(lake, root=Meanwhile(lake.root)), state, for_writing=False)
    then = load_state(lake, state, for_writing=False)
    assert first.location != then.location
    assert state_tag(state, first, "all") != state_tag(state, then, "all")
    told = json.loads(Path(first.location).read_bytes())
    assert first.metadata["snapshots"] == told["snapshots"]


def test_only_snapshots_that_a_ref_is_at_are_sent_where_no_others_are_wanted(
    server: Server,
) -> None:
    server.catalog("work").load_table("default.right").append(people((2, "ben")))
    path = "work/namespaces/default/tables/right"
    told = server.ask("GET", f"{path}?snapshots=refs").json()["metadata"]
    assert [one["snapshot-id"] for one in told["snapshots"]] == [told["current-snapshot-id"]]
    assert len(server.ask("GET", path).json()["metadata"]["snapshots"]) == 2


def test_no_engine_may_delete_files_by_what_it_is_told(server: Server) -> None:
    path = "work/namespaces/default/tables/left"
    server.ask("POST", path, set_property("gc.enabled", "true"))
    assert server.ask("GET", path).json()["metadata"]["properties"]["gc.enabled"] == "false"


def test_many_tables_are_committed_as_one_commit_or_none(server: Server, lake: Repository) -> None:
    before = length(lake, "work")
    changes = [set_property("both", "1", identifier=named(name)) for name in ("left", "right")]
    reply = server.ask("POST", "work/transactions/commit", {"table-changes": changes})
    assert (reply.status_code, length(lake, "work")) == (204, before + 1)
    wrong = {**changes[1], "requirements": [{"type": "assert-create"}]}
    late = set_property("late", "1", identifier=named("left"))
    reply = server.ask("POST", "work/transactions/commit", {"table-changes": [late, wrong]})
    assert (reply.status_code, length(lake, "work")) == (409, before + 1)
    assert reply.json()["error"]["kind"] == "table-exists"
    assert "late" not in server.catalog("work").load_table("default.left").properties


def test_a_key_stands_for_one_request_and_is_done_once(server: Server, lake: Repository) -> None:
    path = "work/namespaces/default/tables/left"
    body = set_property("once", "1")
    first = server.ask("POST", path, body, Idempotency_Key="k1")
    after = length(lake, "work")
    second = server.ask("POST", path, body, Idempotency_Key="k1")
    assert first.json() == second.json()
    assert length(lake, "work") == after
    other = server.ask("POST", path, set_property("once", "2"), Idempotency_Key="k1")
    assert (other.status_code, other.json()["error"]["kind"]) == (422, "token-reused")
    for _ in range(2):
        drop = server.ask(
            "POST", "work/tables/rename", {"source": named("left"), "destination": named("west")},
            Idempotency_Key="k2",
        )  # fmt: skip
        assert drop.status_code == 204
    server.ask(
        "POST", "work/tables/rename", {"source": named("west"), "destination": named("left")}
    )


def test_a_key_is_not_done_where_the_branch_was_made_anew_without_its_commit(
    server: Server, lake: Repository
) -> None:
    make_branch(lake, "brief", "work")
    path, body = "brief/namespaces/default/tables/left", set_property("brief", "1")
    assert server.ask("POST", path, body, Idempotency_Key="k3").status_code == 200
    with lake.store.transaction() as tx:
        delete_ref(tx, "brief", actor="ana", at=lake.clock())
    make_branch(lake, "brief", "work")
    again = server.ask("POST", path, body, Idempotency_Key="k3")
    assert (again.status_code, again.json()["error"]["kind"]) == (409, "done-elsewhere")
    assert server.ask("POST", path, body, Idempotency_Key="k4").status_code == 200
    assert lake.resolve("brief") != lake.resolve("work")


@pytest.mark.parametrize(("place", "done"), [("before", False), ("after", True)])
def test_a_commit_whose_answer_was_lost_is_done_once_by_asking_again(
    tmp_path: Path, place: str, done: bool
) -> None:
    repo = make_project(tmp_path)
    make_branch(repo, "work")
    path, body = "work/namespaces/default/tables/people", set_property("a", "1")
    with serving(tmp_path, "--as", "ana", fault=f"rest.commit.{place}:2") as first:
        first.catalog("work").create_table("default.people", schema=people().schema)
        with pytest.raises(httpx.TransportError):
            first.ask("POST", path, body, Idempotency_Key="k")
    assert (length(repo, "work") == 3) is done
    with serving(tmp_path, "--as", "ana") as second:
        reply = second.ask("POST", path, body, Idempotency_Key="k")
        assert reply.json()["metadata"]["properties"]["a"] == "1"
    assert length(repo, "work") == 3


def test_a_staged_table_of_another_uuid_is_refused(server: Server) -> None:
    catalog = server.catalog("work")
    uuid = catalog.load_table("default.left").metadata.table_uuid
    with pytest.raises(Exception, match="was asked for"):
        _stage_as(catalog, uuid)


def _stage_as(catalog: RestCatalog, uuid: UUID) -> None:
    from pyiceberg.table.update import AssignUUIDUpdate, SetLocationUpdate

    with catalog.create_table_transaction("default.copy", schema=people().schema) as made:
        location = catalog.load_table("default.left").location()
        made._updates = tuple(
            AssignUUIDUpdate(uuid=uuid)
            if isinstance(one, AssignUUIDUpdate)
            else SetLocationUpdate(location=location)
            if isinstance(one, SetLocationUpdate)
            else one
            for one in made._updates
        )


# Tokens


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Server, Repository]]:
    """A server whose people have tokens, and its lake."""
    project = tmp_path
    repo = make_project(
        project, "people: {ana: {token: {secret: T_ANA}}, ben: {token: {secret: T_BEN}}}\n"
    )
    make_branch(repo, "work")
    with serving(project, T_ANA=ANA, T_BEN=BEN) as running:
        assert running.ready["clients"] == "authenticated"
        yield running, repo


def test_who_has_no_token_is_told_nothing(guarded: tuple[Server, Repository]) -> None:
    server, _ = guarded
    for given in ("", "Bearer wrong", "Basic x"):
        reply = server.ask("GET", "work/namespaces/default/tables", Authorization=given)
        error = reply.json()["error"]
        assert (reply.status_code, error["type"]) == (401, "NotAuthorizedException")
        assert "wrong" not in error["message"]
    with pytest.raises(UnauthorizedError):
        server.catalog("work", token="wrong")


@pytest.mark.parametrize(
    "given", [{"token": BEN}, {"credential": f"ben:{BEN}"}], ids=["token", "credential"]
)
def test_a_token_proves_who_makes_a_commit(
    guarded: tuple[Server, Repository], given: dict[str, str]
) -> None:
    server, repo = guarded
    catalog = server.catalog("work", **given, **{"header.Instep-Actor": "ana"})
    catalog.create_table_if_not_exists("default.people", schema=people().schema)
    catalog.load_table("default.people").append(people((1, "x")))
    commit = repo.commit(repo.resolve("work"))
    assert (commit.author, commit.origin) == ("ben", "rest, authenticated")
    assert rows(repo, "work", "people")


def test_a_wrong_secret_is_traded_for_nothing(guarded: tuple[Server, Repository]) -> None:
    server, _ = guarded
    form = {"grant_type": "client_credentials", "client_id": "ana", "client_secret": BEN}
    url = f"{server.url}/v1/oauth/tokens"
    assert httpx.post(url, data=form).json()["error"] == "invalid_client"
    assert httpx.post(url, data={"grant_type": "password"}).status_code == 400


EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TYPE = "urn:ietf:params:oauth:token-type:access_token"


def exchange(server: Server, token: str, authorization: str) -> httpx.Response:
    """Asks for the next access token with the fields that Iceberg's Java library sends."""
    form = {
        "grant_type": EXCHANGE,
        "scope": "catalog",
        "subject_token": token,
        "subject_token_type": ACCESS_TYPE,
    }
    url = f"{server.url}/v1/oauth/tokens"
    return httpx.post(url, data=form, headers={"Authorization": authorization})


def basic(credential: str) -> str:
    return f"Basic {base64.b64encode(credential.encode()).decode()}"


def issued(at: datetime) -> str:
    """Returns the access token that ana was given at an instant."""
    return Tokens({"ana": hashlib.sha256(ANA.encode()).digest()}).issue("ana", at)


def test_an_access_token_is_exchanged_for_the_next_before_it_ends(
    guarded: tuple[Server, Repository],
) -> None:
    server, _ = guarded
    token = issued(system_clock())
    for _ in range(2):
        told = exchange(server, token, f"Bearer {token}").json()
        assert told["issued_token_type"] == ACCESS_TYPE
        assert (told["token_type"], told["expires_in"]) == ("bearer", 3600)
        token = told["access_token"]
        asked = server.ask("GET", "work/namespaces", Authorization=f"Bearer {token}")
        assert asked.status_code == 200
    assert exchange(server, ANA, f"Bearer {ANA}").json()["access_token"].startswith("ana:")


def test_an_access_token_that_has_ended_is_exchanged_with_the_credential_only(
    guarded: tuple[Server, Repository],
) -> None:
    server, _ = guarded
    ended = issued(system_clock() - timedelta(hours=2))
    alone = exchange(server, ended, f"Bearer {ended}")
    assert (alone.status_code, alone.json()["error"]) == (400, "invalid_grant")
    for credential in (f"ana:{ANA}", ANA):
        told = exchange(server, ended, basic(credential)).json()
        token = told["access_token"]
        asked = server.ask("GET", "work/namespaces", Authorization=f"Bearer {token}")
        assert asked.status_code == 200
    for wrong in (basic(f"ana:{BEN}"), basic("ana:"), basic(":"), "Basic ?"):
        refused = exchange(server, issued(system_clock()), wrong)
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")


def test_an_access_token_ends_and_cannot_be_made_up() -> None:
    tokens = Tokens({name: hashlib.sha256(name.encode()).digest() for name in ("ana", "b:n")})
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for name in ("ana", "b:n"):
        access = tokens.issue(name, now)
        assert tokens.bearer(access, now + timedelta(minutes=59)) == name
        assert tokens.bearer(access, now + timedelta(minutes=61)) is None
        assert tokens.bearer(access[:-1] + ("0" if access[-1] != "0" else "1"), now) is None
    later = re.sub(r":\d+:", ":9999999999:", tokens.issue("ana", now))
    assert tokens.bearer(later, now) is None
    assert tokens.bearer(tokens.issue("ana", now).replace("ana", "zoe", 1), now) is None
    assert "ana" not in repr(tokens)


def test_tokens_change_with_the_people_on_main(tmp_path: Path) -> None:
    repo = make_project(tmp_path, "people: {ana: {token: {secret: T_ANA}}}\n")
    clients = Clients(repo, tmp_path, "127.0.0.1", None, {"T_ANA": ANA})
    request = bearing(ANA)
    assert clients.identify(request).name == "ana"
    put_people(repo, "{ben: {token: {secret: T_ANA}}}")
    assert clients.identify(request).name == "ben"


def bearing(token: str) -> Request:
    return Request("GET", (), {}, {"authorization": f"Bearer {token}"}, b"")


def put_people(repo: Repository, people: str) -> str:
    """Commits the people on main, and returns the digest of their file."""
    blob = repo.objects.put(f"lake: lake\npeople: {people}\n".encode())
    with repo.store.transaction("main") as tx:
        edit = Edit(repo.resolve("main"), {KEY: config_content(blob)}, "ana", "people", "x")
        publish(tx, repo, "main", edit)
    return blob


def test_who_has_no_token_of_their_own_is_left_out_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    repo = make_project(tmp_path)
    variables = {"T_ANA": ANA, "T_ONE": BEN, "T_TWO": BEN}
    clients = Clients(repo, tmp_path, "127.0.0.1", None, variables)
    assert clients.identify(Request("GET", (), {}, {}, b"")).name is None
    put_people(
        repo,
        "{ana: {token: {secret: T_ANA}}, dan: {token: {secret: T_DAN}}, "
        "one: {token: {secret: T_ONE}}, two: {token: {secret: T_TWO}}}",
    )
    assert clients.identify(bearing(ANA)).name == "ana"
    for token in (BEN, "", "T_DAN"):
        with pytest.raises(RefusedError):
            clients.identify(bearing(token))
    told = [line.split()[0] for line in caplog.messages]
    assert told == ["dan", "one", "two"]
    assert BEN not in caplog.text


def test_where_no_person_has_a_value_for_the_token_nobody_is_let_in(tmp_path: Path) -> None:
    repo = make_project(tmp_path, "people: {ana: {token: {secret: T_ANA}}}\n")
    clients = Clients(repo, tmp_path, "127.0.0.1", "ana", {})
    assert clients.have_tokens
    with pytest.raises(RefusedError) as caught:
        clients.identify(Request("GET", (), {}, {}, b""))
    assert caught.value.kind == "not-authenticated"


def test_a_stranger_is_not_told_why_nobody_can_be_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    repo = make_project(tmp_path)
    gone = put_people(repo, "{ana: {token: {secret: T_ANA}}}")
    repo.objects.existing(gone).unlink()
    service = Service(repo, Clients(repo, tmp_path, "127.0.0.1", None, {"T_ANA": ANA}))
    for method, path, body in (
        ("GET", ("v1", "config"), b""),
        ("POST", ("v1", "oauth", "tokens"), b"grant_type=client_credentials"),
        ("GET", ("v1", "main", "namespaces", "default", "tables", "people"), b""),
    ):
        request = Request(method, ("iceberg", *path), {}, {}, body)
        with pytest.raises(UnavailableError) as caught:
            answer(service, request)
        assert caught.value.kind == "clients-unknown"
        assert gone not in caught.value.message
    assert gone in caplog.text


def test_where_people_have_no_token_any_more_nobody_writes_and_others_do_not_read(
    tmp_path: Path,
) -> None:
    repo = make_project(tmp_path, "people: {ana: {token: {secret: T_ANA}}}\n")
    here, everywhere = (
        Clients(repo, tmp_path, host, "ana", {"T_ANA": ANA}) for host in ("::1", "0.0.0.0")
    )
    assert here.make_token() is None
    assert everywhere.make_token() is None
    put_people(repo, "{ana: {}}")
    assert here.identify(Request("GET", (), {}, {}, b"")).name is None
    for clients, method in ((here, "POST"), (everywhere, "GET")):
        for headers in ({}, {"authorization": f"Bearer {ANA}"}):
            with pytest.raises(RefusedError) as refused:
                clients.identify(Request(method, (), {}, headers, b""))
            assert refused.value.kind == "not-authenticated"


# Without a server


@pytest.mark.parametrize("stage", [True, False])
@pytest.mark.parametrize(
    ("host", "kind"), [("127.0.0.1", "not-authenticated"), ("0.0.0.0", "no-actor")]
)
def test_who_is_not_named_neither_makes_nor_stages_a_table(
    tmp_path: Path, stage: bool, host: str, kind: str
) -> None:
    repo = make_project(tmp_path)
    make_branch(repo, "work")
    body = {"name": "new", "schema": {"type": "struct", "fields": []}, "stage-create": stage}
    path = ("iceberg", "v1", "work", "namespaces", "default", "tables")
    clients = Clients(repo, tmp_path, host)
    token = clients.make_token()
    headers = {"authorization": f"Bearer {token}"} if token else {}
    request = Request("POST", path, {}, headers, json.dumps(body).encode())
    with pytest.raises(InstepError) as caught:
        answer(Service(repo, clients), request)
    assert caught.value.kind == kind
    assert not (repo.root / "tables").exists()


def test_a_page_begins_behind_a_name() -> None:
    names = ["a", "b", "c"]
    assert page(names, "", 2) == (["a", "b"], "b")
    assert page(names, "b", 2) == (["c"], None)
    assert page(names, "bb", 1) == (["c"], None)


def test_a_commit_is_no_place_to_write(lake: Repository) -> None:
    again = open_repository(lake.root, system_clock)
    with pytest.raises(RefusedError) as raised:
        writable(find_place(again, lake.resolve("main")))
    assert raised.value.kind == "read-only-place"
