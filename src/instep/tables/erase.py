"""Erases rows of a table from every state there is: their files are written again without them.

Order: a record of who and why; then each file that holds such a row is written anew, once however
many states share it, and recorded; then other metadata stands for each state that named it; then
what no state names is condemned, and, when every writer that began before has ended, deleted. An
act that is cut short is completed by doing it again. No commit changes; what a state's file becomes
keeps the stem of its name, so that a run finds the files of a period again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from instep.canonical import JsonObject, digest_of
from instep.engines.defaults import with_type
from instep.engines.duckdb import DuckDB
from instep.engines.engine import DeleteFile, FileSet, WrittenFile
from instep.engines.schema import Column, Schema
from instep.errors import UnavailableError
from instep.faults import reached
from instep.history.locks import collecting, oldest_writer, rewriting, writing
from instep.history.repository import Repository
from instep.tables.columns import is_promotion
from instep.tables.compact import Say
from instep.tables.condition import check_condition, enclosed
from instep.tables.content import TableContent
from instep.tables.copies import load_base
from instep.tables.manifest import Manifest
from instep.tables.names import stem_of
from instep.tables.read import (
    LISTING,
    LISTING_DIGEST,
    DataFile,
    data_files,
    file_set,
    has_deletes,
    load_entries,
    load_listing,
    load_manifests,
    load_metadata,
    located,
    schema_of,
    table_folder,
)
from instep.tables.replaced import Why, catch_up, stand_in
from instep.tables.rewrite import rows_by_file, written_without
from instep.tables.row_erasures import (
    ErasedFile,
    RowErasure,
    add_files,
    add_state,
    begin_erasure,
    end_erasure,
    files_of_erasure,
)
from instep.tables.unnamed import States, condemn_unnamed, delete_unnamed
from instep.tables.write import rewritten

ATTEMPTS = 3
"""How often states are looked through again that others made meanwhile."""


@dataclass(frozen=True, slots=True)
class Found:
    """What an erasure would meet."""

    rows: int
    files: int
    states: int


@dataclass(frozen=True, slots=True)
class _Variant:
    """A file as one set of delete files leaves it."""

    file: DataFile
    deletes: tuple[DeleteFile, ...]

    @property
    def key(self) -> tuple[str, str]:
        return self.file.path, self.told

    @property
    def told(self) -> str:
        digests = sorted(f"{one.digest} {one.offset or 0}" for one in self.deletes)
        return digest_of("instep.deletes.v1", {"deletes": digests}) if digests else ""


def find_rows(repo: Repository, states: States, newest: TableContent, predicate: str) -> Found:
    """Returns how many rows meet the condition, in how many files of how many states.

    Raises:
        InvalidError (kinds "sql-failed", "not-a-select"): the condition cannot be evaluated.
    """
    with repo.store.reading() as tx:
        every = states(tx)
    rows, files, named = 0, 0, 0
    for contents in every.values():
        found = _Table(repo.root, contents, newest, predicate)
        counts = found.counts()
        rows += sum(counts.values())
        files += len(counts)
        named += len(found.affected(counts))
    return Found(rows, files, named)


def erase_rows(
    repo: Repository,
    table: str,
    states: States,
    newest: TableContent,
    predicate: str,
    actor: str,
    why: str,
    remains: Sequence[str],
    say: Say = lambda text: None,
) -> RowErasure:
    """Erases the rows of a table for which the SQL condition is true, and returns the record.

    `newest` gives the names of columns in the condition.

    Raises:
        InvalidError (kinds "sql-failed", "not-a-select").
        UnavailableError (kind "writers-at-work"): nothing reads the rows any more, but their files
            stay until the writers have ended and this is done again.
        UnavailableError (kinds "rewriting", "collecting").
    """
    find_rows(repo, states, newest, predicate)
    reached("erase.rows.begin.before")
    with repo.store.transaction() as tx:
        erasure = begin_erasure(tx, table, predicate, actor, why, remains, repo.clock())
    reached("erase.rows.begin.after")
    _replace_all(repo, erasure, states, newest, predicate, say)
    with collecting(repo.root, repo.store):
        for _ in range(ATTEMPTS):
            condemned, generation = condemn_unnamed(repo, states)
            _end_of_writers(repo, erasure, generation)
            if not _replace_all(repo, erasure, states, newest, predicate, say):
                break
        else:
            raise _at_work(erasure)
        delete_unnamed(repo, states, condemned)
    reached("erase.rows.end.before")
    with repo.store.transaction() as tx:
        ended = end_erasure(tx, erasure.id, repo.clock())
    reached("erase.rows.end.after")
    return ended


def _replace_all(
    repo: Repository,
    erasure: RowErasure,
    states: States,
    newest: TableContent,
    predicate: str,
    say: Say,
) -> int:
    """Lets other metadata stand for every state with such rows; returns for how many."""
    with repo.store.reading() as tx:
        every = states(tx)
    changed = 0
    with writing(repo.root, repo.store):
        for folder, contents in every.items():
            with rewriting(repo.root, folder):
                one = _Table(repo.root, contents, newest, predicate)
                changed += one.erase(repo, erasure.id, say)
    return changed


class _Table:
    """All states of one table, and what of them a condition concerns."""

    def __init__(
        self, root: Path, contents: Sequence[JsonObject], newest: TableContent, predicate: str
    ) -> None:
        self.root = root
        # What stands for each state now, looked up once.
        states = (TableContent.from_content(one) for one in contents)
        self.states = [(state, located(root, state)) for state in states]
        self.newest = schema_of(root, newest)
        self.types = _widest(schema_of(root, state) for _, state in self.states)
        self.condition = enclosed(predicate)
        self.folder = table_folder(root, self.states[0][0])

    def variants(self) -> dict[tuple[str, str], _Variant]:
        """Returns every file of every state."""
        found: dict[tuple[str, str], _Variant] = {}
        seen: set[str] = set()
        for _, state in self.states:
            if has_deletes(self.root, state):
                deletes = file_set(self.root, state, "whole").deletes
                files = data_files(self.root, state)
            else:
                deletes, files = {}, tuple(self._files_of_new_manifests(state, seen))
            for file in files:
                one = _Variant(file, deletes.get(file.path, ()))
                found.setdefault(one.key, one)
        return found

    def _files_of_new_manifests(self, state: TableContent, seen: set[str]) -> Iterator[DataFile]:
        """Yields a state's files but those of manifests it shares with states before."""
        for manifest in load_manifests(self.folder, load_metadata(self.root, state)):
            if manifest.entries not in seen:
                seen.add(manifest.entries)
                yield from (entry.file for entry in load_entries(self.folder, manifest))

    def counts(self) -> dict[str, int]:
        """Returns how many rows of each file meet the condition, deleted ones too; no zeros."""
        every = self._asked(
            {path: one.file.digest for (path, _), one in sorted(self.variants().items())}
        )
        with DuckDB(self.root / "staging") as engine:
            found = rows_by_file(engine, every, f"WHERE {self.condition}")
            check_condition(engine, every.schema, self.condition)
            return found

    def affected(self, counts: Mapping[str, int]) -> list[tuple[TableContent, TableContent]]:
        """Returns the states whose metadata names such a file, by an older snapshot too.

        A manifest that tells of files which went tells of their bounds: it counts, too.
        """
        names = {Path(path).name for path in counts}
        if not names:
            return []
        told: dict[str, bool] = {}
        return [one for one in self.states if self._names_any(one[1], names, told)]

    def erase(self, repo: Repository, identifier: str, say: Say) -> int:
        """Lets other metadata stand for every state that is affected; returns for how many."""
        counts = self.counts()
        with repo.store.reading() as tx:
            told = files_of_erasure(tx, identifier)
        # A state that was not reached before may know such files by an older snapshot only.
        known = {one.path: one.rows for one in told}
        states = self.affected({**known, **counts})
        if not states:
            return 0
        variants = {key: one for key, one in self.variants().items() if key[0] in counts}
        made = self._known(repo, identifier)
        with DuckDB(self.root / "staging") as engine:
            engine.allow(self.folder / "data")
            for number, (key, variant) in enumerate(variants.items(), 1):
                if key not in made:
                    made[key] = self._without_rows(engine, variant)
                    reached("erase.rows.file.before")
                    with repo.store.transaction() as tx:
                        add_files(tx, identifier, [self._told(variant, made[key], counts[key[0]])])
                    reached("erase.rows.file.after")
                say(f"erasing rows, {number:,} of {len(variants):,} files")
        for number, state in enumerate(states, 1):
            self._replace(repo, identifier, *state, made)
            say(f"erasing rows, {number:,} of {len(states):,} states of the table")
        return len(states)

    def _names_any(self, state: TableContent, names: set[str], told: dict[str, bool]) -> bool:
        """`told` keeps what was found of listings and manifests, which states share."""
        for snapshot in load_metadata(self.root, state)["snapshots"]:
            listing = snapshot["summary"][LISTING]
            if listing not in told:
                path = self.folder / "metadata" / listing
                told[listing] = any(
                    self._tells_of_any(manifest, names, told)
                    for manifest in load_listing(path, snapshot["summary"][LISTING_DIGEST])
                )
            if told[listing]:
                return True
        return False

    def _tells_of_any(self, manifest: Manifest, names: set[str], told: dict[str, bool]) -> bool:
        if manifest.deleted[0]:
            return True
        if manifest.live_files and manifest.entries not in told:
            listed = load_base(self.folder, manifest).names
            told[manifest.entries] = any(name.rpartition("/")[2] in names for name in listed)
        return told.get(manifest.entries, False)

    def _asked(self, digests: Mapping[str, str]) -> FileSet:
        """Files by the columns that a condition names: the newest state's, in the widest types.

        A row has the same value in whichever file it lies, and so the same verdict.
        """
        schema = _typed(self.newest, self.types)
        return FileSet("asked", tuple(digests), schema, digests=digests)

    def _without_rows(self, engine: DuckDB, variant: _Variant) -> WrittenFile | None:
        """Writes a file again without the rows; its columns stay as they are in it."""
        path = variant.file.path
        instants = {one: kind for one, kind in self.types.items() if kind == "timestamptz"}
        deletes = {path: variant.deletes} if variant.deletes else {}
        asked = replace(self._asked({path: variant.file.digest}), deletes=deletes)
        engine.check_bytes(asked)
        return written_without(
            engine,
            asked,
            # A time without a zone is an instant where the table says so (`engines.types`).
            _typed(engine.columns_in(path), instants),
            self.condition,
            self.folder / "data",
            f"{stem_of(path)}.",
        )

    def _told(self, variant: _Variant, made: WrittenFile | None, rows: int) -> ErasedFile:
        name = Path(made.path).name if made else ""
        return ErasedFile(
            self.folder.name, Path(variant.file.path).name, variant.file.digest, variant.told, name,
            made.digest if made else "", rows,
        )  # fmt: skip

    def _known(
        self, repo: Repository, identifier: str
    ) -> dict[tuple[str, str], WrittenFile | None]:
        """Returns what an act that was cut short has written, as far as a state names it."""
        with repo.store.reading() as tx:
            recorded = [
                one for one in files_of_erasure(tx, identifier) if one.uuid == self.folder.name
            ]
        if not recorded:
            return {}
        variants = self.variants()
        by_name = {Path(path).name: one.file for (path, _), one in variants.items()}
        by_digest = {(one.file.digest, one.told): key for key, one in variants.items()}
        found: dict[tuple[str, str], WrittenFile | None] = {}
        for one in recorded:
            key = by_digest.get((one.digest, one.deletes))
            if key is not None and (not one.replacement or one.replacement in by_name):
                found[key] = by_name.get(one.replacement)
        return found

    def _replace(
        self,
        repo: Repository,
        identifier: str,
        state: TableContent,
        before: TableContent,
        made: Mapping[tuple[str, str], WrittenFile | None],
    ) -> None:
        if catch_up(repo, state):
            return  # what was decided is on record; the next attempt sees to what stands now
        deletes = file_set(self.root, before, "whole").deletes
        added: list[WrittenFile] = []
        removed: list[str] = []
        specs: dict[str, int] = {}
        for manifest in load_manifests(self.folder, load_metadata(self.root, before)):
            for entry in () if manifest.holds_deletes else load_entries(self.folder, manifest):
                file = entry.file
                key = _Variant(file, deletes.get(file.path, ())).key
                if key not in made:
                    continue
                removed.append(file.path)
                new = made[key]
                if new is not None:
                    # It lies in the partition in which this state has the file that goes.
                    added.append(replace(new, partition=file.partition))
                    specs[new.path] = manifest.spec_id
        now = rewritten(self.root, before, added, removed, at=repo.clock(), specs=specs)
        reached("erase.rows.state.before")
        with repo.store.transaction() as tx:
            add_state(tx, identifier, state.uuid, state.digest, before.digest, now.digest)
        # Whoever comes first wins; the next attempt sees to what stands there then.
        stand_in(repo, state, before, now, Why.ERASED)
        reached("erase.rows.state.after")


