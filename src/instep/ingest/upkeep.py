"""Looks after a table on main once an arrival was merged into it; never fails what it follows."""

from __future__ import annotations

from functools import partial

from instep.history.repository import MAIN, Repository
from instep.pipelines.records import is_kept_by_run
from instep.tables import upkeep
from instep.tables.compact import Say


def look_after(repo: Repository, table: str, say: Say = lambda text: None) -> str:
    """Compacts a bounded piece of a table that many small arrivals went to; returns what was done.

    No lock is held, for a compaction takes its own.
    """
    return upkeep.look_after(repo, MAIN, table, partial(is_kept_by_run, repo), say)
