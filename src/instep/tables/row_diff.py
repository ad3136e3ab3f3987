"""Answers which rows differ: as exact counts, as a sample, and as a table that streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instep.canonical import Json
from instep.engines.schema import quoted
from instep.tables.apart import Compared

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from instep.engines.duckdb import DuckDB

ROWS_PER_BATCH = 100_000
"""Rows held at once while the table of differing rows is written."""


Rest = Callable[[], tuple[Sequence[str], Sequence[Compared]]]


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
class RepeatedKey:
    """A key that stands more than once on a side, among the rows that were read."""

    key: tuple[str | None, ...]
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class RowDiff:
    """Exact counts; `key` is empty when rows were compared as a multiset.

    In a multiset nothing is `changed`: a changed row counts as one removed and one added.
    `changed_cells` counts the changed rows by column; `repeated` shows the first of
    `repeated_keys` keys that do not tell rows apart.
    """

    key: tuple[str, ...]
    added: int
    removed: int
    changed: int
    sample: tuple[RowSample, ...]
    changed_cells: tuple[tuple[str, int], ...] = ()
    repeated_keys: int = 0
    repeated: tuple[RepeatedKey, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.removed or self.changed)

    def to_json(self) -> dict[str, Json]:
        return {
            "key": list(self.key),
            "added": self.added,
            "removed": self.removed,
            "changed": self.changed,
            "changed_cells": dict(self.changed_cells),
            "repeated_keys": self.repeated_keys,
            "repeated": [
                {"key": list(one.key), "before": one.before, "after": one.after}
                for one in self.repeated
            ],
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


class RowsApart:
    """The rows that differ, held by an engine while the diff is open; None: no row does.

    `names` are those of the columns, keys first. Where columns were left out, as they differ in no
    row, `rest` brings them: it finds the rows again, and returns the names and columns of all.
    """

    def __init__(
        self,
        engine: DuckDB | None,
        names: Sequence[str],
        columns: Sequence[Compared],
        rest: Rest | None = None,
    ) -> None:
        self._engine = engine
        self._rest = rest
        self._hold(names, columns)

    def _hold(self, names: Sequence[str], columns: Sequence[Compared]) -> None:
        self._names = tuple(names)
        self._columns = tuple(columns)
        self._keys = sum(column.is_key for column in columns)

    def summary(self, sampled: int) -> RowDiff:
        """Returns the counts, and up to `sampled` rows of each kind and repeated keys."""
        key = self._names[: self._keys]
        if self._engine is None:
            return RowDiff(key, 0, 0, 0, ())
        added, removed, changed, repeated, *cells = self._counts()
        return RowDiff(
            key=key,
            added=added,
            removed=removed,
            changed=changed,
            sample=tuple(
                row
                for kind, rows in (
                    (RowChange.REMOVED, removed),
                    (RowChange.ADDED, added),
                    (RowChange.CHANGED, changed),
                )
                for row in (self._sample(kind, sampled) if rows else ())
            ),
            changed_cells=tuple(
                (name, count) for name, count in zip(self._names, cells, strict=True) if count
            ),
            repeated_keys=repeated,
            repeated=self._repeated(sampled) if repeated else (),
        )

    def table(self) -> duckdb.DuckDBPyRelation:
        """Returns the rows lazily: `change`, the keys, then before and after of each column.

        Without a key each row has its columns only once. Rows come in no promised order.
        """
        if self._rest is not None:
            self._hold(*self._rest())
            self._rest = None
        names = iter(_unique(self._table_names()))
        selected = [f"change AS {quoted(next(names))}"]
        for n, column in enumerate(self._columns):
            if column.is_key or not self._keys:
                selected.append(f"{self._either(n)} AS {quoted(next(names))}")
            else:
                selected += [f"{side}{n} AS {quoted(next(names))}" for side in "on"]
        if self._engine is not None:
            return self._engine.sql(f"SELECT {', '.join(selected)} FROM apart")
        import duckdb

        nothing = ", ".join(
            f"NULL::{column.sql_type} AS {side}{n}"
            for n, column in enumerate(self._columns)
            for side in "on"
        )
        return duckdb.connect().sql(
            f"SELECT {', '.join(selected)} FROM (SELECT '' AS change, {nothing}) WHERE false"
        )

    def batches(self) -> pa.RecordBatchReader:
        """Returns the rows of `table` as Arrow batches, of which few are held at once."""
        reader: pa.RecordBatchReader = self.table().to_arrow_reader(ROWS_PER_BATCH)
        return reader

    def write(self, path: Path) -> int:
        """Writes the rows of `table` as a Parquet file, whole or not at all; returns how many."""
        import pyarrow.parquet as pq

        rows = 0
        draft = path.with_name(f".{path.name}.draft")
        try:
            reader = self.batches()
            with pq.ParquetWriter(draft, reader.schema, compression="zstd") as writer:
                for batch in reader:
                    writer.write_batch(batch)
                    rows += batch.num_rows
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        return rows

    def _table_names(self) -> list[str]:
        names = ["change", *self._names[: self._keys]]
        for name in self._names[self._keys :]:
            names += [f"before.{name}", f"after.{name}"] if self._keys else [name]
        return names

    def _either(self, n: int) -> str:
        return f"CASE WHEN change = 'removed' THEN o{n} ELSE n{n} END"

    def _rows(self, text: str) -> list[tuple[Any, ...]]:  # values of any SQL type
        assert self._engine is not None
        return self._engine.run(text)

    def _sample(self, kind: RowChange, sampled: int) -> list[RowSample]:
        side = "o" if kind is RowChange.REMOVED else "n"
        # By the key first, then by all values: a key that stands more than once orders too little.
        keys = [f"{side}{n}" for n in range(self._keys)]
        values = [f"{one}{n}" for n in range(len(self._columns)) for one in "on"]
        texts = ", ".join(f"o{n}::VARCHAR, n{n}::VARCHAR" for n in range(len(self._columns)))
        found = self._rows(
            f"SELECT [{texts}], [{', '.join(self._differs())}] FROM apart "
            f"WHERE change = '{kind.value}' ORDER BY {', '.join([*keys, *values])} "
            f"LIMIT {sampled}"
        )
        return [self._row(kind, values, differs) for values, differs in found]

    def _row(
        self, kind: RowChange, values: Sequence[str | None], differs: Sequence[bool]
    ) -> RowSample:
        before, after = values[0::2], values[1::2]
        cells = tuple(
            Cell(name, old, new)
            for name, old, new, apart in zip(self._names, before, after, differs, strict=True)
            if apart or kind is not RowChange.CHANGED
        )
        key = before if kind is RowChange.REMOVED else after
        return RowSample(kind, tuple(key[: self._keys]), cells)

    def _counts(self) -> tuple[int, ...]:
        """Returns how many rows of each kind there are, repeated keys, and changes by column."""
        wanted = [
            *(f"count(*) FILTER (change = '{kind}')" for kind in RowChange),
            "(SELECT count(*) FROM repeated)",
            *(f"count(*) FILTER (change = 'changed' AND {one})" for one in self._differs()),
        ]
        (found,) = self._rows(f"SELECT {', '.join(wanted)} FROM apart")
        return found

    def _repeated(self, sampled: int) -> tuple[RepeatedKey, ...]:
        keys = [f"k{n}" for n in range(self._keys)]
        found = self._rows(
            f"SELECT [{', '.join(f'{key}::VARCHAR' for key in keys)}], before, after "
            f"FROM repeated ORDER BY {', '.join(keys)} LIMIT {sampled}"
        )
        return tuple(RepeatedKey(tuple(key), before, after) for key, before, after in found)

    def _differs(self) -> list[str]:
        return [c.differs(f"o{n}", f"n{n}") for n, c in enumerate(self._columns)]


def _unique(names: Sequence[str]) -> list[str]:
    """Names that differ ignoring case: a later one that meets another gets underscores."""
    found: dict[str, str] = {}
    for name in names:
        while name.lower() in found:
            name += "_"
        found[name.lower()] = name
    return list(found.values())
