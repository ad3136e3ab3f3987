"""What stands for a state: decided once, carried out by somebody, never overtaken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import garbage
import pytest
from garbage import gc, needs, numbers, numbers_in, on_disk
from histories import Compaction, DiedError

from instep import faults
from instep.cli.erase_rows import erased_rows
from instep.cli.wholeness import check
from instep.history.locks import writing
from instep.history.repository import Repository
from instep.tables.content import TableContent
from instep.tables.read import located
from instep.tables.replaced import Why, decided, why_replaced

_COLUMNS = "uuid, content, before_digest, metadata, digest, why"


def _table(repo: Repository) -> TableContent:
    table = garbage.grown(repo, garbage.grown(repo, garbage.new_table(repo), [1]), [2])
    garbage.commit(repo, "main", table__t=table.to_content())
    return table


@contextmanager
def _once_decided(act: Callable[[], object]) -> Iterator[None]:
    """Acts when something was decided for the first time, before it is carried out."""

    def watcher(place: str) -> None:
        if place == "tables.replacement.decided":
            faults.watch(None)
            act()

    faults.watch(watcher)
    try:
        yield
    finally:
        faults.watch(None)


@contextmanager
def _unknown(repo: Repository) -> Iterator[None]:
    """Hides what was decided, as from an Instep that does not know the table."""
    with repo.store.transaction() as tx:
        hidden = tx.rows(f"select {_COLUMNS} from replacements")
        tx.execute("delete from replacements")
    yield
    with repo.store.transaction() as tx:
        for row in hidden:
            tx.execute(f"insert into replacements ({_COLUMNS}) values (?, ?, ?, ?, ?, ?)", row)


def test_what_a_writer_decided_before_it_died_is_carried_out_by_whoever_comes_next(
    repo: Repository,
) -> None:
    table = _table(repo)
    with Compaction(repo, table) as dead:
        dead.die()
    assert located(repo.root, table) == table
    for _ in range(3):
        gc(repo)
        assert numbers(repo, table) == [1, 2], "files of both are kept"
    with Compaction(repo, table) as late:
        late.swap()
    assert located(repo.root, table).digest == dead.now.digest
    assert why_replaced(repo.root, table) is Why.COMPACTED
    for _ in range(2):
        gc(repo)
    assert numbers(repo, table) == [1, 2]
    assert on_disk(repo) == needs(repo).paths


def test_what_was_decided_and_collected_all_the_same_is_carried_out_by_nobody(
    repo: Repository,
) -> None:
    table = _table(repo)
    with Compaction(repo, table) as dead:
        dead.die()
    with _unknown(repo):
        for _ in range(2):
            gc(repo)
    assert not (repo.root / dead.now.metadata).exists()
    assert gc(repo).spared == ()
    assert numbers(repo, table) == [1, 2]
    with Compaction(repo, table) as late:
        late.swap()
    assert located(repo.root, table).digest == late.now.digest
    for _ in range(2):
        gc(repo)
    assert numbers(repo, table) == [1, 2]
    assert on_disk(repo) == needs(repo).paths
    check(repo)


def test_rows_are_erased_from_what_a_dead_writer_decided(repo: Repository) -> None:
    table = _table(repo)
    with Compaction(repo, table) as dead:
        dead.die()
    erased_rows(repo, "t", "id = 1", "Asked for.", "ben", False)
    assert numbers(repo, table) == [2]
    assert numbers_in((repo.root / "tables").rglob("*.parquet")) == [2]
    check(repo)


def test_an_erasure_that_died_when_it_had_decided_is_completed_by_the_next(
    repo: Repository,
) -> None:
    table = _table(repo)

    def die() -> None:
        raise DiedError

    with pytest.raises(DiedError), _once_decided(die):
        erased_rows(repo, "t", "id = 1", "Asked for.", "ben", False)
    assert numbers(repo, table) == [1, 2], "it is not done yet"
    gc(repo)
    erased_rows(repo, "t", "id = 1", "Asked for.", "ben", False)
    assert numbers(repo, table) == [2]
    assert numbers_in((repo.root / "tables").rglob("*.parquet")) == [2]
    check(repo)


def test_what_is_carried_out_late_does_not_overtake_what_was_decided_since(
    repo: Repository,
) -> None:
    table = _table(repo)
    newest: list[TableContent] = []

    def meanwhile() -> None:
        for _ in range(2):
            with Compaction(repo, table) as other:
                other.swap()
        newest.append(other.now)

    with Compaction(repo, table) as slow, _once_decided(meanwhile):
        slow.swap()
    assert located(repo.root, table).digest == newest[0].digest != slow.now.digest
    for _ in range(3):
        gc(repo)
    assert numbers(repo, table) == [1, 2]
    assert on_disk(repo) == needs(repo).paths


def test_a_state_is_replaced_again_and_again(repo: Repository) -> None:
    table = _table(repo)
    for _ in range(3):
        with Compaction(repo, table) as one:
            one.swap()
        assert located(repo.root, table).digest == one.now.digest
        gc(repo)
    gc(repo)
    assert on_disk(repo) == needs(repo).paths


@pytest.mark.parametrize("is_carried_out", [True, False])
def test_what_was_decided_of_a_state_goes_with_the_state(
    repo: Repository, is_carried_out: bool
) -> None:
    kept = _table(repo)
    garbage.branch(repo, "side")
    going = garbage.grown(repo, kept, [3])
    garbage.commit(repo, "side", table__t=going.to_content())
    for state in (kept, going):
        with Compaction(repo, state) as one:
            if is_carried_out:
                one.swap()
            else:
                one.die()
    gc(repo)
    assert decided(repo, kept.uuid).keys() == {kept.digest, going.digest}
    garbage.delete_branch(repo, "side")
    with writing(repo.root, repo.store):
        for _ in range(5):
            gc(repo)
        assert decided(repo, kept.uuid).keys() == {kept.digest, going.digest}, "a writer is open"
    for _ in range(4):
        gc(repo)
    assert decided(repo, kept.uuid).keys() == {kept.digest}
    assert numbers(repo, kept) == [1, 2]
    with Compaction(repo, kept) as late:
        late.swap()
    for _ in range(2):
        gc(repo)
    assert on_disk(repo) == needs(repo).paths
    with repo.store.reading() as tx:
        assert tx.rows("select name from condemned") == []


def test_a_collection_that_died_when_it_had_removed_a_record_removes_its_row_the_next_time(
    repo: Repository,
) -> None:
    table = _table(repo)
    with Compaction(repo, table) as one:
        one.swap()
    garbage.commit(repo, "main", table__t=None)
    orphan = garbage.grown(repo, table, [3])
    with Compaction(repo, orphan) as other:
        other.swap()
    gc(repo)

    def watcher(place: str) -> None:
        if place == "gc.remove.after":
            raise DiedError

    faults.watch(watcher)
    try:
        with pytest.raises(DiedError):
            gc(repo)
    finally:
        faults.watch(None)
    assert decided(repo, table.uuid).keys() == {table.digest, orphan.digest}
    for _ in range(2):
        gc(repo)
    assert decided(repo, table.uuid).keys() == {table.digest}
    assert on_disk(repo) == needs(repo).paths
