"""A file of conflicts holds every value there is, and null is none of them."""

from __future__ import annotations

import csv
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from instep.changes.branch_merge import BranchMerge, MergedKey
from instep.cli.conflict_file import cell_text, cell_value, read_conflicts, write_conflicts
from instep.cli.main import cli
from instep.cli.project import open_project
from instep.errors import InvalidError
from instep.history.edits import Edit, commit_edit
from instep.lake import Lake
from instep.tables.row_merge import Choice, Conflict, RowMerge, Take

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

TEXTS = st.one_of(
    st.text(),
    st.sampled_from(
        ["", "null", "NULL", '"', '""', '"null"', " ", " x", "x ", "a\nb", "\r", ",", "\\n"]
    ),
)
VALUES = st.none() | TEXTS


@given(VALUES, VALUES)
@example(None, "")
@example(None, "null")
@example("", '""')
def test_every_value_has_a_cell_of_its_own(one: str | None, two: str | None) -> None:
    assert cell_value(cell_text(one)) == one
    assert (cell_text(one) == cell_text(two)) == (one == two)
    assert cell_text(one).strip() == cell_text(one) != ""


@pytest.mark.parametrize(
    ("typed", "value"),
    [("null", None), ("NULL", None), ('""', ""), ('"null"', "null"), ("ana", "ana"), (" a", " a")],
)
def test_a_person_types_a_value_as_it_is_and_null_as_a_word(typed: str, value: str | None) -> None:
    assert cell_value(typed) == value


@pytest.mark.parametrize("typed", ['"ana', '"a" b', '"'])
def test_what_begins_with_a_quote_ends_with_one(typed: str) -> None:
    with pytest.raises(ValueError, match="quote"):
        cell_value(typed)


def merge_of(conflict: Conflict) -> BranchMerge:
    rows = RowMerge(None, conflicting=1, conflicts=(conflict,))
    left = MergedKey("table/stock", "policy keyed", None, left=True, rows=rows)
    return BranchMerge("a", "b", None, (), (left,), ())


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rewritten(path: Path, lines: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)


@given(st.tuples(VALUES, VALUES), TEXTS, VALUES, VALUES, VALUES)
def test_what_a_file_of_conflicts_says_is_read_back_as_it_was(
    key: tuple[str | None, ...], column: str, base: str | None, ours: str | None, theirs: str | None
) -> None:
    conflict = Conflict(key, column, base, ours, theirs)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "conflicts.csv"
        write_conflicts(path, merge_of(conflict))
        (line,) = lines_of(path)
        for name, value in (("base", base), ("ours", ours), ("theirs", theirs)):
            assert cell_value(line[name]) == value
            rewritten(path, [line | {"take": "given", "value": line[name]}])
            found = read_conflicts((path,))
            assert found["table/stock"].choices == {(key, column): Choice(Take.GIVEN, value)}


@pytest.mark.parametrize("value", ["", '"ana'])
def test_a_given_value_that_is_none_is_refused_with_its_line(tmp_path: Path, value: str) -> None:
    path = tmp_path / "conflicts.csv"
    write_conflicts(path, merge_of(Conflict(("1",), "name", None, "", "x")))
    (line,) = lines_of(path)
    rewritten(path, [line | {"take": "given", "value": value}])
    with pytest.raises(InvalidError, match="line 2") as caught:
        read_conflicts((path,))
    assert caught.value.kind == "bad-take"
    assert "null" in caught.value.message


def test_null_and_the_empty_text_are_told_apart_and_given_in_a_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTEP_ACTOR", "ana")
    (tmp_path / "instep.yaml").write_text("lake: lake\npeople: [ana]\nenvironments: {prod: {}}\n")
    cli.main(["init"], standalone_mode=False)
    cli.main(["branch", "make", "start"], standalone_mode=False)
    repo = open_project(tmp_path).repo
    blob = repo.objects.put(CONTRACT.encode())
    contract: dict[str, Any] = {"type": "instep.contract.v1", "blob": blob}
    base = repo.resolve("start")
    commit_edit(repo, "start", Edit(base, {"contract/people": contract}, "ana", "promised", "test"))
    rows = "select id::bigint as id, name::varchar as name from (values {}) t(id, name)"

    def wrote(branch: str, values: str) -> None:
        with Lake(repo).edit(branch, message="people", author="ana") as edit:
            edit.upsert("people", rows.format(values), key="id")

    with Lake(repo).edit("start", message="people", author="ana") as edit:
        edit.create("people", rows.format("(1, 'x'), (2, 'x'), (3, 'x')"))
    for branch in ("a", "b"):
        cli.main(["branch", "make", branch, "--at", "start"], standalone_mode=False)
    wrote("a", "(1, ''), (2, ''), (3, 'y')")
    wrote("b", "(1, null), (2, null), (3, 'null')")
    capsys.readouterr()
    words = ["branch", "merge", "b", "a"]
    assert cli.main([*words, "--conflicts", "left.csv"], standalone_mode=False) == 4
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["1", "name", "x", '""', "null"] in told
    assert ["3", "name", "x", "y", '"null"'] in told
    lines = lines_of(tmp_path / "left.csv")
    assert [(line["ours"], line["theirs"]) for line in lines] == [
        ('""', "null"),
        ('""', "null"),
        ("y", '"null"'),
    ]
    for line, name in zip(lines, ("ours", "theirs", "theirs"), strict=True):
        line |= {"take": "given", "value": line[name]}
    rewritten(tmp_path / "left.csv", lines)
    assert cli.main([*words, "--resolve", "left.csv"], standalone_mode=False) == 0
    found = Lake(open_project(tmp_path).repo).branch("a").table("people")
    assert found.sql("select name from people order by id").to_pylist() == [
        {"name": ""},
        {"name": None},
        {"name": "null"},
    ]
