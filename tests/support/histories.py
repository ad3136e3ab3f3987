"""Random histories of a lake: branches, changes, writers that begin and end, collections.

Compactions begin and end, too, or die in the middle, and rows are erased. Rows are numbers of which
none comes twice, so it is known what every state must hold.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import garbage
from garbage import gc
from hypothesis import strategies as st

from instep import faults
from instep.canonical import JsonObject
from instep.changes.gate import open_change
from instep.changes.records import Kind, State, end_change
from instep.cli.erase_rows import erased_rows
from instep.errors import UnavailableError
from instep.history.edits import Edit
from instep.history.locks import writing
from instep.history.refs import get_ref
from instep.history.repository import Repository
from instep.tables import write
from instep.tables.content import TableContent
from instep.tables.read import data_files, located
from instep.tables.replaced import Why, stand_in

_PLAIN = (
    "branch", "delete", "blob", "grow", "rewrite", "new", "orphan", "propose", "refuse", "gc", "gc",
    "remove", "again", "begin", "publish", "give up", "compact", "swap", "die",
)  # fmt: skip


_STORIES = (
    "new compact vanish swap", "grow compact gc die gc gc", "new compact erase swap",
    "new compact vanish erase swap", "new begin vanish publish", "compact compact swap gc gc swap",
)  # fmt: skip
"""What seldom comes together by chance."""

Steps = list[tuple[str, int, int]]


def _steps(*stories: str) -> st.SearchStrategy[Steps]:
    """Lists steps; those of one story are about one branch and table, unless it is another's."""
    one = st.tuples(st.sampled_from(stories), st.integers(0, 3), st.integers(0, 3))
    told = st.lists(one, max_size=40)
    return told.map(lambda some: [(name, a, b) for story, a, b in some for name in story.split()])


STEPS = _steps(*_PLAIN)
STEPS_OF_MACHINES = _steps(*_PLAIN, *_STORIES)


class DiedError(Exception):
    """A writer that goes no further."""


