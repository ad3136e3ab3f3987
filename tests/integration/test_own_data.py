"""A user's own file, as the README tells it: a draft, a review, and then it is in."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import run


def instep(folder: Path, *words: str, exits: int = 0) -> Any:  # the shape is the command's
    done = run(*words, "--json", at=folder, actor="")
    assert done.code == exits, done
    return done.json


def test_in_a_team_the_rows_come_in_once_somebody_agreed_to_their_contract(tmp_path: Path) -> None:
    rows = [f"{n},2024-01-{n % 28 + 1:02}T10:00:00Z,{n % 50 + 3}" for n in range(200)]
    (tmp_path / "trips.csv").write_text("\n".join(["id,started_at,minutes", *rows]) + "\n")
    instep(tmp_path, "init", "--as", "ana")

    held = instep(tmp_path, "ingest", "trips.csv", "--as", "ana", exits=5)
    assert held["error"]["kind"] == "arrival-held"
    assert "instep accept 1" in held["error"]["message"]
    draft = tmp_path / "contracts" / "trips.yaml"
    assert 'name: "minutes"' in draft.read_text()
    assert [one["state"] for one in instep(tmp_path, "status")["waiting"]] == ["held"]

    project = tmp_path / "instep.yaml"
    project.write_text(project.read_text().replace("[ana]", "[ana, ben]"))
    waits = instep(tmp_path, "accept", "1", "--as", "ana", exits=5)["error"]
    assert waits["kind"] == "contract-waits"
    number = str(waits["contract_change"])
    instep(tmp_path, "approve", number, "--as", "ben")
    (arrival,) = instep(tmp_path, "merge", number, "--as", "ana")["arrivals"]
    assert (arrival["state"], arrival["rows"], arrival["quarantined"]) == ("merged", 200, 0)
    assert instep(tmp_path, "show", "main")["keys"]["table/trips"]["rows"] == 200
    assert instep(tmp_path, "status")["waiting"] == []
    (again,) = instep(tmp_path, "ingest", "trips.csv", "--as", "ben")["arrivals"]
    assert again["skipped"] is True


def test_one_person_alone_goes_from_a_file_to_rows_set_aside(tmp_path: Path) -> None:
    rows = [f"{n},{n % 50 + 3}" for n in range(200)]
    (tmp_path / "trips.csv").write_text("\n".join(["id,minutes", *rows, "200,soon"]) + "\n")
    instep(tmp_path, "init", "--as", "ana")
    instep(tmp_path, "ingest", "trips.csv", exits=5)
    draft = tmp_path / "contracts" / "trips.yaml"
    draft.write_text(draft.read_text().replace("logicalType: string", "logicalType: integer"))

    arrival = instep(tmp_path, "accept", "1")
    assert (arrival["state"], arrival["rows"], arrival["quarantined"]) == ("merged", 201, 1)
    shown = instep(tmp_path, "show", "1", "--quarantine")
    (row,) = shown["rows"]
    assert (row["line"], row["terms"]) == (202, "minutes.type")
    assert json.loads(row["raw"]) == {"id": "200", "minutes": "soon"}
    refused = instep(tmp_path, "show", "main", "--quarantine", exits=2)
    assert refused["error"]["kind"] == "not-an-arrival"


def test_accepting_a_draft_says_all_that_came_in_by_it(tmp_path: Path) -> None:
    rows = "".join(f"{n},9\n" for n in range(90))
    (tmp_path / "trips.csv").write_text(f"id,minutes\n{rows}")
    (tmp_path / "more.csv").write_text(f"id,minutes\n{rows}1000,9\n")
    instep(tmp_path, "init", "--as", "ana")
    instep(tmp_path, "ingest", "trips.csv", exits=5)
    instep(tmp_path, "ingest", "more.csv", "--table", "trips", exits=5)
    renamed = instep(tmp_path, "accept", "1", "--rename", "a=b", exits=2)
    assert renamed["error"]["kind"] == "bad-rename"
    done = instep(tmp_path, "accept", "1", "--why", "read")
    assert [one["change"] for one in done["arrivals"]] == [1, 2]
    assert (done["state"], done["contract_change"], done["errors"]) == ("merged", 3, [])
    assert "read" in instep(tmp_path, "review", "3")["title"]
    assert instep(tmp_path, "show", "main")["keys"]["table/trips"]["rows"] == 181


def test_a_contract_that_is_proposed_with_more_is_not_proposed_again(tmp_path: Path) -> None:
    (tmp_path / "trips.csv").write_text("id,minutes\n" + "".join(f"{n},9\n" for n in range(90)))
    instep(tmp_path, "init", "--as", "ana")
    project = tmp_path / "instep.yaml"
    project.write_text(project.read_text().replace("[ana]", "[ana, ben]"))
    first = str(instep(tmp_path, "propose", "--as", "ana")["change"])
    instep(tmp_path, "approve", first, "--as", "ben")
    instep(tmp_path, "merge", first, "--as", "ana")
    instep(tmp_path, "ingest", "trips.csv", "--as", "ana", exits=5)
    project.write_text(project.read_text() + "prices: {currency: EUR, cpu_hour: 1, gb_month: 1}\n")
    project.write_text(project.read_text().replace("0, pipeline", "1, pipeline"))
    both = instep(tmp_path, "propose", "--as", "ana")["change"]
    waits = instep(tmp_path, "accept", "2", "--as", "ana", exits=5)["error"]
    assert (waits["kind"], waits["contract_change"]) == ("contract-waits", both)


def test_a_draft_with_a_fault_is_named_and_nothing_comes_in(tmp_path: Path) -> None:
    (tmp_path / "trips.csv").write_text("id,minutes\n1,2\n2,3\n")
    instep(tmp_path, "init", "--as", "ana")
    instep(tmp_path, "ingest", "trips.csv", exits=5)
    draft = tmp_path / "contracts" / "trips.yaml"
    right = draft.read_text()
    draft.write_text(right.replace("logicalType: integer", "logicalType: intger"))
    error = instep(tmp_path, "accept", "1", exits=2)["error"]
    assert "contracts/trips.yaml" in error["message"] and "intger" in error["message"]
    assert instep(tmp_path, "show", "main")["keys"] == {}
    draft.write_text(right)
    assert instep(tmp_path, "accept", "1")["state"] == "merged"


def test_one_person_alone_may_accept_what_they_ingested(tmp_path: Path) -> None:
    rows = "".join(f"{n},{n % 9}\n" for n in range(90))
    (tmp_path / "trips.csv").write_text(f"id,minutes\n{rows}")
    (tmp_path / "trips2.csv").write_text("id,minutes\n" + "".join(f"{n},no\n" for n in range(9)))
    instep(tmp_path, "init", "--as", "ana")
    instep(tmp_path, "ingest", "trips.csv", exits=5)
    instep(tmp_path, "accept", "1")
    held = instep(tmp_path, "ingest", "trips2.csv", "--table", "trips", exits=5)["error"]
    said = instep(tmp_path, "accept", str(held["change"]), exits=2)["error"]
    assert said["kind"] == "needs-reason"
    done = instep(tmp_path, "accept", str(held["change"]), "--why", "the meter was off")
    assert (done["state"], done["quarantined"], done["by"]) == ("merged", 9, "ana")


def test_a_corrected_contract_lets_a_held_file_in_by_itself(tmp_path: Path) -> None:
    (tmp_path / "trips.csv").write_text("id,minutes\n" + "".join(f"{n},9\n" for n in range(90)))
    (tmp_path / "trips2.csv").write_text("id,minutes\n" + "".join(f"{n},95\n" for n in range(9)))
    instep(tmp_path, "init", "--as", "ana")
    instep(tmp_path, "ingest", "trips.csv", exits=5)
    draft = tmp_path / "contracts" / "trips.yaml"
    term = "        logicalTypeOptions: {maximum: 10}\n"
    draft.write_text(draft.read_text() + term)
    instep(tmp_path, "accept", "1")
    held = instep(tmp_path, "ingest", "trips2.csv", "--table", "trips", exits=5)["error"]
    assert 'correct contracts/trips.yaml and "instep propose" it' in held["message"]
    draft.write_text(draft.read_text().replace(term, ""))
    number = str(instep(tmp_path, "propose")["change"])
    (arrival,) = instep(tmp_path, "merge", number)["arrivals"]
    assert (arrival["change"], arrival["state"], arrival["quarantined"]) == (
        held["change"],
        "merged",
        0,
    )
    assert instep(tmp_path, "show", "main")["keys"]["table/trips"]["rows"] == 99


def test_a_held_file_comes_in_once_its_contract_has_the_type_that_it_brings(tmp_path: Path) -> None:
    (tmp_path / "trips.csv").write_text("id,minutes\n" + "".join(f"{n},9\n" for n in range(90)))
    (tmp_path / "trips2.csv").write_text("id,minutes\n" + "".join(f"{n},9.5\n" for n in range(9)))
    instep(tmp_path, "init", "--as", "ana")
    instep(tmp_path, "ingest", "trips.csv", exits=5)
    instep(tmp_path, "accept", "1")
    instep(tmp_path, "ingest", "trips2.csv", "--table", "trips", exits=5)
    draft = tmp_path / "contracts" / "trips.yaml"
    parts = draft.read_text().rpartition("logicalType: integer")
    draft.write_text(f"{parts[0]}logicalType: number{parts[2]}")
    number = str(instep(tmp_path, "propose")["change"])
    merged = run("merge", number, at=tmp_path, actor="")
    assert merged.code == 0, merged
    assert "minutes was integer and is number from now on: 90 rows were written anew" in merged.out
    assert instep(tmp_path, "status")["waiting"] == []
    assert instep(tmp_path, "show", "main")["keys"]["table/trips"]["rows"] == 99
    (tmp_path / "trips3.csv").write_text("id,minutes\n" + "".join(f"{n},9\n" for n in range(9)))
    instep(tmp_path, "ingest", "trips3.csv", "--table", "trips")


def test_a_held_file_that_a_new_contract_cannot_read_stays_held(tmp_path: Path) -> None:
    (tmp_path / "trips.csv").write_text("id,minutes\n" + "".join(f"{n},9\n" for n in range(90)))
    (tmp_path / "trips2.csv").write_text("id,minutes\n" + "".join(f"{n},9.5\n" for n in range(9)))
    instep(tmp_path, "init", "--as", "ana")
    instep(tmp_path, "ingest", "trips.csv", exits=5)
    instep(tmp_path, "accept", "1")
    held = instep(tmp_path, "ingest", "trips2.csv", "--table", "trips", exits=5)["error"]
    draft = tmp_path / "contracts" / "trips.yaml"
    parts = draft.read_text().rpartition("logicalType: integer")
    draft.write_text(f"{parts[0]}logicalType: integer\n        required: true{parts[2]}")
    number = str(instep(tmp_path, "propose")["change"])
    merged = run("merge", number, at=tmp_path, actor="")
    assert merged.code == 0, merged
    assert f"Change {held['change']} stays held" in merged.out
    assert [one["change"] for one in instep(tmp_path, "status")["waiting"]] == [held["change"]]


def test_a_name_that_no_table_can_have_is_refused_before_anything_is_kept(tmp_path: Path) -> None:
    (tmp_path / "trips.csv").write_text("id\n1\n")
    instep(tmp_path, "init", "--empty", "--as", "ana")
    refused = instep(tmp_path, "ingest", "trips.csv", "--table", "BAD-NAME", "--as", "ana", exits=2)
    assert refused["error"]["kind"] == "bad-name"
    assert instep(tmp_path, "changes", "--all") == []
    assert not (tmp_path / "contracts").exists()


def test_one_person_is_never_asked_who_they_are_nor_for_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "trips.csv").write_text("id,minutes\n" + "".join(f"{n},{n}\n" for n in range(90)))
    begun = run("init", at=tmp_path, actor="")
    assert begun.code == 0, begun
    assert instep(tmp_path, "status")["next"] == "instep ingest trips.csv"
    instep(tmp_path, "ingest", "trips.csv", exits=5)
    draft = tmp_path / "contracts" / "trips.yaml"
    draft.write_text(draft.read_text().replace("version: 0.1.0", "version: 1.0.0"))
    proposed = run("propose", at=tmp_path, actor="")
    assert "somebody else" not in proposed.out
    assert proposed.out.rstrip().endswith('Next: "instep merge 2".'), proposed.out


def test_status_ends_in_a_command_that_can_be_typed(tmp_path: Path) -> None:
    """Followed as told, from an empty folder, it leads to rows and on, and never to a dead end."""
    (tmp_path / "my trips.csv").write_text("id,minutes\n" + "".join(f"{n},9\n" for n in range(90)))
    instep(tmp_path, "init", "--as", "ana")
    typed: list[str] = []
    for _ in range(6):
        next_ = str(instep(tmp_path, "status")["next"])
        done = run(*shlex.split(next_)[1:], at=tmp_path, actor="")
        assert done.code in (0, 5), (next_, done)
        if typed and next_ == typed[-1]:
            break
        typed.append(next_)
    assert typed[0] == "instep ingest 'my trips.csv'"
    assert typed[-1] == "instep show main --profile my_trips"
    assert "90 rows" in run("show", "main", at=tmp_path, actor="").out


def at_a_terminal(folder: Path, *words: str, answers: str) -> str:
    """Returns what a command shows on a terminal where somebody types `answers`."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "instep", *words],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    os.write(ours, answers.encode())
    shown = b""
    with contextlib.suppress(OSError):  # the terminal ends with its last process
        while data := os.read(ours, 65_536):
            shown += data
    child.wait(60)
    os.close(ours)
    return shown.decode()


@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_second_file_of_a_table_is_asked_about(tmp_path: Path, answer: str) -> None:
    rows = "id,minutes\n" + "".join(f"{n},9\n" for n in range(90))
    (tmp_path / "trips.csv").write_text(rows)
    (tmp_path / "trips2.csv").write_text(rows.replace(",9", ",8"))
    instep(tmp_path, "init", "--as", "ana")
    instep(tmp_path, "ingest", "trips.csv", exits=5)

    refused = instep(tmp_path, "ingest", "trips2.csv", exits=2)["error"]
    assert (refused["kind"], refused["table"], refused["own"]) == ("which-table", "trips", "trips2")
    assert not (tmp_path / "contracts" / "trips2.yaml").exists()

    shown = at_a_terminal(tmp_path, "ingest", "trips2.csv", answers=f"{answer}\n")
    assert "Is it more of them? [Y/n]" in shown
    is_more = answer == "y"
    assert (tmp_path / "contracts" / "trips2.yaml").exists() is not is_more
    draft = (tmp_path / "contracts" / "trips.yaml").read_text()
    assert ('path: "trips*.csv"' in draft) is is_more
