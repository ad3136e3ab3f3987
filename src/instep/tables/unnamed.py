"""Files of tables that no state names, and how erasure removes them: condemned first, then deleted.

What a client of the catalog has written and not committed yet is among them: once it is doomed
no commit takes it (`history.condemned`), so that it does not matter when it goes. Who collects
garbage does the same slowly (`history.collection`); not both at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from instep.canonical import JsonObject
from instep.faults import reached
from instep.history.collection import still_there
from instep.history.condemned import DOOMED, condemn, forget_condemned
from instep.history.listing import files_below
from instep.history.objects import remove_empty_folders, sync_folder
from instep.history.places import drop_copy, on_s3
from instep.history.repository import Repository
from instep.history.retention import Found
from instep.history.s3 import remove_all
from instep.history.store import Transaction
from instep.tables.reach import files_of

States = Callable[[Transaction], Mapping[str, Sequence[JsonObject]]]
"""Every content of the tables in question, by folder, that a commit or a record names."""


def condemn_unnamed(repo: Repository, states: States) -> tuple[Sequence[Found], int]:
    """Condemns what is there and no state names, and returns it with the generation of that."""
    with repo.store.reading() as tx:
        folders = sorted(states(tx))
    listed = [
        found
        for folder in folders
        for below, entry in files_below(repo.root / "tables" / folder)
        for found in still_there([entry], f"tables/{folder}/{below}")
    ]
    with repo.store.reading() as tx:
        every = states(tx)
    going = _others(listed, _named(repo, every))
    reached("erase.rows.condemn.before")
    with repo.store.transaction() as tx:
        generation = condemn(tx, going, DOOMED, repo.clock())
    reached("erase.rows.condemn.after")
    return going, generation


def delete_unnamed(repo: Repository, states: States, condemned: Sequence[Found]) -> None:
    """Deletes what was condemned before the last writer that could know it ended.

    It is done alone, by what is named then: such a writer may have published it.
    """
    with repo.store.reading() as tx:
        every = states(tx)
    named = _named(repo, every)
    reached("erase.rows.delete.before")
    with repo.store.transaction() as tx:
        now = states(tx)
        if now != every:
            named |= _named(repo, now)
        going = [repo.root / found.name for found in _others(condemned, named)]
        reached("erase.rows.remove.before")
        remove_all([remote for path in going if (remote := on_s3(path))])
        for path in going:
            if on_s3(path):
                drop_copy(path)
            else:
                path.unlink(missing_ok=True)
        forget_condemned(tx, (found.name for found in condemned))
    for place in {path.parent for path in going}:
        sync_folder(place)
    for folder in every:
        remove_empty_folders(repo.root / "tables" / folder / "data")
    reached("erase.rows.delete.after")


def _named(repo: Repository, every: Mapping[str, Sequence[JsonObject]]) -> set[str]:
    return {
        f"tables/{folder}/{name}"
        for folder, contents in every.items()
        for name in files_of(repo, folder, contents)
    }


def _others(listed: Sequence[Found], named: Collection[str]) -> list[Found]:
    open_ended = tuple(name[:-1] for name in named if name.endswith("*"))
    return [
        found
        for found in listed
        if found.name not in named and not found.name.startswith(open_ended)
    ]
