"""A request to an application in this process, and an answer that comes when it is let come."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from instep.server.exchange import Reply, Request
from instep.serving.http import Application


@dataclass(slots=True)
class Slow:
    """An answer that comes when it is let come, and counts how often it was asked for."""

    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    may_end: threading.Event = field(default_factory=threading.Event)
    asked: int = 0

    def __call__(self, request: Request) -> Reply:
        if request.method == "GET":
            return Reply(204)
        self.asked += 1
        self.begun.release()
        self.may_end.wait()
        return Reply(200)


@dataclass(slots=True)
class Told:
    """What an application answered."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


async def ask(
    app: Application,
    method: str = "POST",
    path: str = "/a",
    body: bytes = b"{}",
    key: str | None = None,
    token: str | None = None,
) -> Told:
    """Sends one request without a socket."""
    told = Told()
    where, _, query = path.partition("?")

    async def receive() -> Mapping[str, Any]:  # as ASGI has it
        return {"type": "http.request", "body": body}

    async def send(message: Mapping[str, Any]) -> None:  # as ASGI has it
        if message["type"] == "http.response.start":
            told.status = message["status"]
            told.headers = {name.decode(): text.decode() for name, text in message["headers"]}
        else:
            told.body += message["body"]

    headers = [(b"content-length", str(len(body)).encode())] if method == "POST" else []
    headers += [(b"idempotency-key", key.encode())] if key else []
    headers += [(b"authorization", f"Bearer {token}".encode())] if token else []
    scope = {"method": method, "path": where, "query_string": query.encode(), "headers": headers}
    await app(scope, receive, send)
    return told
