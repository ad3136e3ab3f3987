"""What is recorded of each run: what went in, what came out, what it took, and how it ended.

One row a run, written when it starts and once more when it ends; its pieces are kept with their
keys, so that a later run finds what it may reuse. Only this module knows the SQL of these tables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from instep.canonical import Json, JsonObject, digest_of, from_microseconds, to_microseconds
from instep.clock import Window, format_instant
from instep.cost.estimate import Actual, Work, WorkKind
from instep.errors import ConflictError, InvalidError, NotFoundError
from instep.history.repository import Repository
from instep.history.retention import Named
from instep.history.store import Row, Transaction
from instep.pipelines.plan import Basis, Past, PastPiece
from instep.tables.content import TableContent

REMEMBERED_RUNS = 5
"""How many earlier runs an estimate rests on: recent ones tell more."""


_KEPT = (
    "exists (select 1 from runs r join commits c on c.id = r.output_commit "
    "where r.id = run_pieces.run)"
)
"""Pieces whose commit was forgotten stay on record, but their files may be gone."""


class RunState(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a pipeline; JSON fields are as `to_json` of their records gave them."""

    id: str
    pipeline: str
    branch: str
    actor: str
    state: RunState
    started_at: datetime
    input_commit: str
    slice: Window
    configuration: tuple[JsonObject, ...]
    code: Mapping[str, str]
    code_digest: str
    runtime_digest: str
    runtime_blob: str
    engine: str
    ended_at: datetime | None = None
    output_commit: str | None = None
    steps: tuple[JsonObject, ...] = ()
    outputs: Mapping[str, JsonObject] = field(default_factory=dict)
    metrics: Mapping[str, JsonObject] = field(default_factory=dict)
    estimated: JsonObject = field(default_factory=dict)
    actual: JsonObject = field(default_factory=dict)
    error: JsonObject | None = None

    def to_json(self) -> dict[str, Json]:
        return {
            "run": self.id,
            "pipeline": self.pipeline,
            "branch": self.branch,
            "actor": self.actor,
            "state": self.state.value,
            "started_at": format_instant(self.started_at),
            "ended_at": format_instant(self.ended_at) if self.ended_at else None,
            "input_commit": self.input_commit,
            "output_commit": self.output_commit,
            "slice": {
                "from": format_instant(self.slice.start),
                "to": format_instant(self.slice.end),
            },
            "configuration": list(self.configuration),
            "code": dict(self.code),
            "code_digest": self.code_digest,
            "runtime_digest": self.runtime_digest,
            "engine": self.engine,
            "steps": list(self.steps),
            "outputs": dict(self.outputs),
            "metrics": dict(self.metrics),
            "estimated": self.estimated,
            "actual": self.actual,
            "error": self.error,
        }


_COLUMNS = (
    "id, pipeline, branch, actor, state, started_at, ended_at, input_commit, output_commit, "
    "slice_from, slice_to, configuration, code, code_digest, runtime_digest, runtime_blob, engine, "
    "steps, outputs, metrics, estimated, actual, error"
)


def insert_run(tx: Transaction, run: Run, lease_until: datetime) -> None:
    """Records that a run has started."""
    marks = ", ".join("?" for _ in range(_COLUMNS.count(",") + 2))
    tx.execute(
        f"insert into runs ({_COLUMNS}, lease_until) values ({marks})",
        (*_values(run), to_microseconds(lease_until)),
    )


def finish_run(tx: Transaction, run: Run) -> None:
    """Records how a run ended.

    Raises:
        ConflictError (kind "lease-lost"): it was given up for lost before.
    """
    assignments = ", ".join(f"{name.strip()} = ?" for name in _COLUMNS.split(","))
    changed = tx.execute(
        f"update runs set {assignments} where id = ? and state = ?",
        (*_values(run), run.id, RunState.RUNNING.value),
    )
    if changed != 1:
        raise _lost(run.id)


def extend_lease(tx: Transaction, run: str, until: datetime) -> bool:
    """Keeps a run alive; says whether it still was."""
    changed = tx.execute(
        "update runs set lease_until = ? where id = ? and state = ?",
        (to_microseconds(until), run, RunState.RUNNING.value),
    )
    return changed == 1


def check_lease(tx: Transaction, run: str, now: datetime) -> None:
    """Holds that a run is alive and may publish.

    Raises:
        ConflictError (kind "lease-lost").
    """
    row = tx.row("select state, lease_until from runs where id = ?", (run,))
    if row is None or row[0] != RunState.RUNNING.value or row[1] < to_microseconds(now):
        raise _lost(run)


