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
import mmap
import os
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from instep import faults
from instep.canonical import Json, from_microseconds, to_microseconds
from instep.clock import Clock
from instep.errors import InternalError, InvalidError, NotFoundError, UnavailableError
from instep.history.objects import make_folder_durably, sync_folder
from instep.serving import segments
from instep.serving.records import Draft, PredictionRecord, decode, encode
from instep.serving.segments import Data, Ending, Frame

SYNC_INTERVAL_S = 0.2
"""In batched mode, the longest a record may stay in the operating system's memory only."""

_RECEIPT = re.compile(r"rcp_([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})")


class LogMode(StrEnum):
    """What an answer promises about its record."""

    DURABLE = "durable"
    BATCHED = "batched"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found of a segment whose process died."""

    segment: str
    records: int
    cut_bytes: int

    def to_json(self) -> dict[str, Json]:
        return {"segment": self.segment, "records": self.records, "cut_bytes": self.cut_bytes}


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
            _write_whole(descriptor, segments.MAGIC)
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
        _write_whole(self._descriptor, data)
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
            _write_whole(self._descriptor, segments.framed(ending.encode()))
            self.sync()
        finally:
            self.leave()

    def leave(self) -> None:
        os.close(self._descriptor)


def recover(folder: Path) -> tuple[Recovery, ...]:
    """Ends the segments whose process died, and returns what was found of each, oldest first.

    Whole records stay; a torn tail moves to a `.cut` file beside. A segment that a living process
    holds is left alone. Of one that was ended only the last bytes are read.
    """
    found = []
    for path in segment_paths(folder):
        descriptor = os.open(path, os.O_RDWR)
        try:
            recovery = _recover_segment(path, descriptor)
        finally:
            os.close(descriptor)
        if recovery is not None:
            found.append(recovery)
    return tuple(found)


def find_receipt(folder: Path, receipt: str) -> PredictionRecord:
    """Returns the record of `receipt`; only segments of its hour are read.

    Raises:
        InvalidError (kind "bad-receipt"): it is not a receipt.
        NotFoundError (kind "no-such-receipt"): no record carries it.
    """
    at_ms = _milliseconds_of(receipt)
    for path in segment_paths(folder):
        start = segments.start_of(path.name) or 0
        if start <= at_ms <= start + segments.MAXIMUM_AGE_MS:
            with _mapped(path) as data:
                payload = segments.search(data, receipt)
            if payload is not None:
                return decode(payload)
    raise NotFoundError(
        f'Receipt "{receipt}" is not in the prediction log: expected one that this lake gave. '
        "Check that it is complete, and that this is the lake that answered.",
        kind="no-such-receipt",
        receipt=receipt,
    )


def read_predictions(
    folder: Path, *, since: datetime | None = None, until: datetime | None = None
) -> Iterator[PredictionRecord]:
    """Yields the records answered in `[since, until)`, segment by segment, oldest segment first.

    A segment that is being written is read up to its last whole record. Within a segment records
    are in the order of their answers; segments of several processes overlap.

    Raises:
        InternalError (kind "prediction-log-damaged"): an ended segment has a frame that is broken.
    """
    first = to_microseconds(since) // 1000 if since else 0
    for path in segment_paths(folder):
        start = segments.start_of(path.name) or 0
        if start + segments.MAXIMUM_AGE_MS < first:
            continue
        if until is not None and start >= to_microseconds(until) // 1000 + 1:
            break
        for payload in read_segment(path):
            record = decode(payload)
            if (since is None or record.at >= since) and (until is None or record.at < until):
                yield record


def read_segment(path: Path, start: int = len(segments.MAGIC)) -> Iterator[bytes]:
    """Yields the record payloads of one segment from offset `start`.

    Raises:
        InternalError (kind "prediction-log-damaged").
    """
    for frame in whole_frames(path, start):
        yield frame.payload


def whole_frames(path: Path, start: int = len(segments.MAGIC)) -> Iterator[Frame]:
    """Yields the record frames of one segment; an ended one must be whole to its end.

    Raises:
        InternalError (kind "prediction-log-damaged").
    """
    with _mapped(path) as data:
        reached = start
        for frame in segments.frames(data, start):
            reached = frame.end
            if not frame.is_end:
                yield frame
        if reached != len(data) and _has_later_frame(data, reached):
            raise InternalError(
                f"Prediction log segment {path.name} is damaged at byte {reached}: expected a "
                "whole record there, and later ones exist. Restore the file from a backup.",
                kind="prediction-log-damaged",
                segment=path.name,
                offset=reached,
            )


def segment_paths(folder: Path) -> tuple[Path, ...]:
    """Returns the segments in `folder`, oldest first."""
    if not folder.is_dir():
        return ()
    return tuple(
        sorted(path for path in folder.iterdir() if segments.start_of(path.name) is not None)
    )


def _recover_segment(path: Path, descriptor: int) -> Recovery | None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, segments.TAIL_BYTES, max(0, size - segments.TAIL_BYTES))
    if segments.is_ended(tail):
        return None
    data = path.read_bytes()
    whole, records = len(segments.MAGIC), 0
    for frame in segments.frames(data):
        whole = frame.end
        records += not frame.is_end
    torn = data[whole:]
    if torn:
        _keep_cut(path, torn)
        faults.reached("predictions.recover.before")
        os.ftruncate(descriptor, whole)
    os.lseek(descriptor, whole, os.SEEK_SET)
    ending = Ending("recovered", records, cut_bytes=len(torn))
    _write_whole(descriptor, segments.framed(ending.encode()))
    os.fsync(descriptor)
    faults.reached("predictions.recover.after")
    return Recovery(path.name, records, len(torn))


def _keep_cut(path: Path, torn: bytes) -> None:
    kept = path.with_suffix(".cut")
    descriptor = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        _write_whole(descriptor, torn)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def _has_later_frame(data: Data, offset: int) -> bool:
    """Says whether a whole record begins after `offset`: then the gap is damage, not a torn end."""
    place = data.find(segments.PAYLOAD_START, offset)
    while place >= 0:
        if segments.frame_at(data, place - segments.HEADER_BYTES) is not None:
            return True
        place = data.find(segments.PAYLOAD_START, place + 1)
    return False


class _mapped:  # noqa: N801  (a context manager used as a verb)
    """Maps a file for reading; an empty one is an empty bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap.mmap | None = None

    def __enter__(self) -> Data:
        with self._path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return b""
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return self._map

    def __exit__(self, *_: object) -> None:
        if self._map is not None:
            self._map.close()


def _receipt(at_ms: int) -> str:
    number = int.from_bytes(os.urandom(10))
    high = (at_ms << 16) | 0x7000 | (number >> 68)
    low = (1 << 63) | (number & ((1 << 62) - 1))
    return f"rcp_{uuid.UUID(int=(high << 64) | low)}"


def _milliseconds_of(receipt: str) -> int:
    found = _RECEIPT.fullmatch(receipt)
    if found is None:
        raise InvalidError(
            f'Receipt "{receipt}" cannot be read: expected "rcp_" and a UUIDv7, as an answer '
            "carries it. Copy it whole.",
            kind="bad-receipt",
            receipt=receipt,
        )
    return uuid.UUID(found[1]).int >> 80


def _write_whole(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
