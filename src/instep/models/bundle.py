"""A model version as a self-contained folder, and a loaded one that answers.

    MLmodel           what MLflow and its kin read
    model.skops       a scikit-learn pipeline over the raw columns: encoding, then the estimator
    signature.json    the features, their categories and ranges in training
    card.json         when made, on what, how it did, for which period it is meant
    profile.json      what training rows looked like, and how the scores held out of sample
    requirements.txt  the packages it was made with
    README.md         the card for a human

Nothing is ever unpickled: skops rebuilds the types named in `TRUSTED_TYPES` and no others. The same
list is held when a bundle is saved, so that a model which could not be loaded is not published.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instep.canonical import Json, JsonObject
from instep.clock import Window, format_instant
from instep.errors import InternalError, InvalidError, NotFoundError, RefusedError
from instep.history.objects import write_durably
from instep.models.card import Card
from instep.models.profile import TrainingProfile
from instep.models.readme import render_card
from instep.models.sameness import Sameness, compare, model_digest
from instep.models.signature import Mask, Signature
from instep.models.training import Estimator, Training, positive_scores

if TYPE_CHECKING:
    import pyarrow as pa

    from instep.models.metrics import Scores

TRUSTED_TYPES = (
    "functools.partial",
    "numpy.dtype",
    "sklearn._loss._loss.CyHalfBinomialLoss",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn.compose._column_transformer._RemainderColsList",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.linear_model._logistic.LogisticRegression",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.tree._tree.Tree",
    "sklearn.utils.validation.check_array",
)
"""Types that skops does not trust by itself; they hold parameters, and no code runs on load.

A partial is as safe as its function, which needs a name in this list too.
"""

_MODEL = "model.skops"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A saved bundle: its file names in order, and the digest of what was learned."""

    folder: Path
    names: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """One model version in memory, answering over plain columns or an Arrow table."""

    card: Card
    signature: Signature
    profile: TrainingProfile
    estimator: Estimator

    def predict(self, columns: Mapping[str, Sequence[Any]]) -> Scores:
        """Returns the probability of the target for each row of `columns`.

        `columns` holds, for every feature, one plain value or None per row. One row or many: the
        cost is mostly per call.

        Raises:
            InvalidError (kind "unseen-category"): a guard should have refused the row before.
        """
        matrix, unseen = self.signature.matrix(columns)
        if unseen.any():
            raise InvalidError(
                f'Row {int(unseen.argmax())} has a category that model "{self.card.model}" did not '
                "see in training: expected only known ones. Leave the row out.",
                kind="unseen-category",
            )
        return positive_scores(self.estimator, matrix)

    def score(self, table: pa.Table) -> tuple[Scores, Mask]:
        """Returns a score for every row of `table`, NaN where serving would refuse; and which."""
        matrix, unseen = self.signature.matrix_of(table)
        scores = np.full(table.num_rows, np.nan)
        scores[~unseen] = positive_scores(self.estimator, matrix[~unseen])
        return scores, unseen

    def sameness(self, other: LoadedModel) -> Sameness:
        """Returns whether `other` learned the same."""
        return compare(_learned(self.signature, self.estimator), _learned_by(other))


def save_bundle(training: Training, folder: Path, made_at: datetime, run: str) -> ModelFiles:
    """Writes the bundle of `training` to `folder`, durably, and returns what was written.

    Raises:
        InvalidError (kind "untrusted-model"): the estimator has a type outside `TRUSTED_TYPES`.
    """
    digest = model_digest(_learned(training.signature, training.estimator))
    card = _card(training, made_at, run, digest)
    model = _dump(training)
    requirements = _requirements(training.estimator)
    files = {
        "MLmodel": _mlmodel(card, training.signature),
        _MODEL: model,
        "README.md": render_card(card, training.signature).encode(),
        "card.json": _json(card.to_json()),
        "profile.json": _json(training.profile.to_json()),
        "requirements.txt": requirements.encode(),
        "signature.json": _json(training.signature.to_json()),
    }
    for name, data in files.items():
        write_durably(folder / name, data)
    return ModelFiles(folder, tuple(files), digest)


def load_bundle(folder: Path) -> LoadedModel:
    """Returns the model of a bundle folder.

    Raises: as `read_bundle`.
    """
    names = (_MODEL, "card.json", "profile.json", "signature.json")
    return read_bundle({n: (folder / n).read_bytes() for n in names if (folder / n).exists()})


def read_bundle(files: Mapping[str, bytes]) -> LoadedModel:
    """Returns the model of a bundle whose files are given by name.

    Raises:
        NotFoundError (kind "incomplete-bundle"): a file is missing.
        RefusedError (kind "untrusted-model"): it has a type outside `TRUSTED_TYPES`.
        InternalError (kind "damaged-bundle"): it is not what its card says was made.
    """
    try:
        card = Card.from_json(json.loads(files["card.json"]))
        signature = Signature.from_json(json.loads(files["signature.json"]))
        profile = TrainingProfile.from_json(json.loads(files["profile.json"]))
        data = files[_MODEL]
    except KeyError as missing:
        raise NotFoundError(
            f"The bundle has no file {missing}: expected the files that a training run publishes. "
            "Restore them, or train the model again.",
            kind="incomplete-bundle",
        ) from None
    model = LoadedModel(card, signature, profile, _load(data))
    if model_digest(_learned_by(model)) != card.digest:
        raise InternalError(
            f'The bundle of model "{card.model}" holds other parameters than its card names: '
            f"expected digest {card.digest[:12]}. Restore it from a backup, or train it again.",
            kind="damaged-bundle",
        )
    return model


