"""Makes a lake at home under another root: `instep doctor --relocate`, and the end of a restore.

Every table state that a ref reaches gets Iceberg files that name the new root; the catalog is
changed last, in one transaction. Until then the lake is refused as before, and the act can be done
again: states that have their new files are left as they are. States that no ref reaches get theirs
when something is written upon them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from instep.canonical import Json, JsonObject
from instep.cli.output import counted
from instep.cli.progress import say
from instep.cli.wholeness import damaged
from instep.clock import Clock
from instep.errors import ConflictError, RefusedError
from instep.faults import reached
from instep.findings import Finding
from instep.history.examine import Examination
from instep.history.places import on_s3
from instep.history.repository import (
    CATALOG,
    MARK,
    Home,
    Repository,
    claim_root,
    home_of,
    move_home,
    open_unchecked,
)
from instep.history.sqlite import open_sqlite
from instep.history.store import Database
from instep.tables.content import TYPE as TABLE
from instep.tables.content import TableContent
from instep.tables.relocate import Rewritten, relocate_table


@dataclass(frozen=True, slots=True)
class Relocated:
    """A lake that is at home where it lies now."""

    act: str
    before: str
    after: str
    lake: str
    states: int

    def to_json(self) -> dict[str, Json]:
        return {
            "act": self.act,
            "from": self.before,
            "to": self.after,
            "lake_id": self.lake,
            "table_states": self.states,
        }

    def to_text(self) -> str:
        kept = "keeps its id" if self.act == "moved" else "is a lake of its own, with a new id"
        return (
            f"The lake was {self.act} from {self.before} to {self.after} and {kept} "
            f"({self.lake}). {counted(self.states, 'table state')} got new Iceberg files.\n"
            'Next: "instep doctor" checks everything.'
        )


def relocate_lake(
    root: Path, clock: Clock, act: str, database: Database | None = None
) -> Relocated:
    """Makes the lake whose files are in `root` at home there; `act` is "moved" or "copied".

    Raises:
        RefusedError (kind "lake-at-home"): it was neither.
        RefusedError (kind "original-there"): "moved", but the original is where it was.
        RefusedError (kind "shared-catalog"): "copied", but both would share one catalog.
        ConflictError (kind "lake-exists"): another lake has the place on S3.
    """
    repo = open_unchecked(root, clock, database)
    with repo.store.reading() as tx:
        before = home_of(tx)
    _check(repo, before, act, database)
    _take_place(repo.root, before.id)
    states = relocate_states(repo)
    reached("relocate.record.before")
    with repo.store.transaction() as tx:
        after = move_home(tx, repo.root, act, clock())
    reached("relocate.record.after")
    return Relocated(act, before.root, after.root, after.id, states)


def relocate_states(repo: Repository) -> int:
    """Gives every table state that a ref reaches Iceberg files for `repo.root`; returns how many.

    Raises:
        InternalError (kind "damaged-lake").
    """
    rewritten: Rewritten = {}
    states = 0

    def visit(key: str, content: JsonObject, reached_by: str) -> Iterator[Finding]:
        nonlocal states
        if content.get("type") == TABLE:
            table = TableContent.from_content(content)
            states += relocate_table(repo, table, rewritten)
            say(f"new Iceberg files for {key}, {states:,} states so far")
        yield from ()

    checked: Counter[str] = Counter()
    for finding in Examination(repo, visit, checked, say).contents():
        raise damaged(repo, finding, checked)
    return states


def _take_place(root: Path, identifier: str) -> None:
    """Marks a place on S3 as this lake's, unless its own mark was brought there with the files.

    Raises:
        ConflictError (kind "lake-exists"): it is another lake's.
    """
    try:
        claim_root(root, identifier)
    except ConflictError:
        if (root / MARK).read_text() != identifier:
            raise


def _check(repo: Repository, before: Home, act: str, database: Database | None) -> None:
    root = before.root
    if root == str(repo.root):
        raise RefusedError(
            f"The lake is at home in {repo.root}: expected one that was moved or copied. "
            "There is nothing to do.",
            kind="lake-at-home",
        )
    if act == "copied" and database is not None:
        raise RefusedError(
            f"The files were copied, but their catalog in PostgreSQL is still that of {root}: "
            'expected a catalog of its own. Copy a lake with "instep backup" and "instep restore".',
            kind="shared-catalog",
        )
    if act == "moved" and _is_there(repo.root, before, database):
        raise RefusedError(
            f"The lake is still in {root}: expected it gone, since it is said to have moved to "
            f'{repo.root}. Remove one of them, or say "instep doctor --relocate copied".',
            kind="original-there",
            root=str(root),
        )


def _is_there(now: Path, before: Home, database: Database | None) -> bool:
    """Says whether the files are where they were; a store that `now` does not name is not asked."""
    if before.root.startswith("s3://"):
        remote = on_s3(now)
        return remote is not None and (remote.elsewhere(before.root) / MARK).exists()
    root = Path(before.root)
    if database is not None:
        return (root / "objects").exists() or (root / "tables").exists()
    if not (root / CATALOG).exists():
        return False
    store = open_sqlite(root / CATALOG)
    try:
        with store.reading() as tx:
            return home_of(tx).id == before.id
    finally:
        store.close()
