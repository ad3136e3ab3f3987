from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from model_builders import PER_DAY, START, changed, departures, fit, slice_of, spec, trained

from instep.errors import InvalidError
from instep.models.sameness import Identical, compare
from instep.models.spec import CONSTANT, Candidate, KnownAfter, TrainingSpec
from instep.models.training import TrainingRows


class Recorder:
    """A fit function that keeps which rows each fit was given, by a feature that numbers them."""

    def __init__(self) -> None:
        self.seen: list[set[int]] = []

    def __call__(self, train: TrainingRows, params: dict[str, Any], seed: int) -> Any:
        self.seen.append({int(number) for number in train.features[:, train.names.index("row")]})
        return fit(train, params, seed)


def _numbered(days: int) -> pa.Table:
    table = departures(days)
    return table.append_column("row", pa.array(range(table.num_rows), pa.int64()))


def test_a_row_trains_only_before_the_cut_and_once_its_outcome_was_known() -> None:
    table = _numbered(60)
    recorder = Recorder()

    found = trained(
        table, recorder, features=("row", "wind"), candidates=(Candidate("one", {"max_depth": 2}),)
    )

    windows = [*(fold.train for fold in found.folds.folds), found.trained]
    assert len(recorder.seen) == len(windows)
    for window, seen in zip(windows, recorder.seen, strict=True):
        expected = {
            row["row"]
            for row in table.to_pylist()
            if row["late"] is not None
            and row["time_hour"] in window
            and row["known_at"] < window.end
        }
        assert seen == expected
        in_window = [row for row in table.to_pylist() if row["time_hour"] in window]
        assert len(seen) < len(in_window), "some outcomes are known only after the cut"


def test_no_row_is_both_trained_on_and_scored_in_one_window() -> None:
    table = _numbered(60)
    recorder = Recorder()

    found = trained(
        table, recorder, features=("row", "wind"), candidates=(Candidate("one", {"max_depth": 2}),)
    )

    for fold, seen in zip(found.folds.folds, recorder.seen, strict=False):
        tested = {r["row"] for r in table.to_pylist() if r["time_hour"] in fold.test}
        assert not seen & tested


def test_every_candidate_is_scored_on_the_same_rows_and_the_constant_is_first() -> None:
    found = trained()

    assert [scores.name for scores in found.candidates] == [CONSTANT, "shallow", "deep"]
    for windows in zip(*(scores.windows for scores in found.candidates), strict=True):
        assert len({(w.fold, w.tested, w.positives, w.trained) for w in windows}) == 1


def test_the_constant_ranks_nothing_and_its_precision_is_undefined_not_zero() -> None:
    constant = trained().candidates[0]

    assert all(window.metric == 0.5 for window in constant.windows)
    assert all(window.acceptable is None for window in constant.windows)
    assert not constant.is_eligible


def test_rows_without_an_outcome_are_counted_and_neither_trained_on_nor_scored() -> None:
    table = departures(60)
    unknown = table["late"].null_count

    found = trained(table)

    assert unknown > 0
    assert found.counts.rows == table.num_rows
    assert found.counts.unknown == unknown
    for fold, window in zip(found.folds.folds, found.candidates[1].windows, strict=True):
        rows = [r for r in table.to_pylist() if r["time_hour"] in fold.test]
        assert window.unknown == sum(r["late"] is None for r in rows)
        assert window.tested + window.unknown + window.unseen == len(rows)


def test_a_category_that_training_did_not_see_is_counted_and_not_scored() -> None:
    last = 60 * PER_DAY - 5
    table = changed(changed(departures(60), last, "carrier", "Z"), last, "late", True)
    table = changed(table, last, "known_at", START + timedelta(days=59, hours=20))

    scores = trained(table).candidates[1].windows[-1]

    assert scores.unseen == 1


def test_the_same_rows_in_another_order_give_the_same_model() -> None:
    table = departures(60)
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))

    first, second = trained(table), trained(shuffled)

    assert compare(first.estimator, second.estimator) == Identical()
    assert first.candidates == second.candidates
    assert first.profile == second.profile


