"""From which tables that a run read or made were rows erased since?"""

from __future__ import annotations

import json

from instep.clock import format_instant
from instep.history.repository import Repository
from instep.pipelines.records import Run
from instep.tables.row_erasures import erasures_of


def erased_since(repo: Repository, run: Run) -> tuple[str, ...]:
    """Returns, in words, the erasures of rows since the run began, from tables it read or made."""
    with repo.store.reading() as tx:
        rows = tx.rows("select output, inputs from run_pieces where run = ?", (run.id,))
        tables = {str(output).partition("/")[2] for output, _ in rows}
        tables |= {str(one["table"]) for _, inputs in rows for one in json.loads(inputs)["inputs"]}
        return tuple(
            f"rows of {table} were erased at {format_instant(one.at)} by {one.actor} ({one.id}): "
            f"{one.why}"
            for table in sorted(tables)
            for one in erasures_of(tx, table)
            if one.at >= run.started_at and one.rows
        )
