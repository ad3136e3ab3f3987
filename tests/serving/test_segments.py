"""The bytes of a segment: whatever is torn off, whole records stay and none is made up."""

from __future__ import annotations

import json

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
    assert json.loads(frame.payload) == ending.to_json()


ENDING = segments.Ending("stopped", 2**63, 2**63, 2**63, 2**63).encode()
RECORDS = st.lists(
    st.text(max_size=20)
    | st.sampled_from([ENDING.decode(), {"ended": "x"}, segments.framed(ENDING).decode("latin-1")]),
    max_size=4,
).map(lambda notes: [json.dumps({"receipt": "r", "note": note}).encode() for note in notes])


@given(records=RECORDS, is_stopped=st.booleans(), cut=st.integers(0, 300), data=st.data())
def test_an_ended_segment_is_known_by_its_last_bytes_as_by_all_of_them(
    records: list[bytes], is_stopped: bool, cut: int, data: st.DataObject
) -> None:
    payloads = [*records, ENDING] if is_stopped else records
    whole = segments.MAGIC + b"".join(segments.framed(one) for one in payloads)
    torn = whole[: max(len(segments.MAGIC), len(whole) - data.draw(st.sampled_from([0, cut])))]
    read = list(segments.frames(torn))
    expected = bool(read) and read[-1].is_end and read[-1].end == len(torn)
    assert segments.is_ended(torn[-segments.TAIL_BYTES :]) == expected
