"""Answers which columns two sets of files hold as the same bytes, so that none of them is decoded.

Rows are often made anew in the order they had, with other values in few columns. A Parquet file
keeps each column of a row group as bytes of its own: where these are the same, in the same type
and codec, the values are. Bytes are compared themselves, never a hash of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instep.engines.parquet_bytes import pieces
from instep.engines.reading import paths_sql

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One column of one row group: its rows, what its bytes mean, and where they lie."""

    rows: int
    meaning: tuple[Any, ...]  # values of Parquet's metadata, only compared
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class _File:
    """A file's chunks by field id, in the order of its row groups; nested columns are left out."""

    path: Path
    chunks: Mapping[int, Sequence[_Chunk]]

    def shape(self, keys: Sequence[int]) -> tuple[tuple[tuple[int, int], ...], ...]:
        """The rows and bytes of the chunks of the keys: unequal ones cannot hold the same keys."""
        return tuple(
            tuple((one.rows, one.length) for one in self.chunks.get(key, ())) for key in keys
        )

    def pieces(self, chunks: Sequence[_Chunk]) -> Iterator[bytes]:
        with self.path.open("rb", buffering=0) as file:
            for one in chunks:
                yield from pieces(file, one.start, one.length)


def columns_apart(
    engine: DuckDB,
    before: Collection[str],
    after: Collection[str],
    keys: Sequence[int],
    others: Sequence[int],
) -> frozenset[int] | None:
    """Returns the field ids of `others` whose values may differ, where the rows are the same ones.

    `before` and `after` are files of the engine's views, without deleted rows. None where it does
    not show in the bytes of the columns `keys` that each file of one side has the rows of one of
    the other, in their order.
    """
    if not keys or len(before) != len(after):
        return None
    sides = [_files(engine, files, [*keys, *others]) for files in (before, after)]
    shapes = [sorted(one.shape(keys) for one in files) for files in sides]
    if shapes[0] != shapes[1]:
        return None
    pairs = list(_pairs(sides[0], sides[1], keys))
    if len(pairs) != len(before):
        return None
    apart: set[int] = set()
    for old, new in pairs:
        apart |= {one for one in others if one not in apart and not _is_same(old, new, one)}
    return frozenset(apart)


def _pairs(
    before: Sequence[_File], after: Sequence[_File], keys: Sequence[int]
) -> Iterator[tuple[_File, _File]]:
    """Yields files with the same keys; hashes only find which files to compare."""
    found: dict[str, list[_File]] = {}
    for one in after:
        found.setdefault(_digest(one, keys), []).append(one)
    for one in before:
        like = found.pop(_digest(one, keys), [])
        # Where several have the same keys, these do not tell rows apart.
        if len(like) == 1 and all(_is_same(one, like[0], key) for key in keys):
            yield one, like[0]


def _digest(file: _File, keys: Sequence[int]) -> str:
    digest = hashlib.sha256()
    for key in keys:
        for piece in file.pieces(file.chunks.get(key, ())):
            digest.update(piece)
    return digest.hexdigest()


def _is_same(old: _File, new: _File, field_id: int) -> bool:
    chunks, others = old.chunks.get(field_id), new.chunks.get(field_id)
    if chunks is None or others is None or len(chunks) != len(others):
        return False
    return all(
        (one.rows, one.meaning, one.length) == (two.rows, two.meaning, two.length)
        for one, two in zip(chunks, others, strict=True)
    ) and all(one == two for one, two in zip(old.pieces(chunks), new.pieces(others), strict=True))


def _files(engine: DuckDB, files: Collection[str], field_ids: Sequence[int]) -> list[_File]:
    """Reads where chunks lie; a column whose dictionary's place is not told counts as not there."""
    paths = paths_sql(engine.at_hand(path) for path in files)
    wanted = ", ".join(map(str, field_ids))
    found = engine.run(
        "SELECT m.file_name, field_id, list(row_group_num_rows ORDER BY row_group_id), "
        "list([compression, m.type, type_length, repetition_type, converted_type, logical_type, "
        "scale::VARCHAR, precision::VARCHAR] ORDER BY row_group_id), "
        # 0 is how some writers say that there is none.
        "list(coalesce(nullif(dictionary_page_offset, 0), data_page_offset) "
        "ORDER BY row_group_id), "
        "list(total_compressed_size ORDER BY row_group_id) "
        f"FROM parquet_metadata({paths}) m JOIN ("
        f"SELECT * FROM parquet_schema({paths}) WHERE field_id IN ({wanted})"
        ") s ON m.file_name = s.file_name AND m.path_in_schema = s.name "
        "GROUP BY m.file_name, field_id HAVING bool_and("
        "coalesce(dictionary_page_offset, 0) > 0 OR NOT contains(encodings, 'DICTIONARY'))"
    )
    chunks: dict[str, dict[int, list[_Chunk]]] = {}
    for path, field_id, *told in found:
        chunks.setdefault(path, {})[field_id] = [
            _Chunk(rows, tuple(meaning), start, length)
            for rows, meaning, start, length in zip(*told, strict=True)
        ]
    return [_File(Path(path), of_file) for path, of_file in chunks.items()]
