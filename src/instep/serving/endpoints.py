"""The HTTP endpoints: a plain ASGI application over what is served.

    POST /models/{name}/predict    one question, one answer with its receipt
    GET  /models                   what is live, what each model takes
    GET  /health                   counts, the state of the log, what is live

Errors have the body {"error": {"family", "kind", "message", ...}}. Where others than this machine
ask, who does is known before a body is read; /health then tells strangers its status alone. No
framework: the three routes are shorter than a framework's set-up, and a request costs half as much.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import assert_never
from urllib.parse import unquote

from instep.canonical import Json
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
from instep.serving.batches import WAITING_LIMIT, Answer, Batches
from instep.serving.doors import Doors
from instep.serving.guard import check
from instep.serving.guesses import GUESS_S
from instep.serving.http import Receive, Scope, Send, refuse
from instep.serving.records import MODEL_FAILED, Predicted, Refused
from instep.serving.requests import MAXIMUM_BYTES, parse_question
from instep.serving.served import ServedCommit

_STATUS: Mapping[type[InstepError], int] = {
    InvalidError: 400,
    NotFoundError: 404,
    ConflictError: 409,
    RefusedError: 422,
    UnavailableError: 503,
    OutcomeUnknownError: 500,
    InternalError: 500,
}

_KINDS: Mapping[str, int] = {"not-authenticated": 401, "too-many-guesses": 429}
"""Statuses that are not those of the family."""

_HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"WWW-Authenticate": "Bearer"},
    429: {"Retry-After": str(GUESS_S)},
}

Admit = Callable[[Scope], Awaitable[None]]
"""Holds that who asks may, and raises what `respond` answers with."""


@dataclass(slots=True)
class Counts:
    """Since the start: questions answered, and refused by the guard or the model; requests that
    were the client's mistake, and those that failed here."""

    answered: int = 0
    refused: int = 0
    bad_requests: int = 0
    failed: int = 0

    def to_json(self) -> dict[str, Json]:
        return {
            "answered": self.answered,
            "refused": self.refused,
            "bad_requests": self.bad_requests,
            "failed": self.failed,
        }


@dataclass(slots=True)
class Service:
    """What the endpoints share; `served` is swapped whole, `trouble` says why it could not be.

    `admit` is None where everybody who reaches the server may ask.
    """

    served: ServedCommit
    batches: Batches
    doors: Doors
    admit: Admit | None = None
    counts: Counts = field(default_factory=Counts)
    trouble: str | None = None


async def respond(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers one HTTP request."""
    try:
        if service.admit is not None:
            if _asks_for_status(scope):
                await _send(send, 200, {"status": _status(service)})
                return
            await service.admit(scope)
        question = await _body(scope, receive) if scope["method"] == "POST" else b""
    except InstepError as error:
        status, body = _failed(service, error)
        await refuse(scope, receive, send, status, _text(body), _HEADERS.get(status))
        return
    try:
        status, body = await _route(service, scope, question)
    except InstepError as error:
        status, body = _failed(service, error)
    await _send(send, status, body)


def _failed(service: Service, error: InstepError) -> tuple[int, Mapping[str, Json]]:
    """Counts an error, and returns what is answered."""
    status = _KINDS.get(error.kind) or _STATUS[type(error)]
    if status < 500:
        service.counts.bad_requests += 1
    else:
        service.counts.failed += 1
    return status, {"error": _error(service, error)}


def _asks_for_status(scope: Scope) -> bool:
    """Says whether a stranger asks whether the server is well, as load balancers do."""
    is_stranger = b"authorization" not in dict(scope["headers"])
    return is_stranger and scope["method"] == "GET" and scope["path"].strip("/") == "health"


async def _route(service: Service, scope: Scope, question: bytes) -> tuple[int, Mapping[str, Json]]:
    match scope["method"], scope["path"].strip("/").split("/"):
        case "POST", ["models", name, "predict"]:
            return await _predict(service, unquote(name), question)
        case "GET", ["models"]:
            return 200, _models(service.served)
        case "GET", ["health"]:
            return 200, _health(service)
        case method, _:
            raise NotFoundError(
                f"{method} {scope['path']} is not a route: expected POST /models/NAME/predict, "
                "GET /models or GET /health. Correct the address.",
                kind="no-such-route",
            )


async def _predict(service: Service, name: str, body: bytes) -> tuple[int, Mapping[str, Json]]:
    model = service.served.model(name)
    question = parse_question(body)
    answer = await service.batches.answer(model, question, check(model.guard, question))
    match answer.draft.outcome:
        case Predicted(value):
            service.counts.answered += 1
            return 200, {"prediction": value, **_named(answer)}
        case Refused():
            if answer.draft.outcome.is_model_fault:
                service.counts.failed += 1
                return 500, {"error": _fault(service, answer.draft.outcome), **_named(answer)}
            service.counts.refused += 1
            return 422, {"error": _refusal(answer.draft.outcome), **_named(answer)}
        case _:
            assert_never(answer.draft.outcome)


def _named(answer: Answer) -> dict[str, Json]:
    source = answer.draft.source
    return {
        "model": source.model,
        "version": source.version,
        "commit": source.commit,
        "environment": source.environment,
        "receipt": answer.receipt,
        "flags": list(answer.draft.flags),
    }


def _refusal(refused: Refused) -> dict[str, Json]:
    return {
        "family": RefusedError.family,
        "kind": "prediction-refused",
        "message": refused.message,
        "reasons": [reason.to_json() for reason in refused.reasons],
    }


def _fault(service: Service, refused: Refused) -> dict[str, Json]:
    return {
        "family": InternalError.family,
        "kind": MODEL_FAILED,
        "message": service.doors.shown(refused.message),
    }


def _error(service: Service, error: InstepError) -> dict[str, Json]:
    return {
        "family": error.family,
        "kind": error.kind,
        "message": service.doors.shown(error.message),
        **service.doors.shown_facts(error),
    }


def _models(served: ServedCommit) -> dict[str, Json]:
    return {
        "environment": served.environment,
        "commit": served.commit,
        "models": [model.to_json() for model in served.models.values()],
    }


def _health(service: Service) -> dict[str, Json]:
    served = service.served
    return {
        "status": _status(service),
        "trouble": service.doors.shown(service.trouble) if service.trouble else None,
        "environment": served.environment,
        "commit": served.commit,
        "models": {name: model.source.version for name, model in served.models.items()},
        "requests": service.counts.to_json(),
        "waiting": service.batches.waiting,
        "waiting_limit": WAITING_LIMIT,
        "log": service.batches.log_state.to_json(),
    }


def _status(service: Service) -> str:
    return "degraded" if service.trouble else "ok"


async def _body(scope: Scope, receive: Receive) -> bytes:
    parts = []
    size = int(dict(scope["headers"]).get(b"content-length", b"0"))
    if size > MAXIMUM_BYTES:
        raise _too_large()
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidError(
                "The client went away before its request was whole: expected a whole body. Send "
                "it again.",
                kind="bad-request",
            )
        part = message.get("body", b"")
        size += len(part)
        if size > MAXIMUM_BYTES:
            raise _too_large()
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large() -> InvalidError:
    return InvalidError(
        f"The body is over {MAXIMUM_BYTES} bytes: expected one entity's features. Send one "
        "question at a time.",
        kind="request-too-large",
    )


def _text(body: Mapping[str, Json]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


async def _send(send: Send, status: int, body: Mapping[str, Json]) -> None:
    data = _text(body)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(data)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})
