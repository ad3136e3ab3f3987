"""`instep demo`: the whole way once, on real flights, in a project folder made from the example."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import click

from instep.cli.acts import Story, acts
from instep.cli.stage import play
from instep.errors import InternalError, InvalidError, UnavailableError

_MARK = ".instep-demo"
"""The file that says that a folder is a demo's, so that the next one may remove it."""

FAST_ONE_IN = 8
"""`--fast` keeps one flight number in eight: enough for every act, and an eighth of the rows."""


@click.command()
@click.option("--fast", is_flag=True, help="One flight in eight, for a first look or for CI.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line per act.")
@click.option(
    "--folder",
    default="flights-demo",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the project is made; a demo that is there already is made anew.",
)
def demo(fast: bool, as_json: bool, folder: Path) -> None:
    """Walk the whole way once, on real flights, and keep the project to look around in.

    \b
    Example:  instep demo
              instep demo --fast --folder walk
    """
    story = replace(Story(), port=free_port(), one_in=FAST_ONE_IN if fast else 1)
    place = make_project(folder)
    for text in play(acts(story), place, as_json):
        click.echo(text, nl=False)
    click.echo(look_around(place), err=as_json)


def make_project(folder: Path) -> Path:
    """Makes a project of the example in `folder`, anew where an earlier demo is there.

    Raises:
        InvalidError (kind "folder-not-empty"): something else is there.
    """
    place = folder.resolve()
    if (place / _MARK).is_file():
        shutil.rmtree(place)
    elif place.exists() and any(place.iterdir()):
        raise InvalidError(
            f"Folder {folder} is not empty, and no demo made it: expected a new folder, since the "
            "walk begins at the beginning. Name another with --folder, or remove it.",
            kind="folder-not-empty",
            path=str(folder),
        )
    place.mkdir(parents=True, exist_ok=True)
    (place / _MARK).write_text("Made by instep demo, which may remove this folder.\n")
    shutil.copytree(
        example_folder(), place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    return place


def look_around(place: Path) -> str:
    """Returns what to type next in the project that a demo made."""
    found = shutil.which("instep")
    beside = Path(sys.executable).with_name("instep")
    instep = "instep" if found else shlex.quote(os.path.relpath(beside, place))
    folder = shlex.quote(os.path.relpath(place))
    return (
        f"The project stays in {folder}. Look around, as ana or ben:\n"
        f"  cd {folder}\n"
        f"  {instep} status\n"
        f"  {instep} log main --limit 5\n"
        f"  {instep} changes --all\n"
        f"  {instep} show main --profile weather\n"
        f"  {instep} serve prod --port 8731 --as ana\n"
    )


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
