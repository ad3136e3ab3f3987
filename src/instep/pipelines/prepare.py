"""Gathers what a plan needs: the pipeline from disk or lake, tables, lineage, and the past.

The reading half of `plan.py`. A `Planner` decides one step after another, because what a step
reads may be what an earlier one makes.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from instep.canonical import JsonObject, digest_of
from instep.engines.engine import DeleteFile, FileSet, Slice
from instep.engines.schema import Schema
from instep.errors import InvalidError
from instep.history.repository import Repository
from instep.pipelines import capture
from instep.pipelines.config import (
    PipelineConfig,
    SqlStep,
    Step,
    TrainStep,
    output_key,
    parse_pipeline,
)
from instep.pipelines.lineage import Lineage, load_lineage
from instep.pipelines.plan import (
    Basis,
    Cut,
    FileFact,
    Past,
    RunPlan,
    StepPlan,
    TableFacts,
    plan_step,
)
from instep.pipelines.records import find_actuals, find_past, load_run
from instep.pipelines.runtime import Runtime, differences, parse_runtime
from instep.tables.content import TableContent
from instep.tables.prune import Reach, reaches
from instep.tables.read import DataFile, data_files, file_set, has_deletes, metadata_path, schema_of

_NAMED_CHANGES = 3
"""How many packages a reason names before it counts the rest."""


@dataclass(frozen=True, slots=True)
class Source:
    """A pipeline with the bytes of its files by path, and drafts of contracts by table."""

    config: PipelineConfig
    content: JsonObject
    files: Mapping[str, bytes]
    contracts: Mapping[str, bytes]

    def code_of(self, step: Step) -> dict[str, str]:
        """Returns the files that reach a step, with their digests."""
        by_digest = {hashlib.sha256(data).hexdigest(): data for data in self.files.values()}
        return capture.files_of_step(self.config, step.name, self.content, by_digest)


def disk_source(folder: Path, name: str) -> Source:
    """Returns the pipeline `name` as the project folder has it now.

    Raises:
        InvalidError: as `capture.read_run`.
    """
    return captured_source(*capture.read_run(folder, name))


def captured_source(config: PipelineConfig, captured: capture.Captured) -> Source:
    """Returns a pipeline as it was captured, with the contracts beside it."""
    content = captured.contents[f"pipeline/{config.name}"]
    files = {path: captured.blobs[one] for path, one in capture.files_of(content).items()}
    contracts = {
        key.partition("/")[2]: captured.blobs[str(one["blob"])]
        for key, one in captured.contents.items()
        if key.startswith("contract/")
    }
    return Source(config, content, files, contracts)


def lake_source(repo: Repository, commit: str, name: str) -> Source:
    """Returns the pipeline `name` as a commit holds it.

    Raises:
        NotFoundError (kind "no-such-key").
    """
    content = repo.content(commit, f"pipeline/{name}")
    files = {path: repo.objects.get(one) for path, one in capture.files_of(content).items()}
    path = capture.pipeline_file(content)
    config = parse_pipeline(files[path].decode(), path)
    return Source(config, content, files, {})


@dataclass(slots=True)
class Planner:
    """Plans the steps of one pipeline on one commit, in their order."""

    repo: Repository
    commit: str
    source: Source
    runtime: Runtime
    accept_runtime: bool = False
    is_fresh: bool = False
    """Whether nothing may be reused."""
    _made: dict[str, TableContent | None] = field(default_factory=dict)
    _columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    _tables: dict[str, _Loaded] = field(default_factory=dict)

    def plan_all(self) -> RunPlan:
        """Returns the plan of all steps; what an unmade table will hold is not known yet."""
        steps = []
        for step in self.source.config.steps:
            found = self.plan(step)
            steps.append(found)
            if isinstance(step, SqlStep):
                made = found.past.content if found.is_reused and found.past else None
                self.made(step.writes, TableContent.from_content(made) if made else None)
        return RunPlan(self.source.config, self.commit, tuple(steps), self.runtime.digest)

    def plan(self, step: Step) -> StepPlan:
        """Returns the plan of one step; the steps before it were told to `made`.

        Raises:
            InvalidError: its SQL, its columns or its slices do not fit the tables there are.
        """
        lineage = self._lineage(step)
        code = self.source.code_of(step)
        contract = self.contract_of(step.writes) if isinstance(step, SqlStep) else None
        past = self._past(output_key(step))
        if past is None and isinstance(step, SqlStep):
            self._refuse_arrivals(step, contract)
        basis = Basis(
            code_digest=digest_of("instep.code.v1", code),
            configuration_digest=self.source.config.configuration_digest(step),
            contract=hashlib.sha256(contract).hexdigest() if contract is not None else None,
            runtime_digest=self.runtime.digest,
        )
        if isinstance(step, SqlStep) and lineage is not None:
            self._columns[step.writes] = tuple(lineage.columns)
            self._sizes[step.writes] = self._largest(lineage.tables)
        with self.repo.store.reading() as tx:
            actuals = find_actuals(tx, self.source.config.name, step.name)
        return plan_step(
            step,
            self.source.config,
            lineage,
            basis,
            code,
            self.facts_of,
            past,
            actuals,
            self._sizes,
            accept_runtime=self.accept_runtime,
            runtime_change=self._runtime_change(past),
        )

    def made(self, table: str, content: TableContent | None) -> None:
        """Tells what an earlier step made of a table; None while it is yet to be made."""
        self._made[table] = content

    def table(self, name: str) -> TableContent | None:
        """Returns a table as steps see it: what this run made of it, or what the commit holds."""
        if name in self._made:
            return self._made[name]
        content = self.repo.find(self.commit, f"table/{name}")
        return TableContent.from_content(content) if content is not None else None

    def contract_of(self, name: str) -> bytes | None:
        """Returns the contract of a table: the source's draft, or else what the commit holds."""
        draft = self.source.contracts.get(name)
        if draft is not None:
            return draft
        content = self.repo.find(self.commit, f"contract/{name}")
        return self.repo.objects.get(str(content["blob"])) if content is not None else None

    def facts_of(self, name: str, cut: Cut | None) -> TableFacts | None:
        """Returns the columns of a table and the files that may hold rows of a cut.

        None if it is yet to be made.

        Raises:
            NotFoundError (kind "no-such-key").
        """
        if self.table(name) is None and name in self._made:
            return None
        found = self._load(name)
        files = found.files(Slice(cut.column, cut.window) if cut else None)
        facts = [FileFact(file.counts_as, file.rows, file.size_bytes) for file in files]
        # Rows deleted in place change what is read, and no data file.
        deletes = {one for file in files for one in found.deletes.get(file.path, ())}
        facts += [FileFact((one.digest,), 0, one.size_bytes) for one in deletes]
        return TableFacts(found.schema.columns, tuple(facts))

    def file_set(self, name: str, part: Slice | None) -> FileSet:
        """Returns a table as an engine reads it, as steps see it.

        Raises:
            NotFoundError (kind "no-such-key").
        """
        found = self._load(name)
        digests = {file.path: file.digest for file in found.files(part)}
        deletes = {path: found.deletes[path] for path in digests if path in found.deletes}
        return FileSet(name, tuple(digests), found.schema, part, deletes, digests)

    def columns_of(self, name: str) -> tuple[str, ...] | None:
        """Returns the columns of a table as steps see it, or None where there is none."""
        if name in self._made and name in self._columns:
            return self._columns[name]
        content = self.table(name)
        return schema_of(self.repo.root, content).names if content else None

    def known_tables(self) -> tuple[str, ...]:
        """Returns the names of all tables that a step could read."""
        kept = (key.partition("/")[2] for key in self.repo.entries(self.commit, "table"))
        return tuple(sorted({*kept, *self._made}))

    def _load(self, name: str) -> _Loaded:
        """Returns the files of a table, decoded once for all the periods that read it."""
        content = self.table(name) or table_of(self.repo, self.commit, name)
        found = self._tables.get(name)
        if found is None or found.content != content:
            root = self.repo.root
            deletes = file_set(root, content, name).deletes if has_deletes(root, content) else {}
            found = _Loaded(content, schema_of(root, content), data_files(root, content), deletes)
            self._tables[name] = found
        return found

    def _largest(self, tables: Sequence[str]) -> tuple[int, int]:
        """The rows and bytes of the largest input: a first guess of what a step will make."""
        sizes = [(0, 0)]
        for table in tables:
            cut = self.source.config.slice_of(table, self.source.config.slice)
            facts = self.facts_of(table, Cut(*cut) if cut else None)
            if facts is None:
                sizes.append(self._sizes.get(table, (0, 0)))
            else:
                size = sum(one.size_bytes for one in facts.files)
                sizes.append((sum(one.rows for one in facts.files), size))
        return max(sizes)

    def _past(self, output: str) -> Past | None:
        if self.is_fresh:
            return None
        with self.repo.store.reading() as tx:
            past = find_past(tx, output, self.repo.find(self.commit, output))
        if past is None or not output.startswith("table/"):
            return past
        content = TableContent.from_content(past.content)
        return past if metadata_path(self.repo.root, content).exists() else None

    def _runtime_change(self, past: Past | None) -> str:
        """What is other in the runtime than when `past` was computed, as a short phrase."""
        ours = self.runtime.digest
        if past is None or all(one.basis.runtime_digest == ours for one in past.pieces):
            return ""
        with self.repo.store.reading() as tx:
            then = load_run(tx, past.run).runtime_blob
        changes = differences(parse_runtime(self.repo.objects.get(then)), self.runtime)
        more = len(changes) - _NAMED_CHANGES
        return ", ".join(changes[:_NAMED_CHANGES]) + (f" and {more} more" if more > 0 else "")

    def _refuse_arrivals(self, step: SqlStep, contract: bytes | None) -> None:
        """Refuses to write over a table that arrivals fill."""
        if contract is None or self.repo.find(self.commit, f"table/{step.writes}") is None:
            return
        from instep.contracts.document import parse
        from instep.contracts.terms import MergePolicy

        found = parse(contract.decode(), f"contracts/{step.writes}.yaml")
        if found.merge_policy is not MergePolicy.DERIVED:
            path = self.source.config.path
            raise InvalidError(
                f'{path}: step "{step.name}" writes "{step.writes}", which arrivals fill (merge '
                f"policy {found.merge_policy}): expected a table of its own. Rename the output, "
                "or set mergePolicy: derived in its contract.",
                kind="not-derived",
                path=path,
                table=step.writes,
            )

    def _lineage(self, step: Step) -> Lineage | None:
        self._refuse_order(step)
        if isinstance(step, TrainStep):
            self._check_training(step)
            return None
        found = load_lineage(
            self.repo.here / "cache" / "lineage",
            self.source.files[step.sql].decode(),
            step.sql,
            self.columns_of,
            self.known_tables,
        )
        self._refuse_later(step, found.tables)
        self._check_slices(found)
        if step.time is not None and step.time.lower() not in found.columns:
            path = self.source.config.path
            self._unknown(path, f"steps.{step.name}.time", step.time, tuple(found.columns))
        return found

    def _refuse_order(self, step: Step) -> None:
        if isinstance(step, TrainStep):
            self._refuse_later(step, (step.reads,))

    def _refuse_later(self, step: Step, tables: Sequence[str]) -> None:
        later = set(capture.tables_written(self.source.config)) - self._made.keys()
        for table in tables:
            if table in later:
                raise InvalidError(
                    f'{self.source.config.path}: step "{step.name}" reads "{table}", which this '
                    "pipeline makes only in the same or a later step: expected steps in the order "
                    "of their data. Move the step.",
                    kind="steps-out-of-order",
                    path=self.source.config.path,
                )

    def _check_training(self, step: TrainStep) -> None:
        path = self.source.config.path
        columns = self.columns_of(step.reads)
        if columns is None:
            self._unknown(path, f"steps.{step.name}.reads", step.reads, self.known_tables())
        spec = step.spec
        named = [
            *((name, "features") for name in spec.features),
            *((name, "key") for name in spec.key),
            (spec.target, "target"),
            (spec.time, "time"),
            (spec.known_after.column, "known_after.column"),
        ]
        known = {name.lower() for name in columns or ()}
        for name, key in named:
            if name.lower() not in known:
                self._unknown(path, f"steps.{step.name}.{key}", name, tuple(columns or ()))

    def _check_slices(self, lineage: Lineage) -> None:
        for table in lineage.tables:
            cut = self.source.config.slices.get(table)
            columns = self.columns_of(table) or ()
            if cut is not None and cut.time.lower() not in {name.lower() for name in columns}:
                self._unknown(self.source.config.path, f"slices.{table}", cut.time, columns)

    def _unknown(self, path: str, value: str, name: str, known: Sequence[str]) -> None:
        origins = {one.name: one.origin for one in self.source.config.values}
        origin = origins.get(value) or origins.get(f"{value}.time") or path
        what, kind = (
            ("table", "no-such-table") if value.endswith(".reads") else ("column", "no-such-column")
        )
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        mend = f'Did you mean "{near[0]}"?' if near else "Correct the name."
        raise InvalidError(
            f'{origin}: {what} "{name}" does not exist: expected one of '
            f"{', '.join(known) or 'none yet'}. {mend}",
            kind=kind,
            path=path,
            name=name,
        )


