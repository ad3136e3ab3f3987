"""Answers questions in small batches: predict together, record together, then let them go.

One thread takes what has come in, asks each model once, appends the batch to the log (group
commit), and wakes the event loop once. An answer leaves only when `PredictionLog.append` has kept
the promise of its mode. The number of waiting questions is bounded.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import assert_never

from instep.errors import InstepError, InternalError, UnavailableError
from instep.serving.guard import Admitted
from instep.serving.prediction_log import LogState, PredictionLog
from instep.serving.records import (
    MODEL_FAILED,
    Draft,
    Outcome,
    Predicted,
    Question,
    Reason,
    Refused,
)
from instep.serving.served import ServedModel

GATHER_S = 0.001
"""How long the first question of a batch waits for others: a tenth of what a user can notice."""
BATCH_LIMIT = 256
"""Questions in one batch; more would make the last one wait for too many records."""
WAITING_LIMIT = 1024
"""Questions waiting in all; beyond it they are turned away, which bounds memory and delay."""
IDLE_S = 0.05
"""How long the thread sleeps at most before it makes batched records durable."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was decided, and its receipt; None when it was not recorded, as the mode allows."""

    draft: Draft
    receipt: str | None


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    model: ServedModel
    question: Question
    verdict: Admitted | Refused
    future: asyncio.Future[Answer]


class Batches:
    """The thread between the endpoints and the log; made and used on one event loop."""

    def __init__(self, log: PredictionLog, loop: asyncio.AbstractEventLoop) -> None:
        self._log = log
        self._loop = loop
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._waiting = 0
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return self._waiting

    @property
    def log_state(self) -> LogState:
        return self._log.state

    async def answer(
        self, model: ServedModel, question: Question, verdict: Admitted | Refused
    ) -> Answer:
        """Returns the recorded answer.

        Raises:
            UnavailableError (kind "too-many-waiting"): over `WAITING_LIMIT`; nothing was done.
            UnavailableError (kind "prediction-log-unavailable"): it could not be recorded.
        """
        if self._waiting >= WAITING_LIMIT:
            raise UnavailableError(
                f"{self._waiting} questions are waiting: expected fewer than {WAITING_LIMIT}. "
                "Ask again in a second, or start another server.",
                kind="too-many-waiting",
            )
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting += 1
        self._queue.put(_Waiting(model, question, verdict, future))
        return await future

    def close(self) -> LogState:
        """Answers what is waiting, ends the log and the thread, and returns the last counts."""
        self._queue.put(None)
        self._thread.join()
        return self._log.close()

    def _work(self) -> None:
        is_open = True
        while is_open:
            batch, is_open = self._take()
            if not batch:
                self._log.sync()
                continue
            try:
                outcomes = _answers(self._log, batch)
            except InstepError as error:
                self._deliver(batch, error)
            except Exception as error:  # a fault of ours must reach its askers, not end the thread
                self._deliver(batch, _fault(error))
            else:
                self._deliver(batch, outcomes)

    def _take(self) -> tuple[list[_Waiting], bool]:
        """Returns the next batch, empty after a moment of idleness, and whether more may come."""
        try:
            first = self._queue.get(timeout=IDLE_S)
        except queue.Empty:
            return [], True
        if first is None:
            return [], False
        batch = [first]
        time.sleep(GATHER_S)
        while len(batch) < BATCH_LIMIT:
            try:
                one = self._queue.get_nowait()
            except queue.Empty:
                break
            if one is None:
                return batch, False
            batch.append(one)
        return batch, True

    def _deliver(self, batch: list[_Waiting], outcome: Sequence[Answer] | InstepError) -> None:
        self._loop.call_soon_threadsafe(self._resolve, batch, outcome)

    def _resolve(self, batch: list[_Waiting], outcome: Sequence[Answer] | InstepError) -> None:
        self._waiting -= len(batch)
        for place, waiting in enumerate(batch):
            if waiting.future.done():  # its client went away
                continue
            if isinstance(outcome, InstepError):
                waiting.future.set_exception(outcome)
            else:
                waiting.future.set_result(outcome[place])


def _answers(log: PredictionLog, batch: Sequence[_Waiting]) -> list[Answer]:
    values = _predictions(batch)
    drafts = [_draft(waiting, value) for waiting, value in zip(batch, values, strict=True)]
    records = log.append(drafts)
    return [
        Answer(draft, record.receipt if record else None)
        for draft, record in zip(drafts, records, strict=True)
    ]


def _draft(waiting: _Waiting, value: float | Exception | None) -> Draft:
    match waiting.verdict:
        case Refused():
            outcome: Outcome = waiting.verdict
            flags: tuple[str, ...] = ()
        case Admitted():
            outcome, flags = _outcome(waiting.model, value), waiting.verdict.flags
        case _:
            assert_never(waiting.verdict)
    return Draft(waiting.model.source, waiting.question, outcome, flags)


def _outcome(model: ServedModel, value: float | Exception | None) -> Outcome:
    if isinstance(value, float) and isfinite(value):
        return Predicted(value)
    return Refused(
        (
            Reason(
                MODEL_FAILED,
                model.source.model,
                f'Model "{model.source.model}" version {model.source.version} gave no answer '
                f"({value!r}): expected a finite one. Roll back, or report it to its owner.",
            ),
        )
    )


def _predictions(batch: Sequence[_Waiting]) -> list[float | Exception | None]:
    """Returns one prediction per question, None for those refused; each model is asked once."""
    values: list[float | Exception | None] = [None] * len(batch)
    for model in {waiting.model: None for waiting in batch}:
        places = [
            place
            for place, waiting in enumerate(batch)
            if waiting.model is model and isinstance(waiting.verdict, Admitted)
        ]
        if places:
            rows = [_row(batch[place]) for place in places]
            for place, value in zip(places, _ask(model, rows), strict=True):
                values[place] = value
    return values


def _row(waiting: _Waiting) -> Admitted:
    assert isinstance(waiting.verdict, Admitted)
    return waiting.verdict


def _ask(model: ServedModel, rows: Sequence[Admitted]) -> Sequence[float | Exception]:
    """Asks a model for several rows; if it fails, for each alone, so that one cannot spoil all."""
    columns = {
        rule.feature.name: [admitted.row[place] for admitted in rows]
        for place, rule in enumerate(model.guard.rules)
    }
    try:
        return model.predict(columns)
    except Exception as error:  # whatever a model raises is its answer to these rows
        if len(rows) == 1:
            return [error]
        return [value for admitted in rows for value in _ask(model, [admitted])]


def _fault(error: Exception) -> InternalError:
    return InternalError(
        f"A batch could not be answered ({type(error).__name__}: {error}): expected an answer to "
        "each question. Report this as a fault of Instep.",
        kind="batch-failed",
    )
