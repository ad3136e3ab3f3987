"""Starts a worker process for a run, asks it for one step after another, and ends it.

The worker sees an environment that is the same every time: no variables of the user's, UTC, one
thread for arithmetic, a fixed hash seed. What it prints is kept in the run's staging folder.
"""

from __future__ import annotations

import codecs
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from instep.errors import InternalError, UnavailableError
from instep.pipelines import messages
from instep.pipelines.compute import Progress

LONGEST_STEP_S = 24 * 3600
"""A step that takes longer is taken for hung."""

LONGEST_PRINTED_BYTES = 64 * 1024
"""How much of what a step prints in a second is shown; the log holds all of it."""

_POLL_S = 1.0
_CLOSE_S = 5.0
_KEPT = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "INSTEP_FAULT", "INSTEP_FAULT_TRACE")
_FIXED = {
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


class Worker:
    """One worker process; a context manager that ends it."""

    def __init__(self, code: Path, project: Path, log: Path) -> None:
        self._log = log
        self._buffer = b""
        self._read_bytes = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with log.open("ab") as out:
            # -P: the folder of the code is put on the path by the worker, for steps alone.
            # -u: what a step printed is in the log before its result is known.
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-Pu",
                    "-m",
                    "instep.pipelines.worker",
                    str(os.getpid()),
                    str(project),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                cwd=code,
                env={name: os.environ[name] for name in _KEPT if name in os.environ} | _FIXED,
            )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stdin, stdout = self._pipes()
        if kind is not None:
            self._process.kill()
        stdin.close()
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_CLOSE_S)
        stdout.close()

    def ask(
        self,
        request: messages.Message,
        progress: Progress,
        printed: Progress,
        longest_s: float = LONGEST_STEP_S,
    ) -> messages.Message:
        """Returns the result of one request, telling its progress and what it prints meanwhile.

        Raises:
            InstepError: what the worker answered.
            UnavailableError (kind "worker-died"): the process ended; perhaps memory ran out.
            UnavailableError (kind "step-too-long"): no answer in `longest_s`.
        """
        stdin, _ = self._pipes()
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        deadline = time.monotonic() + longest_s
        while time.monotonic() < deadline:
            try:
                line = self._line()
            finally:
                if text := self._newly_printed():
                    printed(text)
            if line is None:
                continue
            message: messages.Message = json.loads(line)
            if "progress" in message:
                progress(message["progress"])
            elif "error" in message:
                raise messages.parse_error(message["error"])
            else:
                return {"result": message["result"]}
        raise UnavailableError(
            f"A step gave no result in {longest_s / 3600:g} hours: expected it sooner. Make "
            "the slice or the step smaller.",
            kind="step-too-long",
        )

    def _line(self) -> bytes | None:
        _, stdout = self._pipes()
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([stdout], [], [], _POLL_S)
            if not ready:
                return None
            data = os.read(stdout.fileno(), 1 << 16)
            if not data:
                raise self._died()
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _newly_printed(self) -> str:
        """Returns what was printed since the last call; of more than the limit, the end."""
        with self._log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._read_bytes, size - LONGEST_PRINTED_BYTES))
            data = log.read(size - log.tell())
        self._read_bytes = size
        return self._decoder.decode(data)

    def _died(self) -> UnavailableError:
        try:
            code = self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            code = 0
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        cause = ""
        if code == -9:
            cause = " Perhaps memory ran out: make the slice smaller."
        elif code > 0:
            cause = " Perhaps a step calls os._exit: let it raise an error instead."
        return UnavailableError(
            f"The worker process of the run ended {how}: expected a result. Its last words are in "
            f"{self._log}.{cause} Run it again.",
            kind="worker-died",
            log=str(self._log),
        )

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._process.stdin is None or self._process.stdout is None:
            raise InternalError(
                "A worker was started without pipes: expected both. Report this as a fault of "
                "Instep.",
                kind="worker-failed",
            )
        return self._process.stdin, self._process.stdout
