"""A corrected type is taken by a table that loses nothing by it, or refused when it is proposed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from pathlib import Path

import pytest
from arrival_builders import merge_contract
from bare import bare_table

from instep.changes import gate
from instep.changes.evidence import compare
from instep.changes.propose import propose_project
from instep.changes.records import State
from instep.changes.revert import undo_on_main
from instep.cli.review import review_of
from instep.errors import ConflictError, InstepError, InvalidError
from instep.history.repository import MAIN, Repository
from instep.ingest.accept import accept
from instep.ingest.arrive import ingest
from instep.ingest.arrived import Arrived, held_error
from instep.ingest.batch import table_at
from instep.ingest.by_contract import let_in_what_fits
from instep.ingest.merge import merge_arrival
from instep.tables.diff import diff_rows
from instep.tables.read import located

CONFIG = "lake: lake\npeople: [ana, ben]\npolicies: {approvals: {arrival: 0, project: 0}}\n"
CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: m
version: 1.0.0
status: active
servers:
  - {server: files, type: local, path: "m*.csv", format: csv}
schema:
  - name: m
    customProperties:
      - {property: mergePolicy, value: append}
    properties:
      - {name: id, logicalType: integer, primaryKey: true}
      - {name: qty, logicalType: integer}
"""

WHOLE = [str(number) for number in range(2, 602, 2)]
DAYS = [f"2026-{month:02}-{day:02}" for month in range(1, 11) for day in range(1, 28)]


def typed(kind: str, policy: str = "append") -> str:
    text = CONTRACT.replace("qty, logicalType: integer", f"qty, logicalType: {kind}")
    return text.replace("append", policy)


def m(folder: Path, number: int, values: list[str], begin: int | None = None) -> Path:
    """The file mN.csv with these values; its rows are numbered from N thousand, or `begin`."""
    file = folder / f"m{number}.csv"
    rows = [f"{place},{value}" for place, value in enumerate(values, begin or number * 1000)]
    file.write_text("\n".join(["id,qty", *rows]) + "\n")
    return file


def arrive(repo: Repository, file: Path) -> Arrived:
    return ingest(repo, file.parent, file, "ana")


def propose(repo: Repository, folder: Path, contract: str) -> int:
    """Proposes the project with this contract, and returns the number of the change."""
    (folder / "instep.yaml").write_text(CONFIG)
    (folder / "contracts").mkdir(exist_ok=True)
    (folder / "contracts" / "m.yaml").write_text(contract)
    return propose_project(repo, folder, "ana", "a type", lambda text: None).change.number


def merged(repo: Repository, folder: Path, contract: str) -> dict[int, Arrived | InstepError]:
    """Proposes and merges a contract, as `instep merge` does; returns what comes in by it."""
    number = propose(repo, folder, contract)
    with repo.store.transaction() as tx:
        gate.approve(tx, repo, number, "ben", "")
        gate.merge(tx, repo, number, "ben")
    return let_in_what_fits(repo, ["m"], "ben")


def undo(repo: Repository, commit: str) -> None:
    undone = undo_on_main(repo, commit, (), author="ana", why="a type", say=lambda text: None)
    assert undone.proposal is not None
    number = undone.proposal.change.number
    with repo.store.transaction() as tx:
        gate.approve(tx, repo, number, "ben", "")
        gate.merge(tx, repo, number, "ben")


def rows_at(repo: Repository, commit: str) -> dict[object, object]:
    """What pyiceberg by itself reads of the table as a commit has it: qty by id."""
    content = table_at(repo, commit, "m")
    assert content is not None
    found = bare_table(repo.root, located(repo.root, content).metadata).scan().to_arrow()
    return dict(zip(*(found[name].to_pylist() for name in ("id", "qty")), strict=True))


def count_changes(repo: Repository) -> int:
    with repo.store.reading() as tx:
        row = tx.row("select count(*) from changes", ())
    assert row is not None
    return int(row[0])


def as_instant(day: object) -> datetime:
    assert isinstance(day, date)
    return datetime.combine(day, time(), UTC)


