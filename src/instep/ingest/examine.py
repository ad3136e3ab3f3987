"""Reads one arriving batch against its contract and an accepted batch.

The batch is judged in this order: are all columns there (or renamed), do its rows and the batch
as a whole keep the terms, is a column in another unit. A finding that stops holds the batch. Good
rows are written as files of the table while they are checked; nothing of it is published here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instep.clock import Window
from instep.contracts import checks
from instep.contracts.checks import Batch
from instep.contracts.renames import Rename, renames
from instep.contracts.terms import ColumnTerm, Contract, MergePolicy, Metric
from instep.contracts.type_changes import may_change_type
from instep.contracts.units import distribution_changes, unit_change
from instep.engines.engine import Slice, WrittenFile
from instep.engines.schema import Column, Schema, free_name, quoted
from instep.errors import InvalidError
from instep.findings import Finding, Severity
from instep.history.repository import Repository
from instep.ingest.covered import find_start, instant_of
from instep.ingest.files import LINES, RAW, RawFile, RawRows, cut_off_at_last_row
from instep.tables.content import TableContent
from instep.tables.profile import ColumnProfile
from instep.tables.profile_compute import profile_relation
from instep.tables.profile_keep import profile_files
from instep.tables.read import file_set, layout_of, row_count, schema_of, table_folder
from instep.tables.write import data_folder

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB

_STAGED = "staged_batch"
_STAGED_LINES = "staged_batch_lines"
_TYPED = "typed_batch"
_CAST = "cast_batch"
_TWICE = "keys_twice"
_EXISTING = "existing_rows"

_FEW_VALUES = 1_000_000
"""Up to here a batch is held in memory as it was cast, and each value as it came."""

_QUARANTINE = Schema(
    (
        Column(1, "line", "long"),
        Column(2, "terms", "string"),
        Column(3, "raw", "string"),
    )
)


@dataclass(frozen=True, slots=True)
class Staged:
    """A batch under the contract's names."""

    types: Mapping[str, str]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    line: str
    """The column that has the lines, where they are asked for."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found, and where the good and the quarantined rows were written."""

    rows: int
    quarantined: int = 0
    broken: tuple[tuple[str, int], ...] = ()
    findings: tuple[Finding, ...] = ()
    good: tuple[WrittenFile, ...] = ()
    aside: tuple[WrittenFile, ...] = ()
    profile: tuple[ColumnProfile, ...] = ()


def stage(engine: DuckDB, contract: Contract, rows: RawRows, mapping: Mapping[str, str]) -> Staged:
    """Shows the raw file under the contract's names; `mapping` is the source's name to ours."""
    lower = {name.lower() for name in rows.types}
    targets: dict[str, str] = {}
    for name in rows.types:
        own = contract.column(name)
        mapped = mapping.get(name)
        if own is None and mapped is not None and mapped.lower() not in lower:
            own = contract.column(mapped)
        targets[name] = own.name if own else name
    columns = ", ".join(f"{quoted(name)} AS {quoted(to)}" for name, to in targets.items())
    run = engine.connection.execute
    run(f"CREATE OR REPLACE VIEW {_STAGED} AS SELECT {columns} FROM {RAW}")
    line = free_name("line", targets.values())
    lines = f"SELECT {columns}, {quoted(rows.line)} AS {quoted(line)} FROM {LINES}"
    run(f"CREATE OR REPLACE VIEW {_STAGED_LINES} AS {lines}")
    staged = {to: rows.types[name] for name, to in targets.items()}
    return Staged(
        types=staged,
        missing=tuple(name for name in contract.names if name not in staged),
        unknown=tuple(name for name in staged if contract.column(name) is None),
        line=line,
    )


