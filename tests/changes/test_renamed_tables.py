"""A table is its uuid: merging what two sides did goes by it, whatever they called the table."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from instep.canonical import JsonObject
from instep.changes.renamed_tables import Side, align
from instep.history.tree import Difference
from instep.tables.row_merge import Take

Tree = dict[str, JsonObject]
Act = tuple[str, str, str]

NAMES = ("table/a", "table/b", "table/c", "table/d", "table/e")
BASE: Tree = {name: {"uuid": name[-1], "rows": "base"} for name in NAMES[:3]}

ACTS = st.lists(
    st.tuples(
        st.sampled_from(["rename", "drop", "make", "change"]),
        st.sampled_from(NAMES),
        st.sampled_from(NAMES),
    ),
    max_size=5,
)


def after(acts: Sequence[Act], side: str) -> Tree:
    """Returns the base after acts; what cannot be done is left out.

    A change makes rows of the side's own, or, with another name beside it, those of any side.
    """
    tree = dict(BASE)
    for number, (act, name, other) in enumerate(acts):
        if act == "rename" and name in tree and other not in tree:
            tree[other] = tree.pop(name)
        elif act == "drop":
            tree.pop(name, None)
        elif act == "make" and name not in tree:
            tree[name] = {"uuid": f"{side}{number}", "rows": side}
        elif act == "change" and name in tree:
            tree[name] = {**tree[name], "rows": side if other == name else "alike"}
    return tree


def differences(tree: Tree) -> Side:
    return {
        key: Difference(key, BASE.get(key), tree.get(key))
        for key in BASE.keys() | tree.keys()
        if BASE.get(key) != tree.get(key)
    }


def merged(ours: Tree, theirs: Tree, take: Take | None = None) -> Tree | None:
    """Returns the merged tree, None for a conflict, as `branch_merge` does without merging rows."""
    found = align(differences(ours).values(), differences(theirs).values(), lambda key: take)
    merge = found.merge()
    changes = dict(merge.changes)
    for one in merge.conflicts:
        is_one_sided = one.key in found.before and one.base in (one.ours, one.theirs)
        if one.key in found.clashes or not is_one_sided:
            return None
        changes[one.key] = one.theirs if one.base == one.ours else one.ours
    if found.undecided:
        return None
    return {key: content for key, content in {**ours, **changes}.items() if content is not None}


def expected(ours: Tree, theirs: Tree) -> Tree | None:
    """Returns what a merge table by table would give, None for a conflict."""
    sides = [
        {str(content["uuid"]): (key, content["rows"]) for key, content in tree.items()}
        for tree in (BASE, ours, theirs)
    ]
    result: Tree = {}
    for uuid in {one for side in sides for one in side}:
        base, mine, yours = (side.get(uuid) for side in sides)
        if base is None or mine is None or yours is None:
            if base is None:
                kept = mine or yours
            elif base in (mine, yours) or mine == yours:
                kept = None
            else:
                return None
        else:
            parts = [
                two if one == before else one
                for before, one, two in zip(base, mine, yours, strict=True)
                if one == two or before in (one, two)
            ]
            if len(parts) < 2:
                return None
            kept = (str(parts[0]), parts[1])
        if kept is not None:
            if kept[0] in result:
                return None
            result[kept[0]] = {"uuid": uuid, "rows": kept[1]}
    return result


@given(ACTS, ACTS)
@example([("rename", "table/a", "table/d")], [("change", "table/a", "table/a")])
@example([("change", "table/a", "table/a")], [("rename", "table/a", "table/d")])
@example([("rename", "table/a", "table/d")], [("drop", "table/a", "")])
@example([("rename", "table/a", "table/d")], [("make", "table/d", "")])
def test_a_merge_of_names_is_that_of_each_table_by_its_uuid(
    ours: Sequence[Act], theirs: Sequence[Act]
) -> None:
    mine, yours = after(ours, "ours"), after(theirs, "theirs")
    found = merged(mine, yours)
    if found is not None or not reused(mine, yours):
        assert found == expected(mine, yours)


def reused(*sides: Tree) -> bool:
    """Says whether a name is that of several tables: where one was replaced, a merge may ask."""
    owners: dict[str, set[str]] = {}
    for tree in (BASE, *sides):
        for key, content in tree.items():
            owners.setdefault(key, set()).add(str(content["uuid"]))
    return any(len(one) > 1 for one in owners.values())


def test_tables_that_exchanged_their_names_keep_the_rows_that_the_other_side_changed() -> None:
    exchange = [
        ("rename", "table/a", "table/d"),
        ("rename", "table/b", "table/a"),
        ("rename", "table/d", "table/b"),
    ]
    changed = [("change", "table/a", "table/a"), ("change", "table/b", "table/b")]
    for ours, theirs in ((exchange, changed), (changed, exchange)):
        mine, yours = after(ours, "one"), after(theirs, "one")
        assert merged(mine, yours) == {
            "table/a": {"uuid": "b", "rows": "one"},
            "table/b": {"uuid": "a", "rows": "one"},
            "table/c": BASE["table/c"],
        }


def test_a_new_table_may_have_the_name_that_another_one_gave_up() -> None:
    made_anew = [("rename", "table/a", "table/d"), ("make", "table/a", "")]
    changed = [("change", "table/a", "table/a")]
    for ours, theirs in ((made_anew, changed), (changed, made_anew)):
        found = merged(after(ours, "one"), after(theirs, "one"))
        assert found is not None
        assert found["table/d"] == {"uuid": "a", "rows": "one"}
        assert found["table/a"]["uuid"] == "one1"


@given(ACTS, ACTS, st.sampled_from([Take.OURS, Take.THEIRS]))
def test_no_table_stands_under_two_names_whoever_s_name_is_taken(
    ours: Sequence[Act], theirs: Sequence[Act], take: Take
) -> None:
    mine, yours = after(ours, "ours"), after(theirs, "theirs")
    found = merged(mine, yours, take)
    if found is not None:
        uuids = [str(content["uuid"]) for content in found.values()]
        assert len(set(uuids)) == len(uuids)


def test_the_name_of_a_table_that_both_renamed_is_that_of_the_side_that_is_taken() -> None:
    mine = after([("rename", "table/a", "table/d"), ("change", "table/d", "table/d")], "ours")
    yours = after([("rename", "table/a", "table/e")], "theirs")
    assert merged(mine, yours) is None
    for take, name in ((Take.OURS, "table/d"), (Take.THEIRS, "table/e")):
        found = merged(mine, yours, take)
        assert found is not None
        assert found.keys() == {"table/b", "table/c", name}
        assert found[name] == {"uuid": "a", "rows": "ours"}
