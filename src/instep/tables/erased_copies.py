"""Drops this machine's copies of what was erased from a lake on S3, by whichever machine.

It is looked for when a lake is opened; what was seen to is noted in `cache/erased`, which may be
removed at any time. Copies that a process brings here at that very moment are found by the next
`instep gc` of this machine, which drops all that is on S3 no more.
"""

from __future__ import annotations

from instep.history.erasure import erased_digests
from instep.history.objects import write_durably
from instep.history.places import drop_copies, on_s3
from instep.history.repository import Repository
from instep.tables.row_erasures import erased_tables


def forget_erased(repo: Repository) -> None:
    """Drops the copies of what was erased since this was last done."""
    if on_s3(repo.root) is None:
        return
    with repo.store.reading() as tx:
        digests, tables = erased_digests(tx), erased_tables(tx)
    noted = repo.here / "cache" / "erased"
    done = set(noted.read_text().split()) if noted.exists() else set()
    new = (digests | tables.keys()) - done
    for digest in new & digests:
        drop_copies(repo.objects.note(digest).parent, [f"{digest}*"])
    for identifier in new & tables.keys():
        # Which files went is on record, but not which manifests told of them: none is kept.
        for uuid in tables[identifier]:
            drop_copies(repo.root / "tables" / uuid, ["**/*"])
    if new:
        write_durably(noted, "\n".join(sorted(done | new)).encode())
