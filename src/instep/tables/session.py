"""Tables of a branch with staged changes on top, which become one commit or nothing.

Nothing that is written while it is open can be collected. What is never committed is garbage and
harms nobody. Where the branch moved meanwhile, an append is made again on its newest state if the
rules allow it; of anything else that moved, the conflict says who moved it. How rows and columns
are changed is not here: whoever stages a table brings its next state.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from instep.canonical import JsonObject
from instep.errors import ConflictError, InstepError, NotFoundError, RefusedError
from instep.history.commits import Commit
from instep.history.edits import Edit, commit_edit
from instep.history.locks import writing
from instep.history.refs import get_ref, refuse_protected
from instep.history.repository import Repository
from instep.tables.added import appended_files, are_laid_out_alike
from instep.tables.content import TableContent
from instep.tables.read import row_count
from instep.tables.small_files import has_many_small_files
from instep.tables.write import append

ATTEMPTS = 20
"""How often a commit is tried while others move the branch; then the conflict is told."""

_PREFIX = "table/"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the contracts of a commit say, as functions of a commit and a table's name.

    `key_of` gives the columns of its key. `may_append` says whether the files of an append may be
    added to the state `now` too, which came in between: (commit, name, before, edited, now).
    `is_kept` says whether records name the files of a state one by one.
    """

    key_of: Callable[[str, str], tuple[str, ...]]
    may_append: Callable[[str, str, TableContent, TableContent, TableContent], bool]
    is_kept: Callable[[TableContent], bool]


@dataclass(frozen=True, slots=True)
class Pinned:
    """The tables of one commit, to be read only."""

    repo: Repository
    commit: str

    def table_names(self) -> tuple[str, ...]:
        return _names(self.repo, self.commit)

    def find_table(self, name: str) -> TableContent | None:
        return _find(self.repo, self.commit, name)

    def depend_on(self, name: str) -> None:
        """Nothing: a commit never moves."""

    def stage(self, name: str, content: TableContent | None) -> None:
        raise RefusedError(
            f"Table {name} is read at commit {self.commit[:12]}, which never changes: expected an "
            'edit of a branch. Write inside "with lake.edit(BRANCH, ...) as edit".',
            kind="commit-is-fixed",
        )


