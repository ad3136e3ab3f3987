"""What refs hold is looked at once: a later look sees what has moved since, and no more."""

from __future__ import annotations

import garbage
from databases import on_both

from instep.history.edits import Edit, publish
from instep.history.held import Held
from instep.history.repository import Repository


def _look(held: Held, repo: Repository) -> set[tuple[str, str]]:
    with repo.store.reading() as tx:
        return {(one.ref, one.key) for one in held.look(tx)}


@on_both
def test_all_is_seen_at_first_and_then_what_moved(repo: Repository) -> None:
    keys = {f"table/t{number}" for number in range(2_000)}
    with repo.store.transaction("main") as tx:
        base = repo.resolve("main")
        publish(tx, repo, "main", Edit(base, {key: {"n": 1} for key in keys}, "ana", "m", "test"))
    garbage.branch(repo, "try")
    held = Held(repo.nodes)
    assert _look(held, repo) == {("main", key) for key in keys}
    assert _look(held, repo) == set()
    garbage.commit(repo, "try", table__t7={"n": 2})
    found = _look(held, repo)
    assert ("try", "table/t7") in found
    assert len(found) <= 64, "a leaf of the tree, and no more"
    garbage.branch(repo, "other", "try")
    assert _look(held, repo) == set()
