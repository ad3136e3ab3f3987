"""A small project on a real lake: a bakery, its sales and its weather, written without ingest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from instep.canonical import JsonObject
from instep.engines.duckdb import DuckDB
from instep.engines.engine import FileSet
from instep.history.edits import Edit, publish
from instep.history.repository import MAIN, Repository
from instep.pipelines.capture import capture_project
from instep.pipelines.run import RunRequest, RunResult, run_pipeline
from instep.tables import write
from instep.tables.content import TableContent
from instep.tables.read import file_set, schema_of

CONFIG = "lake: lake\npeople: [ana, ben]\n"

SALES_ONLY = """\
pipeline: bread
slice: {from: 2013-01-01, to: 2013-04-01}
slices: {sales: sold_at, weather: {time: seen_at, lookback: 2 hours}}
steps:
  - step: orders
    why: One row per sale, with the weather of the hour before.
    sql: steps/orders.sql
    writes: orders
    every: 1 month                 # only the months whose inputs changed
"""

TRAINING = """\
  - step: late
    train: steps/late.py:fit
    reads: orders
    model: late
    target: late
    key: [id]
    time: sold_at
    known_after: {at_most: 48 hours, column: known_at}
    features: [shop, amount, rain]
    windows: {train: 30 days, test: 15 days}
    candidates:
      - {name: plain, params: {c: 1.0}}
    choose: {metric: roc_auc}
    intended_for: 30 days
    seed: 3
acceptable_error: {metric: brier, at_most: 0.5, why: any model will do here}
"""

ORDERS = """\
select
    sales.id, sales.sold_at, sales.shop, sales.amount, weather.rain,
    sales.sold_at + interval 1 day as known_at,
    sales.amount > 50 as late
from sales
left join weather on weather.seen_at = date_trunc('hour', sales.sold_at) - interval 1 hour
"""

LATE = """\
from sklearn.tree import DecisionTreeClassifier


def fit(train, params, seed):
    tree = DecisionTreeClassifier(max_depth=2, random_state=seed)
    return tree.fit(train.features, train.target)
"""

SALES = """\
select range as id, timestamptz '2013-01-01' + to_hours(range::int) as sold_at,
    ['a', 'b', 'c'][range % 3 + 1] as shop, (range * 37 % 101)::double as amount
from range(24 * 120)
"""

WEATHER = """\
select timestamptz '2012-12-31' + to_hours(range::int) as seen_at, (range * 13 % 7)::double as rain
from range(24 * 122)
"""


def quiet(text: str) -> None:
    """Takes progress and shows it to nobody."""


@dataclass(frozen=True, slots=True)
class Bakery:
    """A project folder with its lake."""

    folder: Path
    repo: Repository

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def edit(self, path: str, before: str, after: str) -> None:
        text = (self.folder / path).read_text(encoding="utf-8")
        assert before in text
        self.write(path, text.replace(before, after))

    def put(self, name: str, sql: str, *, at: str | None = None, anew: bool = False) -> None:
        """Adds a select to the table `name` on main, with a file per month of column `at`.

        The table is made if there is none, or `anew`.
        """
        root = self.repo.root
        base = self.repo.resolve(MAIN)
        with DuckDB(self.folder / "scratch") as engine:
            schema = engine.describe(sql)
            kept = None if anew else self.repo.find(base, f"table/{name}")
            if kept is None:
                table = write.create_table(root, name, schema.columns, at=self.repo.clock())
            else:
                table = TableContent.from_content(kept)
            schema = schema_of(root, table)
            ranges = (
                ["true"] if at is None else [f"{at} >= '{a}' and {at} < '{b}'" for a, b in _MONTHS]
            )
            for condition in ranges:
                part = f"select * from ({sql}) where {condition}"
                files = engine.write(part, schema, write.data_folder(root, table))
                table = write.append(root, table, files, at=self.repo.clock())
        self.publish({f"table/{name}": table})

    def adopt(self) -> None:
        """Brings the project's files to main, as a change that was merged."""
        self._publish(capture_project(self.folder, self.repo.objects))

    def publish(self, tables: dict[str, TableContent]) -> None:
        self._publish({key: table.to_content() for key, table in tables.items()})

    def _publish(self, changes: dict[str, JsonObject]) -> None:
        base = self.repo.resolve(MAIN)
        edit = Edit(base=base, changes=dict(changes), author="ana", message="test", origin="test")
        with self.repo.store.transaction() as tx:
            publish(tx, self.repo, MAIN, edit)

    def run(
        self,
        branch: str = "try",
        pipeline: str = "bread",
        progress: Callable[[str], None] = quiet,
        accept_runtime: bool = False,
    ) -> RunResult:
        request = RunRequest(pipeline, self.folder, branch, "ana", accept_runtime)
        return run_pipeline(self.repo, request, progress)

    def rows(self, ref: str, table: str, order: str = "all") -> list[tuple[object, ...]]:
        content = self.repo.content(self.repo.resolve(ref), f"table/{table}")
        return self.read(file_set(self.repo.root, TableContent.from_content(content), table), order)

    def read(self, files: FileSet, order: str = "all") -> list[tuple[object, ...]]:
        with DuckDB(self.folder / "scratch") as engine:
            engine.view(files)
            return engine.rows(f'select * from "{files.name}" order by {order}')

    def files(self, ref: str, table: str) -> set[str]:
        content = self.repo.content(self.repo.resolve(ref), f"table/{table}")
        found = file_set(self.repo.root, TableContent.from_content(content), table)
        return {Path(path).name for path in found.files}


_MONTHS = [
    ("2012-12-01", "2013-01-01"),
    ("2013-01-01", "2013-02-01"),
    ("2013-02-01", "2013-03-01"),
    ("2013-03-01", "2013-04-01"),
    ("2013-04-01", "2013-05-01"),
]


def make_bakery(folder: Path, repo: Repository, *, trains: bool = False) -> Bakery:
    """Writes the project's files and two tables on main."""
    bakery = Bakery(folder, repo)
    bakery.write("instep.yaml", CONFIG)
    bakery.write("pipelines/bread.yaml", SALES_ONLY + (TRAINING if trains else ""))
    bakery.write("steps/orders.sql", ORDERS)
    if trains:
        bakery.write("steps/late.py", LATE)
    bakery.put("sales", SALES, at="sold_at")
    bakery.put("weather", WEATHER, at="seen_at")
    return bakery
