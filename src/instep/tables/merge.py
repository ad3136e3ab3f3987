"""Makes one state of a table from two that both began at a third: a three-way merge of its rows.

With a key, rows are merged by key, cell by cell: what only one side changed is taken; a cell that
both changed, and not alike, is a conflict, and so is a row that one side removed and the other
changed. Rows are compared exactly. Without a key the files that each side added are kept, and a
file that both rewrote is a conflict. Nothing is written while a conflict is left.
Files that neither side changed are not read, but for the keys of those that hold a row to change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as renamed
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from instep.canonical import Json
from instep.engines.engine import FileSet
from instep.engines.schema import Schema, literal, quoted
from instep.errors import ConflictError, InvalidError
from instep.tables.content import TableContent
from instep.tables.merge_columns import ColumnConflict, MergedColumns, merge_columns
from instep.tables.read import DataFile, data_files, has_deletes, schema_of
from instep.tables.write import data_folder, replace, with_columns

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB

LISTED_CONFLICTS = 1000
"""How many conflicts a merge returns; all are counted."""

NAMED_KEYS = 3
"""How many keys a message names."""


class Take(StrEnum):
    """Whose value stands."""

    OURS = "ours"
    THEIRS = "theirs"
    GIVEN = "given"


@dataclass(frozen=True, slots=True)
class Conflict:
    """One cell that both sides changed, or one row (`column` empty) that one of them removed.

    Values are DuckDB's text, None is null; of a row they are "here" or "removed".
    """

    key: tuple[str | None, ...]
    column: str
    base: str | None
    ours: str | None
    theirs: str | None

    def to_json(self) -> dict[str, Json]:
        return {
            "key": list(self.key),
            "column": self.column,
            "base": self.base,
            "ours": self.ours,
            "theirs": self.theirs,
        }


@dataclass(frozen=True, slots=True)
class Choice:
    """What stands where there is a conflict: `value` when it is a given one."""

    take: Take
    value: str | None = None


Place = tuple[tuple[str | None, ...], str]
"""Key and column of a conflict."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """How conflicts are settled: one by one, by key and column, and `otherwise` all others."""

    choices: Mapping[Place, Choice] = field(default_factory=dict)
    otherwise: Take | None = None


@dataclass(frozen=True, slots=True)
class RowMerge:
    """The merged state, or why there is none: conflicts left, listed up to a thousand.

    Counts are of the rows that came in from their side; `settled` counts conflicts that the
    resolution decided. `conflicting` is the number of conflicts left, exactly.
    """

    content: TableContent | None
    added: int = 0
    changed: int = 0
    removed: int = 0
    settled: int = 0
    conflicting: int = 0
    conflicts: tuple[Conflict, ...] = ()
    columns: tuple[ColumnConflict, ...] = ()
    files: tuple[str, ...] = ()
    """Data files that both sides rewrote, where there is no key to merge rows by."""


@dataclass(frozen=True, slots=True)
class _Side:
    """What one side did to the files of the base."""

    added: tuple[DataFile, ...]
    removed: tuple[DataFile, ...]


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
        InvalidError (kind "deleted-in-place"): a state has delete files of another writer.
        ConflictError (kind "repeated-key"): rows cannot be told apart by the key.
    """
    for state in (base, ours, theirs):
        if has_deletes(root, state):
            raise InvalidError(
                f"Rows of table {state.uuid} are deleted in place by another writer: expected "
                "files without such rows on both sides of a merge. Write the table's files anew "
                "on that branch, then merge again.",
                kind="deleted-in-place",
                table=state.uuid,
            )
    columns = merge_columns(*(schema_of(root, state) for state in (base, ours, theirs)))
    if columns.conflicts:
        return RowMerge(None, columns=columns.conflicts)
    mine, yours = (_side(root, base, state) for state in (ours, theirs))
    widened = with_columns(root, ours, columns.schema, at=at)
    if not key:
        return _files_merged(root, widened, mine, yours, at)
    from instep.engines.duckdb import DuckDB

    with DuckDB(root / "staging") as engine:
        rows = _Rows(engine, columns, key, data_files(root, ours))
        return rows.merged(root, widened, mine, yours, resolution or Resolution(), at)


