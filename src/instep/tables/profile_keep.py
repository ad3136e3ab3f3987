"""Keeps the profiles of data files beside them, and answers what a table or a slice looks like.

Data files never change, so a file is profiled once. Kept are Parquet files with a row for each
column, plain enough for any engine to read:

- `profiles/<digest of the data file>.parquet`: of that file.
- `profiles/<key of a group>.parquet`: merged, of some files that follow each other in the table.

Groups are cut where the digest of their last member says so, not by counting: an append closes at
most one group of each size, and all others stay. So the profile of a table is merged from some
dozens of kept ones, however many files there are. Kept profiles are a cache and part of no commit:
one that is missing, damaged, or of another hash function or form is made again. So is that of a
column whose values became others: of floats as doubles, and of what lies within a nested column.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import replace as changed
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instep.clock import Window
from instep.engines.defaults import default_sql
from instep.engines.engine import FileSet, Slice
from instep.engines.reading import parquet_sql
from instep.engines.schema import Column, Schema, free_name, literal, quoted
from instep.history.objects import write_durably
from instep.history.places import at_hand
from instep.tables.content import TableContent
from instep.tables.profile import ColumnProfile, Part, Sketch, all_null
from instep.tables.profile_compute import part_of_value, parts_of_file, parts_of_relation
from instep.tables.profile_merge import merge_parts
from instep.tables.prune import reaches
from instep.tables.read import DataFile, data_files, file_set, schema_of, table_folder

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB

_FORM = 3
"""The form of kept profiles; those of another are made again."""

_LEAST_IN_GROUP = 4
_MOST_IN_GROUP = 32
_CUT = ("0", "1")
"""A group ends with a member whose key begins so, one in eight: about eleven members."""

_DIGEST_BYTES = 32
_TAIL_BYTES = 8  # of a Parquet file: the length of its footer, and PAR1

Slot = tuple[int, str]
"""The field id of a column, and what its values are told apart by in states of the table."""

Parts = dict[Slot, Part]
"""The profile of each column."""


@dataclass(frozen=True, slots=True)
class Group:
    """Files whose profiles are kept as one; `rows` of all of them, `members` from old to new."""

    key: str
    rows: int
    members: tuple[Group | DataFile, ...]


def profile_table(
    root: Path, content: TableContent, part: Slice | None = None
) -> tuple[ColumnProfile, ...]:
    """Returns the profile of each column of a table, or of a slice of it.

    Reads only files never profiled before, and those of which some rows are deleted or lie
    outside the slice.

    Raises:
        InvalidError (kind "no-such-column", "not-a-time"): of the slice.
    """
    files = data_files(root, content, part, statistics=part is not None)
    every = file_set(root, content, "cut", part)
    column = None if part is None else schema_of(root, content).column(part.column)
    whole = [
        file
        for file in files
        if file.path not in every.deletes
        and (part is None or column is None or _is_inside(file, column, part.window))
    ]
    paths = {file.path for file in whole}
    cut = changed(every, files=tuple(path for path in every.files if path not in paths))
    return _profiled(root, content, whole, cut)


def profile_files(
    root: Path, content: TableContent, files: Sequence[DataFile]
) -> tuple[ColumnProfile, ...]:
    """Returns the merged profile of some of a table's files, in the order of its columns.

    A file that was never profiled is read, and its profile kept.
    """
    return _profiled(root, content, files, None)


def grouped(files: Sequence[DataFile]) -> tuple[Group | DataFile, ...]:
    """Returns the fewest groups and files that stand for `files`, in their order."""
    level: list[Group | DataFile] = list(files)
    tails: list[Group | DataFile] = []
    while True:
        groups, tail = _cut(level)
        tails = [*tail, *tails]
        if not groups:
            return tuple(tails)
        level = groups


def is_profiled(root: Path, content: TableContent, file: DataFile) -> bool:
    """Says whether the profile of a data file is kept by itself."""
    return (table_folder(root, content) / "profiles" / f"{file.digest}.parquet").exists()


def damaged_profiles(folder: Path) -> Iterator[Path]:
    """Yields the kept profiles whose bytes are not those that were written; each can go.

    On S3 these are the bytes there, whatever this machine has a copy of.
    """
    for path in sorted(folder.glob("*")):
        with suppress(FileNotFoundError):
            if path.is_file() and not _is_whole(path.read_bytes()):
                yield path


def _profiled(
    root: Path, content: TableContent, files: Sequence[DataFile], cut: FileSet | None
) -> tuple[ColumnProfile, ...]:
    from instep.engines.duckdb import DuckDB

    schema = schema_of(root, content)
    folder = table_folder(root, content) / "profiles"
    folder.mkdir(exist_ok=True)
    with DuckDB(root / "staging") as engine:
        engine.allow(folder)
        engine.allow(folder.parent / "data")
        cover = grouped(files)
        kept = _Kept(root, content, engine)
        if cut is not None and cut.files:
            engine.view(cut)
        engine.lock()
        found = kept.load(cover)
        parts = [(found[_key(one)], one.rows) for one in cover]
        if cut is not None and cut.files:
            sliced = parts_of_relation(engine.connection, cut.name, schema.columns)
            rows = sliced[0].figures.count
            parts.append((dict(zip(map(_slot, schema.columns), sliced, strict=True)), rows))
        return tuple(kept.merged(parts, column).figures for column in schema.columns)


class _Kept:
    """The profiles of one table that are kept, and the making of those that are not."""

    def __init__(self, root: Path, content: TableContent, engine: DuckDB) -> None:
        self.root = root
        self.content = content
        self.folder = table_folder(root, content) / "profiles"
        self.engine = engine
        self.schema = schema_of(root, content)
        self._mark: int | None = None

    def load(self, members: Sequence[Group | DataFile]) -> dict[str, Parts]:
        """Returns the profile of each of `members` by its key; makes and keeps what is missing."""
        known = [one for one in members if _is_there(self._place(one))]
        found = self._read([self._place(one) for one in known])
        for one in members:
            parts = found.setdefault(_key(one), {})
            missing = self._missing(one, parts)
            if missing:
                parts |= (
                    self._merge(one, missing)
                    if isinstance(one, Group)
                    else self._compute(one, missing)
                )
                self._keep(one, parts)
        return found

    def _missing(self, one: Group | DataFile, parts: Parts) -> tuple[Column, ...]:
        """Returns the columns that its files may hold and for which it was never profiled."""
        return tuple(
            column
            for column in self.schema.columns
            if _slot(column) not in parts
            and any(self._may_hold(file, column) for file in _files_of(one))
        )

    def merged(self, parts: Sequence[tuple[Parts, int]], column: Column) -> Part:
        """Returns the profile of one column in all the rows of `parts`."""
        return merge_parts(
            [part.get(_slot(column)) or self._lacking(column, rows) for part, rows in parts],
            column,
        )

    def _lacking(self, column: Column, rows: int) -> Part:
        """The profile of a column in rows that were written before it was added."""
        if column.initial_default is None or not rows:
            return all_null(column.name, column.type, rows)
        value = default_sql(column, column.initial_default)
        return part_of_value(self.engine.connection, column, value, rows)

    def _merge(self, group: Group, columns: Sequence[Column]) -> Parts:
        found = self.load(group.members)
        parts = [(found[_key(one)], one.rows) for one in group.members]
        return {_slot(column): self.merged(parts, column) for column in columns}

    def _compute(self, file: DataFile, columns: tuple[Column, ...]) -> Parts:
        one = FileSet("f", (file.path,), Schema(columns), digests={file.path: file.digest})
        place = free_name("place", one.schema.names)
        source = self.engine.source(one, row_number=place)
        found = parts_of_file(self.engine.connection, source, quoted(place), file.rows, columns)
        return dict(zip(map(_slot, columns), found, strict=True))

    def _may_hold(self, file: DataFile, column: Column) -> bool:
        """Says whether a file may have a column, by what its statistics are of.

        Those of other writers' files are only of what is not nested. So a nested column may be in a
        file with statistics of nothing within it but fields that were dropped since.
        """
        held = self._held(file)
        if column.is_nested and not held <= self._ids:
            return True
        return any(field.id in held for field in column.fields())

    def _held(self, file: DataFile) -> frozenset[int]:
        """Returns the ids of what a file has statistics of; they are not always at hand."""
        return _ids(file) if file.columns else self._held_by_path[file.path]

    @cached_property
    def _ids(self) -> frozenset[int]:
        return frozenset(field.id for field in self.schema.fields())

    @cached_property
    def _held_by_path(self) -> dict[str, frozenset[int]]:
        return {file.path: _ids(file) for file in data_files(self.root, self.content)}

    def _read(self, paths: Sequence[Path]) -> dict[str, Parts]:
        if not paths:
            return {}
        files = [self.engine.at_hand(str(path)) for path in paths]
        cursor = self.engine.connection.execute(
            # Those of an older form have other columns.
            f"SELECT * FROM {parquet_sql(files, 'filename = true', 'union_by_name = true')} "
            f"WHERE mark = {self.mark}"
        )
        found: dict[str, Parts] = {}
        for key, slot, part in _parts_of(cursor.fetchnumpy()):
            found.setdefault(key, {})[slot] = part
        return found

    def _keep(self, one: Group | DataFile, parts: Parts) -> None:
        temporary = self.engine.own_file("profile.parquet")
        values = _columns_of(parts)
        select = ", ".join(
            f"unnest(?::{kind}[]){cast} AS {quoted(name)}" for name, kind, cast in _FORMED
        )
        self.engine.connection.execute(
            f"COPY (SELECT {select}, {self.mark} AS mark) TO {literal(str(temporary))} "
            "(FORMAT parquet, COMPRESSION zstd)",
            [values[name] for name, _, _ in _FORMED],
        )
        data = temporary.read_bytes()
        cut = _before_footer(data)
        digest = hashlib.sha256(data).digest()
        # Readers of Parquet find the footer from the end and columns from the start.
        write_durably(self._place(one), data[:cut] + digest + data[cut:])

    @property
    def mark(self) -> int:
        """Tells hash functions apart: that of DuckDB may change with a release."""
        if self._mark is None:
            row = self.engine.connection.execute(
                f"SELECT (hash('instep', {_FORM}, 1.5::DOUBLE, DATE '2026-01-01') >> 1)::BIGINT"
            ).fetchone()
            assert row is not None, "a SELECT without FROM gives one row"
            self._mark = int(row[0])
        return self._mark

    def _place(self, one: Group | DataFile) -> Path:
        return self.folder / f"{_key(one)}.parquet"


_FORMED = (
    ("field_id", "INTEGER", ""),
    ("shape", "VARCHAR", ""),
    ("name", "VARCHAR", ""),
    ("type", "VARCHAR", ""),
    ("count", "BIGINT", ""),
    ("nulls", "BIGINT", ""),
    ("minimum", "VARCHAR", ""),
    ("maximum", "VARCHAR", ""),
    ("mean", "DOUBLE", ""),
    ("deviation", "DOUBLE", ""),
    ("distinct", "BIGINT", ""),
    ("distinct_error", "DOUBLE", ""),
    # Long lists go in as text: binding each of their numbers takes ten times as long.
    ("quantiles", "VARCHAR", "::DOUBLE[]"),
    ("quantile_error", "DOUBLE", ""),
    ("frequent_values", "VARCHAR[]", ""),
    ("frequent_counts", "BIGINT[]", ""),
    ("frequent_error", "BIGINT", ""),
    ("frequent_below", "BIGINT", ""),
    ("exact", "VARCHAR[]", ""),
    ("numbers", "BIGINT", ""),
    ("hashes", "VARCHAR", "::BIGINT[]"),
    ("points", "VARCHAR", "::DOUBLE[]"),
)
"""The columns of a kept profile, their types, and what turns a text into one."""


def _columns_of(parts: Parts) -> dict[str, list[Any]]:  # values of the types in _FORMED
    rows: list[dict[str, Any]] = []
    for (field_id, shape), part in parts.items():
        told: dict[str, Any] = part.figures.to_json()
        rows.append(
            told
            | {
                "field_id": field_id,
                "shape": shape,
                "quantiles": str(told["quantiles"]),
                "frequent_values": [text for text, _ in part.figures.frequent],
                "frequent_counts": [count for _, count in part.figures.frequent],
                "numbers": part.sketch.numbers,
                "hashes": str(part.sketch.hashes.tolist()),
                "points": str(part.sketch.points.tolist()),
            }
        )
    return {name: [row[name] for row in rows] for name, _, _ in _FORMED}


def _parts_of(read: Mapping[str, Any]) -> Iterator[tuple[str, Slot, Part]]:  # DuckDB's arrays
    """Yields key, slot and profile of each row of kept profiles."""
    if not len(read["filename"]):
        return  # all may be of an older form, without one of the columns
    plain = {name: read[name].tolist() for name, kind, _ in _FORMED if not kind.endswith("[]")}
    for row, path in enumerate(read["filename"].tolist()):
        one = {name: values[row] for name, values in plain.items()}
        listed = zip(read["frequent_values"][row], read["frequent_counts"][row], strict=True)
        one["frequent"] = [(text, int(count)) for text, count in listed]
        one["exact"] = read["exact"][row].tolist()
        one["quantiles"] = read["quantiles"][row].tolist()
        sketch = Sketch(
            array("q", read["hashes"][row].tobytes()),
            array("d", read["points"][row].tobytes()),
            one["numbers"],
        )
        yield (
            path.rpartition("/")[2].removesuffix(".parquet"),
            (one["field_id"], one["shape"]),
            Part(ColumnProfile.from_json(one), sketch),
        )


def _cut(
    level: Sequence[Group | DataFile],
) -> tuple[list[Group | DataFile], list[Group | DataFile]]:
    """Returns the closed groups of these members, and the members after the last cut."""
    groups: list[Group | DataFile] = []
    open_: list[Group | DataFile] = []
    for one in level:
        open_.append(one)
        ends = len(open_) >= _LEAST_IN_GROUP and _key(one).startswith(_CUT)
        if ends or len(open_) == _MOST_IN_GROUP:
            key = hashlib.sha256("\n".join(_key(member) for member in open_).encode()).hexdigest()
            groups.append(Group(key, sum(member.rows for member in open_), tuple(open_)))
            open_ = []
    return groups, open_


def _files_of(one: Group | DataFile) -> Iterator[DataFile]:
    if isinstance(one, Group):
        for member in one.members:
            yield from _files_of(member)
    else:
        yield one


def _key(one: Group | DataFile) -> str:
    return one.key if isinstance(one, Group) else one.digest


def _slot(column: Column) -> Slot:
    """Returns what the profile of a column is kept under.

    A value of a nested column is another when a field within was added, dropped, moved or promoted;
    names are no part of it. A float has another text as a double. No other type changes a value.
    """
    if column.type in ("float", "double"):
        return column.id, column.type
    within = (one for one in column.fields() if one.id != column.id)
    return column.id, " ".join(f"{one.id} {one.type}" for one in within)


def _ids(file: DataFile) -> frozenset[int]:
    return frozenset(one.field_id for one in file.columns)


def _is_inside(file: DataFile, column: Column, window: Window) -> bool:
    """Whether every row of a file lies in the window."""
    nulls = next((one.nulls for one in file.columns if one.field_id == column.id), None)
    for reach in reaches((file,), column):
        if reach.bounds is not None and nulls == 0:
            return reach.bounds[0] >= window.start and reach.bounds[1] < window.end
    return False


def _is_there(path: Path) -> bool:
    """Whether a kept profile is there with the bytes that were written."""
    try:
        return _is_whole(at_hand(path).read_bytes())
    except FileNotFoundError:
        return False


def _is_whole(data: bytes) -> bool:
    end = _before_footer(data)
    cut = end - _DIGEST_BYTES
    if cut < 0:
        return False
    return hashlib.sha256(data[:cut] + data[end:]).digest() == data[cut:end]


def _before_footer(data: bytes) -> int:
    """Returns where the footer of a Parquet file begins; below 0 where none can be."""
    length = int.from_bytes(data[-_TAIL_BYTES : -_TAIL_BYTES + 4], "little")
    return len(data) - _TAIL_BYTES - length
