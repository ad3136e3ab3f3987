"""A small lake with one contract, and files that arrive in it."""

from __future__ import annotations

import random
from pathlib import Path

from instep.changes.records import load_change
from instep.history.edits import Edit, publish
from instep.history.repository import MAIN, Repository
from instep.pipelines.project import config_content
from instep.tables.content import TableContent
from instep.tables.read import file_set

READINGS = """\
apiVersion: v3.1.0
kind: DataContract
id: readings
version: 1.0.0
status: active
servers:
  - server: stations
    type: local
    path: "readings-*.csv"
    format: csv
    customProperties:
      - {property: nullMarker, value: NA}
schema:
  - name: readings
    customProperties:
      - {property: eventTime, value: at}
      - {property: mergePolicy, value: append}
      - {property: maxQuarantined, value: 0.05}
    quality:
      - {metric: rowCount, mustBeGreaterThan: 0}
    properties:
      - {name: station, logicalType: string, primaryKey: true}
      - {name: at, logicalType: timestamp, primaryKey: true}
      - name: distance
        logicalType: number
        logicalTypeOptions: {minimum: 0, maximum: 5000}
        customProperties: [{property: unit, value: miles}]
      - {name: late, logicalType: integer}
"""

HEADER = "station,at,distance,late"


def merge_contract(
    repo: Repository, text: str, table: str = "readings", approvals: int = 0
) -> None:
    """Puts a contract and two people on main, as a reviewed change would."""
    config = f"lake: lake\npeople: [ana, ben]\npolicies: {{approvals: {{arrival: {approvals}}}}}\n"
    changes = {
        f"contract/{table}": {
            "type": "instep.contract.v1",
            "blob": repo.objects.put(text.encode()),
        },
        "config/instep": config_content(repo.objects.put(config.encode())),
    }
    with repo.store.transaction() as tx:
        publish(tx, repo, MAIN, Edit(repo.resolve(MAIN), changes, "ana", "contract", "test"))


def month(number: int, rows: int = 400) -> list[list[str]]:
    """Rows of one month: hourly readings, distances of ten routes, delays with a long tail."""
    pick = random.Random(number)
    routes = [
        pick.choice((187, 200, 733, 1400, 2475, 94, 1089, 502, 764, 301)) for _ in range(rows)
    ]
    return [
        [
            "ABC"[index % 3],
            f"2013-{number:02}-{1 + index // 24 % 28:02}T{index % 24:02}:00:00Z",
            str(routes[index]),
            "NA" if index % 50 == 7 else str(round(pick.expovariate(0.05)) - 10),
        ]
        for index in range(rows)
    ]


def write(path: Path, rows: list[list[str]], header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


def rows_of(repo: Repository, select: str, table: str = "readings") -> list[tuple[object, ...]]:
    """Returns the rows of one SELECT over a table of main."""
    from instep.engines.duckdb import DuckDB

    content = TableContent.from_content(repo.content(repo.resolve(MAIN), f"table/{table}"))
    with DuckDB(repo.root / "staging") as engine:
        engine.view(file_set(repo.root, content, table))
        return list(engine.rows(select))


def state_of(repo: Repository, number: int) -> str:
    with repo.store.reading() as tx:
        return load_change(tx, number).state.value
