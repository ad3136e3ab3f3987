"""What an erasure of rows leaves alone is named."""

from __future__ import annotations

from instep.cli.remains import remains_of
from instep.history.repository import Repository


def test_a_digest_that_several_arrivals_have_is_named_once(repo: Repository) -> None:
    with repo.store.transaction() as tx:
        tx.execute(
            "insert into changes (number, kind, state, title, author, opened_at, base_commit, "
            "head_commit, evidence, evidence_digest, why) "
            "values (1, 'arrival', 'merged', 't', 'ana', 1, 'c', 'c', '{}', 'e', '')"
        )
        for number, digest in enumerate(("a" * 64, "a" * 64, "b" * 64)):
            tx.execute(
                "insert into arrivals (id, change, table_name, source, file_name, file_digest, "
                "file_size_bytes, rows, quarantined, held_for) "
                "values (?, 1, 'sales', 's', 'f', ?, 1, 1, 0, '')",
                (str(number), digest),
            )
    (told,) = (one for one in remains_of(repo, "sales") if "files that arrived" in one)
    assert told.startswith(f"2 files that arrived for it are kept ({'a' * 12}, {'b' * 12})")
