"""The process of `instep serve` without an environment: the catalog alone, until it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from instep.canonical import Json
from instep.server.answers import failed, unsupported
from instep.server.clients import Clients
from instep.server.exchange import Reply, Request, application
from instep.server.iceberg import MOUNT, Service, iceberg
from instep.serving.http import Application, bind, mounted, run


@dataclass(frozen=True, slots=True)
class Ready:
    """What a server says when it can be asked."""

    url: str
    have_tokens: bool
    token: str | None = None

    def to_json(self) -> dict[str, Json]:
        return {
            "url": self.url,
            MOUNT: f"{self.url}/{MOUNT}",
            "clients": "authenticated" if self.have_tokens else "asserted",
            "token": self.token,
        }

    def to_text(self) -> str:
        if self.have_tokens:
            known = "are known by their tokens"
        elif self.token is not None:
            known = "that write have the token, and are who they say"
        else:
            known = "may read; for others to write, name who does with --as"
        return "\n".join(
            [
                f"Serving the tables of every branch at {self.url}/{MOUNT}",
                f"  clients  {known}",
                *([f"  token    {self.token}"] if self.token is not None else []),
                "Point an Iceberg REST client there, with a branch as its warehouse; stop with "
                "Ctrl-C.",
            ]
        )


def catalogs(clients: Clients) -> dict[str, Application]:
    """Returns what is served of the lake's tables, by the first part of the path."""
    return {MOUNT: iceberg(Service(clients.repo, clients))}


def serve_catalog(clients: Clients, *, port: int, ready: Callable[[Ready], None]) -> None:
    """Serves until SIGTERM or SIGINT; calls `ready` once, when the first question may come.

    Raises:
        UnavailableError (kind "port-in-use").
    """
    have_tokens = clients.have_tokens
    token = clients.make_token()
    listener = bind(clients.host, port)
    try:
        asyncio.run(
            run(
                mounted(catalogs(clients), application(_nothing_else, failed)),
                clients.doors,
                listener,
                lambda url: ready(Ready(url, have_tokens, token)),
            )
        )
    finally:
        listener.close()


def _nothing_else(request: Request) -> Reply:
    raise unsupported(request)
