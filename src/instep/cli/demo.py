"""`instep demo`: the whole way once, on real flights, in a project folder made from the example."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from instep.cli.acts import Story, acts
from instep.cli.stage import play
from instep.errors import InternalError, InvalidError, UnavailableError

FAST_ONE_IN = 8
"""`--fast` keeps one flight number in eight: enough for every act, and an eighth of the rows."""


@click.command()
@click.option("--fast", is_flag=True, help="One flight in eight, for a first look or for CI.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line per act.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Make the project here, and keep it; default: a folder that is removed afterwards.",
)
@click.option("--keep", is_flag=True, help="Keep the project folder.")
def demo(fast: bool, as_json: bool, folder: Path | None, keep: bool) -> None:
    """Walk the whole way once, on real flights.

    \b
    Example:  instep demo
              instep demo --fast --folder walk
    """
    story = replace(Story(), port=free_port(), one_in=FAST_ONE_IN if fast else 1)
    with project(folder, keep) as place:
        for text in play(acts(story), place, as_json):
            click.echo(text, nl=False)


@contextlib.contextmanager
def project(folder: Path | None, keep: bool) -> Iterator[Path]:
    """Gives a new project folder made from the example; one that nobody named is removed.

    Raises:
        InvalidError (kind "folder-not-empty").
    """
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise InvalidError(
            f"Folder {folder} is not empty: expected a new one, since the walk begins at the "
            "beginning. Name another, or remove it.",
            kind="folder-not-empty",
            path=str(folder),
        )
    place = (folder or Path(tempfile.mkdtemp(prefix="instep-demo-"))).resolve()
    shutil.copytree(
        example_folder(), place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    try:
        yield place
    finally:
        if folder is not None or keep:
            click.echo(f"The project is in {place}. Try there: instep status", err=True)
        else:
            shutil.rmtree(place, ignore_errors=True)


def example_folder() -> Path:
    """Returns the example project: inside the installed package, or in the checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "examples" / "flights", package.parents[1] / "examples" / "flights"):
        if folder.is_dir():
            return folder
    raise InternalError(
        f"The example project is missing beside {package}: expected it in the package. Install "
        "Instep again.",
        kind="demo-failed",
    )


def free_port() -> int:
    """Returns a port of this machine on which nothing listens now: 8731 if it can."""
    import socket

    for port in (Story().port, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise UnavailableError(
        "No port is free on 127.0.0.1: expected one to serve on. Try again later.",
        kind="demo-not-ready",
    )
