"""A worker answers, sees nothing of the user's environment, and is never waited for without end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pipeline_builders import quiet

from instep.errors import InternalError, UnavailableError
from instep.pipelines.supervise import Worker


def started(folder: Path) -> Worker:
    code = folder / "code"
    code.mkdir()
    return Worker(code, folder, folder / "log")


def test_an_act_that_does_not_exist_is_a_fault_of_instep(tmp_path: Path) -> None:
    with started(tmp_path) as worker, pytest.raises(InternalError) as caught:
        worker.ask({"act": "dance"}, quiet, quiet)
    assert caught.value.kind == "unknown-act"


def test_a_step_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught, started(tmp_path) as worker:
        worker.ask({"act": "dance"}, quiet, quiet, longest_s=0)
    assert caught.value.kind == "step-too-long"


def test_a_worker_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from instep.pipelines.supervise import Worker\n"
        f"worker = Worker(Path({str(tmp_path)!r}), Path('/'), Path({str(tmp_path)!r}) / 'log')\n"
        "print(worker._process.pid, flush=True)\nsys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    handle = os.pidfd_open(worker)
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    import select

    ready, _, _ = select.select([handle], [], [], 10)
    os.close(handle)
    assert ready, "the worker outlived its parent"
