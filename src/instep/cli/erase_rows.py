"""`instep erase TABLE --where`: rows leave every commit, and what is left elsewhere is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from instep.canonical import Json, JsonObject
from instep.cli.output import counted
from instep.cli.progress import say
from instep.cli.remains import remains_of
from instep.clock import format_instant
from instep.errors import NotFoundError
from instep.history.naming import node_rows, take_snapshot
from instep.history.refs import list_refs
from instep.history.repository import MAIN, Repository
from instep.history.store import Transaction
from instep.lake import retention_of
from instep.pipelines.lineage import check_condition
from instep.tables.content import TableContent
from instep.tables.erase import Found, erase_rows, find_rows
from instep.tables.row_erasures import RowErasure


@dataclass(frozen=True, slots=True)
class ErasedRows:
    """The record of rows that were erased."""

    erasure: RowErasure

    def to_json(self) -> Json:
        return self.erasure.to_json()

    def to_text(self) -> str:
        one = self.erasure
        first = (
            f"{counted(one.rows, 'row')} of {one.table} in {counted(one.files, 'file')} of "
            f"{counted(one.states, 'state')} are erased, by {one.actor} at "
            f"{format_instant(one.at)}: {one.why} ({one.id})"
        )
        return "\n".join([first, *_left(one.remains)])


@dataclass(frozen=True, slots=True)
class WouldErase:
    """What an erasure would do."""

    table: str
    found: Found
    remains: tuple[str, ...]

    def to_json(self) -> Json:
        return {
            "dry_run": True,
            "table": self.table,
            "rows": self.found.rows,
            "files": self.found.files,
            "states": self.found.states,
            "remains": list(self.remains),
        }

    def to_text(self) -> str:
        found = self.found
        first = (
            f"{counted(found.rows, 'row')} of {self.table} in {counted(found.files, 'file')} "
            f"would be erased; {counted(found.states, 'state')} would get other files. Nothing "
            "was changed."
        )
        return "\n".join([first, *_left(self.remains)])


def erased_rows(
    repo: Repository, table: str, where: str, why: str, actor: str, is_dry: bool
) -> ErasedRows | WouldErase:
    """Erases rows of a table, or says what that would do.

    Raises:
        NotFoundError (kind "no-such-key"): no commit has such a table.
        InvalidError (kinds "sql-reads-clock", "sql-random", "sql-reads-file",
            "sql-reads-session"): the condition depends on more than the rows.
        InvalidError (kinds "bad-sql", "sql-failed"): the condition cannot be evaluated.
        UnavailableError (kinds "writers-at-work", "collecting").
    """
    newest = _newest(repo, table)
    check_condition(where, "--where")
    states = _states_of(repo, table)
    remains = remains_of(repo, table)
    if is_dry:
        return WouldErase(table, find_rows(repo, states, newest, where), remains)
    done = erase_rows(repo, table, states, newest, where, actor, why, remains, say)
    return ErasedRows(done)


def _newest(repo: Repository, table: str) -> TableContent:
    """Returns the state whose columns a condition names: main's, or that of the first ref."""
    with repo.store.reading() as tx:
        names = [MAIN, *(ref.name for ref in list_refs(tx))]
        for name in names:
            found = repo.find(repo.resolve(name), f"table/{table}")
            if found is not None:
                return TableContent.from_content(found)
    raise NotFoundError(
        f'No branch, tag or environment has a table "{table}": expected one of those that '
        '"instep show" lists. Nothing was erased. Correct the name.',
        kind="no-such-key",
        key=f"table/{table}",
    )


def _states_of(
    repo: Repository, table: str
) -> Callable[[Transaction], Mapping[str, Sequence[JsonObject]]]:
    """Returns what tells every state of the tables that ever had this name, by folder."""
    rooms = retention_of(repo)

    def states(tx: Transaction) -> Mapping[str, Sequence[JsonObject]]:
        folders = set()
        for _, body in node_rows(tx):
            content = json.loads(body).get("leaf", {}).get(f"table/{table}")
            if content is not None:
                folders.add(rooms.reach.folder(content))
        named = take_snapshot(tx, rooms, say).tables
        return {folder: found for folder, found in named.items() if folder in folders}

    return states


def _left(remains: Sequence[str]) -> list[str]:
    return ["Not reached by this:", *(f"  {one}" for one in remains)]
