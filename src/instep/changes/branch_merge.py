"""Merges one branch or commit into a branch: keys by history, tables by their contract's policy.

`append` and `keyed` tables that both sides changed are merged by rows; a `derived` one stays as it
is on our side, since its pipeline makes it again; under `replace`, and of anything else, a key that
both sides changed is a conflict. Nothing is committed while a conflict is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from instep.canonical import JsonObject
from instep.changes.stale import Stale, stale_after
from instep.contracts.terms import Contract, MergePolicy
from instep.errors import InvalidError, RefusedError
from instep.history import merge as trees
from instep.history.ancestry import merge_base
from instep.history.commits import Commit
from instep.history.edits import Edit, commit_edit
from instep.history.locks import writing
from instep.history.merge import KeyConflict
from instep.history.refs import get_ref, refuse_protected
from instep.history.repository import Repository
from instep.history.tree import kind_of
from instep.tables.content import TableContent
from instep.tables.merge import merge_rows
from instep.tables.row_merge import Resolution, RowMerge, Take

BY_ROWS = (MergePolicy.APPEND, MergePolicy.KEYED)
"""Policies under which two states of a table are merged row by row."""


@dataclass(frozen=True, slots=True)
class Resolutions:
    """How conflicts are settled: whole keys, rows of tables, and `otherwise` all others."""

    keys: Mapping[str, Take] = field(default_factory=dict)
    rows: Mapping[str, Resolution] = field(default_factory=dict)
    otherwise: Take | None = None

    def of_key(self, key: str) -> Take | None:
        return self.keys.get(key)

    def of_rows(self, key: str) -> Resolution:
        """Returns how conflicts within the table `key` are settled."""
        found = self.rows.get(key, Resolution())
        return Resolution(found.choices, found.otherwise or self.otherwise)


@dataclass(frozen=True, slots=True)
class MergedKey:
    """What became of a key that both sides changed.

    `content` is what it will be, and None with `left` a conflict; `rows` tells of a table that was
    merged by rows.
    """

    key: str
    how: str
    content: JsonObject | None
    left: bool = False
    rows: RowMerge | None = None


@dataclass(frozen=True, slots=True)
class BranchMerge:
    """What a merge did, or why it did nothing: `commit` is None while a conflict is left.

    `taken` are the keys that only the other side changed; `again` what should be made again.
    """

    into: str
    source: str
    commit: Commit | None
    taken: tuple[str, ...]
    both: tuple[MergedKey, ...]
    again: tuple[Stale, ...]

    @property
    def conflicts(self) -> tuple[MergedKey, ...]:
        return tuple(one for one in self.both if one.left)


def merge_branch(
    repo: Repository,
    source: str,
    into: str,
    *,
    author: str,
    why: str = "",
    resolutions: Resolutions | None = None,
) -> BranchMerge:
    """Brings what `source` (a ref or commit) changed since the two parted into branch `into`.

    Raises:
        RefusedError (kind "protected-branch"): main changes by review.
        RefusedError (kind "nothing-to-merge"): it has all of that already.
        NotFoundError (kind "no-such-ref").
        InvalidError (kinds "no-such-conflict", "bad-value"): a resolution does not fit.
        ConflictError (kinds "keys-moved", "repeated-key").
    """
    with writing(repo.root, repo.store):
        with repo.store.reading() as tx:
            ref = get_ref(tx, into)
            refuse_protected(ref)
            theirs = repo.resolve(source)
            base = merge_base(tx, ref.commit, theirs)
        if base is None or base == theirs:
            raise RefusedError(
                f'"{into}" has all of {source} already: there is nothing to merge. '
                f'See "instep diff {into} {source}".',
                kind="nothing-to-merge",
                ref=into,
            )
        found = _Merging(repo, base, ref.commit, theirs, resolutions or Resolutions())
        both = tuple(found.settle(one) for one in found.merge.conflicts)
        taken = tuple(sorted(found.merge.changes))
        if any(one.left for one in both):
            return BranchMerge(into, source, None, taken, both, ())
        changes = found.merge.changes | {
            one.key: one.content for one in both if one.content != found.ours(one.key)
        }
        edit = Edit(
            base=ref.commit,
            changes=changes,
            author=author,
            message=why or f"Merges {source} into {into}",
            origin=f"merge of {theirs}",
            merged=(theirs,),
        )
        commit = commit_edit(repo, into, edit, kind="merge")
        with repo.store.reading() as tx:
            again = stale_after(tx, repo, ref.commit, changes)
    return BranchMerge(into, source, commit, taken, both, again)


class _Merging:
    """The three commits of one merge, and what is decided about keys that both sides changed."""

    def __init__(
        self, repo: Repository, base: str, ours: str, theirs: str, resolutions: Resolutions
    ) -> None:
        self.repo = repo
        self.merge = trees.merge(repo.diff(base, ours), repo.diff(base, theirs))
        self.resolutions = resolutions
        self._commits = ours, theirs
        self._by_key = {one.key: one for one in self.merge.conflicts}
        unknown = (resolutions.keys.keys() | resolutions.rows.keys()) - self._by_key.keys()
        if unknown:
            raise InvalidError(
                f'"{min(unknown)}" is no conflict of this merge: expected one of '
                f"{', '.join(self._by_key) or 'none at all'}. Take its choice out.",
                kind="no-such-conflict",
                key=min(unknown),
            )

    def ours(self, key: str) -> JsonObject | None:
        return self._by_key[key].ours

    def settle(self, conflict: KeyConflict) -> MergedKey:
        """Decides about one key."""
        key = conflict.key
        take = self.resolutions.of_key(key)
        if take is None and kind_of(key) == "table":
            return self._table(conflict)
        take = take or self.resolutions.otherwise
        if take is None:
            return MergedKey(key, "both sides changed it", None, left=True)
        content = conflict.ours if take is Take.OURS else conflict.theirs
        return MergedKey(key, f"{take} was taken", content)

    def _table(self, conflict: KeyConflict) -> MergedKey:
        key, otherwise = conflict.key, self.resolutions.otherwise
        contract = self._contract(key.partition("/")[2])
        policy = contract.merge_policy if contract else None
        if policy is MergePolicy.DERIVED:
            return MergedKey(key, "derived: ours stays until its pipeline runs", conflict.ours)
        states = [
            TableContent.from_content(content) if content else None
            for content in (conflict.base, conflict.ours, conflict.theirs)
        ]
        base, ours, theirs = states
        if contract is None or policy not in BY_ROWS:
            why = f"policy {policy}" if policy else "it has no contract, so no merge policy"
        elif base is None or ours is None or theirs is None:
            why = "made or dropped on one side"
        elif not base.uuid == ours.uuid == theirs.uuid:
            why = "replaced by another table of its name"
        else:
            rows = merge_rows(
                self.repo.root,
                base,
                ours,
                theirs,
                contract.key,
                self.resolutions.of_rows(key),
                at=self.repo.clock(),
            )
            content = rows.content.to_content() if rows.content else None
            return MergedKey(key, f"policy {policy}", content, left=content is None, rows=rows)
        if otherwise is None:
            return MergedKey(key, why, None, left=True)
        content = conflict.ours if otherwise is Take.OURS else conflict.theirs
        return MergedKey(key, f"{why}; {otherwise} was taken", content)

    def _contract(self, table: str) -> Contract | None:
        """The contract as it will be: theirs where only they changed it."""
        from instep.contracts.document import parse

        key = f"contract/{table}"
        ours, theirs = self._commits
        conflict = self._by_key.get(key)
        takes_theirs = conflict is not None and self.settle(conflict).content == conflict.theirs
        side = theirs if key in self.merge.changes or takes_theirs else ours
        content = self.repo.find(side, key)
        if content is None:
            return None
        return parse(self.repo.objects.text(str(content["blob"])), f"contracts/{table}.yaml")