class History:
    """A few branches with a few keys, moved at random; `repo` may become another machine's."""

    def __init__(self, repo: Repository) -> None:
        self.repo = repo
        self.branches = ["main"]
        self.open: list[int] = []
        self.made = 0
        self.work: list[Work] = []
        self.compactions: list[Compaction] = []
        self.written = 0
        self.erased: set[int] = set()
        self.going: set[int] = set()
        """Rows whose erasure was begun: they may be there still."""
        self.rows: dict[str, list[int]] = {}
        """What every state held, by its digest."""

    def take(self, step: str, one: int, other: int) -> None:
        repo, ref = self.repo, self.branches[one % len(self.branches)]
        key = f"table__t{other}"
        match step:
            case "branch":
                self.made += 1
                garbage.branch(repo, f"b{self.made}", ref)
                self.branches.append(f"b{self.made}")
            case "delete" if ref != "main":
                garbage.delete_branch(repo, ref)
                self.branches.remove(ref)
            case "blob":
                garbage.commit(repo, ref, **{f"contract__{other}": self._contract(one + other)})
            case "new":
                self._commit(ref, key, garbage.grown(repo, garbage.new_table(repo), self._new()))
            case "grow" | "rewrite" | "orphan" | "again" | "compact" | "erase":
                found = repo.find(repo.resolve(ref), f"table/t{other}")
                if found is not None:
                    self._change(ref, key, step, TableContent.from_content(found))
            case "remove":
                garbage.commit(repo, ref, **{f"contract__{other}": None})
            case "propose":
                self._propose(self._contract(10 + one))
            case "refuse" if self.open:
                with repo.store.transaction() as tx:
                    number = self.open.pop()
                    end_change(tx, number, State.REFUSED, actor="ben", at=repo.clock(), why="")
            case "begin" if len(self.work) < 3:
                found = repo.find(repo.resolve(ref), f"table/t{other}")
                self.work.append(Work(repo, one, found, self._new()))
            case "publish" if self.work:
                with self.work.pop(one % len(self.work)) as work:
                    content = work.table.to_content()
                    garbage.commit(work.repo, ref, **{"contract__w": work.blob, key: content})
                    self.rows[work.table.digest] = work.rows
            case "give up" if self.work:
                self.work.pop(one % len(self.work)).close()
            case "swap" if self.compactions:
                with self.compactions.pop(one % len(self.compactions)) as compaction:
                    compaction.swap()
            case "die" if self.compactions:
                with self.compactions.pop(one % len(self.compactions)) as compaction:
                    compaction.die()
            case "gc":
                gc(repo)
            case _:
                pass

    def check(self, repo: Repository) -> None:
        """Holds that every state that is needed has its rows, but for those that were erased."""
        for table in _tables(repo):
            expected = [one for one in self.rows[table.digest] if one not in self.erased]
            left = [one for one in expected if one not in self.going]
            found = garbage.numbers(repo, table)
            assert [one for one in found if one not in self.going] == left
            assert set(found) <= set(expected)

    def end(self, repo: Repository) -> None:
        """Ends all writers; none publishes, and what a dead one has decided is carried out."""
        for writer in [*self.work, *self.compactions]:
            writer.close()
        self.work.clear()
        self.compactions.clear()
        for table in _tables(repo):
            late = replace(table, metadata="late")
            assert not stand_in(repo, table, late, late, Why.COMPACTED)

    def writer(self, number: int) -> Repository | None:
        """Returns the machine of one of those who write."""
        writers: list[Compaction | Work] = [*self.compactions, *self.work]
        return writers[number % len(writers)].repo if writers else None

    def close_on(self, repo: Repository) -> None:
        """Ends the writers of a machine that lost its session."""
        for writers in (self.work, self.compactions):
            for writer in [one for one in writers if one.repo is repo]:
                writers.remove(writer)  # type: ignore[arg-type]  # it is from this list
                writer.close()

    def _new(self) -> list[int]:
        self.written += 1
        return [self.written]

    def _contract(self, number: int) -> dict[str, str]:
        return garbage.contract(self.repo, f"terms {number}")

    def _commit(self, ref: str, key: str, table: TableContent) -> None:
        rows = garbage.numbers(self.repo, table)
        garbage.commit(self.repo, ref, **{key: table.to_content()})
        self.rows[table.digest] = rows

    def _change(self, ref: str, key: str, step: str, table: TableContent) -> None:
        repo = self.repo
        match step:
            case "grow":
                self._commit(ref, key, garbage.grown(repo, table, self._new()))
            case "rewrite":
                self._commit(ref, key, garbage.rewritten(repo, table, self._new()))
            case "compact" if len(self.compactions) < 3:
                self.compactions.append(Compaction(repo, table))
            case "erase":
                self._erase(key.replace("__", "/").removeprefix("table/"), table)
            case _:
                garbage.grown(repo, table, self._new())
                repo.objects.put(b"terms 99")

    def _erase(self, name: str, table: TableContent) -> None:
        rows = garbage.numbers(self.repo, table)
        if not rows:
            return
        self.going.add(rows[0])
        try:
            erased_rows(self.repo, name, f"id = {rows[0]}", "Asked for.", "ben", False)
        except UnavailableError as error:
            assert error.kind == "writers-at-work"
            return
        self.going.remove(rows[0])
        self.erased.add(rows[0])

    def _propose(self, content: dict[str, str]) -> None:
        repo = self.repo
        with repo.store.transaction() as tx:
            edit = Edit(get_ref(tx, "main").commit, {"contract/p": content}, "ana", "p", "test")
            change = open_change(tx, repo, kind=Kind.PROJECT, title="p", edit=edit, evidence={})
        self.open.append(change.number)


def _tables(repo: Repository) -> set[TableContent]:
    """Returns every state that is needed."""
    with repo.store.reading() as tx:
        commits = garbage.live_commits(tx, repo)
    return {
        TableContent.from_content(content)
        for commit in commits
        for content in repo.entries(commit, "table").values()
    }


class Work(ExitStack):
    """A writer that has read, found and written what it will publish, or not; open until closed."""

    def __init__(
        self, repo: Repository, number: int, found: JsonObject | None, rows: list[int]
    ) -> None:
        super().__init__()
        self.repo = repo
        self.enter_context(writing(repo.root, repo.store))
        self.blob = garbage.contract(repo, f"terms {number}")
        table = TableContent.from_content(found) if found else garbage.new_table(repo)
        self.table = garbage.grown(repo, table, rows)
        self.rows = garbage.numbers(repo, self.table)


class Compaction(ExitStack):
    """A writer that has written other files of a state, and lets them stand for it, or not."""

    def __init__(self, repo: Repository, table: TableContent) -> None:
        super().__init__()
        self.repo, self.table = repo, table
        self.enter_context(writing(repo.root, repo.store))
        self.before = located(repo.root, table)
        files = data_files(repo.root, self.before)
        made = garbage.file_in(repo, table, garbage.numbers(repo, self.before))
        self.now = write.rewritten(
            repo.root, self.before, [made], [one.path for one in files], at=repo.clock()
        )

    def swap(self) -> None:
        stand_in(self.repo, self.table, self.before, self.now, Why.COMPACTED)

    def die(self) -> None:
        """Decides, and does not come to carrying it out."""

        def watcher(place: str) -> None:
            if place == "tables.replacement.decided":
                raise DiedError

        faults.watch(watcher)
        try:
            self.swap()
        except DiedError:
            pass
        finally:
            faults.watch(None)
