"""Risk of a late arrival: boosted trees over what is known an hour before the departure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sklearn.ensemble import HistGradientBoostingClassifier

if TYPE_CHECKING:
    from instep.models.training import TrainingRows


def fit(
    train: TrainingRows,
    params: dict[str, Any],  # whatever the candidate in pipelines/delay.yaml sets
    seed: int,
) -> HistGradientBoostingClassifier:
    """Returns trees fitted to `train`; early stopping would look at rows out of their time."""
    trees = HistGradientBoostingClassifier(
        categorical_features=train.categorical, early_stopping=False, random_state=seed, **params
    )
    return trees.fit(train.features, train.target)
