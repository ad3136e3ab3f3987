"""Many processes commit at once, on one branch and over branches: no update is lost."""

from __future__ import annotations

import pytest
from commands import start_script
from databases import on_both

from instep.history.operations import is_whole, operations
from instep.history.refs import RefKind, create_ref, list_refs
from instep.history.repository import MAIN, Repository
from instep.history.seals import seals_after
from instep.history.store import Database, Transaction

SECONDS = 600
BRANCHES = 4

_WORK = """
import sys
from pathlib import Path
from instep.clock import system_clock
from instep.history.edits import Edit, publish
from instep.history.refs import get_ref
from instep.history.repository import open_repository
from instep.history.store import Database
from instep.history import operations

operations.SEALED_EVERY = 5
root, url, schema, ref, name, count = sys.argv[1:]
repo = open_repository(Path(root), system_clock, Database(url, schema) if url else None)
for number in range(int(count)):
    with repo.store.transaction(ref) as tx:
        changes = {f"table/{name}_{number}": {"n": number}}
        edit = Edit(get_ref(tx, ref).commit, changes, name, "m", "test")
        publish(tx, repo, ref, edit)
repo.store.close()
"""

few = pytest.param(4, 50, id="few")
many = pytest.param(16, 200, id="many", marks=pytest.mark.long)
on_one_branch_and_over_many = pytest.mark.parametrize("branches", [1, BRANCHES])


@on_both
@on_one_branch_and_over_many
@pytest.mark.parametrize(("processes", "commits"), [few, many])
def test_processes_lose_no_update_and_every_chain_is_whole(
    repo: Repository, database: Database | None, branches: int, processes: int, commits: int
) -> None:
    refs = [MAIN, *(f"b{number}" for number in range(1, branches))]
    head = repo.resolve(MAIN)
    with repo.store.transaction() as tx:
        for ref in refs[1:]:
            create_ref(tx, ref, RefKind.BRANCH, head, owner="ana", at=repo.clock())
    names = [f"p{number}" for number in range(processes)]
    place = [str(repo.root), database.url if database else "", database.schema if database else ""]
    children = [
        start_script(_WORK, *place, refs[number % branches], name, str(commits), seconds=SECONDS)
        for number, name in enumerate(names)
    ]
    ended = [child.done() for child in children]
    assert [one.code for one in ended] == [0] * processes, ended

    for number, ref in enumerate(refs):
        mine = names[number::branches]
        wanted = {f"table/{name}_{count}" for name in mine for count in range(commits)}
        assert repo.entries(repo.resolve(ref)).keys() == wanted
    with repo.store.reading() as tx:
        assert {ref.name for ref in list_refs(tx)} == set(refs)
        for number, ref in enumerate(refs):
            chain = operations(tx, ref)
            assert is_whole(chain)
            assert len(chain) == 1 + len(names[number::branches]) * commits
            assert chain[-1].after == repo.resolve(ref)
            assert [one.before for one in chain[1:]] == [one.after for one in chain[:-1]]
        check_seals(tx, refs)


def check_seals(tx: Transaction, refs: list[str]) -> None:
    """Holds that seals taken at the same time are one chain, each of heads that were there."""
    seals = seals_after(tx, 0, 10_000)
    assert seals
    assert [seal.sequence for seal in seals] == list(range(1, len(seals) + 1))
    assert [seal.previous for seal in seals] == ["", *(seal.id for seal in seals[:-1])]
    there = {ref: {one.sequence: one.id for one in operations(tx, ref)} for ref in refs}
    before = dict.fromkeys(refs, 0)
    for seal in seals:
        for ref, (sequence, identifier, *_) in seal.heads.items():
            assert isinstance(sequence, int)
            assert there[ref][sequence] == identifier
            assert sequence >= before[ref]
            before[ref] = sequence
