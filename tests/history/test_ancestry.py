"""The merge base agrees with sets of ancestors, and is found in few reads however far away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from databases import on_every_at_length
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.clock import system_clock
from instep.errors import NotFoundError
from instep.history.ancestry import is_ancestor, merge_base
from instep.history.commits import Commit, make_commit, save_commit
from instep.history.repository import Repository, create_repository
from instep.history.store import Row, Transaction, Value

GRAPHS = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=3), min_size=1, max_size=60)
"""For each commit, how many commits before it each of its parents stands."""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return create_repository(tmp_path_factory.mktemp("graph") / "lake", system_clock, "ana")


@dataclass(frozen=True, slots=True)
class Counting:
    """A transaction that knows how many statements it was asked for."""

    inner: Transaction
    asked: list[str] = field(default_factory=list)

    def execute(self, sql: str, values: Sequence[Value] = ()) -> int:
        return self.inner.execute(sql, values)

    def write(self, sql: str, values: Sequence[Value] = ()) -> None:
        self.inner.write(sql, values)

    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        self.asked.append(sql)
        return self.inner.rows(sql, values)

    def row(self, sql: str, values: Sequence[Value] = ()) -> Row | None:
        self.asked.append(sql)
        return self.inner.row(sql, values)

    def has_table(self, name: str) -> bool:
        return self.inner.has_table(name)


def commit(tx: Transaction, repo: Repository, name: str, *parents: str) -> Commit:
    made = make_commit("tree", parents, "ana", repo.clock(), name, "test")
    save_commit(tx, made)
    return made


def chain(tx: Transaction, repo: Repository, name: str, start: str, length: int) -> list[str]:
    found = [start]
    for number in range(length):
        found.append(commit(tx, repo, f"{name} {number}", found[-1]).id)
    return found


@settings(max_examples=150)
@given(GRAPHS, st.data())
def test_the_merge_base_agrees_with_sets_of_ancestors(
    lake: Repository, graph: list[list[int]], data: st.DataObject
) -> None:
    with lake.store.transaction() as tx:
        made = [commit(tx, lake, "0").id]
        reached = [{0}]
        generations = [1]
        for steps in graph:
            parents = sorted({max(0, len(made) - 1 - step) for step in steps})
            made.append(commit(tx, lake, str(len(made)), *(made[one] for one in parents)).id)
            reached.append(set().union({len(reached)}, *(reached[one] for one in parents)))
            generations.append(1 + max(generations[one] for one in parents))
        places = st.integers(0, len(made) - 1)
        left, right = data.draw(places), data.draw(places)
        shared = reached[left] & reached[right]
        latest = max(generations[one] for one in shared)
        found = merge_base(tx, made[left], made[right])
        assert found in {made[one] for one in shared if generations[one] == latest}
        assert is_ancestor(tx, made[left], made[right]) == (left in reached[right])


@on_every_at_length
def test_two_long_branches_meet_in_few_reads(repo: Repository) -> None:
    with repo.store.transaction() as tx:
        start = repo.resolve("main")
        fork = chain(tx, repo, "main", start, 50)[-1]
        left = chain(tx, repo, "left", fork, 700)[-1]
        right = chain(tx, repo, "right", fork, 900)[-1]
        counting = Counting(tx)
        assert merge_base(counting, left, right) == fork
        assert len(counting.asked) < 80


@on_every_at_length
def test_a_main_of_many_merges_is_read_in_parts(repo: Repository) -> None:
    with repo.store.transaction() as tx:
        main = [repo.resolve("main")]
        for number in range(300):
            arrived = commit(tx, repo, f"arrival {number}", main[-1]).id
            main.append(commit(tx, repo, f"merge {number}", main[-1], arrived).id)
        branch = chain(tx, repo, "try", main[10], 300)
        counting = Counting(tx)
        assert merge_base(counting, branch[-1], main[-1]) == main[10]
        assert len(counting.asked) < 30
        brought = commit(tx, repo, "the branch is merged", main[-1], branch[200]).id
        assert merge_base(tx, branch[-1], brought) == branch[200]
        assert is_ancestor(tx, branch[200], brought)
        assert not is_ancestor(tx, branch[201], brought)


@on_every_at_length
def test_what_has_no_common_beginning_has_no_merge_base(repo: Repository) -> None:
    with repo.store.transaction() as tx:
        other = commit(tx, repo, "another beginning").id
        assert merge_base(tx, other, repo.resolve("main")) is None
        with pytest.raises(NotFoundError) as caught:
            merge_base(tx, "0" * 64, other)
        assert caught.value.kind == "no-such-commit"