@pytest.mark.parametrize("policy", ["append", "keyed", "replace"])
@pytest.mark.parametrize(
    ("kinds", "first", "second", "now"),
    [
        (("integer", "number"), WHOLE, ["2.5", "4.5", "6"], lambda value: float(str(value))),
        (("integer", "string"), WHOLE, ["A7", "B8", "6"], str),
        (("date", "timestamp"), DAYS, ["2026-11-01T08:30:00Z", "2026-11-02"], as_instant),
        (("date", "string"), DAYS, ["soon", "2026-11-01"], str),
    ],
)
def test_a_held_file_comes_in_once_the_type_is_corrected_and_no_row_is_lost(
    repo: Repository,
    tmp_path: Path,
    policy: str,
    kinds: tuple[str, str],
    first: list[str],
    second: list[str],
    now: Callable[[object], object],
) -> None:
    merged(repo, tmp_path, typed(kinds[0], policy))
    arrive(repo, m(tmp_path, 1, first))
    before = repo.resolve(MAIN)
    old = rows_at(repo, before)
    assert len(old) == len(first)
    if policy == "replace":
        held = arrive(repo, m(tmp_path, 2, (second * len(first))[: len(first)], 1000))
    else:
        held = arrive(repo, m(tmp_path, 2, second))
    number = held.arrival.change
    assert held.is_held and "correct contracts/m.yaml" in held_error(held).message
    settled = merged(repo, tmp_path, typed(kinds[1], policy)).get(number)
    assert isinstance(settled, Arrived), settled
    assert settled.state is State.MERGED
    told = f"qty was {kinds[0]} and is {kinds[1]} from now on"
    if policy != "replace":
        told += f": {len(first)} rows were written anew"
    assert told in settled.to_text() and told in str(settled.to_json())
    assert told in str(review_of(repo, number).to_json())
    found = rows_at(repo, repo.resolve(MAIN))
    assert found.keys() >= old.keys()
    if policy != "replace":
        kept = {key: now(value) for key, value in old.items()}
        assert {key: value for key, value in found.items() if key in old} == kept
        assert len(found) == len(old) + len(second)
    assert rows_at(repo, before) == old
    earlier, later = (table_at(repo, commit, "m") for commit in (before, repo.resolve(MAIN)))
    assert diff_rows(repo.root, earlier, later, ("id",)).removed == 0
    fourth = m(tmp_path, 4, second, None if policy != "replace" else 1000)
    assert "from now on" not in arrive(repo, fourth).to_text()


def test_under_replace_any_type_is_taken_since_no_row_stays(
    repo: Repository, tmp_path: Path
) -> None:
    merged(repo, tmp_path, typed("number", "replace"))
    arrive(repo, m(tmp_path, 1, ["2.5"] * 10))
    held = arrive(repo, m(tmp_path, 2, ["n/a"] * 10, 1000))
    settled = merged(repo, tmp_path, typed("string", "replace"))[held.arrival.change]
    assert isinstance(settled, Arrived) and settled.state is State.MERGED
    assert set(rows_at(repo, repo.resolve(MAIN)).values()) == {"n/a"}


@pytest.mark.parametrize(
    ("kinds", "values", "facts"),
    [
        (("number", "string"), ["2.5"], ("number", "string")),
        (("boolean", "string"), ["true"], ("boolean", "string")),
        (("timestamp", "string"), ["2026-01-01T00:00:00Z"], ("timestamp", "string")),
        (("number", "integer"), ["2"], ("number", "integer")),
        (("string", "integer"), ["2"], ("string", "integer")),
        (("integer", "string"), ["007", "12"], ("zeros before its numbers",)),
        (("integer", "number"), ["9007199254740993", "5"], ("1 of its values", "9007199254740993")),
    ],
)
def test_a_type_that_the_rows_cannot_get_is_refused_before_anything_is_recorded(
    repo: Repository, tmp_path: Path, kinds: tuple[str, str], values: list[str],
    facts: tuple[str, ...],
) -> None:  # fmt: skip
    merged(repo, tmp_path, typed(kinds[0]))
    arrive(repo, m(tmp_path, 1, values))
    known = count_changes(repo)
    with pytest.raises(InvalidError) as refused:
        propose(repo, tmp_path, typed(kinds[1]))
    assert refused.value.kind == "type-change"
    assert all(fact in refused.value.message for fact in ('Column "qty"', *facts))
    assert count_changes(repo) == known
    assert arrive(repo, m(tmp_path, 2, values[:1])).state is State.MERGED


