"""Each mistake at the command line gives one message, of the right family, and changes nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest

from instep.cli.main import cli, main
from instep.clock import Duration, Window, parse_duration, parse_instant
from instep.documents import load_yaml
from instep.errors import ConflictError, InstepError, InvalidError, NotFoundError, RefusedError
from instep.history.commits import load_commit
from instep.history.repository import Repository
from instep.history.tips import move_ref
from instep.pipelines.project import parse_project

CONFIG = "lake: lake\npeople: [ana, ben]\nenvironments: {prod: {}}\n"


def instep(*words: str) -> None:
    cli.main(list(words), standalone_mode=False)


def caught(*words: str) -> InstepError:
    with pytest.raises(InstepError) as error:
        instep(*words)
    return error.value


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without a lake, and the folder one is in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INSTEP_ACTOR", raising=False)
    (tmp_path / "instep.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def proposed(folder: Path) -> Path:
    """A lake with change 1 open, proposed by ana."""
    instep("init", "--as", "ana")
    instep("propose", "--as", "ana")
    return folder


@pytest.fixture
def merged(proposed: Path) -> Path:
    """A lake whose main holds the project."""
    instep("approve", "1", "--as", "ben")
    instep("merge", "1", "--as", "ana")
    return proposed


@pytest.mark.parametrize(
    ("words", "kind", "exit_code"),
    [
        (["log"], "no-such-lake", 3),
        (["init", "--empty"], "project-exists", 4),
        (["init", "--project", "nowhere"], "no-project", 3),
    ],
)
def test_before_there_is_a_lake(folder: Path, words: list[str], kind: str, exit_code: int) -> None:
    error = caught(*words)
    assert (error.kind, error.exit_code) == (kind, exit_code)
    assert not (folder / "lake").exists()


@pytest.mark.parametrize(
    ("words", "kind", "exit_code"),
    [
        (["init"], "lake-exists", 4),
        (["approve", "1", "--as", "ana"], "own-change", 5),
        (["approve", "1", "--as", "zoe"], "unknown-actor", 5),
        (["approve", "1"], "no-actor", 2),
        (["approve", "7", "--as", "ben"], "no-such-change", 3),
        (["merge", "1", "--as", "ana"], "not-mergeable", 5),
        (["show", "no-branch"], "no-such-ref", 3),
        (["show", "main@never"], "bad-instant", 2),
        (["where", "--at", "soon"], "bad-instant", 2),
        (["branch", "make", "0123abcd", "--as", "ana"], "bad-ref-name", 2),
        (["branch", "make", "main", "--as", "ana"], "ref-exists", 4),
        (["propose", "main", "--as", "ana"], "nothing-to-propose", 5),
    ],
)
def test_with_a_change_open(proposed: Path, words: list[str], kind: str, exit_code: int) -> None:
    before = dump(proposed)
    error = caught(*words)
    assert (error.kind, error.exit_code) == (kind, exit_code), error.message
    assert dump(proposed) == before


@pytest.mark.parametrize(
    ("words", "kind", "exit_code"),
    [
        (["approve", "1", "--as", "ben"], "change-ended", 5),
        (["propose", "--as", "ana"], "nothing-to-propose", 5),
        (["release", "test", "--as", "ben"], "no-such-environment", 3),
        (["rollback", "prod", "--why", "x", "--as", "ben"], "nothing-before", 5),
        (["plan", "nothing"], "no-such-pipeline", 2),
    ],
)
def test_with_the_project_merged(merged: Path, words: list[str], kind: str, exit_code: int) -> None:
    before = dump(merged)
    error = caught(*words)
    assert (error.kind, error.exit_code) == (kind, exit_code), error.message
    assert dump(merged) == before


def test_a_commit_that_is_not_on_main_is_not_released(
    merged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (merged / "instep.yaml").write_text(CONFIG.replace("ben", "ben, zoe"))
    instep("propose", "--as", "ana")
    capsys.readouterr()
    instep("show", "2", "--json")
    head = json.loads(capsys.readouterr().out)["head"]
    assert caught("release", "prod", head, "--as", "ben").kind == "not-on-main"


def test_the_same_commit_is_not_released_twice(merged: Path) -> None:
    instep("release", "prod", "--as", "ben")
    assert caught("release", "prod", "--as", "ben").kind == "already-released"


@pytest.fixture
def held(merged: Path) -> Path:
    """A lake in which change 2 is an arrival that is held, ingested by ana."""
    (merged / "trips.csv").write_text("id,zone\n1,a\n2,b\n")
    words = ["ingest", "trips.csv", "--as", "ana"]
    assert cli.main(words, standalone_mode=False) == RefusedError.exit_code
    return merged


@pytest.mark.parametrize(
    ("words", "kind", "exit_code"),
    [
        (["approve", "2", "--as", "ben"], "change-held", 5),
        (["accept", "1", "--as", "ben"], "no-such-arrival", 3),
    ],
)
def test_with_an_arrival_held(held: Path, words: list[str], kind: str, exit_code: int) -> None:
    before = dump(held)
    error = caught(*words)
    assert (error.kind, error.exit_code) == (kind, exit_code), error.message
    assert dump(held) == before


def test_an_arrival_that_was_turned_away_is_not_accepted(held: Path) -> None:
    instep("refuse", "2", "--why", "a wrong file", "--as", "ben")
    assert caught("accept", "2", "--as", "ben").kind == "not-held"


CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: {table}
version: 1.0.0
status: active
{servers}
schema:
  - name: {table}
    customProperties: [{{property: mergePolicy, value: {policy}}}]
    properties: [{{name: id, logicalType: integer}}]
"""


