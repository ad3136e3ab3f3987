"""Two processes at work on one lake, in any interleaving of their steps, each of which may be killed.

A worker waits at every named place; the machine chooses which goes on. An act takes place where its
transaction commits, so after every step the lake has to hold exactly what a model of dicts says.
No worker is told to go on where it would wait for a lock of the other: it would go on later, and
nothing else. Two writers never have a transaction open at once here, on PostgreSQL neither.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from uuid import uuid4

import pytest
from acts import (
    Act,
    Append,
    Answer,
    Blob,
    Collect,
    Create,
    Delete,
    Erase,
    Merge,
    Refused,
    Rename,
    Write,
)
from agreement import Agreement
from databases import on_both
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model import Commits, Effect, Names, Erases, digest_of, digests
from workers import IN_MEMORY, Stop, Worker

from instep.history.ancestry import merge_base
from instep.history.refs import RefKind
from instep.history.repository import create_repository
from instep.history.store import Database

BRANCHES = ("a", "b")
one = st.sampled_from([0, 1])
refs = st.sampled_from(BRANCHES)
keys = st.sampled_from(["contract/x", "contract/y", "contract/z"])
texts = st.sampled_from(["one", "two", "three", "four"])
edits = st.dictionaries(
    keys, st.one_of(st.builds(Blob, texts), st.none()), min_size=1, max_size=2
)  # fmt: skip
appends = st.dictionaries(st.just("table/t"), st.lists(st.integers(0, 9), min_size=1, max_size=2))


@dataclass(slots=True)
class Busy:
    """An act under way. `took_place` is when its effect was seen, in its transaction."""

    act: Act
    at: datetime
    place: str
    erased_before: frozenset[str]
    holds_lake: bool = False
    holds_blobs: bool = False
    took_place: bool = False

    @property
    def is_alone_with_blobs(self) -> bool:
        return isinstance(self.act, Collect | Erase)


class TwoProcesses(RuleBasedStateMachine):
    database: Database | None = None

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=IN_MEMORY)
        self.now = datetime(2013, 12, 1, tzinfo=UTC)
        url = self.database
        place = Database(url.url, f"lake_{uuid4().hex}") if url else None
        root = Path(self.folder.name) / "lake"
        self.repo = create_repository(root, lambda: self.now, "ana", place)
        self.lake = Agreement(self.repo)
        self.model = self.lake.model
        self.lake.begin()
        self.workers = (Worker(root, place), Worker(root, place))
        self.busy: list[Busy | None] = [None, None]
        self.states = count(1)

    def teardown(self) -> None:
        try:
            self.finish_both()
            self.lake.hold()
        finally:
            for worker in self.workers:
                worker.kill()
            self.repo.store.close()
            self.folder.cleanup()

    @initialize()
    def branches(self) -> None:
        main = self.model.refs["main"].commit
        for name in BRANCHES:
            self.begin(0, Create(name, RefKind.BRANCH, main))
            self.finish(0)

    @precondition(lambda self: None in self.busy)
    @rule(who=one, ref=refs, edits=edits, appends=appends, reads=st.frozensets(keys, max_size=1))
    def edit(
        self,
        who: int,
        ref: str,
        edits: dict[str, Blob | None],
        appends: dict[str, list[int]],
        reads: frozenset[str],
    ) -> None:
        rows = {key: Append(tuple(new), next(self.states)) for key, new in appends.items()}
        self.begin(who, Write(ref, self.head(ref), {**edits, **rows}, reads))

    @precondition(lambda self: None in self.busy)
    @rule(who=one, ref=refs, key=keys, text=texts)
    def edit_one_key(self, who: int, ref: str, key: str, text: str) -> None:
        self.begin(who, Write(ref, self.head(ref), {key: Blob(text)}))

    @precondition(lambda self: None in self.busy)
    @rule(who=one, ref=refs, other=refs)
    def merge(self, who: int, ref: str, other: str) -> None:
        ours, theirs = self.head(ref), self.head(other)
        with self.repo.store.reading() as tx:
            base = merge_base(tx, ours, theirs)
        assert base in self.model.merge_bases(ours, theirs)
        self.begin(who, Merge(ref, ours, theirs, base))

    @precondition(lambda self: None in self.busy)
    @rule(who=one, ref=refs, act=st.sampled_from(["create", "delete", "delete", "rename"]))
    def change_name(self, who: int, ref: str, act: str) -> None:
        match act:
            case "create":
                self.begin(who, Create(ref, RefKind.BRANCH, self.head("main")))
            case "rename":
                self.begin(who, Rename(ref, BRANCHES[1 - BRANCHES.index(ref)]))
            case _:
                self.begin(who, Delete(ref))

    @precondition(lambda self: None in self.busy)
    @rule(who=one)
    def collect(self, who: int) -> None:
        self.begin(who, Collect(0))

    @precondition(lambda self: None in self.busy)
    @rule(who=one, text=texts)
    def erase(self, who: int, text: str) -> None:
        self.begin(who, Erase(digest_of(text)))

    @precondition(lambda self: any(self.busy))
    @rule(who=one, steps=st.integers(1, 12))
    def go_on(self, who: int, steps: int) -> None:
        for _ in range(steps):
            if self.may_go(who):
                self.step(who)

    @precondition(lambda self: any(self.busy))
    @rule(who=one, place=st.sampled_from(["writer.", "blobs.", "edit.", "transaction.", "gc."]))
    def go_to(self, who: int, place: str) -> None:
        """Lets one go on to a place of some kind, if it comes to one."""
        self.run(who, lambda busy: busy.place.startswith(place))

    @precondition(lambda self: any(self.busy))
    @rule(who=one)
    def finish(self, who: int) -> None:
        self.run(who, lambda busy: False)

    @precondition(lambda self: any(self.busy))
    @rule(who=one)
    def kill(self, who: int) -> None:
        busy = self.busy[who]
        if busy is not None:
            self.workers[who].kill()
            self.busy[who] = None

    @precondition(lambda self: not any(self.busy) and self.lake.has_garbage())
    @rule()
    def collect_all(self) -> None:
        """What nothing reaches goes, once nobody is at work: nothing is spared for good."""
        for _ in range(4):
            self.begin(0, Collect(0))
            self.finish(0)
        self.lake.hold()
        self.lake.hold_only_what_is_needed()

    @invariant()
    def agree(self) -> None:
        self.lake.hold()

    def finish_both(self) -> None:
        while any(self.busy):
            assert self.may_go(0) or self.may_go(1), "each waits for the other"
            self.finish(0)
            self.finish(1)

    def begin(self, who: int, act: Act) -> None:
        """Starts an act in a worker that has none; what it begins from is still so when it waits."""
        who = who if self.busy[who] is None else 1 - who
        self.now += timedelta(seconds=1)
        erased = frozenset(self.model.erased)
        self.busy[who] = Busy(act, self.now, "", erased)
        self.arrive(who, self.workers[who].start(act, self.now))

    def run(self, who: int, until: Callable[[Busy], bool]) -> None:
        while self.may_go(who):
            self.step(who)
            busy = self.busy[who]
            if busy is None or until(busy):
                return

    def may_go(self, who: int) -> bool:
        busy, other = self.busy[who], self.busy[1 - who]
        if busy is None or other is None:
            return busy is not None
        if busy.place == "transaction.begin.before":
            return not other.holds_lake
        if busy.place == "blobs.lock.before":
            alone = busy.is_alone_with_blobs or other.is_alone_with_blobs
            return not (other.holds_blobs and alone)
        return True

    def step(self, who: int) -> None:
        busy = self.busy[who]
        assert busy is not None
        busy.holds_lake = busy.holds_lake or busy.place == "transaction.begin.before"
        busy.holds_blobs = busy.holds_blobs or busy.place == "blobs.lock.before"
        self.arrive(who, self.workers[who].go())

    def arrive(self, who: int, told: Stop | Answer) -> None:
        """Notes where a worker has come to, or holds its answer to the model."""
        busy = self.busy[who]
        assert busy is not None
        if isinstance(told, Stop):
            busy.place = told.place
            if told.place in ("transaction.commit.after", "transaction.begin.before"):
                busy.holds_lake = False
            if told.place == "blobs.lock.after":
                busy.holds_blobs = False
            if told.place == "transaction.commit.after":
                self.take_place(busy)
            return
        self.busy[who] = None
        other = self.busy[1 - who]
        if other and isinstance(other.act, Collect) and told == Refused("collecting"):
            assert isinstance(busy.act, Collect)
        elif busy.took_place:
            self.lake.acknowledge(busy.act, told)
        else:
            expected = self.model.expected(busy.act, is_stored=True)
            self.lake.judge(busy.act, expected, told, busy.at)

    def take_place(self, busy: Busy) -> None:
        """Changes the model by the act whose transaction has just been committed."""
        effect = self.model.expected(busy.act, is_stored=True)
        match effect:
            case Commits(ref):
                self.lake.take(effect, busy.at, self.repo.resolve(ref))
                new = digests(busy.act.changes.values()) if isinstance(busy.act, Write) else ()
                assert busy.erased_before.isdisjoint(new), "what was erased was stored again"
                busy.took_place = True
            case Names() | Erases():
                self.lake.take(effect, busy.at, None)
                busy.took_place = True

    def head(self, ref: str) -> str:
        known = self.model.refs.get(ref, self.model.refs["main"])
        return known.commit


few = pytest.param(20, 40, id="few")
many = pytest.param(500, 80, id="many", marks=pytest.mark.long)


@on_both
@pytest.mark.parametrize(("examples", "steps"), [few, many])
def test_two_processes_leave_what_the_model_says_in_whatever_order_they_take_turns(
    database: Database | None, examples: int, steps: int
) -> None:
    class Machine(TwoProcesses):
        pass

    Machine.database = database
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
