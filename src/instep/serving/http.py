"""How a bound socket is served over HTTP until the process is told to stop.

The port is bound before anything is loaded, so a second server on it is told at once; a SIGTERM
answers what is waiting. Whoever shares a socket among several applications does so by the first
part of the path. Nothing is served without doors (`doors`).
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from instep.errors import InstepError, UnavailableError
from instep.serving.doors import STATUS, Doors, check, has_body

DRAIN_S = 10
"""How long a stopping server waits for the answers under way."""
CONNECTION_LIMIT = 1000
"""Open connections; a load balancer's pool is smaller."""

UNREAD_BYTES = 1 << 20
UNREAD_S = 2.0
"""How much of a body, and how long, is let come and thrown away after a refusal: a client that is
still sending would otherwise lose the answer with its connection."""

Scope = Mapping[str, Any]  # ASGI 3.0 leaves the values open
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def bind(host: str, port: int) -> socket.socket:
    """Returns a socket bound to `host` and `port`; port 0 takes any free one.

    Raises:
        UnavailableError (kind "port-in-use"): someone listens there, or it may not be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's delay off only for a socket that says it is TCP: 40 ms an answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(CONNECTION_LIMIT)
    except OSError as error:
        listener.close()
        raise UnavailableError(
            f"Port {port} on {host} cannot be used ({error.strerror}): expected a free one. Stop "
            "the server that holds it, or choose another with --port (0 takes any).",
            kind="port-in-use",
            host=host,
            port=port,
        ) from None
    return listener


def mounted(applications: Mapping[str, Application], otherwise: Application) -> Application:
    """Returns an application that gives each request to the one whose name begins its path."""

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        first = scope["path"].strip("/").split("/")[0]
        await applications.get(first, otherwise)(scope, receive, send)

    return route


def guarded(application: Application, doors: Doors) -> Application:
    """Returns an application that is asked only what the doors let in."""

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            check(doors, scope)
        except InstepError as error:
            status, type_ = STATUS[error.kind]
            told = {"family": error.family, "kind": error.kind, "message": error.message}
            body = json.dumps({"error": {**told, "type": type_, "code": status}}).encode()
            await refuse(scope, receive, send, status, body)
        else:
            await application(scope, receive, send)

    return respond


async def refuse(
    scope: Scope,
    receive: Receive,
    send: Send,
    status: int,
    body: bytes,
    more: Mapping[str, str] | None = None,
) -> None:
    """Answers a request whose body was not read to its end, with JSON, and ends the connection."""
    headers = [
        *((name.encode(), text.encode("latin-1")) for name, text in (more or {}).items()),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    if has_body(scope) and b"expect" not in dict(scope["headers"]):  # else it is not sent
        with suppress(TimeoutError):
            async with asyncio.timeout(UNREAD_S):
                await _throw_away(receive)
    await send({"type": "http.response.body", "body": b""})


async def _throw_away(receive: Receive) -> None:
    size = 0
    while size < UNREAD_BYTES:
        message = await receive()
        size += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


async def run(
    application: Application,
    doors: Doors,
    listener: socket.socket,
    started: Callable[[str], None],
) -> None:
    """Serves until SIGTERM or SIGINT; calls `started` once with the address, when it answers."""
    import uvicorn

    config = uvicorn.Config(
        guarded(application, doors),
        lifespan="off",
        ws="none",
        proxy_headers=False,  # who asks must not choose the address that its guesses count for
        log_level="warning",
        access_log=False,
        limit_concurrency=CONNECTION_LIMIT,
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = uvicorn.Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises what it caught again, to these
        signal.signal(number, lambda *_: None)
    announcer = asyncio.create_task(_announce(server, listener, started))
    try:
        await server.serve(sockets=[listener])
    finally:
        announcer.cancel()
        with suppress(asyncio.CancelledError):
            await announcer


async def _announce(
    server: object, listener: socket.socket, started: Callable[[str], None]
) -> None:
    while not getattr(server, "started", False):
        await asyncio.sleep(0.005)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    started(f"http://{shown}:{port}")
