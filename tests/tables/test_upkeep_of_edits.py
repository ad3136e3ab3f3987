"""Upkeep after small edits and commits of clients: files stay few, rows and commits the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from bare import bare_table
from pyiceberg.table import Table

from instep.errors import UnavailableError
from instep.history.commits import first_parents
from instep.history.locks import rewriting
from instep.history.refs import RefKind, create_ref
from instep.history.repository import MAIN, Repository
from instep.lake import Lake
from instep.tables.content import TableContent
from instep.tables.edit import TableEdit
from instep.tables.read import (
    current_snapshot,
    data_files,
    load_metadata,
    metadata_path,
)
from instep.tables.small_files import MANY_FILES, small_file_count
from instep.tables.upkeep import Stood, is_due, look_after


@pytest.fixture
def lake(repo: Repository) -> Lake:
    with repo.store.transaction() as tx:
        create_ref(tx, "work", RefKind.BRANCH, repo.resolve(MAIN), owner="ana", at=repo.clock())
    lake = Lake(repo)
    with lake.edit("work", message="made", author="ana") as edit:
        edit.create("t", columns={"id": "long"})
    return lake


def editing(lake: Lake) -> Any:  # a context manager of TableEdit
    return lake.edit("work", message="small", author="ana")


def now(lake: Lake) -> TableContent:
    return lake.branch("work").table("t").content


def files(lake: Lake) -> int:
    return len(data_files(lake.repo.root, now(lake)))


def ids(lake: Lake, commit: str = "work") -> list[int]:
    """Returns the rows of a commit as we have them, and as pyiceberg has them without us."""
    found = lake.at(commit).table("t")
    ours = [row["id"] for row in found.sql("select id from t order by id").to_pylist()]
    bare = bare_table(lake.repo.root, metadata_path(lake.repo.root, found.content))
    theirs = bare.scan().to_arrow().sort_by("id").column("id")
    assert theirs.to_pylist() == ours
    return ours


def arrow(*numbers: int) -> pa.Table:
    return pa.table({"id": pa.array(numbers, pa.int64())})


def by_edit(lake: Lake, number: int) -> None:
    with editing(lake) as edit:
        edit.append("t", f"select {number}::bigint as id")


def by_pyiceberg(lake: Lake, number: int) -> None:
    with editing(lake) as edit:
        edit.catalog.load_table("default.t").append(arrow(number))


@pytest.mark.parametrize("append", [by_edit, by_pyiceberg], ids=["edit", "pyiceberg"])
def test_files_of_many_small_edits_stay_few(lake: Lake, append: Any) -> None:
    states = []
    for number in range(2 * MANY_FILES + 4):
        append(lake, number)
        states.append((lake.repo.resolve("work"), number))
        assert files(lake) <= MANY_FILES
        assert small_file_count(lake.repo.root, now(lake)) == files(lake)
    assert files(lake) < 8
    for commit, number in states[:: MANY_FILES // 2]:
        assert ids(lake, commit) == list(range(number + 1))


def test_an_edit_says_what_was_done_after_it_and_no_commit_is_made_for_that(lake: Lake) -> None:
    for number in range(MANY_FILES):
        with editing(lake) as edit:
            edit.append("t", f"select {number}::bigint as id")
        session = edit._edit
        assert bool(session.upkeep) == (number == MANY_FILES - 1)
    assert session.upkeep[0].startswith(f"t: {MANY_FILES} files")
    with lake.repo.store.reading() as tx:
        messages = [one.message for one in first_parents(tx, lake.repo.resolve("work"), 50)]
    assert messages.count("small") == MANY_FILES


def test_an_upkeep_that_cannot_be_done_fails_no_edit_and_is_not_tried_after_each(
    lake: Lake,
) -> None:
    for number in range(MANY_FILES - 1):
        by_edit(lake, number)
    with rewriting(lake.repo.root, now(lake).uuid):
        with pytest.raises(UnavailableError), rewriting(lake.repo.root, now(lake).uuid):
            pass
        with editing(lake) as edit:
            edit.append("t", "select 99::bigint as id")
    assert "was not compacted" in edit._edit.upkeep[0]
    assert files(lake) == MANY_FILES
    by_edit(lake, 100)
    assert files(lake) == MANY_FILES + 1
    for number in range(MANY_FILES - 1):
        by_edit(lake, 200 + number)
    assert files(lake) == 1
    assert len(ids(lake)) == 2 * MANY_FILES


def test_an_upkeep_that_cannot_even_look_fails_no_edit(lake: Lake) -> None:
    with editing(lake) as edit:
        edit.append("t", "select 1::bigint as id")
        edit.commit()
        content = edit.find_table("t")
        (lake.repo.root / content.metadata).write_bytes(b"damaged")
    assert "t was not compacted" in edit._edit.upkeep[0]


def held_meanwhile(lake: Lake) -> tuple[Any, Any]:
    """A table in a client's hands, of an edit that is open while its files are put together."""
    for number in range(MANY_FILES - 1):
        by_edit(lake, number)
    with editing(lake) as last:
        last.append("t", f"select {MANY_FILES - 1}::bigint as id")
        last.commit()
        open_edit = editing(lake)
        table = open_edit.__enter__().catalog.load_table("default.t")
        assert table.scan().to_arrow().num_rows == MANY_FILES
    assert files(lake) == 1
    return open_edit, table


