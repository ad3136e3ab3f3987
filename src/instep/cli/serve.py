"""`instep serve`: predictions over HTTP, each with a receipt, and tables for other engines."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import click

from instep.cli.output import actor_option, emit, json_option, project_option
from instep.cli.project import open_project

DEFAULT_PORT = 8731


@click.command()
@click.argument("environment", required=False)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Where to listen; 0 takes any free port and says which.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--allow-host",
    "allowed",
    multiple=True,
    metavar="NAME",
    help="A name under which others reach this server, such as a proxy's; may be given again.",
)
@click.option(
    "--log",
    "mode",
    type=click.Choice(["durable", "batched", "off"]),
    default="durable",
    show_default=True,
    help="durable: recorded on disk before the answer leaves. batched: on disk within 0.2 s. "
    "off: no record, no receipt.",
)
@actor_option
@project_option
@json_option
def serve(
    environment: str | None,
    port: int,
    host: str,
    allowed: tuple[str, ...],
    mode: str,
    actor: str | None,
    project: Path | None,
    as_json: bool,
) -> None:
    """Answer predictions from the models that ENVIRONMENT holds, until stopped.

    A release or rollback is followed within a second. Every answer names its model version and
    commit, and carries the receipt that "instep explain" takes.

    Under /iceberg, and without ENVIRONMENT there alone, other engines read and write the tables of
    every branch by the Iceberg REST protocol.

    Where no person has a token, one is made and printed for the life of this process: who writes
    needs it (--as says who that is), and where others than this machine reach it, everybody.

    \b
    Example:  instep serve prod --port 8731
              curl localhost:8731/models
              instep serve --as ana
    """
    # One row at a time gains nothing from more threads, and loses to their hand-over.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    opened = open_project(project)

    from instep.server.clients import Clients
    from instep.server.process import catalogs, serve_catalog
    from instep.serving.prediction_log import LogMode
    from instep.serving.process import serve as start

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    clients = Clients(opened.repo, opened.folder, host, actor, allowed=allowed)
    if environment is None:
        serve_catalog(clients, port=port, ready=lambda what: emit(what, as_json))
        return
    start(
        opened.repo,
        environment,
        host=host,
        port=port,
        mode=LogMode(mode),
        ready=lambda what: emit(what, as_json),
        beside=catalogs(clients),
        doors=clients.doors,
        admit=clients.admit if clients.doors.is_open else None,
        token=clients.make_token(),
    )
