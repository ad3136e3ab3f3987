"""The prediction log: what was answered, kept so that a receipt can always be explained.

Always: one process writes a segment, under a file lock; in mode `durable` a record is on disk
before its answer leaves, so an acknowledged receipt survives any crash; in `batched` it is handed
to the operating system before the answer leaves (it survives the death of the process) and is on
disk at most `SYNC_INTERVAL_S` later; in `off` there is no record and no receipt. What was lost or
not recorded is counted and said. A torn tail is set aside in a `.cut` file, never thrown away.

Deliberately absent: a thread. Its one caller appends whole batches (group commit).
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from instep import faults
from instep.canonical import Json, from_microseconds, to_microseconds
from instep.clock import Clock
from instep.errors import UnavailableError
from instep.history.objects import make_folder_durably, sync_folder
from instep.serving import segments
from instep.serving.log_files import Recovery, recover, write_whole
from instep.serving.records import Draft, PredictionRecord, encode
from instep.serving.segments import Ending

SYNC_INTERVAL_S = 0.2
"""In batched mode, the longest a record may stay in the operating system's memory only."""


class LogMode(StrEnum):
    """What an answer promises about its record."""

    DURABLE = "durable"
    BATCHED = "batched"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class LogState:
    """Counts since this log was opened.

    `pending` records are not on disk yet; `lost` were answered and could not be kept; `unlogged`
    were answered with the log off.
    """

    mode: LogMode
    written: int
    pending: int
    lost: int
    unlogged: int
    recovered: tuple[Recovery, ...]

    def to_json(self) -> dict[str, Json]:
        return {
            "mode": self.mode.value,
            "written": self.written,
            "pending": self.pending,
            "lost": self.lost,
            "unlogged": self.unlogged,
            "recovered": [one.to_json() for one in self.recovered],
        }


