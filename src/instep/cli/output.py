"""Options and rendering that every command shares: one result, as text or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from instep.canonical import Json
from instep.cli.progress import clear

Command = TypeVar("Command", bound=Callable[..., Any])


class Result(Protocol):
    """What a command found or did; both forms say the same."""

    def to_json(self) -> Json: ...

    def to_text(self) -> str: ...


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(
        command
    )


def actor_option(command: Command) -> Command:
    return click.option(
        "--as",
        "actor",
        envvar="INSTEP_ACTOR",
        metavar="NAME",
        help="Who acts; one of the project's people. Default: INSTEP_ACTOR, else you, or the only "
        "person.",
    )(command)


def reason_option(what: str) -> Callable[[Command], Command]:
    """Returns --why where a reason is required; an empty one is none."""

    def check(context: click.Context, option: click.Parameter, text: str) -> str:
        if not text.strip():
            raise click.BadParameter("expected a reason, found nothing.")
        return text

    return click.option("--why", required=True, callback=check, help=what)


def project_option(command: Command) -> Command:
    return click.option(
        "--project",
        type=click.Path(path_type=Path, file_okay=False),
        help="The project folder; default: the nearest one above that has an instep.yaml.",
    )(command)


def emit(result: Result, as_json: bool) -> None:
    """Prints a result."""
    clear()
    if as_json:
        click.echo(json.dumps(result.to_json(), ensure_ascii=False))
    else:
        click.echo(result.to_text())


def counted(count: int, noun: str) -> str:
    """Returns "1 key" or "2 keys"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def table(rows: Sequence[Sequence[str]], header: Sequence[str] = (), indent: str = "  ") -> str:
    """Returns rows as aligned columns; numbers to the right."""
    every = [list(header), *map(list, rows)] if header else [list(row) for row in rows]
    if not every:
        return ""
    widths = [max(len(row[index]) for row in every) for index in range(len(every[0]))]
    right = [
        bool(rows) and all(_is_number(row[index]) for row in rows) for index in range(len(widths))
    ]
    lines = [
        indent
        + "  ".join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in every
    ]
    return "\n".join(lines)


def _is_number(cell: str) -> bool:
    return (
        bool(cell) and cell.replace(",", "").replace(".", "").lstrip("+-").rstrip(" %s").isdigit()
    )
