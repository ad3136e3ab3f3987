"""The bytes of a segment: whatever is torn off, whole records stay and none is made up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instep.serving import segments

PAYLOADS = st.lists(st.binary(max_size=40), max_size=8)


@given(payloads=PAYLOADS, cut=st.integers(min_value=0, max_value=400))
def test_a_torn_tail_keeps_exactly_the_frames_before_it(payloads: list[bytes], cut: int) -> None:
    data = segments.MAGIC + b"".join(segments.framed(one) for one in payloads)
    kept = data[: max(len(segments.MAGIC), len(data) - cut)]
    whole, size = [], len(segments.MAGIC)
    for payload in payloads:
        size += len(segments.framed(payload))
        if size <= len(kept):
            whole.append(payload)
    assert [frame.payload for frame in segments.frames(kept)] == whole


@given(payloads=PAYLOADS.filter(bool), place=st.integers(min_value=0), flip=st.integers(1, 255))
def test_a_changed_byte_never_gives_another_record(
    payloads: list[bytes], place: int, flip: int
) -> None:
    data = bytearray(segments.MAGIC + b"".join(segments.framed(one) for one in payloads))
    place = len(segments.MAGIC) + place % (len(data) - len(segments.MAGIC))
    data[place] ^= flip
    read = [frame.payload for frame in segments.frames(bytes(data))]
    assert read == payloads[: len(read)]
    assert len(read) < len(payloads)


def test_a_record_is_found_by_its_receipt_and_text_that_looks_like_one_is_not() -> None:
    wanted = b'{"receipt":"rcp_1","at":1}'
    imitation = b'{"receipt":"rcp_0","note":' + wanted + b"}"
    data = segments.MAGIC + segments.framed(imitation) + segments.framed(wanted)
    assert segments.search(data, "rcp_1") == wanted
    assert segments.search(data[: -len(wanted)], "rcp_1") is None


def test_a_segment_name_tells_its_start_and_other_files_are_not_segments() -> None:
    name = segments.segment_name(1_378_202_400_000, "0a1b2c3d")
    assert segments.start_of(name) == 1_378_202_400_000
    assert segments.start_of(name.replace(".log", ".cut")) is None


def test_an_ending_survives_its_frame() -> None:
    ending = segments.Ending("recovered", 7, cut_bytes=3, unlogged=2, lost=1)
    frame = segments.frame_at(segments.framed(ending.encode()), 0)
    assert frame is not None and frame.is_end
    assert segments.decode_ending(frame.payload) == ending
