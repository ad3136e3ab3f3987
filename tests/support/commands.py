"""Whole commands, each a process of its own that shares nothing; no interpreter starts for it.

A command is a fork of one warm process, which has imported what commands import and opened nothing.
That begins with the first command and ends with this process. What an interpreter does from its
beginning is seen where `python -m instep` and the console script are started as they are. A script
is what `python -c` takes; it is run like a command.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from instep import faults
from instep.cli.main import COMMANDS

Ask = Callable[[str], str]
"""Asks the server at an address, and returns what it answered; "" where it gave no answer."""

SECONDS = 120
"""How long a command may take before it is ended."""

KILLED = -9
"""How a command ends that was killed at a named place."""

_COMMAND = "from instep.cli.main import main\nmain()\n"

WARM = multiprocessing.get_context("forkserver")
"""Starts the forks, for every other test that needs a process too: the warm process is one."""

WARM.set_forkserver_preload(
    [
        *("numpy", "pandas", "pyarrow.parquet", "duckdb", "sqlglot", "psycopg"),
        *("fastapi", "uvicorn", "skops.io", "sklearn.tree"),
        *("instep.lake", "instep.ingest.arrive", "instep.changes.revert"),
        *sorted({entry.place.partition(":")[0] for entry in COMMANDS.values()}),
    ]
)


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended; a signal is a negative code. `answer` is what a server said before."""

    code: int
    out: str
    err: str
    answer: str = ""

    @property
    def json(self) -> Any:  # the shape is the command's
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Running:
    """A command that was begun, and what it prints."""

    process: ForkServerProcess
    out: IO[str]
    err: IO[str]

    @property
    def is_running(self) -> bool:
        return self.process.is_alive()

    def done(self, ask: Ask | None = None) -> Done:
        """Waits for its end. A server is asked once it is ready, and then told to stop."""
        with self.out, self.err:
            out, answer = ask_once(self.out, self.process.terminate, ask) if ask else ("", "")
            out += self.out.read()
            self.process.join()
            code = self.process.exitcode
            assert code is not None
            return Done(code, out, self.err.read(), answer)

    def stop(self) -> Done:
        """Tells it to end, as systems do, and waits for that."""
        self.process.terminate()
        return self.done()

    def kill(self) -> None:
        """Ends it, whatever it does."""
        self.process.kill()
        self.process.join()
        self.out.close()
        self.err.close()


def start(
    *words: str,
    at: Path,
    actor: str = "ana",
    fault: str = "",
    trace: str = "",
    env: Mapping[str, str] | None = None,
    seconds: int = SECONDS,
    code: str = _COMMAND,
) -> Running:
    """Begins a command in the project folder `at`; it is ended after `seconds`, where not 0."""
    # A run's own worker is another process, which reads these.
    faulty = {"INSTEP_FAULT": fault, "INSTEP_FAULT_TRACE": trace}
    variables = {**os.environ, "INSTEP_ACTOR": actor, **faulty, **(env or {})}
    ours, theirs = WARM.Pipe(duplex=False)
    err = NamedTemporaryFile("r", encoding="utf-8")  # noqa: SIM115, closed by `done`
    process = WARM.Process(
        target=_run, args=(code, words, at, variables, theirs, err.name, seconds), daemon=True
    )
    process.start()
    theirs.close()
    with ours:
        return Running(process, os.fdopen(os.dup(ours.fileno()), encoding="utf-8"), err)


def run(
    *words: str,
    at: Path,
    actor: str = "ana",
    fault: str = "",
    env: Mapping[str, str] | None = None,
) -> Done:
    """Runs one command to its end."""
    return start(*words, at=at, actor=actor, fault=fault, env=env).done()


def start_script(
    code: str, *words: str, fault: str = "", trace: str = "", seconds: int = SECONDS
) -> Running:
    """Begins a script where this process is; the words are its `sys.argv[1:]`."""
    return start(*words, at=Path.cwd(), fault=fault, trace=trace, seconds=seconds, code=code)


def run_script(code: str, *words: str, fault: str = "", trace: str = "") -> Done:
    """Runs a script to its end."""
    return start_script(code, *words, fault=fault, trace=trace).done()


def must(*words: str, at: Path, actor: str = "ana", env: Mapping[str, str] | None = None) -> Done:
    """Runs one command that is expected to succeed."""
    done = run(*words, at=at, actor=actor, env=env)
    assert done.code == 0, f"{words}: {done.code}\n{done.out}\n{done.err}"
    return done


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


def _run(
    code: str,
    words: tuple[str, ...],
    at: Path,
    variables: dict[str, str],
    out: Connection,
    err: str,
    seconds: int,
) -> None:
    signal.alarm(seconds)
    for number, file in ((0, os.open(os.devnull, os.O_RDONLY)), (2, os.open(err, os.O_WRONLY))):
        os.dup2(file, number)
        os.close(file)
    os.dup2(out.fileno(), 1)
    out.close()
    os.chdir(at)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["instep", *words]
    faults.arm(variables["INSTEP_FAULT"], variables["INSTEP_FAULT_TRACE"])
    exec(code, {"__name__": "__main__"})
