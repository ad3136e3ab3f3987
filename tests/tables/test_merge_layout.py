"""A merge where the sides lay out their files differently, read by partition without Instep."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bare import bare_table

from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column
from instep.errors import InternalError
from instep.tables.content import TableContent
from instep.tables.merge import merge_rows
from instep.tables.partition import Part
from instep.tables.read import data_files, layout_of, schema_of
from instep.tables.write import append, create_table, data_folder, set_layout

AT = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = (Column(0, "k", "long"), Column(0, "sold", "date"), Column(0, "paid", "date"))
SOLD, PAID = [Part("sold")], [Part("paid")]

by_key_or_not = pytest.mark.parametrize("key", [[], ["k"]], ids=["keyless", "keyed"])


def _with_row(root: Path, table: TableContent, k: int) -> TableContent:
    """Adds row `k`, sold on day `k` of January and paid on that of May."""
    row = f"SELECT {k}::BIGINT k, DATE '2026-01-0{k}' sold, DATE '2026-05-0{k}' paid"
    with DuckDB(root / "staging") as engine:
        files = engine.write(
            row, schema_of(root, table), data_folder(root, table), layout=layout_of(root, table)
        )
    return append(root, table, files, at=AT)


def _by_sold(root: Path) -> TableContent:
    return _with_row(root, create_table(root, "t", COLUMNS, at=AT, partition=SOLD), 1)


def _laid_out(root: Path, table: TableContent, parts: Sequence[Part]) -> TableContent:
    return set_layout(root, table, parts, (), at=AT)


def _check_found_by_filter(root: Path, table: TableContent, keys: Sequence[int]) -> None:
    for condition in ("sold == '2026-01-0{}'", "paid == '2026-05-0{}'"):
        for k in keys:
            rows = bare_table(root, table.metadata).scan(condition.format(k)).to_arrow()
            assert rows.column("k").to_pylist() == [k]


@by_key_or_not
@pytest.mark.parametrize("parts", [PAID, [], [*PAID, *SOLD]], ids=["other", "none", "both"])
def test_a_layout_that_one_side_changed_hides_no_row_from_a_reader(
    tmp_path: Path, key: list[str], parts: list[Part]
) -> None:
    base = _by_sold(tmp_path)
    same = _with_row(tmp_path, base, 2)
    other = _with_row(tmp_path, _laid_out(tmp_path, base, parts), 3)
    for ours, theirs in ((same, other), (other, same)):
        merged = merge_rows(tmp_path, base, ours, theirs, key, at=AT)
        assert merged.content is not None
        assert merged.added == 1
        assert layout_of(tmp_path, merged.content) == layout_of(tmp_path, other)
        _check_found_by_filter(tmp_path, merged.content, (1, 2, 3))


@by_key_or_not
def test_files_from_before_a_layout_that_both_set_hide_no_row(
    tmp_path: Path, key: list[str]
) -> None:
    base = _by_sold(tmp_path)
    ours = _with_row(tmp_path, _laid_out(tmp_path, base, PAID), 2)
    theirs = _laid_out(tmp_path, _with_row(tmp_path, base, 3), PAID)
    merged = merge_rows(tmp_path, base, ours, theirs, key, at=AT)
    assert merged.content is not None
    _check_found_by_filter(tmp_path, merged.content, (1, 2, 3))


@by_key_or_not
def test_files_of_one_layout_are_taken_as_they_are(tmp_path: Path, key: list[str]) -> None:
    base = _by_sold(tmp_path)
    ours, theirs = (_with_row(tmp_path, base, k) for k in (2, 3))
    merged = merge_rows(tmp_path, base, ours, theirs, key, at=AT)
    assert merged.content is not None
    known = {file.path for state in (ours, theirs) for file in data_files(tmp_path, state)}
    assert {file.path for file in data_files(tmp_path, merged.content)} == known


@pytest.mark.parametrize("parts", [[], [Part("k")]], ids=["too many", "of another type"])
def test_files_of_another_partition_are_refused(tmp_path: Path, parts: list[Part]) -> None:
    by_sold = _by_sold(tmp_path)
    files = data_files(tmp_path, by_sold)
    with pytest.raises(InternalError) as caught:
        append(tmp_path, _laid_out(tmp_path, by_sold, parts), files, at=AT)
    assert caught.value.kind == "other-partition"
