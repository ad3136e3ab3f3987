"""The examples of docs/commands.md run, in their order, as they stand there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from commands import SECONDS, Running, run, start

from instep.cli.acts import RECEIPT, REFUSED, RUN
from instep.cli.demo import make_project

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
ADDRESS = r"http://127\.0\.0\.1:\d+"


def examples(text: str) -> list[str]:
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


@dataclass(slots=True)
class Shell:
    """Where the examples are typed: an id or an address stands for the last that was printed."""

    place: Path
    known: dict[str, str] = field(default_factory=dict)
    serving: Running | None = None

    def type(self, example: str) -> None:
        line, _, remark = example.partition("  # ")
        for pattern, last in self.known.items():
            line = re.sub(pattern, last, line)
        words = shlex.split(re.sub(r"--port \d+", "--port 0", line))
        match words:
            case ["instep", *rest, "&"]:
                self.serving = start(*rest, at=self.place, actor="")
                self._learn(self.serving.out.readline())
            case ["kill", "%1"]:
                assert self.serving is not None
                assert self.serving.stop().code == 0
            case ["instep", *rest]:
                done = run(*rest, at=self.place, actor="")
                expected = REFUSED if f"exit code {REFUSED}" in remark else 0
                assert done.code == expected, f"{line}: {done.code}\n{done.out}\n{done.err}"
                self._learn(done.out)
            case ["python", *rest]:
                self._learn(_printed(rest, self.place))
            case _:
                raise AssertionError(f"Nobody knows how to run {line}")

    def _learn(self, printed: str) -> None:
        for pattern in (RUN, RECEIPT, ADDRESS):
            if found := re.search(pattern, printed):
                self.known[pattern] = found[0]


def _printed(words: list[str], at: Path) -> str:
    """Returns what a program of the project's own prints."""
    done = subprocess.run(
        [sys.executable, *words], cwd=at, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_of_the_commands_page_runs(tmp_path: Path) -> None:
    lines = examples(PAGE.read_text(encoding="utf-8"))
    assert len(lines) > 30
    shell = Shell(make_project(tmp_path / "walk"))
    for line in lines:
        shell.type(line)
