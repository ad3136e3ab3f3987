"""An edit of tables: any number of changes to any number of tables, and then one commit or nothing.

While it is open, the tables are those of one commit with what was staged on top, and nothing that
it writes can be collected. What is never committed is garbage and harms nobody. Where a branch
moved meanwhile, an append is made again on the newest state if the rules allow it; of anything else
that moved, the commit says who moved it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instep.clock import Window, parse_instant
from instep.engines.engine import Slice
from instep.engines.schema import Column, sql_type_of
from instep.errors import ConflictError, InvalidError, NotFoundError, RefusedError
from instep.history.commits import Commit
from instep.history.edits import Edit, commit_edit
from instep.history.locks import writing
from instep.history.refs import get_ref, refuse_protected
from instep.history.repository import Repository
from instep.tables import columns as evolution
from instep.tables.columns import Change
from instep.tables.content import TableContent
from instep.tables.partition import Order, Part
from instep.tables.read import (
    DataFile,
    data_files,
    file_set,
    layout_of,
    load_metadata,
    row_count,
    schema_of,
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
from instep.tables.write import append, check_table_name, create_table, evolve, set_layout

if TYPE_CHECKING:
    from instep.tables.catalog import LakeCatalog

ATTEMPTS = 20
"""How often a commit is tried while others move the branch; then the conflict is told."""

_PREFIX = "table/"

RowsLike = Any
"""SQL, or rows as anything that gives Arrow: pyarrow, polars, pandas, a DuckDB relation."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the contracts of a commit say, as functions of a commit and a table's name.

    `key_of` gives the columns of its key. `may_append` says whether the files of an append may be
    added to the state `now` too, which came in between: (commit, name, before, edited, now).
    """

    key_of: Callable[[str, str], tuple[str, ...]]
    may_append: Callable[[str, str, TableContent, TableContent, TableContent], bool]


@dataclass(frozen=True, slots=True)
class Pinned:
    """The tables of one commit, to be read only."""

    repo: Repository
    commit: str

    def table_names(self) -> tuple[str, ...]:
        return _names(self.repo, self.commit)

    def find_table(self, name: str) -> TableContent | None:
        return _find(self.repo, self.commit, name)

    def stage(self, name: str, content: TableContent | None) -> None:
        raise RefusedError(
            f"Table {name} is read at commit {self.commit[:12]}, which never changes: expected an "
            'edit of a branch. Write inside "with lake.edit(BRANCH, ...) as edit".',
            kind="commit-is-fixed",
        )


class TableEdit:
    """An open edit of a branch; made by `open_edit`.

    `catalog` is for tools of Iceberg, the other acts need none. Each act is staged at once and is
    seen by those after it. `commit` publishes all of it, or nothing.
    """

    def __init__(
        self, repo: Repository, ref: str, base: str, author: str, message: str, rules: Rules
    ) -> None:
        self.ref = ref
        self.base = base
        self.committed: Commit | None = None
        """What the edit became; None before that, and where nothing was changed."""
        self._repo = repo
        self._author = author
        self._message = message
        self._rules = rules
        self._staged: dict[str, TableContent | None] = {}
        self._read: set[str] = set()
        self.is_open = True

    @property
    def catalog(self) -> LakeCatalog:
        """pyiceberg's catalog over this edit; its namespace is `default`."""
        from instep.tables.catalog import LakeCatalog

        return LakeCatalog(self._repo.root, self, self.ref)

    # What is there

    def table_names(self) -> tuple[str, ...]:
        """Returns the names of all tables, staged ones included."""
        names = set(_names(self._repo, self.base)) | self._staged.keys()
        return tuple(sorted(name for name in names if self._staged.get(name, name) is not None))

    def find_table(self, name: str) -> TableContent | None:
        """Returns a table as it is now, or None."""
        if name in self._staged:
            return self._staged[name]
        self._read.add(name)
        return _find(self._repo, self.base, name)

    def stage(self, name: str, content: TableContent | None) -> None:
        """Sets a table, or removes it.

        Raises:
            RefusedError (kind "edit-closed").
        """
        self._refuse_closed()
        self._staged[name] = content

    # Rows

    def append(self, table: str, rows: RowsLike) -> None:
        """Adds rows to a table.

        Raises:
            NotFoundError (kind "no-such-table"), and InvalidError as `append_rows`.
        """
        content = self._table(table)
        self.stage(table, append_rows(self._root, content, self._rows(rows), at=self._at()))

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
        content = self._table(table)
        new = self._rows(rows)
        self.stage(
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
        self.stage(table, delete_rows(self._root, self._table(table), part, at=self._at()))

    def upsert(self, table: str, rows: RowsLike, key: str | Sequence[str] | None = None) -> None:
        """Adds rows; those of the same key give way. The key is that of the contract by default.

        Raises:
            InvalidError (kind "no-key"): none is given, and no contract names one.
            NotFoundError (kind "no-such-table"), and InvalidError as `upsert_rows`.
        """
        content = self._table(table)
        columns = (key,) if isinstance(key, str) else key or self._rules.key_of(self.base, table)
        if not columns:
            raise InvalidError(
                f'Table "{table}" has no key: expected one in its contract, or key=. '
                "Name the columns of the key.",
                kind="no-key",
                table=table,
            )
        new = self._rows(rows)
        self.stage(table, upsert_rows(self._root, content, new, columns, at=self._at()))

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
        self.stage(table, content)

    def drop(self, table: str) -> None:
        """Removes a table; earlier commits have it still.

        Raises:
            NotFoundError (kind "no-such-table").
        """
        self._table(table)
        self.stage(table, None)

    def rename(self, table: str, name: str) -> None:
        """Gives a table another name; it stays the same table.

        Raises:
            NotFoundError (kind "no-such-table"), ConflictError (kind "table-exists"),
            InvalidError (kind "bad-name").
        """
        content = self._table(table)
        check_table_name(name)
        self._refuse_existing(name)
        self.stage(name, content)
        self.stage(table, None)

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
        content = self._table(table)
        self.stage(table, set_layout(self._root, content, parts, orders, at=self._at()))

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

        Raises:
            NotFoundError (kind "no-such-table"), and InvalidError as `columns.added`.
        """
        parent, _, name = column.rpartition(".")
        made = replace(_column(name, kind), doc=doc, initial_default=default, write_default=default)
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

    # The end

    def commit(self, message: str | None = None) -> Commit | None:
        """Publishes all that was staged as one commit and ends the edit; None without a change.

        Raises:
            RefusedError (kind "protected-branch", "edit-closed").
            ConflictError (kind "keys-moved"): the branch moved, and with it what was read or
                written here.
        """
        self._refuse_closed()
        self.is_open = False
        edit = Edit(
            base=self.base,
            changes=self._changes(),
            author=self._author,
            message=message or self._message,
            origin="edit",
            reads=frozenset(f"{_PREFIX}{name}" for name in self._read),
        )
        if edit.changes:
            self.committed = self._published(edit)
        return self.committed

    def _published(self, edit: Edit) -> Commit:
        for attempt in range(ATTEMPTS):
            try:
                return commit_edit(self._repo, self.ref, edit, token=uuid.uuid4().hex)
            except ConflictError as error:
                if error.kind != "keys-moved" or attempt == ATTEMPTS - 1:
                    raise
                moved = self._on_newest(edit)
                if moved is None:
                    raise
                edit = moved
        raise AssertionError("the last attempt returns or raises")

    def _on_newest(self, edit: Edit) -> Edit | None:
        """Returns the edit on what the branch is now, or None where that would not mean the same.

        What was only read must not have moved; what was appended to may have.
        """
        head = self._repo.resolve(self.ref)
        changes = dict(self._changes())
        for key in edit.reads | edit.changes.keys():
            before, now = self._repo.find(self.base, key), self._repo.find(head, key)
            if before == now:
                continue
            name = key.removeprefix(_PREFIX)
            edited = self._staged.get(name)
            if before is None or now is None or edited is None:
                return None
            content = self._appended(
                head, name, TableContent.from_content(before), edited,
                TableContent.from_content(now),
            )  # fmt: skip
            if content is None:
                return None
            changes[key] = content.to_content()
        return replace(edit, base=head, changes=changes)

    def _appended(
        self,
        head: str,
        name: str,
        before: TableContent,
        edited: TableContent,
        now: TableContent,
    ) -> TableContent | None:
        root = self._root
        files = appended_files(self._repo, before, edited)
        if files is None or not _is_laid_out_alike(self._repo, edited, now):
            return None
        if not self._rules.may_append(head, name, before, edited, now):
            return None
        return append(root, now, files, at=self._at())

    def _changes(self) -> dict[str, Any]:  # contents are JSON objects
        found = {}
        for name, content in self._staged.items():
            if content != _find(self._repo, self.base, name):
                found[f"{_PREFIX}{name}"] = content.to_content() if content else None
        return found

    def _evolve(self, table: str, change: Change) -> None:
        self.stage(table, evolve(self._root, self._table(table), change, at=self._at()))

    def _table(self, name: str) -> TableContent:
        self._refuse_closed()
        content = self.find_table(name)
        if content is None:
            raise NotFoundError(
                f'Table "{name}" is not on "{self.ref}": expected one of '
                f"{', '.join(self.table_names()) or 'none, as there is none'}. Correct the name.",
                kind="no-such-table",
                table=name,
            )
        return content

    def _refuse_existing(self, name: str) -> None:
        if self.find_table(name) is not None:
            raise ConflictError(
                f'Table "{name}" is on "{self.ref}" already: expected a new name. Choose another, '
                "or drop the table before.",
                kind="table-exists",
                table=name,
            )

    def _refuse_closed(self) -> None:
        if not self.is_open:
            raise RefusedError(
                f'The edit of "{self.ref}" has ended: expected an open one. Begin another with '
                '"lake.edit".',
                kind="edit-closed",
            )

    def _rows(self, rows: RowsLike) -> Rows:
        if isinstance(rows, str):
            return self._selected(rows)
        import pyarrow as pa

        try:
            stream = pa.RecordBatchReader.from_stream(rows)
        except TypeError:
            raise InvalidError(
                f"Rows are a {type(rows).__name__}: expected SQL, or what gives Arrow, such as a "
                "pyarrow, polars or pandas table or a DuckDB relation. Convert them.",
                kind="not-rows",
            ) from None
        return Rows(f"SELECT * FROM {ARRIVING}", stream=stream)

    def _selected(self, select: str) -> Rows:
        """Returns what a SELECT gives; the tables of this edit that it names can be read."""
        import duckdb

        with duckdb.connect() as connection:
            try:
                named = connection.get_table_names(select)
            except duckdb.Error:
                named = set()  # the engine says what is wrong
        known = {name: self.find_table(name) for name in named if name in self.table_names()}
        return Rows(
            select,
            tuple(file_set(self._root, found, name) for name, found in known.items() if found),
        )

    def _at(self) -> datetime:
        return self._repo.clock()

    @property
    def _root(self) -> Path:
        return self._repo.root

    def __repr__(self) -> str:
        lines = [f'Edit of "{self.ref}" at {self.base[:12]} by {self._author}']
        for name, content in self._staged.items():
            before = _find(self._repo, self.base, name)
            was = f"{row_count(self._root, before):,}" if before else "none"
            now = f"{row_count(self._root, content):,} rows" if content else "dropped"
            lines.append(f"  {name}: {was} -> {now}")
        if self.committed:
            lines.append(f"committed as {self.committed.id[:12]}")
        return "\n".join(lines)


@contextmanager
def open_edit(
    repo: Repository, ref: str, *, author: str, message: str, rules: Rules
) -> Iterator[TableEdit]:
    """Opens an edit of a branch; what it writes is protected from collection until it ends.

    Raises:
        RefusedError (kind "protected-branch"), NotFoundError (kind "no-such-ref").
    """
    with writing(repo.root, repo.store):
        with repo.store.reading() as tx:
            found = get_ref(tx, ref)
        refuse_protected(found)
        yield TableEdit(repo, ref, found.commit, author, message, rules)


def appended_files(
    repo: Repository, before: TableContent, after: TableContent
) -> tuple[DataFile, ...] | None:
    """Returns the files that were added, or None where anything else differs between two states."""
    if before.uuid != after.uuid or not _is_laid_out_alike(repo, before, after):
        return None
    old = {file.path for file in data_files(repo.root, before)}
    new = data_files(repo.root, after)
    deletes = (file_set(repo.root, one, "t").deletes for one in (before, after))
    if old - {file.path for file in new} or next(deletes) != next(deletes):
        return None
    return tuple(file for file in new if file.path not in old)


def _is_laid_out_alike(repo: Repository, one: TableContent, two: TableContent) -> bool:
    """Whether files written for one state fit the other: uuid, columns, partitions, properties."""
    first, second = load_metadata(repo.root, one), load_metadata(repo.root, two)
    return (
        one.uuid == two.uuid
        and schema_of(repo.root, one) == schema_of(repo.root, two)
        and layout_of(repo.root, one) == layout_of(repo.root, two)
        and first["properties"] == second["properties"]
    )


def _names(repo: Repository, commit: str) -> tuple[str, ...]:
    return tuple(sorted(key.removeprefix(_PREFIX) for key in repo.entries(commit, "table")))


def _find(repo: Repository, commit: str, name: str) -> TableContent | None:
    content = repo.find(commit, f"{_PREFIX}{name}")
    return TableContent.from_content(content) if content else None


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
