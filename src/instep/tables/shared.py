"""Which files of two states of a table need not be read to compare them. Pure.

A file that both have, or two of the same bytes, are the same rows. So is a compacted file and the
files that it was made of, where one side has it and the other has all of them. Files are given by
path, each with the digests that tell its rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

Told = Mapping[str, tuple[str, ...]]


def unshared(before: Told, after: Told) -> tuple[frozenset[str], frozenset[str]]:
    """Returns the files of each side whose rows the other does not have for certain."""
    both = before.keys() & after.keys()
    old = {path: told for path, told in before.items() if path not in both}
    new = {path: told for path, told in after.items() if path not in both}
    new, old = _without_origins(new, old)
    old, new = _without_origins(old, new)
    return frozenset(old), frozenset(new)


_Files = dict[str, tuple[str, ...]]


def _without_origins(compacted: _Files, others: _Files) -> tuple[_Files, _Files]:
    """Takes compacted files away, with those of the other side that they were made of."""
    there = Counter(digest for told in others.values() for digest in told)
    taken: Counter[str] = Counter()
    kept: _Files = {}
    for path, told in compacted.items():
        wanted = Counter(told)
        if all(there[one] >= taken[one] + n for one, n in wanted.items()):
            taken += wanted
        else:
            kept[path] = told
    left: _Files = {}
    for path, told in others.items():
        wanted = Counter(told)
        if all(taken[one] >= count for one, count in wanted.items()):
            taken -= wanted
        else:
            left[path] = told
    # What is left over is part of a file that stands for more: then all of them are read.
    return (compacted, others) if +taken else (kept, left)
