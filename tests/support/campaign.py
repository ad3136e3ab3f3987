"""One act, broken at every named place, each time from the same state: what must hold after it.

The lake shows the state from before or from after; `doctor` finds nothing wrong; no commit that was
acknowledged is gone; an act that said it succeeded did; one that failed says so in one message; and
the same command, given again, does what is left to do.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commands import Ask, Done, must, start

from instep.canonical import JsonObject
from instep.changes.records import list_changes
from instep.cli.wholeness import check
from instep.clock import system_clock
from instep.errors import InstepError, NotFoundError, OutcomeUnknownError, UnavailableError
from instep.faults import ERRORS
from instep.history.commits import load_commit
from instep.history.dump import dump_lines, load_lines
from instep.history.erasure import erased_digests
from instep.history.postgres import create_postgres, open_postgres
from instep.history.refs import RefKind, list_refs
from instep.history.repository import Repository, home_of, open_repository, open_unchecked
from instep.history.store import Database, Store, Transaction
from instep.pipelines.project import find_lake
from instep.tables.content import TYPE as TABLE
from instep.tables.content import TableContent
from instep.tables.read import row_count

State = dict[str, Any]  # what a lake shows, in facts that two runs of one act share

DATABASE = "SHOP_DATABASE"
"""The secret that holds the address."""

KILLED = -9
FAILED = frozenset({UnavailableError.exit_code})
"""How an act ends whose disk cannot be written."""
UNANSWERED = FAILED | {OutcomeUnknownError.exit_code}
"""How an act ends whose database is silent."""


@dataclass(frozen=True, slots=True)
class World:
    """What acts change: the folder `work`, and the catalog where it is in PostgreSQL."""

    top: Path
    catalog: Catalog | None = None

    @property
    def env(self) -> dict[str, str]:
        """Returns where commands find the database."""
        return {} if self.catalog is None else {DATABASE: self.catalog.reached_by}

    @property
    def work(self) -> Path:
        return self.top / "work"

    @property
    def shop(self) -> Path:
        return self.work / "shop"

    def must(self, *words: str, actor: str = "ana") -> Done:
        return must(*words, at=self.shop, actor=actor, env=self.env)

    def save(self) -> None:
        """Keeps the state that `reset` brings back."""
        shutil.rmtree(self.top / "saved", ignore_errors=True)
        shutil.copytree(self.work, self.top / "saved", copy_function=_copy)
        if self.catalog is not None:
            self.catalog.save()

    def reset(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.top / "saved", self.work, copy_function=_copy, dirs_exist_ok=True)
        if self.catalog is not None:
            self.catalog.reset()


def _copy(source: str, target: str) -> None:
    """Copies a file; one that never changes stays the same one, as collections know it."""
    if {"objects", "tables"} & set(Path(source).parts) and _is_one_disk(source, target):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def _is_one_disk(one: str, other: str) -> bool:
    return Path(one).stat().st_dev == Path(other).parent.stat().st_dev


@dataclass(slots=True)
class Catalog:
    """A schema of PostgreSQL that acts change, and the rows that `reset` brings back."""

    database: Database
    reached_by: str
    """The address that acts are given."""
    _saved: list[str] = field(default_factory=list, repr=False)

    def save(self) -> None:
        self._saved = self.lines()

    def reset(self) -> None:
        self.show(self._saved)

    def lines(self) -> list[str]:
        """Returns every row, as `show` takes them; nothing where there is no catalog."""
        with suppress(NotFoundError):
            store = open_postgres(self.database)
            try:
                with store.reading() as tx:
                    return list(dump_lines(tx))
            finally:
                store.close()
        return []

    def show(self, lines: list[str]) -> None:
        """Makes the catalog what these rows say."""

        def fill(store: Store, tx: Transaction) -> None:
            load_lines(tx, lines)

        self.remove()
        if lines:
            create_postgres(self.database, fill).close()

    def remove(self) -> None:
        import psycopg

        with psycopg.connect(self.database.url) as connection:
            connection.execute(f'drop schema if exists "{self.database.schema}" cascade')


@dataclass(frozen=True, slots=True)
class Act:
    """A command, what brings a world to the state in which it is given, and how it ends again."""

    words: tuple[str, ...]
    prepare: Callable[[World], None]
    again: int = 0
    """How it ends when all is done already."""
    actor: str = "ana"
    at: str = "shop"
    check: Callable[[World], None] | None = None
    """Looks, in the end, at what the lake does not show."""
    seen: Callable[[World], object] | None = None
    """What else tells before from after; nobody is promised it at once."""
    kept: Callable[[World], object] | None = None
    """What it promises besides what the lake shows."""
    is_slow: bool = False
    """Whether only some faults of it are tried, even where there is time for all."""
    ask: Ask | None = None
    """Asks the server that it starts; once that has answered, the act has said that it is done."""

    @property
    def name(self) -> str:
        return " ".join(self.words)


@dataclass(slots=True)
class Campaign:
    """The faults of one act, and what was wrong after them."""

    world: World
    act: Act
    before: State = field(default_factory=dict)
    after: State = field(default_factory=dict)
    commits: frozenset[str] = frozenset()
    places: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    tried: int = 0

    def prepare(self) -> None:
        """Runs the act twice without a fault, from where each fault will begin."""
        shutil.rmtree(self.world.work, ignore_errors=True)
        self.act.prepare(self.world)
        self.before, self.commits = self.state(), commits_of(self.folder)
        self.world.save()
        trace = self.world.top / "trace"
        trace.write_text("")
        first = self.run(trace=str(trace))
        assert first.code == 0 and self.is_done(first), f"{self.act.name}: {first}"
        self.after = self.state()
        assert self.after != self.before, f"{self.act.name} changes nothing that is looked at"
        self.places = trace.read_text().split()
        again = self.run()
        assert again.code == self.act.again, f"{self.act.name} again: {again}"
        assert self.state() == self.after

    @property
    def folder(self) -> Path:
        return self.world.work / self.act.at

    def state(self) -> State:
        seen = self.act.seen(self.world) if self.act.seen is not None else None
        kept = self.act.kept(self.world) if self.act.kept is not None else None
        return {**state_of(self.folder), "seen": seen, "kept": kept}

    def run(self, fault: str = "", trace: str = "") -> Done:
        running = start(
            *self.act.words,
            at=self.folder,
            actor=self.act.actor,
            fault=fault,
            trace=trace,
            env=self.world.env,
        )
        return running.done(self.act.ask)

    def is_done(self, ended: Done) -> bool:
        """Says whether the act told that it is done: a server by its answer, whatever comes."""
        return ended.code == 0 if self.act.ask is None else bool(ended.answer)

    def faults(self) -> Iterator[str]:
        """Yields a kill at every place, and an error of the disk wherever a system call follows."""
        kinds = list(ERRORS)
        for number, place in enumerate(self.places):
            yield place
            if place.partition(":")[0].endswith(".before"):
                yield f"{place}={kinds[number % len(kinds)]}"

    def sample(self, count: int) -> list[str]:
        """Returns up to `count` of the faults, spread over the act and over the kinds."""
        every = list(self.faults())
        count = min(count, len(every))
        return [every[n * len(every) // count] for n in range(count)]

    def break_at(self, fault: str) -> None:
        """Lets the act meet one fault, and writes down what is wrong afterwards."""
        self.world.reset()
        ended = self.run(fault)
        is_error = "=" in fault
        if not is_error and ended.code == 0:
            self.wrong.append(f"{self.act.name}, {fault}: it was not reached")
        # A run's worker may be the process that dies; the run outlives it, and says so.
        survived = FAILED if self.act.is_slow else frozenset()
        self.look(fault, ended, FAILED if is_error else survived | {KILLED})

    def look(self, fault: str, ended: Done, codes: frozenset[int]) -> None:
        """Writes down what is wrong after a fault, and after the act is given again.

        The act has ended with one of `codes`, unless it was done in spite of the fault.
        """
        self.tried += 1
        if ended.code not in codes | {0}:
            self.wrong.append(f"{self.act.name}, {fault}: ended with {ended.code}: {ended.err}")
        for problem in (*self._wrong_now(ended), *self._wrong_again()):
            self.wrong.append(f"{self.act.name}, {fault}: {problem}")

    def _wrong_now(self, ended: Done) -> Iterator[str]:
        if "Nothing was" in ended.err and not self._shows(self.before):
            yield f"it said that nothing was changed: {ended.err}"
        if "Traceback" in ended.err:
            yield f"a traceback: {ended.err}"
        yield from self.wrong_state(is_done=self.is_done(ended))

    def wrong_state(self, *, is_done: bool) -> Iterator[str]:
        """Yields what is wrong with the lake as it is; one that `is_done` has to show it."""
        try:
            state = self.state()
        except InstepError as error:
            yield f"it cannot be read: {error}"
            return
        if state not in (self.before, self.after):
            yield f"neither before nor after: {difference(self.before, state)}"
        if is_done and not self._shows(self.after):
            yield f"it said it was done: {difference(self.after, state)}"
        expected = {"" if state == self.after else str(self.before["open"])}
        if not is_done:
            expected.add("erased-bytes")  # told with the command that ends it
        if (found := doctor(self.folder)) not in expected:
            yield f"doctor says {found}"
        if lost := self.commits - all_commits(self.folder):
            yield f"lost {lost}"

    def _shows(self, expected: State) -> bool:
        return {**self.state(), "seen": None} == {**expected, "seen": None}

    def _wrong_again(self) -> Iterator[str]:
        is_done = self.state() == self.after
        again = self.run()
        if again.code not in ({0, self.act.again} if is_done else {0}):
            yield f"again it ended with {again.code}: {again.err}"
            return
        if (state := self.state()) != self.after:
            yield f"not done when given again: {difference(self.after, state)}"
        if found := doctor(self.folder):
            yield f"doctor says {found} after it was given again"
        if self.act.check is not None:
            self.act.check(self.world)


def difference(expected: State, found: State) -> State:
    return {
        key: (expected.get(key), found.get(key))
        for key in sorted(expected.keys() | found.keys())
        if expected.get(key) != found.get(key)
    }


def doctor(folder: Path) -> str:
    """Returns the kind of what is wrong with a project's lake; nothing is ''."""
    try:
        place = find_lake(folder)
        repo = open_repository(place.root, system_clock, place.database)
        try:
            check(repo)
        finally:
            repo.store.close()
    except InstepError as error:
        return f"{error.kind}" if error.kind != "damaged-lake" else error.message
    return ""


