"""Tokens: a caller's own name for one act, so that the act is never done twice.

A caller that lost the answer tries again with the same token. What was done under it is given back;
a token that stood for something else is a conflict. Garbage collection forgets tokens after
`TOKEN_DAYS`.
"""

from __future__ import annotations

from datetime import datetime

from instep.canonical import Json, digest_of, to_microseconds
from instep.errors import ConflictError, InvalidError
from instep.history.store import Transaction

_ACT = "instep.act.v1"
_LONGEST = 200
_FORGOTTEN = "tokens-forgotten-before"

TOKEN_DAYS = 90
"""Days at work for which a token is remembered: far longer than anybody tries again."""

PRUNED_AT_ONCE = 1_000


def act_digest(body: Json) -> str:
    """Returns the digest of what a token stands for."""
    return digest_of(_ACT, body)


def find_done(tx: Transaction, token: str, digest: str) -> str | None:
    """Returns the commit that was published under `token`, or None.

    Raises:
        InvalidError (kind "bad-token").
        ConflictError (kind "token-reused"): the token stood for something else.
    """
    if not 1 <= len(token) <= _LONGEST:
        raise InvalidError(
            f"A token of {len(token)} characters was given: expected 1 to {_LONGEST}, the same "
            "for each try of one act. Use a UUID.",
            kind="bad-token",
        )
    row = tx.row("select digest, commit_id, ref from tokens where token = ?", (token,))
    if row is None:
        return None
    if row[0] != digest:
        raise _reused(token, str(row[1]), str(row[2]))
    return str(row[1])


def keep_done(
    tx: Transaction, token: str, digest: str, *, ref: str, commit: str, at: datetime
) -> None:
    """Records what was published under `token`, in the transaction that does it.

    Raises:
        ConflictError (kind "token-reused"): somebody used it for another ref meanwhile.
    """
    added = tx.execute(
        "insert into tokens (token, ref, digest, commit_id, at) values (?, ?, ?, ?, ?) "
        "on conflict do nothing",
        (token, ref, digest, commit, to_microseconds(at)),
    )
    if added != 1:
        row = tx.row("select commit_id, ref from tokens where token = ?", (token,))
        raise _reused(token, str(row[0]) if row else "?", str(row[1]) if row else "?")


def prune_tokens(tx: Transaction, before: int) -> int:
    """Removes at most a thousand tokens older than an instant in microseconds; says how many."""
    tx.execute(
        "insert into lake (name, value) values (?, ?) "
        "on conflict (name) do update set value = excluded.value",
        (_FORGOTTEN, str(max(before, forgotten_before(tx)))),
    )
    return tx.execute(
        "delete from tokens where token in "
        "(select token from tokens where at < ? order by token limit ?)",
        (before, PRUNED_AT_ONCE),
    )


def forgotten_before(tx: Transaction) -> int:
    """Returns the instant, in microseconds, before which tokens may be gone."""
    row = tx.row("select value from lake where name = ?", (_FORGOTTEN,))
    return int(row[0]) if row else 0


def _reused(token: str, commit: str, ref: str) -> ConflictError:
    return ConflictError(
        f'Token "{token}" stood for another act, commit {commit[:12]} on "{ref}": expected one '
        "token for one act. Nothing was changed. Use a new token.",
        kind="token-reused",
        token=token,
        commit=commit,
    )
