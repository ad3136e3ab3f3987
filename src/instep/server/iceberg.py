"""The endpoints of the Iceberg REST catalog: which there are, and what each answers.

    /iceberg/v1/config?warehouse=NAME           NAME: a branch, tag, environment or commit
    /iceberg/v1/oauth/tokens                    a person's name and token for an access token
    /iceberg/v1/{NAME}/namespaces/default/...   the tables of its commit

Source: https://iceberg.apache.org/rest-catalog-spec/. What is not in `ENDPOINTS` is answered with
406. Values in and out are the protocol's JSON; what they mean is in `reading` and `writing`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import quote

from instep.canonical import JsonObject
from instep.errors import RefusedError
from instep.history.refs import MAIN, RefKind
from instep.history.repository import Repository
from instep.history.tokens import TOKEN_DAYS
from instep.pipelines.records import is_kept_by_run
from instep.server.answers import bad_request, failed, unsupported
from instep.server.clients import Client, Clients
from instep.server.exchange import MAXIMUM_BYTES, Reply, Request, application, json_reply
from instep.server.reading import (
    NAMESPACE,
    PAGE,
    Loaded,
    Place,
    check_namespace,
    find_place,
    get_table,
    list_tables,
    load_state,
    missing_table,
    page,
    state_tag,
    with_refs_only,
)
from instep.server.updates import TableChange, parse_change
from instep.server.writing import Act, commit, create, drop, rename, stage
from instep.serving.doors import FORM_BYTES
from instep.serving.http import Application
from instep.tables.addresses import client_properties

_LOG = logging.getLogger(__name__)

MOUNT = "iceberg"
"""The first part of every path."""

ENDPOINTS = (
    "GET /v1/{prefix}/namespaces",
    "GET /v1/{prefix}/namespaces/{namespace}",
    "HEAD /v1/{prefix}/namespaces/{namespace}",
    "GET /v1/{prefix}/namespaces/{namespace}/tables",
    "POST /v1/{prefix}/namespaces/{namespace}/tables",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "DELETE /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/tables/rename",
    "POST /v1/{prefix}/transactions/commit",
)

_TOKENS = ("v1", "oauth", "tokens")

_SEPARATOR = "\x1f"
"""Between the parts of a namespace, as the protocol has it."""

_PAGE_DIGITS = 18
"""The longest pageSize that is read: enough for every number that a client counts with."""

Body = dict[str, Any]  # JSON from outside


@dataclass(frozen=True, slots=True)
class Service:
    """What the endpoints share."""

    repo: Repository
    clients: Clients


def iceberg(service: Service) -> Application:
    """Returns the ASGI application of the whole catalog."""
    shown = service.clients.doors.shown
    return application(
        partial(answer, service),
        lambda error, request: failed(error, request, shown),
        sent_again,
        admit=partial(admit, service),
    )


def admit(service: Service, request: Request) -> int:
    """Returns how many bytes the body of a request may have.

    Raises:
        InstepError: as `Clients.identify`, for who may send none.
    """
    if request.path[1:] == _TOKENS:  # the body says who asks
        return FORM_BYTES
    service.clients.identify(request)
    return MAXIMUM_BYTES


def sent_again(request: Request) -> str | None:
    """Returns what is alike in a request and its being sent again: its key, or all that it says.

    None for one that changes nothing. A commit without a key may be known by its snapshot
    (`writing.commit`), which is in its body.
    """
    if request.method in ("GET", "HEAD") or request.path[1:] == _TOKENS:
        return None
    key = request.headers.get("idempotency-key")
    if key is not None:
        return key
    query = json.dumps(dict(request.query))
    return hashlib.sha256(f"{request.route}\n{query}\n".encode() + request.body).hexdigest()


def answer(service: Service, request: Request) -> Reply:
    """Answers one request.

    Raises:
        InstepError: with what `answers.failed` makes an answer of.
    """
    if any("\0" in text for text in (*request.path, *request.query.values())):
        raise bad_request("its address has a zero byte, which no name has")
    match request.method, request.path[1:]:
        case "POST", path if path == _TOKENS:
            return service.clients.trade(request)
        case "GET", ("v1", "config"):
            service.clients.identify(request)
            return _config(service.repo, request.query.get("warehouse") or MAIN)
        case _, ("v1", prefix, *rest) if rest:
            client = service.clients.identify(request)
            place = find_place(service.repo, prefix)
            return _within(_Asked(service, request, client, place), tuple(rest))
        case _:
            raise unsupported(request)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request about one place."""

    service: Service
    request: Request
    client: Client
    place: Place

    @property
    def repo(self) -> Repository:
        return self.service.repo

    def body(self) -> Body:
        try:
            found = json.loads(self.request.body)
            json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair is no text
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise bad_request("the body is not a JSON object, or has text that is not Unicode")
        return found

    def act(self) -> Act:
        """Returns who wants this done, under which key."""
        author = self.service.clients.author(self.client)
        key = self.request.headers.get("idempotency-key")
        route: JsonObject = {"route": self.request.route, "query": dict(self.request.query)}
        text = self.request.body.decode("utf-8", "replace")
        return Act(
            author, self.client.basis, f"rest:{key}" if key else None, {**route, "body": text}
        )


