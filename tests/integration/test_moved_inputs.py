"""What was computed from rows that moved before it was merged: seen, and agreed to or run again."""

from __future__ import annotations

from pathlib import Path

from shop import ONLY_ORDERS, Shop, make_shop


def shop_with_orders(folder: Path) -> Shop:
    """A shop whose orders of January to March were run on a branch and proposed as change 3."""
    shop = make_shop(folder, ONLY_ORDERS).merged()
    shop.must("ingest", shop.month(1))
    shop.must("run", "demand", "--branch", "try")
    shop.must("propose", "try")
    return shop


def test_rows_that_reach_an_input_after_the_approval_make_it_lapse(tmp_path: Path) -> None:
    shop = shop_with_orders(tmp_path / "shop")
    shop.must("approve", "3", actor="ben")
    shop.must("ingest", shop.month(2))

    refused = shop.instep("merge", "3")

    assert refused.code != 0
    assert "what ben approved is no longer what would be merged" in refused.err
    assert "table/orders was computed from table/sales, which was changed since by ana" in (
        refused.err
    )
    assert "(change 4), in what was read of it (2013-02-01 to 2013-03-01)" in refused.err
    assert "instep run demand --branch NEW" in refused.err
    review = shop.must("review", "3")
    assert "table/sales, which was changed since by ana" in review.out


def test_rows_outside_of_what_was_read_leave_an_approval_as_it_is(tmp_path: Path) -> None:
    shop = shop_with_orders(tmp_path / "shop")
    shop.must("approve", "3", actor="ben")
    shop.must("ingest", shop.month(4))

    merged = shop.must("merge", "3")

    assert "approved by ben" in merged.out


def test_what_was_computed_from_older_rows_can_be_agreed_to_as_it_is(tmp_path: Path) -> None:
    shop = shop_with_orders(tmp_path / "shop")
    shop.must("approve", "3", actor="ben")
    shop.must("ingest", shop.month(2))
    shop.must("approve", "3", actor="ben")
    assert "agreed to as it is: table/orders was computed from" in shop.must("review", "3").out
    shop.must("ingest", shop.month(3))
    assert "no longer what would be merged" in shop.instep("merge", "3").err

    shop.must("approve", "3", actor="ben")

    shop.must("merge", "3")


def test_running_again_on_a_new_branch_needs_no_agreement_to_older_rows(tmp_path: Path) -> None:
    shop = shop_with_orders(tmp_path / "shop")
    shop.must("ingest", shop.month(2))
    again = shop.must("run", "demand", "--branch", "again", "--json").json
    (orders,) = again["steps"]
    assert (orders["computed"], orders["reused"]) == (1, 2)
    proposed = shop.must("propose", "again", "--json").json
    number = str(proposed["change"])
    shop.must("approve", number, actor="ben")

    assert shop.must("review", number, "--json").json["moved_inputs"] == []
    shop.must("merge", number)


def test_a_policy_that_needs_nobody_still_waits_for_somebody_when_inputs_moved(
    tmp_path: Path,
) -> None:
    shop = make_shop(tmp_path / "shop")
    (shop.folder / "instep.yaml").write_text(
        "lake: lake\npeople: [ana, ben]\nenvironments: {prod: {}}\n"
        "policies: {approvals: {pipeline: 0, model: 0}}\n"
    )
    shop.merged()
    shop.must("ingest", shop.month(1))
    shop.must("ingest", shop.month(2))
    shop.must("ingest", shop.month(3))
    shop.must("run", "demand", "--branch", "try")
    shop.must("propose", "try")
    late = shop.month(2, rows=3).replace(".csv", "-late.csv")
    text = (shop.folder / "sales-2013-02.csv").read_text()
    lines = text.replace("\n200", "\n299")
    (shop.folder / late).write_text(lines)
    shop.must("ingest", late)

    refused = shop.instep("merge", "5")

    assert "it has 0 of 1 approvals" in refused.err
    assert "table/orders was computed from table/sales" in refused.err


def test_another_configuration_asks_for_a_new_yes_and_no_more(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    shop = shop_with_orders(folder)
    shop.must("approve", "3", actor="ben")
    config = folder / "instep.yaml"
    config.write_text(config.read_text().replace("[ana, ben]", "[ana, ben, cleo]"))
    other = str(shop.must("propose", "--json").json["change"])
    shop.must("approve", other, actor="ben")
    shop.must("merge", other)
    assert "no longer what would be merged" in shop.instep("merge", "3").err

    shop.must("approve", "3", actor="cleo")

    shop.must("merge", "3")
