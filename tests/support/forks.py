"""Whole commands in forked children of one warm process: no interpreter starts, nothing is shared.

The process has imported what commands import, but opened nothing. Each command runs in a fork of
it, in its own folder, with its own fault (see `instep.faults`), and ends as a process does.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

Ask = Callable[[str], str]
"""Asks the server at an address, and returns what it answered; "" where it gave no answer."""

SECONDS = 120
"""How long a command may take before it is ended."""

_WARM = ("numpy", "pandas", "pyarrow", "duckdb", "sqlglot", "psycopg", "instep.ingest.arrive")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended; a signal is a negative code. `answer` is what a server said before."""

    code: int
    out: str
    err: str
    answer: str = ""

    @property
    def json(self) -> Any:  # the shape is the command's
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Forks:
    """The warm process."""

    process: subprocess.Popen[str]
    folder: Path

    def instep(
        self,
        *words: str,
        at: Path,
        actor: str = "ana",
        fault: str = "",
        trace: str = "",
        env: dict[str, str] | None = None,
        ask: Ask | None = None,
    ) -> Ended:
        """Runs one command in the project folder `at` to its end.

        With `ask` it is a server: it is asked when it is ready, and then told to stop.
        """
        given = {"words": words, "at": str(at), "fault": fault, "trace": trace}
        variables = {**(env or {}), "INSTEP_ACTOR": actor}
        # A run's own worker is another process, which reads these.
        variables |= {"INSTEP_FAULT": fault, "INSTEP_FAULT_TRACE": trace}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        (self.folder / "out").unlink(missing_ok=True)
        if ask is not None:
            os.mkfifo(self.folder / "out")
        self.process.stdin.write(json.dumps({**given, "env": variables}) + "\n")
        self.process.stdin.flush()
        number = int(self.process.stdout.readline())
        out, answer = "", ""
        if ask is not None:
            with (self.folder / "out").open() as told:
                out, answer = ask_once(told, lambda: os.kill(number, signal.SIGTERM), ask)
        code = int(self.process.stdout.readline())
        if ask is None:
            out = (self.folder / "out").read_text()
        return Ended(code, out, (self.folder / "err").read_text(), answer)

    def must(self, *words: str, at: Path, actor: str = "ana", **env: str) -> Ended:
        """Runs one command that is expected to succeed."""
        ended = self.instep(*words, at=at, actor=actor, env=env)
        assert ended.code == 0, f"{words}: {ended}"
        return ended


def ask_once(told: IO[str], stop: Callable[[], None], ask: Ask) -> tuple[str, str]:
    """Waits until a server tells its address, asks it and stops it.

    Returns all that it told, and what it answered.
    """
    ready, answer = told.readline(), ""
    if ready and (url := json.loads(ready).get("url")):
        answer = ask(url)
        with suppress(ProcessLookupError):
            stop()
    return ready + told.read(), answer


@contextmanager
def started(folder: Path) -> Iterator[Forks]:
    """Starts a warm process; what its commands print passes through `folder`."""
    process = subprocess.Popen(
        [sys.executable, __file__, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Forks(process, folder)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def _serve(folder: Path) -> None:
    from instep.cli.main import COMMANDS

    for name in (*_WARM, *(entry.place.partition(":")[0] for entry in COMMANDS.values())):
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _run(json.loads(line), folder)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(given: Any, folder: Path) -> None:  # what `Forks.instep` wrote
    from instep import faults
    from instep.cli.main import main

    code = 1
    signal.alarm(SECONDS)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        os.chdir(given["at"])
        os.environ.update(given["env"])
        sys.argv = ["instep", *given["words"]]
        faults.arm(given["fault"], given["trace"])
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
