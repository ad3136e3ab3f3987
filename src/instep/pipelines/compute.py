"""Runs one step over file sets: SQL to Parquet files, or a table to a model bundle.

What comes in names every file that may be read; what goes out lies in the folder that was given.
The catalog is not known here. One thread does the arithmetic: sums of floats then come out the
same every time.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from instep.canonical import JsonObject
from instep.clock import Window
from instep.engines.engine import FileSet, Slice, WrittenFile
from instep.engines.layout import PLAIN, Layout
from instep.engines.schema import Schema
from instep.errors import InvalidError
from instep.pipelines.capture import no_such_function

if TYPE_CHECKING:
    from instep.models.training import Fit
    from instep.pipelines.config import TrainStep

THREADS = 1

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TableWork:
    """One SQL step: the file sets of each period, in order, and what progress calls them.

    `writes` has for each period the part of its rows that is written; None stands for all, and so
    does nothing at all.
    """

    sql: str
    pieces: tuple[tuple[FileSet, ...], ...]
    labels: tuple[str, ...]
    folder: Path
    scratch: Path
    writes: tuple[Slice | None, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainWork:
    """One training step over one file set; its bundle goes to `folder`."""

    step: TrainStep
    table: FileSet
    window: Window
    folder: Path
    scratch: Path
    code: Path
    made_at: datetime
    run: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a training step made: its files, the digest of what was learned, and the card."""

    folder: Path
    names: tuple[str, ...]
    digest: str
    card: JsonObject


def describe_sql(work: TableWork) -> Schema:
    """Returns the columns that a step's SQL gives over its file sets, with ids 0; reads no row."""
    from instep.engines.duckdb import DuckDB

    with DuckDB(work.scratch, threads=THREADS) as engine:
        for file_set in work.pieces[0]:
            engine.view(file_set)
        return engine.describe(work.sql)


def compute_table(
    work: TableWork, schema: Schema, progress: Progress, layout: Layout = PLAIN
) -> tuple[tuple[WrittenFile, ...], ...]:
    """Writes the rows of each piece, in order, and returns its files."""
    from instep.engines.duckdb import DuckDB

    written = []
    with DuckDB(work.scratch, threads=THREADS) as engine:
        for piece in work.pieces:
            for file_set in piece:
                engine.allow_files(file_set)
        writes = work.writes or (None,) * len(work.pieces)
        for label, piece, part in zip(work.labels, work.pieces, writes, strict=True):
            progress(label)
            for file_set in piece:
                engine.view(file_set)
            sql = engine.part_of(work.sql, part) if part else work.sql
            written.append(engine.write(sql, schema, work.folder, layout=layout))
    return tuple(written)


def train_model(work: TrainWork, progress: Progress) -> Bundle:
    """Trains the candidates of a step with the user's `fit`, and saves the bundle of the chosen."""
    from instep.engines.duckdb import DuckDB
    from instep.models.bundle import load_bundle, save_bundle
    from instep.models.training import train

    with DuckDB(work.scratch, threads=THREADS) as engine:
        engine.view(work.table)
        table = engine.arrow(f'select * from "{work.table.name}"')
    fit = import_function(work.code, work.step.path, work.step.function)
    training = train(table, fit, work.step.spec, work.window, progress)
    saved = save_bundle(training, work.folder, work.made_at, work.run)
    card = load_bundle(work.folder).card.to_json()
    return Bundle(saved.folder, saved.names, saved.digest, card)


def import_function(code: Path, path: str, name: str) -> Fit:
    """Returns a function of a captured file; `code` is first on the module path.

    Raises:
        InvalidError (kind "no-such-function").
    """
    module = _import(code, path)
    found = getattr(module, name, None)
    if not callable(found):
        known = [one for one in vars(module) if callable(getattr(module, one))]
        raise no_such_function(path, name, known)
    fit: Fit = found
    return fit


def _import(code: Path, path: str) -> object:
    if str(code) not in sys.path:
        sys.path.insert(0, str(code))
    parts = Path(path).with_suffix("").parts
    if all(part.isidentifier() for part in parts):
        return importlib.import_module(".".join(parts))
    spec = importlib.util.spec_from_file_location("step", code / path)
    if spec is None or spec.loader is None:
        raise InvalidError(
            f"{path} cannot be imported: expected a Python file. Give it the ending .py.",
            kind="bad-python",
            path=path,
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def labels(windows: Sequence[Window | None]) -> tuple[str, ...]:
    """Returns what progress calls each piece."""
    return tuple(str(window) if window else "the whole table" for window in windows)
