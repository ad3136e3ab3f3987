"""Compacts tables of a branch: when asked, and a bounded piece after many small appends.

Whether there is enough to do is told by a count in the snapshot's summary, beside what was there at
the last look: so a look costs nothing as long as little came, and is rare where files cannot be put
together. While files are put together the branch may move on. What was made then stands for its
new head, too, if that still has all the files that went; otherwise the next compaction sees to the
rest. Tables whose files a run keeps by period are left alone: it finds them by their names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from instep.canonical import Json
from instep.engines.duckdb import TARGET_FILE_BYTES
from instep.errors import InstepError
from instep.history.locks import writing
from instep.history.repository import Repository
from instep.tables.compact import Compacted, Say, Size, compact_state, groups_of
from instep.tables.content import TableContent
from instep.tables.read import file_count, size_bytes
from instep.tables.small_files import MANY_FILES, small_file_count

MORE_SHARE = 0.25
"""A look comes after `MANY_FILES` more small files than at the last one, or this share more if that
is more: looking costs what there is, so all looks together cost what came."""

BOUND_BYTES = 64 << 20
"""The most that is put together after an append: a second or two. By `SMALL_SHARE` of it a file is
small (`small_files.SMALL_BYTES`)."""

TIERS_BYTES = (1 << 20, 8 << 20, BOUND_BYTES)
"""After appends, files become ones of the first of these sizes of which there are many smaller
ones: so a row is written again once or twice a tier, not with whatever comes after it."""

IsKept = Callable[[TableContent], bool]
"""Says whether records name the files of a state one by one."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """What was done to one table, or, dry, would be; `why_not` says why nothing was."""

    table: str
    before: Size
    after: Size
    groups: int
    left: int
    why_not: str = ""

    def to_json(self) -> dict[str, Json]:
        return {
            "table": self.table,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "groups": self.groups,
            "groups_left": self.left,
            "why_not": self.why_not,
        }

    def to_text(self) -> str:
        if self.why_not:
            return f"{self.table}: nothing was done: {self.why_not}."
        return (
            f"{self.table}: {self.before.files:,} files ({self.before.size_bytes:,} bytes) became "
            f"{self.after.files:,} ({self.after.size_bytes:,} bytes), with the same rows"
        ) + (f"; {self.left:,} groups are left." if self.left else ".")


def plan_compaction(repo: Repository, ref: str, table: str, is_kept: IsKept) -> Compaction:
    """Returns what a compaction of a table would do; how large the result is nobody knows yet."""
    content = _content(repo, ref, table)
    size = Size(file_count(repo.root, content), size_bytes(repo.root, content))
    groups = () if is_kept(content) else groups_of(repo.root, content)
    if not groups:
        why = _KEPT if is_kept(content) else "no two small files lie side by side in one partition"
        return Compaction(table, size, size, 0, 0, why)
    gone = sum(len(group.files) for group in groups)
    after = Size(size.files - gone + len(groups), size.size_bytes)
    return Compaction(table, size, after, len(groups), 0)


def compact_table(
    repo: Repository,
    ref: str,
    table: str,
    is_kept: IsKept,
    *,
    target_bytes: int = TARGET_FILE_BYTES,
    max_bytes: int | None = None,
    say: Say = lambda text: None,
    keeps_past: bool = False,
) -> Compaction:
    """Puts the small files of a table on a ref together; `keeps_past` as `compact_state`.

    Raises:
        NotFoundError (kinds "no-such-ref", "no-such-key").
        InternalError (kind "rows-differ").
        UnavailableError (kinds "rewriting", "out-of-memory", "disk-failed").
        ConflictError (kind "session-lost").
    """
    with writing(repo.root, repo.store):
        content = _content(repo, ref, table)
        if is_kept(content):
            size = Size(file_count(repo.root, content), size_bytes(repo.root, content))
            return Compaction(table, size, size, 0, 0, _KEPT)
        done = compact_state(
            repo, content, at=repo.clock(), target_bytes=target_bytes, max_bytes=max_bytes,
            say=say, newer=lambda: _newer(repo, ref, table, content), keeps_past=keeps_past,
        )  # fmt: skip
    return _told(table, done)


def look_after(
    repo: Repository, ref: str, table: str, is_kept: IsKept, say: Say = lambda text: None
) -> str:
    """Compacts a bounded piece of a table that many small files went to; returns what was done.

    It never fails what it follows: an error is what it returns, and the table is as it was. Who
    holds the table in a client of Iceberg may go on with it. No lock is held by who calls it.
    """
    try:
        content = _content(repo, ref, table)
        stood = Stood(repo, ref, content.uuid)
        small = small_file_count(repo.root, content)
        if small < MANY_FILES:
            return ""
        before = stood.load()
        if small < before:  # files went otherwise, and what comes counts from here
            stood.keep(small)
        if not is_due(small, before):
            return ""
        stood.keep(small)  # what fails now is not tried again after every edit
        target = next((tier for tier in TIERS_BYTES if _are_many(repo, content, tier)), None)
        done = None
        if target is not None:
            done = compact_table(
                repo, ref, table, is_kept, target_bytes=target, max_bytes=BOUND_BYTES, say=say,
                keeps_past=True,
            )  # fmt: skip
        stood.keep(small_file_count(repo.root, content))
    except (InstepError, OSError) as error:
        told = error.message if isinstance(error, InstepError) else str(error)
        return f"{table} was not compacted: {told}"
    return "" if done is None or done.why_not else done.to_text()


def is_due(small: int, before: int) -> bool:
    """Says whether there are enough more small files than at the last look to look again."""
    return small >= before + max(MANY_FILES, int(before * MORE_SHARE))


class Stood:
    """How many small files a table on a ref had after the last look, or fewer since.

    Known to this machine only.
    """

    def __init__(self, repo: Repository, ref: str, table: str) -> None:
        name = hashlib.sha256(ref.encode()).hexdigest()[:16]
        self.path = repo.here / "cache" / "upkeep" / f"{table}-{name}"

    def load(self) -> int:
        try:
            return int(self.path.read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def keep(self, small: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(str(small))


def _are_many(repo: Repository, content: TableContent, target_bytes: int) -> bool:
    groups = groups_of(repo.root, content, target_bytes)
    return sum(len(group.files) for group in groups) >= MANY_FILES


_KEPT = "a run keeps its files by period, and computes them anew in time"


def _content(repo: Repository, ref: str, table: str) -> TableContent:
    return TableContent.from_content(repo.content(repo.resolve(ref), f"table/{table}"))


def _newer(repo: Repository, ref: str, table: str, content: TableContent) -> TableContent | None:
    found = repo.find(repo.resolve(ref), f"table/{table}")
    if found is None or found == content.to_content() or found["uuid"] != content.uuid:
        return None
    return TableContent.from_content(found)


def _told(table: str, done: Compacted) -> Compaction:
    return Compaction(table, done.before, done.after, done.groups, done.left, done.why_not)
