from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_builders import START, departures, trained
from sklearn.base import BaseEstimator, ClassifierMixin

from instep.clock import format_instant, parse_instant
from instep.errors import InternalError, InvalidError, NotFoundError, RefusedError
from instep.models.bundle import ModelFiles, load_bundle, read_bundle, save_bundle
from instep.models.card import Card
from instep.models.sameness import Identical
from instep.models.training import Training, TrainingRows, positive_scores

MADE = parse_instant("2013-12-01T10:00:00Z")


class Homemade(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that no allow-list names."""

    def fit(self, features: Any, target: Any) -> Homemade:
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, features: Any) -> Any:
        return np.full((len(features), 2), 0.5)


@pytest.fixture(scope="module")
def training() -> Training:
    return trained()


@pytest.fixture
def saved(training: Training, tmp_path: Path) -> ModelFiles:
    return save_bundle(training, tmp_path / "bundle", MADE, "run_1")


def test_a_loaded_model_answers_as_the_trained_one(training: Training, saved: ModelFiles) -> None:
    table = departures(10, seed=4)
    matrix, _ = training.signature.matrix_of(table)
    columns = {name: table[name].to_pylist() for name in training.signature.names}

    model = load_bundle(saved.folder)

    expected = positive_scores(training.estimator, matrix)
    np.testing.assert_array_equal(model.predict(columns), expected)
    np.testing.assert_array_equal(model.score(table)[0], expected)
    assert model.predict({name: values[:1] for name, values in columns.items()})[0] == expected[0]


def test_the_card_tells_when_on_what_and_for_which_period(
    training: Training, saved: ModelFiles
) -> None:
    card = load_bundle(saved.folder).card

    assert card.made_at == MADE
    assert card.run == "run_1"
    assert card.digest == saved.digest
    assert card.intended.start == card.slice.end == card.trained.end
    assert format_instant(card.intended.end) == "2013-04-01"
    assert [w.start for w in card.tested] == [f.test.start for f in training.folds.folds]
    assert card.threshold == 0.5
    assert Card.from_json(json.loads(json.dumps(card.to_json()))) == card
    assert card.choice == training.choice
    assert card.candidates == training.candidates


def test_saving_twice_gives_one_digest(
    training: Training, saved: ModelFiles, tmp_path: Path
) -> None:
    again = save_bundle(training, tmp_path / "again", MADE, "run_2")

    assert again.digest == saved.digest
    assert load_bundle(again.folder).sameness(load_bundle(saved.folder)) == Identical()


def test_other_category_codes_are_another_model(training: Training, saved: ModelFiles) -> None:
    files = {name: (saved.folder / name).read_bytes() for name in saved.names}
    files["signature.json"] = files["signature.json"].replace(b'"B"', b'"BB"')

    with pytest.raises(InternalError) as error:
        read_bundle(files)

    assert error.value.kind == "damaged-bundle"


def test_a_bundle_without_its_card_is_refused(saved: ModelFiles) -> None:
    (saved.folder / "card.json").unlink()

    with pytest.raises(NotFoundError) as error:
        load_bundle(saved.folder)

    assert error.value.kind == "incomplete-bundle"


def test_an_estimator_of_an_unknown_type_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    def homemade(train: TrainingRows, params: dict[str, Any], seed: int) -> Any:
        return Homemade().fit(train.features, train.target)

    found = trained(fit=homemade)
    # The constant ranks as well as it does, so it may be the one that was chosen.
    found = _with_estimator(found, Homemade().fit(None, None))

    with pytest.raises(InvalidError, match="Homemade") as error:
        save_bundle(found, tmp_path / "bundle", MADE, "run_1")

    assert error.value.kind == "untrusted-model"
    assert not (tmp_path / "bundle").exists()


def test_a_foreign_type_in_a_bundle_is_refused_when_it_is_loaded(saved: ModelFiles) -> None:
    import skops.io
    from sklearn.pipeline import Pipeline

    foreign = Pipeline([("encode", "passthrough"), ("estimator", Homemade().fit(None, None))])
    (saved.folder / "model.skops").write_bytes(skops.io.dumps(foreign))

    with pytest.raises(RefusedError, match="Homemade") as error:
        load_bundle(saved.folder)

    assert error.value.kind == "untrusted-model"


def test_an_unseen_category_is_never_answered(saved: ModelFiles) -> None:
    model = load_bundle(saved.folder)

    with pytest.raises(InvalidError) as error:
        model.predict({"hour": [3], "carrier": ["Z"], "wind": [1.0], "is_holiday": [False]})

    assert error.value.kind == "unseen-category"
    assert np.isnan(model.score(_with_carrier("Z"))[0]).all()


def test_the_profile_is_of_the_final_rows_and_of_scores_out_of_sample(
    training: Training, saved: ModelFiles
) -> None:
    profile = load_bundle(saved.folder).profile

    assert profile == training.profile
    assert (profile.rows, profile.positives) == (
        training.counts.trained,
        training.counts.positives,
    )
    chosen = next(c for c in training.candidates if c.name == training.choice.name)
    tested = sum(window.tested for window in chosen.windows)
    assert sum(day.rows for day in profile.days) == tested
    assert sum(one.rows for one in profile.calibration) == tested
    assert [f.name for f in profile.features] == list(training.signature.names)


def test_scikit_learn_and_skops_read_the_bundle_without_instep(
    training: Training, saved: ModelFiles, tmp_path: Path
) -> None:
    table = departures(3, seed=5)
    names = training.signature.names
    rows = [[row[name] for name in names] for row in table.to_pylist()]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    script = """
import json, sys, numpy, skops.io
from ruamel.yaml import YAML
trusted = YAML(typ="safe").load(open("MLmodel"))["flavors"]["sklearn"]["skops_trusted_types"]
model = skops.io.load("model.skops", trusted=trusted)
rows = numpy.array(json.load(open(sys.argv[1])), dtype=object)
assert not any(name.startswith("instep") for name in sys.modules)
print(json.dumps(model.predict_proba(rows)[:, 1].tolist()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "rows.json")],
        cwd=saved.folder,
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(done.stdout) == load_bundle(saved.folder).score(table)[0].tolist()


def test_the_readme_says_it_in_words(saved: ModelFiles) -> None:
    text = (saved.folder / "README.md").read_text()

    assert "Acceptable error: precision at 0.5 at least 0.5. One in two." in text
    assert "| test window" in text
    assert (
        f"Intended for events 2013-03-02 to {format_instant(parse_instant('2013-04-01'))}" in text
    )


def _with_carrier(carrier: str) -> Any:
    import pyarrow as pa

    table = departures(1, start=START)
    column = pa.array([carrier] * table.num_rows)
    return table.set_column(table.column_names.index("carrier"), "carrier", column)


def _with_estimator(training: Training, estimator: Any) -> Training:
    from dataclasses import replace

    return replace(training, estimator=estimator)


def test_fit_is_importable_from_the_example_without_instep() -> None:
    script = (
        "import sys; sys.path.insert(0, 'steps'); import delay; assert 'instep' not in sys.modules"
    )
    folder = Path(__file__).parents[2] / "examples" / "flights"

    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True)
