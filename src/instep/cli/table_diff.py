"""`instep diff --table`: the rows of one table that differ, as counts, a sample and a file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from instep.canonical import Json
from instep.changes.table_evidence import key_of, row_sentence, schema_difference
from instep.cli.output import counted
from instep.cli.written_file import check_writable
from instep.errors import InvalidError
from instep.history.repository import Repository
from instep.tables.apart import Tolerance
from instep.tables.content import TableContent
from instep.tables.diff import open_diff
from instep.tables.read import schema_of
from instep.tables.row_diff import RowDiff, RowSample
from instep.tables.schema_diff import SchemaDiff

_TOLERANCE = re.compile(r"(?:(.+)=)?(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(%?)")
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


@dataclass(frozen=True, slots=True)
class TableDiff:
    table: str
    before: str
    after: str
    sentence: str
    schema: SchemaDiff
    rows: RowDiff
    written: Path | None

    def to_json(self) -> Json:
        return {
            "table": self.table,
            "before": self.before,
            "after": self.after,
            "schema": self.schema.to_json(),
            "rows": self.rows.to_json(),
            "written": str(self.written) if self.written else None,
        }

    def to_text(self) -> str:
        rows = self.rows
        lines = [f"table/{self.table} from {self.before[:12]} to {self.after[:12]}:"]
        lines += [f"  {sentence}" for sentence in (self.sentence, *self.schema.sentences())]
        if rows.changed_cells:
            cells = ", ".join(f"{name} {count:,}" for name, count in rows.changed_cells)
            lines.append(f"  changed cells: {cells}")
        lines += [f"  {_SIGNS[row.change.value]} {_row(row, rows.key)}" for row in rows.sample]
        lines += [
            f"  key {_named(rows.key, one.key)} stands {one.before:,} times before and "
            f"{one.after:,} times after"
            for one in rows.repeated
        ]
        if rows.repeated_keys > len(rows.repeated):
            lines.append(f"  {counted(rows.repeated_keys, 'key')} in all do not tell rows apart")
        if self.written:
            lines.append(f"  written to {self.written}")
        return "\n".join(lines)


def compare_table(
    repo: Repository,
    commits: tuple[str, str],
    table: str,
    key: Sequence[str],
    tolerances: Mapping[str | None, Tolerance],
    limit: int,
    path: Path | None,
) -> TableDiff:
    """Returns how a table differs between two commits; writes the rows to `path` when given.

    Without `key`, that of the table's contract is taken.

    Raises:
        NotFoundError (kind "no-such-key"): neither commit has the table.
        InvalidError (kind "no-such-column", "not-a-float", "tolerance-without-key",
            "not-writable").
    """
    if path is not None:
        check_writable(path)
    name = f"table/{table}"
    found = [repo.find(commit, name) for commit in commits]
    if found[0] is None:
        found[1] = repo.content(commits[1], name)
    before, after = (TableContent.from_content(one) if one else None for one in found)
    there = after or before
    assert there is not None
    columns = schema_of(repo.root, there)
    keys = [columns.column(one).name for one in key] or list(key_of(repo, commits[1], table))
    with open_diff(repo.root, before, after, keys, tolerances=tolerances) as apart:
        rows = apart.summary(limit)
        if path is not None:
            apart.write(path)
    sentence = row_sentence(repo, before, after, rows, is_exact=not tolerances)
    schema = schema_difference(repo, before, after)
    return TableDiff(table, *commits, sentence, schema, rows, path)


def parse_tolerances(texts: Sequence[str]) -> dict[str | None, Tolerance]:
    """Returns the tolerances written as "0.01", "1%" or "COLUMN=0.01".

    Raises:
        InvalidError (kind "bad-tolerance").
    """
    found: dict[str | None, Tolerance] = {}
    for text in texts:
        read = _TOLERANCE.fullmatch(text.strip())
        if read is None:
            raise InvalidError(
                f'Tolerance "{text}" cannot be read: expected a number, which is absolute, or a '
                'percentage, which is relative, for all floats or for one column. Write "0.01", '
                '"1%" or "delay=0.01".',
                kind="bad-tolerance",
            )
        column, number, percent = read.groups()
        size = float(number)
        found[column] = Tolerance(relative=size / 100) if percent else Tolerance(size)
    return found


def _row(row: RowSample, key: Sequence[str]) -> str:
    if row.change.value == "changed":
        cells = ", ".join(f"{c.column} {_shown(c.before)} -> {_shown(c.after)}" for c in row.cells)
        return f"{_named(key, row.key)}: {cells}"
    is_added = row.change.value == "added"
    return ", ".join(f"{c.column}={_shown(c.after if is_added else c.before)}" for c in row.cells)


def _named(key: Sequence[str], values: Sequence[str | None]) -> str:
    return ", ".join(f"{n}={_shown(value)}" for n, value in zip(key, values, strict=True))


def _shown(value: str | None) -> str:
    return "null" if value is None else value
