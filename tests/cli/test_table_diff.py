"""`instep diff` of one table."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyiceberg.transforms import IdentityTransform
from shop import make_shop

from instep.cli.table_diff import parse_tolerances
from instep.cli.written_file import check_writable
from instep.errors import InvalidError
from instep.lake import open_lake
from instep.tables.apart import Tolerance


def test_the_rows_of_one_table_are_shown_and_written(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop").merged()
    commits = []
    for month in (1, 2):
        shop.must("ingest", shop.month(month, rows=20))
        commits.append(shop.must("status", "--json").json["main"])
    asked = ["diff", *commits, "--table", "sales"]

    found = shop.must(*asked, "--rows", "apart.parquet", "--limit", "2", "--json").json

    rows = found["rows"]
    assert (rows["key"], rows["added"], rows["removed"]) == (["id"], 20, 0)
    assert len(rows["sample"]) == 2
    import pyarrow.parquet as pq

    assert pq.read_table(shop.folder / "apart.parquet").num_rows == 20
    shown = shop.must(*asked, "--key", "shop", "--tolerance", "amount=1%").out
    assert "20 added (floats within the tolerance, by shop)" in shown
    assert "times after" in shown  # a shop is no key
    assert shop.instep("diff", *commits, "--key", "id").code == 2
    told = shop.instep(*asked, "--rows", "nowhere/apart.parquet")
    assert (told.code, "nowhere/apart.parquet cannot be written" in told.err) == (2, True)


def test_a_change_of_how_a_table_is_defined_is_seen_by_whoever_compares_and_reviews(
    tmp_path: Path,
) -> None:
    """All that a merge counts as a change of the table, though no row of it is another."""
    shop = make_shop(tmp_path / "shop").merged()
    shop.must("ingest", shop.month(1, rows=20))
    shop.must("branch", "make", "w", "--as", "ana")
    with open_lake(shop.folder).edit("w", message="defined", author="ana") as edit:
        table = edit.catalog.load_table("default.sales")
        with table.update_schema() as schema:
            schema.update_column("amount", doc="in euro")
            schema.set_identifier_fields("id")
        with table.update_sort_order() as order:
            order.asc("id", IdentityTransform())
        with table.transaction() as transaction:
            transaction.set_properties(owner="ana")
    expected = [
        'doc of column "amount": none becomes in euro',
        "identifier columns: none becomes id",
        "sort order: none becomes id asc nulls-last",
        'property "owner": none becomes ana',
    ]
    change = str(shop.must("propose", "w", "--json").json["change"])
    for command in ("diff main w", "diff main w --table sales", f"review {change}"):
        told = shop.must(*command.split()).out
        assert [one for one in expected if one not in told] == [], told
    found = shop.must("diff", "main", "w", "--table", "sales", "--json").json["schema"]
    texts = [
        f"{one['what']}: {one['before']} becomes {one['after']}" for one in found["definition"]
    ]
    assert texts == expected


@pytest.mark.parametrize("name", ["nowhere/file", ".", "folder"])
def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidError) as refused:
        check_writable(tmp_path / name)
    assert refused.value.kind == "not-writable"
    check_writable(tmp_path / "file")


def test_a_tolerance_is_read_as_absolute_or_relative_for_all_or_one_column() -> None:
    assert parse_tolerances(["0.01", "delay=1%", "a=b=1e-6"]) == {
        None: Tolerance(0.01),
        "delay": Tolerance(relative=0.01),
        "a=b": Tolerance(1e-6),
    }
    with pytest.raises(InvalidError) as refused:
        parse_tolerances(["some"])
    assert refused.value.kind == "bad-tolerance"