def _within(asked: _Asked, rest: tuple[str, ...]) -> Reply:
    match asked.request.method, rest:
        case "GET", ("namespaces",):
            return _namespaces(asked.request.query.get("parent", ""))
        case "GET" | "HEAD" as method, ("namespaces", namespace):
            _check_namespace(namespace)
            if method == "HEAD":
                return Reply(204)
            return json_reply({"namespace": [NAMESPACE], "properties": {}})
        case "GET", ("namespaces", namespace, "tables"):
            _check_namespace(namespace)
            return _list(asked)
        case "POST", ("namespaces", namespace, "tables"):
            _check_namespace(namespace)
            return _create(asked)
        case _, ("namespaces", namespace, "tables", name):
            if namespace != NAMESPACE:
                # Not a missing namespace: engines ask so for `default.flights.snapshots`.
                parts = [*namespace.split(_SEPARATOR), name]
                raise missing_table(asked.place, ".".join(parts))
            return _table(asked, name)
        case "POST", ("tables", "rename"):
            return _rename(asked)
        case "POST", ("transactions", "commit"):
            return _transaction(asked)
        case _:
            raise unsupported(asked.request)


def _table(asked: _Asked, name: str) -> Reply:
    match asked.request.method:
        case "GET":
            return _load(asked, name)
        case "HEAD":
            get_table(asked.repo, asked.place, name)
            return Reply(204)
        case "POST":
            change = parse_change(name, asked.body())
            place = commit(asked.repo, asked.place, asked.act(), [change])
            reply = json_reply(_result(_written(asked.repo, place, name)))
            return replace(reply, after=partial(_look_after, asked, [change]))
        case "DELETE":
            if asked.request.query.get("purgeRequested", "").lower() == "true":
                raise _no_purge(name)
            drop(asked.repo, asked.place, asked.act(), name)
            return Reply(204)
        case _:
            raise unsupported(asked.request)


def _config(repo: Repository, name: str) -> Reply:
    find_place(repo, name)
    return json_reply(
        {
            "defaults": client_properties(repo.root),
            "overrides": {"prefix": quote(name, safe="")},
            "endpoints": ENDPOINTS,
            "idempotency-key-lifetime": f"P{TOKEN_DAYS}D",
        }
    )


def _namespaces(parent: str) -> Reply:
    if parent:
        _check_namespace(parent)
    return json_reply({"namespaces": [] if parent else [[NAMESPACE]]})


