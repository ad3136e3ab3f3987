"""Writes what a merge of rows changes into our side of a table.

Where only some columns of a file change, these alone are written: the others keep their bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
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


def with_applied(
    target: Target, ours: FileSet, columns: Sequence[Column], keys: int, values: Sequence[int]
) -> TableContent:
    """Returns the table with the rows of `apply` in place of those that `ours` has of their keys.

    `columns` are called c0, c1, ... in `ours`; the first are the keys. The table `apply` of the
    session has a row for each key: c0, ... of the keys and of `values`; `had`, whether ours has
    the row, `file` and `place` where, and d0, ... which of `values` it has otherwise; `gone`,
    whether it shall not be there. All that `values` leaves out stays in a row as it is.
    """
    engine = target.engine
    found = dict(engine.run("SELECT file, bool_or(gone) FROM apply WHERE had GROUP BY file"))
    changed = _changed(engine, values)
    new, whole = [], set(found)
    for file in _taken_apart(target, ours, found, [columns[n] for n in changed]):
        made = _with_columns(target, ours, file, {n: columns[n] for n in changed})
        if made is not None:
            new.append(made)
            whole.remove(file.path)
    rest = _rest(target, ours.only(whole), columns, keys, values)
    return target.replaced([*new, *rest], found.keys())


def _changed(engine: DuckDB, values: Sequence[int]) -> list[int]:
    """Returns those of `values` in which a row that stays becomes another."""
    if not values:
        return []
    listed = ", ".join(f"bool_or(d{n})" for n in values)
    (found,) = engine.run(f"SELECT {listed} FROM apply WHERE had AND NOT gone")
    return [n for n, is_changed in zip(values, found, strict=True) if is_changed]


def _taken_apart(
    target: Target, ours: FileSet, found: dict[str, bool], changed: Sequence[Column]
) -> Iterator[DataFile]:
    """Yields the files of which only the columns `changed` need be written.

    None of their rows goes, and they stay in the same partition and order.
    """
    layout = layout_of(target.root, target.content)
    ids = {column.id for column in changed}
    placed = {one.source_id for one in layout.partition} | {one.source_id for one in layout.sort}
    if not ids or ids & placed:
        return
    known = {field.id for field in target.schema.fields()}
    for file in data_files(target.root, target.content, partition=layout.partition):
        if (
            found.get(file.path) is False
            and file.path not in ours.deletes
            and file.size_bytes >= _TAKEN_APART_BYTES
            and {one.field_id for one in file.columns} <= known
        ):
            yield file


def _with_columns(
    target: Target, ours: FileSet, file: DataFile, changed: dict[int, Column]
) -> DataFile | None:
    """Returns a file with new values in some columns, those of `apply`; None if it cannot be."""
    place = free_name("place of the row", target.schema.names)
    source = target.engine.source(ours.only([file.path]), row_number=place)
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
