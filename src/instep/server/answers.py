"""How Iceberg's protocol says what went wrong: the seven families as its types and status codes.

That something does not exist is said of what a client can name, and of nothing else: engines take
it for a table that they may make. A file of the lake that is missing is the server's fault.
Body: {"error": {"message", "type", "code", "kind"}}; `kind` is Instep's own, and clients leave it
be.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from instep.errors import (
    ConflictError,
    InstepError,
    InternalError,
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
    RefusedError,
    UnavailableError,
)
from instep.server.exchange import MAXIMUM_BYTES, Reply, Request, json_reply
from instep.serving.guesses import GUESS_S

_LOG = logging.getLogger(__name__)

_FAMILIES: Mapping[type[InstepError], tuple[int, str]] = {
    InvalidError: (400, "BadRequestException"),
    NotFoundError: (500, "InternalServerError"),
    ConflictError: (409, "CommitFailedException"),
    RefusedError: (403, "ForbiddenException"),
    UnavailableError: (503, "ServiceUnavailableException"),
    OutcomeUnknownError: (500, "CommitStateUnknownException"),
    InternalError: (500, "InternalServerError"),
}

_KINDS: Mapping[str, tuple[int, str]] = {
    "no-such-ref": (404, "NotFoundException"),
    "no-such-commit": (404, "NotFoundException"),
    "no-such-table": (404, "NoSuchTableException"),
    "no-such-key": (404, "NoSuchTableException"),
    "no-such-namespace": (404, "NoSuchNamespaceException"),
    "table-exists": (409, "AlreadyExistsException"),
    "not-authenticated": (401, "NotAuthorizedException"),
    "too-many-guesses": (429, "TooManyRequestsException"),
    "unsupported-operation": (406, "UnsupportedOperationException"),
    "token-reused": (422, "UnprocessableEntityException"),
}
"""Kinds for which the protocol has a type of its own; clients act on it."""

_OURS = frozenset({"bucket-access-denied", "database-permission"})
"""Kinds of a refusal that is meant for the server, not for who asks it."""

_HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"WWW-Authenticate": "Bearer"},
    429: {"Retry-After": str(GUESS_S)},
    503: {"Retry-After": "2"},
}
"""What a client is told besides. Engines wait so many seconds, five times at most."""


def failed(error: Exception, request: Request, shown: Callable[[str], str] = str) -> Reply:
    """Returns the answer to a request that ended in `error`; `shown` leaves out what no client
    shall read of a message.
    """
    match error:
        case InstepError() if error.kind in _OURS:
            _LOG.error("%s: %s", request.route, error.message)
            text = "The server may not reach the lake: expected it to be let. Its log says why."
            return _reply(503, "ServiceUnavailableException", text, error.kind)
        case InstepError():
            status, type_ = _KINDS.get(error.kind) or _FAMILIES[type(error)]
            if status == 500:
                _LOG.error("%s: %s", request.route, error.message)
            return _reply(status, type_, shown(error.message), error.kind)
        case OverflowError():
            maximum = next(iter(error.args), MAXIMUM_BYTES)
            text = f"The body is over {maximum} bytes: expected fewer. Commit less at once."
            return _reply(400, "BadRequestException", text, "request-too-large")
        case RecursionError():
            _LOG.error("%s is nested too deeply", request.route, exc_info=error)
            text = "The body is nested too deeply: expected one as the protocol has it. Correct it."
            return _reply(400, "BadRequestException", text, "bad-request")
        case _:
            _LOG.error("%s failed", request.route, exc_info=error)
            text = "The server failed: expected an answer. Its log says why."
            return _reply(500, "InternalServerError", text, "unexpected")


def unsupported(request: Request) -> InvalidError:
    """Returns what is said to who asks for what is not advertised."""
    return InvalidError(
        f"{request.route} is not supported: expected one of the endpoints that /v1/config lists. "
        "Use another, or Instep's own commands.",
        kind="unsupported-operation",
    )


def bad_request(what: str) -> InvalidError:
    """Returns what is said of a body that is not as the protocol has it."""
    return InvalidError(
        f"The request cannot be read: {what}. Expected a body as the Iceberg REST protocol has "
        "it. Correct the client.",
        kind="bad-request",
    )


def _reply(status: int, type_: str, message: str, kind: str) -> Reply:
    body = {"error": {"message": message, "type": type_, "code": status, "kind": kind}}
    return json_reply(body, status, **_HEADERS.get(status, {}))
