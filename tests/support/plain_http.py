"""One HTTP request exactly as it is written, with any Host, and what the server answers to it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

SECONDS = 60
"""How long an answer may take on a busy machine."""

JSON = ("Content-Type", "application/json")

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """`is_closed` says whether the server ended the connection after it."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_closed: bool

    @property
    def kind(self) -> str:
        return str(self.json["error"]["kind"])

    @property
    def json(self) -> Any:  # the shape is the route's
        return json.loads(self.body)


def bearer(token: object) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")


def tell(
    url: str, method: str, path: str, headers: Headers = (), body: bytes = b"", host: str = ""
) -> Answer:
    """Sends a request to the server at `url`; `host` is what it says in place of that address.

    A body that Content-Length promises beyond `body` is never sent.
    """
    address = urlsplit(url)
    connection = http.client.HTTPConnection(
        str(address.hostname), int(address.port or 0), timeout=SECONDS
    )
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    named = {name.lower() for name, _ in headers}
    if "host" not in named:
        connection.putheader("Host", host or address.netloc)
    for name, text in headers:
        connection.putheader(name, text)
    if method == "POST" and not named & {"content-length", "transfer-encoding"}:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body or None)
    with connection.sock.dup() as socket:
        reply = connection.getresponse()
        told = reply.read()
        is_closed = reply.will_close
        if is_closed:
            assert socket.recv(1) == b""
    connection.close()
    found = {name.lower(): text for name, text in reply.getheaders()}
    return Answer(reply.status, found, told, is_closed)
