"""Puts small files of a table state together: the same rows in fewer files, which stand for it.

What to merge is decided from manifests alone. Each group of files is then read and written through
the engine, never as a whole in memory, and counts only if the rows that were written have the
number and the sum of hashes of those that were read. Nothing is deleted: files that no state needs
any more are left to garbage collection.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from instep.canonical import Json
from instep.engines.duckdb import TARGET_FILE_BYTES, DuckDB
from instep.engines.engine import FileSet, WrittenFile
from instep.engines.layout import Layout
from instep.engines.schema import Column, Schema
from instep.faults import reached
from instep.history.locks import rewriting
from instep.history.repository import Repository
from instep.tables.content import TableContent
from instep.tables.profile_keep import is_profiled, profile_files
from instep.tables.read import (
    DataFile,
    data_files,
    file_set,
    layout_of,
    load_metadata,
    located,
    schema_of,
    table_folder,
)
from instep.tables.replaced import Why, stand_in
from instep.tables.rewrite import written_again
from instep.tables.specs import specs_of
from instep.tables.write import rewritten

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL_SHARE = 0.75
"""A file below this share of the target is small: what is above would gain little."""

ORIGINS_KEPT = 1_000
"""For so many files a compacted one can stand in diffs and digests: 64 KB of text."""

_TIMES = frozenset({"date", "timestamp", "timestamptz"})
_NUMBERS = frozenset({"int", "long", "float", "double"})

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Group:
    """Files of one partition that become one, neighbours in the order of the table."""

    files: tuple[DataFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Size:
    """How many files, and their bytes."""

    files: int
    size_bytes: int

    def to_json(self) -> dict[str, Json]:
        return {"files": self.files, "bytes": self.size_bytes}


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction of one state did; `now` stands for it, None where nothing was done.

    `left` counts groups that were left for the next time, because of the bound.
    """

    before: Size
    after: Size
    groups: int
    left: int
    now: TableContent | None
    why_not: str = ""


def plan_groups(
    files: Sequence[DataFile],
    order: Column | None,
    deleted_from: Collection[str],
    target_bytes: int,
) -> tuple[Group, ...]:
    """Returns which files of one spec to put together; delete files apply to `deleted_from`.

    Small files of one partition become one of about the target size, in the order of `order`, or
    as they were added. A large file that lies wholly between two of them parts them: a file over
    both would be read for what is in neither.
    """
    by_partition: dict[tuple[str | None, ...], list[DataFile]] = {}
    for file in files:
        by_partition.setdefault(file.partition, []).append(file)
    found: list[Group] = []
    for members in by_partition.values():
        placed = sorted(enumerate(members), key=lambda one: (_bounds(one[1], order)[0], one[0]))
        found += _packed([file for _, file in placed], order, deleted_from, target_bytes)
    return tuple(found)


def bounded(groups: Sequence[Group], max_bytes: int | None) -> tuple[Group, ...]:
    """Returns as many groups as fit, those first that take away most files for their bytes."""
    if max_bytes is None:
        return tuple(groups)
    room = max_bytes
    found = []
    for group in sorted(groups, key=lambda one: one.size_bytes / len(one.files)):
        if group.size_bytes <= room:
            room -= group.size_bytes
            found.append(group)
    return tuple(found)


def groups_of(
    root: Path, content: TableContent, target_bytes: int = TARGET_FILE_BYTES
) -> tuple[Group, ...]:
    """Returns which files of a state could be put together: such as one partition spec laid out."""
    layout = layout_of(root, content)
    files = file_set(root, content, "whole")
    order = _order_column(files.schema, layout)
    specs = specs_of(load_metadata(root, content)).values()
    alike = (
        data_files(root, content, partition=fields)
        for fields in dict.fromkeys(spec.fields for spec in specs)
    )
    return tuple(
        group
        for members in alike
        for group in plan_groups(members, order, files.deletes.keys(), target_bytes)
    )


def compact_state(
    repo: Repository,
    content: TableContent,
    *,
    at: datetime,
    target_bytes: int = TARGET_FILE_BYTES,
    max_bytes: int | None = None,
    say: Say = lambda text: None,
    newer: Callable[[], TableContent | None] = lambda: None,
    keeps_past: bool = False,
) -> Compacted:
    """Puts files of a state together and lets the result stand for it; at most `max_bytes` of them.

    `newer` is asked afterwards for a state that came meanwhile: the same files stand in it, too.
    With `keeps_past` Iceberg's metadata still knows the snapshot before, for clients that hold it,
    and collection leaves its files until as many commits came as metadata has snapshots.
    Who calls it holds `history.locks.writing`.

    Raises:
        InternalError (kind "rows-differ"): what was written is not what was read.
        UnavailableError (kinds "rewriting", "out-of-memory", "disk-failed").
        ConflictError (kind "session-lost").
    """
    with rewriting(repo.root, content.uuid):
        return _compacted(repo, content, at, target_bytes, max_bytes, say, newer, keeps_past)


