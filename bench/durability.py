"""What a commit costs the disk: how many fsyncs it makes, and how long one takes here."""

from __future__ import annotations

import os
import shutil
import statistics
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from bench.figures import Extra
from bench.writer import begin_writer

if TYPE_CHECKING:
    from instep.history.repository import Repository

COMMITS = 100
SYNCS = 200
BLOCK_BYTES = 4096


def durability(repo: Repository) -> Extra:
    """Returns the fsyncs of one commit to main (None where nobody counts them), and their price."""
    counted = _by_kernel(repo) if hasattr(repo.store, "path") else _by_postgres(repo)
    return {
        "fsyncs_per_commit": None if counted is None else counted / COMMITS,
        "disk_fsync_ms": _fsync_ms(repo.root),
    }


def _by_kernel(repo: Repository) -> int | None:
    strace = shutil.which("strace")
    if strace is None:
        return None
    counts = repo.root / "fsyncs"
    traced = [strace, "-f", "-c", "-e", "trace=fsync,fdatasync", "-o", str(counts)]
    _write(repo, traced)
    rows = [line.split() for line in counts.read_text().splitlines()]
    return sum(int(row[3]) for row in rows if row and row[-1] in ("fsync", "fdatasync"))


def _by_postgres(repo: Repository) -> int | None:
    before = _wal_fsyncs(repo)
    _write(repo, [])
    after = _wal_fsyncs(repo)
    return None if before is None or after is None else after - before


def _write(repo: Repository, before: list[str]) -> None:
    writer = begin_writer(
        repo, "main", COMMITS, 1_000_000 + uuid.uuid4().int % 1_000_000, before=before
    )
    writer.communicate()
    assert writer.returncode == 0


def _wal_fsyncs(repo: Repository) -> int | None:
    """Returns the fsyncs of the log since the server began; PostgreSQL 18 tells them."""
    with repo.store.reading() as tx:
        settings = tx.row(
            "select current_setting('fsync'), current_setting('synchronous_commit'), "
            "current_setting('server_version_num')"
        )
    assert settings is not None and settings[:2] == ("on", "on"), f"not durable: {settings}"
    if int(settings[2]) < 180_000:
        return None
    with repo.store.reading() as tx:
        row = tx.row("select coalesce(sum(fsyncs), 0) from pg_stat_io where object = 'wal'")
    return int(row[0]) if row else None


def _fsync_ms(folder: Path) -> float:
    path = folder / "probe"
    times = []
    handle = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        for _ in range(SYNCS):
            os.pwrite(handle, os.urandom(BLOCK_BYTES), 0)
            start = time.perf_counter()
            os.fdatasync(handle)
            times.append((time.perf_counter() - start) * 1e3)
    finally:
        os.close(handle)
        path.unlink()
    return statistics.median(times)
