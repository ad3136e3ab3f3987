"""Merges one branch or commit into a branch: keys by history, tables by their contract's policy.

`append` and `keyed` tables that both sides changed are merged by rows; a `derived` one stays as it
is on our side, since its pipeline makes it again; under `replace`, and of anything else, a key that
both sides changed is a conflict. A table is its uuid: one that a side renamed is merged under its
new name. Nothing is committed while a conflict is left. A merge is made again where another commit
came first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from instep.canonical import JsonObject
from instep.changes.renamed_tables import align
from instep.changes.stale import Stale, stale_after
from instep.contracts.terms import Contract, MergePolicy
from instep.errors import ConflictError, InvalidError, RefusedError
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

ATTEMPTS = 20
"""How often a merge is made on a newer state of the branch before the conflict is given back."""


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
        ConflictError (kind "keys-moved"): the branch moved on at every attempt.
        ConflictError (kind "repeated-key").
    """
    theirs = repo.resolve(source)
    wanted = resolutions or Resolutions()
    for _ in range(ATTEMPTS - 1):
        try:
            return _merge_once(repo, source, theirs, into, author, why, wanted)
        except ConflictError as error:
            if error.kind != "keys-moved":
                raise
    return _merge_once(repo, source, theirs, into, author, why, wanted)


def _merge_once(
    repo: Repository,
    source: str,
    theirs: str,
    into: str,
    author: str,
    why: str,
    resolutions: Resolutions,
) -> BranchMerge:
    with writing(repo.root, repo.store):
        with repo.store.reading() as tx:
            ref = get_ref(tx, into)
            refuse_protected(ref)
            base = merge_base(tx, ref.commit, theirs)
        if base is None or base == theirs:
            raise RefusedError(
                f'"{into}" has all of {source} already: there is nothing to merge. '
                f'See "instep diff {into} {source}".',
                kind="nothing-to-merge",
                ref=into,
            )
        found = _Merging(repo, base, ref.commit, theirs, resolutions)
        settled = tuple(found.settle(one) for one in found.merge.conflicts)
        both = (*found.two_names(), *settled)
        taken = tuple(sorted(found.merge.changes))
        if any(one.left for one in both):
            return BranchMerge(into, source, None, taken, both, ())
        changes = found.merge.changes | {
            one.key: one.content for one in settled if one.content != repo.find(ref.commit, one.key)
        }
        edit = Edit(
            base=ref.commit,
            changes=changes,
            author=author,
            message=why or f"Merges {source} into {into}",
            origin=f"merge of {theirs}",
            reads=frozenset(found.contracts),
            merged=(theirs,),
        )
        commit = commit_edit(repo, into, edit, kind="merge")
        with repo.store.reading() as tx:
            again = stale_after(tx, repo, ref.commit, changes)
    return BranchMerge(into, source, commit, taken, both, again)


class _Merging:
    """The three commits of one merge, and what is decided about keys that both sides changed.

    `contracts` are the keys of those that were looked up.
    """

    def __init__(
        self, repo: Repository, base: str, ours: str, theirs: str, resolutions: Resolutions
    ) -> None:
        self.repo = repo
        self.resolutions = resolutions
        self.contracts: set[str] = set()
        self._aligned = align(repo.diff(base, ours), repo.diff(base, theirs), self._take_name)
        self.merge = self._aligned.merge()
        self._commits = ours, theirs
        self._by_key = {one.key: one for one in self.merge.conflicts}
        known = [*self._by_key, *self._aligned.two_names]
        unknown = (resolutions.keys.keys() | resolutions.rows.keys()) - set(known)
        if unknown:
            raise InvalidError(
                f'"{min(unknown)}" is no conflict of this merge: expected one of '
                f"{', '.join(known) or 'none at all'}. Take its choice out.",
                kind="no-such-conflict",
                key=min(unknown),
            )

    def two_names(self) -> Iterator[MergedKey]:
        """Yields what became of tables that both sides renamed, by the keys that they had."""
        for key, one in self._aligned.two_names.items():
            is_left = key in self._aligned.undecided
            took = "" if is_left else f"; the name of {self._take_name(key)} was taken"
            yield MergedKey(key, f"{one}{took}", None, left=is_left)

    def _take_name(self, key: str) -> Take | None:
        return self.resolutions.of_key(key) or self.resolutions.otherwise

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
        key = conflict.key
        clash = self._aligned.clashes.get(key)
        if clash is not None:
            return self._side(conflict, clash)
        before = self._aligned.before.get(key, key)
        renamed = "" if before == key else f"renamed from {before}; "
        if renamed and conflict.base in (conflict.ours, conflict.theirs):
            is_theirs = conflict.base == conflict.ours
            content = conflict.theirs if is_theirs else conflict.ours
            return MergedKey(key, f"{renamed}one side changed it", content)
        contract = self._contract(key, before)
        policy = contract.merge_policy if contract else None
        if policy is MergePolicy.DERIVED:
            how = f"{renamed}derived: ours stays until its pipeline runs"
            return MergedKey(key, how, conflict.ours)
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
            how = f"{renamed}policy {policy}"
            return MergedKey(key, how, content, left=content is None, rows=rows)
        return self._side(conflict, f"{renamed}{why}")

    def _side(self, conflict: KeyConflict, why: str) -> MergedKey:
        """Takes the whole of one side, if there is a word for all that is left."""
        otherwise = self.resolutions.otherwise
        if otherwise is None:
            return MergedKey(conflict.key, why, None, left=True)
        content = conflict.ours if otherwise is Take.OURS else conflict.theirs
        return MergedKey(conflict.key, f"{why}; {otherwise} was taken", content)

    def _contract(self, key: str, before: str) -> Contract | None:
        """The contract of a table as it will be, or else that of its former name."""
        names = dict.fromkeys(one.partition("/")[2] for one in (key, before))
        return next((one for name in names if (one := self._contract_of(name))), None)

    def _contract_of(self, table: str) -> Contract | None:
        """A contract is theirs where only they changed it."""
        from instep.contracts.document import parse

        key = f"contract/{table}"
        self.contracts.add(key)
        ours, theirs = self._commits
        conflict = self._by_key.get(key)
        takes_theirs = conflict is not None and self.settle(conflict).content == conflict.theirs
        side = theirs if key in self.merge.changes or takes_theirs else ours
        content = self.repo.find(side, key)
        if content is None:
            return None
        return parse(self.repo.objects.text(str(content["blob"])), f"contracts/{table}.yaml")
