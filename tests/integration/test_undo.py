"""A change is undone by a change: labelled, and with what it makes stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shop import ONLY_ORDERS, Shop, make_shop


def merged_run(shop: Shop, branch: str) -> str:
    """Runs the pipeline on a branch, merges it, and returns the change's number."""
    shop.must("run", "demand", "--branch", branch)
    number = str(shop.must("propose", branch, "--json").json["change"])
    agree(shop, number)
    return number


def agree(shop: Shop, number: str) -> None:
    shop.must("approve", number, actor="ben")
    shop.must("merge", number)


def contents(shop: Shop, what: str) -> dict[str, Any]:
    keys: dict[str, Any] = shop.must("show", what, "--json").json["keys"]
    return {
        key: value.get("digest") or value.get("metadata") or value for key, value in keys.items()
    }


def test_one_table_of_a_merged_run_is_set_back_with_what_that_makes_stale(tmp_path: Path) -> None:
    shop = make_shop(tmp_path).merged()
    shop.must("ingest", shop.month(1), shop.month(2), shop.month(3))
    merged_run(shop, "first")
    orders = tmp_path / "steps" / "orders.sql"
    orders.write_text(orders.read_text().replace("amount,", "amount * 2 as amount,"))
    second = merged_run(shop, "second")
    before, after = contents(shop, f"main@{_merged_at(shop, second)}"), contents(shop, "main")
    run = shop.must("log", "main", "--key", "model/demand", "--json").json["operations"][0]

    undone = shop.must(
        "undo", "change", second, "--only", "table/orders", "--why", "a test", "--json"
    ).json
    assert undone["keys"] == ["table/orders"]
    (stale,) = undone["stale"]
    assert (stale["key"], stale["pipeline"], stale["read"]) == (
        "model/demand",
        "demand",
        ["table/orders"],
    )
    number = str(undone["change"])
    assert contents(shop, "main") == after, "nothing moves before somebody agrees"
    shown = shop.must("review", number, "--json").json
    assert shown["title"].startswith(f"Undoes {run['commit']['id'][:12]}")
    assert shown["evidence"]["undoes"] == run["commit"]["id"]
    assert shop.instep("merge", number).code == 5
    agree(shop, number)
    now = contents(shop, "main")
    assert now["table/orders"] != after["table/orders"]
    assert {key for key in after if now[key] != after[key]} == {"table/orders"}
    assert before.keys() <= now.keys()

    again = shop.must("undo", number, "--json").json
    agree(shop, str(again["change"]))
    assert contents(shop, "main") == after, "an undo is undone like anything else"
    assert again["stale"] == []


def _merged_at(shop: Shop, number: str) -> str:
    """Returns the instant just before a change came to main."""
    moves = shop.must("log", "main", "--json").json["operations"]
    (before,) = [
        moves[place + 1]["at"]
        for place, move in enumerate(moves)
        if move["commit"]["origin"] == f"change {number}"
    ]
    return str(before)


def test_what_moved_since_is_a_conflict_by_name_and_an_arrival_can_be_undone(
    tmp_path: Path,
) -> None:
    shop = make_shop(tmp_path, ONLY_ORDERS).merged()
    first = str(shop.must("ingest", shop.month(1), "--json").json["arrivals"][0]["change"])
    shop.must("ingest", shop.month(2))
    last = str(shop.must("ingest", shop.month(3), "--json").json["arrivals"][0]["change"])
    assert shop.must("undo", "change", first, "--json").json["keys"] == ["table/sales"]
    contract = tmp_path / "contracts/sales.yaml"
    for least in ("1.0.1", "1.0.2"):
        contract.write_text(contract.read_text().replace("version: 1.0", f"version: {least} #"))
        proposed = str(shop.must("propose", "--json").json["change"])
        agree(shop, proposed)
        first = first if least == "1.0.2" else proposed
    refused = shop.instep("undo", "change", first, "--json")
    assert refused.code == 4
    error = refused.json["error"]
    assert (error["kind"], error["keys"]) == ("keys-moved", ["contract/sales"])
    assert "by ana in " in error["message"]

    for kind, words in (
        ("nothing-to-undo", ["change", "1", "--on", "other"]),
        ("key-not-changed", [last, "--only", "table/none"]),
        ("no-such-change", ["99"]),
    ):
        if kind == "nothing-to-undo":
            shop.must("branch", "make", "other", "--at", shop_began(shop))
        assert shop.instep("undo", *words, "--json").json["error"]["kind"] == kind

    shop.must("run", "demand", "--branch", "try")
    told = shop.must("undo", last, "--on", "try")
    assert "try is at" in told.out
    assert "table/orders was made from table/sales" in told.out
    assert '"instep run demand --branch try"' in told.out
    log = shop.must("log", "try", "--json").json["operations"]
    assert [move["kind"] for move in log] == ["undo", "run", "create"]
    rows = shop.must("show", "try", "--json").json["keys"]["table/sales"]["rows"]
    assert rows == 600
    twice = shop.instep("undo", last, "--on", "try", "--json")
    assert twice.json["error"]["kind"] == "nothing-to-undo"


def shop_began(shop: Shop) -> str:
    return str(shop.must("log", "main", "--json").json["operations"][-1]["after"])
