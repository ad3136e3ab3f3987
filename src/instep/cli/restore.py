"""`instep restore`: a lake made of a backup, in either database.

The catalog is made after every file, whole or not at all, and says which backup it is of; that
the lake is finished is marked last. Who was interrupted, and restores the same backup again, goes
on. Where the catalog was made no file is fetched again: the lake may have been used since.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import click

from instep.canonical import Json
from instep.cli.backup import FILES, FOLDERS, FORMAT, LAKE, PREDICTIONS, ROWS, copy_file
from instep.cli.claim import HEAD, UNFINISHED, claim_lake
from instep.cli.output import emit, json_option, project_option
from instep.cli.progress import say
from instep.cli.project import find_folder
from instep.cli.relocate import relocate_states
from instep.cli.wholeness import damaged, examine
from instep.clock import Clock, system_clock
from instep.errors import InvalidError, NotFoundError
from instep.faults import reached
from instep.history.dump import load_lines
from instep.history.objects import Objects, file_digest, sync_folder, write_durably
from instep.history.places import here, on_s3
from instep.history.postgres import create_postgres
from instep.history.repository import (
    CATALOG,
    MARK,
    Repository,
    home_of,
    move_home,
    open_unchecked,
)
from instep.history.sqlite import create_sqlite
from instep.history.store import Database, Inside, Store, Transaction
from instep.history.together import durable_together
from instep.history.tree import Nodes
from instep.pipelines.project import find_lake

_RESTORED = "restored"
"""In the table lake: from which backup it was made, and what of it."""


@dataclass(frozen=True, slots=True)
class Restored:
    lake: Path
    identifier: str
    is_same: bool
    rows: int
    files: int
    states: int

    def to_json(self) -> dict[str, Json]:
        return {
            "lake": str(self.lake),
            "lake_id": self.identifier,
            "same_lake": self.is_same,
            "rows": self.rows,
            "files": self.files,
            "table_states": self.states,
        }

    def to_text(self) -> str:
        which = "keeps the lake's id" if self.is_same else "is a copy, with an id of its own"
        return (
            f"Restored {self.rows:,} rows and {self.files:,} files to {self.lake}; every digest "
            f'was right. It {which} ({self.identifier}).\nNext: "instep status".'
        )


def restore_backup(
    source: Path,
    root: Path,
    clock: Clock,
    *,
    moved: bool = False,
    database: Database | None = None,
) -> Restored:
    """Makes a lake in the empty folder `root`, its catalog in `database` or in SQLite.

    It keeps its id where it was, or with `moved`; elsewhere it is a copy with a new one. Where a
    restore of the same backup was interrupted after the catalog was made, only the rest is done.

    Raises:
        NotFoundError (kind "no-such-backup").
        InvalidError (kinds "bad-backup", "folder-not-empty").
        ConflictError (kind "lake-exists").
        InternalError (kind "damaged-lake").
    """
    source, root = source.resolve(), root.resolve()
    seal: dict[str, Json] = {"backup": _head(source)["digests"]}
    claim_lake(root, {**seal, "schema": database.schema if database else None})
    made = _made_before(root, clock, database, seal)
    if made is None:
        files = _restore_files(source, root)
        reached("restore.files.after")
        made = _restore_catalog(source, root, clock, database, {**seal, "files": files}, moved)
        reached("restore.catalog.after")
    if on_s3(root):
        write_durably(root / MARK, made.identifier.encode())
    else:
        (root / UNFINISHED).unlink()
        sync_folder(root)
    return made


def _made_before(
    root: Path, clock: Clock, database: Database | None, seal: dict[str, Json]
) -> Restored | None:
    """Returns the lake that an interrupted restore of the same backup made here, if it did."""
    try:
        repo = open_unchecked(root, clock, database)
    except NotFoundError:
        return None
    with repo.store.reading() as tx:
        row = tx.row("select value from lake where name = ?", (_RESTORED,))
        home = home_of(tx)
    repo.store.close()
    told: dict[str, Any] = json.loads(str(row[0])) if row else {}  # written by _restore_catalog
    if home.root != str(root) or told.get("backup") != seal["backup"]:
        return None
    return Restored(root, home.id, told["is_same"], told["rows"], told["files"], told["states"])


def _restore_files(source: Path, root: Path) -> int:
    files = 0
    with durable_together(here(root)):
        for line in _lines(source / FILES):
            name, size, digest = json.loads(line)
            _refuse_outside(name)
            place = here(root) if name.startswith(f"{PREDICTIONS}/") else root
            _fetch(source / LAKE / name, place / name, size, digest)
            files += 1
            say(f"restoring files, {files:,} so far")
        say("making all files durable")
    return files


def _restore_catalog(
    source: Path,
    root: Path,
    clock: Clock,
    database: Database | None,
    begun: dict[str, Any],  # as _made_before reads it
    moved: bool,
) -> Restored:
    """Makes the catalog, which says itself what it was made from; all of it or nothing."""
    made: list[Restored] = []

    def fill(store: Store, tx: Transaction) -> None:
        rows = load_lines(tx, _lines(source / ROWS))
        repo = Repository(root, store, Objects(root / "objects", store), Nodes(store), clock)
        before = home = home_of(tx)
        states = relocate_states(replace(repo, store=Inside(tx)))
        if before.root != str(root):
            home = move_home(tx, root, "moved" if moved else "copied", clock())
        is_same = home.id == before.id
        told = json.dumps({**begun, "rows": rows, "states": states, "is_same": is_same})
        tx.execute(
            "insert into lake (name, value) values (?, ?) "
            "on conflict (name) do update set value = excluded.value",
            (_RESTORED, told),
        )
        checked: Counter[str] = Counter()
        for finding in examine(repo, checked, quick=True):
            raise damaged(repo, finding, checked)
        made.append(Restored(root, home.id, is_same, rows, begun["files"], states))

    store: Store = (
        create_sqlite(root / CATALOG, fill) if database is None else create_postgres(database, fill)
    )
    store.close()
    return made[-1]


def _fetch(source: Path, target: Path, size: int, digest: str) -> None:
    if target.exists() and target.stat().st_size == size and file_digest(target) == digest:
        return
    try:
        found = copy_file(source, target)
    except FileNotFoundError:
        found = (-1, "")
    if found != (size, digest):
        target.unlink(missing_ok=True)
        raise _bad(f"{source} is not what was backed up: expected {size:,} bytes of {digest}.")


def _refuse_outside(name: str) -> None:
    """Holds that a file of a backup lies in one of a lake's folders, whoever wrote its name."""
    parts = PurePosixPath(name).parts
    if len(parts) < 2 or parts[0] not in FOLDERS or ".." in parts:
        raise _bad(f'its {FILES} names "{name}": expected a file below {", ".join(FOLDERS)}.')


