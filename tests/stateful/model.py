"""What a lake must hold, as dicts: the oracle of the state machines. It knows no room's way.

`expected` says what an act must answer or change now; `apply` changes the model by it. A table's
state counts as another value than every other state, even one with the same rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from lake_acts import (
    Act,
    Append,
    Blob,
    Collect,
    Create,
    Delete,
    Erase,
    Merge,
    Protect,
    Refused,
    Rename,
    Undo,
    Write,
)

from instep.history.refs import RefKind


@dataclass(frozen=True, slots=True)
class Rows:
    """What a key that holds a table points to."""

    numbers: tuple[int, ...]
    state: int


Value = Blob | Rows
Contents = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Committed:
    parents: tuple[str, ...]
    contents: Contents


@dataclass(frozen=True, slots=True)
class Name:
    kind: RefKind
    commit: str
    is_protected: bool


@dataclass(frozen=True, slots=True)
class Moment:
    """One entry of a name's chain: where it pointed from then on, None when it was gone."""

    at: datetime
    commit: str | None
    tags: bool = False


@dataclass(frozen=True, slots=True)
class Commits:
    """A new commit on a ref; its id is the lake's to say."""

    ref: str
    new: Committed
    token: str | None = None
    stands_for: object = None


@dataclass(frozen=True, slots=True)
class Names:
    """Names after the act, None for one that goes, in the order of their entries."""

    after: tuple[tuple[str, Name | None], ...]
    tags: bool = False


@dataclass(frozen=True, slots=True)
class Erases:
    digest: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """Neither a ref nor a content changes; `commit` is what is given back."""

    commit: str | None = None


Effect = Commits | Names | Erases | Nothing


