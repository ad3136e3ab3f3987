"""Runs a pipeline on a branch: one commit with everything it made, or nothing.

Order: capture the pipeline, plan, compute into `staging/<run>`, make tables and models of what was
staged, then publish in one transaction under a live lease. Until that transaction the branch does
not move; after it everything is there. A failed run is recorded with its error.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from instep.canonical import Json, JsonObject, digest_of
from instep.contracts.terms import Contract
from instep.cost.estimate import Actual, describe, describe_bytes, describe_seconds
from instep.engines.engine import FileSet, Slice, WrittenFile
from instep.engines.schema import Schema
from instep.errors import InvalidError, RefusedError
from instep.faults import reached
from instep.history.edits import Edit
from instep.history.ids import new_id
from instep.history.intact import remember_written, written
from instep.history.locks import writing
from instep.history.objects import publish_durably
from instep.history.repository import Repository
from instep.pipelines import capture
from instep.pipelines.compute import Progress
from instep.pipelines.config import SqlStep
from instep.pipelines.draft import DraftDifference, draft_differences
from instep.pipelines.execute import (
    Execution,
    StagedModel,
    StagedTable,
    declared,
)
from instep.pipelines.landing import begin_on, publish_on
from instep.pipelines.lease import LEASE, kept_alive, record_failure
from instep.pipelines.plan import PastPiece, Piece, RunPlan, StepPlan
from instep.pipelines.prepare import Planner, Source, captured_source, check_slices_used
from instep.pipelines.project import RunBudget
from instep.pipelines.records import (
    PieceRecord,
    Run,
    RunState,
    check_lease,
    fail_lost_runs,
    finish_run,
    insert_pieces,
    insert_run,
    take_version,
)
from instep.pipelines.runtime import load_runtime
from instep.tables import write
from instep.tables.content import TableContent
from instep.tables.names import stem_of
from instep.tables.read import data_files, layout_of, schema_of

_MODEL_TYPE = "instep.model.v1"

_OTHER_SHAPE = frozenset({"type-mismatch", "null-in-required", "column-in-layout"})
"""Why a table that is there cannot become what a step gives: then another takes its place."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What is asked for: which pipeline of which project folder, on which branch, by whom."""

    pipeline: str
    folder: Path
    branch: str
    actor: str
    accept_runtime: bool = False
    budget: RunBudget = field(default_factory=RunBudget)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What became of one step: `computed` and `reused` count its pieces."""

    name: str
    output: str
    content: JsonObject
    computed: int
    reused: int
    why: tuple[str, ...]
    actual: Actual | None
    card: JsonObject | None = None
    printed: str = ""

    def to_json(self) -> dict[str, Json]:
        return {
            "step": self.name,
            "writes": self.output,
            "content": self.content,
            "computed": self.computed,
            "reused": self.reused,
            "why": list(self.why),
            "seconds": round(self.actual.seconds, 3) if self.actual else None,
            "memory_bytes": self.actual.memory_bytes if self.actual else None,
            "printed": self.printed,
        }


@dataclass(frozen=True, slots=True)
class RunResult:
    """A run that succeeded; `changed` are the keys that its commit changed, `captured` of them
    those that came from the project folder, `left` the other drafts there that differ."""

    run: Run
    steps: tuple[StepResult, ...]
    changed: tuple[str, ...]
    captured: tuple[str, ...]
    left: tuple[DraftDifference, ...]
    is_new_branch: bool

    def to_json(self) -> dict[str, Json]:
        return {
            **self.run.to_json(),
            "changed": list(self.changed),
            "captured": list(self.captured),
            "not_captured": [difference.to_json() for difference in self.left],
            "new_branch": self.is_new_branch,
        }


def run_pipeline(
    repo: Repository,
    request: RunRequest,
    progress: Progress,
    show_printed: Callable[[str, str], None] = lambda step, text: None,
) -> RunResult:
    """Runs a pipeline and publishes what it made on a branch, which is made if it is missing.

    `show_printed` is called with a step's name and what it prints, while it runs.

    Raises:
        RefusedError (kinds "protected-branch", "over-budget").
        InvalidError: the project, the pipeline or a step is not right; nothing was published.
        ConflictError (kinds "keys-moved", "lease-lost").
        UnavailableError (kind "worker-died", "step-too-long").
    """
    with writing(repo.root, repo.store):
        return _run_pipeline(repo, request, progress, show_printed)


def _run_pipeline(
    repo: Repository,
    request: RunRequest,
    progress: Progress,
    show_printed: Callable[[str, str], None],
) -> RunResult:
    base, is_new = begin_on(repo, request.branch)
    config, captured = capture.read_run(request.folder, request.pipeline)
    source = captured_source(config, captured)
    runtime = load_runtime(repo.here / "cache" / "runtime")
    plan = Planner(repo, base, source, runtime, request.accept_runtime).plan_all()
    check_slices_used(plan)
    check_budget(plan, request.budget)
    captured.store(repo.objects)
    run = Run(
        id=new_id("run"),
        pipeline=request.pipeline,
        branch=request.branch,
        actor=request.actor,
        state=RunState.RUNNING,
        started_at=repo.clock(),
        input_commit=base,
        slice=source.config.slice,
        configuration=tuple(value.to_json() for value in source.config.values),
        code=capture.files_of(source.content),
        code_digest=digest_of("instep.code.v1", capture.files_of(source.content)),
        runtime_digest=runtime.digest,
        runtime_blob=repo.objects.put(runtime.to_bytes()),
        engine=f"duckdb {runtime.packages['duckdb'].version}",
        estimated=plan.estimate.to_json(),
    )
    progress(f"run {run.id[:12]}: {describe(plan.estimate)}")
    with repo.store.transaction(run.id) as tx:
        fail_lost_runs(tx, repo.clock())
        insert_run(tx, run, repo.clock() + LEASE)
    planner = Planner(repo, base, source, runtime, request.accept_runtime)
    left = drafts_left(repo, request.folder, base, captured)
    attempt = _Attempt(
        repo, request, run, source, planner, captured, left, is_new, progress, show_printed
    )
    try:
        with kept_alive(repo, run.id):
            result = attempt.perform(plan)
    except BaseException as error:
        record_failure(repo, run, error)
        raise
    shutil.rmtree(attempt.staging, ignore_errors=True)
    return result


def drafts_left(
    repo: Repository, folder: Path, commit: str, captured: capture.Captured
) -> tuple[DraftDifference, ...]:
    """Returns the drafts in `folder` that are not what `commit` holds and that a run left there."""
    return tuple(
        difference
        for difference in draft_differences(folder, repo, commit)
        if difference.key not in captured.contents
    )


def check_budget(plan: RunPlan, budget: RunBudget) -> None:
    """Holds that a run is estimated to stay within its budget.

    Raises:
        RefusedError (kind "over-budget").
    """
    found = plan.estimate
    limits = []
    if budget.time is not None and found.seconds > budget.time.total_seconds():
        limits.append(
            f"{describe_seconds(found.seconds)}, above "
            f"{describe_seconds(budget.time.total_seconds())}"
        )
    if budget.memory_bytes is not None and found.memory_bytes > budget.memory_bytes:
        limits.append(
            f"{describe_bytes(found.memory_bytes)} memory, above "
            f"{describe_bytes(budget.memory_bytes)}"
        )
    if limits:
        raise RefusedError(
            f"The run is estimated to take {' and '.join(limits)} ({found.basis}): expected it "
            "within budgets.run of instep.yaml. Shorten the slice, or propose a larger budget.",
            kind="over-budget",
        )


@dataclass(slots=True)
class _Attempt:
    """One run under way; `perform` is called once."""

    repo: Repository
    request: RunRequest
    run: Run
    source: Source
    planner: Planner
    captured: capture.Captured
    left: tuple[DraftDifference, ...]
    is_new: bool
    progress: Progress
    show_printed: Callable[[str, str], None]
    results: list[StepResult] = field(default_factory=list)
    pieces: list[PieceRecord] = field(default_factory=list)

    @property
    def staging(self) -> Path:
        return self.repo.here / "staging" / self.run.id

    def perform(self, plan: RunPlan) -> RunResult:
        """Computes every step, then publishes."""
        with Execution(
            self.source,
            self.staging,
            self.request.folder.resolve(),
            self.run.id,
            self.progress,
            self.repo.root,
            self.show_printed,
        ) as execution:
            for step in self.source.config.steps:
                found = self.planner.plan(step)
                result = self._step(found, execution)
                self.results.append(result)
                if isinstance(step, SqlStep):
                    self.planner.made(step.writes, TableContent.from_content(result.content))
        return self._publish(plan)

    def _step(self, plan: StepPlan, execution: Execution) -> StepResult:
        if plan.is_reused and plan.past is not None:
            self.progress(f"{plan.step.name}: nothing that reaches it changed, reused")
            return self._result(plan, plan.past.content, [*plan.past.pieces], None)
        if isinstance(plan.step, SqlStep):
            return self._table(plan, plan.step, execution)
        staged = execution.model(plan, self.source.config.slice, self.repo.clock(), self._files)
        content = self._model_content(staged, plan)
        piece = _past_piece(plan.pieces[0], plan, ())
        result = self._result(plan, content, [piece], staged.actual)
        return replace(result, card=staged.card, printed=staged.printed)

    def _table(self, plan: StepPlan, step: SqlStep, execution: Execution) -> StepResult:
        text = self.planner.contract_of(step.writes)
        contract = declared(text, step.writes) if text else None
        schema = contract.schema if contract else execution.describe(plan, self._files)
        before = self._before(plan, step, schema, contract)
        root = self.repo.root
        layout = layout_of(root, before)
        staged = execution.table(plan, schema_of(root, before), self._files, layout)
        content, names = self._settle(plan, before, staged)
        made = iter(names)
        pieces = [piece.reused or _past_piece(piece, plan, next(made)) for piece in plan.pieces]
        return self._result(plan, content.to_content(), pieces, staged.actual)

    def _before(
        self, plan: StepPlan, step: SqlStep, schema: Schema, contract: Contract | None
    ) -> TableContent:
        """The state of the table that the new files go into: one that is there, or a new one."""
        root, now = self.repo.root, self.repo.clock()
        part, sort = (contract.partition, contract.sort) if contract else ((), ())
        existing = (
            plan.past.content if plan.past else self.repo.find(self.planner.commit, plan.output)
        )
        if existing is not None:
            table = TableContent.from_content(existing)
            try:
                table = write.set_columns(root, table, schema.columns, at=now)
                if contract and contract.has_layout:
                    table = write.set_layout(root, table, part, sort, at=now)
                write.check_layout(root, table)
                return table
            except InvalidError as error:
                if error.kind not in _OTHER_SHAPE or plan.kept:
                    raise  # else no old file stays, and a table of the new shape takes its place
        return write.create_table(
            root, step.writes, schema.columns, at=now, partition=part, sort=sort
        )

    def _settle(
        self,
        plan: StepPlan,
        before: TableContent,
        staged: StagedTable,
    ) -> tuple[TableContent, list[tuple[str, ...]]]:
        root, now = self.repo.root, self.repo.clock()
        reached("run.files.before")
        removed: list[str] = []
        if plan.past is None:
            removed = [file.path for file in data_files(root, before)]
        else:
            dropped = {stem_of(name) for piece in plan.dropped for name in piece.files}
            live = (file.path for file in data_files(root, before))
            removed = [path for path in live if stem_of(path) in dropped]
        folder = write.data_folder(root, before)
        moved = [[_moved(file, folder) for file in files] for _, files in staged.pieces]
        added = [file for files in moved for file in files]
        content = write.replace(root, before, added, removed, at=now)
        reached("run.files.after")
        return content, [tuple(Path(file.path).name for file in files) for files in moved]

    def _model_content(self, staged: StagedModel, plan: StepPlan) -> JsonObject:
        files = {name: self.repo.objects.put_file(staged.folder / name) for name in staged.names}
        with self.repo.store.transaction(plan.output) as tx:
            version = take_version(tx, plan.output.partition("/")[2], self.run.id)
        return {
            "type": _MODEL_TYPE,
            "files": files,
            "digest": staged.digest,
            "run": self.run.id,
            "version": str(version),
        }

    def _files(self, table: str, part: Slice | None) -> FileSet:
        return self.planner.file_set(table, part)

    def _result(
        self,
        plan: StepPlan,
        content: JsonObject,
        pieces: list[PastPiece],
        actual: Actual | None,
    ) -> StepResult:
        self.pieces += [PieceRecord(plan.step.name, plan.output, content, one) for one in pieces]
        reasons = [str(reason) for piece in plan.computed for reason in piece.reasons]
        if any(one.basis.runtime_digest != plan.basis.runtime_digest for one in plan.kept):
            reasons.append("what another runtime computed was accepted")
        return StepResult(
            plan.step.name,
            plan.output,
            content,
            computed=len(plan.computed),
            reused=len(plan.pieces) - len(plan.computed),
            why=tuple(dict.fromkeys(reasons)),
            actual=actual,
        )

    def _publish(self, plan: RunPlan) -> RunResult:
        made = {result.output: result.content for result in self.results}
        wanted = {**self.captured.contents, **made}
        changes = {
            key: content
            for key, content in wanted.items()
            if self.repo.find(self.planner.commit, key) != content
        }
        edit = Edit(
            base=self.planner.commit,
            changes=changes,
            author=self.run.actor,
            message=f"Run {self.run.pipeline} on {self.source.config.slice}",
            origin=self.run.id,
            reads=plan.reads,
        )
        reached("run.publish.before")
        with self.repo.store.transaction(self.request.branch) as tx:
            check_lease(tx, self.run.id, self.repo.clock())
            commit = publish_on(tx, self.repo, self.request.branch, edit, self.run)
            run = self._finished(commit)
            finish_run(tx, run)
            insert_pieces(tx, run.id, self.pieces)
        reached("run.publish.after")
        changed = tuple(sorted(changes))
        captured = tuple(key for key in changed if key not in made)
        return RunResult(run, tuple(self.results), changed, captured, self.left, self.is_new)

    def _finished(self, commit: str) -> Run:
        actuals = {one.name: one.actual for one in self.results if one.actual is not None}
        ended_at = self.repo.clock()
        return replace(
            self.run,
            state=RunState.SUCCEEDED,
            ended_at=ended_at,
            output_commit=commit,
            steps=tuple(result.to_json() for result in self.results),
            outputs={result.output: result.content for result in self.results},
            metrics={one.output: one.card for one in self.results if one.card is not None},
            actual=_actual_json(actuals, ended_at - self.run.started_at),
        )


def _past_piece(piece: Piece, plan: StepPlan, files: tuple[str, ...]) -> PastPiece:
    assert piece.key is not None, "a piece is computed after its inputs"
    inputs = tuple(one.to_json() for one in piece.inputs)
    return PastPiece(piece.window, piece.key, inputs, plan.basis, files)


def _moved(file: WrittenFile, folder: Path) -> WrittenFile:
    path = folder / Path(file.path).name
    publish_durably(Path(file.path), path)
    remember_written([written(path, file.digest)])
    return replace(file, path=str(path))


def _actual_json(actuals: Mapping[str, Actual], took: timedelta) -> JsonObject:
    return {
        "seconds": round(took.total_seconds(), 3),
        "memory_bytes": max((one.memory_bytes for one in actuals.values()), default=0),
        "steps": {
            name: {
                "kind": one.work.kind.value,
                "rows": one.work.rows,
                "size_bytes": one.work.size_bytes,
                "seconds": round(one.seconds, 3),
                "memory_bytes": one.memory_bytes,
            }
            for name, one in actuals.items()
        },
    }
