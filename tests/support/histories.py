"""Random histories of a lake: branches, changes, writers that begin and end, collections."""

from __future__ import annotations

from contextlib import ExitStack

import garbage
from garbage import gc
from hypothesis import strategies as st

from instep.canonical import JsonObject
from instep.changes.gate import open_change
from instep.changes.records import Kind, State, end_change
from instep.history.edits import Edit
from instep.history.locks import writing
from instep.history.refs import get_ref
from instep.history.repository import Repository
from instep.tables.content import TableContent

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["branch", "delete", "blob", "grow", "rewrite", "new", "orphan", "propose", "refuse",
             "gc", "gc", "remove", "again", "begin", "publish", "give up"]
        ),
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    max_size=40,
)  # fmt: skip


class History:
    """A few branches with a few keys, moved at random; `repo` may become another machine's."""

    def __init__(self, repo: Repository) -> None:
        self.repo = repo
        self.branches = ["main"]
        self.open: list[int] = []
        self.made = 0
        self.work: list[Work] = []

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
                table = garbage.grown(repo, garbage.new_table(repo), f"{one} {other}")
                garbage.commit(repo, ref, **{key: table.to_content()})
            case "grow" | "rewrite" | "orphan" | "again":
                self._change(ref, key, step)
            case "remove":
                garbage.commit(repo, ref, **{f"contract__{other}": None})
            case "propose":
                self._propose(self._contract(10 + one))
            case "refuse" if self.open:
                with repo.store.transaction() as tx:
                    number = self.open.pop()
                    end_change(tx, number, State.REFUSED, actor="ben", at=repo.clock(), why="")
            case "begin" if len(self.work) < 3:
                self.work.append(Work(repo, one, repo.find(repo.resolve(ref), f"table/t{other}")))
            case "publish" if self.work:
                with self.work.pop(one % len(self.work)) as work:
                    garbage.commit(work.repo, ref, **{"contract__w": work.blob, key: work.table})
            case "give up" if self.work:
                self.work.pop(one % len(self.work)).close()
            case "gc":
                gc(repo)
            case _:
                pass

    def _contract(self, number: int) -> dict[str, str]:
        return garbage.contract(self.repo, f"terms {number}")

    def _change(self, ref: str, key: str, step: str) -> None:
        repo = self.repo
        found = repo.find(repo.resolve(ref), key.replace("__", "/"))
        if found is None:
            return
        table = TableContent.from_content(found)
        match step:
            case "grow":
                after = garbage.grown(repo, table, "more")
            case "rewrite":
                after = garbage.rewritten(repo, table, "other")
            case _:
                garbage.grown(repo, table, "never committed")
                repo.objects.put(b"terms 99")
                return
        garbage.commit(repo, ref, **{key: after.to_content()})

    def _propose(self, content: dict[str, str]) -> None:
        repo = self.repo
        with repo.store.transaction() as tx:
            edit = Edit(get_ref(tx, "main").commit, {"contract/p": content}, "ana", "p", "test")
            change = open_change(tx, repo, kind=Kind.PROJECT, title="p", edit=edit, evidence={})
        self.open.append(change.number)


class Work(ExitStack):
    """A writer that has read, found and written what it will publish, or not; open until closed."""

    def __init__(self, repo: Repository, number: int, found: JsonObject | None) -> None:
        super().__init__()
        self.repo = repo
        self.enter_context(writing(repo.root, repo.store))
        self.blob = garbage.contract(repo, f"terms {number}")
        table = TableContent.from_content(found) if found else garbage.new_table(repo)
        self.table = garbage.grown(repo, table, "under way").to_content()
