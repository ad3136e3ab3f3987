"""`instep doctor`: is everything in the lake as it was written? And a lake that was moved."""

from __future__ import annotations

import sqlite3
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.output import emit, json_option, project_option, table
from instep.cli.project import find_folder
from instep.cli.wholeness import check
from instep.clock import system_clock
from instep.errors import InternalError, InvalidError
from instep.history.repository import open_repository
from instep.history.seals import Seal, take_seal
from instep.pipelines.project import find_lake


@dataclass(frozen=True, slots=True)
class Healthy:
    """A lake in which nothing is wrong, and how much of it was looked at."""

    lake: Path
    checked: Counter[str]
    quick: bool
    seal: Seal | None

    def to_json(self) -> dict[str, Json]:
        return {
            "lake": str(self.lake),
            "whole": True,
            "quick": self.quick,
            "checked": dict(self.checked),
            "seal": self.seal.id if self.seal else None,
            "seal_number": self.seal.sequence if self.seal else None,
        }

    def to_text(self) -> str:
        rows = [(f"{count:,}", what) for what, count in sorted(self.checked.items())]
        how = "Sizes of data files and blobs, digests of the rest" if self.quick else "Every digest"
        sealed = (
            f"\nSeal {self.seal.sequence} was taken: {self.seal.id}. Keep it elsewhere, and the "
            "history up to here cannot be replaced unnoticed."
            if self.seal
            else ""
        )
        return f"The lake in {self.lake} is whole. {how}:\n{table(rows)}{sealed}"


@click.command()
@click.option("--quick", is_flag=True, help="Compare sizes of data files and blobs, not digests.")
@click.option(
    "--relocate",
    is_flag=False,
    flag_value="ask",
    type=click.Choice(["moved", "copied", "ask"]),
    metavar="[moved|copied]",
    help="The lake was moved, or is a copy: make it at home here.",
)
@project_option
@json_option
def doctor(quick: bool, relocate: str | None, project: Path | None, as_json: bool) -> None:
    """Is everything in the lake as it was written? Names the first thing that is not.

    \b
    Example:  instep doctor
              instep doctor --quick
              instep doctor --relocate moved
    """
    place = find_lake(find_folder(project))
    if relocate:
        from instep.cli.relocate import relocate_lake

        acted = relocate_lake(place.root, system_clock, _decided(relocate), place.database)
        emit(acted, as_json)
        return
    try:
        repo = open_repository(place.root, system_clock, place.database)
    except sqlite3.DatabaseError as error:
        raise InternalError(
            f"The lake in {place.root} is damaged: SQLite says {error}. Restore it from a backup "
            '("instep restore").',
            kind="damaged-lake",
        ) from error
    checked = check(repo, quick=quick)
    seal = None
    if not quick:
        with repo.store.transaction() as tx:
            seal = take_seal(tx, system_clock(), with_records=True)
    emit(Healthy(repo.root, checked, quick, seal), as_json)


def _decided(relocate: str) -> str:
    """Returns "moved" or "copied"; asks a person, and nobody else."""
    if relocate != "ask":
        return relocate
    if not sys.stdin.isatty():
        raise InvalidError(
            "It is not known whether the lake was moved or copied: expected --relocate moved, "
            "which keeps its id, or --relocate copied, which gives it a new one. Say which.",
            kind="moved-or-copied",
        )
    answer: str = click.prompt(
        "Is the original gone (moved), or is this a second lake (copied)?",
        type=click.Choice(["moved", "copied"]),
        err=True,
    )
    return answer
