"""Profiles as commands show them: of a commit, and what changed between two."""

from __future__ import annotations

from pathlib import Path

from shop import make_shop


def test_a_table_is_shown_and_compared_by_its_profile(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop").merged()
    shop.must("ingest", shop.month(1))
    first = shop.must("status", "--json").json["main"]
    shop.must("ingest", shop.month(2, rows=200))

    shown = shop.must("show", "main", "--profile", "sales")
    told = shop.must("show", "main", "--profile", "sales", "--json").json
    changes = shop.must("diff", first, "main", "--profile", "sales").out
    nothing = shop.must("diff", "main", "main", "--profile", "sales").out

    assert "table/sales at main: 500 rows" in shown.out
    assert {one["name"]: one["count"] for one in told["columns"]}["amount"] == 500
    assert "  500 rows, 300 before (+200)" in changes
    assert "sold_at: ends at 2013-02-28" in changes
    assert "nothing differs beyond the errors of the profiles" in nothing


def test_the_profile_of_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop").merged()

    done = shop.instep("show", "main", "--profile", "sale")

    assert done.code != 0
    assert "table/sale" in done.err
