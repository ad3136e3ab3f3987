"""Makes one state of a table from two that both began at a third: a three-way merge of its rows.

How the table is defined is merged first, by `merge_definition`. With a key, rows are merged by key,
cell by cell: what only one side changed is taken; a cell that both changed, and not alike, is a
conflict, and so is a row that one side removed and the other changed. Rows are compared exactly.
Without a key the files that each side added are kept; where both rewrote a file, their new rows,
and it is a conflict if theirs lost rows by that. Nothing is written while a conflict is left.
Files that neither side changed are not read, but the keys of those that have room for a key that
theirs added: it shall not be there already. Of ours only rows under keys that theirs changed are
compared, so a merge costs one row diff, that of their side, and the writing of what it changes.
Where keys come in no order, every file has room for every key, and all keys of ours are read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from dataclasses import replace as renamed
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from instep.canonical import to_microseconds
from instep.engines.defaults import checked_default
from instep.engines.engine import FileSet
from instep.engines.schema import Column, Schema, literal, quoted
from instep.errors import ConflictError, InvalidError
from instep.tables.apart import make_ready
from instep.tables.content import TableContent
from instep.tables.merge_bounds import files_with_room
from instep.tables.merge_definition import merge_definition
from instep.tables.merge_rule import Rule
from instep.tables.merge_sides import Side, find_apart_of, left_by_rows, numbered
from instep.tables.read import DataFile, data_files, file_set, layout_of, load_metadata
from instep.tables.relocate import metadata_here
from instep.tables.rewrite import AT_ONCE
from instep.tables.row_merge import Conflict, Resolution, RowMerge
from instep.tables.write import data_folder, redefined, replace

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB

LISTED_CONFLICTS = 1000
"""How many conflicts a merge returns; all are counted."""

NAMED_KEYS = 3
"""How many keys a message names."""

_CUT_BY_CASTS = frozenset({"int", "long", "decimal", "date", "timestamp"})
"""1.7 becomes the whole number 2, and a date loses its time of day, a timestamp its offset."""


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
        place = _Target(root, target, defined.schema, engine, at)
        if not key:
            merged = _files_merged(place, mine, yours, taken)
        else:
            merged = _Rows(place, keys, mine, yours).merged(before, own, taken, resolution)
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


@dataclass(frozen=True, slots=True)
class _Target:
    """Our side of the table, where what is merged is written."""

    root: Path
    content: TableContent
    schema: Schema
    engine: DuckDB
    at: datetime

    def written(self, sql: str) -> tuple[DataFile, ...]:
        return self.engine.write(
            sql,
            self.schema,
            data_folder(self.root, self.content),
            layout=layout_of(self.root, self.content),
        )

    def replaced(self, added: Sequence[DataFile], removed: Collection[str]) -> TableContent:
        return replace(self.root, self.content, added, removed, at=self.at)


def _files_merged(
    target: _Target, mine: Side, yours: Side, taken: tuple[DataFile, ...] | None
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
        taken = target.written("SELECT * FROM come")
    content = target.replaced(taken, set(yours.before.files) - both)
    return RowMerge(content, added=sum(file.rows for file in taken), removed=gone)


def _added_rows_merged(target: _Target, yours: Side, both: Collection[str]) -> RowMerge:
    """Adds their new rows where both rewrote files and theirs lost no row, as by a compaction."""
    engine, columns = target.engine, target.schema.columns
    find_apart_of(engine, columns, 0, yours)
    if engine.run("SELECT 1 FROM apart WHERE change = 'removed' LIMIT 1"):
        return RowMerge(None, conflicting=len(both), files=tuple(sorted(both)))
    names = ", ".join(f"n{n} AS {quoted(one.name)}" for n, one in enumerate(columns))
    added = target.written(f"SELECT {names} FROM apart")
    return RowMerge(target.replaced(added, ()), added=sum(file.rows for file in added))


class _Rows:
    """The rows that theirs changed, beside what ours has under their keys, in one DuckDB session.

    Columns are called c0, c1, ...: those of the key first, then the others of the merged schema.
    """

    def __init__(
        self,
        target: _Target,
        keys: Sequence[Column],
        mine: Side,
        yours: Side,
    ) -> None:
        others = [column for column in target.schema.columns if column not in keys]
        self.target = target
        self.engine = target.engine
        self.columns = [*keys, *others]
        self.keys = [f"c{n}" for n in range(len(keys))]
        self.values = range(len(keys), len(self.columns))
        self.schema = numbered(self.columns)
        self.mine, self.yours = mine, yours

    def merged(
        self,
        before: FileSet,
        own: FileSet,
        taken: tuple[DataFile, ...] | None,
        resolution: Resolution | None,
    ) -> RowMerge:
        mine, yours = self.mine, self.yours
        # Files that all three share hold no row that theirs changed.
        before = before.only({*mine.before.files, *yours.before.files})
        ours = own.only({*mine.after.files, *yours.before.files})
        self._find_changed(*(renamed(one, schema=self.schema) for one in (before, ours)))
        self._refuse_added_again(renamed(own, schema=self.schema), set(ours.files))
        self._conflicts(resolution or Resolution())
        settled, left = self._count("settled WHERE take IS NOT NULL"), self._open()
        if left:
            return RowMerge(None, settled=settled, conflicting=left, conflicts=self._listed())
        self._apply()
        added, changed, removed = self.engine.run(
            "SELECT count(*) FILTER (NOT had), count(*) FILTER (had AND NOT gone), "
            "count(*) FILTER (had AND gone) FROM apply"
        )[0]
        apart = not set(mine.before.files) & set(yours.before.files)
        if taken is not None and apart and not self._count("changed WHERE is_met"):
            content = self.target.replaced(taken, yours.before.files)
        else:
            content = self._written(ours) if added or changed or removed else self.target.content
        return RowMerge(content, added, changed, removed, settled)

    def _find_apart(self, columns: Sequence[Column], side: Side) -> None:
        """Makes `apart` of the rows that a side changed; `columns` begin with the key."""
        find_apart_of(self.engine, columns, len(self.keys), side)
        listed = ", ".join(f"coalesce(o{n}, n{n})" for n in range(len(self.keys)))
        self._refuse_repeated(f"SELECT {listed} FROM apart GROUP BY ALL HAVING count(*) > 1")

    def _find_changed(self, before: FileSet, ours: FileSet) -> None:
        """Makes table `changed`: each key that theirs changed, and what ours has there.

        `had`, `here` and `has` say whether the base, ours and theirs have the row, b0, o0, t0, ...
        its values in them; `file` is where ours has it, and `is_met` that ours changed it too.
        """
        self._find_apart(self.columns, self.yours)
        keys = ", ".join(f"coalesce(o{c[1:]}, n{c[1:]}) AS {c}" for c in self.keys)
        values = "".join(f", o{n} AS b{n}, n{n} AS t{n}" for n in self.values)
        theirs = f"SELECT {keys}, change <> 'added' AS had, change <> 'removed' AS has{values}"
        own = "".join(f", r.c{n} AS o{n}" for n in self.values)
        differs = " OR ".join(f"b{n} IS DISTINCT FROM r.c{n}" for n in self.values) or "false"
        source = self.engine.source(ours, file_name="file")
        self.engine.run(
            f"CREATE TEMP TABLE changed AS SELECT t.*, file, file IS NOT NULL AS here{own}, "
            f"had <> here OR (here AND ({differs})) AS is_met "
            f"FROM {source} r RIGHT JOIN ({theirs} FROM apart) t ON {_same('t', 'r', self.keys)}"
        )
        names = ", ".join(self.keys)
        self._refuse_repeated(f"SELECT {names} FROM changed GROUP BY ALL HAVING count(*) > 1")
        # What both added was not there before, or theirs has its key twice.
        self._refuse_repeated(
            f"SELECT {names} FROM {self.engine.source(before)} r "
            f"SEMI JOIN (FROM changed WHERE here AND NOT had) p ON {_same('p', 'r', self.keys)}"
        )

    def _refuse_added_again(self, own: FileSet, compared: Collection[str]) -> None:
        """Holds that no key that theirs added stands in a file of ours that was not compared.

        Of the others only those are read whose bounds have room for one of these keys.
        """
        added = "FROM changed WHERE has AND NOT had AND NOT here"
        if not self._count(f"({added})"):
            return
        others = [
            file
            for file in data_files(self.target.root, self.target.content)
            if file.path not in compared
        ]
        found = files_with_room(self.engine, self.columns[: len(self.keys)], added, others)
        names = ", ".join(self.keys)
        for start in range(0, len(found), AT_ONCE):
            source = self.engine.source(own.only(found[start : start + AT_ONCE]))
            self._refuse_repeated(
                f"SELECT {names} FROM {source} r SEMI JOIN ({added}) p "
                f"ON {_same('p', 'r', self.keys)}"
            )

    def _refuse_repeated(self, keys: str) -> None:
        found = self.engine.run(f"{keys} LIMIT {NAMED_KEYS + 1}")
        if not found:
            return
        named = ", ".join(" ".join(str(part) for part in row) for row in found[:NAMED_KEYS])
        raise ConflictError(
            f"Several rows have the same key ({', '.join(self._key_names())}): {named}"
            f"{' and others' if len(found) > NAMED_KEYS else ''}. Expected one row for each key, "
            "because rows are merged by it. Remove the repeated ones on either side first.",
            kind="repeated-key",
            keys=tuple(named.split(", ")),
        )

    def _key_names(self) -> list[str]:
        return [column.name for column in self.columns[: len(self.keys)]]

    def _conflicts(self, resolution: Resolution) -> None:
        """Makes table `settled`: each conflict, and whose value it takes (null while open)."""
        cells = ", ".join(
            f"{{n: {n}, base: b{n}::VARCHAR, ours: o{n}::VARCHAR, theirs: t{n}::VARCHAR, "
            f"clash: here AND has AND {_both_changed(n)}}}"
            for n in self.values
        )
        row = (
            "{n: -1, base: 'here', ours: CASE WHEN here THEN 'here' ELSE 'removed' END, "
            "theirs: CASE WHEN has THEN 'here' ELSE 'removed' END, clash: here <> has}"
        )
        keys = ", ".join(self.keys)
        texts = ", ".join(f"{c}::VARCHAR" for c in self.keys)
        listed = ", ".join(part for part in (row, cells) if part)
        self.engine.connection.execute(
            f"CREATE TEMP TABLE conflict AS SELECT {keys}, [{texts}] AS texts, "
            f"unnest(list_filter([{listed}], lambda x: x.clash), recursive := true) "
            "FROM changed WHERE is_met"
        )
        self._given(resolution)
        otherwise = literal(resolution.otherwise) if resolution.otherwise else "NULL"
        self.engine.connection.execute(
            f"CREATE TEMP TABLE settled AS SELECT c.*, coalesce(g.take, {otherwise}) AS take, "
            "g.value FROM conflict c LEFT JOIN given g ON c.texts = g.texts AND c.n = g.n"
        )

    def _given(self, resolution: Resolution) -> None:
        self.engine.connection.execute(
            "CREATE TEMP TABLE given (texts VARCHAR[], n INTEGER, take VARCHAR, value VARCHAR)"
        )
        places = {column.name.lower(): n for n, column in enumerate(self.columns)}
        rows = [
            (list(key), places.get(column.lower(), -2) if column else -1, choice.take, choice.value)
            for (key, column), choice in resolution.choices.items()
            if key  # without one it is about no row
        ]
        if rows:
            self.engine.connection.executemany("INSERT INTO given VALUES (?, ?, ?, ?)", rows)
            self._check_given()

    def _check_given(self) -> None:
        unknown = self.engine.run(
            "SELECT texts, n FROM given g ANTI JOIN conflict c ON c.texts = g.texts AND c.n = g.n "
            "ORDER BY ALL LIMIT 1"
        )
        if unknown:
            raise InvalidError(
                f"The choice for {self._place(*unknown[0])} settles nothing: expected the key and "
                "column of a conflict. Take it out, or list the conflicts again.",
                kind="no-such-conflict",
            )
        for n, column in enumerate(self.columns):
            values = self.engine.run(
                f"SELECT texts, value, TRY_CAST(value AS {column.sql_type}) IS NULL FROM given "
                f"WHERE n = {n} AND value IS NOT NULL ORDER BY ALL"
            )
            for texts, value, is_unreadable in values:
                if is_unreadable or not _is_exact(column, value):
                    raise InvalidError(
                        f'The value "{value}" given for {self._place(texts, n)} is none of the '
                        f"column: expected {column.type}. Write one.",
                        kind="bad-value",
                        column=column.name,
                    )

    def _place(self, texts: Sequence[str | None], n: int) -> str:
        key = ", ".join(
            f"{name} {text}" for name, text in zip(self._key_names(), texts, strict=False)
        )
        return f'"{self.columns[n].name}" of {key}' if n >= 0 else f"the row {key}"

    def _open(self) -> int:
        return self._count("settled WHERE take IS NULL")

    def _listed(self) -> tuple[Conflict, ...]:
        rows = self.engine.run(
            "SELECT texts, n, base, ours, theirs FROM settled WHERE take IS NULL "
            f"ORDER BY {', '.join(self.keys)}, n LIMIT {LISTED_CONFLICTS}"
        )
        return tuple(
            Conflict(tuple(texts), "" if n < 0 else self.columns[n].name, base, our, their)
            for texts, n, base, our, their in rows
        )

    def _apply(self) -> None:
        """Makes table `apply`: rows as they shall be (or gone), and whether ours has them now.

        A row that ours has so already is not among them.
        """
        keys = ", ".join(self.keys)
        self.engine.connection.execute(
            f"CREATE TEMP TABLE chosen AS SELECT {keys}, "
            "map(list(n), list({take: take, value: value})) AS by FROM settled GROUP BY ALL"
        )
        keys = ", ".join(f"c.{key}" for key in self.keys)
        cells = "".join(f", {self._cell(n)} AS c{n}" for n in self.values)
        own = "".join(f", o{n}" for n in self.values)
        differs = " OR ".join(f"c{n} IS DISTINCT FROM o{n}" for n in self.values) or "false"
        names = ", ".join([*self.keys, "file", "had", "gone", *(f"c{n}" for n in self.values)])
        self.engine.connection.execute(
            f"CREATE TEMP TABLE apply AS SELECT {names} FROM ("
            f"SELECT {keys}, file, here AS had, NOT has AS gone{cells}{own} "
            f"FROM changed c LEFT JOIN chosen s ON {_same('s', 'c', self.keys)} "
            "WHERE (here OR has) AND coalesce(s.by[-1].take, 'theirs') = 'theirs') "
            f"WHERE NOT had OR gone OR {differs}"
        )

    def _cell(self, n: int) -> str:
        return (
            f"CASE WHEN NOT here THEN t{n} "
            f"WHEN o{n} IS NOT DISTINCT FROM t{n} OR b{n} IS NOT DISTINCT FROM t{n} AND had "
            f"THEN o{n} WHEN b{n} IS NOT DISTINCT FROM o{n} AND had THEN t{n} "
            f"WHEN s.by[{n}].take = 'theirs' THEN t{n} "
            f"WHEN s.by[{n}].take = 'given' THEN CAST(s.by[{n}].value AS "
            f"{self.columns[n].sql_type}) ELSE o{n} END"
        )

    def _written(self, ours: FileSet) -> TableContent:
        """Rewrites the files of ours that hold a row to change, each with all of its rows."""
        found = self.engine.run("SELECT DISTINCT file FROM apply WHERE had")
        affected = {path for (path,) in found}
        self.engine.view(renamed(ours.only(affected), name="affected", schema=self.schema))
        names = ", ".join(f"c{n} AS {quoted(column.name)}" for n, column in enumerate(self.columns))
        files = self.target.written(
            f"SELECT {names} FROM affected r ANTI JOIN apply p ON {_same('p', 'r', self.keys)} "
            f"UNION ALL SELECT {names} FROM apply WHERE NOT gone"
        )
        return self.target.replaced(files, affected)

    def _count(self, what: str) -> int:
        return int(self.engine.run(f"SELECT count(*) FROM {what}")[0][0])


def _is_exact(column: Column, text: str) -> bool:
    """Says whether a cast takes all of a text: of these DuckDB rounds and cuts without a word."""
    if column.type.partition("(")[0] not in _CUT_BY_CASTS:
        return True
    try:
        checked_default(column, text)
    except InvalidError:
        return False
    return True


def _same(one: str, two: str, keys: Sequence[str]) -> str:
    return " AND ".join(f"{one}.{key} IS NOT DISTINCT FROM {two}.{key}" for key in keys)


def _both_changed(n: int) -> str:
    """SQL: both sides gave the cell another value than it had, and not the same one."""
    return (
        f"o{n} IS DISTINCT FROM t{n} AND (NOT had OR "
        f"(b{n} IS DISTINCT FROM o{n} AND b{n} IS DISTINCT FROM t{n}))"
    )
