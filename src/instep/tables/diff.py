"""Answers what differs between two states of a table: columns by field id, rows by key.

Counts are exact. Files that both states share are not read, so the work follows what changed.
Rows are compared on the columns that both states have; a column that only one has is a difference
of the schema. Without a key, or when the key is new, rows are compared as a multiset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from instep.canonical import Json
from instep.engines.engine import FileSet
from instep.engines.schema import Column, Schema, sql_type_of
from instep.tables.content import TableContent
from instep.tables.read import DataFile, data_files, schema_of

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB

SAMPLED_ROWS = 5
"""How many rows of each kind a diff shows: the first ones in the order of the key."""


class RowChange(StrEnum):
    """What happened to a row."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Cell:
    """One value before and after, as DuckDB's text; None is null, or absent."""

    column: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class RowSample:
    """One differing row; `cells` holds the changed ones, or all of an added or removed row."""

    change: RowChange
    key: tuple[str | None, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class RowDiff:
    """Exact counts; `key` is empty when rows were compared as a multiset.

    In a multiset nothing is `changed`: a changed row counts as one removed and one added.
    """

    key: tuple[str, ...]
    added: int
    removed: int
    changed: int
    sample: tuple[RowSample, ...]

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.removed or self.changed)

    def to_json(self) -> dict[str, Json]:
        return {
            "key": list(self.key),
            "added": self.added,
            "removed": self.removed,
            "changed": self.changed,
            "sample": [
                {
                    "change": row.change.value,
                    "key": list(row.key),
                    "cells": [
                        {"column": cell.column, "before": cell.before, "after": cell.after}
                        for cell in row.cells
                    ],
                }
                for row in self.sample
            ],
        }


@dataclass(frozen=True, slots=True)
class SchemaDiff:
    """Columns that differ; pairs are (before, after) of one field id."""

    added: tuple[Column, ...]
    removed: tuple[Column, ...]
    renamed: tuple[tuple[Column, Column], ...]
    retyped: tuple[tuple[Column, Column], ...]

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.removed or self.renamed or self.retyped)

    def to_json(self) -> dict[str, Json]:
        return {
            "added": [{"name": one.name, "type": one.type} for one in self.added],
            "removed": [{"name": one.name, "type": one.type} for one in self.removed],
            "renamed": [{"before": old.name, "after": new.name} for old, new in self.renamed],
            "retyped": [
                {
                    "name": new.name,
                    "before": _typed(old),
                    "after": _typed(new),
                }
                for old, new in self.retyped
            ],
        }


@dataclass(frozen=True, slots=True)
class _Pair:
    """One column of both states, and a type that holds the values of both."""

    before: Column
    after: Column
    type: str
    is_key: bool


def diff_schema(before: Schema, after: Schema) -> SchemaDiff:
    """Returns how the columns of two states of one table differ, by field id."""
    old = {column.id: column for column in before.columns}
    new = {column.id: column for column in after.columns}
    both = [(old[field_id], new[field_id]) for field_id in new if field_id in old]
    return SchemaDiff(
        added=tuple(column for field_id, column in new.items() if field_id not in old),
        removed=tuple(column for field_id, column in old.items() if field_id not in new),
        renamed=tuple((one, two) for one, two in both if one.name != two.name),
        retyped=tuple(
            (one, two) for one, two in both if (one.type, one.required) != (two.type, two.required)
        ),
    )


def diff_rows(
    root: Path,
    before: TableContent | None,
    after: TableContent | None,
    key: Sequence[str],
    sampled: int = SAMPLED_ROWS,
) -> RowDiff:
    """Returns how the rows of two states differ; None is a table that is not there.

    Rows with the same key are paired; where a key occurs several times, its rows are paired in
    the order of their values. Keys are named as in `after`, or as in `before` when it is gone.
    """
    if before == after:
        return RowDiff(tuple(key), 0, 0, 0, ())
    pairs = _pairs(root, before, after, key)
    old, new = _unshared(root, before, after)
    names = tuple(key) if sum(pair.is_key for pair in pairs) == len(key) else ()
    if not old and not new:
        return RowDiff(names, 0, 0, 0, ())

    from instep.engines.duckdb import DuckDB

    with DuckDB(root / "staging") as engine:
        _view(engine, "old", old, [pair.before for pair in pairs], pairs)
        _view(engine, "new", new, [pair.after for pair in pairs], pairs)
        if not old or not new:
            return _one_sided(engine, names, pairs, old, new, sampled)
        if not names:
            return _multiset(engine, pairs, sampled)
        return _joined(engine, names, pairs, _rows(old), _rows(new), sampled)


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
        if (match := known.get(_identity(column, by_id))) is not None
    ]
    keys = [pair for pair in found if pair.is_key]
    keys.sort(key=lambda pair: names.index(pair.after.name.lower()))
    return (*keys, *(pair for pair in found if not pair.is_key))