def test_who_holds_a_table_appends_to_its_compacted_files(lake: Lake) -> None:
    open_edit, table = held_meanwhile(lake)
    table.append(arrow(1000))
    table.append(arrow(1001))
    open_edit.__exit__(None, None, None)
    assert files(lake) == 3
    assert ids(lake) == [*range(MANY_FILES), 1000, 1001]


def test_who_holds_a_table_deletes_from_the_files_that_it_knows(lake: Lake) -> None:
    open_edit, table = held_meanwhile(lake)
    table.delete("id == 3")
    table.append(arrow(1000))
    open_edit.__exit__(None, None, None)
    assert ids(lake) == [*(n for n in range(MANY_FILES) if n != 3), 1000]
    assert small_file_count(lake.repo.root, now(lake)) == files(lake)


def test_an_edit_whose_branch_moved_and_was_compacted_is_made_again(lake: Lake) -> None:
    for number in range(MANY_FILES - 1):
        by_edit(lake, number)
    late = editing(lake)
    late.__enter__().catalog.load_table("default.t").append(arrow(1000))
    by_edit(lake, MANY_FILES - 1)
    assert files(lake) == 1
    late.__exit__(None, None, None)
    assert ids(lake) == [*range(MANY_FILES), 1000]
    assert files(lake) == 2


def test_where_files_cannot_be_put_together_looks_become_rare(lake: Lake) -> None:
    """Each file is of a partition of its own."""
    with editing(lake) as edit:
        edit.set_layout("t", partition=["id"])
        edit.append("t", f"select range as id from range({4 * MANY_FILES})")
    small = 4 * MANY_FILES
    stood = Stood(lake.repo, "work", now(lake).uuid)
    assert files(lake) == small_file_count(lake.repo.root, now(lake)) == stood.load() == small
    assert edit._edit.upkeep == ()
    assert not is_due(small + MANY_FILES - 1, small)
    assert is_due(small + MANY_FILES, small)
    assert not is_due(124 * MANY_FILES, 100 * MANY_FILES)
    assert is_due(125 * MANY_FILES, 100 * MANY_FILES)


def with_a_file_each(lake: Lake, count: int) -> None:
    """Adds rows 0 to count, each in a file of its partition; two of one can be put together."""
    with editing(lake) as edit:
        edit.set_layout("t", partition=["id"])
        edit.append("t", f"select range as id from range({count})")


def test_where_small_files_went_otherwise_looks_go_on_from_what_is_left(lake: Lake) -> None:
    half = MANY_FILES // 2
    with_a_file_each(lake, half)
    Stood(lake.repo, "work", now(lake).uuid).keep(1000)  # as a look left it, failed or not
    for count in (2, 3):
        with_a_file_each(lake, half)
        assert files(lake) == count * half
    with_a_file_each(lake, half)
    assert files(lake) == half


def test_an_upkeep_that_fails_is_not_tried_after_each_edit_when_files_go_meanwhile(
    lake: Lake,
) -> None:
    with_a_file_each(lake, MANY_FILES)
    told: list[str] = []
    with rewriting(lake.repo.root, now(lake).uuid):
        for act in ("append", *("delete", "append") * 3):
            with editing(lake) as edit:
                if act == "delete":
                    edit.delete("t", "id = 0")
                else:
                    edit.append("t", f"select range as id from range({1 if told else MANY_FILES})")
            told += edit._edit.upkeep
    (why,) = told
    assert "was not compacted" in why
    with_a_file_each(lake, MANY_FILES)
    assert files(lake) == MANY_FILES


def test_what_the_look_remembers_may_be_lost_or_damaged(lake: Lake) -> None:
    for number in range(MANY_FILES - 1):
        by_edit(lake, number)
    stood = Stood(lake.repo, "work", now(lake).uuid)
    stood.keep(1000)
    stood.path.write_text("no number")
    by_edit(lake, MANY_FILES)
    assert files(lake) == 1
    assert stood.load() == 1


def test_small_files_are_counted_whoever_writes(lake: Lake) -> None:
    acts: tuple[Callable[[TableEdit, Table], object], ...] = (
        lambda edit, _: edit.append("t", "select range as id from range(5)"),
        lambda _, table: table.append(arrow(7, 8)),
        lambda edit, _: edit.delete("t", "id = 2"),
        lambda _, table: table.delete("id == 7"),
        lambda edit, _: edit.overwrite("t", "select 1::bigint as id"),
        lambda _, table: table.overwrite(arrow(5)),
        lambda _, table: table.append(arrow(6)),
    )
    for act in acts:
        with editing(lake) as edit:
            act(edit, edit.catalog.load_table("default.t"))
        snapshot = current_snapshot(load_metadata(lake.repo.root, now(lake)))
        assert snapshot is not None
        assert int(snapshot["summary"]["instep.small-files"]) == files(lake)


def test_a_table_that_a_run_keeps_by_period_is_left_alone(lake: Lake) -> None:
    for number in range(MANY_FILES - 1):
        by_edit(lake, number)
    with editing(lake) as edit:
        edit._edit.rules = type(edit._edit.rules)(
            edit._edit.rules.key_of, edit._edit.rules.may_append, lambda content: True
        )
        edit.append("t", "select 77::bigint as id")
    assert edit._edit.upkeep == ()
    assert files(lake) == MANY_FILES
    assert look_after(lake.repo, "work", "t", lambda content: False) == ""  # not due again yet
