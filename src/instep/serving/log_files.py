"""Reads the files of the prediction log: after a crash, by receipt, or all records of a period.

What a crash left behind is put right by `recover`, before anything is written; nothing else here
changes a file.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from instep import faults
from instep.canonical import Json, to_microseconds
from instep.errors import InternalError, InvalidError, NotFoundError
from instep.history.objects import sync_folder
from instep.serving import segments
from instep.serving.records import PredictionRecord, decode
from instep.serving.segments import Data, Ending, Frame

_RECEIPT = re.compile(r"rcp_([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})")


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found of a segment whose process died."""

    segment: str
    records: int
    cut_bytes: int

    def to_json(self) -> dict[str, Json]:
        return {"segment": self.segment, "records": self.records, "cut_bytes": self.cut_bytes}


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
    write_whole(descriptor, segments.framed(ending.encode()))
    os.fsync(descriptor)
    faults.reached("predictions.recover.after")
    return Recovery(path.name, records, len(torn))


def _keep_cut(path: Path, torn: bytes) -> None:
    kept = path.with_suffix(".cut")
    descriptor = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        write_whole(descriptor, torn)
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


def write_whole(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