def fail_lost_runs(tx: Transaction, now: datetime) -> tuple[str, ...]:
    """Records as failed every run whose process no longer keeps it alive; returns their ids."""
    at = to_microseconds(now)
    rows = tx.rows(
        "select id from runs where state = ? and lease_until < ? order by id",
        (RunState.RUNNING.value, at),
    )
    error = {
        "family": "unavailable",
        "kind": "process-lost",
        "message": "The process of the run ended before the run did. Run it again.",
    }
    lost = []
    for (run,) in rows:
        # It may end, or show that it lives, at this moment: then it is not lost.
        changed = tx.execute(
            "update runs set state = ?, ended_at = ?, error = ? "
            "where id = ? and state = ? and lease_until < ?",
            (RunState.FAILED.value, at, json.dumps(error), run, RunState.RUNNING.value, at),
        )
        if changed:
            lost.append(str(run))
    return tuple(lost)


def load_run(tx: Transaction, text: str) -> Run:
    """Returns the run whose id begins with `text`.

    Raises:
        NotFoundError (kind "no-such-run").
        InvalidError (kind "ambiguous-run").
    """
    prefix = text if text.startswith("run_") else f"run_{text}"
    rows = tx.rows(
        f"select {_COLUMNS} from runs where id >= ? and id < ? order by id limit 2",
        (prefix, prefix + "~"),
    )
    if len(rows) == 1:
        return _run(rows[0])
    if rows:
        raise InvalidError(
            f'"{text}" could be several runs: expected an id that only one begins with. Write '
            "more of it.",
            kind="ambiguous-run",
            run=text,
        )
    raise NotFoundError(
        f'Run "{text}" does not exist: expected the id of a run of this lake. See "instep log".',
        kind="no-such-run",
        run=text,
    )


@dataclass(frozen=True, slots=True)
class PieceRecord:
    """One piece of one step's output, as `find_past` will give it back."""

    step: str
    output: str
    content: JsonObject
    piece: PastPiece


def insert_pieces(tx: Transaction, run: str, pieces: Sequence[PieceRecord]) -> None:
    """Records of which pieces a run's outputs are made."""
    for position, record in enumerate(pieces):
        piece = record.piece
        window = piece.window
        tx.execute(
            "insert into run_pieces (run, step, position, output, content_digest, content, "
            "window_from, window_to, piece_key, inputs, code_digest, configuration_digest, "
            "runtime_digest, files) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                run,
                record.step,
                position,
                record.output,
                content_digest(record.content),
                json.dumps(record.content),
                to_microseconds(window.start) if window else None,
                to_microseconds(window.end) if window else None,
                piece.key,
                json.dumps({"inputs": list(piece.inputs), "contract": piece.basis.contract}),
                piece.basis.code_digest,
                piece.basis.configuration_digest,
                piece.basis.runtime_digest,
                json.dumps(list(piece.files)),
            ),
        )


def find_past(tx: Transaction, output: str, content: JsonObject | None) -> Past | None:
    """Returns of which pieces `content` is made, or, where there is none yet, the latest output.

    None where no run made it, or its commit was forgotten.
    """
    if content is not None:
        row = tx.row(
            f"select run from run_pieces where output = ? and content_digest = ? and {_KEPT} "
            "order by run desc limit 1",
            (output, content_digest(content)),
        )
    else:
        row = tx.row(
            f"select run from run_pieces where output = ? and {_KEPT} order by run desc limit 1",
            (output,),
        )
    if row is None:
        return None
    rows = tx.rows(
        "select content, window_from, window_to, piece_key, inputs, code_digest, "
        "configuration_digest, runtime_digest, files from run_pieces "
        "where run = ? and output = ? order by position",
        (row[0], output),
    )
    return Past(str(row[0]), json.loads(rows[0][0]), tuple(_piece(one) for one in rows))


def is_kept_by_run(repo: Repository, content: TableContent) -> bool:
    """Says whether a run recorded which files of this state are of which period."""
    with repo.store.reading() as tx:
        row = tx.row(
            "select 1 from run_pieces where content_digest = ? limit 1",
            (content_digest(content.to_content()),),
        )
    return row is not None


