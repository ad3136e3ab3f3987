"""Where a ref is, with all that its next commit has to know of it, and moving it on.

One statement reads it: each statement costs a writer time that others wait for. The swap is the
entry added to the chain: two writers that saw the same end would add the same number, of which the
database holds one only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from instep.canonical import from_microseconds
from instep.errors import ConflictError
from instep.history.ancestry import Standing, standing_after
from instep.history.commits import Commit
from instep.history.operations import End, append_operation
from instep.history.refs import Ref, RefKind, missing_ref, tag_would_move
from instep.history.store import Transaction

_TIP = (
    "select r.name, r.kind, r.commit_id, r.is_protected, r.owner, r.created_at, "
    "c.tree, c.parents, c.author, c.at, c.message, c.origin, "
    "c.generation, c.span, back.jump, back.span, o.id, o.sequence, o.at, n.body "
    "from refs r join commits c on c.id = r.commit_id "
    "left join commits back on back.id = c.jump and c.span > 0 "
    "join operations o on o.id = r.head "
    "left join nodes n on n.digest = c.tree where r.name = ?"
)


@dataclass(frozen=True, slots=True)
class Tip:
    """`following` is where a commit stands in the graph whose only parent is this one.

    `root` is the text of the root node of the commit's tree, None where it is missing.
    """

    ref: Ref
    commit: Commit
    following: Standing
    end: End
    root: str | None


def get_tip(tx: Transaction, name: str) -> Tip:
    """Returns where a ref is now.

    Raises:
        NotFoundError (kind "no-such-ref").
    """
    row = tx.row(_TIP, (name,))
    if row is None:
        raise missing_ref(tx, name)
    _, kind, commit, is_protected, owner, created_at, *rest = row
    tree, parents, author, at, message, origin, *rest = rest
    generation, span, further, further_span, last, sequence, last_at, root = rest
    return Tip(
        Ref(name, RefKind(kind), commit, bool(is_protected), owner, from_microseconds(created_at)),
        Commit(
            commit,
            tree,
            tuple(json.loads(parents)),
            author,
            from_microseconds(at),
            message,
            origin,
        ),
        standing_after(commit, generation, span, further, further_span),
        End(last, sequence, from_microseconds(last_at)),
        root,
    )


def move_ref(
    tx: Transaction,
    name: str,
    *,
    expected: str,
    commit: str,
    actor: str,
    at: datetime,
    kind: str,
    why: str,
) -> None:
    """Moves a ref from `expected` to `commit`, and says so in its chain.

    Raises:
        ConflictError (kind "ref-moved"): it points to another commit now.
        RefusedError (kind "tag-would-move"): it is a tag.
    """
    tip = get_tip(tx, name)
    if tip.ref.kind is not RefKind.TAG and tip.commit.id != expected:
        found = tip.commit.id
        raise ConflictError(
            f'"{name}" moved: expected {expected[:12]}, found {found[:12]}. Plan again, then try '
            "again.",
            kind="ref-moved",
            ref=name,
            expected=expected,
            found=found,
        )
    advance(tx, tip, commit, actor=actor, at=at, kind=kind, why=why)


def advance(
    tx: Transaction, tip: Tip, commit: str, *, actor: str, at: datetime, kind: str, why: str
) -> None:
    """Moves a ref from its tip, read in this transaction, to `commit`.

    Raises:
        RefusedError (kind "tag-would-move"): it is a tag.
    """
    ref = tip.ref
    if ref.kind is RefKind.TAG:
        raise tag_would_move(ref.name, ref.commit)
    operation = append_operation(
        tx,
        ref=ref.name,
        before=ref.commit,
        after=commit,
        actor=actor,
        at=at,
        kind=kind,
        why=why,
        end=tip.end,
    )
    tx.write(
        "update refs set commit_id = ?, head = ?, sequence = ? where name = ?",
        (commit, operation.id, operation.sequence, ref.name),
    )
