"""Setting one value leaves every other character of the file as it was."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_builders import SALES_ONLY, TRAINING

from instep.errors import InvalidError
from instep.pipelines.config import parse_pipeline
from instep.pipelines.edit import set_value

TEXT = SALES_ONLY + TRAINING
PATH = "pipelines/bread.yaml"


def value_of(text: str, name: str) -> object:
    return next(one.value for one in parse_pipeline(text, PATH).values if one.name == name)


def test_a_value_is_replaced_in_its_place_and_comments_stay() -> None:
    edited = set_value(TEXT, PATH, "slice.to", "2013-05-01")
    assert edited.before == "2013-04-01"
    assert edited.text == TEXT.replace("2013-04-01", "2013-05-01")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps.late.outside", "refuse"),
        ("steps.late.windows.step", "20 days"),
        ("slices.sales.lookback", "1 hour"),
        ("owner", "bakers"),
        ("keep", "30 days"),
    ],
)
def test_an_absent_value_is_added_and_everything_else_stays(name: str, value: str) -> None:
    text = TEXT.replace("sales: sold_at", "sales: {time: sold_at}")
    edited = set_value(text, PATH, name, value)
    assert edited.before is None
    assert value_of(edited.text, name) == value
    kept = [line for line in edited.text.splitlines() if line in text.splitlines()]
    assert len(kept) >= len(text.splitlines()) - 1


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(["a", "b_1", "shop"]))
def test_what_was_set_is_what_is_read(seed: int, feature: str) -> None:
    text = set_value(TEXT, PATH, "steps.late.seed", str(seed)).text
    text = set_value(text, PATH, "steps.late.features", f"[{feature}]").text
    assert value_of(text, "steps.late.seed") == seed
    assert value_of(text, "steps.late.features") == [feature]
    undone = set_value(text, PATH, "steps.late.seed", "3").text
    assert set_value(undone, PATH, "steps.late.features", "[shop, amount, rain]").text == TEXT


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("slice.too", "2013-05-01", "unknown-key"),
        ("slice.to", "2012-05-01", "empty-window"),
        ("steps.lat.seed", "1", "no-such-value"),
        ("steps", "1", "not-one-value"),
        ("pipeline.name", "x", "no-such-value"),
        ("steps.late.seed", "[", "bad-yaml"),
    ],
)
def test_a_result_that_is_not_valid_is_refused(name: str, value: str, kind: str) -> None:
    with pytest.raises(InvalidError) as caught:
        set_value(TEXT, PATH, name, value)
    assert caught.value.kind == kind
