"""The process that serves predictions: the application, the log, and the one that follows the ref.

Always: a SIGTERM answers what is waiting, ends the log, copies it into its table and exits with 0;
a release or rollback is live within about `FOLLOW_S`, swapped whole, and a commit that cannot be
loaded leaves the old one serving and says so in /health.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from instep.canonical import Json
from instep.errors import InstepError
from instep.history.repository import Repository
from instep.serving.batches import Batches
from instep.serving.doors import Doors
from instep.serving.endpoints import Admit, Service, respond
from instep.serving.flush import flush
from instep.serving.http import Application, Receive, Scope, Send, bind, mounted, run
from instep.serving.prediction_log import LogMode, LogState, PredictionLog
from instep.serving.served import ServedCommit, environment_commit, load_served

FOLLOW_S = 0.5
"""How often the environment's ref is read: one row by its key."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """What a server says when it can be asked."""

    url: str
    served: ServedCommit
    log: LogState
    folder: Path
    beside: tuple[str, ...] = ()
    token: str | None = None

    def to_json(self) -> dict[str, Json]:
        return {
            "url": self.url,
            "environment": self.served.environment,
            "commit": self.served.commit,
            "models": {name: one.source.version for name, one in self.served.models.items()},
            "log": self.log.to_json(),
            "token": self.token,
            **{name: f"{self.url}/{name}" for name in self.beside},
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
        lines += [f"  {name:<8} {self.url}/{name}" for name in self.beside]
        lines += [f"  token    {self.token}"] if self.token is not None else []
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
    beside: Mapping[str, Application],
    doors: Doors,
    admit: Admit | None,
    token: str | None,
) -> None:
    """Serves until SIGTERM or SIGINT; calls `ready` once, when the first question may come.

    `beside` are other applications on the same port, by the first part of their path. `admit` holds
    that who asks may, where not everybody may; `token` was made for that, and is told once.

    Raises:
        UnavailableError (kind "port-in-use").
        NotFoundError (kind "no-such-ref", "no-such-model"): nothing to serve.
    """
    listener = bind(host, port)
    try:
        served = load_served(repo, environment)
        log = PredictionLog(predictions_folder(repo.here), mode, repo.clock)

        def told(url: str, service: Service) -> None:
            state, folder = service.batches.log_state, predictions_folder(repo.here)
            ready(Ready(url, service.served, state, folder, tuple(beside), token))

        asyncio.run(_serve(repo, served, log, listener, told, beside, doors, admit))
    finally:
        listener.close()
    _flush(repo)


async def _serve(
    repo: Repository,
    served: ServedCommit,
    log: PredictionLog,
    listener: socket.socket,
    ready: Callable[[str, Service], None],
    beside: Mapping[str, Application],
    doors: Doors,
    admit: Admit | None,
) -> None:
    batches = Batches(log, asyncio.get_running_loop())
    service = Service(served, batches, doors=doors, admit=admit)

    async def predictions(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(service, scope, receive, send)

    follower = asyncio.create_task(_follow(repo, service))
    try:
        await run(mounted(beside, predictions), doors, listener, lambda url: ready(url, service))
    finally:
        follower.cancel()
        with suppress(asyncio.CancelledError):
            await follower
        await asyncio.to_thread(service.batches.close)


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
        flush(repo, predictions_folder(repo.here))
    except InstepError as error:
        _LOG.warning("predictions stay in the log, not yet in their table: %s", error.message)


def _reload(repo: Repository, served: ServedCommit) -> ServedCommit:
    if environment_commit(repo, served.environment) == served.commit:
        return served
    return load_served(repo, served.environment, served)
