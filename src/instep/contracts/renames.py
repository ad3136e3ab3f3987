"""Recognises a column of an arriving batch that is there under another name.

A pure reading of column profiles: the batch against an accepted one. It proposes, with
evidence in a sentence, and never renames.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from instep.contracts.units import NUMBERS, SHARE_CHANGE, TIMES, is_number, rank_gap
from instep.findings import Finding, Severity
from instep.tables.profile import ColumnProfile


@dataclass(frozen=True, slots=True)
class Rename:
    """A missing column that seems to arrive under another name; `agreement` is from 0 to 1."""

    old: str
    new: str
    agreement: float
    reasons: tuple[str, ...]

    @property
    def sentence(self) -> str:
        return f'"{self.old}" is missing and "{self.new}" looks like it: {"; ".join(self.reasons)}.'

    def finding(self, table: str) -> Finding:
        return Finding(
            kind="renamed-column",
            subject=f"table/{table}.{self.old}",
            severity=Severity.STOP,
            message=self.sentence,
            evidence={
                "old": self.old,
                "new": self.new,
                "agreement": f"{self.agreement:.2f}",
                "reasons": list(self.reasons),
            },
        )


def renames(
    missing: Sequence[ColumnProfile],
    unknown: Sequence[ColumnProfile],
    known: Sequence[ColumnProfile] = (),
) -> tuple[Rename, ...]:
    """Returns which missing columns arrive under which unknown names, each at most once.

    `missing` and `known` are profiles of an accepted batch, `unknown` of the arriving one. A
    pair is named when each is the other's best by a margin, and the unknown column does not look
    more like another known one: many columns look like a small enumeration.
    """
    scores = {
        (old.name, new.name): _agreement(old, new)
        for old in missing
        for new in unknown
        if _family(old.type) == _family(new.type) or _are_same_letters(old.name, new.name)
    }
    rivals = {
        new.name: max(
            (
                _content(other, new)[0]
                for other in known
                if _family(other.type) == _family(new.type)
            ),
            default=0.0,
        )
        for new in unknown
    }
    content = {(old.name, new.name): _content(old, new)[0] for old in missing for new in unknown}
    found = []
    while True:
        best = _best_pair(scores, content, rivals)
        if best is None:
            break
        found.append(best)
        scores = {
            pair: score
            for pair, score in scores.items()
            if pair[0] != best.old and pair[1] != best.new
        }
    order = [profile.name for profile in missing]
    return tuple(sorted(found, key=lambda rename: order.index(rename.old)))


def _family(type_: str) -> str:
    name = type_.partition("(")[0]
    return "number" if name in NUMBERS else "time" if name in TIMES else name


def _agreement(old: ColumnProfile, new: ColumnProfile) -> tuple[float, tuple[str, ...]]:
    content, reasons = _content(old, new)
    name = name_likeness(old.name, new.name)
    score = 0.7 * content + 0.3 * name
    if _are_same_letters(old.name, new.name):
        # Only a rename changes nothing but punctuation; its values may have changed as well.
        return max(score, 0.8), (*reasons, "the names differ in punctuation only")
    if name >= 0.5:
        reasons = (*reasons, "the names are alike")
    return score, reasons


def _are_same_letters(first: str, second: str) -> bool:
    return "".join(_words(first)) == "".join(_words(second)) != ""


def _content(old: ColumnProfile, new: ColumnProfile) -> tuple[float, tuple[str, ...]]:
    """How alike two columns are but for their names, from 0 to 1, and why."""
    reasons = [f"both are {new.type}" if old.type == new.type else f"{old.type} and {new.type}"]
    values = _value_likeness(old, new)
    if values >= 0.6:
        reasons.append(f"{values:.0%} of the values agree")
    nulls = 1 - min(1.0, abs(old.null_share - new.null_share) / 0.1)
    if nulls >= 0.5:
        reasons.append(f"null in {old.null_share:.1%} and {new.null_share:.1%} of rows")
    distinct = _distinct_likeness(old, new)
    if distinct >= 0.5:
        reasons.append(f"{old.distinct} and {new.distinct} different values")
    return 0.65 * values + 0.15 * nulls + 0.2 * distinct, tuple(reasons)


def _value_likeness(old: ColumnProfile, new: ColumnProfile) -> float:
    common = _common(old.frequent, new.frequent)
    if is_number(old) and is_number(new):
        shape = 1 - rank_gap(old.quantiles, new.quantiles)
        return shape * (0.5 + 0.5 * max(common, shape if old.distinct > 200 else 0.0))
    if _family(old.type) == "time":
        # Two periods share no instants; only their kind and number can agree.
        return max(common, 0.5)
    if old.minimum and new.minimum and old.maximum and new.maximum and not common:
        return 0.5 * (old.minimum[:1] == new.minimum[:1]) * (old.maximum[:1] == new.maximum[:1])
    return common


def _common(old: Sequence[tuple[str, int]], new: Sequence[tuple[str, int]]) -> float:
    """The share of the listed rows whose values both list, a value's share changing 3-fold."""
    before, after = sum(count for _, count in old), sum(count for _, count in new)
    if not before or not after:
        return 0.0
    shares = {text: count / before for text, count in old}
    return sum(min(count / after, SHARE_CHANGE * shares.get(text, 0.0)) for text, count in new)


def _distinct_likeness(old: ColumnProfile, new: ColumnProfile) -> float:
    if not old.distinct or not new.distinct:
        return float(old.distinct == new.distinct)
    plain = old.distinct / new.distinct
    by_rows = plain * new.count / old.count if old.count and new.count else plain
    return max(min(ratio, 1 / ratio) for ratio in (plain, by_rows))


def _best_pair(
    scores: Mapping[tuple[str, str], tuple[float, tuple[str, ...]]],
    content: Mapping[tuple[str, str], float],
    rivals: Mapping[str, float],
) -> Rename | None:
    for (old, new), (score, reasons) in sorted(
        scores.items(), key=lambda item: (-item[1][0], item[0])
    ):
        others = [
            other
            for pair, (other, _) in scores.items()
            if pair != (old, new) and (pair[0] == old or pair[1] == new)
        ]
        likes_another_more = rivals.get(new, 0.0) > content[old, new] + 0.1
        alike = name_likeness(old, new) >= 0.6
        if (
            score >= 0.5
            and score - max(others, default=0.0) >= 0.05
            and (alike or not likes_another_more)
        ):
            return Rename(old, new, score, reasons)
    return None


def name_likeness(first: str, second: str) -> float:
    """How alike two column names are, from 0 to 1; an abbreviation counts as nearly the same."""
    one, two = _words(first), _words(second)
    if not one or not two:
        return 0.0
    by_word = (
        sum(max(_word_likeness(a, b) for b in two) for a in one)
        + sum(max(_word_likeness(a, b) for a in one) for b in two)
    ) / (len(one) + len(two))
    return max(by_word, _word_likeness("".join(one), "".join(two)))


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]


def _word_likeness(one: str, two: str) -> float:
    short, long = sorted((one, two), key=len)
    if short == long:
        return 1.0
    if len(short) >= 3 and long.startswith(short):
        return 0.9
    letters = iter(long)
    if len(short) >= 3 and short[0] == long[0] and all(letter in letters for letter in short):
        return 0.7
    ratio = difflib.SequenceMatcher(None, one, two).ratio()
    return ratio if ratio >= 0.75 else 0.0
