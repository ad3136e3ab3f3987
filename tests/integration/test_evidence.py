"""What a reviewer is told of a contract that its own table does not keep."""

from __future__ import annotations

from pathlib import Path

from shop import make_shop


def test_a_tightened_contract_is_held_against_the_rows_that_are_there(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop").merged()
    shop.must("ingest", shop.month(1))
    contract = shop.folder / "contracts/sales.yaml"
    contract.write_text(contract.read_text().replace("maximum: 100000", "maximum: 100"))

    evidence = shop.must("propose", "--json").json["evidence"]

    (finding,) = evidence["findings"]
    assert (finding["kind"], finding["severity"]) == ("broken-term", "warning")
    assert "amount.maximum" in finding["message"]
    assert "table/sales" in evidence["reads"]
