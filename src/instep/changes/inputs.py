"""What a proposed table or model was computed from, and whether that moved since.

A run reads slices of tables. They are kept with the evidence, and held against what the tables
would be after the merge. Rows elsewhere may move: only another file in a slice that was read, or
another definition of a column that was there, makes what was computed from it out of date.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from instep.canonical import Json, JsonObject, digest_of
from instep.changes.stale import content_read
from instep.clock import Window, format_instant
from instep.engines.engine import Slice
from instep.engines.schema import Column
from instep.history import tree
from instep.history.commits import Commit, load_commit
from instep.history.edits import who_moved
from instep.history.refs import get_ref
from instep.history.repository import MAIN, Repository
from instep.history.store import Transaction
from instep.pipelines.messages import parse_window
from instep.pipelines.records import find_past, load_run
from instep.tables.content import TableContent
from instep.tables.read import data_files, file_set, schema_of


@dataclass(frozen=True, slots=True)
class Moved:
    """Of the slices of `table` from which `key` was computed, those from `first` to `last` moved.

    They are None where the table was read whole; `digest` is that of what is there now.
    """

    key: str
    table: str
    pipeline: str
    first: Window | None
    last: Window | None
    digest: str
    by: Commit | None

    def to_json(self) -> dict[str, Json]:
        return {"key": self.key, "table": self.table, "digest": self.digest}

    def __str__(self) -> str:
        where = ""
        if self.first is not None and self.last is not None:
            start, end = (format_instant(at)[:10] for at in (self.first.start, self.last.end))
            where = f", in what was read of it ({start} to {end})"
        who = ""
        if self.by is not None:
            who = f" by {self.by.author} in {self.by.id[:12]} ({self.by.origin})"
        return (
            f"{self.key} was computed from table/{self.table}, which was changed since{who}{where}"
        )


def inputs_of(
    tx: Transaction, repo: Repository, changes: Mapping[str, JsonObject | None]
) -> list[Json]:
    """Returns which slices of which tables the runs read that made these contents."""
    found: list[Json] = []
    for key, content in sorted(changes.items()):
        past = find_past(tx, key, content) if content is not None else None
        if past is None:
            continue
        run = load_run(tx, past.run)
        cuts: dict[str, dict[tuple[Json, ...], JsonObject]] = {}
        for piece in past.pieces:
            for one in piece.inputs:
                column, window = one["column"], one["window"]
                bounds = tuple(window) if isinstance(window, list) else ()
                cut: JsonObject = {"column": column, "window": window}
                cuts.setdefault(str(one["table"]), {})[column, *bounds] = cut
        for table, slices in sorted(cuts.items()):
            found.append(
                {
                    "key": key,
                    "pipeline": run.pipeline,
                    "table": table,
                    "content": content_read(tx, repo, run, f"table/{table}"),
                    "slices": list(slices.values()),
                }
            )
    return found


def moved_inputs(
    tx: Transaction,
    repo: Repository,
    base: str,
    changes: Mapping[str, JsonObject | None],
    inputs: Iterable[JsonObject],
) -> tuple[Moved, ...]:
    """Returns what of `inputs` is another on main with `changes` than when it was read.

    Reads only the file lists of tables that moved.
    """
    main = load_commit(tx, get_ref(tx, MAIN).commit)
    found = []
    for one in inputs:
        table = str(one["table"])
        key = f"table/{table}"
        now = changes[key] if key in changes else tree.find(repo.nodes, main.tree, key)
        then = one["content"]
        if now == then or not isinstance(then, Mapping):
            continue
        windows, digest = _moved_slices(repo.root, then, now, one["slices"])
        if digest is None:
            continue
        by = who_moved(tx, repo, base, main.id, [key]).get(key)
        first, last = (windows[0], windows[-1]) if windows else (None, None)
        made, pipeline = str(one["key"]), str(one["pipeline"])
        found.append(Moved(made, table, pipeline, first, last, digest, by))
    return tuple(found)


def _moved_slices(
    root: Path, then: JsonObject, now: JsonObject | None, slices: Json
) -> tuple[list[Window], str | None]:
    """Returns the windows that differ, and the digest of what they hold now; None if none does."""
    if now is None:
        return [], digest_of("instep.moved.v1", {"gone": True})
    before = _State.load(root, then)
    after = _State.load(root, now)
    ids = {column.id for column in before.columns}
    windows: list[Window] = []
    changed: list[Json] = []
    for cut in slices if isinstance(slices, list) else []:
        assert isinstance(cut, Mapping), "slices are written by inputs_of"
        old, new = before.slice_digest(cut, ids), after.slice_digest(cut, ids)
        if old != new:
            changed.append(new)
            if isinstance(cut["window"], list):
                windows.append(parse_window([int(str(at)) for at in cut["window"]]))
    windows.sort(key=lambda window: window.start)
    return windows, digest_of("instep.moved.v1", {"slices": changed}) if changed else None


@dataclass(frozen=True, slots=True)
class _State:
    """One state of a table."""

    root: Path
    content: TableContent
    columns: tuple[Column, ...]

    @staticmethod
    def load(root: Path, content: JsonObject) -> _State:
        table = TableContent.from_content(content)
        return _State(root, table, schema_of(root, table).columns)

    def slice_digest(self, cut: JsonObject, ids: set[int]) -> str:
        """Returns the digest of the columns `ids`, and of the files that may hold rows of `cut`.

        A column that was added later reached nobody. What deletes rows of a file counts with it.
        """
        part = self._part(cut)
        files = data_files(self.root, self.content, part)
        deletes = file_set(self.root, self.content, "slice", part).deletes.values()
        columns = [column for column in self.columns if column.id in ids]
        return digest_of(
            "instep.slice.v1",
            {
                "columns": [[c.id, c.name, c.type, c.required] for c in columns],
                "files": sorted(file.digest for file in files),
                "deletes": sorted(
                    {f"{one.digest}:{one.offset}" for many in deletes for one in many}
                ),
            },
        )

    def _part(self, cut: JsonObject) -> Slice | None:
        """Returns what was read; the whole table where the column of the cut is there no more."""
        window, name = cut["window"], str(cut["column"]).lower()
        by = next((one.name for one in self.columns if one.name.lower() == name), None)
        if not isinstance(window, list) or by is None:
            return None
        return Slice(by, parse_window([int(str(at)) for at in window]))
