"""Which HTTP requests are answered at all, before anything of their body is read.

A page in somebody's browser can make it send requests to this machine: under a name of its own that
leads here (DNS rebinding), or under ours with a body of a type for which browsers ask nobody
(request forgery). So Host must be an address or a name of the server, what changes something must
come from no other origin, and its body must be of the type that the server reads. No answer lets a
foreign page read it. Not here: who asks, which `server.clients` tells by tokens.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from instep.errors import Fact, InstepError, InvalidError, RefusedError

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
FORM_BYTES = 64 * 1024
"""A form has a name and a token or two, and comes from who is not known yet."""

STATUS: Mapping[str, tuple[int, str]] = {
    "bad-request": (400, "BadRequestException"),
    "wrong-host": (421, "BadRequestException"),
    "foreign-origin": (403, "ForbiddenException"),
    "wrong-content-type": (415, "BadRequestException"),
}
"""How each kind of refusal is told: the status, and the Iceberg REST protocol's type."""

_READING = ("GET", "HEAD", "OPTIONS")
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]+)(?::[0-9]*)?")
_OWN_SITE = (b"same-origin", b"none")
"""Fetch Metadata: what a browser says of requests of our own pages, and of addresses typed in."""


@dataclass(frozen=True, slots=True)
class Doors:
    """Where a server is reached, and which folders its errors do not show.

    `names` are what Host may be, in small letters, besides addresses; `is_open` says whether others
    than this machine reach the server. The bodies of the paths in `forms` are forms. `folders`
    come with what errors have for them, the longest first.
    """

    names: frozenset[str]
    is_open: bool
    forms: frozenset[str] = frozenset()
    folders: tuple[tuple[str, str], ...] = ()

    def shown(self, text: str) -> str:
        """Returns a message without the server's folders: paths in the lake are relative to it."""
        for folder, word in self.folders:
            here = rf"(?<![\w.~-]){re.escape(folder)}"
            text = re.sub(f"{here}/", f"{word}/" if word else "", text)
            text = re.sub(rf"{here}(?![\w-])", word or ".", text)
        return text

    def shown_facts(self, error: InstepError) -> dict[str, Fact]:
        """Returns an error's facts, likewise."""
        return {name: self._shown_fact(fact) for name, fact in error.facts.items()}

    def _shown_fact(self, fact: Fact) -> Fact:
        match fact:
            case str():
                return self.shown(fact)
            case tuple():
                return tuple(map(self.shown, fact))
            case _:
                return fact


def doors_at(
    host: str,
    allowed: Sequence[str] = (),
    *,
    machine: str = "",
    forms: Iterable[str] = (),
    own: Iterable[str] = (),
) -> Doors:
    """Returns the doors of a server that listens on `host`.

    Others reach it at an address beyond loopback, and under the names in `allowed`, such as a
    proxy's. `machine` is this machine's name; `own` are the folders of the lake and the project.
    """
    is_open = not is_loopback(host) or bool(allowed)
    names = {
        "localhost",
        "127.0.0.1",
        "[::1]",
        *(name.lower().partition(":")[0] for name in allowed),
    }
    if not is_loopback(host):
        names |= {machine.lower(), host.lower()} - {""}
    return Doors(frozenset(names), is_open, frozenset(forms), _folders(own))


def is_loopback(host: str) -> bool:
    """Says whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check(doors: Doors, scope: Mapping[str, Any]) -> None:  # ASGI 3.0 leaves the values open
    """Holds that a request may be answered; reads its head only.

    Raises:
        InvalidError (kind "bad-request", "wrong-content-type").
        RefusedError (kind "wrong-host", "foreign-origin").
    """
    every = scope["headers"]
    headers = dict(every)
    host = headers.get(b"host", b"").decode("latin-1").lower()
    if not host or sum(name == b"host" for name, _ in every) > 1:
        raise InvalidError(
            "The request does not say once for which host it is: expected one header Host. "
            "Correct the client.",
            kind="bad-request",
        )
    _check_host(doors, host)
    if scope["method"] in _READING:
        return
    _check_origin(host, headers)
    if has_body(scope):
        given = headers.get(b"content-type", b"").decode("latin-1")
        expected = FORM if scope["path"].strip("/") in doors.forms else JSON
        if given.partition(";")[0].strip().lower() != expected:
            raise InvalidError(
                f'The body is of type "{given}": expected "{expected}". Send it as that in the '
                "header Content-Type.",
                kind="wrong-content-type",
            )


def has_body(scope: Mapping[str, Any]) -> bool:  # as for `check`
    """Says whether a request has more than its head."""
    named = dict(scope["headers"])
    return b"transfer-encoding" in named or named.get(b"content-length", b"0") != b"0"


def _check_host(doors: Doors, host: str) -> None:
    found = _AUTHORITY.fullmatch(host)
    name = found[1].removesuffix(".") if found else host
    if name in doors.names or (found and _is_address(doors, name.strip("[]"))):
        return
    raise RefusedError(
        f'The request is for the host "{name}": expected an address or a name of this server, '
        f"{', '.join(sorted(doors.names))}. Ask under one of them, or let whoever runs it add "
        f"--allow-host {name}.",
        kind="wrong-host",
        host=name,
    )


def _is_address(doors: Doors, name: str) -> bool:
    """Says whether this is an address under which the server answers.

    No name leads to an address that is written as one, so no page can have it for its own.
    """
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return doors.is_open or address.is_loopback


def _check_origin(host: str, headers: Mapping[bytes, bytes]) -> None:
    origin = headers.get(b"origin")
    is_foreign = headers.get(b"sec-fetch-site", b"none") not in _OWN_SITE
    if origin is not None:
        is_foreign = is_foreign or origin.decode("latin-1").lower().partition("://")[2] != host
    if is_foreign:
        said = origin.decode("latin-1") if origin is not None else "another site"
        raise RefusedError(
            f'The request comes from a page of "{said}" in a browser: expected none that changes '
            "something from there. Nothing was changed. Send it from a program.",
            kind="foreign-origin",
        )


def _folders(own: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Returns the folders that errors do not show; paths below `own` are relative to it."""
    words = {"PYTHON": sys.prefix, "~": os.path.expanduser("~"), "TMP": tempfile.gettempdir()}  # noqa: PTH111, Path.home() may raise
    found: dict[str, str] = {}
    for word, folder in [*words.items(), *(("", folder) for folder in own)]:
        for path in {folder, os.path.realpath(folder)}:
            if path.startswith("/") and len(path) > 1:
                found[path] = word
    return tuple(sorted(found.items(), key=lambda pair: (-len(pair[0]), pair[0])))
