"""Any history of acts and crashes leaves a lake that holds exactly what a model of dicts says.

Each act is done in this process, or in a child that is killed with SIGKILL at one of its places.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from itertools import count
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
    precondition,
    rule,
    run_state_machine_as_test,
)
from lake_acts import (
    Act,
    Append,
    Blob,
    Collect,
    Create,
    Delete,
    Done,
    Erase,
    Merge,
    Protect,
    Rename,
    Undo,
    Write,
    perform,
)
from model import digest_of
from workers import IN_MEMORY, Stop, Worker

from instep.errors import NotFoundError
from instep.history.ancestry import merge_base
from instep.history.refs import RefKind
from instep.history.repository import create_repository
from instep.history.store import Database

_DAY = timedelta(days=1)
_STORED: dict[type, int] = {Blob: 8, Append: 45, type(None): 0}
_ON_NAMES = ("rename", "rename", "protect", "open", "open")

NAMES = ("a", "b", "c", "v")
which = st.integers(0, 9)
keys = st.sampled_from(["contract/x", "contract/y", "contract/z"])
tables = st.sampled_from(["table/t", "table/u"])
texts = st.sampled_from(["one", "two", "three", "four", "five", "six", "seven"])
blobs = st.builds(Blob, texts)
edits = st.dictionaries(keys, st.one_of(blobs, blobs, st.none()), min_size=1, max_size=3)
appends = st.dictionaries(tables, st.lists(st.integers(0, 9), min_size=1, max_size=3), max_size=1)
back = st.sampled_from([0, 0, 0, 1, 2, 5, 8])
dies = st.one_of(st.none(), st.none(), st.integers(0, 99))
"""How far an act gets before its process is killed, in percent of its places."""


class OneProcess(RuleBasedStateMachine):
    database: Database | None = None

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=IN_MEMORY)
        self.now = datetime(2013, 12, 1, tzinfo=UTC)
        url = self.database
        place = Database(url.url, f"lake_{uuid4().hex}") if url else None
        root = Path(self.folder.name) / "lake"
        self.repo = create_repository(root, lambda: self.now, "ana", place)
        self.worker = Worker(root, place)
        self.lake = Agreement(self.repo)
        self.model = self.lake.model
        self.lake.begin()
        self.states = count(1)
        self.tokened: list[Write] = []

    def teardown(self) -> None:
        self.worker.kill()
        self.repo.store.close()
        self.folder.cleanup()

    @initialize()
    def branches(self) -> None:
        for name in NAMES[:2]:
            self.carry_out(Create(name, RefKind.BRANCH, self.earlier(0, "main")), None)

    @rule(
        which=which, back=back, edits=edits, appends=appends,
        reads=st.frozensets(keys, max_size=2), dies=dies,
    )  # fmt: skip
    def edit(
        self,
        which: int,
        back: int,
        edits: dict[str, Blob | None],
        appends: dict[str, list[int]],
        reads: frozenset[str],
        dies: int | None,
    ) -> None:
        ref = self.name(which)
        rows = {key: Append(tuple(new), next(self.states)) for key, new in appends.items()}
        self.carry_out(Write(ref, self.earlier(back, ref), {**edits, **rows}, reads), dies)

    @rule(which=which, key=keys, text=texts)
    def edit_one_key(self, which: int, key: str, text: str) -> None:
        ref = self.name(which)
        self.carry_out(Write(ref, self.earlier(0, ref), {key: Blob(text)}), None)

    @rule(which=which, back=st.integers(1, 4), key=keys, text=texts, read=keys)
    def edit_what_was(self, which: int, back: int, key: str, text: str, read: str) -> None:
        base = self.earlier(back)
        write = Write(self.name(which), base, {key: Blob(text)}, frozenset([read]))
        self.carry_out(write, None)

    @rule(which=which, edits=edits, token=st.sampled_from(["t1", "t2", "t3", "t4"]), dies=dies)
    def edit_with_token(
        self, which: int, edits: dict[str, Blob | None], token: str, dies: int | None
    ) -> None:
        ref = self.name(which)
        write = Write(ref, self.earlier(0, ref), edits, token=token)
        self.tokened.append(write)
        self.carry_out(write, dies)

    @precondition(lambda self: self.tokened)
    @rule(which=which, dies=dies)
    def edit_with_token_again(self, which: int, dies: int | None) -> None:
        before = self.tokened[-1 - which % len(self.tokened)]
        base = self.earlier(0, before.ref)
        self.carry_out(Write(before.ref, base, before.changes, token=before.token), dies)

    @rule(which=which, other=which, dies=dies)
    def merge(self, which: int, other: int, dies: int | None) -> None:
        ref = self.name(which)
        ours, theirs = self.earlier(0, ref), self.earlier(0, self.name(other))
        with self.repo.store.reading() as tx:
            base = merge_base(tx, ours, theirs)
        assert base in self.model.merge_bases(ours, theirs)
        self.carry_out(Merge(ref, ours, theirs, base), dies)

    @rule(which=which, back=st.integers(0, 4), dies=dies)
    def undo(self, which: int, back: int, dies: int | None) -> None:
        ref = self.name(which)
        self.carry_out(Undo(ref, self.earlier(back, ref)), dies)

    @rule(name=st.sampled_from(NAMES), back=back, is_tag=st.sampled_from([False, False, True]))
    def create(self, name: str, back: int, is_tag: bool) -> None:
        kind = RefKind.TAG if is_tag else RefKind.BRANCH
        self.carry_out(Create(name, kind, self.earlier(back)), None)

    @rule(which=which, new=st.sampled_from(NAMES), act=st.sampled_from(_ON_NAMES), dies=dies)
    def change_name(self, which: int, new: str, act: str, dies: int | None) -> None:
        name = self.name(which)
        match act:
            case "rename":
                self.carry_out(Rename(name, new), dies)
            case _:
                self.carry_out(Protect(name, act == "protect"), dies)

    @rule(which=which, dies=dies)
    def delete(self, which: int, dies: int | None) -> None:
        self.carry_out(Delete(self.name(which)), dies)

    @rule(which=which, dies=dies)
    def erase(self, which: int, dies: int | None) -> None:
        values = (v for made in self.model.commits.values() for v in made.contents.values())
        known = sorted({value.text for value in values if isinstance(value, Blob)})
        text = known[which % len(known)] if known else "none"
        self.carry_out(Erase(digest_of(text)), dies)

    @rule(keep_days=st.sampled_from([0, 0, 30]), days=st.integers(0, 40), dies=dies)
    def collect(self, keep_days: int, days: int, dies: int | None) -> None:
        self.now += days * _DAY
        before = self.lake.objects(), self.known_commits()
        self.carry_out(Collect(keep_days), dies)
        if keep_days:
            assert (self.lake.objects(), self.known_commits()) == before, "deleted too early"

    @rule(keep_days=st.sampled_from([0, 1]))
    def collect_all(self, keep_days: int) -> None:
        """What nothing reaches goes: first commits, then what only they named."""
        if not self.lake.has_garbage():
            return
        for _ in range(2 * (keep_days + 2)):
            self.now += keep_days * _DAY
            assert perform(self.repo, Collect(keep_days)) == Done()
        self.lake.hold()
        self.lake.hold_only_what_is_needed()

    @rule(name=st.sampled_from(NAMES), seconds=st.integers(0, 20))
    def look_back(self, name: str, seconds: int) -> None:
        at = self.now - timedelta(seconds=seconds)
        expected = self.model.at(name, at)
        try:
            found = self.repo.resolve(f"{name}@{at.isoformat()}")
        except NotFoundError as error:
            assert error.kind == "no-such-ref"
            assert expected is None
        else:
            assert found == expected

    @invariant()
    def agree(self) -> None:
        self.lake.hold()

    def carry_out(self, act: Act, dies: int | None) -> None:
        """Does an act, here or in a process that may die of it, and holds the lake to the model."""
        self.now += timedelta(seconds=1)
        expected = self.model.expected(act)
        if dies is None:
            self.lake.judge(act, expected, perform(self.repo, act), self.now)
            return
        told = self.worker.start(act, self.now)
        for _ in range(dies * _places(act) // 100):
            if isinstance(told, Stop):
                told = self.worker.go()
        if isinstance(told, Stop):
            self.worker.kill()
            self.lake.recover(expected, self.now)
        else:
            self.lake.judge(act, expected, told, self.now)

    def name(self, which: int) -> str:
        """Returns a ref's name: mostly of one that is there and is not main."""
        live = sorted(self.model.refs.keys() - {"main"})
        if which == 9 or not live:
            return "main" if which % 2 else NAMES[which % len(NAMES)]
        return live[which % len(live)]

    def earlier(self, back: int, ref: str = "") -> str:
        """Returns the commit that a ref is at, or with `back` one made some time ago."""
        if not back and ref in self.model.refs:
            return self.model.refs[ref].commit
        rooted = self.model.rooted()
        made = [commit for commit in self.model.commits if commit in rooted]
        return made[-1 - back % len(made)]

    def known_commits(self) -> set[str]:
        with self.repo.store.reading() as tx:
            return {str(row[0]) for row in tx.rows("select id from commits")}


def _places(act: Act) -> int:
    """Returns about how many places an act passes: a crash is spread evenly over them."""
    match act:
        case Write():
            return 6 + sum(_STORED[type(change)] for change in act.changes.values())
        case Collect():
            return 30
        case Erase():
            return 20
        case _:
            return 6


few = pytest.param(10, 30, id="few")
many = pytest.param(400, 60, id="many", marks=pytest.mark.long)


@on_both
@pytest.mark.parametrize(("examples", "steps"), [few, many])
def test_any_history_with_crashes_is_what_the_model_says(
    database: Database | None, examples: int, steps: int
) -> None:
    class Machine(OneProcess):
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
