"""A lake from Python: open it, name a commit, read its tables. It opens rooms, and holds none."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instep.canonical import Json, JsonObject
from instep.changes.records import commits_of_changes
from instep.clock import Clock, system_clock
from instep.errors import InternalError
from instep.history.repository import MAIN, Repository, open_repository
from instep.history.retention import Named, Rooms
from instep.history.store import Transaction
from instep.ingest.records import named_by_arrivals
from instep.pipelines.project import find_lake, lake_config
from instep.pipelines.records import commits_of_runs, is_kept_by_run, named_by_runs
from instep.tables import reach
from instep.tables.content import TableContent
from instep.tables.erased_copies import forget_erased
from instep.tables.read import file_set, row_count, schema_of

if TYPE_CHECKING:
    import pyarrow as pa

    from instep.engines.schema import Schema
    from instep.tables.catalog import LakeCatalog
    from instep.tables.edit import TableEdit
    from instep.tables.session import Rules


@dataclass(frozen=True, slots=True)
class Lake:
    """An opened lake. `branch`, `at`: a state of it; everything else is in the rooms."""

    repo: Repository

    def branch(self, name: str = "main") -> View:
        """Returns what a branch or environment holds now."""
        return self.at(name)

    def at(self, name: str) -> View:
        """Returns the state that a ref, `ref@instant` or commit id names.

        Raises:
            NotFoundError (kind "no-such-ref").
        """
        return View(self.repo, name, self.repo.resolve(name))

    @contextmanager
    def edit(self, branch: str, *, message: str, author: str) -> Iterator[TableEdit]:
        """Opens an edit of the tables of a branch; at the end of the block it is one commit.

        Nothing is committed when the block raises, or changes nothing.

        Raises:
            RefusedError (kind "protected-branch"): main changes by review.
            RefusedError (kind "unknown-actor"): `author` is not among the project's people.
            NotFoundError (kind "no-such-ref").
            ConflictError (kind "keys-moved"), at the end.
        """
        from instep.changes.people import check_actor
        from instep.tables.edit import TableEdit
        from instep.tables.session import open_session

        config = lake_config(self.repo, self.repo.resolve(MAIN))
        if config is not None:
            check_actor(config, author)

        with open_session(
            self.repo, branch, author=author, message=message, rules=_rules(self.repo)
        ) as session:
            yield TableEdit(session)
            if session.is_open:
                session.commit()

    def __repr__(self) -> str:
        return f"Lake({str(self.repo.root)!r})"


@dataclass(frozen=True, slots=True)
class View:
    """One commit, to read from; it never moves."""

    repo: Repository
    name: str
    commit: str

    def keys(self, kind: str | None = None) -> tuple[str, ...]:
        """Returns the keys of the commit, or those of one kind."""
        return tuple(self.repo.entries(self.commit, kind))

    def content(self, key: str) -> JsonObject:
        """Returns what a key points to.

        Raises:
            NotFoundError (kind "no-such-key").
        """
        return self.repo.content(self.commit, key)

    def table(self, name: str) -> Table:
        """Returns a table as it is in this commit.

        Raises:
            NotFoundError (kind "no-such-key").
        """
        return Table(self.repo, name, TableContent.from_content(self.content(f"table/{name}")))

    @property
    def catalog(self) -> LakeCatalog:
        """pyiceberg's catalog of this commit, read only; its namespace is `default`."""
        from instep.tables.catalog import LakeCatalog
        from instep.tables.session import Pinned

        return LakeCatalog(self.repo.root, Pinned(self.repo, self.commit), self.name)

    def __repr__(self) -> str:
        return f"{self.name} at {self.commit[:12]}: {', '.join(self.keys()) or 'nothing yet'}"


