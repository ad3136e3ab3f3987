"""Merging branches on a real lake: tables that were renamed, and a branch that moves meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from databases import on_both

from instep import faults
from instep.changes import branch_merge
from instep.changes.branch_merge import BranchMerge, Resolutions, merge_branch
from instep.changes.evidence import compare
from instep.errors import ConflictError
from instep.history.edits import Edit, commit_edit
from instep.history.refs import RefKind, create_ref
from instep.history.repository import MAIN, Repository
from instep.lake import Lake
from instep.tables.edit import TableEdit
from instep.tables.row_merge import Take

pytestmark = on_both

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: people
version: 1.0.0
status: active
schema:
  - name: people
    customProperties: [{property: mergePolicy, value: keyed}]
    properties:
      - {name: id, logicalType: integer, required: true, primaryKey: true, primaryKeyPosition: 1}
      - {name: name, logicalType: string}
"""
Rows = dict[int, str]


@pytest.fixture(autouse=True)
def _branches(repo: Repository) -> Iterator[None]:
    """The branches `a` and `b`, with the table `people` of the rows 1 and 2 and its contract."""
    branch(repo, "start", MAIN)
    with editing(repo, "start") as edit:
        edit.create("people", selected({1: "ana", 2: "ben"}))
    blob = repo.objects.put(CONTRACT.encode())
    contract: dict[str, Any] = {"type": "instep.contract.v1", "blob": blob}
    base = repo.resolve("start")
    commit_edit(repo, "start", Edit(base, {"contract/people": contract}, "ana", "promise", "test"))
    branch(repo, "a", "start")
    branch(repo, "b", "start")
    yield
    faults.watch(None)


def branch(repo: Repository, name: str, at: str) -> None:
    with repo.store.transaction() as tx:
        create_ref(tx, name, RefKind.BRANCH, repo.resolve(at), owner="ana", at=repo.clock())


def editing(repo: Repository, name: str) -> Any:  # a context manager of TableEdit
    return Lake(repo).edit(name, message="work", author="ana")


def selected(rows: Rows) -> str:
    listed = ", ".join(f"({number}, '{name}')" for number, name in rows.items())
    return f"select id::bigint as id, name::varchar as name from (values {listed}) t(id, name)"


def did(repo: Repository, name: str, *acts: Callable[[TableEdit], object]) -> None:
    with editing(repo, name) as edit:
        for act in acts:
            act(edit)


def wrote(rows: Rows, table: str = "people") -> Callable[[TableEdit], object]:
    return lambda edit: edit.upsert(table, selected(rows), key="id")


def renamed(after: str, before: str = "people") -> Callable[[TableEdit], object]:
    return lambda edit: edit.rename(before, after)


def dropped(edit: TableEdit) -> None:
    edit.drop("people")


def made(name: str) -> Callable[[TableEdit], object]:
    return lambda edit: edit.create(name, selected({9: "zoe"}))


def merged(repo: Repository, **takes: Any) -> BranchMerge:  # as Resolutions has them
    return merge_branch(repo, "b", "a", author="ana", resolutions=Resolutions(**takes))


def held(repo: Repository, table: str) -> Rows:
    found = Lake(repo).branch("a").table(table)
    return {row["id"]: row["name"] for row in found.sql(f'select * from "{table}"').to_pylist()}


def tables(repo: Repository) -> tuple[str, ...]:
    return Lake(repo).branch("a").keys("table")


def uuid(repo: Repository, name: str, table: str) -> str:
    return str(repo.content(repo.resolve(name), f"table/{table}")["uuid"])


@pytest.mark.parametrize("who", ["a", "b"])
def test_a_table_that_one_side_renamed_gets_the_rows_that_the_other_changed(
    repo: Repository, who: str
) -> None:
    identity = uuid(repo, "a", "people")
    did(repo, who, renamed("staff"))
    did(repo, "ab".replace(who, ""), wrote({2: "Ben", 3: "cleo"}))
    found = merged(repo)
    assert found.commit is not None
    assert tables(repo) == ("table/staff",)
    assert held(repo, "staff") == {1: "ana", 2: "Ben", 3: "cleo"}
    assert uuid(repo, "a", "staff") == identity


@pytest.mark.parametrize("who", ["a", "b"])
def test_what_is_no_table_is_merged_by_its_key_beside_a_renamed_one(
    repo: Repository, who: str
) -> None:
    did(repo, "a", renamed("staff"))
    blob = repo.objects.put(CONTRACT.replace("1.0.0", "1.1.0").encode())
    contract: dict[str, Any] = {"type": "instep.contract.v1", "blob": blob}
    changes = {"contract/people": None, "contract/staff": contract}
    commit_edit(repo, who, Edit(repo.resolve(who), changes, "ana", "promise", "test"))
    did(repo, "b", wrote({2: "Ben"}))
    assert merged(repo).commit is not None
    assert Lake(repo).branch("a").keys("contract") == ("contract/staff",)
    assert held(repo, "staff") == {1: "ana", 2: "Ben"}


@pytest.mark.parametrize("who", ["a", "b"])
def test_rows_that_both_changed_are_merged_by_the_contract_of_the_former_name(
    repo: Repository, who: str
) -> None:
    did(repo, "a", wrote({1: "Ana"}))
    did(repo, "b", wrote({2: "Ben"}))
    did(repo, who, renamed("staff"))
    found = merged(repo)
    assert found.commit is not None
    assert [one.how for one in found.both] == ["renamed from table/people; policy keyed"]
    assert tables(repo) == ("table/staff",)
    assert held(repo, "staff") == {1: "Ana", 2: "Ben"}


