"""What a step will take, before it runs: from what earlier ones took, or an honest guess.

Pure: rows and bytes of the inputs and the actual figures of earlier runs go in, figures come out
with the basis they rest on. What a run did take is recorded with the run.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from instep.canonical import Json

BASE_MEMORY_BYTES = 200 * 2**20
"""A worker with its libraries loaded, before it reads a row; measured on Linux, Python 3.11."""


class WorkKind(StrEnum):
    """Kinds of work whose speed is not comparable."""

    SQL = "sql"
    TRAIN = "train"


@dataclass(frozen=True, slots=True)
class Rate:
    """What a first guess assumes of a kind of work."""

    start_s: float
    bytes_per_second: float
    memory_per_byte: float


_GUESSES = {
    WorkKind.SQL: Rate(start_s=0.5, bytes_per_second=8e6, memory_per_byte=8),
    WorkKind.TRAIN: Rate(start_s=3.0, bytes_per_second=5e5, memory_per_byte=60),
}
"""From one small machine: joins at 8 MB of Parquet a second, some dozen boosted fits per slice."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a step is given: rows and bytes of its inputs."""

    kind: WorkKind
    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Actual:
    """What work took when it was done."""

    work: Work
    seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What work should take; `basis` says on what the figures rest."""

    rows: int
    size_bytes: int
    seconds: float
    memory_bytes: int
    basis: str

    def to_json(self) -> dict[str, Json]:
        return {
            "rows": self.rows,
            "size_bytes": self.size_bytes,
            "seconds": round(self.seconds, 2),
            "memory_bytes": self.memory_bytes,
            "basis": self.basis,
        }


def estimate(work: Work, past: Sequence[Actual]) -> Estimate:
    """Returns what `work` should take: scaled from the `past` of the same step, or a guess."""
    known = [one for one in past if one.work.kind is work.kind and one.work.size_bytes]
    if not work.size_bytes:
        return Estimate(work.rows, 0, 0.0, 0, "nothing to compute")
    if not known:
        guess = _GUESSES[work.kind]
        return Estimate(
            work.rows,
            work.size_bytes,
            guess.start_s + work.size_bytes / guess.bytes_per_second,
            BASE_MEMORY_BYTES + round(work.size_bytes * guess.memory_per_byte),
            f"first run: a guess from {describe_bytes(work.size_bytes)}",
        )
    scale = [work.size_bytes / one.work.size_bytes for one in known]
    seconds = statistics.median(
        one.seconds * factor for one, factor in zip(known, scale, strict=True)
    )
    memory = max(
        BASE_MEMORY_BYTES + round(max(0, one.memory_bytes - BASE_MEMORY_BYTES) * factor)
        for one, factor in zip(known, scale, strict=True)
    )
    runs = "the last run" if len(known) == 1 else f"the last {len(known)} runs"
    return Estimate(work.rows, work.size_bytes, seconds, memory, f"scaled from {runs}")


def total(parts: Iterable[Estimate]) -> Estimate:
    """Returns what steps one after another take: times add up, memory is the largest."""
    every = [part for part in parts if part.size_bytes]
    if not every:
        return Estimate(0, 0, 0.0, 0, "nothing to compute")
    bases = list(dict.fromkeys(part.basis for part in every))
    guess = next((basis for basis in bases if basis.startswith("first run")), None)
    size = sum(part.size_bytes for part in every)
    return Estimate(
        rows=sum(part.rows for part in every),
        size_bytes=size,
        seconds=sum(part.seconds for part in every),
        memory_bytes=max(part.memory_bytes for part in every),
        basis=f"first run: a guess from {describe_bytes(size)}" if guess else bases[0],
    )


def describe(found: Estimate) -> str:
    """Returns an estimate as one line: rows, memory, time, and what it rests on."""
    if not found.size_bytes:
        return "nothing to compute"
    return (
        f"{found.rows:,} rows, about {describe_bytes(found.memory_bytes)} memory, "
        f"about {describe_seconds(found.seconds)} ({found.basis})"
    )


def money(seconds: float, cores: int, price_per_cpu_hour: float) -> float:
    """Returns what `seconds` on `cores` cost, in the currency of the price."""
    return seconds * cores / timedelta(hours=1).total_seconds() * price_per_cpu_hour


def describe_bytes(size: float) -> str:
    """Returns a size with a unit that keeps it short."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def describe_seconds(seconds: float) -> str:
    """Returns a length of time with a unit that keeps it short."""
    if seconds < 90:
        return f"{max(seconds, 0.1):.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