class Session:
    """An open edit of a branch, as far as it is about whole tables; made by `open_session`."""

    def __init__(
        self, repo: Repository, ref: str, base: str, author: str, message: str, rules: Rules
    ) -> None:
        self.repo = repo
        self.ref = ref
        self.base = base
        self.author = author
        self.message = message
        self.rules = rules
        self.committed: Commit | None = None
        """What the edit became; None before that, and where nothing was changed."""
        self.upkeep: tuple[str, ...] = ()
        """What was then done to files of its tables, in words; empty before the edit was left."""
        self.is_open = True
        self._staged: dict[str, TableContent | None] = {}
        self._read: set[str] = set()
        self._depended_on: set[str] = set()

    def table_names(self) -> tuple[str, ...]:
        """Returns the names of all tables, staged ones included."""
        names = set(_names(self.repo, self.base)) | self._staged.keys()
        return tuple(sorted(name for name in names if self._staged.get(name, name) is not None))

    def find_table(self, name: str) -> TableContent | None:
        """Returns a table as it is now, or None."""
        if name in self._staged:
            return self._staged[name]
        self._read.add(name)
        return _find(self.repo, self.base, name)

    def stage(self, name: str, content: TableContent | None) -> None:
        """Sets a table, or removes it.

        Raises:
            RefusedError (kind "edit-closed").
        """
        self._refuse_closed()
        self._staged[name] = content

    def look_after(self) -> None:
        """Puts small files of the tables together that were committed, if they are many."""
        if self.committed is None:
            return
        many = [
            name
            for name, content in self._staged.items()
            if content is not None and self._may_have_many(content)
        ]
        if many:
            from instep.tables.upkeep import look_after

            found = (look_after(self.repo, self.ref, one, self.rules.is_kept) for one in many)
            self.upkeep = tuple(text for text in found if text)

    def _may_have_many(self, content: TableContent) -> bool:
        try:
            return has_many_small_files(self.repo.root, content)
        except (InstepError, OSError):
            return True  # what is wrong is told by who looks after it, and fails nothing

    def depend_on(self, name: str) -> None:
        """Says that rows of a table decided what is written; then it must not have moved at all."""
        self._depended_on.add(name)

    def table(self, name: str) -> TableContent:
        """Returns a table as it is now.

        Raises:
            NotFoundError (kind "no-such-table"), RefusedError (kind "edit-closed").
        """
        self._refuse_closed()
        content = self.find_table(name)
        if content is None:
            raise NotFoundError(
                f'Table "{name}" is not on "{self.ref}": expected one of '
                f"{', '.join(self.table_names()) or 'none, as there is none'}. Correct the name.",
                kind="no-such-table",
                table=name,
            )
        return content

    def commit(self, message: str | None = None) -> Commit | None:
        """Publishes all that was staged as one commit and ends the edit; None without a change.

        Raises:
            RefusedError (kind "protected-branch", "edit-closed").
            ConflictError (kind "keys-moved"): the branch moved, and with it what was read or
                written here.
        """
        self._refuse_closed()
        self.is_open = False
        edit = Edit(
            base=self.base,
            changes=self._changes(),
            author=self.author,
            message=message or self.message,
            origin="edit",
            reads=frozenset(f"{_PREFIX}{name}" for name in self._read),
        )
        if edit.changes:
            self.committed = self._published(edit)
        return self.committed

    def _published(self, edit: Edit) -> Commit:
        for attempt in range(ATTEMPTS):
            try:
                return commit_edit(self.repo, self.ref, edit, token=uuid.uuid4().hex)
            except ConflictError as error:
                if error.kind != "keys-moved" or attempt == ATTEMPTS - 1:
                    raise
                moved = self._on_newest(edit)
                if moved is None:
                    raise
                edit = moved
        raise AssertionError("the last attempt returns or raises")

    def _on_newest(self, edit: Edit) -> Edit | None:
        """Returns the edit on what the branch is now, or None where that would not mean the same.

        What was read, or decided about, must not have moved; what was only appended to may have.
        """
        head = self.repo.resolve(self.ref)
        changes = dict(self._changes())
        for key in edit.reads | edit.changes.keys():
            before, now = self.repo.find(self.base, key), self.repo.find(head, key)
            if before == now:
                continue
            name = key.removeprefix(_PREFIX)
            edited = self._staged.get(name)
            if before is None or now is None or edited is None or name in self._depended_on:
                return None
            content = self._appended(
                head, name, TableContent.from_content(before), edited,
                TableContent.from_content(now),
            )  # fmt: skip
            if content is None:
                return None
            changes[key] = content.to_content()
        return replace(edit, base=head, changes=changes)

    def _appended(
        self,
        head: str,
        name: str,
        before: TableContent,
        edited: TableContent,
        now: TableContent,
    ) -> TableContent | None:
        files = appended_files(self.repo.root, before, edited)
        if files is None or not are_laid_out_alike(self.repo.root, edited, now):
            return None
        if not self.rules.may_append(head, name, before, edited, now):
            return None
        return append(self.repo.root, now, files, at=self.repo.clock())

    def _changes(self) -> dict[str, JsonObject | None]:
        found: dict[str, JsonObject | None] = {}
        for name, content in self._staged.items():
            if content != _find(self.repo, self.base, name):
                found[f"{_PREFIX}{name}"] = content.to_content() if content else None
        return found

    def _refuse_closed(self) -> None:
        if not self.is_open:
            raise RefusedError(
                f'The edit of "{self.ref}" has ended: expected an open one. Begin another with '
                '"lake.edit".',
                kind="edit-closed",
            )

    def __repr__(self) -> str:
        lines = [f'Edit of "{self.ref}" at {self.base[:12]} by {self.author}']
        for name, content in self._staged.items():
            before = _find(self.repo, self.base, name)
            was = f"{row_count(self.repo.root, before):,}" if before else "none"
            now = f"{row_count(self.repo.root, content):,} rows" if content else "dropped"
            lines.append(f"  {name}: {was} -> {now}")
        if self.committed:
            lines.append(f"committed as {self.committed.id[:12]}")
        return "\n".join(lines)


@contextmanager
def open_session(
    repo: Repository, ref: str, *, author: str, message: str, rules: Rules
) -> Iterator[Session]:
    """Opens an edit of a branch; what it writes is protected from collection until it ends.

    When it has ended, tables that it committed are looked after.

    Raises:
        RefusedError (kind "protected-branch"), NotFoundError (kind "no-such-ref").
    """
    with writing(repo.root, repo.store):
        with repo.store.reading() as tx:
            found = get_ref(tx, ref)
        refuse_protected(found)
        session = Session(repo, ref, found.commit, author, message, rules)
        yield session
    session.look_after()


def _names(repo: Repository, commit: str) -> tuple[str, ...]:
    return tuple(sorted(key.removeprefix(_PREFIX) for key in repo.entries(commit, "table")))


def _find(repo: Repository, commit: str, name: str) -> TableContent | None:
    content = repo.find(commit, f"{_PREFIX}{name}")
    return TableContent.from_content(content) if content else None
