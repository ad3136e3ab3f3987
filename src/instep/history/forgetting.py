"""Forgetting commits that no root reaches, with what only they hold of the tree.

The last of what a collection does, and the first step to the end of their files: these are named,
and so stay, until their commits are gone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from instep.canonical import to_microseconds
from instep.faults import reached
from instep.history import tree
from instep.history.locks import current_generation
from instep.history.naming import node_rows, parents_of_all, reached_from, roots
from instep.history.repository import Repository
from instep.history.retention import Records
from instep.history.store import Transaction

COMMIT = "commit/"
"""Begins the name under which a commit is condemned."""


def forgotten_commits(tx: Transaction) -> frozenset[str]:
    """Returns the commits that were collected: records may name them still."""
    return frozenset(str(row[0]) for row in tx.rows("select id from forgotten_commits"))


def forget(repo: Repository, records: Records, wanted: Sequence[str]) -> None:
    """Removes commits that still no root reaches, with what only they hold of the tree."""
    with repo.store.reading() as tx:
        children = {digest: tree.children(json.loads(body)) for digest, body in node_rows(tx)}
    with repo.store.transaction() as tx:
        parents = parents_of_all(tx)
        staying = parents.keys() - set(wanted) | roots(tx, records(tx))
        going = sorted(set(wanted) - reached_from(parents, staying))
        if not going:
            return
        at, generation = to_microseconds(repo.clock()), current_generation(tx)
        for identifier in going:
            tx.execute("delete from commits where id = ?", (identifier,))
            tx.execute("delete from condemned where name = ?", (f"{COMMIT}{identifier}",))
            tx.execute(
                "insert into forgotten_commits (id, generation, at) values (?, ?, ?)",
                (identifier, generation, at),
            )
        _drop_unused_nodes(tx, repo, children)
        reached("gc.forget.before")
    reached("gc.forget.after")


def _drop_unused_nodes(
    tx: Transaction, repo: Repository, children: dict[str, tuple[str, ...]]
) -> None:
    """Removes the nodes that no commit reaches; `children` are those of every older node."""
    waiting, used = [str(row[0]) for row in tx.rows("select tree from commits")], set[str]()
    while waiting:
        digest = waiting.pop()
        if digest not in used:
            used.add(digest)
            below = children.get(digest)
            waiting += tree.children(repo.nodes.load(digest)) if below is None else below
    for digest in sorted(children.keys() - used):
        tx.execute("delete from nodes where digest = ?", (digest,))
