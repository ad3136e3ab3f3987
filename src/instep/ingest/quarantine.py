"""The rows of an arrival that broke a row term: set aside with their reason, never lost."""

from __future__ import annotations

from dataclasses import dataclass

from instep.canonical import Json
from instep.engines.reading import parquet_sql
from instep.history.repository import Repository
from instep.ingest.records import arrival_of_change


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """One row as it came: its line in the file, the terms it breaks, its values as JSON text."""

    line: int
    terms: str
    raw: str

    def to_json(self) -> dict[str, Json]:
        return {"line": self.line, "terms": self.terms, "raw": self.raw}


def quarantined_rows(repo: Repository, change: int) -> tuple[QuarantinedRow, ...]:
    """Returns the rows that an arrival left in quarantine, in the order of their lines.

    Raises:
        NotFoundError (kinds "no-such-arrival", "no-such-change").
    """
    with repo.store.reading() as tx:
        arrival = arrival_of_change(tx, change)
    if arrival.quarantine is None:
        return ()

    from instep.engines.duckdb import DuckDB

    path = repo.objects.existing(arrival.quarantine)
    with DuckDB(repo.root / "staging") as engine:
        engine.allow(path)
        rows = engine.rows(f"select line, terms, raw from {parquet_sql([str(path)])} order by line")
    return tuple(QuarantinedRow(*row) for row in rows)
