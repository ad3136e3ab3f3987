"""The forks in which tests run commands begin with what a process begins with."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from commands import WARM, run


def test_a_fork_has_one_thread_and_no_connection() -> None:
    ours, theirs = WARM.Pipe(duplex=False)
    process = WARM.Process(target=_tell, args=(theirs,), daemon=True)
    process.start()
    threads, opened = ours.recv()
    process.join()
    assert threads == 1
    assert not [one for one in opened if one.startswith("socket:")]


def _tell(to: Connection) -> None:
    here = Path("/proc/self")
    threads = len(list((here / "task").iterdir()))
    opened = [str(one.readlink()) for one in (here / "fd").iterdir() if one.is_symlink()]
    to.send((threads, opened))


def test_a_fork_has_the_variables_that_there_are_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "instep.yaml").write_text("lake: {folder: lake, database: {secret: WHERE}}\n")
    monkeypatch.setenv("WHERE", "nowhere")
    assert run("init", "--json", at=tmp_path).json["error"]["kind"] == "bad-database-address"
    monkeypatch.delenv("WHERE")
    assert run("init", "--json", at=tmp_path).json["error"]["kind"] == "no-such-secret"
