"""Merges by key, cell by cell, what their side of a table changed into ours.

A column of which their side only made the same bytes anew is not read, on no side, unless rows went
or came.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace as renamed

from instep.engines.defaults import checked_default
from instep.engines.engine import FileSet
from instep.engines.schema import Column, literal
from instep.errors import ConflictError, InvalidError
from instep.tables.apart import forget_apart
from instep.tables.content import TableContent
from instep.tables.merge_bounds import files_with_room
from instep.tables.merge_sides import Side, find_apart_of, numbered, values_apart
from instep.tables.merge_target import Target, with_applied
from instep.tables.read import DataFile, data_files
from instep.tables.rewrite import AT_ONCE
from instep.tables.row_merge import Conflict, Resolution, RowMerge

LISTED_CONFLICTS = 1000
"""How many conflicts a merge returns; all are counted."""

NAMED_KEYS = 3
"""How many keys a message names."""

_CUT_BY_CASTS = frozenset({"int", "long", "decimal", "date", "time", "timestamp"})
"""1.7 becomes the whole number 2, and a date loses its time of day, a timestamp its offset."""


class KeyedMerge:
    """The rows that theirs changed, beside what ours has under their keys, in one DuckDB session.

    Columns are called c0, c1, ...: those of the key first, then the others of the merged schema.
    `values` are the places of those others that are compared: in the rest no row is another.
    """

    def __init__(
        self,
        target: Target,
        keys: Sequence[Column],
        mine: Side,
        yours: Side,
    ) -> None:
        others = [column for column in target.schema.columns if column not in keys]
        self.target = target
        self.engine = target.engine
        self.columns = [*keys, *others]
        self.keys = [f"c{n}" for n in range(len(keys))]
        self.values: Sequence[int] = range(len(keys), len(self.columns))
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
        before, own = (renamed(one, schema=self.schema) for one in (before, own))
        # Files that all three share hold no row that theirs changed.
        ours = own.only({*mine.after.files, *yours.before.files})
        self._find(before.only({*mine.before.files, *yours.before.files}), ours)
        self._refuse_added_again(own, set(ours.files))
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
            content = self._applied(ours) if added or changed or removed else self.target.content
        return RowMerge(content, added, changed, removed, settled)

    def _find(self, before: FileSet, ours: FileSet) -> None:
        """Makes table `changed` of as few columns as tell it."""
        every = self.values
        self.values = values_apart(self.engine, self.columns, len(self.keys), self.yours)
        if self._find_changed(before, ours):
            return
        forget_apart(self.engine)
        self.engine.run("DROP TABLE IF EXISTS changed")
        self.values = every
        self._find_changed(before, ours)

    def _find_changed(self, before: FileSet, ours: FileSet) -> bool:
        """Makes table `changed`: each key that theirs changed, and what ours has there.

        `had`, `here` and `has` say whether the base, ours and theirs have the row, b0, o0, t0, ...
        its values in them; `file` and `place` are where ours has it, and `is_met` says that ours
        changed it too. Returns False where other columns than `values` are needed to tell.
        """
        columns = [*self.columns[: len(self.keys)], *(self.columns[n] for n in self.values)]
        find_apart_of(self.engine, columns, len(self.keys), self.yours)
        # Which rows of one key are equal is a question of all their values.
        if self._is_partial() and self._count("repeated"):
            return False
        listed = ", ".join(f"coalesce(o{n}, n{n})" for n in range(len(self.keys)))
        self._refuse_repeated(f"SELECT {listed} FROM apart GROUP BY ALL HAVING count(*) > 1")
        keys = ", ".join(f"coalesce(o{n}, n{n}) AS {key}" for n, key in enumerate(self.keys))
        values = "".join(
            f", o{place} AS b{n}, n{place} AS t{n}"
            for place, n in enumerate(self.values, len(self.keys))
        )
        theirs = f"SELECT {keys}, change <> 'added' AS had, change <> 'removed' AS has{values}"
        own = "".join(f", r.c{n} AS o{n}" for n in self.values)
        differs = " OR ".join(f"b{n} IS DISTINCT FROM r.c{n}" for n in self.values) or "false"
        source = self.engine.source(ours, file_name="file", row_number="place")
        self.engine.run(
            f"CREATE TEMP TABLE changed AS SELECT t.*, file, place, file IS NOT NULL AS here{own}, "
            f"had <> here OR (here AND ({differs})) AS is_met "
            f"FROM {source} r RIGHT JOIN ({theirs} FROM apart) t ON {_same('t', 'r', self.keys)}"
        )
        if self._is_partial() and self._count("changed WHERE NOT (had AND has AND here)"):
            return False
        names = ", ".join(self.keys)
        self._refuse_repeated(f"SELECT {names} FROM changed GROUP BY ALL HAVING count(*) > 1")
        # What both added was not there before, or theirs has its key twice.
        self._refuse_repeated(
            f"SELECT {names} FROM {self.engine.source(before)} r "
            f"SEMI JOIN (FROM changed WHERE here AND NOT had) p ON {_same('p', 'r', self.keys)}"
        )
        return True

    def _is_partial(self) -> bool:
        return len(self.keys) + len(self.values) < len(self.columns)

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
        rows = self.engine.run("SELECT texts FROM given WHERE n < 0 AND take = 'given' LIMIT 1")
        if rows:
            raise InvalidError(
                f'A value is given for {self._place(rows[0][0], -1)}: expected "ours" or '
                '"theirs", since one side removed it. Take a side.',
                kind="bad-value",
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
        """Makes table `apply`, as `with_applied` wants it.

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
        names = ", ".join(
            [
                *self.keys,
                "file",
                "place",
                "had",
                "gone",
                *(f"c{n}, c{n} IS DISTINCT FROM o{n} AS d{n}" for n in self.values),
            ]
        )
        self.engine.connection.execute(
            f"CREATE TEMP TABLE apply AS SELECT {names} FROM ("
            f"SELECT {keys}, file, place, here AS had, NOT has AS gone{cells}{own} "
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

    def _applied(self, ours: FileSet) -> TableContent:
        self.engine.check_bytes(self.yours.after)
        return with_applied(self.target, ours, self.columns, len(self.keys), self.values)

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