def column_findings(
    engine: DuckDB, contract: Contract, staged: Staged, last: Sequence[ColumnProfile]
) -> tuple[Finding, ...]:
    """Returns what is to be said of missing and unknown columns; a missing one stops."""
    from instep.contracts.infer import guess_columns

    subject = f"table/{contract.table}"
    found: list[Finding] = []
    recognised: tuple[Rename, ...] = ()
    if staged.missing and staged.unknown and last:
        kinds = {name: staged.types[name] for name in staged.unknown}
        guesses = guess_columns(engine.connection, _STAGED, kinds)
        casts = ", ".join(
            f"TRY_CAST({quoted(guess.name)} AS {Column(0, guess.name, guess.type).sql_type}) "
            f"AS {quoted(guess.name)}"
            for guess in guesses
        )
        engine.connection.execute(
            f"CREATE OR REPLACE VIEW unknown_columns AS SELECT {casts} FROM {_STAGED}"
        )
        unknown = profile_relation(
            engine.connection,
            "unknown_columns",
            [Column(index, guess.name, guess.type) for index, guess in enumerate(guesses, 1)],
        )
        recognised = renames(
            [profile for profile in last if profile.name in staged.missing],
            unknown,
            [profile for profile in last if profile.name not in staged.missing],
        )
        found.extend(rename.finding(contract.table) for rename in recognised)
    olds, news = {one.old for one in recognised}, {one.new for one in recognised}
    for name in staged.missing:
        if name not in olds:
            found.append(
                Finding(
                    "missing-column",
                    f"{subject}.{name}",
                    Severity.STOP,
                    f'Column "{name}" of the contract is missing, and none of '
                    f"{', '.join(staged.unknown) or 'the other columns'} looks like it.",
                    {"column": name, "unknown": list(staged.unknown)},
                )
            )
    for name in staged.unknown:
        if name not in news:
            found.append(
                Finding(
                    "unknown-column",
                    f"{subject}.{name}",
                    Severity.WARNING,
                    f'Column "{name}" is not in the contract: it is kept in the raw file only.',
                    {"column": name},
                )
            )
    return tuple(found)


def examine(
    engine: DuckDB,
    repo: Repository,
    raw: RawFile,
    rows: RawRows,
    contract: Contract,
    staged: Staged,
    table: TableContent,
    folder: Path,
) -> Examined:
    """Checks and profiles a batch that has all its columns; writes its good and bad rows.

    Good rows lie in the data folder of `table`, bad ones in `folder`; neither is part of anything
    yet.
    """
    batch = Batch(_STAGED, staged.types)
    if rows.rows * len(staged.types) <= _FEW_VALUES:
        batch = _cast_once(engine, contract, staged)
    if contract.key:
        batch = _with_duplicates(engine, repo, contract, batch, table)
    good = engine.write(
        checks.good_rows(contract, batch),
        schema_of(repo.root, table),
        data_folder(repo.root, table),
        layout=layout_of(repo.root, table),
    )
    kept = sum(file.rows for file in good)
    broken: tuple[tuple[str, int], ...] = ()
    aside: tuple[WrittenFile, ...] = ()
    if kept != rows.rows:
        broken = _broken(engine, contract, batch)
        aside = _set_aside(engine, raw, rows, contract, batch, staged.line, folder)
    fixed = [
        name
        for name in _of_other_types(broken)
        if not may_change_type(repo.root, table, contract, name)
    ]
    findings = [
        *_row_findings(contract, rows.rows, rows.rows - kept, broken, fixed),
        *_padded_findings(engine, contract, batch),
        *_batch_findings(engine, contract, batch, rows.rows),
    ]
    if kept == rows.rows:
        profile = profile_files(repo.root, table, good)
    else:
        profile = _profile_of_all(engine, contract, batch, schema_of(repo.root, table), broken)
    return Examined(
        rows=rows.rows,
        quarantined=rows.rows - kept,
        broken=broken,
        findings=tuple(findings),
        good=good,
        aside=aside,
        profile=profile,
    )


