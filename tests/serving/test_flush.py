"""The log becomes a table: each record once, whatever is flushed, killed or flushed again."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import KILLED, run_script
from serving_builders import draft

from instep.errors import ConflictError
from instep.history.repository import Repository
from instep.serving.flush import KEY, REF, copy_parts, flush, unflushed
from instep.serving.prediction_log import LogMode, PredictionLog
from instep.serving.records import Reason, Refused
from instep.tables.content import TableContent
from instep.tables.read import data_files
from instep.tables.small_files import MANY_FILES


@pytest.fixture
def folder(repo: Repository) -> Path:
    return repo.root / "predictions"


def opened(repo: Repository, folder: Path) -> PredictionLog:
    return PredictionLog(folder, LogMode.DURABLE, repo.clock)


def written(log: PredictionLog, count: int) -> list[str]:
    refused = Refused((Reason("unseen-category", "dest", "New."),))
    drafts = [draft(n, refused if n == 1 else None) for n in range(count)]
    return [record.receipt for record in log.append(drafts) if record]


def table(repo: Repository) -> list[tuple[str, float | None]]:
    import duckdb

    content = TableContent.from_content(repo.content(repo.resolve(REF), KEY))
    paths = [file.path for file in data_files(repo.root, content)]
    return (
        duckdb.connect()
        .execute(f"select receipt, prediction from read_parquet({paths}) order by receipt")
        .fetchall()
    )


def test_each_record_is_in_the_table_once_however_often_it_is_flushed(
    repo: Repository, folder: Path
) -> None:
    log = opened(repo, folder)
    receipts = written(log, 3)
    assert flush(repo, folder).records == 3
    assert flush(repo, folder).records == 0
    receipts += written(log, 2)
    log.close()
    assert flush(repo, folder).records == 2
    assert [receipt for receipt, _ in table(repo)] == sorted(receipts)


def test_a_refusal_has_no_prediction_in_the_table(repo: Repository, folder: Path) -> None:
    written(opened(repo, folder), 3)
    flush(repo, folder)
    assert sorted(value for _, value in table(repo) if value is not None) == [0.0, 0.25]


def test_an_empty_log_makes_no_table(repo: Repository, folder: Path) -> None:
    assert flush(repo, folder).commit is None


def test_of_two_who_flush_the_same_records_one_is_told(repo: Repository, folder: Path) -> None:
    receipts = written(opened(repo, folder), 3)
    seen = tuple(unflushed(repo, folder))
    flush(repo, folder)
    with pytest.raises(ConflictError) as error:
        copy_parts(repo, seen)
    assert error.value.kind == "flushed-meanwhile"
    assert [receipt for receipt, _ in table(repo)] == sorted(receipts)


@pytest.mark.parametrize(
    "fault", ["predictions.flush.before", "transaction.commit.before:2", "predictions.flush.after"]
)
def test_a_killed_flush_neither_loses_nor_repeats_a_record(
    repo: Repository, folder: Path, fault: str
) -> None:
    receipts = written(opened(repo, folder), 3)
    code = (
        "import sys, pathlib; from instep.clock import system_clock; "
        "from instep.history.repository import open_repository; "
        "from instep.serving.flush import flush; root = pathlib.Path(sys.argv[1]); "
        "flush(open_repository(root, system_clock), root / 'predictions')"
    )
    assert run_script(code, str(repo.root), fault=fault).code == KILLED
    flush(repo, folder)
    assert [receipt for receipt, _ in table(repo)] == sorted(receipts)


def test_many_small_flushes_are_put_together(repo: Repository, folder: Path) -> None:
    log = opened(repo, folder)
    receipts, told = [], []
    for _ in range(MANY_FILES):
        receipts += written(log, 1)
        told.append(flush(repo, folder).upkeep)
    log.close()
    assert [number for number, text in enumerate(told, 1) if text] == [MANY_FILES]
    assert told[-1].startswith(f"predictions: {MANY_FILES} files")
    content = TableContent.from_content(repo.content(repo.resolve(REF), KEY))
    assert len(data_files(repo.root, content)) == 1
    assert [receipt for receipt, _ in table(repo)] == sorted(receipts)
