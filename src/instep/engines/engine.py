"""What an engine is given and what it gives back. It never touches the catalog."""

from __future__ import annotations

from dataclasses import dataclass

from instep.clock import Window
from instep.engines.schema import Schema


@dataclass(frozen=True, slots=True)
class Slice:
    """An event-time window pushed down to the files: rows with `column` inside `window`."""

    column: str
    window: Window


@dataclass(frozen=True, slots=True)
class FileSet:
    """A table as an engine sees it: absolute Parquet paths, all of `schema`, under one SQL name."""

    name: str
    files: tuple[str, ...]
    schema: Schema
    slice: Slice | None = None


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """Exact statistics of one column in one file; bounds are None where not known."""

    field_id: int
    size_bytes: int
    values: int
    nulls: int
    nans: int
    lower: str | None
    upper: str | None


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """One Parquet file that an engine wrote, durable, with field ids inside."""

    path: str
    rows: int
    size_bytes: int
    digest: str
    columns: tuple[ColumnStatistics, ...]