@pytest.mark.parametrize("layout", ["partitioned: true", "sort"])
def test_a_column_by_which_files_are_laid_out_keeps_its_type(
    repo: Repository, tmp_path: Path, layout: str
) -> None:
    def laid_out(kind: str) -> str:
        if layout == "sort":
            sort = "value: append}\n      - {property: sortOrder, value: [qty]}"
            return typed(kind).replace("value: append}", sort)
        return typed(kind).replace(
            f"qty, logicalType: {kind}", f"qty, logicalType: {kind}, {layout}"
        )

    merged(repo, tmp_path, laid_out("integer"))
    arrive(repo, m(tmp_path, 1, ["2", "4"]))
    with pytest.raises(InvalidError, match="partitioned or sorted") as refused:
        propose(repo, tmp_path, laid_out("number"))
    assert refused.value.kind == "type-change"
    merged(repo, tmp_path, laid_out("number").replace("qty", "amount"))
    file = m(tmp_path, 2, ["2.5"])
    file.write_text(file.read_text().replace("qty", "amount"))
    assert arrive(repo, file).state is State.MERGED


def test_the_ways_out_that_a_refusal_names_work(repo: Repository, tmp_path: Path) -> None:
    merged(repo, tmp_path, typed("number"))
    arrive(repo, m(tmp_path, 1, ["2.5", "4.5"]))
    held = arrive(repo, m(tmp_path, 2, ["n/a", "none"]))
    with pytest.raises(InvalidError, match="another name") as refused:
        propose(repo, tmp_path, typed("string"))
    assert "instep undo" in refused.value.message

    # Another name, for which the files' own is another word from then on.
    other = typed("string").replace("name: qty", "name: qty_text")
    merged(repo, tmp_path, other)
    accepted = accept(repo, held.arrival.change, "ben", rename={"qty": "qty_text"}, why="so")
    assert accepted.state is State.MERGED
    assert arrive(repo, m(tmp_path, 3, ["none", "4"])).state is State.MERGED


def test_a_young_table_gets_any_type_when_its_arrivals_are_undone_and_come_again(
    repo: Repository, tmp_path: Path
) -> None:
    merged(repo, tmp_path, typed("number"))
    first = arrive(repo, m(tmp_path, 1, ["2.5", "4.50"]))
    assert first.commit is not None
    undo(repo, first.commit)
    merged(repo, tmp_path, typed("string"))
    assert arrive(repo, m(tmp_path, 1, ["2.5", "4.50"])).state is State.MERGED
    assert list(rows_at(repo, repo.resolve(MAIN)).values()) == ["2.5", "4.50"]


def test_a_message_advises_another_type_only_where_the_table_can_get_it(
    repo: Repository, tmp_path: Path
) -> None:
    merged(repo, tmp_path, typed("number"))
    arrive(repo, m(tmp_path, 1, ["2.5", "4.5"]))
    held = arrive(repo, m(tmp_path, 2, ["n/a", "none"]))
    message = held_error(held).message
    assert "if the contract is wrong" not in message
    assert "qty" in message and "cannot become another type" in message


def test_a_contract_that_was_merged_unchecked_refuses_files_by_name_and_is_recorded(
    repo: Repository, tmp_path: Path
) -> None:
    merged(repo, tmp_path, typed("number"))
    arrive(repo, m(tmp_path, 1, ["2.5", "4.5"]))
    held = arrive(repo, m(tmp_path, 2, ["n/a", "none"]))
    merge_contract(repo, typed("string"), "m")
    known = count_changes(repo)
    with pytest.raises(InvalidError, match="another name") as refused:
        arrive(repo, m(tmp_path, 3, ["n/a", "5"]))
    assert refused.value.kind == "type-change"
    assert count_changes(repo) == known + 1
    with pytest.raises(InvalidError, match="another name"):
        accept(repo, held.arrival.change, "ben", why="so")
    merged(repo, tmp_path, typed("number"))
    assert arrive(repo, m(tmp_path, 4, ["5.5"])).state is State.MERGED


