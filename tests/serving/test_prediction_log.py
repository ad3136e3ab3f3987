"""The log keeps what it promised, finds it by its receipt, and says what it could not keep."""

from __future__ import annotations

import errno
import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
from serving_builders import START, clock_of, draft

from instep.errors import InternalError, InvalidError, NotFoundError, UnavailableError
from instep.serving import segments
from instep.serving.log_files import find_receipt, read_predictions, recover, segment_paths
from instep.serving.prediction_log import LogMode, PredictionLog
from instep.serving.records import PredictionRecord, Reason, Refused


def opened(folder: Path, mode: LogMode = LogMode.DURABLE) -> PredictionLog:
    return PredictionLog(folder, mode, clock_of())


def kept(log: PredictionLog, count: int) -> list[PredictionRecord]:
    return [record for record in log.append([draft(n) for n in range(count)]) if record]


def test_a_record_is_found_by_its_receipt_while_it_is_written_and_after(tmp_path: Path) -> None:
    log = opened(tmp_path)
    records = kept(log, 3)
    assert find_receipt(tmp_path, records[1].receipt) == records[1]
    log.close()
    assert find_receipt(tmp_path, records[1].receipt) == records[1]
    assert list(read_predictions(tmp_path)) == records


def test_a_refusal_is_recorded_with_its_reasons(tmp_path: Path) -> None:
    refused = Refused((Reason("unseen-category", "dest", "Feature dest is new."),))
    (record,) = opened(tmp_path).append([draft(1, refused)])
    assert record is not None
    assert find_receipt(tmp_path, record.receipt).outcome == refused


def test_a_receipt_of_nowhere_is_not_found_and_a_wrong_one_is_invalid(tmp_path: Path) -> None:
    (record,) = kept(opened(tmp_path / "one"), 1)
    with pytest.raises(NotFoundError, match="is not in the prediction log") as missing:
        find_receipt(tmp_path / "two", record.receipt)
    assert missing.value.kind == "no-such-receipt"
    with pytest.raises(InvalidError, match="cannot be read") as wrong:
        find_receipt(tmp_path, "rcp_penguin")
    assert wrong.value.kind == "bad-receipt"


def test_off_gives_no_receipt_and_counts_what_was_not_recorded(tmp_path: Path) -> None:
    log = opened(tmp_path, LogMode.OFF)
    assert log.append([draft(1), draft(2)]) == (None, None)
    assert log.close().unlogged == 2
    (path,) = segment_paths(tmp_path)
    *_, last = segments.frames(path.read_bytes())
    assert json.loads(last.payload)["unlogged"] == 2


def test_batched_says_what_is_not_durable_yet(tmp_path: Path) -> None:
    log = opened(tmp_path, LogMode.BATCHED)
    kept(log, 2)
    assert log.state.pending == 2
    log.sync()
    assert log.state.pending == 0
    assert log.state.lost == 0


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_tail_is_set_aside_and_whole_records_stay(tmp_path: Path, cut: int) -> None:
    log = opened(tmp_path)
    records = kept(log, 3)
    (path,) = segment_paths(tmp_path)
    torn = tmp_path / "dead"
    torn.mkdir()
    (torn / path.name).write_bytes(path.read_bytes()[:-cut])
    (recovery,) = recover(torn)
    assert list(read_predictions(torn)) == records[:2]
    assert recovery.records == 2
    assert recovery.cut_bytes == len((torn / path.name).with_suffix(".cut").read_bytes()) > 0
    assert recover(torn) == ()


def test_of_a_segment_that_was_ended_only_the_end_is_read(tmp_path: Path) -> None:
    log = opened(tmp_path)
    kept(log, 1)
    log.close()
    (path,) = segment_paths(tmp_path)
    ended = path.read_bytes()
    with path.open("r+b") as file:  # a hole in it, larger than any memory: only a tail fits
        file.truncate(1 << 42)
        file.seek(1 << 42)
        file.write(ended[len(segments.MAGIC) :])
    assert recover(tmp_path) == ()


def test_damage_inside_a_segment_that_was_ended_stays_for_its_readers_to_tell(
    tmp_path: Path,
) -> None:
    log = opened(tmp_path)
    kept(log, 3)
    log.close()
    (path,) = segment_paths(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(segments.MAGIC) + 20] ^= 1
    path.write_bytes(data)
    assert recover(tmp_path) == ()
    assert path.read_bytes() == data
    with pytest.raises(InternalError, match="is damaged at byte"):
        list(read_predictions(tmp_path))


def test_a_segment_that_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    log = opened(tmp_path)
    kept(log, 1)
    assert recover(tmp_path) == ()
    assert len(kept(log, 1)) == 1


def test_two_processes_write_their_own_segments(tmp_path: Path) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    records = kept(one, 1) + kept(two, 1)
    assert len(segment_paths(tmp_path)) == 2
    assert {r.receipt for r in read_predictions(tmp_path)} == {r.receipt for r in records}


def test_a_segment_is_ended_after_an_hour_and_receipts_are_still_found(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, LogMode.DURABLE, clock_of(step=timedelta(minutes=25)))
    records = [record for n in range(6) for record in log.append([draft(n)]) if record]
    assert len(segment_paths(tmp_path)) == 2
    assert [find_receipt(tmp_path, one.receipt) for one in records] == records


def test_a_clock_that_goes_back_gives_no_receipt_outside_its_segment(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, LogMode.DURABLE, clock_of(step=timedelta(hours=-2)))
    records = [record for n in range(3) for record in log.append([draft(n)]) if record]
    assert [find_receipt(tmp_path, one.receipt) for one in records] == records


def test_records_are_read_by_the_time_of_their_answer(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, LogMode.DURABLE, clock_of(step=timedelta(minutes=50)))
    records = [record for n in range(5) for record in log.append([draft(n)]) if record]
    since, until = START + timedelta(minutes=50), START + timedelta(minutes=150)
    assert list(read_predictions(tmp_path, since=since, until=until)) == records[1:3]


def test_damage_before_the_end_is_never_passed_over(tmp_path: Path) -> None:
    log = opened(tmp_path)
    kept(log, 3)
    log.close()
    (path,) = segment_paths(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(segments.MAGIC) + 20] ^= 1
    path.write_bytes(data)
    with pytest.raises(InternalError, match="is damaged at byte"):
        list(read_predictions(tmp_path))


@pytest.fixture
def full_disk(tmp_path: Path) -> Path:
    """A folder whose next segment is a device that is always full."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    return tmp_path


def _fill(log: PredictionLog) -> None:
    """Puts /dev/full where the open segment's file is."""
    segment = log._segment
    assert segment is not None
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, segment._descriptor)
    os.close(full)


def test_durable_refuses_to_answer_what_it_cannot_record(full_disk: Path) -> None:
    log = opened(full_disk)
    before = kept(log, 1)
    _fill(log)
    with pytest.raises(UnavailableError) as error:
        log.append([draft(2)])
    assert error.value.kind == "prediction-log-unavailable"
    assert os.strerror(errno.ENOSPC) in error.value.message
    after = kept(log, 1)
    found = {record.receipt for record in read_predictions(full_disk)}
    assert found == {record.receipt for record in (*before, *after)}


def test_batched_answers_and_counts_what_it_lost(full_disk: Path) -> None:
    log = opened(full_disk, LogMode.BATCHED)
    kept(log, 1)
    _fill(log)
    assert log.append([draft(2), draft(3)]) == (None, None)
    assert log.state.lost == 2 + 1
