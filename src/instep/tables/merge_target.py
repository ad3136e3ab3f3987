"""Writes what a merge of rows changes into our side of a table.

Where only some columns of a file change, these alone are written: the others keep their bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as renamed
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from instep.engines.engine import FileSet
from instep.engines.schema import Column, Schema, free_name, literal, quoted
from instep.tables.content import TableContent
from instep.tables.read import DataFile, data_files, layout_of
from instep.tables.write import data_folder, replace

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB

_TAKEN_APART_BYTES = 4 << 20
"""Files from this size on are written one by one where few of their columns change."""

_MOST_WRITTEN = 0.5
"""The part of a file up to which writing its columns takes less than writing all of it."""


@dataclass(frozen=True, slots=True)
class Target:
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


@dataclass(frozen=True, slots=True)
class _Affected:
    """What becomes of the rows of one file: whether some go, and which columns of others change."""

    some_go: bool
    changed: Mapping[int, Column]


def with_applied(
    target: Target, ours: FileSet, columns: Sequence[Column], keys: int, values: Sequence[int]
) -> TableContent:
    """Returns the table with the rows of `apply` in place of those that `ours` has of their keys.

    `columns` are called c0, c1, ... in `ours`; the first are the keys. The table `apply` of the
    session has a row for each key: c0, ... of the keys and of `values`; `had`, whether ours has
    the row, `file` and `place` where, and d0, ... which of `values` it has otherwise; `gone`,
    whether it shall not be there. All that `values` leaves out stays in a row as it is.
    """
    affected = _affected(target.engine, columns, values)
    new, whole = [], set(affected)
    for file in _taken_apart(target, ours, affected):
        made = _with_columns(target, ours, file, affected[file.path].changed)
        if made is not None:
            new.append(made)
            whole.remove(file.path)
    rest = _rest(target, ours.only(whole), columns, keys, values)
    return target.replaced([*new, *rest], affected.keys())


def _affected(
    engine: DuckDB, columns: Sequence[Column], values: Sequence[int]
) -> dict[str, _Affected]:
    changed = "".join(f", bool_or(d{n} AND NOT gone)" for n in values)
    found = engine.run(f"SELECT file, bool_or(gone){changed} FROM apply WHERE had GROUP BY file")
    return {
        file: _Affected(
            some_go, {n: columns[n] for n, is_so in zip(values, told, strict=True) if is_so}
        )
        for file, some_go, *told in found
    }


def _taken_apart(
    target: Target, ours: FileSet, affected: Mapping[str, _Affected]
) -> Iterator[DataFile]:
    """Yields the files of which only the columns that change need be written.

    None of their rows goes, they stay in the same partition and order, and most of what is in them
    does not change.
    """
    layout = layout_of(target.root, target.content)
    placed = {one.source_id for one in layout.partition} | {one.source_id for one in layout.sort}
    for file in data_files(target.root, target.content, partition=layout.partition):
        one = affected.get(file.path)
        if one is None or one.some_go or file.path in ours.deletes:
            continue
        fields = {field.id for column in one.changed.values() for field in column.fields()}
        written = sum(told.size_bytes for told in file.columns if told.field_id in fields)
        if (
            file.size_bytes >= _TAKEN_APART_BYTES
            and written <= file.size_bytes * _MOST_WRITTEN
            and not fields & placed
        ):
            yield file


def _with_columns(
    target: Target, ours: FileSet, file: DataFile, changed: Mapping[int, Column]
) -> DataFile | None:
    """Returns a file with new values in some columns, those of `apply`; None if it cannot be."""
    place = free_name("place of the row", target.schema.names)
    written_anew = ours.only([file.path])
    target.engine.check_bytes(written_anew)
    source = target.engine.source(written_anew, row_number=place)
    values = ", ".join(
        f"CASE WHEN p.place IS NULL THEN r.c{n} ELSE p.c{n} END AS {quoted(column.name)}"
        for n, column in changed.items()
    )
    return target.engine.write_columns(
        f"SELECT {values}, r.{quoted(place)} FROM {source} r "
        f"LEFT JOIN (FROM apply WHERE had AND file = {literal(file.path)}) p "
        f"ON r.{quoted(place)} = p.place",
        place,
        Schema(tuple(changed.values())),
        target.schema,
        file,
        data_folder(target.root, target.content),
    )


def _rest(
    target: Target, ours: FileSet, columns: Sequence[Column], keys: int, values: Sequence[int]
) -> tuple[DataFile, ...]:
    """Writes files of ours anew, each with all of its rows, and the rows that come."""
    engine = target.engine
    comes = engine.run("SELECT 1 FROM apply WHERE NOT had AND NOT gone LIMIT 1")
    if not ours.files and not comes:
        return ()
    engine.check_bytes(ours)
    engine.view(renamed(ours, name="affected"))
    same = " AND ".join(f"p.c{n} IS NOT DISTINCT FROM r.c{n}" for n in range(keys))
    names = [quoted(column.name) for column in columns]
    cells = ", ".join(
        f"CASE WHEN p.had THEN p.c{n} ELSE r.c{n} END AS {name}"
        if n in values
        else f"r.c{n} AS {name}"
        for n, name in enumerate(names)
    )
    select = (
        f"SELECT {cells} FROM affected r LEFT JOIN (FROM apply WHERE had) p ON {same} "
        "WHERE p.had IS NULL OR NOT p.gone"
    )
    if comes:
        new = ", ".join(f"c{n} AS {name}" for n, name in enumerate(names))
        select += f" UNION ALL SELECT {new} FROM apply WHERE NOT had AND NOT gone"
    return target.written(select)