def _identity(column: Column, by_id: bool) -> int | str:
    return column.id if by_id else column.name.lower()


def _common(before: Column, after: Column) -> str:
    """A type that holds the values of both; text when there is none."""
    if before.type == after.type:
        return after.type
    kinds = {before.type, after.type}
    if kinds == {"int", "long"}:
        return "long"
    if kinds <= {"float", "double", "int"}:
        return "double"
    return "string"


def _unshared(
    root: Path, before: TableContent | None, after: TableContent | None
) -> tuple[tuple[DataFile, ...], tuple[DataFile, ...]]:
    old = data_files(root, before) if before else ()
    new = data_files(root, after) if after else ()
    shared = {file.path for file in old} & {file.path for file in new}
    return (
        tuple(file for file in old if file.path not in shared),
        tuple(file for file in new if file.path not in shared),
    )


def _rows(files: Sequence[DataFile]) -> int:
    return sum(file.rows for file in files)


def _view(
    engine: DuckDB,
    name: str,
    files: Sequence[DataFile],
    columns: Sequence[Column],
    pairs: Sequence[_Pair],
) -> None:
    """Registers one side under `name`, with columns c0, c1, ... in the types of both sides."""
    schema = Schema(
        tuple(Column(column.id, f"c{n}", column.type) for n, column in enumerate(columns))
    )
    engine.view(FileSet(f"{name}_files", tuple(file.path for file in files), schema))
    casts = ", ".join(f"c{n}::{sql_type_of(pair.type)} AS c{n}" for n, pair in enumerate(pairs))
    engine.connection.execute(f"CREATE VIEW {name} AS SELECT {casts} FROM {name}_files")


def _one_sided(
    engine: DuckDB,
    names: tuple[str, ...],
    pairs: Sequence[_Pair],
    old: Sequence[DataFile],
    new: Sequence[DataFile],
    sampled: int,
) -> RowDiff:
    """All rows of the unshared files were added, or all removed: only the sample is read."""
    change = RowChange.ADDED if new else RowChange.REMOVED
    columns = [f"c{n}" for n in range(len(pairs))]
    texts = ", ".join(f"{column}::VARCHAR" for column in columns)
    rows = engine.rows(
        f"SELECT {texts} FROM {'new' if new else 'old'} ORDER BY {', '.join(columns)} "
        f"LIMIT {sampled}"
    )
    sample = tuple(_whole_row(change, row, names, pairs) for row in rows)
    return RowDiff(names, _rows(new), _rows(old), 0, sample)


def _multiset(engine: DuckDB, pairs: Sequence[_Pair], sampled: int) -> RowDiff:
    """Counts each distinct row on both sides."""
    columns = ", ".join(f"c{n}" for n in range(len(pairs)))
    texts = ", ".join(f"c{n}::VARCHAR" for n in range(len(pairs)))
    engine.connection.execute(
        f"CREATE TEMP TABLE apart AS SELECT {columns}, sum(_step) AS _step FROM ("
        f"SELECT {columns}, -1 AS _step FROM old UNION ALL SELECT {columns}, 1 AS _step FROM new"
        ") GROUP BY ALL HAVING sum(_step) <> 0"
    )
    counts = engine.rows(
        "SELECT coalesce(sum(_step) FILTER (_step > 0), 0)::BIGINT, "
        "coalesce(-sum(_step) FILTER (_step < 0), 0)::BIGINT FROM apart"
    )
    (added, removed) = counts[0]
    sample: list[RowSample] = []
    for change, sign in ((RowChange.REMOVED, "<"), (RowChange.ADDED, ">")):
        rows = engine.rows(
            f"SELECT {texts} FROM apart WHERE _step {sign} 0 ORDER BY {columns} LIMIT {sampled}"
        )
        sample += [_whole_row(change, row, (), pairs) for row in rows]
    return RowDiff((), added, removed, 0, tuple(sample))


