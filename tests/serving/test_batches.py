"""Batches: one bad question cannot spoil others, and what waits is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from serving_builders import clock_of, put_lake, question

from instep.clock import system_clock
from instep.errors import UnavailableError
from instep.history.repository import create_repository
from instep.models.signature import Matrix
from instep.serving.batches import WAITING_LIMIT, Answer, Batches
from instep.serving.guard import Admitted
from instep.serving.log_files import read_predictions
from instep.serving.prediction_log import LogMode, PredictionLog
from instep.serving.records import Predicted, Refused
from instep.serving.served import ServedModel, load_served


@dataclass
class Hundredths:
    """An estimator that answers a hundredth of the hour, and cannot bear hour 13."""

    classes_: npt.NDArray[np.generic] = field(default_factory=lambda: np.array([0, 1]))

    def predict_proba(self, features: Matrix) -> npt.NDArray[np.float64]:
        hour = features[:, 0]
        if (hour == 13).any():
            raise ValueError("thirteen")
        return np.column_stack([1 - hour / 100, hour / 100])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    repo = create_repository(tmp_path_factory.mktemp("lake"), system_clock, "ana")
    put_lake(repo)
    served = load_served(repo, "prod").model("delay")
    return replace(served, bundle=replace(served.bundle, estimator=Hundredths()))


def ask(model: ServedModel, folder: Path, hours: Sequence[float]) -> list[Answer]:
    async def together() -> list[Answer]:
        log = PredictionLog(folder, LogMode.DURABLE, clock_of())
        batches = Batches(log, asyncio.get_running_loop())
        try:
            return await asyncio.gather(
                *(
                    batches.answer(model, question(hour=hour), Admitted((hour, "BOS", None), ()))
                    for hour in hours
                )
            )
        finally:
            await asyncio.to_thread(batches.close)

    return asyncio.run(together())


def test_a_question_that_a_model_cannot_bear_does_not_spoil_the_others(
    model: ServedModel, tmp_path: Path
) -> None:
    answers = ask(model, tmp_path, [10, 13, 12])
    outcomes = [answer.draft.outcome for answer in answers]
    assert (outcomes[0], outcomes[2]) == (Predicted(0.1), Predicted(0.12))
    assert isinstance(outcomes[1], Refused) and outcomes[1].is_model_fault
    assert "thirteen" in outcomes[1].message


def test_an_answer_that_is_no_finite_number_is_the_models_fault(
    model: ServedModel, tmp_path: Path
) -> None:
    (answer,) = ask(model, tmp_path, [float("inf")])
    assert isinstance(answer.draft.outcome, Refused) and answer.draft.outcome.is_model_fault


def test_beyond_the_limit_questions_are_turned_away_and_the_others_answered(
    model: ServedModel, tmp_path: Path
) -> None:
    with pytest.raises(UnavailableError) as error:
        ask(model, tmp_path, [9] * (WAITING_LIMIT + 1))
    assert error.value.kind == "too-many-waiting"
    assert len(list(read_predictions(tmp_path))) == WAITING_LIMIT