@dataclass(slots=True)
class Model:
    """`forgotten` are commits that were collected, as the lake says; none of them may be needed.

    `erasing` are objects whose erasure is on record, and perhaps not carried out.
    """

    commits: dict[str, Committed] = field(default_factory=dict)
    refs: dict[str, Name] = field(default_factory=dict)
    chains: dict[str, list[Moment]] = field(default_factory=dict)
    tokens: dict[str, tuple[object, str]] = field(default_factory=dict)
    erasing: set[str] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)

    def expected(self, act: Act, *, is_stored: bool = False) -> Effect | Refused:
        """Returns what an act does now; `is_stored` says that its objects were stored before."""
        match act:
            case Write():
                return self._write(act, is_stored)
            case Merge():
                return self._merge(act)
            case Undo():
                return self._undo(act)
            case Create(name, kind, commit):
                return self._create(name, Name(kind, commit, False))
            case Rename(name, new):
                return self._rename(name, new)
            case Delete(name):
                return self._closed(name) or Names(((name, None),))
            case Protect(name, is_protected):
                if name not in self.refs:
                    return Refused("no-such-ref")
                if name == "main" and not is_protected:
                    return Refused("protected-branch")
                ref = self.refs[name]
                return Names(((name, Name(ref.kind, ref.commit, is_protected)),))
            case Collect():
                return Nothing()
            case Erase(digest):
                is_known = digest in self.erased | self.erasing
                if not is_known and digest in self.live_digests():
                    return Refused("still-live")
                return Erases(digest)

    def apply(self, effect: Effect, at: datetime, commit: str | None) -> None:
        """Changes the model; `commit` is the id of what was committed."""
        match effect:
            case Commits(ref, new, token, stands_for):
                assert commit is not None
                self.commits[commit] = new
                before = self.refs[ref]
                self._point(ref, Name(before.kind, commit, before.is_protected), at, False)
                if token is not None:
                    self.tokens[token] = (stands_for, commit)
            case Names(after, tags):
                for name, named in after:
                    self._point(name, named, at, tags and named is not None)
            case Erases(digest):
                self.erasing.add(digest)
            case Nothing():
                pass

    def at(self, name: str, at: datetime) -> str | None:
        """Returns the commit that a name pointed to at an instant, None where it did not exist."""
        past = [moment for moment in self.chains.get(name, []) if moment.at <= at]
        return past[-1].commit if past else None

    def rooted(self) -> set[str]:
        """Returns the commits that must be there: of each ref, where it is or ever was, and before.

        What a name pointed to before it was deleted and made again may have been collected between.
        """
        waiting = [
            moment.commit
            for name in self.refs
            for moment in self.chains[name]
            if moment.commit is not None and moment.commit not in self.forgotten
        ]
        return set(self.ancestors(waiting))

    def ancestors(self, commits: Iterable[str]) -> Iterator[str]:
        """Yields the commits and all they come from, each once."""
        waiting, seen = list(commits), set[str]()
        while waiting:
            commit = waiting.pop()
            if commit not in seen:
                seen.add(commit)
                yield commit
                waiting += self.commits[commit].parents

    def merge_bases(self, left: str, right: str) -> set[str]:
        """Returns the common ancestors that are farthest from the beginning."""
        common = set(self.ancestors([left])) & set(self.ancestors([right]))
        latest = max(self.generation(commit) for commit in common)
        return {commit for commit in common if self.generation(commit) == latest}

    def generation(self, commit: str) -> int:
        found: dict[str, int] = {}
        waiting = [commit]
        while waiting:
            parents = self.commits[waiting[-1]].parents
            missing = [parent for parent in parents if parent not in found]
            if missing:
                waiting += missing
            else:
                last = waiting.pop()
                found[last] = 1 + max((found[parent] for parent in parents), default=0)
        return found[commit]

    def live_digests(self) -> set[str]:
        heads = [self.commits[ref.commit].contents for ref in self.refs.values()]
        return set(digests(value for contents in heads for value in contents.values()))

    def _write(self, act: Write, is_stored: bool) -> Effect | Refused:
        if not is_stored and self.erased & set(digests(act.changes.values())):
            return Refused("erased")
        closed = self._closed(act.ref)
        if closed:
            return closed
        stands_for = (act.ref, tuple(sorted(act.changes.items())))
        if act.token in self.tokens:
            known, commit = self.tokens[act.token]
            if known != stands_for:
                return Refused("token-reused")
            return Refused("no-such-commit") if commit in self.forgotten else Nothing(commit)
        base = self.commits[act.base].contents
        after = {key: _after(base.get(key), change) for key, change in act.changes.items()}
        return self._edit(act.ref, act.base, after, act.reads, (), act.token, stands_for)

    def _merge(self, act: Merge) -> Effect | Refused:
        base, ours, theirs = (
            self.commits[commit].contents for commit in (act.base, act.ours, act.theirs)
        )
        changed = sorted(key for key in base | theirs if base.get(key) != theirs.get(key))
        fights = [key for key in changed if ours.get(key) not in (base.get(key), theirs.get(key))]
        if fights:
            return Refused("merge-conflict", tuple(fights))
        after = {key: theirs.get(key) for key in changed if ours.get(key) == base.get(key)}
        return self._closed(act.ref) or self._edit(
            act.ref, act.ours, after, frozenset(), (act.theirs,)
        )

    def _undo(self, act: Undo) -> Effect | Refused:
        closed = self._closed(act.ref)
        if closed:
            return closed
        if self.refs[act.ref].kind is not RefKind.BRANCH:
            return Refused("wrong-ref-kind")
        head, undone = self.refs[act.ref].commit, self.commits[act.commit]
        if act.commit not in self.ancestors([head]) or not undone.parents:
            return Refused("nothing-to-undo")
        before, now = self.commits[undone.parents[0]].contents, self.commits[head].contents
        keys = before | undone.contents
        changed = sorted(key for key in keys if before.get(key) != undone.contents.get(key))
        moved = [
            key
            for key in changed
            if now.get(key) not in (before.get(key), undone.contents.get(key))
        ]
        if moved:
            return Refused("keys-moved", tuple(moved))
        after = {key: before.get(key) for key in changed if now.get(key) != before.get(key)}
        if not after:
            return Refused("nothing-to-undo")
        return self._edit(act.ref, head, after, frozenset(), ())

    def _edit(
        self,
        ref: str,
        base: str,
        after: Mapping[str, Value | None],
        reads: frozenset[str],
        merged: tuple[str, ...],
        token: str | None = None,
        stands_for: object = None,
    ) -> Commits | Refused:
        head = self.refs[ref].commit
        old, now = self.commits[base].contents, self.commits[head].contents
        moved = sorted(key for key in reads | after.keys() if old.get(key) != now.get(key))
        if moved:
            return Refused("keys-moved", tuple(moved))
        if (self.erased | self.erasing) & set(digests(after.values())):
            return Refused("erased")
        if self.refs[ref].kind is RefKind.TAG:
            return Refused("tag-would-move")
        contents = {key: value for key, value in {**now, **after}.items() if value is not None}
        return Commits(ref, Committed((head, *merged), contents), token, stands_for)

    def _create(self, name: str, ref: Name) -> Names | Refused:
        if name in self.refs:
            return Refused("ref-exists")
        if ref.commit in self.forgotten:
            return Refused("no-such-commit")
        chain = [moment for moment in self.chains.get(name, []) if moment.commit is not None]
        is_tag = ref.kind is RefKind.TAG
        if any((is_tag or past.tags) and past.commit != ref.commit for past in chain) or (
            not is_tag and any(past.tags for past in chain)
        ):
            return Refused("tag-would-move")
        return Names(((name, ref),), is_tag)

    def _rename(self, name: str, new: str) -> Names | Refused:
        closed = self._closed(name)
        if closed:
            return closed
        if new in self.refs:
            return Refused("ref-exists")
        ref = self.refs[name]
        made = self._create(new, Name(ref.kind, ref.commit, False))
        if isinstance(made, Refused):
            return made
        return Names(((name, None), *made.after), made.tags)

    def _closed(self, name: str) -> Refused | None:
        if name not in self.refs:
            return Refused("no-such-ref")
        return Refused("protected-branch") if self.refs[name].is_protected else None

    def _point(self, name: str, ref: Name | None, at: datetime, tags: bool) -> None:
        """Adds to a name's chain, in which time never runs back."""
        chain = self.chains.setdefault(name, [])
        at = max(at, chain[-1].at) if chain else at
        chain.append(Moment(at, ref.commit if ref else None, tags))
        if ref is None:
            del self.refs[name]
        else:
            self.refs[name] = ref


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def digests(values: Iterable[Value | Append | None]) -> Iterator[str]:
    """Yields the objects that values name."""
    return (digest_of(value.text) for value in values if isinstance(value, Blob))


def _after(before: Value | None, change: Blob | Append | None) -> Value | None:
    if not isinstance(change, Append):
        return change
    numbers = before.numbers if isinstance(before, Rows) else ()
    return Rows(numbers + change.numbers, change.state)
