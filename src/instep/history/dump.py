"""Every row of a lake's database as lines of JSON, and back: the same from SQLite and PostgreSQL.

A dump is read inside one transaction, so it is one state. The tables, their columns and keys are
those that the migrations make; each comes after the tables that it refers to.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from instep.errors import InvalidError
from instep.history.store import FORMAT_VERSION, Transaction, Value, migration_scripts

_PAGE = 500
_INSERTED = 100
"""Rows of one statement."""
_OWN = "format"
"""The row of `lake` that belongs to a database, not to the lake."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the catalog database, as the migrations make it."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


def catalog_tables() -> tuple[Table, ...]:
    """Returns every table, in the order in which rows can be put in."""
    with sqlite3.connect(":memory:") as connection:
        connection.executescript("\n".join(migration_scripts()))
        made = connection.execute(
            "select name from sqlite_master where type = 'table' order by rowid"
        ).fetchall()
        tables = []
        for (name,) in made:
            columns = connection.execute(f"pragma table_info({name})").fetchall()
            key = sorted((column[5], column[1]) for column in columns if column[5])
            tables.append(
                Table(name, tuple(one[1] for one in columns), tuple(one[1] for one in key))
            )
    return tuple(tables)


def dump_lines(tx: Transaction) -> Iterator[str]:
    """Yields the head, then one line a row; pages by key, so that memory stays bounded."""
    tables = [table for table in catalog_tables() if tx.has_table(table.name)]
    columns = {table.name: list(table.columns) for table in tables}
    yield json.dumps({"format": FORMAT_VERSION, "tables": columns})
    for table in tables:
        key = ", ".join(table.key)
        marks = ", ".join("?" for _ in table.key)
        places = [table.columns.index(name) for name in table.key]
        after: tuple[Value, ...] = ()
        while True:
            rows = tx.rows(
                f"select {', '.join(table.columns)} from {table.name} "
                f"{f'where ({key}) > ({marks})' if after else ''} order by {key} limit {_PAGE}",
                after,
            )
            for row in rows:
                if table.name != "lake" or row[0] != _OWN:
                    yield json.dumps([table.name, list(row)], ensure_ascii=False)
            if len(rows) < _PAGE:
                break
            after = tuple(rows[-1][place] for place in places)


def load_lines(tx: Transaction, lines: Iterable[str]) -> int:
    """Puts a dump's rows into a database with empty tables; returns how many.

    Raises:
        InvalidError (kind "bad-backup"): it is of a newer format.
    """
    reader = iter(lines)
    head = json.loads(next(reader, "{}"))
    if head.get("format") not in range(1, FORMAT_VERSION + 1):
        raise InvalidError(
            f"The backup's rows have format {head.get('format')}: this Instep reads 1 to "
            f"{FORMAT_VERSION}. Use the Instep that wrote it.",
            kind="bad-backup",
        )
    count = 0
    name, waiting = "", list[list[Value]]()
    for line in reader:
        table, row = json.loads(line)
        if table != name or len(waiting) == _INSERTED:
            _insert(tx, name, head["tables"].get(name, []), waiting)
            name, waiting = table, []
        waiting.append(row)
        count += 1
    _insert(tx, name, head["tables"].get(name, []), waiting)
    return count


def _insert(tx: Transaction, table: str, columns: list[str], rows: list[list[Value]]) -> None:
    if not rows:
        return
    marks = f"({', '.join('?' for _ in columns)})"
    tx.execute(
        f"insert into {table} ({', '.join(columns)}) values {', '.join([marks] * len(rows))}",
        [value for row in rows for value in row],
    )