def state_of(folder: Path) -> State:
    """Returns what each ref and record of a project's lake shows."""
    repo = _opened(folder)
    if repo is None:
        return {"open": "no-such-lake"}
    try:
        with repo.store.reading() as tx:
            root = home_of(tx).root
            found: State = {
                "open": "" if root == str(repo.root) else "lake-moved",
                "erased": sorted(erased_digests(tx)),
                "changes": [(one.number, one.state.value) for one in list_changes(tx)],
                "approvals": tx.rows("select change, actor from approvals order by 1, 2"),
                "arrivals": tx.rows("select file_name, table_name from arrivals order by 1, 2"),
            }
            for ref in list_refs(tx):
                if ref.kind is RefKind.SYSTEM:
                    continue  # it follows what an act wrote, in its own time
                entries = repo.entries(ref.commit)
                found[ref.name] = (
                    ref.kind.value,
                    ref.is_protected,
                    {key: _shown(repo, value) for key, value in entries.items()},
                )
    finally:
        repo.store.close()
    for backup in sorted(folder.parent.glob("*/backup.json")):
        found[str(backup)] = "finished"
    return found


def _shown(repo: Repository, content: JsonObject) -> object:
    if content.get("type") == TABLE:
        table = TableContent.from_content(content)
        return row_count(repo.root, table)
    return content.get("blob", "")


def commits_of(folder: Path) -> frozenset[str]:
    """Returns every commit that a ref reaches: each was acknowledged."""
    repo = _opened(folder)
    if repo is None:
        return frozenset()
    try:
        with repo.store.reading() as tx:
            todo = [ref.commit for ref in list_refs(tx)]
            found: set[str] = set()
            while todo:
                commit = todo.pop()
                if commit not in found:
                    found.add(commit)
                    todo += load_commit(tx, commit).parents
        return frozenset(found)
    finally:
        repo.store.close()


def all_commits(folder: Path) -> frozenset[str]:
    repo = _opened(folder)
    if repo is None:
        return frozenset()
    try:
        with repo.store.reading() as tx:
            return frozenset(str(row[0]) for row in tx.rows("select id from commits"))
    finally:
        repo.store.close()


def _opened(folder: Path) -> Repository | None:
    try:
        place = find_lake(folder)
        return open_unchecked(place.root, system_clock, place.database)
    except NotFoundError:
        return None
