"""One file of one table, from its kept bytes to an edit of main: read, examined, merged in value.

Both an arrival and the acceptance of a held one go this way. Nothing is published here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING

from instep.canonical import Json, JsonObject
from instep.changes.propose import types_to_change
from instep.contracts.terms import Contract, MergePolicy, Source
from instep.contracts.type_changes import sentence_of
from instep.engines.engine import FileSet
from instep.engines.schema import quoted
from instep.errors import InvalidError
from instep.findings import Finding, Severity, stops
from instep.history.repository import Repository
from instep.ingest.base import earlier_profiles
from instep.ingest.covered import count_effect, find_covered, find_start
from instep.ingest.effect import EFFECT, Covered, Effect, judge_effect
from instep.ingest.examine import (
    Examined,
    allow_inputs,
    column_findings,
    compare,
    examine,
    first_time,
    stage,
)
from instep.ingest.files import check_delimiter, load_rows, open_raw, translating
from instep.ingest.in_force import InForce
from instep.ingest.records import STARTS, accepted_kinds, load_profile, merged_by_name, save_profile
from instep.tables.added import added_files
from instep.tables.content import TableContent
from instep.tables.read import (
    counted_as,
    data_files,
    file_set,
    layout_of,
    row_count,
    schema_of,
)
from instep.tables.retype import Retyped, with_rows_of
from instep.tables.rows import upsert_files
from instep.tables.shared import unshared
from instep.tables.write import (
    append,
    check_layout,
    create_table,
    replace,
    set_columns,
    set_layout,
)

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB

_GOOD = "good_rows"

BaseOf = Callable[[str | None], str | None]
"""Given the first event time of a batch, or None, returns the profile that it is compared with."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A file that is kept in the lake, and how it is to be read."""

    file_name: str
    digest: str
    size_bytes: int
    source: Source