def _compacted(
    repo: Repository,
    content: TableContent,
    at: datetime,
    target_bytes: int,
    max_bytes: int | None,
    say: Say,
    newer: Callable[[], TableContent | None],
    keeps_past: bool,
) -> Compacted:
    root = repo.root
    before = located(root, content)
    files = data_files(root, before)
    size = _size(files)
    every = groups_of(root, before, target_bytes)
    groups = bounded(every, max_bytes)
    left = len(every) - len(groups)
    if not groups:
        return Compacted(size, size, 0, left, None, _why_not(files, every))
    reached("compact.files.before")
    made = _rewritten_groups(root, before, groups, target_bytes, say)
    reached("compact.files.after")
    removed = [file.path for group in groups for file in group.files]
    now = rewritten(root, before, made, removed, at=at, keeps_past=keeps_past)
    if not stand_in(repo, content, before, now, Why.COMPACTED):
        return Compacted(size, size, 0, left, None, "another process replaced its files meanwhile")
    _follow(repo, newer(), before, made, removed, at, keeps_past)
    gone = set(removed)
    after = _size([*(file for file in files if file.path not in gone), *made])
    return Compacted(size, after, len(groups), left, now)


def _follow(
    repo: Repository,
    content: TableContent | None,
    older: TableContent,
    made: Sequence[WrittenFile],
    removed: Sequence[str],
    at: datetime,
    keeps_past: bool,
) -> None:
    """Lets the same files stand in a state that came meanwhile, if it has all that went.

    Schema and deletes must be as they were, for the new files hold what these made of the old.
    """
    root = repo.root
    if content is None or schema_of(root, content) != schema_of(root, older):
        return
    before = located(root, content)
    whole = file_set(root, before, "whole")
    if not set(removed) <= set(whole.files) or any(path in whole.deletes for path in removed):
        return
    now = rewritten(root, before, made, removed, at=at, keeps_past=keeps_past)
    stand_in(repo, content, before, now, Why.COMPACTED)


def _rewritten_groups(
    root: Path, content: TableContent, groups: Sequence[Group], target_bytes: int, say: Say
) -> list[WrittenFile]:
    whole = file_set(root, content, "whole")
    layout = layout_of(root, content)
    folder = table_folder(root, content) / "data"
    total = sum(group.size_bytes for group in groups)
    done = 0
    made: list[WrittenFile] = []
    with DuckDB(root / "staging") as engine:
        engine.allow(folder)
        for group in groups:
            files = _group_made(engine, whole, group, folder, target_bytes, layout)
            if all(is_profiled(root, content, file) for file in group.files) and files:
                profile_files(root, content, files)
            made += files
            done += group.size_bytes
            say(f"compacting, {done / 1e6:,.0f} of {total / 1e6:,.0f} MB")
    return made


def _group_made(
    engine: DuckDB,
    whole: FileSet,
    group: Group,
    folder: Path,
    target_bytes: int,
    layout: Layout,
) -> tuple[WrittenFile, ...]:
    paths = [file.path for file in group.files]
    small = whole.only(paths, "small")
    engine.check_bytes(small)
    engine.view(small)
    # All in one file: a few small ones never make much more than the target.
    bytes_at_most = max(2 * group.size_bytes, target_bytes)
    written = written_again(
        engine, "SELECT * FROM small", whole.schema, folder, bytes_at_most, layout
    )
    origins = tuple(digest for file in group.files for digest in file.counts_as)
    has_deletes = any(path in whole.deletes for path in paths)
    if has_deletes or len(written) != 1 or len(origins) > ORIGINS_KEPT:
        return written
    return (replace(written[0], origins=origins),)


def _packed(
    members: Sequence[DataFile],
    order: Column | None,
    deleted_from: Collection[str],
    target_bytes: int,
) -> Iterator[Group]:
    """Yields groups of neighbours; a large file between two begins a new one."""
    group: list[DataFile] = []
    size = 0
    between: list[tuple[_Place, _Place]] = []
    for file in members:
        bounds = _bounds(file, order)
        if file.size_bytes >= SMALL_SHARE * target_bytes and file.path not in deleted_from:
            between.append(bounds)
            continue
        is_parted = order is not None and any(
            all(_bounds(one, order)[1] < lower for one in group) and upper < bounds[0]
            for lower, upper in between
        )
        if group and (is_parted or size + file.size_bytes > target_bytes):
            yield from _worthwhile(group, deleted_from)
            group, size = [], 0
        between = []
        group.append(file)
        size += file.size_bytes
    yield from _worthwhile(group, deleted_from)


def _worthwhile(group: Sequence[DataFile], deleted_from: Collection[str]) -> Iterator[Group]:
    if len(group) > 1 or any(file.path in deleted_from for file in group):
        yield Group(tuple(group))


_Place = tuple[float, str]


def _bounds(file: DataFile, order: Column | None) -> tuple[_Place, _Place]:
    """Returns between which places in the order a file lies; before all others where unknown."""
    nowhere = (-math.inf, "")
    if order is None:
        return nowhere, nowhere
    found = next((one for one in file.columns if one.field_id == order.id), None)
    if found is None or found.lower is None or found.upper is None:
        return nowhere, nowhere
    if order.type in _NUMBERS:
        return (float(found.lower), ""), (float(found.upper), "")
    return (0.0, found.lower), (0.0, found.upper)


def _order_column(schema: Schema, layout: Layout) -> Column | None:
    """Returns the column by which rows lie in files: the first sorted one, or the first time."""
    sorted_by = layout.sort[0].source_id if layout.sort else None
    by_id = {column.id: column for column in schema.columns}
    if sorted_by in by_id:
        return by_id[sorted_by]
    return next((column for column in schema.columns if column.type in _TIMES), None)


def _size(files: Sequence[DataFile]) -> Size:
    return Size(len(files), sum(file.size_bytes for file in files))


def _why_not(files: Sequence[DataFile], every: Sequence[Group]) -> str:
    if every:
        return "no files that belong together are within the bound"
    if len(files) < 2:
        return "it has one file" if files else "it has no rows"
    return "no two small files lie side by side in one partition"
