"""The walk, told with other months, another renamed column and another unit: every act holds.

It is walked once more with the lake in PostgreSQL and on S3, where every act holds just so.
"""

from __future__ import annotations

import json
import re
import subprocess
import sysconfig
import venv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from buckets import make_bucket
from commands import must

from instep.cli.acts import Story, acts
from instep.cli.demo import free_port, make_project
from instep.cli.stage import play
from instep.pipelines.project import find_lake
from instep.tables.addresses import client_properties

STORY = Story(
    trained=tuple(f"2013-{month:02}" for month in range(2, 8)),
    next_month="2013-08",
    last_month="2013-09",
    renamed=("dep_delay", "departure_delay"),
    multiplied=("weather", "wind_speed", 0.44704),
    unseen="ILM",
    one_in=8,
)

Command = dict[str, Any]  # what a command printed: the shape is its own
Walk = dict[int, list[Command]]


@pytest.fixture(scope="module", params=["folder", pytest.param("s3", marks=pytest.mark.long)])
def lake(request: pytest.FixtureRequest) -> str:
    """What the project says of where its lake is; the example's own line is for a folder."""
    if request.param == "folder":
        return "lake: lake"
    bucket = make_bucket(request.getfixturevalue("s3_url"))
    return bucket.project_line(request.getfixturevalue("postgres_url"))