@dataclass(frozen=True, slots=True)
class Reading:
    """By what a kept file is read: the contract in force, and the source's names for columns."""

    in_force: InForce
    delivery: Delivery
    mapping: Mapping[str, str]

    @property
    def contract(self) -> Contract:
        return self.in_force.contract

    @property
    def key(self) -> str:
        return f"table/{self.contract.table}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of reading a batch: findings, and the table with its good rows.

    `content` is None when columns are missing: then no row was written. `compared` is the profile
    of the batch that it was compared with. `effect` is None where rows are only added. `start` is
    the event time at which the good rows start, where there are any.
    """

    base: str
    reading: Reading
    examined: Examined
    content: TableContent | None
    before: TableContent | None
    compared: str | None
    profile: str | None
    quarantine: str | None
    effect: Effect | None = None
    start: str | None = None

    @property
    def stops(self) -> tuple[Finding, ...]:
        return stops(self.examined.findings)

    @property
    def changes(self) -> dict[str, JsonObject | None]:
        """What the edit of this batch sets each key to."""
        return {self.reading.key: self.content.to_content()} if self.content else {}

    @property
    def title(self) -> str:
        """How the change of this batch is listed."""
        good = self.examined.rows - self.examined.quarantined
        file = self.reading.delivery.file_name
        return f"{file} arrives in {self.reading.contract.table}: {good:,} rows"

    def evidence(self, told: Sequence[str] = ()) -> dict[str, Json]:
        """Returns the evidence of the change that brings this batch; `told` are more sentences.

        An approval of an arrival binds to it and to what it reads. An append means the same
        whatever else is in the table; under the other policies the table itself is read.
        """
        seen, reading = self.examined, self.reading
        file = reading.delivery
        good = seen.rows - seen.quarantined
        sentences = [f"{good:,} rows of {file.file_name} fit; {seen.quarantined:,} do not."]
        effect: dict[str, Json] = {}
        if self.effect is not None:
            sentences.append(f"{self.effect.sentence}.")
            effect = {EFFECT: self.effect.to_json()}
        keys: list[Json] = [
            {
                "key": reading.key,
                "act": "changed" if self.before else "added",
                "sentences": [*sentences, *told],
                "facts": {
                    "rows": seen.rows,
                    "quarantined": seen.quarantined,
                    "broken": dict(seen.broken),
                    **effect,
                },
            }
        ]
        column = reading.contract.event_time
        starts: dict[str, Json] = {STARTS: {column: self.start}} if column and self.start else {}
        is_append = reading.contract.merge_policy is MergePolicy.APPEND
        return {
            "keys": keys,
            "findings": [finding.to_json() for finding in seen.findings],
            "file": {"name": file.file_name, "digest": file.digest},
            "contract": reading.in_force.digest,
            "mapping": dict(reading.mapping),
            "compared": self.compared,
            **starts,
            "reads": [reading.in_force.key, *([] if is_append else [reading.key])],
        }


def read_batch(
    repo: Repository, base: str, reading: Reading, base_of: BaseOf, folder: Path
) -> Outcome:
    """Reads a kept file against its contract, and the table as commit `base` has it.

    It is compared with the batch that `base_of` names.

    Its good rows lie in the table's folder afterwards, in files that no commit names yet.

    Raises:
        InvalidError: the file cannot be read; nothing was recorded.
    """
    from instep.engines.duckdb import DuckDB

    contract, delivery = reading.contract, reading.delivery
    if contract.merge_policy is MergePolicy.DERIVED:
        raise InvalidError(
            f'Table "{contract.table}" is derived: a pipeline writes it, and no file may. '
            "Name another table, or change mergePolicy in its contract.",
            kind="derived-table",
            table=contract.table,
        )
    before = table_at(repo, base, contract.table)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        path = repo.objects.checked(delivery.digest)
        raw = open_raw(path, delivery.file_name, delivery.source, folder)
        check_delimiter(raw, (*contract.names, *reading.mapping))
        with DuckDB(repo.root / "staging") as engine, translating(raw):
            rows = load_rows(engine, raw)
            staged = stage(engine, contract, rows, reading.mapping)
            if staged.missing:
                compared = base_of(first_time(engine, contract, staged))
                last = load_profile(repo.objects, compared) if compared else ()
                found = column_findings(engine, contract, staged, last)
                examined = Examined(rows=rows.rows, findings=found)
                return Outcome(base, reading, examined, None, before, compared, None, None)
            found = column_findings(engine, contract, staged, ())
            retyped = types_to_change(repo, before, contract) if before else ()
            table = _prepared(repo, before, contract, retyped)
            allow_inputs(engine, repo, table)
            examined = examine(engine, repo, raw, rows, contract, staged, table, folder / "aside")
            start = _start_of(engine, repo, contract, table, examined)
        aside = [repo.objects.put_file(Path(file.path)) for file in examined.aside]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    times = (one.minimum for one in examined.profile if one.name == contract.event_time)
    compared = base_of(start or next(times, None))
    last = load_profile(repo.objects, compared) if compared else ()
    content = merged_table(repo, contract, table, examined)
    effect, covered = _effect_of(repo, contract, before, table, content, examined, retyped)
    after = row_count(repo.root, content)
    with repo.store.reading() as tx:
        accepted = accepted_kinds(tx, contract.table)
    stop = judge_effect(contract, examined.rows, after, effect, covered, accepted)
    findings = (
        *found,
        *compare(contract, examined.profile, last, earlier_profiles(repo, contract.table)),
        *examined.findings,
        *_sent_again(repo, reading),
        *_retyped_findings(repo, contract, before, retyped),
        *([stop] if stop else []),
    )
    return Outcome(
        base=base,
        reading=reading,
        examined=changed(examined, findings=findings),
        content=content,
        before=before,
        compared=compared,
        profile=save_profile(repo.objects, examined.profile),
        quarantine=aside[0] if aside else None,
        effect=effect,
        start=start,
    )


def _sent_again(repo: Repository, reading: Reading) -> Iterator[Finding]:
    """Yields a note on a file that came before with other contents, whose rows stay beside it."""
    table, file = reading.contract.table, reading.delivery
    if reading.contract.merge_policy is not MergePolicy.APPEND:
        return
    with repo.store.reading() as tx:
        before = merged_by_name(tx, table, file.file_name, file.digest)
    if before is not None:
        yield Finding(
            "sent-again",
            f"table/{table}",
            Severity.NOTE,
            f"A file of this name came before with other contents, as change {before}: these rows "
            f'are added to those. If they replace them, "instep undo change {before}", or give the '
            "contract a key and mergePolicy keyed.",
            {"change": before},
        )


def _start_of(
    engine: DuckDB, repo: Repository, contract: Contract, table: TableContent, examined: Examined
) -> str | None:
    if contract.event_time is None or not examined.good:
        return None
    schema = schema_of(repo.root, table)
    engine.view(FileSet(_GOOD, tuple(file.path for file in examined.good), schema))
    return find_start(engine, _GOOD, contract.event_time, contract.key or schema.names)


def _effect_of(
    repo: Repository,
    contract: Contract,
    before: TableContent | None,
    table: TableContent,
    after: TableContent,
    examined: Examined,
    retyped: Sequence[Retyped],
) -> tuple[Effect | None, Covered | None]:
    """Returns what becomes of the rows of `before`, which as `table` has the contract's columns."""
    if contract.merge_policy is MergePolicy.APPEND:
        return None, None
    is_replaced = contract.merge_policy is MergePolicy.REPLACE
    # A row whose columns got another type is the same row, and was written anew into `table`.
    had = table if retyped and not is_replaced else before
    effect = count_effect(repo.root, contract, had, after, examined.good)
    compared = {contract.event_time, *contract.key}
    if is_replaced and any(column.after.name in compared for column in retyped):
        return effect, None  # old and new keys are not of one type
    return effect, find_covered(repo.root, contract, table, examined.good)


def _retyped_findings(
    repo: Repository,
    contract: Contract,
    before: TableContent | None,
    retyped: Sequence[Retyped],
) -> list[Finding]:
    rows = row_count(repo.root, before) if before and retyped else 0
    written = f": {rows:,} rows were written anew"
    if contract.merge_policy is MergePolicy.REPLACE or not rows:
        written = ""
    return [
        Finding(
            "retyped-column",
            f"table/{contract.table}.{column.after.name}",
            Severity.NOTE,
            f"{sentence_of(column)} from now on{written}.",
            {"before": column.before.full_type, "after": column.after.full_type},
        )
        for column in retyped
    ]