@pytest.fixture
def contracts(proposed: Path) -> Path:
    """A lake with two contracts that match the same files, and one derived table."""
    (proposed / "contracts").mkdir()
    server = 'servers: [{server: s, type: local, path: "trips*.csv", format: csv}]'
    for table, servers, policy in (
        ("here", server, "append"),
        ("there", server, "append"),
        ("made", "", "derived"),
    ):
        text = CONTRACT.format(table=table, servers=servers, policy=policy)
        (proposed / "contracts" / f"{table}.yaml").write_text(text)
    instep("propose", "--as", "ana")
    instep("approve", "1", "--as", "ben")
    instep("merge", "1", "--as", "ana")
    (proposed / "trips.csv").write_text("id\n1\n2\n")
    return proposed


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["trips.csv"], "ambiguous-file"),
        (["trips.csv", "--table", "made"], "derived-table"),
        (["no-trips.csv", "--table", "here"], "missing-file"),
    ],
)
def test_a_file_that_can_go_nowhere_is_not_recorded(
    contracts: Path, words: list[str], kind: str
) -> None:
    before = dump(contracts)
    error = caught("ingest", *words, "--as", "ana")
    assert (error.kind, error.exit_code) == (kind, 2), error.message
    assert dump(contracts) == before


def test_a_file_that_cannot_be_read_stops_no_other_and_is_recorded(
    contracts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("early", "id\n3\n4\n"), ("late", "id\n5\n"), ("broken", "id\n")):
        (contracts / f"{name}.csv").write_text(text)
    names = ["early.csv", "broken.csv", "none.csv", "late.csv"]
    words = ["ingest", *names, "--as", "ana", "--table", "here"]

    def told(*words: str) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = cli.main([*words, "--json"], standalone_mode=False)
        printed = capsys.readouterr()
        return code, json.loads(printed.out), printed.err

    code, found, err = told(*words)
    assert code == InvalidError.exit_code
    arrived = [(one["file"], one["state"]) for one in found["arrivals"]]
    assert arrived == [("early.csv", "merged"), ("late.csv", "merged")]
    assert [one["kind"] for one in found["errors"]] == ["no-rows", "missing-file"]
    assert (found["error"]["kind"], found["error"]["family"]) == ("no-rows", "invalid")
    for one in found["errors"]:
        assert f"invalid: {one['message']}\n" in err
    _, changes, _ = told("changes", "--all")
    number = found["errors"][0]["change"]
    [refused] = [one for one in changes if one["change"] == number]
    assert (refused["kind"], refused["state"], refused["author"]) == ("arrival", "refused", "ana")
    assert "no rows" in refused["why"] and "broken.csv" in refused["title"]
    assert not [one for one in changes if "none.csv" in one["title"]]

    capsys.readouterr()
    assert cli.main(words, standalone_mode=False) == InvalidError.exit_code
    printed = capsys.readouterr()
    assert printed.out.count("the same file arrived before") == 2
    assert printed.err.count("invalid: File ") == 2
    assert caught("ingest", "broken.csv", "--as", "ana", "--table", "here").kind == "no-rows"