def _head(source: Path) -> dict[str, Any]:  # written by back_up
    path = source / HEAD
    if not path.exists():
        unfinished = " The backup there was not finished." if (source / UNFINISHED).exists() else ""
        raise NotFoundError(
            f"There is no backup in {source}: expected its {HEAD}.{unfinished} Name another "
            "folder.",
            kind="no-such-backup",
        )
    try:
        head: dict[str, Any] = json.loads(path.read_bytes())  # as above
        digests = {name: file_digest(source / name) for name in (ROWS, FILES)}
        if head["format"] == FORMAT and head["digests"] == digests:
            return head
    except (ValueError, KeyError, TypeError, FileNotFoundError):
        pass
    raise _bad(f"{path} does not fit {ROWS} and {FILES} beside it.")


def _bad(what: str) -> InvalidError:
    return InvalidError(
        f"The backup is damaged: {what} Use another backup.",
        kind="bad-backup",
    )


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="\n") as file:
        yield from file


@click.command()
@click.argument("source", type=click.Path(path_type=Path, file_okay=False))
@click.option("--moved", is_flag=True, help="The original is gone: keep the lake's id.")
@project_option
@json_option
def restore(source: Path, moved: bool, project: Path | None, as_json: bool) -> None:
    """Make the lake of this project from a backup; there must be none yet.

    \b
    Example:  instep restore /backups/flights-monday
    """
    place = find_lake(find_folder(project))
    restored = restore_backup(
        source, place.root, system_clock, moved=moved, database=place.database
    )
    emit(restored, as_json)