def _side(root: Path, base: TableContent, state: TableContent) -> _Side:
    before = {file.path: file for file in data_files(root, base)}
    after = {file.path: file for file in data_files(root, state)}
    return _Side(
        added=tuple(file for path, file in after.items() if path not in before),
        removed=tuple(file for path, file in before.items() if path not in after),
    )


def _paths(files: Collection[DataFile]) -> frozenset[str]:
    return frozenset(file.path for file in files)


def _files_merged(
    root: Path, ours: TableContent, mine: _Side, yours: _Side, at: datetime
) -> RowMerge:
    """Keeps what each side added and drops what each removed; their files are taken as they are."""
    both = _paths(mine.removed) & _paths(yours.removed)
    if both and yours.added:
        return RowMerge(None, conflicting=len(both), files=tuple(sorted(both)))
    removed = _paths(yours.removed) - both
    content = replace(root, ours, yours.added, removed, at=at)
    added, gone = (sum(file.rows for file in files) for files in (yours.added, yours.removed))
    return RowMerge(content, added=added, removed=gone)


class _Rows:
    """The rows that either side changed, as tables of one DuckDB session.

    Columns are called c0, c1, ...: those of the key first, then the others of the merged schema,
    then those that one side dropped, which are only looked at.
    """

    def __init__(
        self,
        engine: DuckDB,
        columns: MergedColumns,
        key: Sequence[str],
        files: Sequence[DataFile],
    ) -> None:
        keys = [columns.schema.column(name) for name in key]
        others = [column for column in columns.schema.columns if column not in keys]
        self.engine = engine
        self.files = files
        self.schema = columns.schema
        self.columns = [*keys, *others]
        self.dropped = columns.dropped
        self.keys = [f"c{n}" for n in range(len(keys))]
        self.values = [f"c{n}" for n in range(len(keys), len(self.columns))]
        self.all = [f"c{n}" for n in range(len(self.columns) + len(columns.dropped))]
        self._met = f"mine o JOIN yours t ON {_same('o', 't', self.keys)}"

    def merged(
        self,
        root: Path,
        ours: TableContent,
        mine: _Side,
        yours: _Side,
        resolution: Resolution,
        at: datetime,
    ) -> RowMerge:
        self._view("ours", self.files)
        for side, name in ((mine, "mine"), (yours, "yours")):
            self._view(f"{name}_before", side.removed)
            self._view(f"{name}_after", side.added)
        for name in ("mine", "yours"):
            self._changes(name)
        keys = ", ".join(f"o.{c}" for c in self.keys)
        self._refuse_repeated(f"SELECT {keys} FROM {self._met} WHERE o.had <> t.had")
        lost = self._changed_where_dropped()
        if lost:
            return RowMerge(None, columns=lost)
        self._conflicts(resolution)
        settled, left = self._count("settled WHERE take IS NOT NULL"), self._open()
        if left:
            return RowMerge(None, settled=settled, conflicting=left, conflicts=self._listed())
        self._apply()
        added, changed, removed = self.engine.rows(
            "SELECT count(*) FILTER (NOT had), count(*) FILTER (had AND NOT gone), "
            "count(*) FILTER (had AND gone) FROM apply"
        )[0]
        content = self._written(root, ours, mine, yours, at)
        return RowMerge(content, added, changed, removed, settled)

    def _view(self, name: str, files: Sequence[DataFile]) -> None:
        self.engine.view(FileSet(name, tuple(file.path for file in files), self._schema()))

    def _schema(self) -> Schema:
        columns = enumerate([*self.columns, *self.dropped])
        return Schema(tuple(renamed(column, name=f"c{n}") for n, column in columns))

    def _changes(self, name: str) -> None:
        """Makes table `name` of the rows that a side changed: before as b0..., after as a0...."""
        befores = ", ".join(f"b.{c} AS b{c[1:]}" for c in self.all)
        afters = ", ".join(f"a.{c} AS a{c[1:]}" for c in self.all)
        keys = ", ".join(f"coalesce(b.{c}, a.{c}) AS {c}" for c in self.keys)
        differs = " OR ".join(f"b.{c} IS DISTINCT FROM a.{c}" for c in self.all[len(self.keys) :])
        self.engine.connection.execute(
            f"CREATE TEMP TABLE {name} AS SELECT {keys}, b.here IS NOT NULL AS had, "
            f"a.here IS NOT NULL AS has, {befores}, {afters} "
            f"FROM (SELECT *, true AS here FROM {name}_before) b "
            f"FULL JOIN (SELECT *, true AS here FROM {name}_after) a "
            f"ON {_same('b', 'a', self.keys)} "
            f"WHERE b.here IS NULL OR a.here IS NULL OR {differs or 'false'}"
        )
        keys = ", ".join(self.keys)
        self._refuse_repeated(f"SELECT {keys} FROM {name} GROUP BY ALL HAVING count(*) > 1")

    def _refuse_repeated(self, keys: str) -> None:
        found = self.engine.rows(f"{keys} LIMIT {NAMED_KEYS + 1}")
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

    def _changed_where_dropped(self) -> tuple[ColumnConflict, ...]:
        """A column that one side dropped, while the other gave rows other values in it."""
        conflicts = []
        for n, column in enumerate(self.dropped, len(self.columns)):
            counts = [
                self._count(f"{side} WHERE has AND b{n} IS DISTINCT FROM a{n} AND a{n} IS NOT NULL")
                for side in ("mine", "yours")
            ]
            said = [f"changed in {count} rows" if count else "dropped" for count in counts]
            if any(counts):
                conflicts.append(ColumnConflict(column.name, column.type, *said))
        return tuple(conflicts)

    def _conflicts(self, resolution: Resolution) -> None:
        """Makes table `settled`: each conflict, and whose value it takes (null while open)."""
        cells = ", ".join(
            f"{{n: {n}, base: o.b{n}::VARCHAR, ours: o.a{n}::VARCHAR, theirs: t.a{n}::VARCHAR, "
            f"clash: o.has AND t.has AND {_both_changed(n)}}}"
            for n in range(len(self.keys), len(self.columns))
        )
        row = (
            "{n: -1, base: 'here', ours: CASE WHEN o.has THEN 'here' ELSE 'removed' END, "
            "theirs: CASE WHEN t.has THEN 'here' ELSE 'removed' END, clash: o.has <> t.has}"
        )
        keys = ", ".join(f"o.{c}" for c in self.keys)
        texts = ", ".join(f"o.{c}::VARCHAR" for c in self.keys)
        listed = ", ".join(part for part in (row, cells) if part)
        self.engine.connection.execute(
            f"CREATE TEMP TABLE conflict AS SELECT {keys}, [{texts}] AS texts, "
            f"unnest(list_filter([{listed}], lambda x: x.clash), recursive := true) "
            f"FROM {self._met}"
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
        ]
        if rows:
            self.engine.connection.executemany("INSERT INTO given VALUES (?, ?, ?, ?)", rows)
            self._check_given()

    def _check_given(self) -> None:
        unknown = self.engine.rows(
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
            wrong = self.engine.rows(
                f"SELECT texts, n, value FROM given WHERE n = {n} AND value IS NOT NULL AND "
                f"TRY_CAST(value AS {column.sql_type}) IS NULL ORDER BY ALL LIMIT 1"
            )
            if wrong:
                raise InvalidError(
                    f'The value "{wrong[0][2]}" given for {self._place(*wrong[0][:2])} is none of '
                    f"the column: expected {column.type}. Write one.",
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
        rows = self.engine.rows(
            "SELECT texts, n, base, ours, theirs FROM settled WHERE take IS NULL "
            f"ORDER BY {', '.join(self.keys)}, n LIMIT {LISTED_CONFLICTS}"
        )
        return tuple(
            Conflict(tuple(texts), "" if n < 0 else self.columns[n].name, base, our, their)
            for texts, n, base, our, their in rows
        )

    def _apply(self) -> None:
        """Makes table `apply`: rows as they shall be (or gone), and whether ours has them now."""
        keys = ", ".join(f"t.{c}" for c in self.keys)
        picked = "".join(f", t.a{c[1:]} AS {c}" for c in self.values)
        mixed = "".join(f", {self._cell(int(c[1:]))} AS {c}" for c in self.values)
        own = ", ".join(self.keys)
        self.engine.connection.execute(
            "CREATE TEMP TABLE chosen AS SELECT "
            f"{own}, map(list(n), list({{take: take, value: value}})) AS by FROM settled "
            f"GROUP BY {own}"
        )
        self.engine.connection.execute(
            f"CREATE TEMP TABLE apply AS SELECT {keys}, t.had, NOT t.has AS gone{picked} "
            f"FROM yours t ANTI JOIN mine o ON {_same('o', 't', self.keys)} "
            f"UNION ALL SELECT {keys}, o.has AS had, NOT t.has AS gone{mixed} "
            f"FROM yours t JOIN mine o ON {_same('o', 't', self.keys)} "
            f"LEFT JOIN chosen s ON {_same('s', 't', self.keys)} "
            "WHERE (o.has OR t.has) AND coalesce(s.by[-1].take, 'theirs') = 'theirs'"
        )

    def _cell(self, n: int) -> str:
        column = self.columns[n]
        return (
            f"CASE WHEN NOT o.has THEN t.a{n} "
            f"WHEN o.a{n} IS NOT DISTINCT FROM t.a{n} OR t.b{n} IS NOT DISTINCT FROM t.a{n} "
            f"AND t.had THEN o.a{n} "
            f"WHEN o.b{n} IS NOT DISTINCT FROM o.a{n} AND o.had THEN t.a{n} "
            f"WHEN s.by[{n}].take = 'theirs' THEN t.a{n} "
            f"WHEN s.by[{n}].take = 'given' THEN CAST(s.by[{n}].value AS "
            f"{column.sql_type}) ELSE o.a{n} END"
        )

    def _written(
        self, root: Path, ours: TableContent, mine: _Side, yours: _Side, at: datetime
    ) -> TableContent:
        apart = not _paths(mine.removed) & _paths(yours.removed)
        if apart and not self._count(self._met):
            return replace(root, ours, yours.added, _paths(yours.removed), at=at)
        affected = self._affected()
        self._view("affected", affected)
        names = ", ".join(f"c{n} AS {quoted(column.name)}" for n, column in enumerate(self.columns))
        files = self.engine.write(
            f"SELECT {names} FROM affected r WHERE NOT EXISTS "
            f"(SELECT 1 FROM apply p WHERE {_same('p', 'r', self.keys)}) "
            f"UNION ALL SELECT {names} FROM apply WHERE NOT gone",
            self.schema,
            data_folder(root, ours),
        )
        return replace(root, ours, files, _paths(affected), at=at)

    def _affected(self) -> list[DataFile]:
        """The files of ours that hold a row to change; each such row must be there once."""
        if not self.files:
            return []
        same = _same("p", "r", self.keys)
        paths = tuple(file.path for file in self.files)
        named = self.engine.source(FileSet("ours", paths, self._schema()), file_name="filename")
        found = self.engine.rows(
            f"SELECT r.filename, count(*) FROM {named} r SEMI JOIN apply p ON {same} GROUP BY ALL"
        )
        if sum(count for _, count in found) != self._count("apply WHERE had"):
            keys = ", ".join(f"r.{key}" for key in self.keys)
            self._refuse_repeated(
                f"SELECT {keys} FROM ours r JOIN apply p ON {same} GROUP BY {keys}, p.had "
                "HAVING count(*) > p.had::INTEGER"
            )
        names = {name for name, _ in found}
        return [file for file in self.files if file.path in names]

    def _count(self, what: str) -> int:
        return int(self.engine.rows(f"SELECT count(*) FROM {what}")[0][0])


def _same(one: str, two: str, keys: Sequence[str]) -> str:
    return " AND ".join(f"{one}.{key} IS NOT DISTINCT FROM {two}.{key}" for key in keys)


def _both_changed(n: int) -> str:
    """SQL: both sides gave the cell another value than it had, and not the same one."""
    return (
        f"(o.a{n} IS DISTINCT FROM t.a{n}) AND (NOT o.had OR o.b{n} IS DISTINCT FROM o.a{n}) "
        f"AND (NOT t.had OR t.b{n} IS DISTINCT FROM t.a{n})"
    )
