"""Runs an old run again, from its pinned commit and its kept code, and compares what it makes.

Everything happens in a staging folder that is removed afterwards: no branch, table or model is
touched. Tables are compared by their rows, models by their parameters and arrays; never by bytes
of containers.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from instep.canonical import Json, JsonObject
from instep.engines.engine import FileSet, Slice
from instep.engines.schema import Schema, quoted
from instep.engines.types import typed_as
from instep.errors import RefusedError
from instep.history.ids import new_id
from instep.history.repository import Repository
from instep.models.sameness import Different, EqualButForSummation, Identical, Sameness
from instep.pipelines import capture
from instep.pipelines.compute import Progress
from instep.pipelines.config import SqlStep, parse_pipeline
from instep.pipelines.erased import erased_since
from instep.pipelines.execute import Execution, StagedModel, declared, numbered
from instep.pipelines.plan import StepPlan
from instep.pipelines.prepare import Planner, Source
from instep.pipelines.records import Run, RunState, load_run
from instep.pipelines.runtime import differences, load_runtime, parse_runtime
from instep.tables.content import TableContent
from instep.tables.read import file_set, schema_of

FLOAT_TOLERANCE = 1e-9
"""The largest relative difference that another order of summing doubles explains."""

_FLOATS = ("float", "double")


@dataclass(frozen=True, slots=True)
class OutputVerdict:
    """How one output of the run compares with what was kept."""

    key: str
    sameness: Sameness

    def to_json(self) -> dict[str, Json]:
        return {
            "key": self.key,
            "verdict": verdict_name(self.sameness),
            "detail": str(self.sameness),
            "largest_relative_difference": self.sameness.largest_relative_difference
            if isinstance(self.sameness, EqualButForSummation)
            else None,
        }


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A run done again; `runtime` lists what is other than it was then.

    `erased` says of which of its tables rows were erased since: it cannot be made as it was.
    """

    run: Run
    outputs: tuple[OutputVerdict, ...]
    runtime: tuple[str, ...]
    erased: tuple[str, ...] = ()

    @property
    def sameness(self) -> Sameness:
        """The worst of all outputs."""
        return max((one.sameness for one in self.outputs), key=_rank, default=Identical())

    def to_json(self) -> dict[str, Json]:
        return {
            "run": self.run.id,
            "pipeline": self.run.pipeline,
            "input_commit": self.run.input_commit,
            "verdict": verdict_name(self.sameness),
            "outputs": [one.to_json() for one in self.outputs],
            "runtime_changed": list(self.runtime),
            "erased": list(self.erased),
        }


def reproduce_run(repo: Repository, text: str, project: Path, progress: Progress) -> Reproduction:
    """Runs the run `text` again and returns how what it makes compares with what it made.

    Raises:
        NotFoundError (kinds "no-such-run", "no-such-object").
        RefusedError (kind "run-not-finished").
        InvalidError, UnavailableError: as a run.
    """
    with repo.store.reading() as tx:
        run = load_run(tx, text)
    if run.state is not RunState.SUCCEEDED or run.output_commit is None:
        raise RefusedError(
            f"Run {run.id} is {run.state}: expected one that succeeded, because only then there is "
            'something to compare with. Choose another: "instep log".',
            kind="run-not-finished",
            run=run.id,
        )
    runtime = load_runtime(repo.here / "cache" / "runtime")
    source = kept_source(repo, run)
    planner = Planner(repo, run.input_commit, source, runtime, is_fresh=True)
    staging = repo.here / "staging" / new_id("rep")
    try:
        with Execution(
            source, staging, project.resolve(), run.id, progress, repo.root
        ) as execution:
            again = _Again(repo, run, planner, execution, staging, {})
            outputs = tuple(again.verdict(planner.plan(step)) for step in source.config.steps)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    then = parse_runtime(repo.objects.get(run.runtime_blob))
    return Reproduction(run, outputs, differences(then, runtime), erased_since(repo, run))


def kept_source(repo: Repository, run: Run) -> Source:
    """Returns the pipeline as it was when the run ran, from the code that was kept."""
    files = {path: repo.objects.get(digest) for path, digest in run.code.items()}
    content: JsonObject = {"type": capture.PIPELINE_TYPE, "files": dict(run.code)}
    path = capture.pipeline_file(content)
    config = parse_pipeline(files[path].decode(), path)
    contracts = {}
    for step in config.steps:
        if isinstance(step, SqlStep) and run.output_commit is not None:
            contract = repo.find(run.output_commit, f"contract/{step.writes}")
            if contract is not None:
                contracts[step.writes] = repo.objects.get(str(contract["blob"]))
    return Source(config, content, files, contracts)


def verdict_name(sameness: Sameness) -> str:
    """Returns the lasting name of one of the three answers."""
    match sameness:
        case Identical():
            return "identical"
        case EqualButForSummation():
            return "equal but for float summation order"
        case Different():
            return "different"


