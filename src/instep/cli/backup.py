"""`instep backup`: a lake as a folder, of which `instep restore` makes one in either database.

A backup is `catalog.jsonl` (every row of the catalog, one state), `lake/` (its files),
`files.jsonl` (size and digest of each) and, written last, `backup.json`. The rule: first the rows,
in one reading transaction that stays open; then every file; then everything that the rows reach is
verified in the copy. Files never change and are written before the rows that reach them, so none is
missing, unless one was removed meanwhile because a ref was deleted: then the backup fails, and says
so. Both acts can be done again after they were interrupted: what was copied whole is not copied
again, and what went from the lake meanwhile, erased perhaps, goes from the backup too. Files become
durable together, before what makes them a backup or a lake is written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import click

from instep.canonical import Json
from instep.cli.claim import HEAD, UNFINISHED, claim
from instep.cli.output import emit, json_option, project_option, table
from instep.cli.progress import say
from instep.cli.project import open_project
from instep.cli.wholeness import Files, check_references, damaged
from instep.clock import format_instant
from instep.errors import UnavailableError
from instep.faults import reached
from instep.findings import Finding
from instep.history.dump import dump_lines
from instep.history.erasure import erased_digests
from instep.history.examine import Examination
from instep.history.objects import (
    blob_of,
    file_digest,
    make_durable,
    make_folder_durably,
    publish_durably,
    sync_folder,
    write_durably,
)
from instep.history.places import here
from instep.history.repository import Repository, home_of
from instep.history.together import durable_together
from instep.history.tree import Nodes

ROWS = "catalog.jsonl"
FILES = "files.jsonl"
LAKE = "lake"
PREDICTIONS = "predictions"
"""The folder of what is on this machine, wherever the lake's files are."""

FOLDERS = ("objects", "tables", PREDICTIONS)
FORMAT = 1
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class BackedUp:
    place: Path
    rows: int
    files: int
    size_bytes: int

    def to_json(self) -> dict[str, Json]:
        return {
            "backup": str(self.place),
            "rows": self.rows,
            "files": self.files,
            "size_bytes": self.size_bytes,
        }

    def to_text(self) -> str:
        rows = [
            (f"{self.rows:,}", "rows"),
            (f"{self.files:,}", "files"),
            (f"{self.size_bytes:,}", "bytes"),
        ]
        return (
            f"The lake is in {self.place}, and everything its commits reach was verified there:\n"
            f"{table(rows)}"
        )


def back_up(
    repo: Repository, destination: Path, accepted: Collection[str] = frozenset()
) -> BackedUp:
    """Writes a whole backup of a lake into a folder of its own, while others write to the lake.

    `accepted` are digests that may be missing, besides those that were erased on purpose.

    Raises:
        ConflictError (kind "backup-exists"), InvalidError (kind "folder-not-empty").
        InternalError (kind "damaged-lake"): the lake itself is damaged.
        UnavailableError (kind "backup-outrun"): files went, with a deleted ref, while it was made.
    """
    destination = destination.resolve()
    with repo.store.reading() as tx:
        home = home_of(tx)
    claim(destination, HEAD, {"lake": home.id})
    refs = _refs(repo)
    with repo.store.reading() as tx:
        rows = _write_lines(destination / ROWS, dump_lines(tx))
        reached("backup.rows.after")
        with durable_together(destination):
            files = list(_copied(repo.root, destination / LAKE, erased_digests(tx)))
            _drop_others(destination / LAKE, {name for name, _, _ in files})
            say("making all copies durable")
        reached("backup.files.after")
        _write_lines(destination / FILES, (json.dumps(one) for one in files))
        snapshot = Repository(repo.root, repo.store, repo.objects, Nodes(repo.store), repo.clock)
        accepted = erased_digests(tx).union(accepted)
        found = _first_wrong(snapshot, destination / LAKE, accepted)
    if found is not None:
        finding, checked = found
        # What a ref reached may go with the ref, or be erased; the snapshot still has it.
        went = not refs <= _refs(repo) or not _erased(repo) <= set(accepted)
        if finding.kind == "missing-file" and went:
            raise UnavailableError(
                "A file went while the backup was made, because a ref was deleted or it was "
                f"erased: {finding.subject}. Run it again; what was copied is kept.",
                kind="backup-outrun",
            )
        raise damaged(repo, finding, checked)
    head: dict[str, Json] = {
        "format": FORMAT,
        "lake": home.id,
        "root": home.root,
        "at": format_instant(repo.clock()),
        "rows": rows - 1,
        "digests": {name: file_digest(destination / name) for name in (ROWS, FILES)},
    }
    write_durably(destination / HEAD, json.dumps(head, indent=1).encode())
    (destination / UNFINISHED).unlink()
    sync_folder(destination)
    return BackedUp(destination, rows - 1, len(files), sum(one[1] for one in files))


