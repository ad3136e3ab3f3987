"""What a run would do: for each step and period, computed or reused, and why.

Pure. A piece is one period of one step; its key is the digest of everything that may reach it:
inputs cut to its window, code, configuration, declared columns, runtime. A piece whose key was
computed before is reused. What a step makes of pieces is known only after they are computed, so a
step that reads a computed table is decided again then, by the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from instep.canonical import Json, JsonObject, digest_of
from instep.clock import Window, split
from instep.cost.estimate import Actual, Estimate, Work, WorkKind, estimate, total
from instep.engines.schema import Column
from instep.errors import InvalidError
from instep.pipelines.config import PipelineConfig, SqlStep, Step, TrainStep, output_key
from instep.pipelines.lineage import Lineage
from instep.pipelines.messages import window_json


@dataclass(frozen=True, slots=True)
class FileFact:
    """What a plan needs to know of one data file; `digests` are those that tell its rows."""

    digests: tuple[str, ...]
    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A table read only where `column` lies in `window`."""

    column: str
    window: Window


@dataclass(frozen=True, slots=True)
class TableFacts:
    """The files of a table that may hold rows of a cut, and the columns by which they are read."""

    columns: tuple[Column, ...]
    files: tuple[FileFact, ...]


@dataclass(frozen=True, slots=True)
class Input:
    """A table as one piece reads it; `facts` is None while an earlier step still has to make it.

    The columns in `facts` are those that the step reads.
    """

    table: str
    cut: Cut | None
    facts: TableFacts | None

    @property
    def files(self) -> tuple[FileFact, ...]:
        return self.facts.files if self.facts else ()

    @property
    def digest(self) -> str | None:
        """The digest of the files, and of the columns: another field id finds other values there.

        Their order counts, because a union takes columns by their place.
        """
        if self.facts is None:
            return None
        return digest_of(
            "instep.input.v1",
            {
                "columns": [[c.id, c.name, c.type, c.required] for c in self.facts.columns],
                "files": sorted(one for file in self.facts.files for one in file.digests),
            },
        )

    def to_json(self) -> dict[str, Json]:
        return {
            "table": self.table,
            "column": self.cut.column if self.cut else None,
            "window": window_json(self.cut.window) if self.cut else None,
            "digest": self.digest,
        }


class Cause(StrEnum):
    """Why a piece is computed."""

    FIRST = "not computed before"
    PERIOD = "no earlier run computed this period"
    UPSTREAM = "an input is computed in this run"
    INPUTS = "inputs changed"
    CODE = "code changed"
    CONFIGURATION = "configuration changed"
    CONTRACT = "the contract of the output changed"
    ROWS = "other rows are of the period now"
    RUNTIME = "runtime changed"


@dataclass(frozen=True, slots=True)
class Reason:
    """One cause, with what changed."""

    cause: Cause
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.cause} ({self.detail})" if self.detail else self.cause.value


@dataclass(frozen=True, slots=True)
class Basis:
    """What reaches every piece of a step besides its inputs."""

    code_digest: str
    configuration_digest: str
    contract: str | None
    runtime_digest: str


