"""Writes a Parquet file anew with some of its columns from another, all others as they are.

A Parquet file keeps each column of a row group as bytes of its own. Where few columns of a file
change, copying the bytes of the others costs a small part of decoding and encoding them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

from instep.engines.parquet_bytes import MAGIC, Struct, pieces, read_footer, write_footer

_WRITER = b"DuckDB"
"""Only its files are taken apart: of others it is not known where all that belongs to a column is.
"""

# Fields of FileMetaData, SchemaElement, RowGroup, ColumnChunk and ColumnMetaData, by their numbers.
_SCHEMA, _GROUPS, _CREATED_BY = 2, 4, 6
_NAME, _CHILDREN = 4, 5
_CHUNKS, _BYTES, _ROWS, _SORTED_BY, _START, _SIZE_OF_ALL = 1, 2, 3, 4, 5, 6
_COLUMN, _PAGE_INDEXES = 3, (4, 5, 6, 7)
_PLAIN_SIZE, _SIZE, _DATA_PAGE, _INDEX_PAGE, _DICTIONARY_PAGE = 6, 7, 9, 10, 11
_BLOOM_START, _BLOOM_SIZE = 14, 15

_Chain = tuple[Struct, ...]
"""What a schema says of a column that has pages, below what it says of those that it is within."""


def rows_of_row_groups(base: Path) -> int | None:
    """Returns how many rows each row group of a file has, but the last, which may have less.

    None where they differ, or where the file cannot be taken apart.
    """
    footer = read_footer(base)
    if not _value(footer, _CREATED_BY, b"").startswith(_WRITER):
        return None
    rows: list[int] = [_value(one, _ROWS) for one in _groups(footer)]
    is_even = bool(rows) and max(rows) == rows[0] and set(rows[:-1]) <= {rows[0]}
    return rows[0] if is_even else None


def spliced(base: Path, columns: Path, target: Path) -> bool:
    """Writes `target`: the rows of `base`, with the columns that `columns` has from there.

    `base` is one that can be taken apart, and both hold the same rows in the same order. Returns
    False, and writes nothing, where `base` has not all of these columns in the same types, or its
    row groups have other rows.
    """
    footer, other = read_footer(base), read_footer(columns)
    leaves, given = _leaves(footer), _leaves(other)
    rows, others = ([_value(one, _ROWS) for one in _groups(found)] for found in (footer, other))
    if rows != others or any(one not in leaves for one in given):
        return False
    pairs = list(zip(_groups(footer), _groups(other), strict=True))
    places = [given.index(one) if one in given else None for one in leaves]
    with base.open("rb") as old, columns.open("rb") as new, target.open("wb") as out:
        out.write(MAGIC)
        for group, of_columns in pairs:
            chunks = [
                chunk if place is None else _chunks(of_columns)[place]
                for chunk, place in zip(_chunks(group), places, strict=True)
            ]
            for chunk, place in zip(chunks, places, strict=True):
                _copy_pages(out, old if place is None else new, chunk)
            _put_together(group, chunks)
        for group, _ in pairs:
            for chunk, place in zip(_chunks(group), places, strict=True):
                _copy_bloom_filter(out, old if place is None else new, chunk)
        write_footer(out, footer)
    return True


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


def _put_together(group: Struct, chunks: list[Struct]) -> None:
    """Makes a row group one of these chunks."""
    columns = [_value(chunk, _COLUMN) for chunk in chunks]
    kind, (of, _) = group[_CHUNKS]
    group[_CHUNKS] = (kind, (of, chunks))
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


def _set(struct: Struct, field: int, value: Any) -> None:
    struct[field] = (struct[field][0], value)