def _cast_once(engine: DuckDB, contract: Contract, staged: Staged) -> Batch:
    """Returns a batch whose rows are cast into a table, as they are few."""
    lines = Batch(_STAGED_LINES, staged.types)
    typed = checks.typed_table(contract, lines, staged.line)
    engine.connection.execute(f"CREATE OR REPLACE TEMP TABLE {_CAST} AS {typed}")
    return Batch(_STAGED, staged.types, typed=_CAST)


def _of_other_types(broken: Sequence[tuple[str, int]]) -> set[str]:
    """The columns of which values do not have the type."""
    return {name.removesuffix(".type") for name, _ in broken if name.endswith(".type")}


def _profile_of_all(
    engine: DuckDB,
    contract: Contract,
    batch: Batch,
    schema: Schema,
    broken: Sequence[tuple[str, int]],
) -> tuple[ColumnProfile, ...]:
    """Profiles all rows, broken ones too: values may break a term because of another unit."""
    unfit = _of_other_types(broken)
    numbers = {
        column.name
        for column in schema.columns
        if column.name in unfit and column.type in ("int", "long")
    }
    typed = checks.typed_rows(contract, batch, numbers)
    kind = "TEMP TABLE" if batch.typed else "VIEW"
    engine.connection.execute(f"CREATE OR REPLACE {kind} {_TYPED} AS {typed}")
    columns = [
        changed(column, type="double") if column.name in numbers else column
        for column in schema.columns
    ]
    return profile_relation(engine.connection, _TYPED, columns)


def _with_duplicates(
    engine: DuckDB, repo: Repository, contract: Contract, batch: Batch, table: TableContent
) -> Batch:
    existing = None
    if contract.merge_policy is MergePolicy.APPEND and row_count(repo.root, table):
        part = _period(engine, contract, batch)
        engine.view(file_set(repo.root, table, _EXISTING, part))
        existing = _EXISTING
    found = checks.duplicate_keys(contract, batch, existing)
    run = engine.connection.execute
    run(f"CREATE OR REPLACE TEMP TABLE {_TWICE} AS {found}")
    [(twice,)] = run(f"SELECT count(*) FROM {_TWICE}").fetchall()
    return changed(batch, duplicates=_TWICE) if twice else batch


def _period(engine: DuckDB, contract: Contract, batch: Batch) -> Slice | None:
    """The event time that the batch covers, when its event time is part of the key.

    Only then can rows of another period not have the same key. None also where the time is beyond
    the years 1 to 9999: the whole table is looked at then.
    """
    if contract.event_time is None or contract.event_time not in contract.key:
        return None
    name = quoted(contract.event_time)
    [(first, last)] = engine.connection.execute(
        f"SELECT min({name})::VARCHAR, max({name})::VARCHAR "
        f"FROM ({checks.typed_rows(contract, batch)}) WHERE isfinite({name})"
    ).fetchall()
    if first is None:
        return None
    try:
        window = Window(instant_of(first), instant_of(last) + timedelta(days=1))
    except (OverflowError, InvalidError):
        return None
    return Slice(contract.event_time, window)


def _broken(engine: DuckDB, contract: Contract, batch: Batch) -> tuple[tuple[str, int], ...]:
    [(_, _, *counts)] = engine.connection.execute(checks.broken_counts(contract, batch)).fetchall()
    named = zip(checks.term_names(contract, batch), counts, strict=True)
    return tuple((name, count) for name, count in named if count)


def _set_aside(
    engine: DuckDB,
    raw: RawFile,
    rows: RawRows,
    contract: Contract,
    batch: Batch,
    line: str,
    folder: Path,
) -> tuple[WrittenFile, ...]:
    lines = changed(batch, relation=_STAGED_LINES)
    aside = engine.write(checks.quarantined_rows(contract, lines, line), _QUARANTINE, folder)
    if not raw.ends_with_newline:
        last = max((int(_upper(file)) for file in aside), default=0)
        if last == rows.rows + 1:
            raise cut_off_at_last_row(raw)
    return aside


def _upper(file: WrittenFile) -> str:
    return next((one.upper or "0" for one in file.columns if one.field_id == 1), "0")