def _widest(schemas: Iterable[Schema]) -> dict[int, str]:
    """Returns the widest type that each field has in any of the schemas, by its id."""
    found: dict[int, str] = {}
    for schema in schemas:
        for field_id, kind in schema.primitive_types().items():
            if is_promotion(found.get(field_id, kind), kind):
                found[field_id] = kind
    return found


def _typed(schema: Schema, types: Mapping[int, str]) -> Schema:
    """Returns the schema with other types of some fields, by their ids."""

    def typed(column: Column) -> Column:
        if column.is_nested:
            return replace(column, children=tuple(map(typed, column.children)))
        return with_type(column, types.get(column.id, column.type))

    return Schema(tuple(map(typed, schema.columns)))


def _end_of_writers(repo: Repository, erasure: RowErasure, generation: int) -> None:
    """Holds that nobody at work can know a file that was replaced, or have found one to be there.

    Raises:
        UnavailableError (kind "writers-at-work").
    """
    oldest = oldest_writer(repo.root, repo.store)
    if oldest is not None and oldest < generation:
        raise _at_work(erasure)


def _at_work(erasure: RowErasure) -> UnavailableError:
    return UnavailableError(
        f"Rows of {erasure.table} are replaced everywhere, but a writer is at work that began "
        "before and may name their files: expected none. The files stay until it has ended: wait "
        "for it, then erase with the same condition again.",
        kind="writers-at-work",
        erasure=erasure.id,
    )