def _learned_by(model: LoadedModel) -> object:
    return _learned(model.signature, model.estimator)


def _learned(signature: Signature, estimator: Estimator) -> object:
    """Returns what sameness is about: the estimator, and the codes that its input is made with."""
    codes = [(f.name, f.type, list(f.categories)) for f in signature.features]
    return {"codes": codes, "estimator": estimator}


def _dump(training: Training) -> bytes:
    import skops.io
    from sklearn.pipeline import Pipeline

    pipeline = Pipeline(
        [("encode", _encoder(training.signature)), ("estimator", training.estimator)]
    )
    data: bytes = skops.io.dumps(pipeline)
    strange = _strange_types(data)
    if strange:
        raise InvalidError(
            f'Model "{training.spec.model}" has parts of type {", ".join(strange)}: expected '
            "scikit-learn estimators whose parts are known to be safe to load. Use another "
            "estimator.",
            kind="untrusted-model",
            types=strange,
        )
    return data


def _load(data: bytes) -> Estimator:
    import skops.io

    strange = _strange_types(data)
    if strange:
        raise RefusedError(
            f"The model has parts of type {', '.join(strange)}: expected only types known to be "
            "safe to load. Whoever maintains Instep may add one after a review.",
            kind="untrusted-model",
            types=strange,
        )
    pipeline = skops.io.loads(data, trusted=list(TRUSTED_TYPES))
    estimator: Estimator = pipeline.named_steps["estimator"]
    return estimator


def _strange_types(data: bytes) -> tuple[str, ...]:
    import skops.io

    found = skops.io.get_untrusted_types(data=data)
    return tuple(sorted(set(found) - set(TRUSTED_TYPES)))


def _encoder(signature: Signature) -> Any:  # scikit-learn has no types
    """Returns the signature's encoding as a transformer, for those who read without Instep.

    It takes the raw columns by position, and gives what `Signature.matrix` gives, but for unseen
    categories, which it takes for missing: refusing them is the guard's work.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OrdinalEncoder, StandardScaler

    def transformer(categories: tuple[str, ...], is_category: bool) -> Any:
        if not is_category:
            # Neither centred nor scaled: it only makes floats, and keeps what is missing.
            return StandardScaler(with_mean=False, with_std=False)
        return OrdinalEncoder(
            categories=[np.array(categories or ("",), dtype=object)],
            handle_unknown="use_encoded_value",
            unknown_value=np.nan,
        )

    features = signature.features
    example = [(f.categories or ("",))[0] if f.type == "category" else 0.0 for f in features]
    return ColumnTransformer(
        [
            (feature.name, transformer(feature.categories, feature.type == "category"), [place])
            for place, feature in enumerate(features)
        ]
    ).fit(np.array([example], dtype=object))


def _card(training: Training, made_at: datetime, run: str, digest: str) -> Card:
    spec = training.spec
    return Card(
        model=spec.model,
        made_at=made_at,
        run=run,
        digest=digest,
        slice=training.slice,
        trained=training.trained,
        dropped=training.folds.dropped,
        intended=Window(training.slice.end, spec.intended_for.after(training.slice.end)),
        target=spec.target,
        key=spec.key,
        time=spec.time,
        known_at=spec.known_after.column,
        outside=spec.outside,
        outside_period=spec.outside_period,
        seed=spec.seed,
        metric=spec.choose,
        acceptable_error=spec.acceptable_error,
        candidates=training.candidates,
        choice=training.choice,
        counts=training.counts,
    )


_MLFLOW_TYPES = {"number": "double", "boolean": "boolean", "category": "string"}


def _mlmodel(card: Card, signature: Signature) -> bytes:
    from ruamel.yaml import YAML

    inputs: list[Json] = [
        {"type": _MLFLOW_TYPES[f.type], "name": f.name, "required": False}
        for f in signature.features
    ]
    outputs: list[Json] = [
        {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}},
    ]
    document = {
        "flavors": {
            "python_function": {
                "loader_module": "mlflow.sklearn",
                "model_path": _MODEL,
                "predict_fn": "predict_proba",
                "python_version": platform.python_version(),
            },
            "sklearn": {
                "pickled_model": _MODEL,
                "serialization_format": "skops",
                "skops_trusted_types": list(TRUSTED_TYPES),
                "sklearn_version": importlib.metadata.version("scikit-learn"),
            },
        },
        "model_uuid": card.digest[:32],
        "signature": {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs)},
        "utc_time_created": format_instant(card.made_at),
        "metadata": {"instep": {"model": card.model, "run": card.run, "digest": card.digest}},
    }
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    out = io.BytesIO()
    yaml.dump(document, out)
    return out.getvalue()


def _requirements(estimator: Estimator) -> str:
    """Returns the packages that reading the model needs, pinned to those it was made with."""
    packages = importlib.metadata.packages_distributions()
    makers = packages.get(type(estimator).__module__.partition(".")[0], [])
    names = sorted({"numpy", "scikit-learn", "skops", *makers})
    return "".join(f"{name}=={importlib.metadata.version(name)}\n" for name in names)


def _json(value: JsonObject) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
