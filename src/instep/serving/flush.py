"""Copies the prediction log into the Iceberg table `predictions` on the system ref `_instep`.

Each record is copied once: how far a segment was copied moves in the transaction that publishes
the rows. The log stays the truth of what was answered; the table is for SQL and for other tools.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from instep import faults
from instep.canonical import Json
from instep.engines.schema import Column, Schema
from instep.errors import ConflictError
from instep.history.commits import make_commit, save_commit
from instep.history.edits import Edit, publish
from instep.history.locks import writing
from instep.history.refs import RefKind, create_ref, find_ref
from instep.history.repository import Repository
from instep.history.store import Transaction
from instep.history.tree import empty_tree
from instep.serving import segments
from instep.serving.log_files import segment_paths, whole_frames
from instep.serving.records import Predicted, PredictionRecord, Refused, decode
from instep.tables.content import TableContent
from instep.tables.read import layout_of, schema_of
from instep.tables.upkeep import look_after
from instep.tables.write import append, create_table, data_folder

if TYPE_CHECKING:
    import pyarrow as pa

REF = "_instep"
TABLE = "predictions"
KEY = f"table/{TABLE}"
AUTHOR = "instep"

ROWS_LIMIT = 100_000
"""Records in one commit, about 60 MB of log: what is held in memory at once."""
MEMORY_LIMIT_BYTES = 512 << 20
THREADS = 1

_COLUMNS = (
    Column(0, "receipt", "string", required=True),
    Column(0, "at", "timestamptz", required=True),
    Column(0, "mode", "string", required=True),
    Column(0, "environment", "string", required=True),
    Column(0, "commit", "string", required=True),
    Column(0, "model", "string", required=True),
    Column(0, "version", "string", required=True),
    Column(0, "digest", "string", required=True),
    Column(0, "key", "string", required=True, doc="JSON"),
    Column(0, "event_at", "timestamptz", required=True),
    Column(0, "features", "string", required=True, doc="JSON"),
    Column(0, "prediction", "double", doc="null where the question was refused"),
    Column(0, "refused", "string", doc="JSON: the reasons; null where it was answered"),
    Column(0, "flags", "string", required=True, doc="JSON"),
)


@dataclass(frozen=True, slots=True)
class Flushed:
    """What one flush copied; `commit` is the head of `_instep`, None where there was nothing.

    `upkeep` says in words what was then done to the files of the table.
    """

    records: int
    commit: str | None
    upkeep: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """Records of one segment, from offset `start` to `end`."""

    segment: str
    start: int
    end: int
    records: tuple[PredictionRecord, ...]


def flush(repo: Repository, folder: Path) -> Flushed:
    """Copies what the log in `folder` has and the table has not, a bounded commit at a time.

    Raises:
        ConflictError (kind "flushed-meanwhile", "keys-moved"): another process copied the same.
        InternalError (kind "prediction-log-damaged").
    """
    copied, commit, upkeep = 0, None, ""
    while parts := tuple(unflushed(repo, folder)):
        commit = copy_parts(repo, parts)
        copied += sum(len(part.records) for part in parts)
        upkeep = look_after(repo, REF, TABLE, lambda _: False) or upkeep  # no run keeps its files
    return Flushed(copied, commit, upkeep)


def unflushed(repo: Repository, folder: Path) -> Iterator[Part]:
    """Yields what the log has and the table has not, `ROWS_LIMIT` records at most."""
    with repo.store.reading() as tx:
        rows = tx.rows("select segment, flushed_bytes from prediction_segments")
    offsets: dict[str, int] = dict(rows)
    room = ROWS_LIMIT
    for path in segment_paths(folder):
        start = offsets.get(path.name, len(segments.MAGIC))
        end = start
        records: list[PredictionRecord] = []
        for frame in whole_frames(path, start):
            if len(records) == room:
                break
            records.append(decode(frame.payload))
            end = frame.end
        if records:
            room -= len(records)
            yield Part(path.name, start, end, tuple(records))
        if room == 0:
            return


def copy_parts(repo: Repository, parts: Sequence[Part]) -> str:
    """Adds the records of `parts` to the table, all or none; returns the commit.

    Raises:
        ConflictError (kind "flushed-meanwhile", "keys-moved").
    """
    with writing(repo.root, repo.store):
        return _copy(repo, parts)


def _copy(repo: Repository, parts: Sequence[Part]) -> str:
    base = _head(repo)
    found = repo.find(base, KEY)
    at = repo.clock()
    content = (
        TableContent.from_content(found)
        if found
        else create_table(repo.root, TABLE, _COLUMNS, at=at)
    )
    content = _append(repo, content, [record for part in parts for record in part.records])
    count = sum(len(part.records) for part in parts)
    edit = Edit(base, {KEY: content.to_content()}, AUTHOR, f"{count} predictions", "flush")
    faults.reached("predictions.flush.before")
    with repo.store.transaction(REF) as tx:
        for part in parts:
            _advance(tx, part)
        commit = publish(tx, repo, REF, edit, kind="flush")
    faults.reached("predictions.flush.after")
    return commit.id


def _append(
    repo: Repository, content: TableContent, records: Sequence[PredictionRecord]
) -> TableContent:
    import pyarrow as pa

    from instep.engines.duckdb import DuckDB

    schema: Schema = schema_of(repo.root, content)
    columns = [pa.field(column.name, _arrow_type(column.type)) for column in _COLUMNS]
    rows = pa.Table.from_pylist([_row(record) for record in records], pa.schema(columns))
    with DuckDB(
        repo.root / "staging", memory_limit_bytes=MEMORY_LIMIT_BYTES, threads=THREADS
    ) as engine:
        engine.connection.register("answered", rows)
        files = engine.write(
            "select * from answered",
            schema,
            data_folder(repo.root, content),
            layout=layout_of(repo.root, content),
        )
    return append(repo.root, content, files, at=repo.clock())


def _arrow_type(iceberg_type: str) -> pa.DataType:
    import pyarrow as pa

    match iceberg_type:
        case "timestamptz":
            return pa.timestamp("us", tz="UTC")
        case "double":
            return pa.float64()
        case _:
            return pa.string()


def _row(record: PredictionRecord) -> dict[str, object]:
    source, question = record.source, record.question
    prediction: float | None = None
    refused: str | None = None
    match record.outcome:
        case Predicted(value):
            prediction = value
        case Refused(reasons):
            refused = _json([reason.to_json() for reason in reasons])
    return {
        "receipt": record.receipt,
        "at": record.at,
        "mode": record.mode,
        "environment": source.environment,
        "commit": source.commit,
        "model": source.model,
        "version": source.version,
        "digest": source.digest,
        "key": _json(question.key),
        "event_at": question.event_at,
        "features": _json(question.features),
        "prediction": prediction,
        "refused": refused,
        "flags": _json(list(record.flags)),
    }


def _json(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _advance(tx: Transaction, part: Part) -> None:
    """Records how far a segment is copied, if it is still where this copy began."""
    row = tx.row(
        "select flushed_bytes, flushed_records from prediction_segments where segment = ?",
        (part.segment,),
    )
    at, records = (int(row[0]), int(row[1])) if row else (len(segments.MAGIC), 0)
    if at != part.start:
        raise ConflictError(
            f"Prediction log segment {part.segment} was copied to byte {at} meanwhile: expected "
            f"{part.start}. Another process flushes; look again.",
            kind="flushed-meanwhile",
            segment=part.segment,
        )
    tx.execute("delete from prediction_segments where segment = ?", (part.segment,))
    tx.execute(
        "insert into prediction_segments (segment, flushed_bytes, flushed_records) "
        "values (?, ?, ?)",
        (part.segment, part.end, records + len(part.records)),
    )


def _head(repo: Repository) -> str:
    """Returns the commit of `_instep`; makes the ref, with nothing in it, when it is first used."""
    with repo.store.transaction(REF) as tx:
        ref = find_ref(tx, REF)
        if ref is not None:
            return ref.commit
        at = repo.clock()
        root = empty_tree(tx, repo.nodes)
        commit = make_commit(root, (), AUTHOR, at, "Instep's own tables", "init")
        save_commit(tx, commit)
        create_ref(tx, REF, RefKind.SYSTEM, commit.id, owner=AUTHOR, at=at, is_protected=True)
        return commit.id
