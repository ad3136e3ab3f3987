"""One segment of the prediction log: what its bytes mean, and where they stop being whole.

A segment is a magic line, then frames: length and CRC-32 of a payload (little-endian, 4 bytes
each), then the payload in JSON. A record's payload begins with its receipt; the last frame of a
segment that was ended says how. Receipts of a segment were all given in the `MAXIMUM_AGE_MS` after
the start in its name, which is what lets one be found without reading the others.

Pure: bytes in, frames out. Files belong to `prediction_log` and `log_files`.
"""

from __future__ import annotations

import json
import mmap
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from instep.canonical import Json

MAGIC = b"instep.predictions.v1\n"
MAXIMUM_AGE_MS = 3_600_000
"""A segment is ended after an hour, so that a receipt names few candidates."""
MAXIMUM_BYTES = 64 * 1024 * 1024
"""A segment is ended at 64 MiB, which is searched in about 20 ms."""
MAXIMUM_PAYLOAD = 8 * 1024 * 1024
"""A frame that claims more bytes than this is damage, not a record: requests are far smaller."""

Data = bytes | mmap.mmap
"""A segment's bytes, read or mapped."""

_HEADER = struct.Struct("<II")
_NAME = re.compile(r"(\d{13})-([0-9a-f]{8})\.log")
HEADER_BYTES = _HEADER.size
PAYLOAD_START = b'{"receipt":"'
"""How the payload of every record begins."""
_END_PREFIX = b'{"ended":'
TAIL_BYTES = 512
"""More than the frame of an ending: its five values take at most 200 bytes."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole payload, and the offset just after it."""

    payload: bytes
    end: int

    @property
    def is_end(self) -> bool:
        return self.payload.startswith(_END_PREFIX)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a segment ended: "stopped" by its own process, or "recovered" by a later one.

    `cut_bytes` were torn and set aside; `unlogged` answers were given without a record because the
    mode was off; `lost` answers were given, in batched mode, whose records never became durable.
    """

    how: str
    records: int
    cut_bytes: int = 0
    unlogged: int = 0
    lost: int = 0

    def to_json(self) -> dict[str, Json]:
        return {
            "ended": self.how,
            "records": self.records,
            "cut_bytes": self.cut_bytes,
            "unlogged": self.unlogged,
            "lost": self.lost,
        }

    def encode(self) -> bytes:
        return json.dumps(self.to_json(), separators=(",", ":")).encode()


def is_ended(tail: bytes) -> bool:
    """Says whether the last bytes of a segment, `TAIL_BYTES` at least if it has them, end it.

    A frame's header has zero bytes, which JSON has nowhere, so no text inside a record is taken
    for an ending.
    """
    place = tail.rfind(_END_PREFIX)
    frame = frame_at(tail, place - HEADER_BYTES) if place >= 0 else None
    return frame is not None and frame.end == len(tail)


def segment_name(start_ms: int, suffix: str) -> str:
    """Returns the file name of the segment that starts at `start_ms`; `suffix` is 8 hex digits."""
    return f"{start_ms:013d}-{suffix}.log"


def start_of(name: str) -> int | None:
    """Returns the start (ms) in a segment's file name, None for any other name."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None


def framed(payload: bytes) -> bytes:
    """Returns `payload` as a frame."""
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def frames(data: Data, start: int = len(MAGIC)) -> Iterator[Frame]:
    """Yields the whole frames of `data` from offset `start`, and stops at the first that is not."""
    offset = start
    while (frame := frame_at(data, offset)) is not None:
        yield frame
        offset = frame.end


def damaged_at(data: Data) -> int | None:
    """Returns the offset of a frame that changed after it was written, None where all are whole.

    Bytes after the last whole frame are a torn end, which happens when a server is killed and is
    dealt with by the next one, unless a whole frame follows them.
    """
    if data[: len(MAGIC)] != MAGIC:
        return 0 if len(data) >= len(MAGIC) else None
    end = len(MAGIC)
    for frame in frames(data):
        end = frame.end
    for beginning in (PAYLOAD_START, _END_PREFIX):
        place = data.find(beginning, end)
        while place >= 0:
            if place - HEADER_BYTES > end and frame_at(data, place - HEADER_BYTES) is not None:
                return end
            place = data.find(beginning, place + 1)
    return None


def frame_at(data: Data, offset: int) -> Frame | None:
    """Returns the frame that begins at `offset`, None where it is torn, damaged or past the end."""
    body = offset + HEADER_BYTES
    if offset < 0 or body > len(data):
        return None
    length, check = _HEADER.unpack_from(data, offset)
    end = body + length
    if length > MAXIMUM_PAYLOAD or end > len(data):
        return None
    payload = bytes(data[body:end])
    return Frame(payload, end) if zlib.crc32(payload) == check else None


def search(data: Data, receipt: str) -> bytes | None:
    """Returns the payload that `receipt` begins, in one pass without decoding.

    The receipt inside a JSON string has its quotes escaped, and the frame's CRC has the last word,
    so text that only looks like a record is never taken for one.
    """
    wanted = PAYLOAD_START + receipt.encode() + b'"'
    place = data.find(wanted)
    while place >= 0:
        frame = frame_at(data, place - HEADER_BYTES)
        if frame is not None:
            return frame.payload
        place = data.find(wanted, place + 1)
    return None