@dataclass(frozen=True, slots=True)
class Table:
    """One table in one commit."""

    repo: Repository
    name: str
    content: TableContent

    @property
    def schema(self) -> Schema:
        return schema_of(self.repo.root, self.content)

    @property
    def rows(self) -> int:
        """The number of rows, exactly, without reading them."""
        return row_count(self.repo.root, self.content)

    def sql(self, select: str) -> pa.Table:
        """Returns one SELECT over this table, which it names by its name, as an Arrow table.

        Raises:
            InvalidError (kind "not-a-select", "sql-failed").
            UnavailableError (kind "out-of-memory", "disk-failed").
        """
        from instep.engines.duckdb import DuckDB

        with DuckDB(self.repo.root / "staging") as engine:
            engine.view(file_set(self.repo.root, self.content, self.name))
            return engine.arrow(select)

    def arrow(self) -> pa.Table:
        """Returns all rows as an Arrow table, in no promised order."""
        return self.sql(f'select * from "{self.name}"')

    def polars(self) -> Any:  # polars is not a dependency
        """Returns all rows as a Polars frame; needs polars."""
        import polars

        return polars.from_arrow(self.arrow())

    def pandas(self) -> Any:  # pandas is not a dependency
        """Returns all rows as a pandas frame; needs pandas."""
        return self.arrow().to_pandas()

    def __repr__(self) -> str:
        columns = ", ".join(f"{column.name} {column.type}" for column in self.schema.columns)
        return f"{self.name}: {self.rows:,} rows ({columns})"


def open_lake(project: str | Path = ".", clock: Clock = system_clock) -> Lake:
    """Opens the lake of the project folder `project`.

    Raises:
        NotFoundError (kinds "no-project", "no-such-lake", "no-such-secret").
        RefusedError (kind "lake-moved").
    """
    place = find_lake(Path(project).resolve())
    repo = open_repository(place.root, clock, place.database)
    forget_erased(repo)
    return Lake(repo)


def _rules(repo: Repository) -> Rules:
    """Returns what contracts say of edits; without one, a table has no key, and may be appended to.

    An append whose table moved on goes through the same function as one that arrived as a file.
    """
    from instep.ingest.batch import may_append
    from instep.ingest.in_force import contract_of
    from instep.tables.session import Rules

    def key_of(commit: str, table: str) -> tuple[str, ...]:
        found = contract_of(repo, commit, table)
        return found.contract.key if found else ()

    def is_appendable(
        commit: str, table: str, before: TableContent, edited: TableContent, now: TableContent
    ) -> bool:
        found = contract_of(repo, commit, table)
        return found is None or may_append(repo, found.contract, before, edited, now)

    return Rules(key_of, is_appendable, partial(is_kept_by_run, repo))


def retention_of(repo: Repository) -> Rooms:
    """Returns what every room knows of what must be kept, for garbage collection."""
    return Rooms(_Reach(repo), _records, _roots)


_NAMING = frozenset(
    {
        reach.TYPE,
        "instep.contract.v1",
        "instep.pipeline.v1",
        "instep.model.v1",
        "instep.config.v1",
    }
)
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class _Reach:
    """What contents name; any digest inside one counts as an object's."""

    repo: Repository

    def folder(self, content: JsonObject) -> str | None:
        return reach.folder_of(content)

    def objects(self, content: JsonObject) -> Iterator[str]:
        kind = str(content.get("type"))
        if kind.startswith("instep.") and kind not in _NAMING:
            raise InternalError(
                f"What content of type {kind} names is not known: expected one of "
                f"{', '.join(sorted(_NAMING))}. Nothing is deleted. Report this as a fault of "
                "Instep.",
                kind="wrong-content",
            )
        return _digests(content)

    def files(self, folder: str, contents: Sequence[JsonObject]) -> Collection[str]:
        return reach.files_of(self.repo, folder, contents)

    def recorded(self, folder: str) -> Collection[str]:
        return reach.recorded_in(self.repo, folder)

    def drop_rows(self, tx: Transaction, paths: Iterable[str]) -> None:
        reach.drop_rows(tx, paths)


def _records(tx: Transaction) -> tuple[Named, ...]:
    return named_by_arrivals(tx), named_by_runs(tx)


def _roots(tx: Transaction) -> frozenset[str]:
    return commits_of_changes(tx) | commits_of_runs(tx)


def _digests(value: Json) -> Iterator[str]:
    match value:
        case str():
            if _DIGEST.fullmatch(value):
                yield value
        case Mapping():
            for inner in value.values():
                yield from _digests(inner)
        case Sequence():
            for inner in value:
                yield from _digests(inner)
        case _:
            return
