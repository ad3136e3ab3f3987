"""Somebody decides about a held file by what the commands show of it, as main is at each moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from commands import run

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: codes
version: 1.0.0
status: active
servers:
  - {server: here, type: local, path: "codes-*.csv", format: csv}
schema:
  - name: codes
    customProperties:
      - {property: mergePolicy, value: keyed}
    properties:
      - {name: code, logicalType: string, primaryKey: true}
      - {name: value, logicalType: integer, logicalTypeOptions: {minimum: 0}}
"""


def instep(folder: Path, *words: str, exits: int = 0) -> Any:  # the shape is the command's
    done = run(*words, "--json", at=folder, actor="")
    assert done.code == exits, done
    return done.json


def put_contract(folder: Path, text: str) -> None:
    (folder / "contracts").mkdir(exist_ok=True)
    (folder / "contracts" / "codes.yaml").write_text(text)
    number = str(instep(folder, "propose", "--as", "ana")["change"])
    instep(folder, "approve", number, "--as", "ben")
    instep(folder, "merge", number, "--as", "ana")


def codes(folder: Path, name: str, values: list[int]) -> str:
    lines = [f"{name}{n:03},{value}" for n, value in enumerate(values)]
    (folder / f"codes-{name}.csv").write_text("\n".join(["code,value", *lines]) + "\n")
    return f"codes-{name}.csv"


def test_a_held_file_is_shown_diffed_previewed_and_judged_by_each_new_contract(
    tmp_path: Path,
) -> None:
    instep(tmp_path, "init", "--empty", "--as", "ana")
    project = tmp_path / "instep.yaml"
    project.write_text(project.read_text().replace("[ana]", "[ana, ben]"))
    put_contract(tmp_path, CONTRACT)
    first = instep(tmp_path, "ingest", codes(tmp_path, "a", list(range(100))), "--as", "ana")
    assert first["arrivals"][0]["effect"]["new"] == 100

    file = codes(tmp_path, "b", list(range(-10, 80)))
    held = instep(tmp_path, "ingest", file, "--as", "ana", exits=5)
    number = str(held["error"]["change"])
    assert "contracts/codes.yaml" in held["error"]["message"]
    head = instep(tmp_path, "review", number)["head"]
    told = run("diff", "main", head, at=tmp_path, actor="")
    assert "rows 100 -> 180: 80 added" in told.out
    shown = instep(tmp_path, "accept", number, "--dry-run")
    assert (shown["rows"], shown["quarantined"], shown["needs_reason"]) == (90, 10, True)
    assert shown["effect"]["new"] == 80
    instep(tmp_path, "accept", number, "--as", "ben", exits=2)

    put_contract(tmp_path, CONTRACT.replace("format: csv}", 'format: csv, delimiter: ";"}'))
    review = instep(tmp_path, "review", number)
    assert "expected ';'" in review["not_judged"] and review["head"] == head

    put_contract(tmp_path, CONTRACT.replace(", logicalTypeOptions: {minimum: 0}", ""))
    review = instep(tmp_path, "review", number)
    assert (review["state"], review["evidence"]["findings"]) == ("merged", [])
    told = run("diff", review["base"], review["merged_commit"], at=tmp_path, actor="")
    assert "rows 100 -> 190: 90 added" in told.out
