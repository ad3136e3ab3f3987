"""Which files are condemned: found unreached, on record, and to go once nobody can need them.

The record is durable before anything is deleted, under a generation that no writer at work has
noted. So a writer that asks, and then looks whether a file is there, may rely on one that is not
condemned: one that is condemned later stays as long as that writer is at work.
Files that a client wrote on its own, and asks to have committed later, may be condemned long before
they are due. So of files of tables what is about to go is recorded as *doomed* first, also under a
new generation, and only then are writers looked for: no commit takes what is doomed, and it may go
at any moment, also by a request that was sent long ago.
Not here: who condemns what (`collection`, `tables.unnamed`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from instep.canonical import to_microseconds
from instep.history.locks import current_generation
from instep.history.retention import Condemned, Found
from instep.history.store import Transaction

DOOMED = -1_000_000
"""In the place of the days that a lake had lived, what is about to be deleted."""


def doomed_below(tx: Transaction, prefix: str) -> frozenset[str]:
    """Returns the names that begin with `prefix` of what may be deleted at any moment."""
    found = condemned_below(tx, prefix).values()
    return frozenset(one.name for one in found if one.lived == DOOMED)


def condemned_below(tx: Transaction, prefix: str) -> dict[str, Condemned]:
    """Returns what is condemned of the names that begin with `prefix`, by name."""
    rows = tx.rows(
        "select name, generation, lived, mark, size_bytes from condemned "
        "where name >= ? and name < ?",
        (prefix, prefix + "\x7f"),
    )
    return {str(row[0]): Condemned(*row) for row in rows}


def condemn(tx: Transaction, some: Iterable[Found], lived: int, at: datetime) -> int:
    """Records what is condemned, and returns under which generation; that is new in any case."""
    generation = current_generation(tx) + 1
    tx.execute(
        "insert into collections (generation, at) values (?, ?)", (generation, to_microseconds(at))
    )
    for found in some:
        forget_condemned(tx, [found.name])
        tx.execute(
            "insert into condemned (name, generation, lived, mark, size_bytes) "
            "values (?, ?, ?, ?, ?)",
            (found.name, generation, lived, found.mark, found.size_bytes),
        )
    return generation


def forget_condemned(tx: Transaction, names: Iterable[str]) -> None:
    """Strikes off what is needed after all, or gone."""
    for name in names:
        tx.execute("delete from condemned where name = ?", (name,))
