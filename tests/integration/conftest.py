"""What the tests of whole commands share: a catalog behind a wire."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from campaign import DATABASE, Catalog
from wire import Wire

from instep.history.store import Database


@pytest.fixture
def wire(postgres_url: str) -> Iterator[Wire]:
    made = Wire(f"{postgres_url.partition('host=')[2]}/.s.PGSQL.5432")
    yield made
    made.close()


@pytest.fixture
def catalog(postgres_url: str, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """A schema of its own; commands reach it over the wire, the test itself beside it."""
    monkeypatch.setenv(DATABASE, postgres_url)
    address = f"postgresql://postgres@127.0.0.1:{wire.port}/postgres"
    made = Database(postgres_url, f"lake_{uuid.uuid4().hex}")
    return Catalog(made, f"{address}?sslmode=disable&gssencmode=disable")
