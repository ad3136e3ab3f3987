"""A bakery on the empty lake of each test."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_builders import Bakery, make_bakery

from instep.history.repository import Repository


@pytest.fixture
def bakery(tmp_path: Path, repo: Repository) -> Bakery:
    return make_bakery(tmp_path, repo)
