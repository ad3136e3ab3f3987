"""The stage: real child processes, values learnt from output, and loud ends."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from instep.cli.acts import CHANGE, NOW, RECEIPT, RUN, Act, Run, Start, Step, Stop, Story, acts
from instep.cli.demo import example_folder, free_port, look_around, make_project
from instep.cli.stage import play
from instep.errors import InternalError, InvalidError, UnavailableError

SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def walk(*steps: Step) -> tuple[Act, ...]:
    return (Act(1, "A walk", steps),)


def test_a_value_is_learnt_from_output_and_used_in_a_later_line(tmp_path: Path) -> None:
    steps = (
        Run("python -c 'print(\"Opened change 17.\")'", learns={"number": CHANGE}),
        Run("python -c 'print({number} + 1)'", "It is one more."),
    )
    printed = "".join(play(walk(*steps), tmp_path))
    assert "$ python -c 'print(17 + 1)'\n18\n  -> It is one more.\n" in printed


def test_the_instant_at_which_a_command_ended_can_be_learnt(tmp_path: Path) -> None:
    steps = (Run("python --version", learns={"then": NOW}), Run("python -c 'print(\"{then}\")'"))
    printed = "".join(play(walk(*steps), tmp_path))
    assert "{then}" not in printed


def test_the_patterns_read_text_and_json_alike() -> None:
    import re

    for text in ('{"change": 12, "kind": "model"}', "Opened change 12 (model)", "change: 12"):
        assert re.search(CHANGE, text), text
    assert re.search(RUN, '"run": "run_019aa6c1-7b1e-7c43-9d52-1f0b6a3e8c11"')
    assert re.search(RECEIPT, "receipt rcp_019aa6c1-7b1e-7c43-9d52-1f0b6a3e8c11")


def test_an_exit_code_that_was_not_expected_ends_the_walk(tmp_path: Path) -> None:
    steps = (Run("python -c 'raise SystemExit(3)'"), Run('python -c \'open("later", "w")\''))
    with pytest.raises(InternalError) as caught:
        "".join(play(walk(*steps), tmp_path))
    assert caught.value.kind == "demo-failed"
    assert "exit code 3: expected 0" in caught.value.message
    assert not (tmp_path / "later").exists()


def test_a_command_that_should_be_refused_and_is_not_ends_the_walk(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="exit code 0: expected 5"):
        "".join(play(walk(Run("python --version", exits=5)), tmp_path))


def test_a_value_that_was_not_said_ends_the_walk(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="did not say its receipt"):
        "".join(play(walk(Run("python --version", learns={"receipt": RECEIPT})), tmp_path))


def test_a_service_is_waited_for_and_stopped(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    url = f"http://127.0.0.1:{(port := free_port())}"
    ask = f"python -c 'import urllib.request as r; print(r.urlopen(\"{url}\").status)'"
    printed = "".join(
        play(
            walk(Start(f"python server.py {port}", url), Run(ask), Stop("It has ended.")), tmp_path
        )
    )
    assert "200" in printed
    assert "It has ended." in printed
    with pytest.raises(InternalError):
        "".join(play(walk(Run(ask)), tmp_path))


def test_a_service_that_dies_is_told_with_its_output(tmp_path: Path) -> None:
    start = Start("python -c 'raise SystemExit(\"no room\")'", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UnavailableError, match="no room") as caught:
        "".join(play(walk(start), tmp_path))
    assert caught.value.kind == "demo-not-ready"


def test_as_json_an_act_is_one_line_with_what_each_command_printed(tmp_path: Path) -> None:
    (tmp_path / "say.py").write_text("import json, sys; print(json.dumps(sys.argv[1:]))")
    (line,) = play(walk(Run("python say.py hello")), tmp_path, as_json=True)
    assert json.loads(line) == {
        "act": 1,
        "title": "A walk",
        "commands": [{"line": "python say.py hello", "exit": 0, "output": ["hello", "--json"]}],
    }


def test_a_folder_with_files_is_not_walked_over(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("")
    with pytest.raises(InvalidError) as caught:
        make_project(tmp_path)
    assert caught.value.kind == "folder-not-empty"
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_demo_is_made_anew_where_one_is_already(tmp_path: Path) -> None:
    place = make_project(tmp_path / "flights-demo")
    (place / "lake").mkdir()
    config = (place / "instep.yaml").read_text()
    (place / "instep.yaml").write_text("lake: elsewhere\n")
    assert make_project(tmp_path / "flights-demo") == place
    assert not (place / "lake").exists()
    assert (place / "instep.yaml").read_text() == config


def test_what_to_type_in_the_project_of_a_demo_can_be_pasted(tmp_path: Path) -> None:
    place = make_project(tmp_path / "a demo")
    commands = [line.strip() for line in look_around(place).splitlines()[1:]]
    assert commands[0].startswith("cd ") and commands[1].endswith(" status")
    said = subprocess.run(
        ["sh", "-c", f"{commands[0]} && {commands[1]}"], capture_output=True, text=True, timeout=60
    )
    assert "no lake" in said.stderr.lower(), said


def test_the_walk_has_eleven_acts_and_uses_only_what_it_has_learnt() -> None:
    import re

    walked = acts(Story())
    assert [act.number for act in walked] == list(range(1, 12))
    known: set[str] = set()
    for act in walked:
        for step in act.steps:
            if isinstance(step, Run):
                assert set(re.findall(r"\{(\w+)\}", step.line)) <= known, step.line
                known |= set(step.learns)
    assert example_folder().name == "flights"