@dataclass(frozen=True, slots=True)
class PastPiece:
    """A piece as an earlier run computed it; `files` are names in the table's data folder."""

    window: Window | None
    key: str
    inputs: tuple[JsonObject, ...]
    basis: Basis
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Past:
    """The pieces of which an existing content was made, and the run that made it."""

    run: str
    content: JsonObject
    pieces: tuple[PastPiece, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """One period of a step: `reused` is the past piece that stands for it.

    `writes` is the part of its rows that is written; None where all are.
    """

    window: Window | None
    inputs: tuple[Input, ...]
    key: str | None
    reused: PastPiece | None
    reasons: tuple[Reason, ...]
    writes: Cut | None = None


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What one step would do."""

    step: Step
    basis: Basis
    code: Mapping[str, str]
    pieces: tuple[Piece, ...]
    past: Past | None
    lineage: Lineage | None
    estimate: Estimate

    @property
    def output(self) -> str:
        return output_key(self.step)

    @property
    def computed(self) -> tuple[Piece, ...]:
        return tuple(piece for piece in self.pieces if piece.reused is None)

    @property
    def is_reused(self) -> bool:
        """Whether the step's earlier output stands as it is."""
        return not self.computed and self.past is not None and not self.dropped

    @property
    def kept(self) -> tuple[PastPiece, ...]:
        """The past pieces that the new output has too."""
        return tuple(piece.reused for piece in self.pieces if piece.reused)

    @property
    def dropped(self) -> tuple[PastPiece, ...]:
        """The past pieces that the new output does not have."""
        kept = {piece.key for piece in self.kept}
        return tuple(one for one in (self.past.pieces if self.past else ()) if one.key not in kept)

    def to_json(self) -> dict[str, Json]:
        return {
            "step": self.step.name,
            "writes": self.output,
            "reused": self.is_reused,
            "code": dict(self.code),
            "code_digest": self.basis.code_digest,
            "configuration_digest": self.basis.configuration_digest,
            "lineage": self.lineage.to_json() if self.lineage else None,
            "pieces": [
                {
                    "window": window_json(piece.window) if piece.window else None,
                    "writes_by": piece.writes.column if piece.writes else None,
                    "inputs": [one.to_json() for one in piece.inputs],
                    "key": piece.key,
                    "reused": piece.reused is not None,
                    "why": [str(reason) for reason in piece.reasons],
                }
                for piece in self.pieces
            ],
            "estimated": self.estimate.to_json(),
        }


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run of one pipeline on one commit would do."""

    config: PipelineConfig
    commit: str
    steps: tuple[StepPlan, ...]
    runtime_digest: str

    @property
    def estimate(self) -> Estimate:
        return total(step.estimate for step in self.steps)

    @property
    def reads(self) -> frozenset[str]:
        """The keys that the run relies on and does not make."""
        made = {step.output for step in self.steps}
        read = {
            f"table/{one.table}" for step in self.steps for p in step.pieces for one in p.inputs
        }
        return frozenset(read - made)

    def to_json(self) -> dict[str, Json]:
        return {
            "pipeline": self.config.name,
            "commit": self.commit,
            "slice": window_json(self.config.slice),
            "configuration": [value.to_json() for value in self.config.values],
            "runtime_digest": self.runtime_digest,
            "steps": [step.to_json() for step in self.steps],
            "estimated": self.estimate.to_json(),
        }


FactsOf = Callable[[str, Cut | None], TableFacts | None]
"""Gives a table's columns and the files that may hold rows of a cut; None if it is yet to be made.
"""


def plan_step(
    step: Step,
    config: PipelineConfig,
    lineage: Lineage | None,
    basis: Basis,
    code: Mapping[str, str],
    facts_of: FactsOf,
    past: Past | None,
    actuals: Sequence[Actual],
    expected: Mapping[str, tuple[int, int]],
    *,
    accept_runtime: bool = False,
    runtime_change: str = "",
) -> StepPlan:
    """Returns which pieces of a step are reused from `past`, and which are computed, and why.

    `expected` guesses the rows and bytes of tables that are yet to be made; `runtime_change` says
    what is other in the runtime than when `past` was computed.
    """
    found = list(_pieces(step, config, lineage, facts_of))
    column = row_time(step, config, lineage) if isinstance(step, SqlStep) and lineage else None
    pieces = tuple(
        _piece(
            window,
            inputs,
            Cut(column, window) if column and window else None,
            basis,
            past,
            accept_runtime,
            runtime_change,
        )
        for window, inputs in found
    )
    work = _work(step, pieces, expected)
    return StepPlan(step, basis, code, pieces, past, lineage, estimate(work, actuals))


def row_time(step: SqlStep, config: PipelineConfig, lineage: Lineage) -> str | None:
    """Returns the column of a step's output by which it writes only the rows of its window.

    None where no row is made without a table that is cut to the window itself, or none of a
    table that is read with a lookback. Otherwise each row must be made of one row of one such
    table and of no other that is cut by time: its time is that of the row.

    Raises:
        InvalidError (kind "rows-without-time"): periods would write the same rows, and it cannot
            be told for certain which column tells of which of them a row is.
    """
    if step.time is not None:
        return step.time
    cuts = {table: config.slices[table] for table in lineage.tables if table in config.slices}
    longer = {table for table, cut in cuts.items() if cut.lookback}
    unbounded = [
        row
        for row in lineage.rows
        if not row.always & (cuts.keys() - longer) and (row.always | row.maybe) & longer
    ]
    if not unbounded:
        return None
    named = {table for row in lineage.rows for table in row.always | row.maybe if table in cuts}
    times = {table: f"{table}.{cuts[table].time.lower()}" for table in sorted(named)}
    copies = [name for name, source in lineage.copies.items() if source in times.values()]
    is_told = len(named) == 1 and all(row.always - row.maybe >= named for row in lineage.rows)
    if is_told and copies:
        own = [name for name in copies if f".{name}" in "".join(times.values())]
        return (own or copies)[0]
    if step.every is None and not copies:
        return None
    raise _without_time(step, config, times, copies, is_told)


def _without_time(
    step: SqlStep,
    config: PipelineConfig,
    times: Mapping[str, str],
    copies: Sequence[str],
    is_told: bool,
) -> InvalidError:
    how = f"is computed every {step.every}" if step.every else "is computed for the slice"
    tables = ", ".join(f'"{table}"' for table in times)
    mend = (
        f"Select {', '.join(times.values())} as it is, or name the column with `time`."
        if is_told or not copies
        else f"Name it in the step: {' or '.join(f'`time: {name}`' for name in copies)}."
    )
    return InvalidError(
        f'{config.path}: step "{step.name}" {how} and makes rows of {tables} with a lookback, so '
        "rows of the time before would be written too: expected one column of its output that "
        f"tells of which period a row is. {mend}",
        kind="rows-without-time",
        path=config.path,
        table=next(iter(times)),
    )


def piece_key(
    step_inputs: Sequence[Input], basis: Basis, window: Window | None, writes: Cut | None = None
) -> str | None:
    """Returns the digest of all that may reach a piece; None while an input is not made yet."""
    if any(one.digest is None for one in step_inputs):
        return None
    return digest_of(
        "instep.piece.v1",
        {
            **({"writes": writes.column} if writes else {}),
            "inputs": [one.to_json() for one in step_inputs],
            "window": window_json(window) if window else None,
            "code": basis.code_digest,
            "configuration": basis.configuration_digest,
            "contract": basis.contract,
            "runtime": basis.runtime_digest,
        },
    )


def _pieces(
    step: Step, config: PipelineConfig, lineage: Lineage | None, facts_of: FactsOf
) -> Iterator[tuple[Window | None, tuple[Input, ...]]]:
    match step:
        case SqlStep():
            tables = lineage.tables if lineage else ()
            windows = _windows(step, config, tables)
            for window in windows:
                yield (
                    window,
                    tuple(_input(table, config, window, lineage, facts_of) for table in tables),
                )
        case TrainStep():
            cut = Cut(step.spec.time, config.slice)
            yield config.slice, (Input(step.reads, cut, facts_of(step.reads, cut)),)
        case _:
            assert_never(step)


def _windows(step: SqlStep, config: PipelineConfig, tables: Sequence[str]) -> list[Window | None]:
    is_cut = any(table in config.slices for table in tables)
    if not is_cut and (step.every is not None or step.time is not None):
        what = f"computed every {step.every}" if step.every else f'cut by its column "{step.time}"'
        raise InvalidError(
            f'{config.path}: step "{step.name}" is {what}, but none of its '
            f"tables ({', '.join(tables) or 'none'}) is in `slices`: expected a table that is cut "
            f"by time. Add it to `slices`, or remove `{'every' if step.every else 'time'}`.",
            kind="nothing-to-cut",
            path=config.path,
        )
    if step.every is None:
        return [config.slice if is_cut else None]
    return list(split(config.slice, step.every))


def _input(
    table: str,
    config: PipelineConfig,
    window: Window | None,
    lineage: Lineage | None,
    facts_of: FactsOf,
) -> Input:
    found = config.slice_of(table, window) if window else None
    cut = Cut(*found) if found else None
    facts = facts_of(table, cut)
    if facts is None or lineage is None:
        return Input(table, cut, facts)
    read = {*lineage.reads, f"{table}.{cut.column.lower()}" if cut else ""}
    columns = tuple(one for one in facts.columns if f"{table}.{one.name.lower()}" in read)
    return Input(table, cut, TableFacts(columns, facts.files))


def _piece(
    window: Window | None,
    inputs: tuple[Input, ...],
    writes: Cut | None,
    basis: Basis,
    past: Past | None,
    accept_runtime: bool,
    runtime_change: str,
) -> Piece:
    key = piece_key(inputs, basis, window, writes)
    known = next((one for one in past.pieces if one.window == window), None) if past else None
    reasons = tuple(_reasons(inputs, basis, known, past is not None, runtime_change))
    only_runtime = accept_runtime and {reason.cause for reason in reasons} == {Cause.RUNTIME}
    if known is not None and key is not None and (known.key == key or only_runtime):
        return Piece(window, inputs, known.key, known, (), writes)
    return Piece(window, inputs, key, None, reasons or (Reason(Cause.ROWS),), writes)


def _reasons(
    inputs: Sequence[Input],
    basis: Basis,
    known: PastPiece | None,
    has_past: bool,
    runtime_change: str,
) -> Iterator[Reason]:
    unmade = [one.table for one in inputs if one.facts is None]
    if unmade:
        yield Reason(Cause.UPSTREAM, ", ".join(unmade))
    if known is None:
        if not unmade:
            yield Reason(Cause.PERIOD if has_past else Cause.FIRST)
        return
    if not unmade:
        changed = list(_changed_inputs(inputs, known.inputs))
        if changed:
            yield Reason(Cause.INPUTS, ", ".join(changed))
    if basis.code_digest != known.basis.code_digest:
        yield Reason(Cause.CODE)
    if basis.configuration_digest != known.basis.configuration_digest:
        yield Reason(Cause.CONFIGURATION)
    if basis.contract != known.basis.contract:
        yield Reason(Cause.CONTRACT)
    if basis.runtime_digest != known.basis.runtime_digest:
        yield Reason(Cause.RUNTIME, runtime_change)


def _changed_inputs(inputs: Sequence[Input], before: Sequence[JsonObject]) -> Iterator[str]:
    past = {str(one["table"]): one for one in before}
    for one in inputs:
        if past.get(one.table) != one.to_json():
            yield one.table
    now = {one.table for one in inputs}
    yield from (table for table in past if table not in now)


def _work(step: Step, pieces: Sequence[Piece], expected: Mapping[str, tuple[int, int]]) -> Work:
    kind = WorkKind.SQL if isinstance(step, SqlStep) else WorkKind.TRAIN
    inputs = [one for piece in pieces if piece.reused is None for one in piece.inputs]
    # A file may reach several periods; DuckDB then reads only the rows of each.
    files = {(one.table, file) for one in inputs for file in one.files}
    unmade = {one.table for one in inputs if one.facts is None}
    guesses = [expected.get(table, (0, 0)) for table in unmade]
    return Work(
        kind,
        sum(file.rows for _, file in files) + sum(rows for rows, _ in guesses),
        sum(file.size_bytes for _, file in files) + sum(size for _, size in guesses),
    )
