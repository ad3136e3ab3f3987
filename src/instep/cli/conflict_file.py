"""The CSV file of a merge's conflicts: written for a person, who decides there, and read back.

A cell is the value's text as it is. `null` is null, in any case; what could be taken for it or for
nothing, or would not survive a spreadsheet, is a JSON string in quotes: `""`, `"null"`, `" ana"`.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

from instep.changes.branch_merge import BranchMerge
from instep.errors import InvalidError
from instep.tables.row_merge import Choice, Place, Resolution, Take

_FIELDS = ("table", "key", "column", "base", "ours", "theirs", "take", "value")

_NULL = "null"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def cell_text(value: str | None) -> str:
    """Returns the cell of a value: never empty, and of no two values the same."""
    if value is None:
        return _NULL
    is_plain = (
        value
        and value == value.strip()
        and value.lower() != _NULL
        and not value.startswith('"')
        and not _CONTROL.search(value)
    )
    return value if is_plain else json.dumps(value, ensure_ascii=False)


def cell_value(text: str) -> str | None:
    """Returns the value of a cell that is not empty.

    Raises:
        ValueError: it begins with a quote, and is no JSON string.
    """
    if text.lower() == _NULL:
        return None
    if not text.startswith('"'):
        return text
    try:
        found = json.loads(text, strict=False)
    except ValueError:
        raise ValueError("it begins with a quote, and does not end with one") from None
    return str(found)


def write_conflicts(path: Path, merge: BranchMerge) -> None:
    """Writes the rows, cells and parts of definitions that are in conflict."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_FIELDS)
        for one in merge.conflicts:
            for each in one.rows.conflicts if one.rows else ():
                row = map(cell_text, (each.base, each.ours, each.theirs))
                writer.writerow([one.key, json.dumps(each.key), each.column, *row, "", ""])
            for part in one.rows.definition if one.rows else ():
                if part.by_side:
                    said = map(cell_text, (part.base, part.ours, part.theirs))
                    writer.writerow([one.key, "[]", part.what, *said, "", ""])


def read_conflicts(paths: tuple[Path, ...]) -> dict[str, Resolution]:
    """Reads what was decided in such files; lines without a take stay open, the last one counts.

    Raises:
        InvalidError (kind "bad-take").
    """
    choices: dict[str, dict[Place, Choice]] = {}
    for path in paths:
        for table, place, choice in _decided(path):
            choices.setdefault(table, {})[place] = choice
    return {name: Resolution(found) for name, found in choices.items()}


def _decided(path: Path) -> Iterator[tuple[str, Place, Choice]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != _FIELDS:
            raise InvalidError(
                f"{path} has the columns {', '.join(reader.fieldnames or ()) or 'none'}: expected "
                f"{', '.join(_FIELDS)}. Let --conflicts write it.",
                kind="bad-take",
            )
        for row in reader:
            if not row["take"]:
                continue
            at = f"{path}, line {reader.line_num}"
            try:
                take, key = Take(row["take"]), tuple(json.loads(row["key"]))
            except ValueError:
                raise InvalidError(
                    f'{at}: take "{row["take"]}" for key {row["key"]} cannot be read: expected '
                    '"ours", "theirs" or "given", and the key as it was written. Correct the line.',
                    kind="bad-take",
                ) from None
            value = _given(at, row["value"]) if take is Take.GIVEN else None
            yield row["table"], (key, row["column"]), Choice(take, value)


def _given(at: str, text: str | None) -> str | None:
    try:
        if text:
            return cell_value(text)
    except ValueError:
        pass
    raise InvalidError(
        f"{at}: the given value {text or '(empty)'} cannot be read: expected a text, null for no "
        'value, or "" for the empty text; within quotes as in JSON. Correct the line.',
        kind="bad-take",
    )
