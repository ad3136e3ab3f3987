"""One file of one table, from its kept bytes to an edit of main: read, examined, merged in value.

Both an arrival and the acceptance of a held one go this way. Nothing is published here.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path

from instep.canonical import Json, JsonObject
from instep.contracts.document import parse
from instep.contracts.terms import Contract, MergePolicy, Source
from instep.engines.engine import FileSet, WrittenFile
from instep.engines.schema import quoted
from instep.errors import InvalidError
from instep.findings import Finding, stops
from instep.history.repository import Repository
from instep.ingest.examine import (
    Examined,
    allow_inputs,
    column_findings,
    columns_of,
    examine,
    stage,
)
from instep.ingest.files import load_rows, open_raw
from instep.ingest.records import last_accepted, load_profile, save_profile
from instep.tables.content import TableContent
from instep.tables.profile import ColumnProfile
from instep.tables.read import data_files, file_set, schema_of
from instep.tables.write import append, create_table, data_folder, replace, set_columns


@dataclass(frozen=True, slots=True)
class InForce:
    """A contract as main has it, with the digest of its text."""

    contract: Contract
    digest: str

    @property
    def key(self) -> str:
        return f"contract/{self.contract.table}"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A file that is kept in the lake, and how it is to be read."""

    file_name: str
    digest: str
    size_bytes: int
    source: Source


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of reading a batch: findings, and the table with its good rows.

    `content` is None when columns are missing: then no row was written.
    """

    base: str
    examined: Examined
    content: TableContent | None
    before: TableContent | None
    profile: str | None
    quarantine: str | None

    @property
    def stops(self) -> tuple[Finding, ...]:
        return stops(self.examined.findings)

    def evidence(
        self, in_force: InForce, delivery: Delivery, told: Sequence[str] = ()
    ) -> dict[str, Json]:
        """Returns the evidence of the change that brings this batch; `told` are more sentences."""
        seen = self.examined
        good = seen.rows - seen.quarantined
        sentences = [f"{good:,} rows of {delivery.file_name} fit; {seen.quarantined:,} do not."]
        key = f"table/{in_force.contract.table}"
        keys: list[Json] = [
            {
                "key": key,
                "act": "changed" if self.before else "added",
                "sentences": [*sentences, *told],
                "facts": {
                    "rows": seen.rows,
                    "quarantined": seen.quarantined,
                    "broken": dict(seen.broken),
                },
            }
        ]
        return {
            "keys": keys,
            "findings": [finding.to_json() for finding in seen.findings],
            "file": {"name": delivery.file_name, "digest": delivery.digest},
            "contract": in_force.digest,
            "reads": [in_force.key],
        }


def contracts_in_force(repo: Repository, commit: str) -> dict[str, InForce]:
    """Returns main's contracts by table."""
    found = {}
    for key, content in repo.entries(commit, "contract").items():
        digest = str(content["blob"])
        contract = parse(repo.objects.get(digest).decode(), f"{key} at {commit[:12]}")
        found[contract.table] = InForce(contract, digest)
    return found


def read_batch(
    repo: Repository,
    base: str,
    in_force: InForce,
    delivery: Delivery,
    mapping: Mapping[str, str],
    folder: Path,
) -> Outcome:
    """Reads a kept file against the contract, and the table as commit `base` has it.

    Its good rows lie in the table's folder afterwards, in files that no commit names yet.

    Raises:
        InvalidError: the file cannot be read; nothing was recorded.
    """
    from instep.engines.duckdb import DuckDB

    contract = in_force.contract
    if contract.merge_policy is MergePolicy.DERIVED:
        raise InvalidError(
            f'Table "{contract.table}" is derived: a pipeline writes it, and no file may. '
            "Name another table, or change mergePolicy in its contract.",
            kind="derived-table",
            table=contract.table,
        )
    before = _table(repo, base, contract.table)
    last = last_profile(repo, contract.table)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        path = repo.objects.existing(delivery.digest)
        raw = open_raw(path, delivery.file_name, delivery.source, folder)
        with DuckDB(repo.root / "staging") as engine:
            rows = load_rows(engine, raw)
            staged = stage(engine, contract, rows.types, mapping)
            found = column_findings(engine, contract, staged, last)
            if staged.missing:
                examined = Examined(rows=rows.rows, findings=found)
                return Outcome(base, examined, None, before, None, None)
            table = _prepared(repo, before, contract)
            allow_inputs(engine, repo, table)
            examined = examine(
                engine, repo, raw, rows, contract, staged, table, last, folder / "aside"
            )
        examined = changed(examined, findings=(*found, *examined.findings))
        if contract.merge_policy is MergePolicy.KEYED:
            examined = changed(examined, good=_upserted(repo, contract, table, examined.good))
        aside = [repo.objects.put_file(Path(file.path)) for file in examined.aside]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Outcome(
        base=base,
        examined=examined,
        content=merged_table(repo, contract, table, examined),
        before=before,
        profile=save_profile(repo.objects, examined.profile),
        quarantine=aside[0] if aside else None,
    )


