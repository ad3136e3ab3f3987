from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.canonical import JsonObject
from instep.clock import system_clock
from instep.history import tree
from instep.history.repository import Repository, create_repository

KEYS = [f"table/t{number}" for number in range(180)] + [f"model/m{n}" for n in range(20)]
EDITS = st.lists(
    st.dictionaries(
        st.sampled_from(KEYS),
        st.one_of(st.none(), st.integers(0, 3).map(lambda value: {"value": value})),
        max_size=120,
    ),
    max_size=6,
)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return create_repository(tmp_path_factory.mktemp("tree") / "lake", system_clock, "ana")


def _update(lake: Repository, root: str, changes: dict[str, JsonObject | None]) -> str:
    with lake.store.transaction() as tx:
        return tree.update(tx, lake.nodes, root, changes)


def _empty(lake: Repository) -> str:
    with lake.store.transaction() as tx:
        return tree.empty_tree(tx, lake.nodes)


def _applied(edits: list[dict[str, JsonObject | None]]) -> dict[str, JsonObject]:
    held: dict[str, JsonObject] = {}
    for edit in edits:
        for key, content in edit.items():
            if content is None:
                held.pop(key, None)
            else:
                held[key] = content
    return held


@settings(max_examples=60)
@given(EDITS)
def test_the_same_entries_give_the_same_root_whatever_the_order_of_edits(
    lake: Repository, edits: list[dict[str, JsonObject | None]]
) -> None:
    root = _empty(lake)
    for edit in edits:
        root = _update(lake, root, edit)
    held = _applied(edits)
    at_once = _update(lake, _empty(lake), dict(held))
    backwards = _empty(lake)
    for key in sorted(held, reverse=True):
        backwards = _update(lake, backwards, {key: held[key]})
    assert root == at_once == backwards
    assert tree.entries(lake.nodes, root) == dict(sorted(held.items()))
    for key in KEYS[::17]:
        assert tree.find(lake.nodes, root, key) == held.get(key)


@settings(max_examples=60)
@given(EDITS, EDITS)
def test_diff_agrees_with_dicts(
    lake: Repository,
    before: list[dict[str, JsonObject | None]],
    after: list[dict[str, JsonObject | None]],
) -> None:
    old, new = _applied(before), _applied(before + after)
    left = _update(lake, _empty(lake), dict(old))
    right = left
    for edit in after:
        right = _update(lake, right, edit)
    expected = {
        key: (old.get(key), new.get(key))
        for key in old.keys() | new.keys()
        if old.get(key) != new.get(key)
    }
    found = tree.diff(lake.nodes, left, right)
    assert {each.key: (each.before, each.after) for each in found} == expected
    assert [each.key for each in found] == sorted(expected)


def test_the_canonical_form_of_a_tree_has_a_golden_root(lake: Repository) -> None:
    held: dict[str, JsonObject | None] = {
        f"table/é{number}": {"n": number, "text": '\u00e9 \u007f "q"'} for number in range(100)
    }
    root = _update(lake, _empty(lake), held)
    assert root == GOLDEN_ROOT
    assert _empty(lake) == GOLDEN_EMPTY


GOLDEN_EMPTY = "8e95c3bfd0b9487ac6111175afd8ae760df753cb643307f372359fb828cccf86"
GOLDEN_ROOT = "af529fa3ac534494cfa8831fd9260c9fff54e30a00409df5e6e35e9b0a3198be"


def test_a_rolled_back_update_leaves_no_hole_behind(lake: Repository) -> None:
    changes: dict[str, JsonObject | None] = {
        f"table/hole{number}": {"n": number} for number in range(100)
    }
    with pytest.raises(ZeroDivisionError), lake.store.transaction() as tx:
        root = tree.update(tx, lake.nodes, tree.empty_tree(tx, lake.nodes), changes)
        tree.entries(lake.nodes, root)
        raise ZeroDivisionError
    again = _update(lake, _empty(lake), changes)
    fresh = create_view(lake)
    assert len(tree.entries(fresh, again)) == 100


def create_view(lake: Repository) -> tree.Nodes:
    """The same nodes, with nothing in memory."""
    return tree.Nodes(lake.store)
