"""One HTTP request and its answer as values, and the ASGI between them.

What answers is a plain function that runs in a thread (`crews`), since it reads files and waits for
the database. Requests are bounded, and who sends one is known before its body is read; an error
that nobody expected is logged, never shown. Those that write the same come one after the other
(`turns`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, unquote

from instep.errors import UnavailableError
from instep.server.crews import crew_of_readers, crew_of_writers
from instep.server.turns import WAIT_S, Turns
from instep.serving.doors import has_body
from instep.serving.http import Application, Receive, Scope, Send, refuse

MAXIMUM_BYTES = 16 << 20
"""A commit names manifests, not files: one of many tables with wide schemas stays below this."""


@dataclass(frozen=True, slots=True)
class Request:
    """`path` is split at its slashes and then decoded, so that a part may hold a slash itself.

    `address` is where it comes from.
    """

    method: str
    path: tuple[str, ...]
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    address: str = ""

    @property
    def route(self) -> str:
        return f"{self.method} /{'/'.join(self.path)}"


@dataclass(frozen=True, slots=True)
class Reply:
    """`body` is JSON text, empty for none; `after` is done once it was sent."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: Callable[[], None] | None = None


def json_reply(value: Any, status: int = 200, **headers: str) -> Reply:  # anything JSON can hold
    """Returns an answer whose body is `value` as JSON; `_` in a header's name stands for `-`."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Reply(status, body, {name.replace("_", "-"): text for name, text in headers.items()})


def application(
    answer: Callable[[Request], Reply],
    failed: Callable[[Exception, Request], Reply],
    same: Callable[[Request], str | None] = lambda _: None,
    wait_s: float = WAIT_S,
    admit: Callable[[Request], int] = lambda _: MAXIMUM_BYTES,
) -> Application:
    """Returns an ASGI application; `failed` says what is answered in place of an exception.

    `admit` is asked before a body is read: it returns how many bytes it may have, and raises for
    who may not send one. `same` tells requests that must not be carried out side by side, None for
    one that may: it changes nothing.
    """
    turns, writers, readers = Turns(wait_s), crew_of_writers(), crew_of_readers()

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        request = _request(scope)
        if has_body(scope):
            try:
                maximum = await readers.carry_out(partial(admit, request))
                request = replace(request, body=await _body(request, receive, maximum))
            except Exception as error:  # whatever it is, the client gets an answer
                reply = failed(error, request)
                await refuse(scope, receive, send, reply.status, reply.body, reply.headers)
                return
        key = same(request)
        crew = readers if key is None else writers
        try:
            async with turns.turn(key):
                reply = await crew.carry_out(partial(_answered, request, answer, failed))
        except UnavailableError as error:
            reply = failed(error, request)
        await _send(send, reply, with_body=request.method != "HEAD")
        if reply.after is not None:
            with suppress(UnavailableError):  # others wait: what is due stays so for the next
                await writers.carry_out(reply.after)

    return respond


def _answered(
    request: Request,
    answer: Callable[[Request], Reply],
    failed: Callable[[Exception, Request], Reply],
) -> Reply:
    try:
        return answer(request)
    except Exception as error:
        return failed(error, request)


def _request(scope: Scope) -> Request:
    """Returns a request without its body."""
    raw = scope.get("raw_path") or scope["path"].encode()
    parts = raw.decode("ascii", "replace").strip("/").split("/")
    query = scope["query_string"].decode("ascii", "replace")
    return Request(
        scope["method"],
        tuple(unquote(part) for part in parts),
        dict(parse_qsl(query, keep_blank_values=True)),
        {name.decode("latin-1").lower(): text.decode("latin-1") for name, text in scope["headers"]},
        b"",
        (scope.get("client") or ("",))[0],
    )


async def _body(request: Request, receive: Receive, maximum: int) -> bytes:
    """Returns the whole body; one that is too large is not read to its end.

    Raises:
        OverflowError.
    """
    size = int(request.headers.get("content-length", "0"))
    if size > maximum:
        raise OverflowError(maximum)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > maximum:
            raise OverflowError(maximum)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _send(send: Send, reply: Reply, *, with_body: bool) -> None:
    headers = [(name.encode(), text.encode("latin-1")) for name, text in reply.headers.items()]
    if reply.body:
        headers.append((b"content-type", b"application/json"))
    if reply.status not in (204, 304):
        headers.append((b"content-length", str(len(reply.body)).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body if with_body else b""})