def test_rows_outside_the_slice_change_nothing() -> None:
    inside = departures(60)
    outside = departures(30, start=START + timedelta(days=60), seed=9)

    first, second = trained(inside), trained(pa.concat_tables([outside, inside]))

    assert compare(first.estimator, second.estimator) == Identical()
    assert first.counts == second.counts


def test_parameters_given_to_fit_cannot_be_changed_for_the_next_fit() -> None:
    def greedy(train: TrainingRows, params: dict[str, Any], seed: int) -> Any:
        params["max_depth"] -= 1
        return fit(train, params, seed)

    found = trained(fit=greedy, candidates=(Candidate("one", {"max_depth": 3}),))

    assert found.candidates[1].params == {"max_depth": 3}


def test_an_outcome_known_later_than_declared_is_refused_naming_the_worst_row() -> None:
    table = changed(departures(60), 30, "late", True)
    table = changed(table, 30, "known_at", START + timedelta(days=1, hours=10 + 9))

    with pytest.raises(InvalidError, match=r"9\.0 hours after its event \(flight 2, .*2013-01-02"):
        trained(table)


def test_a_declared_wait_longer_than_needed_is_fine() -> None:
    from instep.clock import parse_duration

    assert trained(known_after=KnownAfter(parse_duration("9 days"), "known_at")).choice


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [
        ("known_at", None, "unknown-outcome-time"),
        ("known_at", START - timedelta(days=1), "known-too-early"),
        ("known_at", START + timedelta(days=9), "known-too-late"),
    ],
)
def test_data_that_contradicts_known_after_is_refused(
    column: str, value: object, kind: str
) -> None:
    table = changed(changed(departures(60), 0, "late", True), 0, column, value)

    with pytest.raises(InvalidError) as error:
        trained(table)

    assert error.value.kind == kind


def test_two_rows_with_one_key_are_refused() -> None:
    table = departures(60)

    with pytest.raises(InvalidError) as error:
        trained(pa.concat_tables([table, table.slice(3, 1)]))

    assert error.value.kind == "duplicate-key"


def test_a_window_with_one_outcome_only_is_refused() -> None:
    table = departures(60)
    on_time = pa.array([None if v is None else False for v in table["late"].to_pylist()])

    with pytest.raises(InvalidError) as error:
        trained(table.set_column(table.column_names.index("late"), "late", on_time))

    assert error.value.kind == "one-outcome"


def test_a_target_that_is_not_yes_or_no_is_refused() -> None:
    with pytest.raises(InvalidError) as error:
        trained(target="hour", features=("wind",))

    assert error.value.kind == "bad-target"


def test_a_time_that_is_no_instant_is_refused() -> None:
    with pytest.raises(InvalidError) as error:
        trained(time="hour")

    assert error.value.kind == "bad-time-column"


def test_a_column_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidError) as error:
        trained(features=("wind", "wnid"))

    assert error.value.kind == "no-such-column"


def test_a_fit_function_that_takes_other_parameters_is_refused_by_name() -> None:
    with pytest.raises(InvalidError, match="def fit\\(train, params, seed\\)") as error:
        trained(fit=lambda: object())  # type: ignore[arg-type, misc]  # that is the fault

    assert error.value.kind == "not-an-estimator"


def test_what_fit_returns_must_be_a_classifier() -> None:
    with pytest.raises(InvalidError) as error:
        trained(fit=lambda train, params, seed: object())

    assert error.value.kind == "not-an-estimator"


@pytest.mark.parametrize("feature", ["late", "known_at"])
def test_a_feature_that_tells_the_answer_is_refused(feature: str) -> None:
    with pytest.raises(InvalidError) as error:
        spec(features=("wind", feature))

    assert error.value.kind == "leaking-feature"


def test_a_candidate_cannot_be_called_constant() -> None:
    with pytest.raises(InvalidError) as error:
        spec(candidates=(Candidate(CONSTANT, {}),))

    assert error.value.kind == "duplicate-candidate"


def test_progress_names_every_fit() -> None:
    from instep.models.training import train

    lines: list[str] = []
    asked: TrainingSpec = spec()
    found = train(departures(60), fit, asked, slice_of(60), lines.append)

    assert len(lines) == len(found.folds.folds) * 3 + 1
