"""Is this row what it was when it was written? Pure: rows in, findings out, in their order.

A commit, a tree node and an operation are their own digest; a ref is where its chain ends; a seal
names what chains must hold. Each finding says which row, what was expected, and what was found.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from instep.canonical import Json, JsonObject, digest_of
from instep.findings import Finding, Severity
from instep.history.ancestry import Standing
from instep.history.operations import operation_id
from instep.history.seals import Head, Seal, ref_digest, seal_of
from instep.history.store import Row
from instep.history.tree import node_digest

_COMMIT = "instep.commit.v1"


def damage(kind: str, subject: str, message: str) -> Finding:
    """Returns what is wrong with `subject`, the row or file and what leads to it."""
    return Finding(kind, subject, Severity.STOP, message)


def check_operations(ref: str, rows: Iterable[Row], previous: Row | None) -> Iterator[Finding]:
    """Checks a stretch of one chain; `previous` is the entry before it, None at its beginning.

    Rows: id, ref, sequence, previous, before_commit, after_commit, actor, at, kind, why.
    """
    for row in rows:
        expected = (previous[2] + 1, previous[0], previous[5]) if previous else (1, "", None)
        identifier, name, sequence, before_id, before, *_ = row
        place = f'operation {expected[0]} of "{ref}"'
        if (sequence, before_id) != expected[:2]:
            yield damage(
                "broken-chain",
                place,
                f"The chain is broken: expected entry {expected[0]} after "
                f"{_cut(expected[1])}, found entry {sequence} after {_cut(before_id)}.",
            )
        elif name != ref or _operation_id(row) != identifier:
            yield damage(
                "changed-operation",
                place,
                "The entry is not what was written: expected the digest "
                f"{_cut(identifier)} that is its id.",
            )
        elif before != expected[2]:
            yield damage(
                "broken-chain",
                place,
                f"The entry begins at commit {_cut(before)}: expected {_cut(expected[2])}, where "
                "the one before ended.",
            )
        previous = row


def check_ref(row: Row, head: Row | None) -> Finding | None:
    """Checks that a ref is where its chain ends.

    Row: name, kind, commit_id, head, sequence, is_protected, owner, created_at; head as above.
    """
    name, kind, commit, head_id, sequence, is_protected, _, _ = row
    place = f'ref "{name}"'
    if head is None:
        return damage("ref-without-chain", place, "The ref has no operations: expected its chain.")
    if (head_id, sequence, commit) != (head[0], head[2], head[5]):
        return damage(
            "ref-off-chain",
            place,
            f"The ref is at commit {_cut(commit)} after operation {sequence} ({_cut(head_id)}): "
            f"expected {_cut(head[5])} after {head[2]} ({_cut(head[0])}), where its chain ends.",
        )
    if kind not in ("branch", "tag", "environment", "system") or is_protected not in (0, 1):
        return damage(
            "changed-record",
            place,
            f"The ref is of kind {kind!r}, protected {is_protected!r}: expected a kind that exists "
            "and 0 or 1.",
        )
    return None


def check_deleted(ref: str, head: Row) -> Finding | None:
    """Checks that a chain without a ref ends with its deletion."""
    if head[5] is None:
        return None
    return damage(
        "missing-ref",
        f'ref "{ref}"',
        f"The ref is not there, and its chain ends at commit {_cut(head[5])}: expected the ref.",
    )


def check_commit(
    row: Row, missing: Sequence[str], expected: Standing | None, reached_by: str
) -> Finding | None:
    """Checks a commit; `missing` are those of its parents that are not there.

    Row: id, tree, parents, author, at, message, origin, generation, jump, span. The last three
    are `expected`, from its parents.
    """
    identifier, tree, parents, author, at, message, origin, *standing = row
    place = f"commit {_cut(identifier)} ({reached_by})"
    try:
        named = json.loads(parents)
        body: dict[str, Json] = {
            "tree": tree,
            "parents": named,
            "author": author,
            "at": at,
            "message": message,
            "origin": origin,
        }
        is_whole = digest_of(_COMMIT, body) == identifier
    except (TypeError, ValueError):
        is_whole = False
    if not is_whole:
        return damage(
            "changed-commit",
            place,
            f"The commit is not what was written: expected the digest {_cut(identifier)}.",
        )
    for parent in missing:
        return damage(
            "missing-commit", place, f"Its parent {_cut(parent)} is missing: expected it."
        )
    if tuple(standing) != expected:
        return damage(
            "changed-commit",
            place,
            f"The commit has generation, jump and span {standing}: expected "
            f"{list(expected or ())}, from its parents.",
        )
    return None


def check_node(digest: str, body: object, reached_by: str) -> Finding | None:
    """Checks the text of a tree node against its digest."""
    place = f"tree node {_cut(digest)} ({reached_by})"
    if body is None:
        return damage("missing-node", place, "The node is missing: expected it in the database.")
    if not isinstance(body, str) or node_digest(body) != digest:
        return damage("changed-node", place, f"The node's text does not have digest {digest}.")
    return None


def check_seal(seal: Seal, previous: Seal | None) -> Finding | None:
    """Checks that a seal is its own digest and follows the one before."""
    place = f"seal {seal.sequence}"
    expected = (previous.sequence + 1, previous.id) if previous else (1, "")
    if (seal.sequence, seal.previous) != expected:
        return damage(
            "broken-seals",
            place,
            f"The chain of seals is broken: expected seal {expected[0]} after "
            f"{_cut(expected[1])}, found {seal.sequence} after {_cut(seal.previous)}.",
        )
    try:
        body: dict[str, Json] = {
            "sequence": seal.sequence,
            "previous": seal.previous,
            "at": seal.at,
            "lake": seal.lake,
            "heads": seal.heads,
            "records": seal.records,
        }
        is_whole = seal_of(body).id == seal.id
    except (TypeError, ValueError):
        is_whole = False
    if not is_whole:
        return damage(
            "changed-seal", place, f"The seal is not what was written: expected {_cut(seal.id)}."
        )
    return None


def check_sealed_head(
    seal: Seal, ref: str, head: Head, entry: str | None, row: Row | None
) -> Finding | None:
    """Checks one head of a seal: `entry` is the chain's id there, `row` the ref's row now."""
    sequence, identifier, digest = head
    place = f'seal {seal.sequence}, ref "{ref}"'
    if entry != identifier:
        return damage(
            "broken-chain",
            place,
            f"Operation {sequence} is {_cut(entry)}: expected {_cut(identifier)}, which the seal "
            "names. The chain was cut off or written again.",
        )
    if row is not None and row[3] == identifier and digest and ref_digest(row) != digest:
        return damage(
            "changed-record",
            place,
            "The ref's row (kind, protection, owner, time) changed without an operation: expected "
            "it as it was sealed.",
        )
    return None


def check_records(table: str, sealed: Sequence[Row], found: Mapping[str, str]) -> Iterator[Finding]:
    """Checks sealed records (name, digest) against the digests that they have now."""
    for record, digest in sealed:
        place = f"record {record} of {table}"
        if record not in found:
            yield damage("missing-record", place, "The record is gone: expected it as sealed.")
        elif found[record] != digest:
            yield damage(
                "changed-record", place, "The record is not what was sealed: expected it unchanged."
            )


def blobs_of(content: JsonObject) -> tuple[str, ...]:
    """Returns the digests of the blobs that a content names, whatever its kind."""
    files = content.get("files")
    named = list(files.values()) if isinstance(files, Mapping) else []
    return tuple(str(one) for one in [*named, content.get("blob")] if one)


def _operation_id(row: Row) -> str:
    try:
        return operation_id(*row[1:])
    except (TypeError, ValueError):
        return ""


def _cut(identifier: object) -> str:
    return str(identifier)[:12] if identifier else "nothing"
