"""Whether a lake holds what the model says: read anew, and by ways that the acts do not use."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from itertools import combinations

import pytest
from lake_acts import CONTRACT, Act, Answer, Blob, Done, Erase, Refused, Write
from model import (
    Commits,
    Committed,
    Contents,
    Effect,
    Erases,
    Model,
    Moment,
    Name,
    Names,
    Nothing,
    Rows,
    Value,
    digest_of,
    digests,
)

from instep.canonical import JsonObject
from instep.cli.wholeness import check
from instep.errors import NotFoundError
from instep.history.ancestry import merge_base
from instep.history.erasure import erased_digests
from instep.history.forgetting import forgotten_commits
from instep.history.objects import ERASED
from instep.history.operations import is_whole, operations
from instep.history.refs import get_ref, list_refs
from instep.history.repository import Repository
from instep.history.tree import Nodes
from instep.tables.content import TableContent
from instep.tables.read import data_files


@dataclass(slots=True)
class Agreement:
    """A lake and its model; `states` are what the tables' states are in the lake."""

    repo: Repository
    model: Model = field(default_factory=Model)
    states: dict[int, JsonObject] = field(default_factory=dict)

    def begin(self) -> None:
        """Takes over a new lake: main at its first commit, and nothing in it."""
        with self.repo.store.reading() as tx:
            main = get_ref(tx, "main")
        self.model.commits[main.commit] = Committed((), {})
        self.model.refs["main"] = Name(main.kind, main.commit, True)
        self.model.chains["main"] = [Moment(main.created_at, main.commit)]

    def judge(self, act: Act, effect: Effect | Refused, answer: Answer, at: datetime) -> None:
        """Holds that an answer is the one expected, and changes the model by it."""
        if self._may_be_refused(act, effect, answer):
            return
        if isinstance(effect, Refused):
            assert answer == effect, (act, effect, answer)
            return
        assert isinstance(answer, Done), (act, effect, answer)
        if isinstance(effect, Nothing):
            assert answer.commit == effect.commit, (act, effect, answer)
        self.take(effect, at, answer.commit)
        self.acknowledge(act, answer)

    def acknowledge(self, act: Act, answer: Answer) -> None:
        """Holds that who is told that an act is done is told the truth."""
        assert isinstance(answer, Done), (act, answer)
        if isinstance(act, Erase):
            self.model.erasing.discard(act.digest)
            self.model.erased.add(act.digest)
        if answer.commit is not None:
            assert answer.commit in self.model.commits, (act, answer)

    def recover(self, effect: Effect | Refused, at: datetime) -> None:
        """Reads back whether an act whose process was killed was done, wholly or not at all."""
        match effect:
            case Commits(ref):
                with self.repo.store.reading() as tx:
                    is_done = len(operations(tx, ref)) > len(self.model.chains[ref])
                    head = get_ref(tx, ref).commit
                if is_done:
                    self.take(effect, at, head)
            case Names(after):
                name = after[0][0]
                with self.repo.store.reading() as tx:
                    is_done = len(operations(tx, name)) > len(self.model.chains.get(name, []))
                if is_done:
                    self.take(effect, at, None)
            case Erases(digest):
                with self.repo.store.reading() as tx:
                    is_done = digest in erased_digests(tx) - self.model.erased
                if is_done:
                    self.take(effect, at, None)

    def take(self, effect: Effect, at: datetime, commit: str | None) -> None:
        """Changes the model by what was done, and learns which table states that made."""
        self.model.apply(effect, at, commit)
        if isinstance(effect, Commits) and commit is not None:
            found = self.repo.entries(commit)
            for key, value in effect.new.contents.items():
                if isinstance(value, Rows):
                    self.states.setdefault(value.state, found[key])

    def learn_forgotten(self) -> None:
        """Reads which commits were collected: none that a root names."""
        with self.repo.store.reading() as tx:
            forgotten = forgotten_commits(tx)
        assert not forgotten & self.model.rooted(), "a commit that a root names was forgotten"
        self.model.forgotten |= forgotten

    def hold(self) -> None:
        """Holds every invariant."""
        repo, model = self.repo, self.model
        self.learn_forgotten()
        rooted = model.rooted()
        with repo.store.reading() as tx:
            assert model.refs == {
                ref.name: Name(ref.kind, ref.commit, ref.is_protected) for ref in list_refs(tx)
            }
            for name, chain in model.chains.items():
                found = operations(tx, name)
                assert is_whole(found), name
                assert [(one.at, one.after) for one in found] == [
                    (moment.at, moment.commit) for moment in chain
                ], name
            heads = {ref.commit for ref in model.refs.values()}
            for left, right in combinations(sorted(heads), 2):
                assert merge_base(tx, left, right) in model.merge_bases(left, right)
        self._hold_contents(rooted)
        check(repo)

    def _hold_contents(self, rooted: set[str]) -> None:
        model, store = self.model, self.repo.store
        fresh = Repository(
            self.repo.root, store, self.repo.objects, Nodes(store), self.repo.clock
        )  # fmt: skip
        values = set[Value]()
        for commit in sorted(rooted):
            committed = model.commits[commit]
            assert fresh.commit(commit).parents == committed.parents
            assert fresh.entries(commit) == self._contents(committed.contents), commit
            values.update(committed.contents.values())
        for value in values:
            self._hold_readable(value)

    def _hold_readable(self, value: Value) -> None:
        match value:
            case Blob(text):
                digest = digest_of(text)
                if digest in self.model.erased:
                    with pytest.raises(NotFoundError) as error:
                        self.repo.objects.get(digest)
                    assert error.value.kind == "erased"
                elif digest not in self.model.erasing:
                    assert self.repo.objects.get(digest) == text.encode()
            case Rows(numbers, state):
                table = TableContent.from_content(self.states[state])
                found = [n for file in data_files(self.repo.root, table) for n in _read(file.path)]
                assert sorted(found) == sorted(numbers)

    def hold_only_what_is_needed(self) -> None:
        """Holds that nothing is left that no root names: commits, objects and data files."""
        rooted = self.model.rooted()
        with self.repo.store.reading() as tx:
            assert {str(row[0]) for row in tx.rows("select id from commits")} == rooted
        values = [v for commit in rooted for v in self.model.commits[commit].contents.values()]
        gone = self.model.erased | self.model.erasing
        assert self.objects() - gone == set(digests(v for v in values)) - gone
        tables = [
            TableContent.from_content(self.states[v.state]) for v in values if isinstance(v, Rows)
        ]
        needed = {file.path for table in tables for file in data_files(self.repo.root, table)}
        assert {str(path) for path in self.repo.root.glob("tables/*/data/*")} == needed

    def has_garbage(self) -> bool:
        """Says whether there are commits or objects that no root names."""
        commits = self.model.commits.keys() - self.model.forgotten - self.model.rooted()
        return bool(commits or self.objects() - self.needed_digests() - self.model.erasing)

    def objects(self) -> set[str]:
        """Returns the digests whose bytes are in the lake."""
        paths = self.repo.root.glob("objects/??/*")
        return {path.name for path in paths if not path.name.endswith(ERASED)}

    def needed_digests(self) -> set[str]:
        rooted = (self.model.commits[commit].contents for commit in self.model.rooted())
        return set(digests(value for contents in rooted for value in contents.values()))

    def _may_be_refused(self, act: Act, effect: Effect | Refused, answer: Answer) -> bool:
        """Says whether an answer is right that depends on what the model does not know."""
        match act, answer:
            case Erase(digest), Refused("no-such-object"):
                known = self.needed_digests() | self.model.erasing | self.model.erased
                return digest not in known
            case Write(), Refused("erased"):
                known = self.model.erasing | self.model.erased
                return not known.isdisjoint(digests(act.changes.values()))
        return False

    def _contents(self, contents: Contents) -> dict[str, JsonObject]:
        return {
            key: {"type": CONTRACT, "blob": digest_of(value.text)}
            if isinstance(value, Blob)
            else self.states[value.state]
            for key, value in contents.items()
        }


def _read(path: str) -> list[int]:
    import pyarrow.parquet as pq

    return [n for n in pq.read_table(path).column(0).to_pylist() if n is not None]
