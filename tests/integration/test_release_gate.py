"""A model that missed its acceptable error is published, reviewed and merged, but not released."""

from __future__ import annotations

import json
from pathlib import Path

from shop import make_shop


def test_a_model_that_is_not_good_enough_is_not_released(tmp_path: Path) -> None:
    shop = make_shop(tmp_path)
    pipeline = tmp_path / "pipelines" / "demand.yaml"
    text = pipeline.read_text()
    assert "at_most: 0.5" in text
    pipeline.write_text(text.replace("at_most: 0.5", "at_most: 0.001"))
    shop.merged()
    shop.must("ingest", shop.month(1), shop.month(2), shop.month(3))
    ran = json.loads(shop.must("run", "demand", "--branch", "try", "--json").out)
    assert ran["state"] == "succeeded"
    number = str(json.loads(shop.must("propose", "try", "--json").out)["change"])
    shop.must("approve", number, actor="ben")
    shop.must("merge", number)

    refused = shop.instep("release", "prod", "--json", actor="ben")
    assert refused.code == 5
    error = refused.json["error"]
    assert error["kind"] == "release-refused"
    assert "missed its acceptable error" in error["message"]
    forced = shop.instep("release", "prod", "--force", "--why", "Why not.", "--json", actor="ben")
    assert forced.json["error"]["kind"] == "release-refused"
    (prod,) = json.loads(shop.must("where", "--json").out)["environments"]
    assert prod["commit"] is None


def test_a_model_of_labels_that_are_a_coin_flip_is_none_and_is_released_only_by_force(
    tmp_path: Path,
) -> None:
    said = "No model: nothing beats the constant by more than chance (best "
    shop = make_shop(tmp_path)
    sql = tmp_path / "steps" / "orders.sql"
    assert "paid > 10 as" in sql.read_text()
    sql.write_text(sql.read_text().replace("paid > 10 as", "hash(id) % 2 = 0 as"))
    shop.merged()
    shop.must("ingest", shop.month(1), shop.month(2), shop.month(3))
    shown = shop.must("run", "demand", "--branch", "try").out
    assert said in shown
    assert "chosen:" not in shown
    number = str(json.loads(shop.must("propose", "try", "--json").out)["change"])
    assert said in shop.must("review", number).out
    assert said in shop.must("show", "try").out
    card = json.loads(shop.must("show", "try", "--json").out)["keys"]["model/demand"]
    assert card["verdict"].startswith(said)
    shop.must("approve", number, actor="ben")
    shop.must("merge", number)

    refused = shop.instep("release", "prod", "--json", actor="ben")
    assert refused.code == 5
    assert refused.json["error"]["kind"] == "nothing-beats-constant"
    assert said in refused.json["error"]["message"]
    silent = shop.instep("release", "prod", "--force", "--why", " ", "--json", actor="ben")
    assert silent.json["error"]["kind"] == "needs-reason"
    released = json.loads(
        shop.must("release", "prod", "--force", "--why", "A trial.", "--json", actor="ben").out
    )
    assert released["why"] == "A trial. (forced: model/demand beats no constant)"
    assert "nothing-beats-constant" in [one["kind"] for one in released["findings"]]
