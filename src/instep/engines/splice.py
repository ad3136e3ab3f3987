"""Writes a Parquet file anew with some of its columns from another, all others as they are.

A Parquet file keeps each column of a row group as bytes of its own. Where few columns of a file
change, copying the bytes of the others costs a small part of decoding and encoding them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from instep.engines.parquet_bytes import MAGIC, Struct, pieces, read_footer, write_footer

_WRITER = b"DuckDB"
"""Only its files are taken apart: of others it is not known where all that belongs to a column is.
"""

_MOST_CHUNKS = 5_000
"""Footers with more columns times row groups are not read here: that takes some 0.2 ms for each."""

# Fields of FileMetaData, SchemaElement, RowGroup, ColumnChunk and ColumnMetaData, by their numbers.
_SCHEMA, _GROUPS, _CREATED_BY = 2, 4, 6
_REPETITION, _NAME, _CHILDREN, _FIELD_ID = 3, 4, 5, 9
_REPEATED = 2
_CHUNKS, _BYTES, _ROWS, _SORTED_BY, _START, _SIZE_OF_ALL = 1, 2, 3, 4, 5, 6
_OFFSET, _COLUMN, _PAGE_INDEXES = 2, 3, (4, 5, 6, 7)
_PLAIN_SIZE, _SIZE, _DATA_PAGE, _INDEX_PAGE, _DICTIONARY_PAGE = 6, 7, 9, 10, 11
_BLOOM_START, _BLOOM_SIZE = 14, 15

_Chain = tuple[Struct, ...]
"""What a schema says of a column that has pages, below what it says of those that it is within."""


@dataclass(frozen=True, slots=True)
class TakenApart:
    """A file whose columns can be put together with those of another.

    All of its row groups but the last have `row_group_rows` rows.
    """

    path: Path
    row_group_rows: int
    field_ids: frozenset[int]
    columns: frozenset[tuple[str, int]]
    """The name and field id of each column, those within others left out."""
    _footer: Struct

    @classmethod
    def of(cls, path: Path) -> TakenApart | None:
        """Returns the file at `path`; None if it cannot be taken apart."""
        footer = read_footer(path)
        if not _value(footer, _CREATED_BY, b"").startswith(_WRITER):
            return None
        rows = [_value(one, _ROWS) for one in _groups(footer)]
        if not rows or max(rows) != rows[0] or not set(rows[:-1]) <= {rows[0]}:
            return None
        leaves = _leaves(footer)
        if len(rows) * len(leaves) > _MOST_CHUNKS:
            return None
        elements = _value(footer, _SCHEMA)[1]
        return cls(
            path,
            rows[0],
            frozenset(_value(one, _FIELD_ID) for one in elements if _FIELD_ID in one),
            frozenset(
                (_value(one[0], _NAME).decode(), _value(one[0], _FIELD_ID)) for one in leaves
            ),
            footer,
        )


def spliced(base: TakenApart, columns: Path, target: Path, most_bytes: int) -> bool:
    """Writes `target`: the rows of `base`, with the columns that `columns` has from there.

    Both hold the same rows in the same order. Returns False, and writes nothing, where `base` has
    not all of these columns in the same types, its row groups have other rows, or the columns in
    both together take more than `most_bytes`. `base` is used up.
    """
    footer, other = base._footer, read_footer(columns)
    groups, new_groups = _groups(footer), _groups(other)
    if [_value(one, _ROWS) for one in groups] != [_value(one, _ROWS) for one in new_groups]:
        return False
    leaves, given = _leaves(footer), _leaves(other)
    places = _places(leaves, given)
    if len(given) != sum(place is not None for place in places):
        return False
    for leaf, place in zip(leaves, places, strict=True):
        for element, new_element in zip(
            leaf, given[place] if place is not None else (), strict=False
        ):
            element[_REPETITION] = new_element[_REPETITION]
    for group, new in zip(groups, new_groups, strict=True):
        chunks = [
            chunk if place is None else _chunks(new)[place]
            for chunk, place in zip(_chunks(group), places, strict=True)
        ]
        kind, (of, _) = group[_CHUNKS]
        group[_CHUNKS] = (kind, (of, chunks))
    if sum(_value(_value(one, _COLUMN), _SIZE) for g in groups for one in _chunks(g)) > most_bytes:
        return False
    with base.path.open("rb") as file, columns.open("rb") as new_file, target.open("wb") as out:
        sources = [file if place is None else new_file for place in places]
        out.write(MAGIC)
        for group in groups:
            for chunk, source in zip(_chunks(group), sources, strict=True):
                _copy_pages(out, source, chunk)
            _sum_up(group)
        for group in groups:
            for chunk, source in zip(_chunks(group), sources, strict=True):
                _copy_bloom_filter(out, source, chunk)
        write_footer(out, footer)
    return True


def _places(leaves: Collection[_Chain], given: Collection[_Chain]) -> list[int | None]:
    """Returns, for each of `leaves`, which of `given` is the same column, but for being required.

    DuckDB says that a column is required where it knows that no value of it is null.
    """
    by_name: dict[tuple[bytes, ...], tuple[int, _Chain]] = {
        _names(one): (place, one) for place, one in enumerate(given)
    }
    found: list[int | None] = []
    for leaf in leaves:
        place, one = by_name.get(_names(leaf), (None, ()))
        is_same = [_but_required(each) for each in leaf] == [_but_required(each) for each in one]
        found.append(place if is_same else None)
    return found


def _names(chain: _Chain) -> tuple[bytes, ...]:
    return tuple(_value(one, _NAME) for one in chain)


def _but_required(element: Struct) -> Struct:
    kind, value = element[_REPETITION]
    return {**element, _REPETITION: (kind, value == _REPEATED)}


def _leaves(footer: Struct) -> list[_Chain]:
    """Returns the columns that have pages, in the order of the chunks of a row group."""
    elements = iter(_value(footer, _SCHEMA)[1])

    def within(chain: _Chain, count: int) -> list[_Chain]:
        return [leaf for _ in range(count) for leaf in below((*chain, next(elements)))]

    def below(chain: _Chain) -> list[_Chain]:
        count = _value(chain[-1], _CHILDREN, 0)
        return within(chain, count) if count else [chain]

    return within((), _value(next(elements), _CHILDREN, 0))


def _groups(footer: Struct) -> list[Struct]:
    found: list[Struct] = _value(footer, _GROUPS)[1]
    return found


def _chunks(group: Struct) -> list[Struct]:
    found: list[Struct] = _value(group, _CHUNKS)[1]
    return found


def _copy_pages(out: BinaryIO, source: BinaryIO, chunk: Struct) -> None:
    """Copies the pages of one column of a row group, and says where they are now."""
    column = _value(chunk, _COLUMN)
    start = _start(column)
    moved = out.tell() - start
    for piece in pieces(source, start, _value(column, _SIZE)):
        out.write(piece)
    for field in (_DATA_PAGE, _INDEX_PAGE, _DICTIONARY_PAGE):
        if place := _value(column, field, 0):
            _set(column, field, place + moved)
    _set(chunk, _OFFSET, 0)  # as the format wants it now
    for field in _PAGE_INDEXES:
        chunk.pop(field, None)  # what they say of places is true no more, and they may be left out


def _copy_bloom_filter(out: BinaryIO, source: BinaryIO, chunk: Struct) -> None:
    column = _value(chunk, _COLUMN)
    start, size = column.pop(_BLOOM_START, None), column.get(_BLOOM_SIZE)
    if start is None or size is None:
        return
    column[_BLOOM_START] = (start[0], out.tell())
    for piece in pieces(source, start[1], size[1]):
        out.write(piece)


def _sum_up(group: Struct) -> None:
    """Makes a row group say of its chunks what is true of them now."""
    columns = [_value(chunk, _COLUMN) for chunk in _chunks(group)]
    group.pop(_SORTED_BY, None)
    _set(group, _BYTES, sum(_value(column, _PLAIN_SIZE) for column in columns))
    if _START in group:
        _set(group, _START, _start(columns[0]))
    if _SIZE_OF_ALL in group:
        _set(group, _SIZE_OF_ALL, sum(_value(column, _SIZE) for column in columns))


def _start(column: Struct) -> int:
    """Where the pages of a chunk begin; 0 is how some say that there is no dictionary."""
    return int(_value(column, _DICTIONARY_PAGE, 0) or _value(column, _DATA_PAGE))


def _value(struct: Struct, field: int, default: Any = None) -> Any:  # of any Thrift type
    return struct[field][1] if field in struct else default


def _set(struct: Struct, field: int, value: Any) -> None:  # as above
    struct[field] = (struct[field][0], value)