class PredictionLog:
    """The writing side, for one process. Opening it recovers what dead processes left."""

    def __init__(self, folder: Path, mode: LogMode, clock: Clock) -> None:
        make_folder_durably(folder)
        self._folder = folder
        self._mode = mode
        self._clock = clock
        self._segment: _Segment | None = None
        self._last_ms = 0
        self._synced_at = time.monotonic()
        self._written = 0
        self._lost = 0
        self._unlogged = 0
        self._recovered = recover(folder)

    @property
    def state(self) -> LogState:
        return LogState(
            mode=self._mode,
            written=self._written,
            pending=self._segment.unsynced if self._segment else 0,
            lost=self._lost,
            unlogged=self._unlogged,
            recovered=self._recovered,
        )

    def append(self, drafts: Sequence[Draft]) -> tuple[PredictionRecord | None, ...]:
        """Records a batch and returns its records in order, when the promise of the mode holds.

        A None is an answer without a record, and is counted: the mode is off, or it is batched and
        the disk refused.

        Raises:
            UnavailableError (kind "prediction-log-unavailable"): in durable mode, the disk refused;
            none of the batch may be answered.
        """
        if self._mode is LogMode.OFF:
            self._unlogged += len(drafts)
            return (None,) * len(drafts)
        records = self._records(drafts)
        try:
            self._write(records)
        except OSError as error:
            if self._mode is LogMode.DURABLE:
                self._abandon()
                raise UnavailableError(
                    f"The prediction log in {self._folder} cannot be written ({error.strerror}): "
                    "expected every answer to be recorded first. Make room on the disk, or check "
                    "it, then ask again.",
                    kind="prediction-log-unavailable",
                ) from error
            self.sync()
            self._abandon()
            self._lost += len(drafts)
            return (None,) * len(drafts)
        self._written += len(records)
        return records

    def sync(self) -> None:
        """Makes what was appended durable; in batched mode, records that cannot be are counted."""
        if self._segment is None or not self._segment.unsynced:
            return
        pending = self._segment.unsynced
        try:
            self._segment.sync()
            self._synced_at = time.monotonic()
        except OSError:
            self._lost += pending
            self._abandon()

    def close(self) -> LogState:
        """Ends the segment and returns the last counts."""
        self.sync()
        if self._unlogged and self._segment is None:
            self._segment = _Segment.create(self._folder, self._milliseconds())
        if self._segment is not None:
            with suppress(OSError):
                self._segment.finish(unlogged=self._unlogged, lost=self._lost)
            self._segment = None
        return self.state

    def _records(self, drafts: Sequence[Draft]) -> tuple[PredictionRecord, ...]:
        at_ms = self._milliseconds()
        at = from_microseconds(at_ms * 1000)
        return tuple(
            PredictionRecord(
                receipt=_receipt(at_ms),
                at=at,
                mode=self._mode.value,
                source=draft.source,
                question=draft.question,
                outcome=draft.outcome,
                flags=draft.flags,
            )
            for draft in drafts
        )

    def _write(self, records: Sequence[PredictionRecord]) -> None:
        segment = self._open_segment()
        segment.append([encode(record) for record in records])
        now = time.monotonic()
        if self._mode is LogMode.DURABLE or now - self._synced_at >= SYNC_INTERVAL_S:
            segment.sync()
            self._synced_at = now

    def _open_segment(self) -> _Segment:
        segment = self._segment
        if segment is not None and segment.is_full(self._last_ms):
            segment.finish()
            segment = None
        if segment is None:
            segment = self._segment = _Segment.create(self._folder, self._last_ms)
        return segment

    def _abandon(self) -> None:
        """Leaves a segment whose disk refused: after a failed fsync its state is not known."""
        if self._segment is not None:
            self._segment.leave()
            self._segment = None

    def _milliseconds(self) -> int:
        """Returns now, never before a receipt already given: names and receipts stay in order."""
        self._last_ms = max(self._last_ms, to_microseconds(self._clock()) // 1000)
        return self._last_ms


class _Segment:
    """One open, locked segment file."""

    def __init__(self, path: Path, descriptor: int, start_ms: int) -> None:
        self.path = path
        self.unsynced = 0
        self._descriptor = descriptor
        self._start_ms = start_ms
        self._size = len(segments.MAGIC)
        self._records = 0

    @classmethod
    def create(cls, folder: Path, start_ms: int) -> _Segment:
        """Creates a segment, locked before it has its name, so that none recovers it meanwhile."""
        path = folder / segments.segment_name(start_ms, os.urandom(4).hex())
        draft = path.with_suffix(".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write_whole(descriptor, segments.MAGIC)
            os.fsync(descriptor)
            faults.reached("predictions.create.before")
            draft.rename(path)
            sync_folder(folder)
            faults.reached("predictions.create.after")
        except OSError:
            os.close(descriptor)
            raise
        return cls(path, descriptor, start_ms)

    def is_full(self, now_ms: int) -> bool:
        return (
            self._size >= segments.MAXIMUM_BYTES
            or now_ms - self._start_ms >= segments.MAXIMUM_AGE_MS
        )

    def append(self, payloads: Sequence[bytes]) -> None:
        data = b"".join(segments.framed(payload) for payload in payloads)
        faults.reached("predictions.append.before")
        write_whole(self._descriptor, data)
        faults.reached("predictions.append.after")
        self._size += len(data)
        self._records += len(payloads)
        self.unsynced += len(payloads)

    def sync(self) -> None:
        faults.reached("predictions.sync.before")
        os.fdatasync(self._descriptor)
        faults.reached("predictions.sync.after")
        self.unsynced = 0

    def finish(self, unlogged: int = 0, lost: int = 0) -> None:
        ending = Ending("stopped", self._records, unlogged=unlogged, lost=lost)
        try:
            write_whole(self._descriptor, segments.framed(ending.encode()))
            self.sync()
        finally:
            self.leave()

    def leave(self) -> None:
        os.close(self._descriptor)


def _receipt(at_ms: int) -> str:
    number = int.from_bytes(os.urandom(10))
    high = (at_ms << 16) | 0x7000 | (number >> 68)
    low = (1 << 63) | (number & ((1 << 62) - 1))
    return f"rcp_{uuid.UUID(int=(high << 64) | low)}"
