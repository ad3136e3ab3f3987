"""The examples of docs/commands.md run, in their order, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

from instep.cli.acts import RECEIPT, REFUSED, RUN, Act, Run, Start, Step, Stop
from instep.cli.demo import free_port, project
from instep.cli.stage import play

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
PORT = "8731"


def steps(text: str, port: int) -> tuple[Step, ...]:
    """Returns the commands of a page; an id stands for the last one that was printed."""
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line[2:] for block in blocks for line in block.splitlines()]
    found: list[Step] = []
    for line in lines:
        line = re.sub(RUN, "{run}", re.sub(RECEIPT, "{receipt}", line)).replace(PORT, str(port))
        words, _, remark = line.partition("  # ")
        if words.endswith("&"):
            found.append(Start(words.rstrip(" &"), f"http://127.0.0.1:{port}/health"))
        elif words == "kill %1":
            found.append(Stop())
        else:
            learns = {}
            if words.startswith("instep run"):
                learns = {"run": RUN}
            elif words.startswith("python send.py"):
                learns = {"receipt": RECEIPT}
            exits = REFUSED if f"exit code {REFUSED}" in remark else 0
            found.append(Run(words.strip(), exits=exits, learns=learns))
    return tuple(found)


def test_every_example_of_the_commands_page_runs(tmp_path: Path) -> None:
    page = steps(PAGE.read_text(encoding="utf-8"), free_port())
    assert len(page) > 30
    with project(tmp_path / "walk", keep=True) as place:
        printed = "".join(play((Act(1, "docs/commands.md", page),), place))
    assert "The whole way took" in printed