@pytest.fixture(scope="module")
def folder(lake: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("walk") / "project"


@pytest.fixture(scope="module")
def walk(folder: Path, lake: str) -> Walk:
    told = acts(replace(STORY, port=free_port()))
    place = make_project(folder)
    config = place / "instep.yaml"
    config.write_text(re.sub("^lake: lake$", lake, config.read_text(), flags=re.MULTILINE))
    assert lake in config.read_text()
    lines = [json.loads(line) for line in play(told, place, as_json=True)]
    return {line["act"]: line["commands"] for line in lines}


def outputs(commands: list[Command], begins: str) -> list[Any]:  # one for each such command
    return [one["output"] for one in commands if one["line"].startswith(begins)]


def output(commands: list[Command], begins: str) -> Any:
    (found,) = outputs(commands, begins)
    return found


def key(evidence: dict[str, Any], name: str) -> Any:
    (found,) = (one for one in evidence["keys"] if one["key"] == name)
    return found


def test_act_1_the_project_is_reviewed_and_every_month_arrives(walk: Walk) -> None:
    merged = output(walk[1], "instep merge")
    assert merged["approved_by"] == ["ben"]
    assert "contract/flights" in merged["keys"]
    arrivals = [a for one in outputs(walk[1], "instep ingest") for a in one["arrivals"]]
    assert len(arrivals) == 3 + 2 * len(STORY.trained)
    assert {arrival["state"] for arrival in arrivals} == {"merged"}
    assert {a["file"]: a["broken"] for a in arrivals if a["quarantined"]} == {
        "weather-2013-02.csv": {"wind_speed.maximum": 1}
    }


def test_act_2_a_run_is_one_commit_and_chooses_for_every_window(walk: Walk) -> None:
    plan, run = output(walk[2], "instep plan"), output(walk[2], "instep run")
    assert [step["reused"] for step in plan["steps"]] == [False, False]
    assert run["slice"] == {"from": "2013-02-01", "to": "2013-08-01"}
    diff = output(walk[2], "instep diff")
    assert {one["key"] for one in diff["keys"]} >= {"model/delay", "table/departures"}
    card = key(diff, "model/delay")["facts"]["card"]
    assert [one["name"] for one in card["candidates"]] == ["constant", "shallow", "deep"]
    assert len({len(one["windows"]) for one in card["candidates"]}) == 1
    assert card["choice"]["candidate"] != "constant"
    assert card["choice"]["gain_over_constant"]["mean"] > 0.1
    log = output(walk[2], "instep log")
    assert log["operations"][0]["after"] == run["output_commit"] == diff["after"]


def test_act_3_evidence_is_computed_and_the_author_cannot_approve(walk: Walk) -> None:
    proposed = output(walk[3], "instep propose")
    assert proposed["kind"] == "model"
    assert key(proposed["evidence"], "table/departures")["facts"]["rows"]["added"] > 0
    refused, agreed = outputs(walk[3], "instep approve")
    assert refused["error"]["kind"] == "own-change"
    assert agreed["by"] == "ben"
    assert output(walk[3], "instep merge")["state"] == "merged"


def test_act_4_where_names_model_data_since_and_by(walk: Walk) -> None:
    released = output(walk[4], "instep release")
    (live,) = output(walk[4], "instep where")["environments"]
    assert (live["environment"], live["by"], live["act"]) == ("prod", "ben", "release")
    assert live["commit"] == released["commit"]
    assert live["since"] == released["at"]
    assert [model["version"] for model in live["models"]] == ["1"]


def test_act_5_every_answer_has_a_receipt_and_what_it_stands_on(walk: Walk) -> None:
    sent = output(walk[5], "python send.py")
    (live,) = output(walk[4], "instep where")["environments"]
    assert sent["sent"] == len(set(sent["receipts"])) == 200
    assert sent["answered"] >= 190
    first = sent["first"]
    assert (first["model"], first["version"], first["commit"]) == ("delay", "1", live["commit"])
    unseen, penguin, far, no_weather = sent["special"].values()
    assert unseen["status"] == penguin["status"] == 422
    assert '"dest" is "ILM"' in unseen["error"]["message"]
    assert '"distance" is "penguin"' in penguin["error"]["message"]
    assert far["status"] == no_weather["status"] == 200
    assert any("distance" in flag for flag in far["flags"])


def test_act_6_a_rename_is_recognised_accepted_and_remembered(walk: Walk) -> None:
    before, after = STORY.renamed
    held, weather = outputs(walk[6], "instep ingest")
    (arrival,) = held["arrivals"]
    assert (arrival["state"], arrival["commit"]) == ("held", None)
    assert held["error"]["kind"] == "arrival-held"
    assert f'"{before}" is missing and "{after}" looks like it' in held["error"]["message"]
    accepted = output(walk[6], "instep accept")
    assert (accepted["state"], accepted["by"]) == ("merged", "ben")
    assert weather["arrivals"][0]["state"] == "merged"
    run = output(walk[6], "instep run")
    assert run["state"] == "succeeded"
    departures = run["steps"][0]
    assert (departures["computed"], departures["reused"]) == (1, len(STORY.trained))


def test_act_7_another_unit_is_named_with_its_factor_and_turned_away(walk: Walk) -> None:
    table, column, factor = STORY.multiplied
    (arrival,) = output(walk[7], "instep ingest")["arrivals"]
    assert (arrival["state"], arrival["held_for"]) == ("held", "unit-factor")
    (finding,) = (one for one in arrival["findings"] if one["severity"] == "stop")
    assert finding["subject"] == f"table/{table}.{column}"
    assert float(finding["evidence"]["factor"]) == pytest.approx(factor, rel=1e-3)
    assert output(walk[7], "instep refuse")["state"] == "refused"


def test_act_8_the_new_month_is_scored_and_receipts_are_joined(walk: Walk) -> None:
    (watched,) = output(walk[8], "instep watch")["models"]
    assert watched["comparison"]["window"].startswith("2013-08-01")
    accepted = output(walk[6], "instep accept")
    assert watched["comparison"]["rows"] == accepted["rows"]
    sent = output(walk[5], "python send.py")
    assert watched["receipts"]["answered"] == sent["answered"]
    assert watched["receipts"]["agreeing"] == sent["answered"]


def test_act_9_the_first_model_comes_back_and_what_was_live_is_known(walk: Walk) -> None:
    second, first, then = (one["environments"][0] for one in outputs(walk[9], "instep where"))
    assert [live["models"][0]["version"] for live in (second, first, then)] == ["2", "1", "2"]
    assert then["commit"] == second["commit"] != first["commit"]
    back = output(walk[9], "instep rollback")
    assert back["keys"] == ["model/delay"]
    assert back["lived_before"] is False
    (released,) = output(walk[4], "instep where")["environments"]
    assert first["models"][0]["digest"] == released["models"][0]["digest"]


def test_act_10_a_receipt_leads_to_everything(walk: Walk) -> None:
    explained = output(walk[10], "instep explain")
    sent = output(walk[5], "python send.py")
    run = output(walk[2], "instep run")
    assert explained["receipt"] in sent["receipts"]
    assert explained["model"]["version"] == "1"
    text = json.dumps(explained)
    for fact in (run["run"], run["input_commit"], run["code_digest"], run["runtime_digest"]):
        assert fact in text


def test_act_11_the_old_run_is_the_same_again(walk: Walk) -> None:
    reproduced = output(walk[11], "instep reproduce")
    assert reproduced["run"] == output(walk[2], "instep run")["run"]
    assert reproduced["verdict"] == "identical"
    status = output(walk[11], "instep status")
    assert status["waiting"] == []
    assert status["next"] == "instep watch prod", "what was rolled back is not released again"


LEAVING = """
import json, sys
try:
    import instep.lake
except ImportError:
    pass
else:
    sys.exit("this environment has Instep")
import duckdb
from pyiceberg.table import StaticTable
found = {}
tables, properties = json.load(sys.stdin)
for name, path in tables.items():
    table = StaticTable.from_metadata(path, properties)
    arrow = table.scan().to_arrow()
    files = []
    for number, task in enumerate(table.scan().plan_files()):
        files.append(f"{name.replace('/', '-')}-{number}.parquet")
        with table.io.new_input(task.file.file_path).open() as file:
            open(files[-1], "wb").write(file.read())
    rows = duckdb.sql("select count(*) from read_parquet($files)", params={"files": files})
    found[name] = [arrow.num_rows, rows.fetchall()[0][0], arrow.column_names]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with every package of this one but Instep, whose own .pth it does not read."""
    home = tmp_path_factory.mktemp("without-instep")
    venv.create(home, with_pip=False)
    packages = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    (Path(packages) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin" / "python"


def test_every_table_is_read_without_instep(
    walk: Walk, folder: Path, bare_python: Path, tmp_path: Path
) -> None:
    tables = {
        name: one["metadata_location"]
        for name, one in must("show", "prod", "--json", at=folder).json["keys"].items()
        if name.startswith("table/")
    }
    assert len(tables) == 6
    left = subprocess.run(
        [str(bare_python), "-I", "-c", LEAVING],
        input=json.dumps([tables, client_properties(find_lake(folder).root)]),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert left.returncode == 0, left.stderr
    found = json.loads(left.stdout)
    assert all(by_iceberg == by_duckdb > 0 for by_iceberg, by_duckdb, _ in found.values())
    assert found["table/weather"][0] == sum(
        arrival["rows"] - arrival["quarantined"]
        for one in (*outputs(walk[1], "instep ingest"), *outputs(walk[6], "instep ingest"))
        for arrival in one["arrivals"]
        if arrival["table"] == "weather"
    )
    before, after = STORY.renamed
    columns = found["table/flights"][2]
    assert before in columns
    assert after not in columns