def find_actuals(tx: Transaction, pipeline: str, step: str) -> list[Actual]:
    """Returns what a step took in the latest runs that computed it."""
    rows = tx.rows(
        "select actual from runs where pipeline = ? and state = ? order by started_at desc limit ?",
        (pipeline, RunState.SUCCEEDED.value, 4 * REMEMBERED_RUNS),
    )
    found = []
    for (text,) in rows:
        one = json.loads(text).get("steps", {}).get(step)
        if one is not None:
            work = Work(WorkKind(one["kind"]), one["rows"], one["size_bytes"])
            found.append(Actual(work, one["seconds"], one["memory_bytes"]))
    return found[:REMEMBERED_RUNS]


def take_version(tx: Transaction, model: str, run: str) -> int:
    """Returns the next version number of a model, which no other run of this lake gets."""
    row = tx.row("select max(version) from model_versions where model = ?", (model,))
    version = (int(row[0]) if row and row[0] is not None else 0) + 1
    tx.execute(
        "insert into model_versions (model, version, run) values (?, ?, ?)", (model, version, run)
    )
    return version


def named_by_runs(tx: Transaction) -> Named:
    """Returns what the records of runs need kept.

    Code and runtime stay while the commit does that they made: as long as there is something to
    explain or reproduce.
    """
    objects: set[str] = set()
    running: set[str] = set()
    rows = tx.rows(
        "select r.id, r.state, r.code, r.runtime_blob from runs r "
        "left join commits c on c.id = r.output_commit where r.state = ? or c.id is not null",
        (RunState.RUNNING.value,),
    )
    for run, state, code, runtime_blob in rows:
        objects.add(runtime_blob)
        objects.update(json.loads(code).values())
        if state == RunState.RUNNING.value:
            running.add(run)
    contents = tuple(
        json.loads(text)
        for (text,) in tx.rows(f"select distinct content from run_pieces where {_KEPT}")
    )
    return Named(frozenset(objects), contents, frozenset(running))


def commits_of_runs(tx: Transaction) -> frozenset[str]:
    """Returns what runs under way read; a run that ended keeps no commit by itself."""
    rows = tx.rows("select input_commit from runs where state = ?", (RunState.RUNNING.value,))
    return frozenset(str(row[0]) for row in rows)


def content_digest(content: JsonObject) -> str:
    return digest_of("instep.content.v1", content)


def _values(run: Run) -> tuple[Any, ...]:
    return (
        run.id,
        run.pipeline,
        run.branch,
        run.actor,
        run.state.value,
        to_microseconds(run.started_at),
        to_microseconds(run.ended_at) if run.ended_at else None,
        run.input_commit,
        run.output_commit,
        to_microseconds(run.slice.start),
        to_microseconds(run.slice.end),
        json.dumps(list(run.configuration)),
        json.dumps(dict(run.code)),
        run.code_digest,
        run.runtime_digest,
        run.runtime_blob,
        run.engine,
        json.dumps(list(run.steps)),
        json.dumps(dict(run.outputs)),
        json.dumps(dict(run.metrics)),
        json.dumps(run.estimated),
        json.dumps(run.actual),
        json.dumps(run.error) if run.error is not None else None,
    )


def _run(row: Row) -> Run:
    return Run(
        id=row[0],
        pipeline=row[1],
        branch=row[2] or "",
        actor=row[3],
        state=RunState(row[4]),
        started_at=from_microseconds(row[5]),
        ended_at=from_microseconds(row[6]) if row[6] is not None else None,
        input_commit=row[7],
        output_commit=row[8],
        slice=Window(from_microseconds(row[9]), from_microseconds(row[10])),
        configuration=tuple(json.loads(row[11])),
        code=json.loads(row[12]),
        code_digest=row[13],
        runtime_digest=row[14],
        runtime_blob=row[15],
        engine=row[16],
        steps=tuple(json.loads(row[17])),
        outputs=json.loads(row[18]),
        metrics=json.loads(row[19]),
        estimated=json.loads(row[20]),
        actual=json.loads(row[21]),
        error=json.loads(row[22]) if row[22] is not None else None,
    )


def _piece(row: Row) -> PastPiece:
    _, start, end, key, inputs, code, configuration, runtime, files = row
    body = json.loads(inputs)
    window = None if start is None else Window(from_microseconds(start), from_microseconds(end))
    basis = Basis(code, configuration, body["contract"], runtime)
    return PastPiece(window, key, tuple(body["inputs"]), basis, tuple(json.loads(files)))


def _lost(run: str) -> ConflictError:
    return ConflictError(
        f"Run {run} was given up for lost, because it gave no sign of life: expected one every "
        "minute. Nothing was published. Run it again.",
        kind="lease-lost",
        run=run,
    )
