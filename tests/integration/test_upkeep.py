"""Upkeep through the command line: compaction and erased rows around arrivals and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shop import ONLY_ORDERS, PIPELINE, Shop, make_shop


def _ran(folder: Path, pipeline: str = PIPELINE) -> tuple[Shop, str]:
    shop = make_shop(folder / "shop", pipeline).merged()
    names = [shop.month(month) for month in (1, 2, 3)]
    shop.must("ingest", *names)
    return shop, str(shop.must("run", "demand", "--branch", "try", "--json").json["run"])


def _rows(shop: Shop, ref: str) -> dict[str, Any]:
    shown = shop.must("show", ref, "--json").json["keys"]
    return {key: facts["rows"] for key, facts in shown.items() if "rows" in facts}


def test_a_compacted_table_is_told_and_what_runs_made_of_it_is_reused(tmp_path: Path) -> None:
    shop, run = _ran(tmp_path)
    rows = _rows(shop, "try")

    planned = shop.must("compact", "--dry-run", "--json").json
    (table,) = planned["tables"]
    assert (planned["dry_run"], table["table"], table["groups"]) == (True, "sales", 1)
    assert (table["before"]["files"], table["after"]["files"]) == (3, 1)
    done = shop.must("compact", "sales")
    assert "3 files" in done.out
    assert "became 1" in done.out
    assert "nothing was done: it has one file" in shop.must("compact", "sales").out
    kept = shop.must("compact", "orders", "--ref", "try").out
    assert "nothing was done: a run keeps its files by period" in kept

    assert _rows(shop, "try") == rows
    assert shop.must("reproduce", run, "--json").json["verdict"] == "identical"
    shop.month(4)
    shop.must("ingest", "sales-2013-04.csv")
    assert _rows(shop, "main")["table/sales"] > rows["table/sales"]
    shop.must("doctor")


def test_erased_rows_are_told_with_all_that_is_not_reached(tmp_path: Path) -> None:
    shop, run = _ran(tmp_path)
    rows = _rows(shop, "try")
    where = ("--where", "id = 100001", "--why", "Request 4711.")

    told = shop.must("erase", "sales", *where, "--dry-run", "--json", actor="ben").json
    assert (told["dry_run"], told["rows"]) == (True, 1)
    remains = " ".join(told["remains"])
    for named in ("table/orders", "model/demand", "files that arrived", "backups", "evidence"):
        assert named in remains
    done = shop.must("erase", "sales", *where, actor="ben")
    assert done.out.startswith("1 row of sales in 1 file")
    assert "Not reached by this:" in done.out

    assert _rows(shop, "try")["table/sales"] == rows["table/sales"] - 1
    again = shop.must("reproduce", run)
    assert "erased: rows of sales were erased" in again.out
    assert "Request 4711." in again.out
    shop.must("doctor")


def test_rows_erased_from_what_a_run_made_do_not_stop_the_next_run(tmp_path: Path) -> None:
    shop, _ = _ran(tmp_path, ONLY_ORDERS)
    before = _rows(shop, "try")["table/orders"]
    shop.must("erase", "orders", "--where", "id = 100001", "--why", "Asked for.", actor="ben")
    assert _rows(shop, "try")["table/orders"] == before - 1
    shop.must("run", "demand", "--branch", "try")
    assert _rows(shop, "try")["table/orders"] == before - 1
    # Its input changed: the period is computed anew, and its files are found by their stem.
    shop.must("erase", "sales", "--where", "id = 100002", "--why", "Asked for.", actor="ben")
    shop.must("run", "demand", "--branch", "try")
    assert _rows(shop, "try")["table/orders"] == before - 1
    shop.must("doctor")


def test_a_dry_run_of_an_objects_erasure_is_refused(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop").merged()
    done = shop.instep("erase", "4f2a90c1", "--why", "No.", "--dry-run", "--json", actor="ben")
    assert done.json["error"]["kind"] == "usage"