@dataclass(slots=True)
class _Loaded:
    """One state of a table in memory: its columns, all of its files, and what they span."""

    content: TableContent
    schema: Schema
    all_files: tuple[DataFile, ...]
    deletes: Mapping[str, tuple[DeleteFile, ...]]
    spans: dict[str, tuple[Reach, ...]] = field(default_factory=dict)

    def files(self, part: Slice | None) -> tuple[DataFile, ...]:
        """Returns the files that may hold rows of `part`."""
        if part is None:
            return self.all_files
        if part.column not in self.spans:
            column = self.schema.column(part.column)
            self.spans[part.column] = reaches(self.all_files, column)
        found = self.spans[part.column]
        return tuple(reach.file for reach in found if reach.touches(part.window))


def check_slices_used(plan: RunPlan) -> None:
    """Holds that every table in `slices` is read by a step.

    Raises:
        InvalidError (kind "unused-slice").
    """
    read = {one.table for step in plan.steps for piece in step.pieces for one in piece.inputs}
    origins = {value.name: value.origin for value in plan.config.values}
    for table in plan.config.slices:
        if table not in read:
            near = difflib.get_close_matches(table, sorted(read), n=1, cutoff=0.5)
            mend = f'Did you mean "{near[0]}"?' if near else "Remove it."
            name = f"slices.{table}"
            origin = origins.get(name) or origins.get(f"{name}.time") or plan.config.path
            raise InvalidError(
                f'{origin}: "{table}" is cut by time, but no step reads it: expected one of '
                f"{', '.join(sorted(read))}. {mend}",
                kind="unused-slice",
                path=plan.config.path,
            )


def table_of(repo: Repository, commit: str, name: str) -> TableContent:
    """Returns a table that a commit holds.

    Raises:
        NotFoundError (kind "no-such-key").
    """
    return TableContent.from_content(repo.content(commit, f"table/{name}"))