def _joined(
    engine: DuckDB,
    names: tuple[str, ...],
    pairs: Sequence[_Pair],
    old_rows: int,
    new_rows: int,
    sampled: int,
) -> RowDiff:
    """Pairs rows by key in one full join; by key and place within it when keys repeat."""
    diff, paired = _join(engine, names, pairs, ("old", "new"), 0, sampled)
    if paired + diff.removed == old_rows and paired + diff.added == new_rows:
        return diff
    # A repeated key met rows of the other side more than once, so the counts above are too large.
    keys = ", ".join(f"c{n}" for n in range(len(names)))
    columns = ", ".join(f"c{n}" for n in range(len(pairs)))
    for side in ("old", "new"):
        engine.connection.execute(
            f"CREATE VIEW {side}_numbered AS SELECT *, row_number() OVER "
            f"(PARTITION BY {keys} ORDER BY {columns}) AS place FROM {side}"
        )
    diff, _ = _join(engine, names, pairs, ("old_numbered", "new_numbered"), 1, sampled)
    return diff


def _join(
    engine: DuckDB,
    names: tuple[str, ...],
    pairs: Sequence[_Pair],
    sides: tuple[str, str],
    places: int,
    sampled: int,
) -> tuple[RowDiff, int]:
    """Returns the difference and the number of pairs; the join streams, and spills if it must."""
    keys = [f"c{n}" for n in range(len(names))]
    matched = [*keys, *(["place"] if places else [])]
    on = " AND ".join(f"o.{name} IS NOT DISTINCT FROM n.{name}" for name in matched)
    others = [f"c{n}" for n in range(len(names), len(pairs))]
    differs = " OR ".join(f"o.{c} IS DISTINCT FROM n.{c}" for c in others) or "false"
    order = ", ".join(f"coalesce(o.{name}, n.{name})::VARCHAR" for name in matched)
    texts = ", ".join(f"{side}.c{n}::VARCHAR" for n in range(len(pairs)) for side in "on")
    first = f"arg_min([{texts}], [{order}], {sampled})"
    rows = engine.rows(
        f"SELECT count(*) FILTER (o._here AND n._here), "
        f"count(*) FILTER (n._here IS NULL), {first} FILTER (n._here IS NULL), "
        f"count(*) FILTER (o._here IS NULL), {first} FILTER (o._here IS NULL), "
        f"count(*) FILTER (o._here AND n._here AND ({differs})), "
        f"{first} FILTER (o._here AND n._here AND ({differs})) "
        f"FROM (SELECT *, true AS _here FROM {sides[0]}) o "
        f"FULL JOIN (SELECT *, true AS _here FROM {sides[1]}) n ON {on}"
    )
    paired, removed, removed_rows, added, added_rows, changed, changed_rows = rows[0]
    sample = [
        *(_whole_row(RowChange.REMOVED, row[0::2], names, pairs) for row in removed_rows or ()),
        *(_whole_row(RowChange.ADDED, row[1::2], names, pairs) for row in added_rows or ()),
        *(_changed_row(row, names, pairs) for row in changed_rows or ()),
    ]
    return RowDiff(names, added, removed, changed, tuple(sample)), paired


def _whole_row(
    change: RowChange, row: Sequence[str | None], names: Sequence[str], pairs: Sequence[_Pair]
) -> RowSample:
    is_added = change is RowChange.ADDED
    cells = tuple(
        Cell(pair.after.name, None if is_added else text, text if is_added else None)
        for pair, text in zip(pairs, row, strict=True)
    )
    return RowSample(change, tuple(row[: len(names)]), cells)


def _changed_row(
    row: Sequence[str | None], names: Sequence[str], pairs: Sequence[_Pair]
) -> RowSample:
    before, after = row[0::2], row[1::2]
    cells = tuple(
        Cell(pair.after.name, old, new)
        for pair, old, new in zip(pairs, before, after, strict=True)
        if old != new
    )
    return RowSample(RowChange.CHANGED, tuple(after[: len(names)]), cells)


def _typed(column: Column) -> str:
    return f"{column.type} required" if column.required else column.type
