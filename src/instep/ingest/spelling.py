"""Which new keys are existing ones in another spelling, such as "007" as "7", or "ab-1" as "AB1"?

Two keys are spellings of one when they are equal without regard to case, spaces around them,
separators, zeros in front of a number, composed letters and full-width forms. Where a separator
parts digits from digits, or letters from letters, it tells codes apart ("1-23", "12-3"): it may be
another one, or may be missing in all of the one key when that has at least six digits. Full stops
and commas count as separators only where they are missing so. Only text has spellings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from instep.engines.schema import Column, literal, quoted

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB

_LONG = 6
"""From so many digits on their separators are decoration, as in dates; "1.5" is not "15"."""

_SEPARATORS = r"\s\p{Z}\p{Pd}_/\\:;|"
_ALL = rf"{_SEPARATORS}.,"

_FULL_WIDTH = "".join(map(chr, range(0xFF01, 0xFF5F)))
_ASCII = "".join(map(chr, range(0x21, 0x7F)))

_OLD_ALIKE, _NEW_ALIKE, _PAIRS = "old_alike", "new_alike", "spelling_pairs"
_OLD_FORMS, _NEW_FORMS = "old_forms", "new_forms"


def has_spellings(key: Sequence[Column]) -> bool:
    """Says whether a key has a part of text."""
    return any(column.type == "string" for column in key)


def find_spellings(
    engine: DuckDB, key: Sequence[Column], new: str, old: str, shown: int
) -> tuple[int, tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]]:
    """Returns how many rows of `new` have a key that `old` spells otherwise, and the first ones.

    Each is shown as the key in `old` and the one in `new`. No key may be in both relations. Of all
    keys only a rough form is computed, and the exact ones where both sides have it.
    """
    names = ", ".join(quoted(column.name) for column in key)
    rough = ", ".join(_rough(column) for column in key)
    for alike, side, other in ((_OLD_ALIKE, old, new), (_NEW_ALIKE, new, _OLD_ALIKE)):
        engine.run(
            f"CREATE OR REPLACE TEMP TABLE {alike} AS SELECT {names} FROM {side} "
            f"WHERE hash({rough}) IN (SELECT hash({rough}) FROM {other})"
        )
    for forms, alike in ((_NEW_FORMS, _NEW_ALIKE), (_OLD_FORMS, _OLD_ALIKE)):
        engine.run(f"CREATE OR REPLACE TEMP TABLE {forms} AS {_forms(key, alike)}")
    joined = f"FROM {_NEW_FORMS} n JOIN {_OLD_FORMS} o"
    pair = "SELECT n.shown AS new_key, o.shown AS old_key"
    engine.run(
        f"CREATE OR REPLACE TEMP TABLE {_PAIRS} AS SELECT new_key, min(old_key) AS old_key FROM ("
        f"{pair} {joined} ON n.parted = o.parted UNION ALL "
        f"{pair} {joined} ON n.joined = o.joined AND n.is_parted <> o.is_parted) GROUP BY new_key"
    )
    ((count,),) = engine.rows(f"SELECT count(*) FROM {_PAIRS}")
    first = engine.rows(f"SELECT old_key, new_key FROM {_PAIRS} ORDER BY ALL LIMIT {shown}")
    return int(count), tuple((tuple(before), tuple(after)) for before, after in first)


def _forms(key: Sequence[Column], side: str) -> str:
    """Returns the SELECT of each key with its forms: with its parts told apart, and joined."""
    shown = ", ".join(_text(column) for column in key)
    parted = ", ".join(_parted(column) for column in key)
    joined = ", ".join(_joined(column) for column in key)
    is_parted = " OR ".join(_is_parted(column) for column in key if column.type == "string")
    return (
        f"SELECT [{shown}] AS shown, [{parted}] AS parted, [{joined}] AS joined, "
        f"({is_parted}) AS is_parted FROM {side}"
    )


def _text(column: Column) -> str:
    return f"{quoted(column.name)}::VARCHAR"


def _plain(column: Column) -> str:
    """The text in lower case, composed, and of half width."""
    text = quoted(column.name)
    wide = f"translate(lower(nfc_normalize({text})), {literal(_FULL_WIDTH)}, {literal(_ASCII)})"
    return f"CASE WHEN strlen({text}) = length({text}) THEN lower({text}) ELSE {wide} END"


def _rough(column: Column) -> str:
    """What is the same in all spellings: neither zeros nor separators."""
    if column.type != "string":
        return _text(column)
    return f"regexp_replace({_plain(column)}, '[0{_ALL}]+', '', 'g')"


def _trimmed(column: Column) -> str:
    return rf"regexp_replace({_plain(column)}, '^[\s\p{{Z}}]+|[\s\p{{Z}}]+$', '', 'g')"


def _parted(column: Column) -> str:
    """The text as letters and numbers, one space between them, without zeros in front."""
    if column.type != "string":
        return _text(column)
    text = _trimmed(column)
    for pattern, to in (
        (rf"([\p{{L}}\p{{N}}])[{_SEPARATORS}]+", r"\1 "),
        (r"(\p{L})(\p{N})", r"\1 \2"),
        (r"(\p{N})(\p{L})", r"\1 \2"),
        (r"(^| )0+([0-9])", r"\1\2"),
    ):
        text = f"regexp_replace({text}, '{pattern}', '{to}', 'g')"
    return f"rtrim({text})"


def _joined(column: Column) -> str:
    """The text without separators; with the parts told apart where it is a short number."""
    if column.type != "string":
        return _text(column)
    text = rf"regexp_replace({_trimmed(column)}, '([\p{{L}}\p{{N}}])[{_ALL}]+', '\1', 'g')"
    is_short = f"regexp_full_match({text}, '[0-9]{{1,{_LONG - 1}}}')"
    return f"CASE WHEN {is_short} THEN {_parted(column)} ELSE {text} END"


def _is_parted(column: Column) -> str:
    """Whether a separator stands between two digits or two letters."""
    between = f"[{_ALL}]+"
    pattern = rf"\p{{N}}{between}\p{{N}}|\p{{L}}{between}\p{{L}}"
    return f"regexp_matches({_trimmed(column)}, '{pattern}')"
