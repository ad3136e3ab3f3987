"""A pipeline's file: every value has a place, and every fault too."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from pipeline_builders import SALES_ONLY, TRAINING

from instep.clock import Duration, parse_duration
from instep.errors import InvalidError
from instep.pipelines.config import PipelineConfig, SqlStep, TrainStep, exact, parse_pipeline

PATH = "pipelines/bread.yaml"


def parsed(text: str = SALES_ONLY + TRAINING) -> PipelineConfig:
    return parse_pipeline(text, PATH)


def fault(text: str) -> InvalidError:
    with pytest.raises(InvalidError) as caught:
        parsed(text)
    return caught.value


def test_steps_and_slices_are_read() -> None:
    config = parsed()
    first, second = config.steps
    assert isinstance(first, SqlStep) and isinstance(second, TrainStep)
    assert first.every == Duration(months=1)
    assert config.slices["weather"].lookback == timedelta(hours=2)
    assert second.spec.windows.step == second.spec.windows.test == parse_duration("15 days")
    assert [candidate.name for candidate in second.spec.candidates] == ["plain"]


def test_every_value_says_the_line_it_comes_from_or_default() -> None:
    origins = {value.name: value.origin for value in parsed().values}
    assert origins["slice.to"] == "pipelines/bread.yaml:2"
    assert origins["slices.weather.lookback"] == "pipelines/bread.yaml:3"
    assert origins["steps.orders.every"] == "pipelines/bread.yaml:9"
    assert origins["steps.late.windows.step"] == "default"
    assert origins["steps.late.outside"] == "default"
    assert origins["steps.late.outside_period"] == "default"


def test_only_values_that_reach_a_step_count_for_it() -> None:
    before = parsed()
    other = parsed(
        (SALES_ONLY + TRAINING).replace("One row per sale", "Sales").replace("= 0.5", "")
    )
    for old, new in zip(before.steps, other.steps, strict=True):
        assert before.configuration_digest(old) == other.configuration_digest(new)
    seeded = parsed((SALES_ONLY + TRAINING).replace("seed: 3", "seed: 4"))
    digests = [seeded.configuration_digest(step) for step in seeded.steps]
    assert digests[0] == before.configuration_digest(before.steps[0])
    assert digests[1] != before.configuration_digest(before.steps[1])


def test_what_happens_outside_the_intended_period_is_read_and_by_default_changes_no_digest() -> (
    None
):
    before = parsed()
    plain = before.steps[1]
    assert isinstance(plain, TrainStep) and plain.spec.outside_period == "answer"
    names = {value.name for value in before.values_of(plain)}
    assert "steps.late.outside_period" in names
    refusing = parsed(
        (SALES_ONLY + TRAINING).replace("seed: 3", "seed: 3\n    outside_period: refuse")
    )
    late = refusing.steps[1]
    assert isinstance(late, TrainStep) and late.spec.outside_period == "refuse"
    older = replace(
        before,
        values=tuple(one for one in before.values if one.name != "steps.late.outside_period"),
    )
    assert before.configuration_digest(plain) == older.configuration_digest(plain)
    assert before.configuration_digest(plain) != refusing.configuration_digest(late)


def test_floats_become_their_shortest_text() -> None:
    assert exact({"a": [0.1, 1, True, None, "x"]}) == {"a": ["0.1", 1, True, None, "x"]}


@pytest.mark.parametrize(
    ("before", "after", "kind", "says"),
    [
        ("every:", "evry:", "unknown-key", 'pipelines/bread.yaml:9:5: key "evry" is not known'),
        ("every:", "evry:", "unknown-key", 'Did you mean "every"?'),
        ("sql: ", "sgl: ", "bad-document", 'key "sgl" is not known'),
        ("1 month ", "one month ", "bad-document", 'Duration "one month"'),
        ("to: 2013-04-01", "to: 2013-13-01", "bad-yaml", "pipelines/bread.yaml:2:31"),
        ("to: 2013-04-01", "to: 2012-04-01", "empty-window", "is empty"),
        ("to: 2013-04-01", "to: soon", "bad-document", '"soon"'),
        ("    windows: {", "    windows: {trian: 1 day, ", "unknown-key", 'mean "train"?'),
        ("step: late", "step: orders", "bad-document", "is used by two steps"),
        ("late.py:fit", "late.py", "bad-document", "steps/delay.py:fit"),
        ("metric: brier, at_most", "metric: brier, at_least", "bad-metric", "at_most"),
        ("metric: roc_auc", "metric: roc_auk", "bad-metric", "pipelines/bread.yaml:10:5"),
        ("[shop, amount, rain]", "[shop, late]", "leaking-feature", '"late"'),
        ("pipeline: bread", "pipeline: Bread!", "bad-document", "pattern"),
    ],
)  # fmt: skip
def test_a_fault_names_its_place_and_what_to_do(
    before: str, after: str, kind: str, says: str
) -> None:
    text = SALES_ONLY + TRAINING
    assert before in text
    error = fault(text.replace(before, after))
    assert error.kind == kind
    assert says in str(error)


def test_training_needs_an_acceptable_error() -> None:
    error = fault((SALES_ONLY + TRAINING).replace("acceptable_error", "# acceptable_error"))
    assert "acceptable_error" in str(error)


def test_all_faults_of_a_document_are_told_at_once() -> None:
    error = fault(SALES_ONLY.replace("every:", "evry:").replace("writes:", "wirtes:"))
    assert len(str(error).splitlines()) == 3
