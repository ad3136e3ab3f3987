"""Answers which rows differ between two states of a table; `tables.schema_diff` has all the rest.

Files that both states share, with the same deletes, are not read, so the work follows what changed;
nor are columns that files made anew hold as the same bytes (`tables.same_bytes`).
Rows are compared on the columns that both states have; a column that only one has is a difference
of the schema. Without a key, or when the key is new, rows are compared as a multiset. What makes
two rows equal is said in `tables.apart`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from instep.engines.engine import FileSet, Slice
from instep.engines.schema import Column, Schema, sql_type_of
from instep.engines.types import is_castable
from instep.errors import InvalidError
from instep.tables.apart import (
    Compared,
    Range,
    Sides,
    Tolerance,
    find_apart,
    find_one_sided,
    forget_apart,
    make_ready,
)
from instep.tables.content import TableContent
from instep.tables.key_ranges import Candidate, everything, ranges_of_key
from instep.tables.read import counted_as, file_set, schema_of
from instep.tables.row_diff import RowDiff, RowsApart
from instep.tables.same_bytes import columns_apart
from instep.tables.shared import unshared

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB

SAMPLED_ROWS = 5
"""How many rows of each kind a diff shows: the first ones by the key, then by all their values."""

_FEW_ROWS = 1_000_000
"""Rows that are found again by their keys; where there are more, all are compared, in ranges."""

EXACT: Mapping[str | None, Tolerance] = {}
"""Tolerances by column name, None for every other column of floats; here none."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """One column of both states, and a type that holds the values of both."""

    before: Column
    after: Column
    sql_type: str
    is_key: bool

    @property
    def is_alike(self) -> bool:
        """Says whether the same bytes in a file are the same value on both sides."""
        return self.before.id == self.after.id and self.before.full_type == self.after.full_type


def diff_rows(
    root: Path,
    before: TableContent | None,
    after: TableContent | None,
    key: Sequence[str],
    sampled: int = SAMPLED_ROWS,
    *,
    part: Slice | None = None,
    tolerances: Mapping[str | None, Tolerance] = EXACT,
) -> RowDiff:
    """Returns how the rows of two states differ, as counts and a sample; see `open_diff`."""
    with open_diff(root, before, after, key, part=part, tolerances=tolerances) as rows:
        return rows.summary(sampled)


@contextmanager
def open_diff(
    root: Path,
    before: TableContent | None,
    after: TableContent | None,
    key: Sequence[str],
    *,
    part: Slice | None = None,
    tolerances: Mapping[str | None, Tolerance] = EXACT,
) -> Iterator[RowsApart]:
    """Yields the rows that differ between two states; None is a table that is not there.

    Rows with the same key are paired. Where a key stands more than once among the rows that are
    read, the key is named, its equal rows cancel, and the rest are paired in the order of their
    values. Keys, the slice and tolerances are named as in `after`, or as in `before` when it is
    gone. A row whose time leaves the slice is removed from it.

    Raises:
        InvalidError (kind "no-such-column", "not-a-time", "not-a-float", "tolerance-without-key").
    """
    pairs = _pairs(root, before, after, key)
    is_keyed = bool(key) and sum(pair.is_key for pair in pairs) == len(key)
    if not is_keyed:
        pairs = tuple(replace(pair, is_key=False) for pair in pairs)
    columns = _compared(pairs, tolerances)
    names = tuple(pair.after.name for pair in pairs)
    if before == after or not pairs:
        yield RowsApart(None, names, columns)
        return
    old, new = _unshared(root, before, after, pairs, part)
    if not old.files and not new.files:
        yield RowsApart(None, names, columns)
        return

    from instep.engines.duckdb import DuckDB

    with DuckDB(root / "staging") as engine:
        make_ready(engine)
        sides = _Viewed.of(engine, (old, new), pairs, columns)
        if not old.files or not new.files:
            find_one_sided(engine, sides.sides, is_added=bool(new.files))
            yield RowsApart(engine, names, columns)
            return
        few = sides.without_same_bytes() if is_keyed and part is None else None
        if few is not None:
            few.find_apart()
            if not few.has_repeated():
                yield RowsApart(engine, few.names, few.columns, lambda: _again(sides))
                return
            # Which of the rows of one key are equal is a question of all their values.
            forget_apart(engine)
        sides.find_apart()
        yield RowsApart(engine, names, columns)


@dataclass(frozen=True, slots=True)
class _Viewed:
    """Both sides as views of an engine, with the columns that are compared."""

    engine: DuckDB
    files: tuple[FileSet, FileSet]
    pairs: tuple[_Pair, ...]
    columns: tuple[Compared, ...]

    @classmethod
    def of(
        cls,
        engine: DuckDB,
        files: tuple[FileSet, FileSet],
        pairs: tuple[_Pair, ...],
        columns: tuple[Compared, ...],
    ) -> _Viewed:
        made = cls(engine, files, pairs, columns)
        for one in files:
            engine.view(one, made.selected)
        return made

    @property
    def sides(self) -> Sides:
        return Sides(self.files[0].name, self.files[1].name, self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(pair.after.name for pair in self.pairs)

    @property
    def selected(self) -> str:
        """SQL of the columns, in the types of both sides."""
        return ", ".join(f"c{n}::{one.sql_type} AS c{n}" for n, one in enumerate(self.columns))

    def find_apart(self) -> None:
        cut = partial(_cut, self.engine, self.files, self.selected, self.pairs)
        find_apart(self.engine, self.sides, cut)

    def has_repeated(self) -> bool:
        return bool(self.engine.run("SELECT 1 FROM repeated LIMIT 1"))

    def without_same_bytes(self) -> _Viewed | None:
        """Returns the sides without the columns that need not be read; None where there is none."""
        if any(one.deletes for one in self.files):
            return None
        keys = [pair for pair in self.pairs if pair.is_key]
        alike = [pair for pair in self.pairs if pair.is_alike]
        if not all(key in alike for key in keys):
            return None
        others = [pair.after.id for pair in alike if not pair.is_key]
        apart = columns_apart(
            self.engine,
            self.files[0].files,
            self.files[1].files,
            [key.after.id for key in keys],
            others,
        )
        same = set(others) - (apart if apart is not None else set(others))
        if not same:
            return None
        places = [
            n for n, pair in enumerate(self.pairs) if pair.is_key or pair.after.id not in same
        ]
        old, new = (
            replace(
                one,
                name=f"few_{one.name}",
                schema=Schema(
                    tuple(
                        replace(one.schema.columns[place], name=f"c{n}")
                        for n, place in enumerate(places)
                    )
                ),
            )
            for one in self.files
        )
        return _Viewed.of(
            self.engine,
            (old, new),
            tuple(self.pairs[place] for place in places),
            tuple(self.columns[place] for place in places),
        )


def _again(viewed: _Viewed) -> tuple[tuple[str, ...], tuple[Compared, ...]]:
    """Finds the rows of the keys that are in `apart` once more, with all of their columns."""
    engine, keys = viewed.engine, viewed.sides.keys
    ((rows,),) = engine.run("SELECT count(*) FROM apart")
    if rows > _FEW_ROWS:
        forget_apart(engine)
        viewed.find_apart()
        return viewed.names, viewed.columns
    listed = ", ".join(f"coalesce(o{n}, n{n}) AS k{n}" for n in range(keys))
    engine.run(f"CREATE TEMP TABLE known AS SELECT {listed} FROM apart")
    forget_apart(engine)
    on = " AND ".join(f"c{n} IS NOT DISTINCT FROM k{n}" for n in range(keys))
    for one in viewed.files:
        engine.run(
            f"CREATE TEMP VIEW known_{one.name} AS SELECT * FROM {one.name} SEMI JOIN known ON {on}"
        )
    old, new = (f"known_{one.name}" for one in viewed.files)
    find_apart(engine, Sides(old, new, viewed.columns), lambda _: (Range("true", old, new),))
    return viewed.names, viewed.columns


def _pairs(
    root: Path, before: TableContent | None, after: TableContent | None, key: Sequence[str]
) -> tuple[_Pair, ...]:
    """Returns the columns to compare, keys first; by id, or by name between two tables."""
    names = [name.lower() for name in key]
    old = schema_of(root, before).columns if before else ()
    new = schema_of(root, after).columns if after else old
    by_id = before is None or after is None or before.uuid == after.uuid
    known = {_identity(column, by_id): column for column in old or new}
    found = [
        _Pair(match, column, _common(match, column), column.name.lower() in names)
        for column in new
        if (held := known.get(_identity(column, by_id))) is not None
        for match in [_as_read(held, column)]
    ]
    keys = [pair for pair in found if pair.is_key]
    keys.sort(key=lambda pair: names.index(pair.after.name.lower()))
    return (*keys, *(pair for pair in found if not pair.is_key))


def _as_read(before: Column, after: Column) -> Column:
    """The earlier column as it is read: what lies within is found by the field ids of now."""
    is_same = before.id == after.id and before.type == after.type
    return replace(after, name=before.name) if is_same and after.is_nested else before


def _identity(column: Column, by_id: bool) -> int | str:
    return column.id if by_id else column.name.lower()


def _common(before: Column, after: Column) -> str:
    """A SQL type that holds the values of both: the wider one; text when neither is."""
    if before.sql_type == after.sql_type or is_castable(before, after):
        wider = after if before.type != "long" or after.type != "int" else before
        return wider.sql_type
    return before.sql_type if is_castable(after, before) else sql_type_of("string")


def _compared(
    pairs: Sequence[_Pair], tolerances: Mapping[str | None, Tolerance]
) -> tuple[Compared, ...]:
    if tolerances and not any(pair.is_key for pair in pairs):
        raise InvalidError(
            "A tolerance was given where rows have no key: expected a key, by which rows are "
            "paired before their values are compared. Name one, or leave the tolerance out.",
            kind="tolerance-without-key",
        )
    floats = {pair.after.name.lower() for pair in pairs if _is_float(pair)}
    by_name = {name.lower(): one for name, one in tolerances.items() if name is not None}
    for name in by_name:
        if name not in floats:
            raise InvalidError(
                f'Column "{name}" has a tolerance: expected a column of floats outside the key, '
                f"one of {', '.join(sorted(floats)) or 'none'}. Name one, or leave it out.",
                kind="not-a-float",
                column=name,
            )
    return tuple(
        Compared(
            pair.sql_type,
            pair.is_key,
            by_name.get(pair.after.name.lower(), tolerances.get(None)) if _is_float(pair) else None,
        )
        for pair in pairs
    )


def _is_float(pair: _Pair) -> bool:
    return pair.sql_type in ("FLOAT", "DOUBLE") and not pair.is_key


def _unshared(
    root: Path,
    before: TableContent | None,
    after: TableContent | None,
    pairs: Sequence[_Pair],
    part: Slice | None,
) -> tuple[FileSet, FileSet]:
    """Returns both sides without the files they share, their columns named c0, c1, ..."""
    sides = (
        ("old", before, [pair.before for pair in pairs]),
        ("new", after, [pair.after for pair in pairs]),
    )
    place = _place(pairs, part) if part else 0
    sets = []
    for name, content, columns in sides:
        schema = Schema(tuple(replace(one, name=f"c{n}") for n, one in enumerate(columns)))
        cut = Slice(columns[place].name, part.window) if part else None
        found = file_set(root, content, name, cut) if content else FileSet(name, (), schema)
        own = Slice(f"c{place}", part.window) if part else None
        sets.append(replace(found, schema=schema, slice=own))
    old, new = sets
    return _without_compacted(root, before, after, old.apart_from(new), new.apart_from(old))


def _without_compacted(
    root: Path,
    before: TableContent | None,
    after: TableContent | None,
    old: FileSet,
    new: FileSet,
) -> tuple[FileSet, FileSet]:
    """Leaves out compacted files with those that they were made of, where no row is deleted."""
    if before is None or after is None or not old.files or not new.files:
        return old, new
    sides = []
    for content, one in ((before, old), (after, new)):
        whole = [path for path in one.files if path not in one.deletes]
        sides.append(counted_as(root, content, whole))
    apart = unshared(*sides)
    left, right = (
        replace(one, files=tuple(p for p in one.files if p in kept or p in one.deletes))
        for one, kept in zip((old, new), apart, strict=True)
    )
    return left, right


def _place(pairs: Sequence[_Pair], part: Slice) -> int:
    column = Schema(tuple(pair.after for pair in pairs)).column(part.column)
    return next(n for n, pair in enumerate(pairs) if pair.after == column)


def _cut(
    engine: DuckDB,
    files: tuple[FileSet, FileSet],
    selected: str,
    pairs: Sequence[_Pair],
    rows: int,
) -> Sequence[Range]:
    """Rows are cut by a column of the key; all columns can serve where there is none."""
    if files[0].slice is not None:
        return everything(files)  # the slice has cut them
    is_keyed = any(pair.is_key for pair in pairs)
    candidates = [
        Candidate(
            n,
            (pair.before.type, pair.after.type),
            pair.sql_type,
            (pair.before.id, pair.after.id),
        )
        for n, pair in enumerate(pairs)
        if pair.is_key or not is_keyed
    ]
    return ranges_of_key(engine, files, selected, candidates, rows)
