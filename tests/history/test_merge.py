"""A three-way merge of trees agrees with one of dicts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.canonical import JsonObject
from instep.clock import system_clock
from instep.history import tree
from instep.history.merge import merge
from instep.history.repository import Repository, create_repository

KEYS = [f"table/t{number}" for number in range(90)] + [f"model/m{n}" for n in range(10)]
Contents = dict[str, JsonObject]
STATES = st.dictionaries(
    st.sampled_from(KEYS), st.integers(0, 2).map(lambda value: {"value": value}), max_size=100
)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return create_repository(tmp_path_factory.mktemp("merge") / "lake", system_clock, "ana")


def root_of(lake: Repository, contents: Contents) -> str:
    with lake.store.transaction() as tx:
        empty = tree.empty_tree(tx, lake.nodes)
        return tree.update(tx, lake.nodes, empty, dict(contents))


@settings(max_examples=80)
@given(STATES, STATES, STATES, st.booleans())
def test_a_merge_of_trees_agrees_with_a_merge_of_dicts(
    lake: Repository, base: Contents, ours: Contents, theirs: Contents, is_near: bool
) -> None:
    if is_near:
        ours, theirs = {**base, **ours}, {**base, **theirs}
    roots = [root_of(lake, one) for one in (base, ours, theirs)]
    merged = merge(
        tree.diff(lake.nodes, roots[0], roots[1]), tree.diff(lake.nodes, roots[0], roots[2])
    )
    expected: Contents = {}
    conflicts = []
    for key in sorted(base.keys() | ours.keys() | theirs.keys()):
        was, mine, other = base.get(key), ours.get(key), theirs.get(key)
        if mine != was and other != was and mine != other:
            conflicts.append((key, was, mine, other))
        chosen = other if mine == was else mine
        if chosen is not None:
            expected[key] = chosen
    assert [(c.key, c.base, c.ours, c.theirs) for c in merged.conflicts] == conflicts
    with lake.store.transaction() as tx:
        found = tree.update(tx, lake.nodes, roots[1], merged.changes)
    assert tree.entries(lake.nodes, found) == expected
    assert found == root_of(lake, expected)
