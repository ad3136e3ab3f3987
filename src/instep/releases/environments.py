"""Environments: what consumers see. Moved by release and rollback only, and never forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain as chained

from instep.canonical import Json, JsonObject
from instep.clock import format_instant
from instep.errors import InvalidError, NotFoundError, RefusedError
from instep.findings import Finding, stops
from instep.history import tree
from instep.history.commits import load_commit
from instep.history.edits import Edit, publish
from instep.history.erasure import refuse_erased
from instep.history.operations import Operation, has_been_at, operations
from instep.history.refs import RefKind, create_ref, find_ref, get_ref, list_refs
from instep.history.repository import MAIN, Repository
from instep.history.store import Transaction
from instep.history.tips import move_ref
from instep.history.verify import blobs_of
from instep.pipelines.project import lake_config

NOTHING_BEATS_CONSTANT = "nothing-beats-constant"
"""The kind of the one finding that stops a release unless it is forced with a reason."""

Judge = Callable[[str], tuple[Finding, ...]]
"""Gives what the gates of a release find on a commit."""


@dataclass(frozen=True, slots=True)
class Moved:
    """An environment after a release or rollback.

    `lived_before` says whether this exact state of all keys was in the environment before.
    """

    environment: str
    before: str | None
    commit: str
    keys: tuple[str, ...]
    actor: str
    at: datetime
    kind: str
    why: str
    lived_before: bool
    findings: tuple[Finding, ...] = ()

    def to_json(self) -> dict[str, Json]:
        return {
            "environment": self.environment,
            "before": self.before,
            "commit": self.commit,
            "keys": list(self.keys),
            "by": self.actor,
            "at": format_instant(self.at),
            "act": self.kind,
            "why": self.why,
            "lived_before": self.lived_before,
            "findings": [finding.to_json() for finding in self.findings],
        }


@dataclass(frozen=True, slots=True)
class LiveKey:
    """A key in an environment: since when it has had this content there, and by whom."""

    key: str
    content: JsonObject
    since: datetime
    by: str


@dataclass(frozen=True, slots=True)
class Live:
    """One environment at one instant; `commit` is None where nothing was released by then."""

    environment: str
    commit: str | None
    operation: Operation | None
    models: tuple[LiveKey, ...]


def release(
    tx: Transaction,
    repo: Repository,
    environment: str,
    commit: str,
    *,
    actor: str,
    why: str,
    judge: Judge,
    force: bool = False,
) -> Moved:
    """Moves an environment to a commit of main.

    `judge` gives what the gates find on a commit; a finding that asks for a stop refuses it. With
    `force` and a reason, that a model does not beat the constant is told and refuses nothing.

    Raises:
        InvalidError (kind "needs-reason"): it is forced without one.
        NotFoundError (kind "no-such-environment").
        RefusedError (kinds "not-on-main", "release-refused", "nothing-beats-constant",
            "already-released").
        RefusedError (kind "erased"): bytes of a content of the commit are gone on purpose.
    """
    _refuse_undeclared(repo, tx, environment)
    if force and not why.strip():
        raise InvalidError(
            f"The release to {environment} is forced without a reason: expected one, which is kept "
            "with the move. Add --why.",
            kind="needs-reason",
        )
    if not has_been_at(tx, MAIN, commit):
        # What a merged branch held on its way is an ancestor of main, and nobody approved it.
        raise RefusedError(
            f"{MAIN} was never at commit {commit[:12]}: only a reviewed state as a whole can be "
            f'released to {environment}. Propose and merge it first ("instep propose"), then '
            'release main, or a commit of "instep log main".',
            kind="not-on-main",
            commit=commit,
        )
    _refuse_erased(tx, repo, commit)
    verdicts = judge(commit)
    against = stops(verdicts)
    forced = [finding for finding in against if force and finding.kind == NOTHING_BEATS_CONSTANT]
    if len(forced) < len(against):
        reasons = tuple(finding.message for finding in against)
        is_forceable = all(finding.kind == NOTHING_BEATS_CONSTANT for finding in against)
        raise RefusedError(
            f"Commit {commit[:12]} cannot be released to {environment}: {' '.join(reasons)}",
            kind=NOTHING_BEATS_CONSTANT if is_forceable else "release-refused",
            environment=environment,
            reasons=reasons,
        )
    if forced:
        why = f"{why} (forced: {', '.join(one.subject for one in forced)} beats no constant)"
    found = find_ref(tx, environment)
    at = repo.clock()
    lived = _lived(tx, operations(tx, environment), load_commit(tx, commit).tree)
    if found is None:
        create_ref(
            tx,
            environment,
            RefKind.ENVIRONMENT,
            commit,
            owner=actor,
            at=at,
            is_protected=True,
            act="release",
            why=why,
        )
    elif found.commit == commit:
        raise RefusedError(
            f"{environment} is at commit {commit[:12]} already: expected another one. "
            'See "instep where".',
            kind="already-released",
            environment=environment,
        )
    else:
        move_ref(
            tx,
            environment,
            expected=found.commit,
            commit=commit,
            actor=actor,
            at=at,
            kind="release",
            why=why,
        )
    before = found.commit if found else None
    return Moved(
        environment,
        before,
        commit,
        _keys(tx, repo, before, commit),
        actor,
        at,
        "release",
        why,
        lived,
        verdicts,
    )


def rollback(
    tx: Transaction,
    repo: Repository,
    environment: str,
    *,
    only: str | None,
    actor: str,
    why: str,
    judge: Judge,
) -> Moved:
    """Moves an environment back to what it was before its last move, or one key of it.

    With `only`, the key gets the content that it last had there before the present one, in a new
    commit on the environment; whether that state ever lived before is in the answer. What `judge`
    finds is told and refuses nothing: the way back is open, unless bytes there were erased.

    Raises:
        NotFoundError (kinds "no-such-environment", "no-such-key").
        RefusedError (kinds "nothing-before", "erased").
    """
    _refuse_undeclared(repo, tx, environment)
    chain = operations(tx, environment)
    if not chain:
        raise _nothing_before(environment, "it was never released to")
    current = get_ref(tx, environment).commit
    states = _states(chain)
    if only is None:
        if len(states) < 2:
            raise _nothing_before(environment, "nothing was released before what is there now")
        target = states[-2].now
        _refuse_erased(tx, repo, target)
        at = repo.clock()
        move_ref(
            tx,
            environment,
            expected=current,
            commit=target,
            actor=actor,
            at=at,
            kind="rollback",
            why=why,
        )
        keys = _keys(tx, repo, current, target)
        return Moved(
            environment, current, target, keys, actor, at, "rollback", why, True, judge(target)
        )
    content = _content_before(tx, repo, environment, states, only)
    edit = Edit(current, {only: content}, actor, why, f"rollback of {only} in {environment}")
    commit = publish(tx, repo, environment, edit, kind="rollback")
    lived = _lived(tx, chain, commit.tree)
    at, found = commit.at, judge(commit.id)
    return Moved(environment, current, commit.id, (only,), actor, at, "rollback", why, lived, found)


def has_earlier(repo: Repository, environment: str, key: str) -> bool:
    """Says whether a rollback of `key` would find an earlier content to go back to."""
    with repo.store.reading() as tx:
        states = _states(operations(tx, environment))
        return bool(states) and _earlier(tx, repo, states, key) is not None


def where(repo: Repository, at: datetime | None = None) -> tuple[Live, ...]:
    """Returns every environment as it is, or as it was at an instant, by name."""
    with repo.store.reading() as tx:
        config = lake_config(repo, get_ref(tx, MAIN).commit)
        names = {ref.name for ref in list_refs(tx, RefKind.ENVIRONMENT)}
        names.update(config.environments if config else ())
        return tuple(_live(tx, repo, name, at) for name in sorted(names))


def _live(tx: Transaction, repo: Repository, environment: str, at: datetime | None) -> Live:
    chain = [entry for entry in operations(tx, environment) if at is None or entry.at <= at]
    if not chain or chain[-1].after is None:
        return Live(environment, None, None, ())
    last = chain[-1]
    commit = chain[-1].after
    models = tree.entries(repo.nodes, load_commit(tx, commit or "").tree, "model")
    live = []
    for key, content in models.items():
        since = _since(tx, repo, chain, key, content)
        live.append(LiveKey(key, content, since.at, since.actor))
    return Live(environment, commit, last, tuple(live))


def _since(
    tx: Transaction, repo: Repository, chain: Sequence[Operation], key: str, content: JsonObject
) -> Operation:
    """Returns the operation that began the present stretch in which `key` has `content`."""
    first = chain[-1]
    for entry in reversed(chain):
        if entry.after is None or _find(tx, repo, entry.after, key) != content:
            break
        first = entry
    return first


@dataclass(frozen=True, slots=True)
class _State:
    """What the environment was released to, and what rollbacks of single keys made of it."""

    released: str
    now: str


def _states(chain: Sequence[Operation]) -> list[_State]:
    """Returns what the environment was released to and not rolled back from, oldest first.

    The last is what it is at now; what is before it is where the next rollback goes. A rollback of
    one key mends the last state, it is no step of its own.
    """
    states: list[_State] = []
    for entry in chain:
        if entry.after is None:
            states.clear()
        elif entry.kind != "rollback":
            states.append(_State(entry.after, entry.after))
        elif len(states) > 1 and states[-2].now == entry.after:
            states.pop()
        else:
            states[-1] = _State(states[-1].released, entry.after)
    return states


def _earlier(
    tx: Transaction, repo: Repository, states: Sequence[_State], key: str
) -> JsonObject | None:
    """Returns the content that a rollback of `key` goes back to, or None.

    The latest other one of earlier states; where the key was rolled back already, of those before
    the state that it was taken from.
    """
    present = _find(tx, repo, states[-1].now, key)
    contents = [_find(tx, repo, state.now, key) for state in states[:-1]]
    if _find(tx, repo, states[-1].released, key) != present:
        while contents and contents.pop() != present:
            pass
    others = [one for one in contents if one is not None and one != present]
    return others[-1] if others else None


def _content_before(
    tx: Transaction, repo: Repository, environment: str, states: Sequence[_State], key: str
) -> JsonObject:
    repo.content(states[-1].now, key)
    found = _earlier(tx, repo, states, key)
    if found is None:
        raise _nothing_before(environment, f"{key} never had another content there before")
    return found


def _find(tx: Transaction, repo: Repository, commit: str, key: str) -> JsonObject | None:
    return tree.find(repo.nodes, load_commit(tx, commit).tree, key)


def _keys(tx: Transaction, repo: Repository, before: str | None, after: str) -> tuple[str, ...]:
    new = load_commit(tx, after).tree
    if before is None:
        return tuple(tree.entries(repo.nodes, new))
    old = load_commit(tx, before).tree
    return tuple(each.key for each in tree.diff(repo.nodes, old, new))


def _lived(tx: Transaction, chain: Sequence[Operation], root: str) -> bool:
    """Says whether the environment was at this state of all keys before."""
    return any(
        entry.after is not None and load_commit(tx, entry.after).tree == root for entry in chain
    )


def _refuse_erased(tx: Transaction, repo: Repository, commit: str) -> None:
    contents = tree.entries(repo.nodes, load_commit(tx, commit).tree).values()
    refuse_erased(tx, chained.from_iterable(blobs_of(content) for content in contents))


def _refuse_undeclared(repo: Repository, tx: Transaction, environment: str) -> None:
    found = find_ref(tx, environment)
    config = lake_config(repo, get_ref(tx, MAIN).commit)
    declared = config.environments if config else ()
    is_environment = found is not None and found.kind is RefKind.ENVIRONMENT
    if is_environment or (found is None and environment in declared):
        return
    raise NotFoundError(
        f'"{environment}" is no environment: expected one of '
        f"{', '.join(declared) or 'none yet'}. Declare it in instep.yaml under environments:, "
        "then propose and merge that.",
        kind="no-such-environment",
        environment=environment,
    )


def _nothing_before(environment: str, reason: str) -> RefusedError:
    return RefusedError(
        f"{environment} cannot be rolled back: {reason}. Release a commit instead.",
        kind="nothing-before",
        environment=environment,
    )
