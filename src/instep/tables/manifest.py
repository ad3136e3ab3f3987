"""What a manifest holds, column by column, and which manifests a new snapshot merges.

Pure. Entries are kept as columns, not as records: planning filters one column of many files, and a
merge joins lists. Manifests are merged by tiers, so a file is written again at most once a tier
and an append costs what it adds, not what the table holds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from instep.engines.engine import ColumnStatistics, WrittenFile
from instep.engines.schema import Schema

MERGED_MANIFESTS = 8
"""How many manifests of one tier are merged into one of the next: more make the list longer and a
merge dearer, fewer let each entry be written again more often."""

BOUNDED_COLUMNS = 8
"""Of how many time columns a manifest list knows bounds; more would make each append dearer."""

_TIMES = frozenset({"date", "timestamp", "timestamptz"})

Bounds = tuple[str, str] | None
"""The lowest and the highest value of a column as text; None where every value is null."""

Partition = tuple[str | None, ...]
"""The values of a file's partition fields as text, in the order of its spec."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What the files of a manifest hold in one partition field."""

    contains_null: bool
    contains_nan: bool
    lower: str | None
    upper: str | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """One Iceberg manifest as its manifest list tells of it; `entries` is its JSON copy.

    `head` is the length and the digest of the first line of the copy, which names the digests of
    the rest; `digest` is that of the whole copy. `block` is where the deflated records lie; None
    where the copy does not tell where in them each file's is: another wrote them, or they were
    written again. `bounds` are by field id, for some columns only.
    """

    path: str
    length: int
    path_digest: str
    sequence_number: int
    min_sequence_number: int
    snapshot_id: int
    added: tuple[int, int]
    existing: tuple[int, int]
    deleted: tuple[int, int]
    entries: str
    digest: str
    head: tuple[int, str]
    live_files: int
    block: tuple[int, int] | None = None
    spec_id: int = 0
    holds_deletes: bool = False
    bounds: tuple[tuple[int, Bounds], ...] = ()
    partitions: tuple[Summary, ...] = ()


@dataclass(frozen=True, slots=True)
class Statistics:
    """The statistics of one column, a value for each file; `sizes` is None where there are none.

    Other lists have None also where that alone is not known.
    """

    sizes: list[int | None] = field(default_factory=list)
    values: list[int | None] = field(default_factory=list)
    nulls: list[int | None] = field(default_factory=list)
    nans: list[int | None] = field(default_factory=list)
    lowers: list[str | None] = field(default_factory=list)
    uppers: list[str | None] = field(default_factory=list)

    def of(self, field_id: int, index: int) -> ColumnStatistics | None:
        """Returns those of one file, or None."""
        size, values = self.sizes[index], self.values[index]
        if size is None or values is None:
            return None
        return ColumnStatistics(
            field_id,
            size,
            values,
            self.nulls[index],
            self.nans[index],
            self.lowers[index],
            self.uppers[index],
        )

    def lists(self) -> tuple[list[int | None] | list[str | None], ...]:
        return (self.sizes, self.values, self.nulls, self.nans, self.lowers, self.uppers)


@dataclass(frozen=True, slots=True)
class Applies:
    """What a delete file deletes from: one data file, or any that it names (None).

    `offset` and `length` say where in the file a deletion vector lies.
    """

    data_file: str | None
    offset: int | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Base:
    """What is known of each file besides statistics; `names` are below the data folder.

    `spans` say where each file's record lies in the block of the Avro manifest. `applies` is
    filled for delete files only.
    """

    names: list[str]
    rows: list[int]
    sizes: list[int]
    snapshots: list[int]
    sequences: list[int]
    partitions: list[Partition]
    applies: list[Applies]
    spans: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Entries:
    """All of a manifest's live files, as columns; `origins` of few, by their place."""

    base: Base
    digests: list[str]
    columns: Mapping[int, Statistics]
    origins: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


def entries_of(
    names: Sequence[str],
    files: Sequence[WrittenFile],
    snapshot_id: int,
    sequence_number: int,
    applies: Sequence[Applies] = (),
) -> Entries:
    """Returns new files as columns."""
    found: dict[int, Statistics] = {}
    for index, file in enumerate(files):
        for one in file.columns:
            lists = found.setdefault(one.field_id, Statistics())
            _fill(lists, index)
            lists.sizes.append(one.size_bytes)
            lists.values.append(one.values)
            lists.nulls.append(one.nulls)
            lists.nans.append(one.nans)
            lists.lowers.append(one.lower)
            lists.uppers.append(one.upper)
    for lists in found.values():
        _fill(lists, len(files))
    base = Base(
        list(names),
        [file.rows for file in files],
        [file.size_bytes for file in files],
        [snapshot_id] * len(files),
        [sequence_number] * len(files),
        [file.partition for file in files],
        list(applies),
        [],
    )
    origins = {index: file.origins for index, file in enumerate(files) if file.origins}
    return Entries(base, [file.digest for file in files], found, origins)


