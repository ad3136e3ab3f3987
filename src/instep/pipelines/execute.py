"""Computes the steps of a plan in a worker, into a staging folder; publishes nothing.

`run.py` makes tables and models of what was staged; `reproduce.py` compares it and throws it away.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from instep.canonical import Json, JsonObject, to_microseconds
from instep.clock import Window
from instep.cost.estimate import Actual, Work, WorkKind
from instep.engines.bring import brought
from instep.engines.engine import FileSet, Slice, WrittenFile
from instep.engines.layout import PLAIN, Layout
from instep.engines.schema import Schema
from instep.errors import InvalidError
from instep.history.objects import write_durably
from instep.pipelines import messages
from instep.pipelines.compute import Progress, labels
from instep.pipelines.config import SqlStep, TrainStep
from instep.pipelines.plan import Cut, Input, Piece, StepPlan
from instep.pipelines.prepare import Source
from instep.pipelines.supervise import Worker
from instep.tables.columns import with_ids

if TYPE_CHECKING:
    from instep.contracts.terms import Contract

LONGEST_PRINTED = 16_384
"""How many characters of what a step printed are kept with its run: the last ones."""

SetOf = Callable[[str, Slice | None], FileSet]
"""Gives a table, or a slice of it, as files."""


@dataclass(frozen=True, slots=True)
class StagedTable:
    """The files of each computed piece of a SQL step, with the columns they have."""

    schema: Schema
    pieces: tuple[tuple[Piece, tuple[WrittenFile, ...]], ...]
    actual: Actual


@dataclass(frozen=True, slots=True)
class StagedModel:
    """The bundle of a training step, in a folder."""

    folder: Path
    names: tuple[str, ...]
    digest: str
    card: JsonObject
    actual: Actual
    printed: str
    """What the step printed, or the end of it."""


class Execution:
    """The staging folder and the worker of one run; the worker starts when it is first needed."""

    def __init__(
        self,
        source: Source,
        staging: Path,
        project: Path,
        run: str,
        progress: Progress,
        lake: Path,
        show_printed: Callable[[str, str], None] = lambda step, text: None,
    ) -> None:
        self._source = source
        self._staging = staging
        self._project = project
        self._run = run
        self._progress = progress
        self._lake = lake
        self._show_printed = show_printed
        self._printed = ""
        self._worker: Worker | None = None

    def __enter__(self) -> Execution:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._worker is not None:
            self._worker.__exit__(kind, error, trace)

    def describe(self, plan: StepPlan, set_of: SetOf) -> Schema:
        """Returns the columns that a SQL step gives, with ids 0."""
        pieces = (plan.computed or plan.pieces)[:1]
        answer = self._ask(plan, {"act": "describe", **self._table_request(plan, pieces, set_of)})
        return messages.parse_schema(answer)

    def table(
        self, plan: StepPlan, schema: Schema, set_of: SetOf, layout: Layout = PLAIN
    ) -> StagedTable:
        """Computes the pieces of a SQL step that are not reused, into files of a layout."""
        request = self._table_request(plan, plan.computed, set_of)
        started = time.monotonic()
        shape = {"schema": messages.schema_json(schema), "layout": messages.layout_json(layout)}
        answer = self._ask(plan, {"act": "table", **shape, **request})
        written = [
            tuple(messages.parse_written(file) for file in piece) for piece in answer["pieces"]
        ]
        return StagedTable(
            schema,
            tuple(zip(plan.computed, written, strict=True)),
            _actual(plan, started, answer["memory_bytes"]),
        )

    def model(
        self, plan: StepPlan, window: Window, made_at: datetime, set_of: SetOf
    ) -> StagedModel:
        """Trains the model of a training step."""
        step = plan.step
        assert isinstance(step, TrainStep), "only a training step makes a model"
        folder = self._staging / "models" / step.model
        path = self._source.config.path
        started = time.monotonic()
        answer = self._ask(
            plan,
            {
                "act": "train",
                "config": self._source.files[path].decode(),
                "path": path,
                "table": messages.file_set_json(self._set(plan.pieces[0].inputs[0], set_of)),
                "window": messages.window_json(window),
                "folder": str(folder),
                "scratch": str(self._staging / "tmp"),
                "staging": str(self._staging),
                "made_at": to_microseconds(made_at),
                "run": self._run,
            },
        )
        return StagedModel(
            folder,
            tuple(answer["names"]),
            answer["digest"],
            answer["card"],
            _actual(plan, started, answer["memory_bytes"]),
            self._printed,
        )

    def _table_request(
        self, plan: StepPlan, pieces: tuple[Piece, ...], set_of: SetOf
    ) -> dict[str, Json]:
        step = plan.step
        assert isinstance(step, SqlStep), "only a SQL step makes a table"
        return {
            "sql": self._source.files[step.sql].decode(),
            "pieces": [
                [messages.file_set_json(self._set(one, set_of)) for one in piece.inputs]
                for piece in pieces
            ],
            "writes": [messages.slice_json(as_slice(piece.writes)) for piece in pieces],
            "labels": list(labels([piece.window for piece in pieces])),
            "folder": str(self._staging / "tables" / step.writes),
            "scratch": str(self._staging / "tmp"),
        }

    def _set(self, one: Input, set_of: SetOf) -> FileSet:
        """The files of an input, on this machine for the worker."""
        files = set_of(one.table, as_slice(one.cut))
        return brought(files, self._lake, self._staging / "inputs")

    def _ask(self, plan: StepPlan, request: messages.Message) -> Any:  # as the act's answer is
        def progress(text: str) -> None:
            self._progress(f"{plan.step.name}: {text}")

        def printed(text: str) -> None:
            self._printed = (self._printed + text)[-LONGEST_PRINTED:]
            self._show_printed(plan.step.name, text)

        self._printed = ""
        if self._worker is None:
            self._worker = self._start()
        try:
            return self._worker.ask({"step": plan.step.name, **request}, progress, printed)[
                "result"
            ]
        except InvalidError as error:
            if error.kind != "sql-failed" or not isinstance(plan.step, SqlStep):
                raise
            raise InvalidError(
                f'{plan.step.sql}: step "{plan.step.name}" fails. {error.message}',
                kind=error.kind,
                **{**error.facts, "step": plan.step.name, "path": plan.step.sql},
            ) from error

    def _start(self) -> Worker:
        code = self._staging / "code"
        code.mkdir(parents=True)
        for path, data in self._source.files.items():
            write_durably(code / path, data)
        return Worker(code, self._project, self._staging / "worker.log")


def _actual(plan: StepPlan, started: float, memory_bytes: int) -> Actual:
    kind = WorkKind.SQL if isinstance(plan.step, SqlStep) else WorkKind.TRAIN
    work = Work(kind, plan.estimate.rows, plan.estimate.size_bytes)
    return Actual(work, time.monotonic() - started, memory_bytes)


def as_slice(cut: Cut | None) -> Slice | None:
    """Returns the cut of a plan as an engine takes it."""
    return Slice(cut.column, cut.window) if cut else None


def declared(contract: bytes, table: str) -> Contract:
    """Returns the contract of a table."""
    from instep.contracts.document import parse

    return parse(contract.decode(), f"contracts/{table}.yaml")


def numbered(schema: Schema) -> Schema:
    """Returns the columns with the field ids that a new table gives them, from 1."""
    return Schema(with_ids(schema.columns, itertools.count(1)))