def test_two_arrivals_that_waited_are_merged_one_after_the_other(
    contracts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*words: str) -> dict[str, Any]:
        capsys.readouterr()
        instep(*words, "--as", "ana", "--json")
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    (contracts / "instep.yaml").write_text(f"{CONFIG}policies: {{approvals: {{arrival: 1}}}}\n")
    policy = str(told("propose")["change"])
    instep("approve", policy, "--as", "ben")
    instep("merge", policy, "--as", "ana")
    waiting = []
    for name in ("first", "second"):
        (contracts / f"{name}.csv").write_text(f"id\n{len(name)}\n")
        [arrived] = told("ingest", f"{name}.csv", "--table", "here")["arrivals"]
        assert arrived["state"] == "open"
        waiting.append(str(arrived["change"]))
        instep("approve", waiting[-1], "--as", "ben")
    for number in waiting:
        assert told("merge", number)["approved_by"] == ["ben"]
    assert caught("merge", waiting[-1], "--as", "ana").kind == "not-mergeable"


def test_a_lake_of_another_format_is_not_read(merged: Path) -> None:
    connection = sqlite3.connect(merged / "lake" / "catalog.sqlite")
    connection.execute("pragma user_version = 999")
    connection.close()
    assert caught("log").kind == "newer-lake"


def dump(folder: Path) -> list[str]:
    """Returns all that the catalog holds, as SQL."""
    connection = sqlite3.connect(folder / "lake" / "catalog.sqlite")
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (lambda: parse_duration("soon"), "bad-duration"),
        (lambda: parse_instant("yesterday"), "bad-instant"),
        (lambda: Window(_day(2), _day(1)), "empty-window"),
        (lambda: Duration(months=1).after(_day(31)), "no-such-day"),
        (lambda: load_yaml("a: [", "x.yaml"), "bad-yaml"),
        (lambda: parse_project("people: []"), "bad-document"),
        (lambda: parse_project("lake: lake\npeopel: [ana]"), "unknown-key"),
    ],
)
def test_text_from_outside_that_cannot_be_read(act: Callable[[], object], kind: str) -> None:
    with pytest.raises(InstepError) as error:
        act()
    assert error.value.kind == kind


def test_a_misspelt_key_is_named_with_its_place_and_the_nearest_known_one(folder: Path) -> None:
    (folder / "instep.yaml").write_text("lake: lake\npeople: [ana]\nenviroments: {prod: {}}\n")
    message = caught("init").message
    assert message.startswith('instep.yaml:3:1: key "enviroments" is not known')
    assert 'Did you mean "environments"?' in message
    assert not (folder / "lake").exists()


def test_a_key_and_a_commit_that_do_not_exist_are_not_found(repo: Repository) -> None:
    with pytest.raises(NotFoundError) as error:
        repo.content(repo.resolve("main"), "table/none")
    assert error.value.kind == "no-such-key"
    with repo.store.reading() as tx, pytest.raises(NotFoundError) as error:
        load_commit(tx, "0" * 64)
    assert error.value.kind == "no-such-commit"


def test_a_ref_that_moved_meanwhile_is_a_conflict(repo: Repository) -> None:
    main = repo.resolve("main")
    with pytest.raises(ConflictError) as error, repo.store.transaction() as tx:
        move_ref(
            tx,
            "main",
            expected="0" * 64,
            commit=main,
            actor="ana",
            at=repo.clock(),
            kind="merge",
            why="too late",
        )
    assert error.value.kind == "ref-moved"
    assert repo.resolve("main") == main


def _day(day: int) -> datetime:
    return datetime(2013, 1, day, tzinfo=UTC)


def test_a_name_that_is_no_text_is_wrong_input(
    proposed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["instep", "show", "\udcff"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, "UTF-8" in capsys.readouterr().err) == (InvalidError.exit_code, True)


@pytest.mark.parametrize("why", ["", "  "])
@pytest.mark.parametrize(
    "words",
    [("erase", "0123abcd"), ("reject", "1"), ("refuse", "1"), ("rollback", "prod")],
)
def test_an_empty_reason_is_none(proposed: Path, words: tuple[str, ...], why: str) -> None:
    before = dump(proposed)
    with pytest.raises(click.BadParameter, match="expected a reason"):
        instep(*words, "--why", why, "--as", "ben")
    assert dump(proposed) == before


@pytest.mark.parametrize("words", [("show", "²"), ("undo", "²", "--as", "ana")])
def test_a_digit_that_makes_no_number_is_no_change(proposed: Path, words: tuple[str, ...]) -> None:
    assert caught(*words).kind == "no-such-ref"


def test_instants_at_the_ends_of_time_are_told_or_taken(
    proposed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert caught("show", "main@0001-01-01T00:00:00+14:00").kind == "bad-instant"
    instep("log", "main@9999-12-31T23:59:59.999999")
    assert "created" in capsys.readouterr().out