def joined(parts: Sequence[Entries]) -> Entries:
    """Returns the files of several manifests as those of one; it has no block yet."""
    if len(parts) == 1:
        return parts[0]
    bases = [part.base for part in parts]
    ids = sorted({field_id for part in parts for field_id in part.columns})
    columns = {}
    for field_id in ids:
        lists = Statistics()
        filled = 0
        for part in parts:
            found = part.columns.get(field_id)
            if found is not None:
                _fill(lists, filled)
                for whole, more in zip(lists.lists(), found.lists(), strict=True):
                    whole.extend(more)  # type: ignore[arg-type]  # both lists are of one kind
            filled += len(part.digests)
        _fill(lists, filled)
        columns[field_id] = lists
    base = Base(
        list(chain.from_iterable(one.names for one in bases)),
        list(chain.from_iterable(one.rows for one in bases)),
        list(chain.from_iterable(one.sizes for one in bases)),
        list(chain.from_iterable(one.snapshots for one in bases)),
        list(chain.from_iterable(one.sequences for one in bases)),
        list(chain.from_iterable(one.partitions for one in bases)),
        list(chain.from_iterable(one.applies for one in bases)),
        [],
    )
    origins: dict[int, tuple[str, ...]] = {}
    filled = 0
    for part in parts:
        origins |= {filled + index: found for index, found in part.origins.items()}
        filled += len(part.digests)
    digests = list(chain.from_iterable(part.digests for part in parts))
    return Entries(base, digests, columns, origins)


def chosen(entries: Entries, indexes: Sequence[int]) -> Entries:
    """Returns some of the files."""
    if len(indexes) == len(entries.digests):
        return entries
    base = entries.base
    columns = {
        field_id: Statistics(
            [lists.sizes[i] for i in indexes],
            [lists.values[i] for i in indexes],
            [lists.nulls[i] for i in indexes],
            [lists.nans[i] for i in indexes],
            [lists.lowers[i] for i in indexes],
            [lists.uppers[i] for i in indexes],
        )
        for field_id, lists in entries.columns.items()
    }
    kept = Base(
        [base.names[i] for i in indexes],
        [base.rows[i] for i in indexes],
        [base.sizes[i] for i in indexes],
        [base.snapshots[i] for i in indexes],
        [base.sequences[i] for i in indexes],
        [base.partitions[i] for i in indexes],
        [base.applies[i] for i in indexes] if base.applies else [],
        [base.spans[i] for i in indexes] if base.spans else [],
    )
    origins = {place: entries.origins[i] for place, i in enumerate(indexes) if i in entries.origins}
    return Entries(kept, [entries.digests[i] for i in indexes], columns, origins)


def time_bounds(entries: Entries, schema: Schema) -> tuple[tuple[int, Bounds], ...]:
    """Returns the bounds of the first time columns, those left out of which a file has none.

    Texts of one time type sort as their values do. A file without statistics was written before
    the column was there: it is all null, or holds the initial default, which is no bound here.
    """
    times = [column for column in schema.columns if column.type in _TIMES][:BOUNDED_COLUMNS]
    found: list[tuple[int, Bounds]] = []
    for column in times:
        field_id, lists = column.id, entries.columns.get(column.id)
        if column.initial_default is not None and (lists is None or None in lists.sizes):
            continue
        if lists is None:
            found.append((field_id, None))
            continue
        lowers = [one for one in lists.lowers if one is not None]
        uppers = [one for one in lists.uppers if one is not None]
        valueless = sum(
            1
            for size, nulls, rows in zip(lists.sizes, lists.nulls, entries.base.rows, strict=True)
            if size is None or nulls == rows
        )
        if len(lowers) + valueless < len(entries.digests) or len(uppers) != len(lowers):
            continue
        found.append((field_id, (min(lowers), max(uppers)) if lowers else None))
    return tuple(found)


def groups_to_write(
    sizes: Sequence[int], kinds: Sequence[object], unwritten: Collection[int] = ()
) -> list[list[int]]:
    """Returns the manifests of a new snapshot as groups of old ones; one of one stays as it is.

    `sizes` are live files, `kinds` what must not be mixed (partition spec, data or deletes).
    Tier n holds manifests of 8^n to 8^(n+1) - 1 files. One tier that has 8 or more of a kind, the
    fullest, becomes one group; others that are full wait for the next snapshot, so that no append
    pays for several. The `unwritten`, which are to be written anyway, come into the group of their
    kind: one manifest is written, not two.
    """
    tiers: dict[tuple[int, object], list[int]] = {}
    for index, files in enumerate(sizes):
        tiers.setdefault((_tier(files), kinds[index]), []).append(index)
    (_, kind), fullest = max(tiers.items(), key=lambda one: len(one[1]), default=((0, None), []))
    if len(fullest) < MERGED_MANIFESTS:
        return [[index] for index in range(len(sizes))]
    merged = {*fullest, *(index for index in unwritten if kinds[index] == kind)}
    left = [[index] for index in range(len(sizes)) if index not in merged]
    return sorted([sorted(merged), *left])


def _tier(files: int) -> int:
    tier = 0
    while files >= MERGED_MANIFESTS:
        files //= MERGED_MANIFESTS
        tier += 1
    return tier


def _fill(lists: Statistics, length: int) -> None:
    """Says that files up to `length` have no statistics of the column."""
    missing = length - len(lists.sizes)
    if missing:
        for one in lists.lists():
            one.extend([None] * missing)
