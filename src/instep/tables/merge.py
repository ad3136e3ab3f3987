"""Makes one state of a table from two that both began at a third: a three-way merge of its rows.

How the table is defined is merged first, by `merge_definition`. With a key, rows are merged by key,
cell by cell: what only one side changed is taken; a cell that both changed, and not alike, is a
conflict, and so is a row that one side removed and the other changed. Rows are compared exactly.
Without a key the files that each side added are kept; where both rewrote a file, their new rows,
and it is a conflict if theirs lost rows by that. Nothing is written while a conflict is left.
Files that neither side changed are not read, but the keys of those that have room for a key that
theirs added: it shall not be there already. Of ours only rows under keys that theirs changed are
compared, so a merge costs one row diff, that of their side, and the writing of what it changes:
of large files only the columns.
Where keys come in no order, every file has room for every key, and all keys of ours are read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace as renamed
from datetime import datetime
from pathlib import Path

from instep.canonical import to_microseconds
from instep.engines.schema import quoted
from instep.tables.apart import make_ready
from instep.tables.content import TableContent
from instep.tables.merge_definition import merge_definition
from instep.tables.merge_keyed import KeyedMerge
from instep.tables.merge_rule import Rule
from instep.tables.merge_sides import Side, find_apart_of, left_by_rows
from instep.tables.merge_target import Target
from instep.tables.read import DataFile, data_files, file_set, layout_of, load_metadata
from instep.tables.relocate import metadata_here
from instep.tables.row_merge import Resolution, RowMerge
from instep.tables.write import data_folder, redefined


def merge_rows(
    root: Path,
    base: TableContent,
    ours: TableContent,
    theirs: TableContent,
    key: Sequence[str],
    resolution: Resolution | None = None,
    *,
    at: datetime,
) -> RowMerge:
    """Returns `ours` with all that `theirs` did to `base`; the three are states of one table.

    Raises:
        InvalidError (kind "no-such-column"): a column of `key` is not there.
        InvalidError (kinds "no-such-conflict", "bad-value"): the resolution does not fit.
        ConflictError (kind "repeated-key"): several rows of a side have a key that theirs added, or
            that they changed, among the files that either side changed.
    """
    rule = Rule(resolution or Resolution())
    defined = merge_definition(
        load_metadata(root, base),
        metadata_here(root, ours),
        load_metadata(root, theirs),
        rule,
        to_microseconds(at) // 1000,
    )
    rule.check_choices()
    if rule.open:
        return RowMerge(None, settled=rule.settled, definition=tuple(rule.open))
    before, own, other = (file_set(root, state, "files") for state in (base, ours, theirs))
    mine = Side(before.apart_from(own), own.apart_from(before))
    yours = Side(before.apart_from(other), other.apart_from(before))
    target = redefined(root, ours, defined.metadata)
    taken = _as_they_are(root, target, theirs, yours)
    from instep.engines.duckdb import DuckDB

    with DuckDB(root / "staging") as engine:
        make_ready(engine)
        engine.allow(data_folder(root, ours))
        keys = [defined.schema.column(name) for name in key]
        lost = left_by_rows(engine, keys, defined, (mine, yours))
        if lost:
            return RowMerge(None, definition=lost)
        place = Target(root, target, defined.schema, engine, at)
        if not key:
            merged = _files_merged(place, mine, yours, taken)
        else:
            merged = KeyedMerge(place, keys, mine, yours).merged(before, own, taken, resolution)
    return renamed(merged, settled=merged.settled + rule.settled)


def _as_they_are(
    root: Path, ours: TableContent, theirs: TableContent, yours: Side
) -> tuple[DataFile, ...] | None:
    """Returns their new files; None if they are not as the writer of ours would lay them out.

    A table's new files stand under one partition spec, so values of another's fields would hide
    rows from a reader that goes by them.
    """
    if not yours.is_whole:
        return None
    alike = data_files(root, theirs, partition=layout_of(root, ours).partition)
    by_path = {file.path: file for file in alike}
    if not by_path.keys() >= set(yours.after.files):
        return None
    return tuple(by_path[path] for path in yours.after.files)


def _files_merged(
    target: Target, mine: Side, yours: Side, taken: tuple[DataFile, ...] | None
) -> RowMerge:
    """Keeps what each side added and drops what each removed; `taken` are their files, if so."""
    both = set(mine.before.files) & set(yours.before.files)
    if both and (yours.after.files or mine.after.files):
        return _added_rows_merged(target, yours, both)
    engine = target.engine
    for name, files in (("gone", yours.before), ("come", yours.after)):
        engine.view(renamed(files, name=name, schema=target.schema))
    gone = engine.run("SELECT count(*) FROM gone")[0][0]
    if taken is None:
        engine.check_bytes(yours.after)
        taken = target.written("SELECT * FROM come")
    content = target.replaced(taken, set(yours.before.files) - both)
    return RowMerge(content, added=sum(file.rows for file in taken), removed=gone)


def _added_rows_merged(target: Target, yours: Side, both: Collection[str]) -> RowMerge:
    """Adds their new rows where both rewrote files and theirs lost no row, as by a compaction."""
    engine, columns = target.engine, target.schema.columns
    find_apart_of(engine, columns, 0, yours)
    if engine.run("SELECT 1 FROM apart WHERE change = 'removed' LIMIT 1"):
        return RowMerge(None, conflicting=len(both), files=tuple(sorted(both)))
    engine.check_bytes(yours.after)
    names = ", ".join(f"n{n} AS {quoted(one.name)}" for n, one in enumerate(columns))
    added = target.written(f"SELECT {names} FROM apart")
    return RowMerge(target.replaced(added, ()), added=sum(file.rows for file in added))
