"""Who asks: a person proven by a token, or, where no person has one, a name that is asserted.

Tokens are secrets that `people:` names (`token: {secret: NAME}`). They are read when the server
starts and when main's people change, compared in constant time, and are in no record, message or
log. As soon as one person is to have a token every request needs one; who has none, or the same as
another, is nobody here. A client that knows the token may
also trade it, as OAuth2's client credentials, for an access token that ends after an hour, and that
one for the next.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
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

_LOG = logging.getLogger(__name__)

ACCESS_S = 3600
"""How long an access token is good; clients ask for another by themselves."""

ACTOR_HEADER = "instep-actor"
"""Where a client without a token says who it is."""

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
        return self.owner(token) or self.bearer(token, at)

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

    `host` is the address that is listened on; `actor` acts where a client names nobody.
    """

    repo: Repository
    project: Path
    host: str
    actor: str | None = None
    variables: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    _known: tuple[str, ProjectConfig, Tokens] | None = None

    @property
    def have_tokens(self) -> bool:
        """Whether every request needs a token."""
        return self._current()[1].are_needed

    def are_fit(self) -> bool:
        """Says whether the host may be listened on: others reach it only where tokens are."""
        return self.have_tokens or _is_loopback(self.host)

    def check(self) -> None:
        """Holds that the host may be listened on.

        Raises:
            RefusedError (kind "no-tokens"): others could reach the server, and nobody has a token.
        """
        if not self.are_fit():
            raise RefusedError(
                f"The catalog would listen on {self.host}, where others reach it, and nobody has a "
                "token: expected a loopback address, or tokens. Leave out --host, or propose "
                '"token: {secret: NAME}" for those of people: who may use it.',
                kind="no-tokens",
                host=self.host,
            )

    def identify(self, request: Request) -> Client:
        """Returns who asks.

        Raises:
            RefusedError (kind "not-authenticated"), UnavailableError (kind "clients-unknown").
        """
        with _told_to_strangers():
            config, tokens = self._current()
        if not tokens.are_needed:
            if not _is_loopback(self.host):
                raise _unknown("nobody has a token any more")
            return Client(request.headers.get(ACTOR_HEADER) or self.actor, False)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unknown("there is none")
        name = tokens.proven(token, self.repo.clock())
        if name is None:
            raise _unknown("nobody has it, or it has ended")
        return Client(check_actor(config, name), True)

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
            UnavailableError (kind "clients-unknown").
        """
        form = dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
        grant = form.get("grant_type")
        if grant not in (_CREDENTIALS, _EXCHANGE):
            expected = f"expected {_CREDENTIALS} or {_EXCHANGE}"
            return _oauth_error(400, "unsupported_grant_type", expected)
        with _told_to_strangers():
            tokens = self._current()[1]
        at = self.repo.clock()
        credential = _credential(request, form)
        if grant == _EXCHANGE and credential is None:
            owner = tokens.proven(form.get("subject_token", ""), at)
            if owner is None:
                return _oauth_error(400, "invalid_grant", "the subject_token has ended, or is none")
        else:
            name, secret = credential or ("", "")
            owner = tokens.owner(secret)
            if owner is None or name not in ("", owner):
                return _oauth_error(401, "invalid_client", "expected a person's name and token")
        return json_reply(
            {
                "access_token": tokens.issue(owner, at),
                "token_type": "bearer",
                "expires_in": ACCESS_S,
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            },
            Cache_Control="no-store",
        )

    def _current(self) -> tuple[ProjectConfig, Tokens]:
        main = self.repo.resolve("main")
        if self._known is None or self._known[0] != main:
            config = current_config(self.repo, self.project)
            if self._known is None or self._known[1].people != config.people:
                self._known = (main, config, _tokens(config, self.project, self.variables))
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


def _tokens(config: ProjectConfig, project: Path, variables: Mapping[str, str]) -> Tokens:
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


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _unknown(why: str) -> RefusedError:
    return RefusedError(
        f"The token of the request proves nobody: {why}. Expected the token of one of the people "
        'of this project as "Authorization: Bearer TOKEN". Ask for the one that people: names.',
        kind="not-authenticated",
    )


def _oauth_error(status: int, error: str, description: str) -> Reply:
    return json_reply({"error": error, "error_description": description}, status)
