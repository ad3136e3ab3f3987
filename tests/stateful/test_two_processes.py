"""Two processes on one lake, in any interleaving of their steps; each may be killed at any.

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
from functools import partial
from itertools import count, product
from pathlib import Path
from uuid import uuid4

import pytest
from agreement import Agreement
from databases import on_both
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from lake_acts import (
    Act,
    Answer,
    Append,
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
from model import Commits, Erases, Names, digest_of, digests
from workers import IN_MEMORY, Stop, Worker

from instep.history.ancestry import merge_base
from instep.history.refs import RefKind
from instep.history.repository import create_repository
from instep.history.store import Database

BRANCHES = ("a", "b")
_TO_THE_END = 1_000_000
TEXTS = ("one", "two", "three", "four")
one = st.sampled_from([0, 1])
refs = st.sampled_from(BRANCHES)
keys = st.sampled_from(["contract/x", "contract/y", "contract/z"])
texts = st.sampled_from(TEXTS)
edits = st.dictionaries(keys, st.one_of(st.builds(Blob, texts), st.none()), max_size=2)
rows = st.one_of(st.none(), st.lists(st.integers(0, 9), min_size=1, max_size=2))
steps = st.integers(0, 40)
"""How many places an act passes before the other may go on."""


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
        for name in BRANCHES:
            main = self.head("main")
            self.begin(0, partial(Create, name, RefKind.BRANCH, main), _TO_THE_END)

    @rule(who=one, ref=st.sampled_from([*BRANCHES, "main"]), edits=edits, rows=rows,
          reads=st.frozensets(keys, max_size=1), steps=steps)  # fmt: skip
    def edit(
        self,
        who: int,
        ref: str,
        edits: dict[str, Blob | None],
        rows: list[int] | None,
        reads: frozenset[str],
        steps: int,
    ) -> None:
        """On main it is refused, and leaves objects that nothing names."""
        table = {} if rows is None else {"table/t": Append(tuple(rows), next(self.states))}
        self.begin(who, lambda: Write(ref, self.head(ref), {**edits, **table}, reads), steps)

    @rule(who=one, ref=refs, key=keys, which=st.integers(0, 3), steps=st.integers(0, 12))
    def edit_with_what_is_there(self, who: int, ref: str, key: str, which: int, steps: int) -> None:
        """Names an object that lies there and that no root names, where there is one."""

        def write() -> Write:
            unnamed = self.lake.objects() - self.lake.needed_digests()
            found = [text for text in TEXTS if digest_of(text) in unnamed] or TEXTS
            return Write(ref, self.head(ref), {key: Blob(found[which % len(found)])})

        self.begin(who, write, steps)

    @rule(who=one, ref=refs, other=refs, steps=steps)
    def merge(self, who: int, ref: str, other: str, steps: int) -> None:
        def merge() -> Merge:
            ours, theirs = self.head(ref), self.head(other)
            with self.repo.store.reading() as tx:
                base = merge_base(tx, ours, theirs)
            assert base in self.model.merge_bases(ours, theirs)
            return Merge(ref, ours, theirs, base)

        self.begin(who, merge, steps)

    @rule(who=one, ref=refs, back=st.integers(0, 3), steps=steps)
    def create(self, who: int, ref: str, back: int, steps: int) -> None:
        """Points to a commit that no root names any more, where there is one."""

        def create() -> Create:
            known = [one for one in self.model.commits if one not in self.model.forgotten]
            lost = [one for one in known if one not in self.model.rooted()] or known
            return Create(ref, RefKind.BRANCH, lost[-1 - back % len(lost)])

        self.begin(who, create, steps)

    @rule(who=one, ref=refs, steps=steps, is_renamed=st.booleans())
    def delete(self, who: int, ref: str, steps: int, is_renamed: bool) -> None:
        other = BRANCHES[1 - BRANCHES.index(ref)]
        self.begin(who, lambda: Rename(ref, other) if is_renamed else Delete(ref), steps)

    @rule(who=one, steps=steps)
    def collect(self, who: int, steps: int) -> None:
        self.begin(who, lambda: Collect(0), steps)

    @rule(who=one)
    def collect_twice(self, who: int) -> None:
        """Deletes what nothing names and nobody needs, whatever the other is at."""
        who = who if self.busy[who] is None else 1 - who
        for _ in range(2):
            if self.busy[who] is None:
                self.begin(who, lambda: Collect(0), _TO_THE_END)

    @rule(who=one, which=st.integers(0, 3), steps=steps)
    def erase(self, who: int, which: int, steps: int) -> None:
        def erase() -> Erase:
            there = self.lake.objects()
            known = [digest_of(text) for text in TEXTS if digest_of(text) in there]
            return Erase(known[which % len(known)] if known else digest_of("none"))

        self.begin(who, erase, steps)

    @rule(who=one, steps=steps)
    def go_on(self, who: int, steps: int) -> None:
        self.run(who, steps)

    @rule(who=one)
    def finish(self, who: int) -> None:
        self.run(who, _TO_THE_END)

    @rule(who=one)
    def kill(self, who: int) -> None:
        busy = self.busy[who]
        if busy is not None:
            self.workers[who].kill()
            self.busy[who] = None

    @rule()
    def collect_all(self) -> None:
        """What nothing reaches goes, once nobody is at work: nothing is spared for good."""
        if any(self.busy) or not self.lake.has_garbage():
            return
        for _ in range(4):
            self.begin(0, lambda: Collect(0), _TO_THE_END)
        self.lake.hold()
        self.lake.hold_only_what_is_needed()

    @invariant()
    def agree(self) -> None:
        self.lake.hold()

    def finish_both(self) -> None:
        while any(self.busy):
            assert self.may_go(0) or self.may_go(1), "each waits for the other"
            self.run(0, _TO_THE_END)
            self.run(1, _TO_THE_END)

    def begin(self, who: int, act: Callable[[], Act], steps: int) -> None:
        """Starts an act in a worker that is free, or that is done first, and runs some steps of it.

        No rule has a precondition: table ids are random, so that runs differ in small things, and
        Hypothesis must be able to draw the same again.
        """
        who = who if self.busy[who] is None else 1 - who
        self.run(who, _TO_THE_END)
        if self.busy[who] is not None:
            return  # it waits for the other
        self.now += timedelta(seconds=1)
        erased = frozenset(self.model.erased)
        planned = act()
        self.busy[who] = Busy(planned, self.now, "", erased)
        self.arrive(who, self.workers[who].start(planned, self.now))
        self.run(who, steps)

    def run(self, who: int, steps: int) -> None:
        """Lets a worker pass so many places, or fewer where its act ends or it would wait."""
        for _ in range(steps):
            if not self.may_go(who):
                return
            self.step(who)

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
                self.lake.learn_forgotten()
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


few = pytest.param(10, 40, id="few")
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
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


Planned = Callable[[TwoProcesses, str], Act]

ACTS: dict[str, Planned] = {
    "name-an-object": lambda one, lost: Write("a", one.head("a"), {"contract/x": Blob("one")}),
    "grow-a-table": lambda one, lost: Write("a", one.head("a"), {"table/t": Append((2,), 2)}),
    "name-a-lost-commit": lambda one, lost: Create("b", RefKind.BRANCH, lost),
    "delete": lambda one, lost: Delete("a"),
    "collect": lambda one, lost: Collect(0),
    "erase": lambda one, lost: Erase(digest_of("one")),
}
SOME = [("name-an-object", "collect"), ("collect", "name-a-lost-commit")]
pairs = [
    pytest.param(*pair, marks=[] if pair in SOME else pytest.mark.long)
    for pair in product(ACTS, ACTS)
]


@on_both
@pytest.mark.parametrize(("held", "meanwhile"), pairs)
def test_an_act_may_be_held_at_any_place_while_another_is_done(
    database: Database | None, held: str, meanwhile: str
) -> None:
    places = 0
    while _is_held(database, ACTS[held], ACTS[meanwhile], places):
        places += 1
    assert places, "it was held nowhere"


def _is_held(database: Database | None, held: Planned, meanwhile: Planned, places: int) -> bool:
    """Does one act twice while another is held after so many places; False where that had ended."""
    machine = _with_garbage(database)
    lost = next(one for one in machine.model.commits if one not in machine.model.rooted())
    machine.begin(0, lambda: held(machine, lost), places)
    is_held = machine.busy[0] is not None
    for _ in range(2):
        machine.begin(1, lambda: meanwhile(machine, lost), _TO_THE_END)
        machine.agree()
    machine.teardown()
    return is_held


def _with_garbage(database: Database | None) -> TwoProcesses:
    """Returns a lake in which an object and a commit are condemned, and nothing was deleted."""

    class Machine(TwoProcesses):
        pass

    Machine.database = database
    machine = Machine()
    machine.branches()
    blob, table = Blob("one"), Append((1,), 1)
    for act in (
        lambda: Write("main", machine.head("main"), {"contract/x": blob}),
        lambda: Write("b", machine.head("b"), {"contract/y": Blob("two"), "table/t": table}),
        lambda: Delete("b"),
        lambda: Collect(0),
    ):
        machine.begin(0, act, _TO_THE_END)
    return machine
