"""The server process: a bound socket, the ASGI application, and the one that follows the ref.

Always: the port is bound before anything is loaded, so a second server on it is told at once; a
SIGTERM answers what is waiting, ends the log, copies it into its table and exits with 0; a release
or rollback is live within about `FOLLOW_S`, swapped whole, and a commit that cannot be loaded
leaves the old one serving and says so in /health.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from instep.canonical import Json
from instep.errors import InstepError, UnavailableError
from instep.history.repository import Repository
from instep.serving.batches import Batches
from instep.serving.endpoints import Receive, Scope, Send, Service, respond
from instep.serving.flush import flush
from instep.serving.prediction_log import LogMode, LogState, PredictionLog
from instep.serving.served import ServedCommit, environment_commit, load_served

FOLLOW_S = 0.5
"""How often the environment's ref is read: one row by its key."""
DRAIN_S = 10
"""How long a stopping server waits for the answers under way."""
CONNECTION_LIMIT = 1000
"""Open connections; a load balancer's pool is smaller."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """What a server says when it can be asked."""

    url: str
    served: ServedCommit
    log: LogState
    folder: Path

    def to_json(self) -> dict[str, Json]:
        return {
            "url": self.url,
            "environment": self.served.environment,
            "commit": self.served.commit,
            "models": {name: one.source.version for name, one in self.served.models.items()},
            "log": self.log.to_json(),
        }

    def to_text(self) -> str:
        models = ", ".join(
            f"{name} version {one.source.version}" for name, one in self.served.models.items()
        )
        lines = [
            f'Serving "{self.served.environment}" at {self.url}',
            f"  commit   {self.served.commit[:12]}",
            f"  models   {models}",
            f"  log      {self.log.mode.value}, in {self.folder}",
        ]
        lines += [
            f"  recovered {one.segment}: {one.records} records kept, {one.cut_bytes} torn bytes "
            "set aside"
            for one in self.log.recovered
        ]
        first = next(iter(self.served.models), "NAME")
        lines.append(f"Ask with POST {self.url}/models/{first}/predict; stop with Ctrl-C.")
        return "\n".join(lines)


def predictions_folder(root: Path) -> Path:
    """Returns where a lake keeps its prediction log."""
    return root / "predictions"


def serve(
    repo: Repository,
    environment: str,
    *,
    host: str,
    port: int,
    mode: LogMode,
    ready: Callable[[Ready], None],
) -> None:
    """Serves until SIGTERM or SIGINT; calls `ready` once, when the first question may come.

    Raises:
        UnavailableError (kind "port-in-use").
        NotFoundError (kind "no-such-ref", "no-such-model"): nothing to serve.
    """
    listener = bind(host, port)
    try:
        served = load_served(repo, environment)
        log = PredictionLog(predictions_folder(repo.root), mode, repo.clock)
        asyncio.run(_serve(repo, served, log, listener, ready))
    finally:
        listener.close()
    _flush(repo)


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


async def _serve(
    repo: Repository,
    served: ServedCommit,
    log: PredictionLog,
    listener: socket.socket,
    ready: Callable[[Ready], None],
) -> None:
    import uvicorn

    service = Service(served, Batches(log, asyncio.get_running_loop()))

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(service, scope, receive, send)

    config = uvicorn.Config(
        application,
        lifespan="off",
        log_level="warning",
        access_log=False,
        limit_concurrency=CONNECTION_LIMIT,
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = uvicorn.Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises what it caught again, to these
        signal.signal(number, lambda *_: None)
    follower = asyncio.create_task(_follow(repo, service))
    announcer = asyncio.create_task(_announce(server, service, listener, repo.root, ready))
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in (follower, announcer):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(service.batches.close)


async def _announce(
    server: object,
    service: Service,
    listener: socket.socket,
    root: Path,
    ready: Callable[[Ready], None],
) -> None:
    while not getattr(server, "started", False):
        await asyncio.sleep(0.005)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    state = service.batches.log_state
    ready(Ready(f"http://{shown}:{port}", service.served, state, predictions_folder(root)))


async def _follow(repo: Repository, service: Service) -> None:
    """Keeps `service.served` at the environment's commit; a failure is said, and tried again."""
    while True:
        await asyncio.sleep(FOLLOW_S)
        try:
            service.served = await asyncio.to_thread(_reload, repo, service.served)
            service.trouble = None
        except InstepError as error:
            if service.trouble != error.message:
                _LOG.warning("still serving %s: %s", service.served.commit[:12], error.message)
            service.trouble = error.message


def _flush(repo: Repository) -> None:
    """Copies the log into its table; whatever hinders that, the log has the records."""
    try:
        flush(repo, predictions_folder(repo.root))
    except InstepError as error:
        _LOG.warning("predictions stay in the log, not yet in their table: %s", error.message)


def _reload(repo: Repository, served: ServedCommit) -> ServedCommit:
    if environment_commit(repo, served.environment) == served.commit:
        return served
    return load_served(repo, served.environment, served)
