"""Who asks: a person proven by a token, or, where no person has one, a name that is asserted.

Tokens are secrets that `people:` names (`token: {secret: NAME}`). They are read when the server
starts and when main's people change, compared in constant time, and are in no record, message or
log. As soon as one person is to have a token every request needs one; who has none, or the same as
another, is nobody here. Where no person has one, the process makes one for its own life: whoever
writes needs it, and everybody where others than this machine reach the server. A client that knows
the token may also trade it, as OAuth2's client credentials, for an access token that ends after an
hour, and that one for the next.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote

from instep.changes.people import check_actor, current_config
from instep.errors import InstepError, NotFoundError, RefusedError, UnavailableError
from instep.history.repository import Repository
from instep.pipelines.address import revealed
from instep.pipelines.project import ProjectConfig
from instep.server.exchange import Reply, Request, json_reply
from instep.serving.doors import Doors, doors_at
from instep.serving.guesses import Guesses
from instep.serving.http import Scope

_LOG = logging.getLogger(__name__)

ACCESS_S = 3600
"""How long an access token is good; clients ask for another by themselves."""

ACTOR_HEADER = "instep-actor"
"""Where a client without a token says who it is."""

TOKEN_BYTES = 32
"""Of chance in the token of a process: nobody guesses it."""

ADMITTED = 1000
ADMITTED_S = 0.5
"""How long who may ask for predictions is not looked up again: a token ends within that time."""

_FORMS = ("iceberg/v1/oauth/tokens",)
"""Where `trade` is asked: its body is a form, and no JSON."""

_ACCESS = "instep.access.v1"

_CREDENTIALS = "client_credentials"

_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
"""How Iceberg's Java library asks for its next access token (RFC 8693)."""


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks; `name` is None where nobody is named, which is enough to read."""

    name: str | None
    is_authenticated: bool

    @property
    def basis(self) -> str:
        return "authenticated" if self.is_authenticated else "asserted"


@dataclass(frozen=True, slots=True)
class Tokens:
    """The digests of people's tokens by name: what a token is compared with, and signs with.

    `are_needed` says whether anybody is to have one, also where nobody has.
    """

    digests: Mapping[str, bytes] = field(repr=False)
    are_needed: bool = True

    def owner(self, token: str) -> str | None:
        """Returns whose token this is; looks at each, so that time tells nothing."""
        given = hashlib.sha256(token.encode()).digest()
        found = None
        for name, digest in self.digests.items():
            if hmac.compare_digest(digest, given):
                found = name
        return found

    def proven(self, token: str, at: datetime) -> str | None:
        """Returns who is proven by a token: a person's own, or one that was issued."""
        owner = self.owner(token)
        return self.bearer(token, at) if owner is None else owner

    def issue(self, name: str, at: datetime) -> str:
        """Returns an access token for a person."""
        claim = f"{quote(name, safe='')}:{int(at.timestamp()) + ACCESS_S}"
        return f"{claim}:{self._signature(name, claim)}"

    def bearer(self, token: str, at: datetime) -> str | None:
        """Returns whose access token this is, if it is one and has not ended."""
        claim, _, signature = token.rpartition(":")
        quoted, _, ends = claim.partition(":")
        name = unquote(quoted)
        if name not in self.digests or not ends.isdecimal():
            return None
        signed = self._signature(name, claim).encode()
        if not hmac.compare_digest(signed, signature.encode()) or at.timestamp() >= int(ends):
            return None
        return name

    def _signature(self, name: str, claim: str) -> str:
        return hmac.new(self.digests[name], f"{_ACCESS}:{claim}".encode(), "sha256").hexdigest()