@pytest.mark.parametrize("policy", ["append", "keyed"])
def test_what_was_written_anew_is_undone_and_written_anew_again(
    repo: Repository, tmp_path: Path, policy: str
) -> None:
    merged(repo, tmp_path, typed("integer", policy))
    first = arrive(repo, m(tmp_path, 1, ["2", "4"] * 10))
    old = rows_at(repo, repo.resolve(MAIN))
    merged(repo, tmp_path, typed("number", policy))
    contract = repo.resolve(MAIN)
    second = arrive(repo, m(tmp_path, 2, ["2.5", "4.5"]))
    assert first.commit is not None and second.commit is not None
    with pytest.raises(ConflictError, match="Undo the later commit first"):
        undo(repo, first.commit)
    with pytest.raises(InvalidError) as refused:
        undo(repo, contract)
    assert refused.value.kind == "type-change"
    undo(repo, second.commit)
    assert rows_at(repo, repo.resolve(MAIN)) == old
    assert "20 rows were written anew" in arrive(repo, m(tmp_path, 3, ["5.5"])).to_text()
    assert rows_at(repo, repo.resolve(MAIN)) == {**old, 3000: 5.5}
    undo(repo, repo.resolve(MAIN))
    undo(repo, contract)
    assert arrive(repo, m(tmp_path, 4, ["5"])).state is State.MERGED
    assert rows_at(repo, repo.resolve(MAIN)) == {**old, 4000: 5}


def test_a_key_gets_another_type_and_names_the_same_rows(repo: Repository, tmp_path: Path) -> None:
    text = typed("integer", "keyed")
    merged(repo, tmp_path, text)
    arrive(repo, m(tmp_path, 1, ["2", "", "6", *WHOLE]))
    merged(repo, tmp_path, text.replace("id, logicalType: integer", "id, logicalType: string"))
    file = tmp_path / "m2.csv"
    file.write_text("id,qty\n1000,7\n1001,\nA7,9\n")
    arrived = arrive(repo, file)
    assert arrived.effect is not None
    effect = (arrived.effect.new, arrived.effect.changed, arrived.effect.same, arrived.effect.gone)
    assert effect == (1, 1, 1, 0)
    found = rows_at(repo, repo.resolve(MAIN))
    assert [found[key] for key in ("1000", "1001", "1002", "A7")] == [7, None, 6, 9]


def test_a_column_that_became_another_of_its_name_is_not_told_as_lost(
    repo: Repository, tmp_path: Path
) -> None:
    merged(repo, tmp_path, typed("integer"))
    arrive(repo, m(tmp_path, 1, WHOLE))
    before = repo.resolve(MAIN)
    merged(repo, tmp_path, typed("number"))
    arrive(repo, m(tmp_path, 2, ["2.5"]))
    compared = compare(repo, before, repo.resolve(MAIN))
    assert "column qty: long becomes double, as another column" in str(compared.to_json())
    assert not compared.findings


@pytest.mark.parametrize("policy", ["append", "keyed"])
def test_two_files_that_wait_for_one_type_both_come_in(
    repo: Repository, tmp_path: Path, policy: str
) -> None:
    merged(repo, tmp_path, typed("integer", policy))
    arrive(repo, m(tmp_path, 1, WHOLE))
    waiting = [arrive(repo, m(tmp_path, number, ["2.5", "4.5"])) for number in (2, 3)]
    assert all(one.is_held for one in waiting)
    settled = merged(repo, tmp_path, typed("number", policy))
    texts = [one.to_text() if isinstance(one, Arrived) else one.message for one in settled.values()]
    assert [("written anew" in text) for text in texts] == [True, False], texts
    assert len(rows_at(repo, repo.resolve(MAIN))) == len(WHOLE) + 4


def test_a_file_read_before_the_rows_were_written_anew_is_read_again_when_it_is_merged(
    repo: Repository, tmp_path: Path
) -> None:
    merged(repo, tmp_path, typed("integer"))
    arrive(repo, m(tmp_path, 1, WHOLE))
    merge_contract(repo, typed("integer"), "m", approvals=1)
    waits = arrive(repo, m(tmp_path, 2, ["8"]))
    assert waits.state is State.OPEN
    merge_contract(repo, typed("number"), "m", approvals=0)
    arrive(repo, m(tmp_path, 3, ["2.5"]))
    merge_arrival(repo, waits.arrival.change, "ben")
    found = rows_at(repo, repo.resolve(MAIN))
    assert (found[1000], found[2000], found[3000]) == (2.0, 8.0, 2.5)
    assert len(found) == len(WHOLE) + 2