def compare_rows(before: FileSet, after: FileSet, scratch: Path) -> Sameness:
    """Returns whether two file sets hold the same rows, as multisets, columns by name."""
    if before.schema.names != after.schema.names:
        return Different(
            "columns: " + ", ".join(set(before.schema.names) ^ set(after.schema.names))
        )
    from instep.engines.duckdb import DuckDB

    with DuckDB(scratch, threads=1) as engine:
        engine.view(replace(before, name="before"))
        engine.view(replace(after, name="after"))
        ((old, new),) = engine.rows(
            "select (select count(*) from before), (select count(*) from after)"
        )
        if old != new:
            return Different(f"{old} rows then, {new} now")
        ((missing,),) = engine.rows(
            "select count(*) from (select * from before except all select * from after)"
        )
        if not missing:
            return Identical()
        return _but_for_floats(engine, before.schema, missing)


def _but_for_floats(engine: Any, schema: Schema, missing: int) -> Sameness:
    floats = [column.name for column in schema.columns if column.type in _FLOATS]
    others = [column.name for column in schema.columns if column.type not in _FLOATS]
    if not floats:
        return Different(f"{missing} rows")
    partition = f"partition by {', '.join(map(quoted, others))} " if others else ""
    order = ", ".join(map(quoted, floats))
    sides = [
        f"{name} as (select *, row_number() over ({partition}order by {order}) as pair_ "
        f"from {source})"
        for name, source in (("a", "before"), ("b", "after"))
    ]
    matching = " and ".join(
        [*(f"a.{quoted(one)} is not distinct from b.{quoted(one)}" for one in others),
         "a.pair_ = b.pair_"]
    )  # fmt: skip
    far = ", ".join(_relative(name) for name in floats)
    ((pairs, largest, unpaired),) = engine.rows(
        f"with {', '.join(sides)} select count(*) filter (b.pair_ is not null), "
        f"max(greatest({far})), count(*) filter (b.pair_ is null) "
        f"from a left join b on {matching}"
    )
    if unpaired or not pairs or largest is None or largest > FLOAT_TOLERANCE:
        return Different(f"{missing} rows")
    return EqualButForSummation(float(largest))


def _relative(name: str) -> str:
    """How far two floats are apart, as SQL; infinite where only one of them is a number."""
    a, b = f"a.{quoted(name)}::double", f"b.{quoted(name)}::double"
    return (
        f"case when {a} is not distinct from {b} then 0.0 "
        f"when {a} is null or {b} is null or isnan({a}) or isnan({b}) "
        f"or isinf({a}) or isinf({b}) then 'infinity'::double "
        f"else abs({a} - {b}) / greatest(abs({a}), abs({b})) end"
    )


@dataclass(frozen=True, slots=True)
class _Again:
    """One reproduction under way; `tables` are those that were staged so far."""

    repo: Repository
    run: Run
    planner: Planner
    execution: Execution
    staging: Path
    tables: dict[str, FileSet]

    def verdict(self, plan: StepPlan) -> OutputVerdict:
        """Does one step again and compares what it makes with what the run kept."""
        kept = self.run.outputs[plan.output]
        if isinstance(plan.step, SqlStep):
            made = self._table(plan, plan.step)
            then = file_set(self.repo.root, TableContent.from_content(kept), plan.step.writes)
            return OutputVerdict(plan.output, compare_rows(then, made, self.repo.root / "staging"))
        staged = self.execution.model(plan, self.run.slice, self.repo.clock(), self._files)
        return OutputVerdict(plan.output, self._compare_models(kept, staged))

    def _table(self, plan: StepPlan, step: SqlStep) -> FileSet:
        contract = self.planner.contract_of(step.writes)
        schema = (
            declared(contract, step.writes).schema
            if contract is not None
            else self._described(plan)
        )
        staged = self.execution.table(plan, numbered(schema), self._files)
        paths = tuple(file.path for _, files in staged.pieces for file in files)
        self.tables[step.writes] = FileSet(step.writes, paths, staged.schema)
        self.planner.made(step.writes, None)
        return self.tables[step.writes]

    def _described(self, plan: StepPlan) -> Schema:
        """The columns that the SQL gives; one that is null only has the type that was kept."""
        found = self.execution.describe(plan, self._files)
        kept = TableContent.from_content(self.run.outputs[plan.output])
        return Schema(typed_as(found.columns, schema_of(self.repo.root, kept).columns))

    def _files(self, table: str, part: Slice | None) -> FileSet:
        staged = self.tables.get(table)
        if staged is not None:
            return replace(staged, name=table, slice=part)
        return self.planner.file_set(table, part)

    def _compare_models(self, kept: JsonObject, staged: StagedModel) -> Sameness:
        if kept["digest"] == staged.digest:
            return Identical()
        from instep.models.bundle import load_bundle, read_bundle

        files = capture.files_of(kept)
        then = read_bundle({name: self.repo.objects.get(one) for name, one in files.items()})
        return then.sameness(load_bundle(staged.folder))


def _rank(sameness: Sameness) -> tuple[int, float]:
    match sameness:
        case Identical():
            return 0, 0.0
        case EqualButForSummation(far):
            return 1, far
        case Different():
            return 2, 0.0
