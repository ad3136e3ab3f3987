"""A real, empty lake in a temporary folder, and a clock that a test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from instep.history.repository import Repository, create_repository


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


@pytest.fixture
def repo(tmp_path: Path, clock: StepClock) -> Repository:
    return create_repository(tmp_path / "lake", clock, "ana")