def _copied(root: Path, to: Path, erased: Collection[str]) -> Iterator[tuple[str, int, str]]:
    """Copies every file of a lake but bytes of what was erased; yields name, size and digest."""
    for folder in FOLDERS:
        place = here(root) if folder == PREDICTIONS else root
        known: set[str] = set()
        for path in sorted(_listed(place / folder)):
            # On S3 a blob may have copies: here it has the one name that it has in a folder.
            name = path.with_name(blob_of(path.name)).relative_to(place).as_posix()
            if path.name.startswith(".") or name in known or not path.is_file():
                continue
            if blob_of(path.name) in erased:
                continue
            known.add(name)
            try:
                size, digest = copy_file(path, to / name)
            except FileNotFoundError:
                continue  # removed meanwhile; whether it is missed, the verification says
            say(f"copying {name}")
            yield name, size, digest


def _listed(folder: Path) -> Iterator[Path]:
    for number, path in enumerate(folder.rglob("*"), 1):
        say(f"listing files, {number:,} so far")
        yield path


def copy_file(source: Path, target: Path) -> tuple[int, str]:
    """Copies a file; one that was copied before, and has its bytes, is left as it is."""
    size = source.stat().st_size
    if target.exists() and target.stat().st_size == size:
        known = file_digest(target)
        if known == file_digest(source):
            return size, known
    make_folder_durably(target.parent)
    digest, size = hashlib.sha256(), 0
    part = here(target.with_name(f".{target.name}.part"))
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        with source.open("rb") as reader, part.open("wb") as writer:
            while chunk := reader.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                writer.write(chunk)
        publish_durably(part, target)
    finally:
        part.unlink(missing_ok=True)
    return size, digest.hexdigest()


def _drop_others(folder: Path, names: Collection[str]) -> None:
    """Removes what an interrupted backup copied and the lake does not have any more."""
    for path in sorted(_listed(folder)):
        if path.is_file() and path.relative_to(folder).as_posix() not in names:
            path.unlink()
            sync_folder(path.parent)


def _first_wrong(
    repo: Repository, folder: Path, accepted: Collection[str]
) -> tuple[Finding, Counter[str]] | None:
    """Checks in the copy everything that the rows reach."""
    checked: Counter[str] = Counter()
    files = Files(folder, repo.root, checked, accepted=accepted)
    history = Examination(repo, files.content, checked, say)
    for finding in chain(history.findings(), check_references(repo, files, checked)):
        return finding, checked
    return None


def _refs(repo: Repository) -> set[str]:
    with repo.store.reading() as tx:
        return {str(name) for (name,) in tx.rows("select name from refs")}


def _erased(repo: Repository) -> frozenset[str]:
    with repo.store.reading() as tx:
        return erased_digests(tx)


def _write_lines(path: Path, lines: Iterator[str]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write(f"{line}\n")
            count += 1
        file.flush()
        os.fsync(file.fileno())
    make_durable(path)
    return count


@click.command()
@click.argument("destination", type=click.Path(path_type=Path, file_okay=False))
@project_option
@json_option
def backup(destination: Path, project: Path | None, as_json: bool) -> None:
    """Copy the whole lake into a folder, verified, while others write.

    \b
    Example:  instep backup /backups/flights-monday
    """
    emit(back_up(open_project(project).repo, destination), as_json)
