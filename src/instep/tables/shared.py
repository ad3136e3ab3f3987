"""Which files of two states of a table need not be read to compare them. Pure.

A file that both have is the same rows. So is a compacted file and the files that it was made of,
where one side has it and the other has all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from instep.tables.read import DataFile


def unshared(
    before: Sequence[DataFile], after: Sequence[DataFile]
) -> tuple[tuple[DataFile, ...], tuple[DataFile, ...]]:
    """Returns the files of each side whose rows the other does not have for certain."""
    paths = {file.path for file in before} & {file.path for file in after}
    old = tuple(file for file in before if file.path not in paths)
    new = tuple(file for file in after if file.path not in paths)
    new, old = _without_origins(new, old)
    return _without_origins(old, new)


def _without_origins(
    compacted: tuple[DataFile, ...], others: tuple[DataFile, ...]
) -> tuple[tuple[DataFile, ...], tuple[DataFile, ...]]:
    """Takes compacted files away, each with as many files of the other side as it was made of."""
    if not others or not any(file.origins for file in compacted):
        return compacted, others
    there = Counter(digest for file in others for digest in file.counts_as)
    taken: Counter[str] = Counter()
    kept = []
    for file in compacted:
        wanted = Counter(file.origins)
        if wanted and all(there[one] >= count for one, count in (taken + wanted).items()):
            taken += wanted
        else:
            kept.append(file)
    left = []
    for file in others:
        wanted = Counter(file.counts_as)
        if all(taken[one] >= count for one, count in wanted.items()):
            taken -= wanted
        else:
            left.append(file)
    # What is left over is part of a file that stands for more: then all of them are read.
    return (compacted, others) if +taken else (tuple(kept), tuple(left))
