"""Which columns get a type that Iceberg cannot promote to, and what writing rows anew would lose.

Such a column becomes another one of its name, with a field id of its own: rows of now are written
anew under it, and older states keep the one they have. A type is given to rows only where it is
certain what each value becomes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from instep.engines.schema import Column, Schema, quoted, sql_type_of
from instep.tables.columns import is_promotion
from instep.tables.content import TableContent
from instep.tables.read import file_set, layout_of, schema_of
from instep.tables.write import data_folder, replace

_WHOLE = ("int", "long")
_NUMBERS = ("float", "double", "decimal")

_ROWS = "rows_before"


@dataclass(frozen=True, slots=True)
class Retyped:
    """A column of a table as it is, and as it shall be."""

    before: Column
    after: Column

    @property
    def has_certain_values(self) -> bool:
        """Whether it is known what each value becomes: what a file would have brought for it.

        Not so for the text of a fraction, a time or a truth value, which files write in many ways.
        """
        old, new = self.before.type, self.after.type
        if old in _WHOLE:
            return new == "string" or new.partition("(")[0] in _NUMBERS
        return old == "date" and new in ("string", "timestamp", "timestamptz")

    @property
    def value(self) -> str:
        """SQL of the new value, null where there is none."""
        return f"TRY_CAST({quoted(self.before.name)} AS {sql_type_of(self.after.type)})"

    @property
    def is_lost(self) -> str:
        """A SQL condition: the value there would not come back from the new one as it was."""
        back = f"TRY_CAST({self.value} AS {sql_type_of(self.before.type)})"
        return f"{back} IS DISTINCT FROM {quoted(self.before.name)}"


def retyped_columns(schema: Schema, columns: Sequence[Column]) -> tuple[Retyped, ...]:
    """Returns the columns of a table that cannot be read as those of their name in `columns`."""
    known = {column.name.lower(): column for column in schema.columns}
    pairs = ((known.get(column.name.lower()), column) for column in columns)
    return tuple(Retyped(old, new) for old, new in pairs if old and not _is_readable(old, new))


def lost_values(root: Path, content: TableContent, column: Retyped) -> tuple[int, str]:
    """Returns how many values would not survive, and the smallest of them as text."""
    from instep.engines.duckdb import DuckDB

    with DuckDB(root / "staging") as engine:
        engine.view(file_set(root, content, _ROWS))
        ((count, first),) = engine.rows(
            f"SELECT count(*), min({quoted(column.before.name)})::VARCHAR FROM {_ROWS} "
            f"WHERE {column.is_lost}"
        )
    return int(count), str(first)


def with_rows_of(
    root: Path,
    content: TableContent,
    before: TableContent,
    retyped: Sequence[Retyped],
    *,
    at: datetime,
) -> TableContent:
    """Returns `content`, which is `before` with other columns, with its rows written for these.

    Raises:
        InternalError (kind "damaged-object"): a file has other bytes than were written.
    """
    from instep.engines.duckdb import DuckDB

    old = file_set(root, before, _ROWS)
    schema = schema_of(root, content)
    values = {one.before.name.lower(): one.value for one in retyped}
    there = {column.name.lower(): quoted(column.name) for column in old.schema.columns}
    selected = ", ".join(
        f"{values.get(column.name.lower(), there[column.name.lower()])} AS {quoted(column.name)}"
        for column in schema.columns
        if column.name.lower() in there
    )
    with DuckDB(root / "staging") as engine:
        engine.check_bytes(old)
        engine.view(old)
        written = engine.write(
            f"SELECT {selected} FROM {_ROWS}",
            schema,
            data_folder(root, content),
            layout=layout_of(root, content),
        )
    return replace(root, content, written, old.files, at=at)


def _is_readable(old: Column, new: Column) -> bool:
    known = {child.name.lower(): child for child in old.children}
    return is_promotion(old.type, new.type) and all(
        _is_readable(known[child.name.lower()], child)
        for child in new.children
        if child.name.lower() in known
    )
