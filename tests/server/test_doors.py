"""What an anonymous client, a guesser, and a page in somebody's browser can do over HTTP: little.

Requests are as browsers and scripts write them, byte for byte, and the server is a real one.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from commands import start
from plain_http import JSON, Answer, Headers, bearer, tell
from rest import Server, make_branch, make_project, people, serving

from instep.errors import InvalidError, RefusedError, UnavailableError
from instep.history.repository import Repository
from instep.serving.doors import Doors, check, doors_at
from instep.serving.guesses import ADDRESSES, GUESS_S, GUESSES, Guesses
from instep.tables.content import TableContent

TABLES = "/iceberg/v1/work/namespaces/default/tables"
CREATE = json.dumps(
    {"name": "forged", "schema": {"type": "struct", "schema-id": 0, "fields": []}}
).encode()
TEXT = ("Content-Type", "text/plain;charset=UTF-8")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repo = make_project(tmp_path_factory.mktemp("doors"))
    make_branch(repo, "work")
    return repo


@pytest.fixture(scope="module")
def server(lake: Repository) -> Iterator[Server]:
    with serving(lake.here.parent, "--as", "ana") as running:
        yield running


def create(server: Server, headers: Headers = (), host: str = "") -> Answer:
    """Asks for the table `forged`."""
    return tell(server.url, "POST", TABLES, headers, CREATE, host)


FORGED = [
    ("simple", [TEXT, ("Origin", "http://evil.example")], "evil.example:8731"),
    ("rebound", [JSON, ("Origin", "http://evil.example")], "evil.example"),
    ("foreign host", [JSON], "evil.example"),
    ("foreign origin", [JSON, ("Origin", "http://evil.example")], ""),
    ("other port", [JSON, ("Origin", "http://localhost:3000")], "localhost:8731"),
    ("sandboxed frame", [JSON, ("Origin", "null")], ""),
    ("cross-site", [JSON, ("Sec-Fetch-Site", "cross-site")], ""),
    ("same-site", [JSON, ("Sec-Fetch-Site", "same-site")], ""),
    ("text", [TEXT], ""),
    ("form", [("Content-Type", "application/x-www-form-urlencoded")], ""),
    ("multipart", [("Content-Type", "multipart/form-data; boundary=x")], ""),
    ("untyped", [], ""),
]
"""What a page can make a browser send, and the least part of each that shall be enough."""


@pytest.mark.parametrize(
    ("headers", "host"), [case[1:] for case in FORGED], ids=[case[0] for case in FORGED]
)
@pytest.mark.parametrize("has_token", [False, True])
def test_a_page_in_a_browser_changes_no_table(
    server: Server, lake: Repository, headers: Headers, host: str, has_token: bool
) -> None:
    before = lake.resolve("work")
    proof = [bearer(server.ready.get("token"))] if has_token else []
    answer = create(server, [*headers, *proof], host)
    assert answer.status in (403, 415, 421)
    assert answer.json["error"]["code"] == answer.status
    assert lake.resolve("work") == before


def test_a_page_under_a_name_of_its_own_reads_nothing(server: Server) -> None:
    for path in (TABLES, "/iceberg/v1/config", "/"):
        for method in ("GET", "HEAD", "OPTIONS"):
            assert tell(server.url, method, path, host="evil.example:8731").status == 421


def test_no_answer_lets_a_foreign_page_read_it(server: Server) -> None:
    foreign = ("Origin", "http://evil.example")
    wanted = [
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization,content-type"),
    ]
    for path in (TABLES, "/iceberg/v1/oauth/tokens", "/"):
        for method, more in (("GET", []), ("OPTIONS", wanted)):
            answer = tell(server.url, method, path, [foreign, *more])
            assert not [name for name in answer.headers if name.startswith("access-control")]
            assert method == "GET" or answer.status in (401, 406)


def scope(*hosts: str, method: str = "GET") -> dict[str, object]:
    """Returns a request as ASGI has it."""
    headers = [(b"host", host.encode("latin-1")) for host in hosts]
    return {"method": method, "path": "/", "headers": headers}


LOOPBACK = doors_at("127.0.0.1", machine="box")
EVERYWHERE = doors_at("0.0.0.0", machine="Box")
BEHIND_PROXY = doors_at("127.0.0.1", ["Lake.example:443"], machine="box")


@pytest.mark.parametrize("host", ["localhost:8731", "LOCALHOST", "localhost.", "127.0.0.1:1",
                                  "127.9.9.9", "[::1]:8731", "[::1]"])  # fmt: skip
def test_every_server_answers_under_the_names_of_this_machine(host: str) -> None:
    for doors in (LOOPBACK, EVERYWHERE, BEHIND_PROXY, doors_at("::1"), doors_at("localhost")):
        check(doors, scope(host))


@pytest.mark.parametrize(
    ("doors", "host"),
    [
        (EVERYWHERE, "192.168.1.5:8731"),
        (EVERYWHERE, "[2001:db8::5]:8731"),
        (EVERYWHERE, "box:8731"),
        (doors_at("lake.internal"), "lake.internal:8731"),
        (BEHIND_PROXY, "lake.example"),
        (BEHIND_PROXY, "LAKE.EXAMPLE:443"),
    ],
)
def test_a_server_that_others_reach_answers_under_addresses_and_its_names(
    doors: Doors, host: str
) -> None:
    check(doors, scope(host))


@pytest.mark.parametrize("doors", [LOOPBACK, EVERYWHERE, BEHIND_PROXY])
@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:127.0.0.1",
     "[::1", "[::1].evil.example", "127.1", "0x7f000001", "2130706433", "l\xf6calhost",
     "@localhost", "localhost@evil.example"],
)  # fmt: skip
def test_no_server_answers_under_a_name_that_is_not_its_own(doors: Doors, host: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check(doors, scope(host))
    assert caught.value.kind == "wrong-host"


def test_addresses_of_others_are_no_names_of_a_server_on_loopback() -> None:
    for host in ("192.168.1.5:8731", "box"):
        with pytest.raises(RefusedError):
            check(LOOPBACK, scope(host))


@pytest.mark.parametrize("hosts", [(), ("",), ("localhost", "localhost")])
def test_a_request_says_once_for_which_host_it_is(hosts: tuple[str, ...]) -> None:
    with pytest.raises(InvalidError) as caught:
        check(LOOPBACK, scope(*hosts))
    assert caught.value.kind == "bad-request"


def test_a_page_of_ones_own_and_a_program_are_let_in(server: Server) -> None:
    origin = ("Origin", server.url.removesuffix("/iceberg"))
    for more in ([], [origin], [origin, ("Sec-Fetch-Site", "same-origin")]):
        headers = [("Content-Type", "Application/JSON; charset=utf-8"), *more]
        answer = tell(server.url, "POST", TABLES, [*headers, bearer(server.token)], b"{}")
        assert (answer.status, answer.kind) == (400, "bad-name")


# Tokens

WRITES = [
    ("POST", TABLES),
    ("POST", f"{TABLES}/people"),
    ("DELETE", f"{TABLES}/people"),
    ("POST", "/iceberg/v1/work/tables/rename"),
    ("POST", "/iceberg/v1/work/transactions/commit"),
]


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_an_anonymous_client_of_this_machine_reads_and_does_not_write(
    lake: Repository, server: Server, method: str, path: str
) -> None:
    before = lake.resolve("work")
    assert tell(server.url, "GET", TABLES).status == 200
    for named in ([], [("Instep-Actor", "ana")]):
        answer = tell(server.url, method, path, [JSON, *named], CREATE if method == "POST" else b"")
        assert (answer.status, answer.kind) == (401, "not-authenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert lake.resolve("work") == before


LONG = ("Content-Length", "9000000")


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ([JSON], 401, "not-authenticated"),
        ([JSON, bearer("wrong")], 401, "not-authenticated"),
        ([TEXT], 415, "wrong-content-type"),
        ([JSON, ("Origin", "null")], 403, "foreign-origin"),
        ([JSON, ("Host", "evil.example")], 421, "wrong-host"),
        ([JSON, ("Expect", "100-continue")], 401, "not-authenticated"),
    ],
)
def test_who_is_refused_is_told_before_their_body_is_read(
    server: Server, headers: Headers, status: int, kind: str
) -> None:
    answer = tell(server.url, "POST", TABLES, [*headers, LONG])
    assert (answer.status, answer.kind, answer.is_closed) == (status, kind, True)


def test_a_body_that_says_that_it_is_too_long_is_not_read(server: Server) -> None:
    token = bearer(server.token)
    size = ("Content-Length", str(17 << 20))
    answer = tell(server.url, "POST", TABLES, [JSON, token, size])
    assert (answer.status, answer.kind, answer.is_closed) == (400, "request-too-large", True)
    form = ("Content-Type", "application/x-www-form-urlencoded")
    path = "/iceberg/v1/oauth/tokens"
    answer = tell(server.url, "POST", path, [form], b"x" * 65_537)
    assert (answer.status, answer.kind, answer.is_closed) == (400, "request-too-large", True)


def test_who_is_still_sending_a_body_that_is_refused_gets_the_answer(server: Server) -> None:
    body = b"x" * (1 << 20)
    for headers in ([JSON], [TEXT], [JSON, bearer("wrong too")]):
        answer = tell(server.url, "POST", TABLES, headers, body)
        assert (answer.status in (401, 415), answer.is_closed) == (True, True)


def test_the_token_of_a_process_is_told_once_kept_nowhere_and_ends_with_it(tmp_path: Path) -> None:
    repo = make_project(tmp_path)
    make_branch(repo, "work")
    tokens = []
    for number in range(2):
        with serving(tmp_path, "--as", "ana") as server:
            assert server.token is not None
            assert len(server.token) >= 43
            table = server.catalog("work").create_table(f"default.t{number}", people().schema)
            table.append(people((1, "x")))
            tokens.append(server.token)
            asked = [tell(server.url, "GET", TABLES, [bearer(one)]).status for one in tokens]
            assert asked == [401] * number + [200]
            tell(server.url, "POST", TABLES, [JSON, bearer(server.token)], b"{")
            server.running.process.terminate()
            server.running.process.join()
            assert server.token not in server.running.err.read()
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert not [token for token in tokens if token.encode() in kept]
    assert repo.commit(repo.resolve("work")).author == "ana"


def test_a_person_reads_the_token_where_the_server_says_what_it_serves(tmp_path: Path) -> None:
    make_project(tmp_path)
    running = start("serve", "--port", "0", "--as", "ana", at=tmp_path, actor="", seconds=0)
    lines = [running.out.readline() for _ in range(3)]
    running.kill()
    assert re.fullmatch(r"  token    [\w-]{43}\n", lines[2])


def test_a_server_for_which_nobody_writes_takes_no_writes_and_says_how(tmp_path: Path) -> None:
    repo = make_project(tmp_path)
    make_branch(repo, "work")
    with serving(tmp_path) as server:
        assert server.token is None
        assert tell(server.url, "GET", TABLES).status == 200
        for headers in ([JSON], [JSON, ("Instep-Actor", "ana")]):
            answer = create(server, headers)
            assert (answer.status, answer.kind) == (401, "not-authenticated")
            assert "instep serve --as NAME" in answer.json["error"]["message"]


def test_the_token_of_a_process_is_traded_as_that_of_a_person_is(server: Server) -> None:
    form = {"grant_type": "client_credentials", "client_id": "ana"}
    url = f"{server.url}/v1/oauth/tokens"
    told = httpx.post(url, data={**form, "client_secret": str(server.token)}).json()
    proof = [JSON, bearer(told["access_token"])]
    assert tell(server.url, "POST", TABLES, proof, b"{}").kind == "bad-name"


PEOPLE = "people: {ana: {token: {secret: T_ANA}}, ben: {token: {secret: T_BEN}}}\n"
ANA, BEN = "a-token-of-ana", "a-token-of-ben"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Server]:
    """A server whose people have tokens."""
    make_branch(make_project(tmp_path, PEOPLE), "work")
    with serving(tmp_path, "--as", "ana", T_ANA=ANA, T_BEN=BEN) as running:
        yield running


def test_where_people_have_tokens_none_is_made_and_everybody_needs_one(guarded: Server) -> None:
    assert guarded.token is None
    assert tell(guarded.url, "GET", TABLES).status == 401
    assert tell(guarded.url, "GET", TABLES, [bearer(ANA)]).status == 200


@pytest.mark.parametrize(
    ("options", "host"),
    [(("--host", "0.0.0.0"), ""), (("--allow-host", "lake.example"), "lake.example")],
    ids=["beyond loopback", "behind a proxy"],
)
def test_an_anonymous_client_of_the_network_neither_reads_nor_writes(
    tmp_path: Path, options: tuple[str, ...], host: str
) -> None:
    repo = make_project(tmp_path)
    make_branch(repo, "work")
    before = repo.resolve("work")
    with serving(tmp_path, *options) as server:
        for path in (TABLES, f"{TABLES}/people", "/iceberg/v1/config?warehouse=nothing"):
            answer = tell(server.url, "GET", path, host=host)
            assert (answer.status, answer.kind) == (401, "not-authenticated")
        assert create(server, [JSON, ("Instep-Actor", "ana")], host).status == 401
        assert tell(server.url, "GET", TABLES, [bearer(server.token)], host=host).status == 200
        nobody = create(server, [JSON, bearer(server.token)], host)
        assert (nobody.status, nobody.kind) == (400, "no-actor")
        assert repo.resolve("work") == before
        named = [JSON, bearer(server.token), ("Instep-Actor", "ana")]
        assert create(server, named, host).status == 200
    assert repo.commit(repo.resolve("work")).author == "ana"


# Guesses


def asked(server: Server, token: str, *more: tuple[str, str]) -> Answer:
    return tell(server.url, "GET", TABLES, [bearer(token), *more])


def test_guesses_are_slowed_and_whoever_was_known_is_not(guarded: Server) -> None:
    assert asked(guarded, BEN).status == 200
    for number in range(GUESSES):
        answer = asked(guarded, f"guess{number}", ("X-Forwarded-For", f"10.0.0.{number}"))
        assert answer.status == 401
    for token in ("another", "guess0", ANA):
        answer = asked(guarded, token, ("X-Forwarded-For", "10.0.0.9"))
        assert (answer.status, answer.kind) == (429, "too-many-guesses")
        assert int(answer.headers["retry-after"]) == GUESS_S
    assert asked(guarded, BEN).status == 200
    form = {"grant_type": "client_credentials", "client_id": "ana", "client_secret": "another"}
    url = f"{guarded.url}/v1/oauth/tokens"
    assert httpx.post(url, data=form).status_code == 429
    known = {**form, "client_id": "ben", "client_secret": BEN}
    access = httpx.post(url, data=known).json()["access_token"]
    assert asked(guarded, access).status == 200


@pytest.mark.parametrize("grant", ["client_credentials", "exchange", "basic"])
def test_guesses_of_every_way_to_prove_oneself_count(guarded: Server, grant: str) -> None:
    url = f"{guarded.url}/v1/oauth/tokens"
    exchange = "urn:ietf:params:oauth:grant-type:token-exchange"
    statuses = []
    for number in range(GUESSES + 1):
        secret = f"guess{number}"
        form, auth = {
            "client_credentials": ({"grant_type": grant, "client_secret": secret}, None),
            "exchange": ({"grant_type": exchange, "subject_token": secret}, None),
            "basic": ({"grant_type": exchange}, ("ana", secret)),
        }[grant]
        statuses.append(httpx.post(url, data=form, auth=auth).status_code)
    assert set(statuses[:-1]) <= {400, 401}
    assert statuses[-1] == 429


def guess(guesses: Guesses, token: str, address: str) -> str | None:
    return guesses.look(token, address, {"right": "ana"}.get)


def test_after_a_minute_a_token_is_looked_at_again_and_memory_is_bounded() -> None:
    now = 0.0
    guesses = Guesses(lambda: now)
    for number in range(GUESSES):
        now += 1.0
        assert guess(guesses, f"wrong{number}", "10.0.0.1") is None
    for at in (now, GUESS_S + 0.9):
        now = at
        with pytest.raises(UnavailableError) as caught:
            guess(guesses, "right", "10.0.0.1")
        assert caught.value.kind == "too-many-guesses"
    assert guess(guesses, "right", "10.0.0.2") == "ana"
    now = GUESS_S + 1.0
    assert guess(guesses, "wrong", "10.0.0.1") is None
    with pytest.raises(UnavailableError):
        guess(guesses, "wrong", "10.0.0.1")
    for number in range(ADDRESSES + 50):
        guess(guesses, "wrong", f"host{number}")
    assert len(guesses._wrong) == ADDRESSES
    assert {len(times) for times in guesses._wrong.values()} == {1}


@pytest.mark.parametrize(
    ("first", "second", "are_one"),
    [
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
    ],
)
def test_guesses_count_for_the_network_that_one_customer_has(
    first: str, second: str, are_one: bool
) -> None:
    guesses = Guesses(lambda: 0.0)
    for number in range(GUESSES):
        guess(guesses, f"wrong{number}", first)
    with suppress(UnavailableError):
        assert guess(guesses, "right", second) == "ana"
        assert not are_one
        return
    assert are_one


# What errors show


def test_no_error_shows_where_the_lake_is_on_this_machine(tmp_path: Path) -> None:
    repo = make_project(tmp_path)
    make_branch(repo, "work")
    answers: list[Answer] = []
    with serving(tmp_path, "--as", "ana") as server:
        proof = [JSON, bearer(server.token)]

        def ask(method: str, path: str, body: object = None) -> None:
            text = b"" if body is None else json.dumps(body).encode()
            answers.append(tell(server.url, method, path, proof, text))

        for name in ("lost", "damaged", "people"):
            server.catalog("work").create_table(f"default.{name}", people().schema)
        for name in ("lost", "damaged"):
            state = TableContent.from_content(repo.content(repo.resolve("work"), f"table/{name}"))
            metadata = repo.root / state.metadata
            metadata.unlink()
            if name == "damaged":
                metadata.write_text("{")
            ask("GET", f"{TABLES}/{name}")
            ask("POST", f"{TABLES}/{name}", {"requirements": [], "updates": []})
        snapshot = {
            "snapshot-id": 1,
            "sequence-number": 1,
            "timestamp-ms": 1,
            "manifest-list": str(repo.root / "tables" / "nothing.avro"),
            "summary": {"operation": "append"},
        }
        for update in (
            {"action": "add-snapshot", "snapshot": snapshot},
            {"action": "set-location", "location": "/elsewhere"},
        ):
            ask("POST", f"{TABLES}/people", {"requirements": [], "updates": [update]})
        ask("POST", TABLES, {"name": "new", "location": "/elsewhere", "schema": {}})
        ask("GET", "/iceberg/v1/nothing/namespaces/default/tables")
        for path in repo.root.glob("catalog.sqlite*"):
            path.write_bytes(b"no database" * 1000)
        ask("GET", TABLES)
        ask("POST", f"{TABLES}/people", {"requirements": [], "updates": []})
    assert {answer.status for answer in answers} >= {400, 404, 500}
    for answer in answers:
        assert answer.status >= 400, answer.body
        told = json.dumps(answer.json, ensure_ascii=False)
        for folder in (tmp_path, Path.home(), Path(sys.prefix), Path(tempfile.gettempdir())):
            assert str(folder) not in told


def test_paths_of_the_lake_are_shown_relative_to_it_and_no_others_are_touched() -> None:
    doors = doors_at("127.0.0.1", own=("/data/lakes/one", "/data/lakes"))
    for text, shown in (
        ("/data/lakes/one/objects/ab is missing", "objects/ab is missing"),
        ('"file:///data/lakes/one/tables/x"', '"file://tables/x"'),
        ("/data/lakes/instep.yaml, line 3", "instep.yaml, line 3"),
        (f"{sys.prefix}/lib/x.py", "PYTHON/lib/x.py"),
        (f"{Path.home()}/.aws", "~/.aws"),
        ("GET /iceberg/v1/data/lakes is none", "GET /iceberg/v1/data/lakes is none"),
        ("s3://bucket/data", "s3://bucket/data"),
    ):
        assert doors.shown(text) == shown
