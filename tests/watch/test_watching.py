"""A released model watched on a real lake: recomputed in staging, joined, nothing published."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from instep.canonical import JsonObject, to_microseconds
from instep.clock import Clock, Window, parse_instant
from instep.engines.duckdb import DuckDB
from instep.engines.engine import Slice
from instep.errors import InvalidError, NotFoundError
from instep.history.edits import Edit, publish
from instep.history.refs import RefKind, create_ref, get_ref
from instep.history.repository import MAIN, Repository, create_repository
from instep.pipelines.run import RunRequest, run_pipeline
from instep.serving import segments
from instep.serving.prediction_log import LogMode, PredictionLog
from instep.serving.records import Draft, Predicted, Question, Source
from instep.tables.content import TableContent
from instep.tables.read import file_set, schema_of
from instep.tables.write import append, create_table, data_folder
from instep.watch.recompute import compute_events, find_maker
from instep.watch.watching import watch_environment

FILES = {
    "instep.yaml": "lake: lake\npeople: [ana, ben]\nenvironments: {prod: {}}\n",
    "pipelines/delay.yaml": """\
pipeline: delay
slice: {from: 2013-01-01, to: 2013-03-22}
slices: {flights: left_at, weather: {time: left_at, lookback: 1 hour}}
acceptable_error: {metric: precision, at: 0.5, at_least: 0.3, why: One in three is worth a call.}
steps:
  - {step: windy, sql: steps/windy.sql, writes: windy, every: 1 month}
  - {step: departures, sql: steps/departures.sql, writes: departures}
  - step: delay
    train: steps/delay.py:fit
    reads: departures
    model: delay
    target: late
    key: [flight, left_at]
    time: left_at
    known_after: {at_most: 6 hours, column: known_at}
    features: [carrier, wind]
    windows: {train: 20 days, test: 10 days, step: 10 days}
    candidates:
      - {name: tree, params: {max_depth: 2}}
    choose: {metric: roc_auc, by: stability}
    intended_for: 30 days
    seed: 7
""",
    "steps/windy.sql": """\
select flights.*, weather.wind from flights
left join weather on weather.left_at = flights.left_at - interval 1 hour
""",
    "steps/departures.sql": "select *, left_at + interval 3 hour as known_at from windy\n",
    "steps/delay.py": """\
from sklearn.tree import DecisionTreeClassifier


def fit(train, params, seed):
    return DecisionTreeClassifier(random_state=seed, **params).fit(train.features, train.target)