def last_profile(repo: Repository, table: str) -> tuple[ColumnProfile, ...]:
    """Returns the profile of the last accepted batch of a table; empty before the first."""
    with repo.store.reading() as tx:
        arrival = last_accepted(tx, table)
    if arrival is None or arrival.profile is None:
        return ()
    return load_profile(repo.objects, arrival.profile)


def merged_table(
    repo: Repository, contract: Contract, table: TableContent, examined: Examined
) -> TableContent:
    """Returns `table` with the good rows, by the contract's policy."""
    at = repo.clock()
    match contract.merge_policy:
        case MergePolicy.APPEND:
            return append(repo.root, table, examined.good, at=at)
        case MergePolicy.REPLACE | MergePolicy.KEYED:
            live = [file.path for file in data_files(repo.root, table)]
            return replace(repo.root, table, examined.good, live, at=at)
        case MergePolicy.DERIVED:
            raise AssertionError("a derived table is refused before it is read")


def rebased(repo: Repository, outcome: Outcome, contract: Contract, head: str) -> Outcome | None:
    """Returns the same append on top of commit `head`, or None when the batch must be read again.

    An append is an operation: its files can be added to any later state of the table. Rows that
    came in between have to be compared when the table has a key.
    """
    now = _table(repo, head, contract.table)
    is_same = now is not None and outcome.before is not None and now.uuid == outcome.before.uuid
    if contract.merge_policy is not MergePolicy.APPEND or contract.key or not is_same or not now:
        return None
    if schema_of(repo.root, now) != schema_of(repo.root, _known(outcome)):
        return None
    return Outcome(
        base=head,
        examined=outcome.examined,
        content=append(repo.root, now, outcome.examined.good, at=repo.clock()),
        before=now,
        profile=outcome.profile,
        quarantine=outcome.quarantine,
    )


def changes_of(in_force: InForce, outcome: Outcome) -> dict[str, JsonObject | None]:
    """Returns what the edit of a batch sets each key to."""
    if outcome.content is None:
        return {}
    return {f"table/{in_force.contract.table}": outcome.content.to_content()}


def _known(outcome: Outcome) -> TableContent:
    assert outcome.content is not None
    return outcome.content


def _table(repo: Repository, commit: str, name: str) -> TableContent | None:
    content = repo.find(commit, f"table/{name}")
    return TableContent.from_content(content) if content else None


def _prepared(repo: Repository, before: TableContent | None, contract: Contract) -> TableContent:
    """Returns the table with the contract's columns, made when there was none."""
    at = repo.clock()
    columns = columns_of(contract)
    if before is None:
        return create_table(repo.root, contract.table, columns, at=at)
    return set_columns(repo.root, before, columns, at=at)


def _upserted(
    repo: Repository, contract: Contract, table: TableContent, good: tuple[WrittenFile, ...]
) -> tuple[WrittenFile, ...]:
    """Writes the table's rows anew: those of an arriving key give way to the arriving ones."""
    from instep.engines.duckdb import DuckDB

    if not good or not data_files(repo.root, table):
        return good
    schema = schema_of(repo.root, table)
    keys = ", ".join(quoted(name) for name in contract.key)
    names = ", ".join(quoted(name) for name in schema.names)
    with DuckDB(repo.root / "staging") as engine:
        engine.view(file_set(repo.root, table, "existing"))
        engine.view(FileSet("arrived", tuple(file.path for file in good), schema))
        return engine.write(
            f"SELECT {names} FROM existing ANTI JOIN arrived USING ({keys}) "
            f"UNION ALL SELECT {names} FROM arrived",
            schema,
            data_folder(repo.root, table),
        )
