"""How long a user waits for a command: the whole process, median of nine, in seconds."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.figures import FOLDER, Figure, say
from bench.processes import INSTEP, run

ROUNDS = 9


def help_() -> Iterator[Figure]:
    yield _timed("cli-help", ["--help"], Path.cwd(), 0.2)


def status() -> Iterator[Figure]:
    yield _timed("cli-status", ["status"], _walked(), 0.4)


def plan_noop() -> Iterator[Figure]:
    yield _timed("cli-plan-noop", ["plan", "delay"], _walked(), 0.7)


def _timed(bench: str, arguments: Sequence[str], folder: Path, target: float) -> Figure:
    command = [INSTEP, *arguments]
    run(command, folder)  # once before, so that files are in the page cache
    seconds = sorted(run(command, folder).seconds for _ in range(ROUNDS))
    more = {"least": seconds[0], "most": seconds[-1], "rounds": ROUNDS}
    return Figure(bench, statistics.median(seconds), "s", target, "at most", more)


def _walked() -> Path:
    """Returns a project after the whole walk, made again once the sources have changed."""
    folder = FOLDER / "walk"
    done = FOLDER / "walk.done"
    changed_at = max(file.stat().st_mtime for file in Path("src").rglob("*.py"))
    if not done.exists() or done.stat().st_mtime < changed_at:
        say("Walking once, to have a project to look at.")
        FOLDER.mkdir(exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        run([INSTEP, "demo", "--fast", "--folder", str(folder)], FOLDER)
        done.touch()
    return folder
