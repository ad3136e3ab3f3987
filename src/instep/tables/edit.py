"""What an edit of tables offers in Python: rows, tables and columns are changed, then committed.

Rows are SQL, or anything that gives Arrow; neither pyarrow nor pyiceberg is imported before one of
theirs is asked for. What is staged, and how it becomes a commit, is in `session`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from instep.clock import Window, parse_instant
from instep.engines.defaults import checked_default
from instep.engines.engine import Slice
from instep.engines.schema import Column, sql_type_of
from instep.errors import ConflictError, InvalidError
from instep.history.commits import Commit
from instep.tables import columns as evolution
from instep.tables.arriving import stream_of
from instep.tables.columns import Change
from instep.tables.content import TableContent
from instep.tables.partition import Order, Part
from instep.tables.read import (
    file_set,
)
from instep.tables.rows import (
    ARRIVING,
    Rows,
    append_rows,
    columns_of_rows,
    delete_rows,
    overwrite_rows,
    upsert_rows,
)
from instep.tables.session import Session
from instep.tables.write import check_layout, check_table_name, create_table, evolve, set_layout

if TYPE_CHECKING:
    from instep.tables.catalog import LakeCatalog

RowsLike = Any
"""SQL, or rows as anything that gives Arrow: pyarrow, polars, pandas, a DuckDB relation."""


class TableEdit:
    """An open edit of a branch. Each act is staged at once, and seen by those after it.

    `catalog` is for tools of Iceberg, the other acts need none. `commit` publishes all, or nothing.
    """

    def __init__(self, session: Session) -> None:
        self._edit = session
        self._root = session.repo.root

    @property
    def catalog(self) -> LakeCatalog:
        """pyiceberg's catalog over this edit; its namespace is `default`."""
        from instep.tables.catalog import LakeCatalog

        return LakeCatalog(self._root, self._edit, self._edit.ref)

    @property
    def committed(self) -> Commit | None:
        """What the edit became; None before that, and where nothing was changed."""
        return self._edit.committed

    def commit(self, message: str | None = None) -> Commit | None:
        """Publishes all that was staged as one commit and ends the edit; as `Session.commit`."""
        return self._edit.commit(message)

    def table_names(self) -> tuple[str, ...]:
        """Returns the names of all tables, staged ones included."""
        return self._edit.table_names()

    def find_table(self, name: str) -> TableContent | None:
        """Returns a table as it is now, or None."""
        return self._edit.find_table(name)

    # Rows

    def append(self, table: str, rows: RowsLike) -> None:
        """Adds rows to a table.

        Raises:
            NotFoundError (kind "no-such-table"), and InvalidError as `append_rows`.
        """
        content = self._edit.table(table)
        self._edit.stage(table, append_rows(self._root, content, self._rows(rows), at=self._at()))

    def overwrite(
        self,
        table: str,
        rows: RowsLike,
        where: str | None = None,
        *,
        inside: tuple[str, Any, Any] | None = None,  # a column, and two instants of any form
    ) -> None:
        """Puts rows in the place of those for which `where` is true or that are `inside`, or all.

        `inside` is a slice: (column, start, end), half open. New rows must be where they belong.

        Raises:
            NotFoundError (kind "no-such-table"), and InvalidError as `overwrite_rows`.
        """
        content = self._edit.table(table)
        self._edit.depend_on(table)
        new = self._rows(rows)
        self._edit.stage(
            table, overwrite_rows(self._root, content, new, _part(where, inside), at=self._at())
        )

    def delete(
        self,
        table: str,
        where: str | None = None,
        *,
        inside: tuple[str, Any, Any] | None = None,  # as above
    ) -> None:
        """Deletes the rows for which the SQL condition `where` is true, or that are `inside`.

        Raises:
            NotFoundError (kind "no-such-table"), and InvalidError as `delete_rows`.
        """
        part = _part(where, inside)
        if part is None:
            raise InvalidError(
                f'Rows of "{table}" shall be deleted, but not which: expected where= or inside=. '
                'Give one, or where="true" for all.',
                kind="no-condition",
            )
        content = self._edit.table(table)
        self._edit.depend_on(table)
        self._edit.stage(table, delete_rows(self._root, content, part, at=self._at()))

    def upsert(self, table: str, rows: RowsLike, key: str | Sequence[str] | None = None) -> None:
        """Adds rows; those of the same key give way. The key is that of the contract by default.

        Raises:
            InvalidError (kind "no-key"): none is given, and no contract names one.
            NotFoundError (kind "no-such-table"), and InvalidError as `upsert_rows`.
        """
        content = self._edit.table(table)
        columns = (
            (key,)
            if isinstance(key, str)
            else key or self._edit.rules.key_of(self._edit.base, table)
        )
        if not columns:
            raise InvalidError(
                f'Table "{table}" has no key: expected one in its contract, or key=. '
                "Name the columns of the key.",
                kind="no-key",
                table=table,
            )
        self._edit.depend_on(table)
        new = self._rows(rows)
        self._edit.stage(table, upsert_rows(self._root, content, new, columns, at=self._at()))

    # Tables

    def create(
        self,
        table: str,
        rows: RowsLike = None,
        *,
        columns: Mapping[str, str] | None = None,
        partition: Sequence[str | Part] = (),
        sort: Sequence[str | Order] = (),
    ) -> None:
        """Makes a table with the columns of `rows` and these, or with `columns`: names and types.

        Raises:
            ConflictError (kind "table-exists").
            InvalidError (kinds "bad-name", "no-columns", "repeated-column", "unsupported-type",
                "no-such-column", "bad-transform"), and as `append_rows`.
        """
        check_table_name(table)
        self._refuse_existing(table)
        new = None if rows is None else self._rows(rows)
        found = [_column(name, kind) for name, kind in (columns or {}).items()]
        if new is not None and not found:
            found = list(columns_of_rows(self._root, new).columns)
        if not found:
            raise InvalidError(
                f'Table "{table}" has no columns: expected rows, or columns=. Give one of them.',
                kind="no-columns",
            )
        at = self._at()
        content = create_table(
            self._root,
            table,
            found,
            at=at,
            partition=[Part(one) if isinstance(one, str) else one for one in partition],
            sort=[Order(one) if isinstance(one, str) else one for one in sort],
        )
        if new is not None:
            content = append_rows(self._root, content, new, at=at)
        self._edit.stage(table, content)

    def drop(self, table: str) -> None:
        """Removes a table; earlier commits have it still.

        Raises:
            NotFoundError (kind "no-such-table").
        """
        self._edit.table(table)
        self._edit.stage(table, None)

    def rename(self, table: str, name: str) -> None:
        """Gives a table another name; it stays the same table.

        Raises:
            NotFoundError (kind "no-such-table"), ConflictError (kind "table-exists"),
            InvalidError (kind "bad-name").
        """
        content = self._edit.table(table)
        check_table_name(name)
        self._refuse_existing(name)
        self._edit.stage(name, content)
        self._edit.stage(table, None)

    def set_layout(
        self,
        table: str,
        *,
        partition: Sequence[str | Part] = (),
        sort: Sequence[str | Order] = (),
    ) -> None:
        """Sets how files are partitioned and sorted from now on; old files stay.

        Raises:
            NotFoundError (kind "no-such-table"), InvalidError (kind "no-such-column",
            "bad-transform").
        """
        parts = [Part(one) if isinstance(one, str) else one for one in partition]
        orders = [Order(one) if isinstance(one, str) else one for one in sort]
        content = self._edit.table(table)
        self._edit.stage(table, set_layout(self._root, content, parts, orders, at=self._at()))

    # Columns; a field within another is named by its path, such as "address.city"

    def add_column(
        self,
        table: str,
        column: str,
        kind: str,
        *,
        after: str | None = None,
        default: str | None = None,
        doc: str = "",
    ) -> None:
        """Adds a column, which is null, or `default`, in the rows that are there.

        `kind` is a type of Iceberg's, or DuckDB's for nested ones. `after=""` puts it first.
        Later rows have the default, too, where they leave the column out.

        Raises:
            NotFoundError (kind "no-such-table"), and InvalidError as `columns.added` and
                `checked_default`.
        """
        parent, _, name = column.rpartition(".")
        made = replace(_column(name, kind), doc=doc)
        if default is not None:
            value = checked_default(made, default)
            made = replace(made, initial_default=value, write_default=value)
        self._evolve(
            table,
            lambda schema, ids: evolution.added(schema, ids, made, parent=parent, after=after),
        )

    def drop_column(self, table: str, column: str) -> None:
        """Removes a column; as `columns.dropped`."""
        self._evolve(table, lambda schema, _: evolution.dropped(schema, column))

    def rename_column(self, table: str, column: str, name: str) -> None:
        """Gives a column another name; as `columns.renamed`."""
        self._evolve(table, lambda schema, _: evolution.renamed(schema, column, name))

    def move_column(self, table: str, column: str, *, after: str) -> None:
        """Puts a column behind another, or first for ""; as `columns.moved`."""
        self._evolve(table, lambda schema, _: evolution.moved(schema, column, after=after))

    def promote_column(self, table: str, column: str, kind: str) -> None:
        """Gives a column a wider type; as `columns.promoted`."""
        self._evolve(table, lambda schema, _: evolution.promoted(schema, column, kind))

    def _evolve(self, table: str, change: Change) -> None:
        content = evolve(self._root, self._edit.table(table), change, at=self._at())
        check_layout(self._root, content)
        self._edit.stage(table, content)

    def _refuse_existing(self, name: str) -> None:
        if self.find_table(name) is not None:
            raise ConflictError(
                f'Table "{name}" is on "{self._edit.ref}" already: expected a new name. '
                "Choose another, or drop the table before.",
                kind="table-exists",
                table=name,
            )

    def _rows(self, rows: RowsLike) -> Rows:
        if isinstance(rows, str):
            return self._selected(rows)
        return Rows(f"SELECT * FROM {ARRIVING}", stream=stream_of(rows))

    def _selected(self, select: str) -> Rows:
        """Returns what a SELECT gives; the tables of this edit that it names can be read."""
        import duckdb

        from instep.engines.duckdb_errors import no_such_table

        tables = self.table_names()
        with duckdb.connect() as connection:
            try:
                named = connection.get_table_names(select)
            except duckdb.Error:
                # It looks up columns, and knows none: then every table whose name stands there.
                named = set(re.findall(r"\w+", select.lower())).intersection(tables)
        named = {name.lower() for name in named}
        unknown = sorted(name for name in named if name.isidentifier() and name not in tables)
        if unknown:
            raise no_such_table("The SQL", unknown[0], tables)
        known = {name: self.find_table(name) for name in named}
        for name in known:
            self._edit.depend_on(name)
        return Rows(
            select,
            tuple(file_set(self._root, found, name) for name, found in known.items() if found),
        )

    def _at(self) -> datetime:
        return self._edit.repo.clock()

    def __repr__(self) -> str:
        return repr(self._edit)


def _column(name: str, kind: str) -> Column:
    from instep.engines.types import iceberg_column

    try:
        sql_type_of(kind)
        return Column(0, name, kind)
    except InvalidError:
        return iceberg_column(kind, name)


def _part(where: str | None, part: tuple[str, Any, Any] | None) -> str | Slice | None:
    if where is not None and part is not None:
        raise InvalidError(
            "Both where= and inside= say which rows: expected one of them. Leave one out.",
            kind="no-condition",
        )
    if part is None:
        return where
    column, start, end = part
    return Slice(column, Window(parse_instant(start), parse_instant(end)))