def merged_table(
    repo: Repository, contract: Contract, table: TableContent, examined: Examined
) -> TableContent:
    """Returns `table` with the good rows, by the contract's policy."""
    at = repo.clock()
    match contract.merge_policy:
        case MergePolicy.APPEND:
            return append(repo.root, table, examined.good, at=at)
        case MergePolicy.KEYED:
            return upsert_files(repo.root, table, examined.good, contract.key, at=at)
        case MergePolicy.REPLACE:
            live = [file.path for file in data_files(repo.root, table)]
            return replace(repo.root, table, examined.good, live, at=at)
        case MergePolicy.DERIVED:
            raise AssertionError("a derived table is refused before it is read")


def rebased(repo: Repository, outcome: Outcome, reading: Reading, head: str) -> Outcome | None:
    """Returns the same append on top of commit `head`, or None when the batch must be read again.

    What was read by another contract, or by other names, is always read again.
    """
    if reading != outcome.reading or outcome.before is None or outcome.content is None:
        return None
    now = table_at(repo, head, reading.contract.table)
    content = appended(repo, reading.contract, outcome.before, outcome.content, now)
    return changed(outcome, base=head, before=now, content=content) if content else None


def appended(
    repo: Repository,
    contract: Contract,
    before: TableContent,
    arrived: TableContent,
    now: TableContent | None,
) -> TableContent | None:
    """Returns `now` with the files that made `arrived` of `before`, or None if that cannot be."""
    if now is None or not may_append(repo, contract, before, arrived, now):
        return None
    good = added_files(repo.root, before, arrived) or ()
    return append(repo.root, now, good, at=repo.clock())


def may_append(
    repo: Repository,
    contract: Contract,
    before: TableContent,
    arrived: TableContent,
    now: TableContent,
) -> bool:
    """Says whether the files that made `arrived` of `before` may be added to `now` too.

    An append is an operation: its files can be added to any later state of the table. When the
    table has a key, no row that came in meanwhile may have the key of one of theirs.
    """
    if contract.merge_policy is not MergePolicy.APPEND:
        return False
    if not before.uuid == arrived.uuid == now.uuid:
        return False
    if schema_of(repo.root, now) != schema_of(repo.root, arrived):
        return False
    if layout_of(repo.root, now) != layout_of(repo.root, arrived):
        return False
    own = added_files(repo.root, before, arrived)
    if own is None:
        return False  # it was compacted together with what it was read upon
    return not contract.key or not _share_keys(
        repo, contract, tuple(file.path for file in own), _entered(repo, before, now)
    )


def _entered(repo: Repository, before: TableContent, now: TableContent) -> FileSet:
    """Returns the files of `now` in which there may be rows that `before` had not."""
    old, new = (file_set(repo.root, one, "entered") for one in (before, now))
    entered, gone = new.apart_from(old), old.apart_from(new)
    if old.deletes or new.deletes:
        return entered
    # Of other files those are known that hold the same rows, as after a compaction.
    _, unknown = unshared(
        counted_as(repo.root, before, gone.files), counted_as(repo.root, now, entered.files)
    )
    return changed(entered, files=tuple(path for path in entered.files if path in unknown))


def _share_keys(
    repo: Repository, contract: Contract, arrived: tuple[str, ...], entered: FileSet
) -> bool:
    """Says whether a row of `entered` has the key of one of `arrived`, which no known row has."""
    from instep.engines.duckdb import DuckDB

    if not arrived or not entered.files:
        return False
    keys = ", ".join(quoted(name) for name in contract.key)
    with DuckDB(repo.root / "staging") as engine:
        engine.view(FileSet("arrived", arrived, entered.schema))
        engine.view(entered)
        return bool(
            list(engine.rows(f"SELECT 1 FROM arrived SEMI JOIN entered USING ({keys}) LIMIT 1"))
        )


def table_at(repo: Repository, commit: str, name: str) -> TableContent | None:
    """Returns a table as a commit has it, or None."""
    content = repo.find(commit, f"table/{name}")
    return TableContent.from_content(content) if content else None


def _prepared(
    repo: Repository,
    before: TableContent | None,
    contract: Contract,
    retyped: Sequence[Retyped],
) -> TableContent:
    """Returns the table with the contract's columns and layout, made when there was none.

    Rows of `retyped` columns are written anew, unless the arrival takes the place of all rows.
    """
    at = repo.clock()
    columns = contract.schema.columns
    part, sort = contract.partition, contract.sort
    if before is None:
        return create_table(repo.root, contract.table, columns, at=at, partition=part, sort=sort)
    anew = [column.before.name for column in retyped]
    table = set_columns(repo.root, before, columns, at=at, anew=anew)
    if contract.has_layout:
        table = set_layout(repo.root, table, part, sort, at=at)
    check_layout(repo.root, table)
    if retyped and contract.merge_policy is not MergePolicy.REPLACE:
        return with_rows_of(repo.root, table, before, retyped, at=at)
    return table