""",
}

RELEASED = 80 * 24
"""Hours from 2013-01-01 to the end of the slice."""


@dataclass(frozen=True, slots=True)
class Lake:
    """A lake whose `prod` is what the pipeline made of the hours before 2013-03-22."""

    repo: Repository
    folder: Path
    clock: Clock

    def add(self, table: str, select: str) -> None:
        """Appends rows to a table of main, as a commit of its own."""
        repo = self.repo
        base = repo.resolve(MAIN)
        before = repo.find(base, f"table/{table}")
        with DuckDB(self.folder / "scratch") as engine:
            columns = engine.describe(select).columns
            content = (
                TableContent.from_content(before)
                if before
                else create_table(repo.root, table, columns, at=repo.clock())
            )
            files = engine.write(
                select, schema_of(repo.root, content), data_folder(repo.root, content)
            )
        content = append(repo.root, content, files, at=repo.clock())
        changes: dict[str, JsonObject | None] = {f"table/{table}": content.to_content()}
        edit = Edit(base, changes, "ana", f"{table} arrived", "arr_1")
        with repo.store.transaction() as tx:
            publish(tx, repo, MAIN, edit)

    def hours(self, first: int, last: int, late_percent: int) -> None:
        """Adds flights and weather of the hours since 2013-01-01 in `[first, last)`."""
        self.add(
            "flights",
            f"""select cast(i % 7 as bigint) as flight,
                timestamptz '2013-01-01 00:00:00+00' + to_hours(cast(i as int)) as left_at,
                ['A', 'B', 'C'][cast(hash(i) % 3 as int) + 1] as carrier,
                case when hash(i, 'x') % 100 < 3 then null
                     else hash(i, 'l') % 100 < {late_percent}
                        + case when hash(i - 1, 'w') % 30 > 22 then 50 else 0 end end as late
            from range({first}, {last}) hours(i)""",
        )
        self.add(
            "weather",
            f"""select timestamptz '2013-01-01 00:00:00+00' + to_hours(cast(i as int)) as left_at,
                cast(hash(i, 'w') % 30 as double) as wind
            from range({first}, {last}) hours(i)""",
        )

    def run(self) -> None:
        done = run_pipeline(
            self.repo, RunRequest("delay", self.folder, "try", "ana"), lambda text: None
        )
        with self.repo.store.transaction() as tx:
            create_ref(
                tx,
                "prod",
                RefKind.ENVIRONMENT,
                get_ref(tx, done.run.branch).commit,
                owner="ana",
                at=self.clock(),
            )


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return made_in(tmp_path_factory.mktemp("project"), FILES)


def made_in(folder: Path, project: dict[str, str]) -> Lake:
    for name, text in project.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    seconds = itertools.count()

    def clock() -> datetime:
        return datetime(2013, 12, 1, tzinfo=UTC) + timedelta(seconds=next(seconds))

    made = Lake(create_repository(folder / "lake", clock, "ana"), folder, clock)
    made.hours(0, RELEASED, 25)
    made.run()
    return made


def quiet(text: str) -> None:
    return None


def answer(lake: Lake, digest: str, hours: Sequence[int], value: float) -> None:
    log = PredictionLog(lake.repo.root / "predictions", LogMode.DURABLE, lake.clock)
    for hour in hours:
        at = datetime(2013, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
        question = Question({"flight": hour % 7, "left_at": at.isoformat()}, at, {})
        source = Source("prod", "c", "delay", "1", digest)
        log.append([Draft(source, question, Predicted(value), ())])
    log.close()


def test_before_anything_has_come_there_is_nothing_to_watch(lake: Lake) -> None:
    with pytest.raises(InvalidError) as error:
        watch_environment(lake.repo, "prod", quiet)

    assert error.value.kind == "nothing-to-watch"


def test_a_model_that_is_not_there_is_not_found(lake: Lake) -> None:
    with pytest.raises(NotFoundError) as error:
        watch_environment(lake.repo, "prod", quiet, only="dealy")

    assert error.value.kind == "nothing-to-serve"


def test_a_fall_is_told_with_its_commits_and_answers_and_publishes_nothing(lake: Lake) -> None:
    lake.hours(RELEASED, RELEASED + 30 * 24, 5)
    before = lake.repo.resolve(MAIN), lake.repo.resolve("prod")
    digest = str(lake.repo.content(before[1], "model/delay")["digest"])
    answer(lake, digest, range(RELEASED, RELEASED + 10), 0.75)

    watch = watch_environment(lake.repo, "prod", quiet)

    (found,) = watch.models
    assert found.alert.finding.kind == "calibration-moved"
    assert found.comparison.rows == 30 * 24
    assert found.comparison.window.end == parse_instant("2013-04-21")
    assert (found.receipts.answered, found.receipts.acting) == (10, 10)
    assert found.receipts.unmatched == 0
    # The weather of the hour before the first new one is joined, though it lies before the slice.
    assert all(s.text.split(" ")[0] != "missing" for s in found.comparison.shifts)
    text = watch.to_text()
    assert "changed flights: flights arrived." in text
    assert "changed weather: weather arrived." in text
    assert text.count("Commit ") == 2, "what came before the release is not named"
    assert "instep run delay --branch delay-2013-04-21" in text
    assert "instep rollback" not in text, "there is no version to go back to"
    assert (lake.repo.resolve(MAIN), lake.repo.resolve("prod")) == before
    assert not list((lake.repo.root / "staging").iterdir())


def test_answers_from_before_the_model_was_live_are_not_read(lake: Lake) -> None:
    folder = lake.repo.root / "predictions"
    before = to_microseconds(datetime(2013, 11, 1, tzinfo=UTC)) // 1000
    old = folder / segments.segment_name(before, "0" * 8)
    record = segments.framed(b'{"receipt":"no record"}')
    old.write_bytes(segments.MAGIC + b"x" + record)  # whoever reads it cannot miss it
    try:
        (found,) = watch_environment(lake.repo, "prod", quiet).models
    finally:
        old.unlink()
    assert found.receipts.answered == 10


def test_watching_may_end_earlier(lake: Lake) -> None:
    until = parse_instant("2013-04-01")

    (found,) = watch_environment(lake.repo, "prod", quiet, until=until).models

    assert found.comparison.window.end == until
    assert found.comparison.rows == 10 * 24


def test_a_model_is_watched_with_the_pipeline_that_made_it(lake: Lake) -> None:
    content = lake.repo.content(lake.repo.resolve("prod"), "model/delay")

    source, step = find_maker(lake.repo, content, "delay")

    assert step.model == "delay"
    assert source.files[step.path].decode() == FILES[step.path]


def test_a_model_whose_run_is_not_recorded_cannot_be_watched(lake: Lake) -> None:
    content = {**lake.repo.content(lake.repo.resolve("prod"), "model/delay"), "run": "run_none"}

    with pytest.raises(NotFoundError) as error:
        find_maker(lake.repo, content, "delay")

    assert error.value.kind == "no-such-run"


@pytest.mark.parametrize("windy", ["left_at", "{time: left_at, lookback: 1 day}"])
def test_watched_events_are_those_that_training_read_whatever_was_looked_back_at(
    tmp_path: Path, windy: str
) -> None:
    pipeline = FILES["pipelines/delay.yaml"]
    cut = "flights: left_at, weather: {time: left_at, lookback: 1 hour}"
    slices = f"flights: {{time: left_at, lookback: 2 days}}, windy: {windy}"
    project = {
        **FILES,
        "pipelines/delay.yaml": pipeline.replace(cut, slices).replace(
            "writes: departures}", "writes: departures, every: 1 month}"
        ),
        "steps/windy.sql": """select *, coalesce(sum(flight) over (order by left_at range between
            interval 2 day preceding and interval 1 hour preceding), 0)::double as wind
            from flights""",
        "steps/departures.sql": """select *, left_at + interval 3 hour as known_at,
            row_number() over (order by left_at) as place from windy""",
    }
    lake = made_in(tmp_path, project)
    repo = lake.repo
    made = repo.resolve("prod")
    source, step = find_maker(repo, repo.content(made, "model/delay"), "delay")
    february = Window(parse_instant("2013-02-01"), parse_instant("2013-03-01"))

    watched = compute_events(repo, made, source, step, february, quiet)

    table = TableContent.from_content(repo.content(made, "table/departures"))
    with DuckDB(tmp_path / "scratch") as engine:
        engine.view(file_set(repo.root, table, "departures", Slice("left_at", february)))
        trained = engine.arrow("select * from departures")
    assert watched.sort_by("left_at").to_pylist() == trained.sort_by("left_at").to_pylist()
    assert watched.num_rows == 28 * 24


@pytest.mark.parametrize(
    ("slices", "before"),
    [
        ("weather: {time: left_at, lookback: 1 hour}", RELEASED),
        ("flights: {time: left_at, lookback: 2 days}, weather: left_at", 48),
    ],
    ids=["read whole", "lookback"],
)
def test_rows_from_before_the_end_of_training_are_left_out_counted_and_said(
    tmp_path: Path, slices: str, before: int
) -> None:
    cut = "flights: left_at, weather: {time: left_at, lookback: 1 hour}"
    pipeline = FILES["pipelines/delay.yaml"].replace(cut, slices).replace(", every: 1 month", "")
    # No column of the output is the time as it is, so that no row of before is told from others.
    windy = FILES["steps/windy.sql"].replace(
        "flights.*", "flights.* replace (flights.left_at + interval 0 hour as left_at)"
    )
    project = {**FILES, "pipelines/delay.yaml": pipeline, "steps/windy.sql": windy}
    lake = made_in(tmp_path, project)
    with pytest.raises(InvalidError, match=f"only {before:,} rows of before") as nothing:
        watch_environment(lake.repo, "prod", quiet)
    lake.hours(RELEASED, RELEASED + 30 * 24, 25)
    until = parse_instant("2013-04-11")

    (found,) = watch_environment(lake.repo, "prod", quiet, until=until).models

    assert nothing.value.kind == "nothing-to-watch"
    after = 10 * 24 if before == RELEASED else 0
    assert found.comparison.rows == 20 * 24
    assert found.comparison.outside_period == 0
    assert found.comparison.to_json()["left_out"] == {"before": before, "after": after}
    said = "\n".join(found.alert.sentences)
    assert f"{before:,} rows are from before 2013-03-22" in said
    assert ("from after the watched time" in said) == bool(after)
