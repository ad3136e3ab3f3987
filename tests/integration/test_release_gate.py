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
    (prod,) = json.loads(shop.must("where", "--json").out)["environments"]
    assert prod["commit"] is None
