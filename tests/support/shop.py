"""A small project on disk, and its commands: a shop, its sales, a model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from commands import Done, must, run

CONFIG = """\
lake: lake
people: [ana, ben]
environments: {prod: {}}
"""

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: sales
version: 1.0.0
status: active
servers:
  - {server: till, type: local, path: "sales-*.csv", format: csv}
schema:
  - name: sales
    customProperties:
      - {property: eventTime, value: sold_at}
      - {property: mergePolicy, value: append}
      - {property: maxQuarantined, value: 0.05}
    quality:
      - {metric: rowCount, mustBeGreaterThan: 0}
    properties:
      - {name: id, logicalType: integer, required: true, primaryKey: true, primaryKeyPosition: 1}
      - {name: sold_at, logicalType: timestamp, required: true}
      - {name: shop, logicalType: string, required: true}
      - name: amount
        logicalType: number
        logicalTypeOptions: {minimum: 0, maximum: 100000}
      - {name: paid, logicalType: integer}
"""

PIPELINE = """\
pipeline: demand
slice: {from: 2013-01-01, to: 2013-04-01}
slices: {sales: sold_at}
acceptable_error: {metric: brier, at_most: 0.5, why: any model will do here}
steps:
  - step: orders
    sql: steps/orders.sql
    writes: orders
    every: 1 month
  - step: demand
    train: steps/demand.py:fit
    reads: orders
    model: demand
    target: paid_late
    key: [id]
    time: sold_at
    known_after: {at_most: 48 hours, column: known_at}
    features: [shop, amount]
    windows: {train: 30 days, test: 15 days, step: 15 days}
    candidates:
      - {name: plain, params: {c: 1.0}}
    choose: {metric: roc_auc, by: stability}
    intended_for: 30 days
    seed: 3
"""

ONLY_ORDERS = PIPELINE.partition("  - step: demand\n")[0].replace(
    "acceptable_error: {metric: brier, at_most: 0.5, why: any model will do here}\n", ""
)
"""The pipeline without its model, for what is the same without: training takes seconds."""

ORDERS = """\
select id, sold_at, shop, amount, sold_at + interval 1 day as known_at, paid > 10 as paid_late
from sales
"""

DEMAND = """\
from sklearn.linear_model import LogisticRegression


def fit(train, params, seed):
    return LogisticRegression(C=params["c"], random_state=seed).fit(train.features, train.target)
"""


@dataclass(frozen=True, slots=True)
class Shop:
    """A project folder with the files above."""

    folder: Path

    def instep(self, *words: str, actor: str = "ana", env: dict[str, str] | None = None) -> Done:
        """Runs one command to its end."""
        return run(*words, at=self.folder, actor=actor, env=env)

    def must(self, *words: str, actor: str = "ana") -> Done:
        """Runs one command that is expected to succeed."""
        return must(*words, at=self.folder, actor=actor)

    def month(
        self, month: int, rows: int = 300, header: str = "id,sold_at,shop,amount,paid"
    ) -> str:
        """Writes one month of sales and returns the file's name."""
        name = f"sales-2013-{month:02}.csv"
        (self.folder / name).write_text("\n".join([header, *_sales(month, rows)]) + "\n")
        return name

    def merged(self) -> Shop:
        """Makes the lake and merges the project's own files."""
        self.must("init")
        self.must("propose")
        self.must("approve", "1", actor="ben")
        self.must("merge", "1")
        return self


def make_shop(folder: Path, pipeline: str = PIPELINE) -> Shop:
    """Writes the project's files; there is no lake yet."""
    for name, text in (
        ("instep.yaml", CONFIG),
        ("contracts/sales.yaml", CONTRACT),
        ("pipelines/demand.yaml", pipeline),
        ("steps/orders.sql", ORDERS),
        ("steps/demand.py", DEMAND),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Shop(folder)


def _sales(month: int, rows: int) -> Sequence[str]:
    draw = random.Random(month)
    start = datetime(2013, month, 1, tzinfo=UTC)
    days = (start.replace(month=month + 1) - start).days
    found = []
    for row in range(rows):
        sold = start + timedelta(seconds=row * days * 86_400 // rows)
        shop = draw.choice("abc")
        amount = round(draw.uniform(1, 500), 2)
        late = draw.random() < (0.7 if shop == "a" or amount > 350 else 0.2)
        found.append(
            f"{month * 100_000 + row},{sold:%Y-%m-%dT%H:%M:%SZ},{shop},{amount},{20 if late else 3}"
        )
    return found
