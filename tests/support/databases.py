"""The mark of tests that promise the same behaviour of every catalog database."""

from __future__ import annotations

import pytest

on_both = pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
