"""What an engine is given and what it gives back. It never touches the catalog."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

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
    deletes: Mapping[str, tuple[DeleteFile, ...]] = field(default_factory=dict)
    """The delete files that apply, by the path of the data file."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """The SHA-256 of each data file by its path; of one without, nobody checks the bytes."""

    def only(self, paths: Iterable[str], name: str = "") -> FileSet:
        """Returns this set with only those of its files, perhaps under another name."""
        kept = set(paths)
        return replace(
            self,
            name=name or self.name,
            files=tuple(path for path in self.files if path in kept),
            deletes={path: found for path, found in self.deletes.items() if path in kept},
        )

    def apart_from(self, other: FileSet) -> FileSet:
        """Returns this set without the files that `other` has too, with the same deletes."""
        other_files = set(other.files)
        return self.only(
            path
            for path in self.files
            if not (path in other_files and self._deleted(path) == other._deleted(path))
        )

    def _deleted(self, path: str) -> frozenset[DeleteFile]:
        return frozenset(self.deletes.get(path, ()))


@dataclass(frozen=True, slots=True)
class DeleteFile:
    """A file that says which rows of data files are deleted, by their position.

    A Parquet file of (`file_path`, `pos`), or with `offset` and `length` a deletion vector there.
    `data_file` is the only data file it applies to, None where it names them itself.
    """

    path: str
    rows: int
    size_bytes: int
    digest: str
    data_file: str | None
    offset: int | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """Exact statistics of one column in one file; `nulls`, `nans`, bounds are None if not known."""

    field_id: int
    size_bytes: int
    values: int
    nulls: int | None
    nans: int | None
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
    partition: tuple[str | None, ...] = ()
    """The values of the table's partition fields as text; empty where it has none."""
    origins: tuple[str, ...] = ()
    """The digests of the files whose rows it holds, where it was made of them by a compaction."""

    @property
    def counts_as(self) -> tuple[str, ...]:
        """The digests that tell its rows: those of its origins, or its own."""
        return self.origins or (self.digest,)
