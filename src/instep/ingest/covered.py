"""Counts what a batch does to the rows that its table has, and what it covers of them.

All rows are counted as new, changed, the same or gone. Where the batch covers what the table had,
its keys are compared with those there: over the span of its event time without the outer 1 % on
both sides, or over the whole table where it has no event time. What to make of it is decided in
`ingest.effect`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from instep.clock import Window, parse_instant
from instep.contracts.terms import Contract, MergePolicy
from instep.engines.engine import FileSet, Slice, WrittenFile
from instep.engines.schema import Column, free_name, literal, quoted
from instep.errors import InvalidError
from instep.ingest.effect import FULL_SHARE, Covered, Effect
from instep.ingest.spelling import find_spellings, has_spellings
from instep.tables.apart import make_ready
from instep.tables.condition import files_between
from instep.tables.content import TableContent
from instep.tables.diff import diff_rows
from instep.tables.read import data_files, file_set, row_count, schema_of, table_folder

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB

OUTER_SHARE = 0.01
"""The share of rows at either end of the event time that does not widen the span: outliers."""

RELEVANT_SHARE = 0.1
"""Of the batch or the table: fewer existing rows in the span are early or late ones of others."""

SHOWN_KEYS = 3

SAMPLED_ROWS = 1_000_000
"""Of about so many rows the span is found: its ends are quantiles, which need all rows at once."""

LOOKED_BACK = timedelta(days=31)
"""How far before an event time the one before it is looked for: dates of a month follow so."""

_ARRIVING, _EXISTING, _ANYWHERE, _KNOWN = "arriving", "existing", "anywhere", "known"
_EARLIER, _NEW = "earlier", "new_keys"


def count_effect(
    root: Path,
    contract: Contract,
    before: TableContent | None,
    after: TableContent,
    arrived: Sequence[WrittenFile],
) -> Effect:
    """Returns what becomes of the rows of `before` when it becomes `after`; exact."""
    rows = sum(file.rows for file in arrived)
    had = row_count(root, before) if before else 0
    if not had:
        return Effect(0, rows, rows, 0, 0, 0)
    apart = diff_rows(root, before, after, contract.key, sampled=0)
    same = max(rows - apart.added - apart.changed, 0)
    return Effect(had, row_count(root, after), apart.added, apart.changed, same, apart.removed)


def find_start(engine: DuckDB, relation: str, column: str, key: Sequence[str]) -> str | None:
    """Returns from which event time on the rows are, but for the outer 1 %; None if none is known.

    `key` are the columns, at least one, that tell one row from another.
    """
    ends = _span(engine, relation, key, column, "true")
    return ends[0] if ends else None


def find_covered(
    root: Path,
    contract: Contract,
    table: TableContent,
    arrived: Sequence[WrittenFile],
) -> Covered | None:
    """Returns both sides where the batch covers what `table` has; None where it hardly does.

    Of a table by key only the event time is read, unless the batch has the size of a delivery of
    all that is there, or the key is text, which may have another spelling.
    """
    from instep.engines.duckdb import DuckDB

    had = row_count(root, table)
    if not had or not arrived:
        return None
    schema = schema_of(root, table)
    with DuckDB(root / "staging") as engine:
        make_ready(engine)
        engine.allow(table_folder(root, table) / "data")
        engine.view(FileSet(_ARRIVING, tuple(file.path for file in arrived), schema))
        span, inside = None, "true"
        whole = file_set(root, table, _EXISTING)
        if contract.event_time is not None:
            column = schema.column(contract.event_time)
            names = contract.key or schema.names
            ends = _span(engine, _ARRIVING, names, column.name, inside)
            if ends is None:
                return None
            inside = _between(column.name, column.sql_type, ends)
            engine.view(file_set(root, table, _EXISTING, _slice(column.name, ends)))
            span = _span(engine, _EXISTING, names, column.name, inside)
            if span is None:
                return None
            inside = _between(column.name, column.sql_type, span)
        else:
            engine.view(whole)
        existing, arriving = (
            _count(engine, f"{side} WHERE {inside}") for side in (_EXISTING, _ARRIVING)
        )
        if existing < RELEVANT_SHARE * min(had, sum(file.rows for file in arrived)):
            return None
        covered = Covered(span, existing, arriving)
        is_full = arriving >= FULL_SHARE * existing
        is_keyed = contract.merge_policy is MergePolicy.KEYED
        keys = [schema.column(name) for name in contract.key]
        if not keys or (is_keyed and not is_full and not has_spellings(keys)):
            return covered
        candidates = files_between(data_files(root, table), keys, arrived)
        engine.view(whole.only((file.path for file in candidates), _ANYWHERE))
        covered = _with_keys(engine, covered, keys, inside, is_keyed)
        if contract.event_time is None or span is None or span[0] != span[1]:
            return covered
        column = schema.column(contract.event_time)
        return replace(covered, earlier=_rows_before(engine, root, table, column, span[0]))


def _with_keys(
    engine: DuckDB, covered: Covered, key: Sequence[Column], inside: str, is_keyed: bool
) -> Covered:
    """Returns the same with what comparing keys tells; `anywhere` may hold the arriving ones."""
    names = [column.name for column in key]
    keys = ", ".join(quoted(name) for name in names)
    in_span = quoted(free_name("in span", names))
    engine.run(
        f"CREATE TEMP TABLE {_KNOWN} AS SELECT {keys}, ({inside}) IS TRUE AS {in_span} "
        f"FROM {_ANYWHERE} SEMI JOIN {_ARRIVING} USING ({keys})"
    )
    unknown = f"(SELECT {keys} FROM {{}} WHERE {inside}) ANTI JOIN {_KNOWN} USING ({keys})"
    engine.run(f"CREATE TEMP TABLE {_NEW} AS SELECT * FROM {unknown.format(_ARRIVING)}")
    gone = f"(SELECT * FROM {unknown.format(_EXISTING)})"
    text = ", ".join(f"{quoted(name)}::VARCHAR" for name in names)
    vanished, new = (
        engine.rows(f"SELECT [{text}] FROM {side} ORDER BY {keys} LIMIT {SHOWN_KEYS}")
        for side in (gone, _NEW)
    )
    covered = replace(
        covered,
        named=_count(engine, f"{_KNOWN} WHERE {in_span}"),
        new=_count(engine, _NEW),
        vanished_keys=tuple(_shown(values) for (values,) in vanished),
        new_keys=tuple(_shown(values) for (values,) in new),
    )
    if not is_keyed or not covered.new or not covered.vanished or not has_spellings(key):
        return covered
    count, pairs = find_spellings(engine, key, _NEW, gone, SHOWN_KEYS)
    spelled = tuple((_shown(before), _shown(after)) for before, after in pairs)
    return replace(covered, respelled=count, spellings=spelled)


def _rows_before(
    engine: DuckDB, root: Path, table: TableContent, column: Column, first: str
) -> int:
    """Returns how many rows have the nearest earlier event time, within `LOOKED_BACK`."""
    try:
        end = instant_of(first)
        part = Slice(column.name, Window(end - LOOKED_BACK, end))
    except (OverflowError, InvalidError):
        return 0
    engine.view(file_set(root, table, _EARLIER, part))
    time = quoted(column.name)
    found = engine.rows(
        f"SELECT count(*) FROM {_EARLIER} GROUP BY {time} ORDER BY {time} DESC LIMIT 1"
    )
    return int(found[0][0]) if found else 0


def _span(
    engine: DuckDB, relation: str, key: Sequence[str], column: str, inside: str
) -> tuple[str, str] | None:
    """Returns between which event times the rows lie, without the outer 1 % at both ends.

    The same rows give the same span: of many rows those are taken whose hash has a certain rest.
    """
    time = quoted(column)
    known = f"{relation} WHERE {inside} AND isfinite({time})"
    rest = _count(engine, known) // SAMPLED_ROWS + 1
    if rest > 1:
        row = ", ".join(quoted(name) for name in (column, *key))
        known += f" AND hash({row}) % {rest} = 0"
    ((first, last),) = engine.rows(
        f"SELECT quantile_disc({time}, {OUTER_SHARE})::VARCHAR, "
        f"quantile_disc({time}, {1 - OUTER_SHARE})::VARCHAR FROM {known}"
    )
    return None if first is None else (first, last)


def _slice(column: str, span: tuple[str, str]) -> Slice | None:
    """The files that may hold rows of a span; None, all of them, beyond the years 1 to 9999."""
    try:
        first, last = (instant_of(text) for text in span)
        return Slice(column, Window(first, last + timedelta(days=1)))
    except (OverflowError, InvalidError):
        return None


def _between(column: str, sql_type: str, span: tuple[str, str]) -> str:
    first, last = (f"CAST({literal(text)} AS {sql_type})" for text in span)
    return f"{quoted(column)} BETWEEN {first} AND {last}"


def _count(engine: DuckDB, relation: str) -> int:
    ((rows,),) = engine.rows(f"SELECT count(*) FROM {relation}")
    return int(rows)


def _shown(values: Sequence[str | None]) -> str:
    shown = [f'"{value}"' if value is not None else "null" for value in values]
    return shown[0] if len(shown) == 1 else f"({', '.join(shown)})"


def instant_of(text: str) -> datetime:
    """Returns the instant that DuckDB writes as `text`; it writes a zone as +00."""
    return parse_instant(f"{text}:00" if text[-3:] == "+00" else text)