def test_a_cell_that_both_changed_of_a_renamed_table_is_one_conflict_of_its_new_name(
    repo: Repository,
) -> None:
    did(repo, "a", wrote({1: "Ana"}))
    did(repo, "b", renamed("staff"), wrote({1: "ANA"}, "staff"))
    found = merged(repo)
    assert found.commit is None
    (left,) = found.conflicts
    assert left.key == "table/staff"
    assert left.rows is not None
    assert left.rows.conflicting == 1
    assert merged(repo, keys={"table/staff": Take.THEIRS}).commit is not None
    assert held(repo, "staff") == {1: "ANA", 2: "ben"}


def test_two_new_names_of_one_table_are_a_conflict_that_names_both(repo: Repository) -> None:
    did(repo, "a", renamed("staff"), wrote({1: "Ana"}, "staff"))
    did(repo, "b", renamed("crowd"), wrote({2: "Ben"}, "crowd"))
    found = merged(repo)
    assert found.commit is None
    (left,) = found.conflicts
    assert (left.key, left.how) == (
        "table/people",
        "ours renamed table/people to table/staff, theirs renamed table/people to table/crowd",
    )
    assert merged(repo, keys={"table/people": Take.THEIRS}).commit is not None
    assert tables(repo) == ("table/crowd",)
    assert held(repo, "crowd") == {1: "Ana", 2: "Ben"}


@pytest.mark.parametrize("who", ["a", "b"])
def test_a_table_that_one_side_renamed_and_the_other_dropped_is_a_conflict(
    repo: Repository, who: str
) -> None:
    did(repo, who, renamed("staff"))
    did(repo, "ab".replace(who, ""), dropped)
    found = merged(repo)
    assert found.commit is None
    (left,) = found.conflicts
    assert left.key == "table/staff"
    assert "renamed table/people to table/staff" in left.how
    assert "dropped table/people" in left.how
    take = Take.OURS if who == "a" else Take.THEIRS
    assert merged(repo, keys={"table/staff": take}).commit is not None
    assert tables(repo) == ("table/staff",)


@pytest.mark.parametrize("who", ["a", "b"])
@pytest.mark.parametrize("take", [Take.OURS, Take.THEIRS])
def test_a_new_name_that_the_other_side_gave_a_new_table_is_a_conflict_that_loses_no_table_of_ours(
    repo: Repository, who: str, take: Take
) -> None:
    did(repo, who, renamed("staff"))
    did(repo, "ab".replace(who, ""), made("staff"))
    found = merged(repo)
    assert found.commit is None
    assert {one.key for one in found.conflicts} == {"table/staff", "table/people"}
    assert all("table/staff" in one.how for one in found.conflicts)
    assert merged(repo, otherwise=take).commit is not None
    is_renamed = (who == "a") == (take is Take.OURS)
    expected = ("table/staff",) if is_renamed else ("table/people", "table/staff")
    assert tables(repo) == expected
    assert held(repo, "staff") == ({1: "ana", 2: "ben"} if is_renamed else {9: "zoe"})


def test_a_diff_sets_a_renamed_table_against_what_it_was(repo: Repository) -> None:
    did(repo, "a", renamed("staff"), wrote({2: "Ben", 3: "cleo"}, "staff"), made("people"))
    found = compare(repo, repo.resolve("start"), repo.resolve("a"))
    said = {one.key: (one.act, one.sentences[:2]) for one in found.keys}
    assert said["table/staff"] == (
        "changed",
        (
            "was table/people before, and is the same table",
            "rows 2 -> 3: 2 added, 1 removed (exact, as a multiset, without a key)",
        ),
    )
    assert said["table/people"][0] == "added"
    assert said["table/people"][1][0] == "is table/staff now"
    did(repo, "b", renamed("staff"))
    found = compare(repo, repo.resolve("start"), repo.resolve("b"))
    said = {one.key: (one.act, one.sentences[:1]) for one in found.keys}
    assert said == {
        "table/people": ("removed", ("is table/staff now",)),
        "table/staff": ("changed", ("was table/people before, and is the same table",)),
    }


def moving(repo: Repository, times: int) -> list[int]:
    """Lets another commit of the table come before each of the first merges' commits."""
    came: list[int] = []

    def other(place: str) -> None:
        if place == "edit.commit.before" and len(came) < times:
            came.append(10 + len(came))
            faults.watch(None)
            did(repo, "a", wrote({came[-1]: "late"}))
            faults.watch(other)

    faults.watch(other)
    return came


def test_a_merge_that_another_commit_overtook_is_made_again_with_its_rows(repo: Repository) -> None:
    did(repo, "b", wrote({2: "Ben"}))
    came = moving(repo, 3)
    found = merged(repo)
    assert found.commit is not None
    assert held(repo, "people") == {1: "ana", 2: "Ben", **dict.fromkeys(came, "late")}
    assert len(came) == 3
    assert found.commit.parents[1:] == (repo.resolve("b"),)


def test_a_conflict_that_came_meanwhile_is_told_and_nothing_is_merged(repo: Repository) -> None:
    did(repo, "b", wrote({10: "early"}))
    moving(repo, 1)
    found = merged(repo)
    assert found.commit is None
    assert [one.key for one in found.conflicts] == ["table/people"]
    assert held(repo, "people") == {1: "ana", 2: "ben", 10: "late"}


def test_a_merge_that_is_overtaken_again_and_again_gives_up_and_says_by_whom(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(branch_merge, "ATTEMPTS", 3)
    did(repo, "b", wrote({2: "Ben"}))
    came = moving(repo, 9)
    with pytest.raises(ConflictError, match="ana") as caught:
        merged(repo)
    assert caught.value.kind == "keys-moved"
    assert len(came) == 3
    assert held(repo, "people")[2] == "ben"
