"""Reads the whole of a lake's history and yields what is wrong, the first thing first.

Refs and the ends of their chains are read together, once; everything after is what these reach,
read in short transactions, so that writers are not held up and what they add is not looked at.
What a content means is not known here: `visit` checks it, once for each content.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from instep.canonical import JsonObject, canonical_bytes
from instep.findings import Finding
from instep.history.ancestry import place_after
from instep.history.operations import operation_rows
from instep.history.repository import Repository
from instep.history.seals import (
    KEPT,
    REF_COLUMNS,
    lake_id,
    last_seal,
    record_digests,
    records_digest,
    sealed_after,
    seals_after,
)
from instep.history.seen import Seen
from instep.history.sqlite import SqliteStore
from instep.history.store import Row
from instep.history.tokens import forgotten_before
from instep.history.verify import (
    check_commit,
    check_deleted,
    check_node,
    check_operations,
    check_records,
    check_ref,
    check_seal,
    check_sealed_head,
    damage,
)

Visit = Callable[[str, JsonObject, str], Iterator[Finding]]
"""Checks a content: its key, itself, and in words which commit of which ref leads to it."""

_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Examination:
    """One reading of a lake, and how many things of each kind it has checked."""

    repo: Repository
    visit: Visit
    checked: Counter[str]
    say: Callable[[str], None] = lambda text: None
    _seen: Seen = field(default_factory=Seen, repr=False)

    def findings(self) -> Iterator[Finding]:
        """Yields what is wrong with the database, the chains, the seals and all they reach."""
        yield from self._integrity()
        with self.repo.store.reading() as tx:
            refs = {
                str(row[0]): row for row in tx.rows(f"select {REF_COLUMNS} from refs order by name")
            }
            chains = tx.rows("select ref, max(sequence) from operations group by ref order by ref")
            seal = last_seal(tx)
        yield from self._chains(refs, {str(ref): int(last) for ref, last in chains})
        yield from self._seals(refs, seal.sequence if seal else 0)
        yield from self._lake()
        yield from self._records()
        yield from self._refs(refs)

    def contents(self) -> Iterator[Finding]:
        """Visits every content that a ref reaches, and checks the commits and nodes on the way."""
        with self.repo.store.reading() as tx:
            refs = {str(row[0]): row for row in tx.rows(f"select {REF_COLUMNS} from refs")}
        yield from self._refs(refs)

    def _refs(self, refs: dict[str, Row]) -> Iterator[Finding]:
        for name, row in sorted(refs.items(), key=lambda one: (one[0] != "main", one[0])):
            yield from self._commits(str(row[2]), name)

    def _integrity(self) -> Iterator[Finding]:
        if not isinstance(self.repo.store, SqliteStore):
            return
        with self.repo.store.reading() as tx:
            for (told,) in tx.rows("pragma integrity_check(1)"):
                if told != "ok":
                    yield damage("damaged-database", "catalog.sqlite", f"SQLite says: {told}")

    def _chains(self, refs: dict[str, Row], chains: dict[str, int]) -> Iterator[Finding]:
        for ref, last in chains.items():
            previous: Row | None = None
            while previous is None or previous[2] < last:
                with self.repo.store.reading() as tx:
                    after = previous[2] if previous else 0
                    page = operation_rows(tx, ref, after, min(last, after + _PAGE))
                yield from check_operations(ref, page, previous)
                self.checked["operations"] += len(page)
                self.say(f"checking operations, {self.checked['operations']:,} so far")
                if not page:
                    yield damage("broken-chain", f'ref "{ref}"', "Its chain ends early.")
                    break
                previous = page[-1]
            row = refs.get(ref)
            found = (
                check_ref(row, previous) if row else check_deleted(ref, previous) if previous
                else None
            )  # fmt: skip
            if found:
                yield found
        for name in refs.keys() - chains.keys():
            found = check_ref(refs[name], None)
            if found:
                yield found

    def _seals(self, refs: dict[str, Row], last: int) -> Iterator[Finding]:
        previous = None
        while previous is None or previous.sequence < last:
            with self.repo.store.reading() as tx:
                page = seals_after(tx, previous.sequence if previous else 0, 1)
                if not page:
                    break
                seal = page[0]
                entries: dict[tuple[Any, Any], str] = {  # columns of the rows
                    (ref, head[0]): str(row[0])
                    for ref, head in seal.heads.items()
                    for row in tx.rows(
                        "select id from operations where ref = ? and sequence = ?",
                        (ref, head[0]),  # type: ignore[arg-type]  # checked with the seal
                    )
                }
                records = records_digest(tx, seal.sequence)
            broken = check_seal(seal, previous)
            if broken:
                yield broken
            for ref, head in seal.heads.items():
                found = check_sealed_head(
                    seal, ref, head, entries.get((ref, head[0])), refs.get(ref)
                )
                if found:
                    yield found
            if records != seal.records:
                yield damage(
                    "changed-seal",
                    f"seal {seal.sequence}",
                    "The records that it names are not those that were sealed.",
                )
            self.checked["seals"] += 1
            self.say(f"checking seals, {self.checked['seals']:,} so far")
            previous = seal
        with self.repo.store.reading() as tx:
            row = tx.row("select max(seal) from sealed_records where seal <= ?", (last + 1,))
            later = row[0] if row and row[0] else 0
            known = tx.row("select 1 from seals where sequence = ?", (later,))
        if later and known is None:
            yield damage(
                "broken-seals",
                f"seal {later}",
                "Records are sealed by it, but it is not there: expected it.",
            )

    def _lake(self) -> Iterator[Finding]:
        """The lake's own id is what the last move, or the last seal, says it is."""
        with self.repo.store.reading() as tx:
            moved = tx.row("select after_id, after_root from relocations order by number desc")
            seal = last_seal(tx)
            identifier = lake_id(tx)
        # A seal after the last move is of this id as well; before the first seal nothing tells.
        expected = moved[0] if moved else seal.lake if seal else identifier
        if identifier != expected or not expected:
            yield damage(
                "changed-record",
                "the lake's id",
                f"The lake calls itself {identifier}: expected {expected}.",
            )

    def _records(self) -> Iterator[Finding]:
        for kept in KEPT:
            name = ""
            while True:
                with self.repo.store.reading() as tx:
                    page = sealed_after(tx, kept.table, name)
                    names = [str(row[0]) for row in page]
                    found = record_digests(tx, kept, names) if names else {}
                    forgotten = forgotten_before(tx)
                if kept.table == "tokens":
                    page = [row for row in page if row[0] in found or _at(row) >= forgotten]
                yield from check_records(kept.table, page, found)
                self.checked["records"] += len(page)
                self.say(f"checking records, {self.checked['records']:,} so far")
                if not names:
                    break
                name = names[-1]

    def _commits(self, start: str, ref: str) -> Iterator[Finding]:
        waiting = [start]
        while waiting:
            identifier = waiting.pop()
            if not self._seen.add(identifier):
                continue
            reached_by = f'on "{ref}"'
            with self.repo.store.reading() as tx:
                row = tx.row(
                    "select id, tree, parents, author, at, message, origin, generation, jump, span "
                    "from commits where id = ?",
                    (identifier,),
                )
                parents = _parents(row)
                expected = place_after(tx, tuple(parents))
                missing = [
                    parent
                    for parent in parents
                    if expected is None
                    and tx.row("select 1 from commits where id = ?", (parent,)) is None
                ]
            self.checked["commits"] += 1
            self.say(f"checking commits, {self.checked['commits']:,} so far")
            if row is None:
                yield damage(
                    "missing-commit",
                    f"commit {identifier[:12]} ({reached_by})",
                    "The commit is missing: expected it in the database.",
                )
                continue
            found = check_commit(row, missing, expected, reached_by)
            if found:
                yield found
                continue
            waiting += parents
            yield from self._tree(str(row[1]), f'commit {identifier[:12]} on "{ref}"')

    def _tree(self, root: str, reached_by: str) -> Iterator[Finding]:
        waiting = [root]
        while waiting:
            digest = waiting.pop()
            if not self._seen.add(digest):
                continue
            with self.repo.store.reading() as tx:
                row = tx.row("select body from nodes where digest = ?", (digest,))
            self.checked["tree nodes"] += 1
            self.say(f"checking commits, {self.checked['tree nodes']:,} nodes of trees so far")
            found = check_node(digest, row[0] if row else None, reached_by)
            if found or row is None:
                yield from [found] if found else []
                continue
            node = json.loads(row[0])
            waiting += node.get("kinds", {}).values()
            waiting += [child for child, _ in node.get("inner", {}).values()]
            for key, content in node.get("leaf", {}).items():
                if self._seen.add(canonical_bytes(content).decode()):
                    self.checked["contents"] += 1
                    yield from self.visit(key, content, reached_by)


def _parents(row: Row | None) -> list[str]:
    try:
        named = json.loads(row[2]) if row else []
    except (TypeError, ValueError):
        return []
    return [one for one in named if isinstance(one, str)] if isinstance(named, list) else []


def _at(token: Row) -> int:
    """When a token was kept, in microseconds, by the name of its record."""
    return int(str(token[0]).partition("/")[0])