def _list(asked: _Asked) -> Reply:
    query = asked.request.query
    names = list_tables(asked.repo, asked.place)
    following = None
    if query.keys() & {"pageToken", "pageSize"}:
        names, following = page(
            names, query.get("pageToken", ""), _page_size(query.get("pageSize"))
        )
    return json_reply(
        {
            "identifiers": [{"namespace": [NAMESPACE], "name": name} for name in names],
            "next-page-token": following,
        }
    )


def _create(asked: _Asked) -> Reply:
    body, act = asked.body(), asked.act()  # who stages is named, too: it makes a folder
    if body.get("stage-create"):
        return json_reply(_result(stage(asked.repo, asked.place, body)))
    return json_reply(_result(create(asked.repo, asked.place, act, body)))


def _load(asked: _Asked, name: str) -> Reply:
    snapshots = asked.request.query.get("snapshots", "all")
    if snapshots not in ("all", "refs"):
        raise bad_request(f'snapshots is "{snapshots}", not all or refs')
    content = get_table(asked.repo, asked.place, name)
    ref = asked.place.ref
    is_branch = ref is not None and ref.kind is RefKind.BRANCH
    loaded = load_state(asked.repo, content, for_writing=is_branch)
    tag = state_tag(content, loaded, snapshots)
    if asked.request.headers.get("if-none-match") == tag:
        return Reply(304, headers={"ETag": tag})
    if snapshots == "refs":
        loaded = Loaded(loaded.location, with_refs_only(loaded.metadata))
    return json_reply(_result(loaded), ETag=tag)


def _rename(asked: _Asked) -> Reply:
    body = asked.body()
    before, after = (_named(body, end) for end in ("source", "destination"))
    rename(asked.repo, asked.place, asked.act(), before, after)
    return Reply(204)


def _transaction(asked: _Asked) -> Reply:
    changes: list[TableChange] = []
    told = asked.body().get("table-changes")
    if not isinstance(told, list) or not all(isinstance(one, dict) for one in told):
        raise bad_request("table-changes is not a list of objects")
    for one in told:
        changes.append(parse_change(_named(one, "identifier"), one))
    commit(asked.repo, asked.place, asked.act(), changes)
    return Reply(204, after=partial(_look_after, asked, changes))


def _look_after(asked: _Asked, changes: Sequence[TableChange]) -> None:
    """Puts small files together, after the answer; what went wrong is for whoever reads the log."""
    from instep.tables.upkeep import look_after

    for change in changes:
        is_kept = partial(is_kept_by_run, asked.repo)
        told = look_after(asked.repo, asked.place.name, change.name, is_kept)
        if told:
            _LOG.info(told)


def _written(repo: Repository, place: Place, name: str) -> Loaded:
    return load_state(repo, get_table(repo, place, name), for_writing=True)


def _result(loaded: Loaded) -> Body:
    where = {"metadata-location": loaded.location} if loaded.location else {}
    return {**where, "metadata": loaded.metadata, "config": {}}


def _named(body: Body, what: str) -> str:
    """Returns the name of a table that a body identifies, in the one namespace."""
    match body.get(what):
        case {"namespace": list() as namespace, "name": str() as name}:
            check_namespace(tuple(str(part) for part in namespace))
            return name
        case _:
            raise bad_request(f"{what} is not a namespace and a name")


def _check_namespace(text: str) -> None:
    check_namespace(tuple(text.split(_SEPARATOR)))


def _page_size(text: str | None) -> int:
    if text is None:
        return PAGE
    if len(text) > _PAGE_DIGITS or not text.isdecimal() or not int(text):
        raise bad_request(
            f'pageSize is "{text[:_PAGE_DIGITS]}", not a number from 1 on of at most '
            f"{_PAGE_DIGITS} digits"
        )
    return min(int(text), PAGE)


def _no_purge(name: str) -> RefusedError:
    return RefusedError(
        f'Table "{NAMESPACE}.{name}" cannot be purged: expected it to be dropped without that, '
        'because commits that have it need its files. Drop it; "instep gc" deletes what nothing '
        "names any more.",
        kind="no-purge",
        table=name,
    )