@dataclass(slots=True)
class Clients:
    """Tells who asks, by the people that main's configuration has now.

    `host` is the address that is listened on, `allowed` the names under which others reach it
    besides; `actor` acts where a client names nobody.
    """

    repo: Repository
    project: Path
    host: str
    actor: str | None = None
    variables: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    allowed: Sequence[str] = ()
    doors: Doors = field(init=False)
    guesses: Guesses = field(default_factory=Guesses)
    _made: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    _admitted: dict[bytes, float] = field(default_factory=dict, repr=False)
    _known: tuple[str, ProjectConfig, Tokens] | None = None

    def __post_init__(self) -> None:
        self.doors = doors_at(
            self.host,
            self.allowed,
            machine=socket.gethostname(),
            forms=_FORMS,
            own=(str(self.repo.root), str(self.repo.here), str(self.project)),
        )

    @property
    def have_tokens(self) -> bool:
        """Whether people have tokens, so that every request needs one."""
        return self._current()[1].are_needed

    def make_token(self) -> str | None:
        """Makes the token of this process, and returns it; None where none is asked for.

        It is asked for where no person has one, and somebody shall write or others than this
        machine reach the server.
        """
        if self.have_tokens or not (self.actor or self.doors.is_open):
            return None
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self._made = {self.actor or "": hashlib.sha256(token.encode()).digest()}
        self.guesses.know(token)
        return token

    def identify(self, request: Request) -> Client:
        """Returns who asks.

        Raises:
            RefusedError (kind "not-authenticated").
            UnavailableError (kind "clients-unknown", "too-many-guesses").
        """
        config, tokens = self._tokens()
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not token:
            is_read = request.method in ("GET", "HEAD")
            if tokens.are_needed or self.doors.is_open or not is_read:
                can_prove = tokens.are_needed or bool(tokens.digests)
                raise _unknown("there is none") if can_prove else _no_writers()
            return Client(None, False)
        if scheme.lower() != "bearer":
            raise _unknown("it is no Bearer token")
        at = self.repo.clock()
        name = self.guesses.look(token, request.address, lambda text: tokens.proven(text, at))
        if name is None:
            raise _unknown("nobody has it, or it has ended")
        if tokens.are_needed:
            return Client(check_actor(config, name), True)
        return Client(request.headers.get(ACTOR_HEADER) or name or None, False)

    async def admit(self, scope: Scope) -> None:
        """Holds that who asks for a prediction may; looks the token up twice a second at most.

        Raises:
            RefusedError, UnavailableError: as `identify`.
        """
        given = dict(scope["headers"]).get(b"authorization", b"")
        digest = hashlib.sha256(given).digest()
        if time.monotonic() - self._admitted.get(digest, -ADMITTED_S) < ADMITTED_S:
            return
        headers = {"authorization": given.decode("latin-1")}
        address = (scope.get("client") or ("",))[0]
        await asyncio.to_thread(self.identify, Request("POST", (), {}, headers, b"", address))
        if len(self._admitted) >= ADMITTED:
            self._admitted.clear()
        self._admitted[digest] = time.monotonic()

    def author(self, client: Client) -> str:
        """Returns who makes a commit.

        Raises:
            InvalidError (kind "no-actor"), RefusedError (kind "unknown-actor").
        """
        return check_actor(self._current()[0], client.name)

    def trade(self, request: Request) -> Reply:
        """Answers OAuth2: for a person's token, or an access token that has not ended, a new one.

        An exchange may come with the credential instead, as it does where its token has ended.

        Raises:
            UnavailableError (kind "clients-unknown", "too-many-guesses").
        """
        form = dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
        grant = form.get("grant_type")
        if grant not in (_CREDENTIALS, _EXCHANGE):
            expected = f"expected {_CREDENTIALS} or {_EXCHANGE}"
            return _oauth_error(400, "unsupported_grant_type", expected)
        tokens = self._tokens()[1]
        at = self.repo.clock()
        credential = _credential(request, form)
        if grant == _EXCHANGE and credential is None:
            subject = form.get("subject_token", "")
            owner = self.guesses.look(
                subject, request.address, lambda text: tokens.proven(text, at)
            )
            if owner is None:
                return _oauth_error(400, "invalid_grant", "the subject_token has ended, or is none")
        else:
            name, secret = credential or ("", "")
            owner = self.guesses.look(secret, request.address, tokens.owner)
            if owner is None or name not in ("", owner):
                return _oauth_error(401, "invalid_client", "expected a person's name and token")
        issued = tokens.issue(owner, at)
        self.guesses.know(issued)
        return json_reply(
            {
                "access_token": issued,
                "token_type": "bearer",
                "expires_in": ACCESS_S,
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            },
            Cache_Control="no-store",
        )

    def _tokens(self) -> tuple[ProjectConfig, Tokens]:
        """Returns the people and what proves them: their tokens, or that of this process."""
        with _told_to_strangers():
            config, tokens = self._current()
        return config, tokens if tokens.are_needed else Tokens(self._made, are_needed=False)

    def _current(self) -> tuple[ProjectConfig, Tokens]:
        main = self.repo.resolve("main")
        if self._known is None or self._known[0] != main:
            config = current_config(self.repo, self.project)
            if self._known is None or self._known[1].people != config.people:
                self._known = (main, config, _tokens_of(config, self.project, self.variables))
            else:
                self._known = (main, config, self._known[2])
        return self._known[1:]


@contextmanager
def _told_to_strangers() -> Iterator[None]:
    """Lets what fails before it is known who asks say nothing but that: the log says the rest."""
    try:
        yield
    except InstepError as error:
        _LOG.error("who asks cannot be told: %s", error.message)
        raise UnavailableError(
            "It cannot be told now who asks: expected the people of this project. The server's "
            "log says why. Try again later.",
            kind="clients-unknown",
        ) from error


def _tokens_of(config: ProjectConfig, project: Path, variables: Mapping[str, str]) -> Tokens:
    """Returns the tokens of those who have one of their own; the others are left out, and named."""
    wanted = {one.name: one.token for one in config.people.values() if one.token is not None}
    found: dict[str, bytes] = {}
    for name, secret in wanted.items():
        try:
            value = revealed(secret, project, variables)
        except NotFoundError as error:
            _LOG.error("%s cannot prove who they are: %s", name, error.message)
        else:
            found[name] = hashlib.sha256(value.encode()).digest()
    times = Counter(found.values())
    for name in [name for name, digest in found.items() if times[digest] > 1]:
        _LOG.error("%s cannot prove who they are: another person has the same token", name)
        del found[name]
    return Tokens(found, are_needed=bool(wanted))


def _credential(request: Request, form: Mapping[str, str]) -> tuple[str, str] | None:
    """Returns the name, empty for none, and the token that a client asks by; None without any."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(text, validate=True).decode()
        except ValueError:
            return "", ""
        name, colon, secret = given.partition(":")
        return (name, secret) if colon else ("", given)
    if "client_secret" in form:
        return form.get("client_id", ""), form["client_secret"]
    return None


def _unknown(why: str) -> RefusedError:
    return RefusedError(
        f"The token of the request proves nobody: {why}. Expected the token of one of the people "
        'of this project, or that which "instep serve" printed, as "Authorization: Bearer TOKEN". '
        "Ask whoever runs the server.",
        kind="not-authenticated",
    )


def _no_writers() -> RefusedError:
    return RefusedError(
        "The request has no token, and this server has none for who writes: expected it to be "
        'started with the name of who does. Start "instep serve --as NAME", and send the token '
        "that it prints.",
        kind="not-authenticated",
    )


def _oauth_error(status: int, error: str, description: str) -> Reply:
    return json_reply({"error": error, "error_description": description}, status)