def _row_findings(
    contract: Contract,
    rows: int,
    bad: int,
    broken: Sequence[tuple[str, int]],
    fixed: Sequence[str],
) -> list[Finding]:
    """`fixed` are the columns of another type in the file, whose type no contract can correct."""
    subject = f"table/{contract.table}"
    found = [
        Finding(
            "quarantined-rows",
            f"{subject}.{name.partition('.')[0]}",
            Severity.WARNING,
            f"{count} {'row' if count == 1 else 'rows'} in quarantine for {name}.",
            {"term": name, "rows": count},
        )
        for name, count in broken
    ]
    if bad > contract.max_quarantined * rows:
        share = f"{bad / rows:.1%}"
        found.append(
            Finding(
                "too-many-quarantined",
                subject,
                Severity.STOP,
                f"{bad} of {rows} rows ({share}) break a term, above "
                f"{contract.max_quarantined * 100:f}".rstrip("0").rstrip(".")
                + f" %: {', '.join(f'{name} {count}' for name, count in broken)}.",
                {
                    "rows": rows,
                    "quarantined": bad,
                    "broken": dict(broken),
                    "fixed_types": sorted(fixed),
                },
            )
        )
    return found


def _padded_findings(engine: DuckDB, contract: Contract, batch: Batch) -> list[Finding]:
    """Returns a warning for each column whose numbers begin with superfluous zeros."""

    def asked(columns: Sequence[ColumnTerm], figure: str) -> dict[str, Any]:  # of any SQL type
        if not columns:
            return {}
        query = checks.padded_values(contract, batch, columns, figure)
        [figures] = engine.connection.execute(query).fetchall()
        return {column.name: one for column, one in zip(columns, figures, strict=True)}

    columns = checks.text_numbers(contract, batch.types)
    counts = asked(columns, "count")
    padded = [column for column in columns if counts[column.name]]
    return [
        checks.padded_finding(contract.table, name, counts[name], example)
        for name, example in asked(padded, "min").items()
    ]


def _batch_findings(
    engine: DuckDB, contract: Contract, batch: Batch, rows: int
) -> tuple[Finding, ...]:
    if all(term.metric is Metric.ROWS for term in contract.batch):
        return checks.batch_findings(contract, rows, [rows] * len(contract.batch))
    query = checks.batch_counts(contract, batch)
    if query is None:
        return ()
    [(_, *counts)] = engine.connection.execute(query).fetchall()
    return checks.batch_findings(contract, rows, counts)


def compare(
    contract: Contract,
    profile: Sequence[ColumnProfile],
    last: Sequence[ColumnProfile],
    earlier: Sequence[Sequence[ColumnProfile]],
) -> list[Finding]:
    """Returns what columns look like against accepted batches; keys only name rows.

    A unit is compared with `last`, a distribution with all `earlier` ones.
    """
    before = {one.name: one for one in last if one.name not in contract.key}
    found = []
    for one in profile:
        column = contract.column(one.name)
        if one.name in before and column is not None:
            change = unit_change(before[one.name], one, column.unit)
            if change is not None:
                found.append(change.finding(contract.table))
    if found:
        return found
    named = [{one.name: one for one in batch if one.name not in contract.key} for batch in earlier]
    return list(distribution_changes(named, profile, contract.table))


def first_time(engine: DuckDB, contract: Contract, staged: Staged) -> str | None:
    """Returns at which event time a batch starts, good rows or not; None where it is not known."""
    name = contract.event_time
    if name is None or name not in staged.types:
        return None
    typed = checks.typed_rows(contract, Batch(_STAGED, staged.types))
    key = [column for column in contract.names if column in staged.types]
    return find_start(engine, f"({typed})", name, key)


def allow_inputs(engine: DuckDB, repo: Repository, table: TableContent) -> None:
    """Lets the engine read the table, before its first statement."""
    engine.allow(table_folder(repo.root, table) / "data")
