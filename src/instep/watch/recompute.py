"""The events since a model was trained, computed again by its own pipeline on newer data.

Nothing is published: the tables of the pipeline are computed in a staging folder that is removed
afterwards. The steps are those that made the model; only the slice and the data are newer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from instep.canonical import JsonObject
from instep.clock import Window
from instep.engines.bring import brought
from instep.engines.engine import FileSet, Slice
from instep.errors import InternalError, InvalidError
from instep.history.repository import Repository
from instep.pipelines.compute import TableWork, compute_table, describe_sql
from instep.pipelines.config import PipelineConfig, SqlStep, TrainStep
from instep.pipelines.execute import numbered
from instep.pipelines.lineage import Lineage, analyse, parse_select, tables_of
from instep.pipelines.plan import row_time
from instep.pipelines.prepare import Source, table_of
from instep.pipelines.records import load_run
from instep.pipelines.reproduce import kept_source
from instep.tables.read import file_set

if TYPE_CHECKING:
    import pyarrow as pa

Progress = Callable[[str], None]


def find_maker(repo: Repository, content: JsonObject, model: str) -> tuple[Source, TrainStep]:
    """Returns the pipeline that made the model `content`, as its run kept it, and its step.

    Raises:
        NotFoundError (kind "no-such-run"): the lake has no record of the run.
        InternalError (kind "no-maker"): the run did not train it.
    """
    with repo.store.reading() as tx:
        run = load_run(tx, str(content["run"]))
    source = kept_source(repo, run)
    for step in source.config.steps:
        if isinstance(step, TrainStep) and step.model == model:
            return source, step
    raise InternalError(
        f'Run {run.id} is recorded as what made model "{model}" and has no step that trains it. '
        "Report this as a fault of Instep.",
        kind="no-maker",
        model=model,
    )


def tables_read(source: Source) -> frozenset[str]:
    """Returns the tables that a pipeline reads and does not make."""
    steps = [step for step in source.config.steps if isinstance(step, SqlStep)]
    read = {table for step in steps for table in _tables(source, step)}
    trained = {step.reads for step in source.config.steps if isinstance(step, TrainStep)}
    return frozenset((read | trained) - {step.writes for step in steps})


def compute_events(
    repo: Repository, data: str, source: Source, step: TrainStep, window: Window, progress: Progress
) -> pa.Table:
    """Returns the rows that `step` would read for `window`, from the tables of commit `data`."""
    folder = repo.here / "staging"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="watch-", dir=folder) as staging:
        made: dict[str, FileSet] = {}
        for place, (sql, needed) in enumerate(_upstream(source, step, window)):
            progress(f"{sql.name}: {needed}")
            made[sql.writes] = _compute(
                repo, data, source, sql, needed, made, Path(staging) / str(place)
            )
        read = made.get(step.reads)
        return _read(
            read or _input(repo, data, source.config, step.reads, window, Path(staging) / "in")
        )


def _upstream(source: Source, step: TrainStep, window: Window) -> list[tuple[SqlStep, Window]]:
    """Returns the SQL steps that what `step` reads is made of, in order, each with its window.

    It starts earlier where a later step looks back at what the step makes.
    """
    needed, found = {step.reads: window}, []
    for one in reversed(source.config.steps):
        if isinstance(one, SqlStep) and one.writes in needed:
            own = needed[one.writes]
            found.append((one, own))
            for table in _tables(source, one):
                cut = source.config.slice_of(table, own)
                start = cut[1].start if cut else own.start
                known = needed.get(table, window)
                needed[table] = Window(min(start, known.start), window.end)
    return found[::-1]


def _compute(
    repo: Repository,
    data: str,
    source: Source,
    step: SqlStep,
    window: Window,
    made: dict[str, FileSet],
    folder: Path,
) -> FileSet:
    folder.mkdir()
    sql = source.files[step.sql].decode()
    inputs = tuple(
        _cut(made[table], source.config, window)
        if table in made
        else _input(repo, data, source.config, table, window, folder / "in")
        for table in _tables(source, step)
    )
    columns = {one.name: one.schema.names for one in inputs}
    column = _row_time(step, source.config, analyse(sql, step.sql, columns.get))
    writes = Slice(column, window) if column else None
    work = TableWork(sql, (inputs,), (str(window),), folder, folder / "scratch", (writes,))
    schema = numbered(describe_sql(work))
    (written,) = compute_table(work, schema, lambda text: None)
    return FileSet(step.writes, tuple(file.path for file in written), schema)


def _row_time(step: SqlStep, config: PipelineConfig, lineage: Lineage) -> str | None:
    try:
        return row_time(step, config, lineage)
    except InvalidError as error:
        if error.kind != "rows-without-time":
            raise
        # A plan refuses such a step now, so its run is of before that, and wrote all rows.
        return None


def _cut(made: FileSet, config: PipelineConfig, window: Window) -> FileSet:
    cut = config.slice_of(made.name, window)
    return replace(made, slice=Slice(*cut)) if cut else made


def _input(
    repo: Repository,
    data: str,
    config: PipelineConfig,
    table: str,
    window: Window,
    folder: Path,
) -> FileSet:
    cut = config.slice_of(table, window)
    found = file_set(repo.root, table_of(repo, data, table), table, Slice(*cut) if cut else None)
    return brought(found, repo.root, folder)


def _read(files: FileSet) -> pa.Table:
    from instep.engines.duckdb import DuckDB
    from instep.engines.schema import quoted

    with tempfile.TemporaryDirectory() as scratch, DuckDB(Path(scratch)) as engine:
        engine.view(files)
        return engine.arrow(f"select * from {quoted(files.name)}")


def _tables(source: Source, step: SqlStep) -> tuple[str, ...]:
    return tuple(tables_of(parse_select(source.files[step.sql].decode(), step.sql), step.sql))
