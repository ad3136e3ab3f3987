"""Writes the lake that later versions must open: `python tests/compat/make_lake.py`, once a format.

A lake that was released is never written again: a new format gets a new file beside it.
"""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "support"))

from lakes import fill_lake  # noqa: E402

from instep.cli.wholeness import check  # noqa: E402
from instep.history.locks import writing  # noqa: E402
from instep.history.repository import create_repository  # noqa: E402
from instep.history.seals import take_seal  # noqa: E402
from instep.history.store import FORMAT_VERSION  # noqa: E402
from instep.tables.compact import compact_state  # noqa: E402
from instep.tables.content import TableContent  # noqa: E402


class StepClock:
    """Each look is one second after the one before."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def make() -> None:
    """Makes a lake, and beside it what a reader must find in it."""
    name = f"lake-{FORMAT_VERSION}"
    with tempfile.TemporaryDirectory() as folder:
        repo = create_repository(Path(folder) / "lake", StepClock(), "ana")
        filled = fill_lake(repo)
        newest = repo.content(repo.resolve("main"), "table/sales")
        with writing(repo.root, repo.store):
            done = compact_state(repo, TableContent.from_content(newest), at=repo.clock())
            assert done.now is not None, done.why_not
        with repo.store.transaction() as tx:
            take_seal(tx, repo.clock(), with_records=True)
        told = {
            "commits": filled.commits,
            "main": repo.resolve("main"),
            "ideas": repo.resolve("ideas"),
            "v1": repo.resolve("v1"),
            "contents": {one: repo.entries(one) for one in filled.commits},
            "numbers": {
                filled.commits[0]: [1, 2, 3],
                filled.commits[2]: list(range(1, 10)),
                filled.commits[3]: list(range(4, 10)),
            },
            "checked": check(repo),
        }
        repo.store.close()
        with tarfile.open(HERE / f"{name}.tar.gz", "w:gz") as archive:
            for part in ("catalog.sqlite", "objects", "tables", "predictions"):
                archive.add(repo.root / part, part)
    text = json.dumps(told, indent=1, sort_keys=True)
    (HERE / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    make()
