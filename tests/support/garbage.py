"""Lakes that make garbage, and an oracle that knows what must not be lost: it reads everything."""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from instep.canonical import JsonObject
from instep.engines.engine import WrittenFile
from instep.engines.schema import Column
from instep.history.collection import Collected, collect
from instep.history.edits import Edit, publish
from instep.history.listing import files_below
from instep.history.operations import append_operation
from instep.history.refs import RefKind, create_ref, get_ref, list_refs
from instep.history.repository import Repository
from instep.history.retention import Policy
from instep.history.store import Transaction
from instep.lake import retention_of
from instep.tables.content import TableContent
from instep.tables.read import (
    current_snapshot,
    data_files,
    load_entries,
    load_manifests,
    load_metadata,
    located,
    replacement_path,
)
from instep.tables.write import append, create_table, data_folder
from instep.tables.write import replace as replace_files

AT_ONCE = Policy(keep_days=0, staging_days=0)
CONTRACT = "instep.contract.v1"


def gc(repo: Repository, policy: Policy = AT_ONCE, is_dry: bool = False) -> Collected:
    return collect(repo, retention_of(repo), policy, is_dry=is_dry)


def branch(repo: Repository, name: str, at: str = "main") -> None:
    with repo.store.transaction() as tx:
        commit = get_ref(tx, at).commit
        create_ref(tx, name, RefKind.BRANCH, commit, owner="ana", at=repo.clock())


def delete_branch(repo: Repository, name: str) -> None:
    with repo.store.transaction() as tx:
        append_operation(
            tx, ref=name, before=get_ref(tx, name).commit, after=None, actor="ana",
            at=repo.clock(), kind="delete", why="done",
        )  # fmt: skip
        tx.execute("delete from refs where name = ?", (name,))


def commit(repo: Repository, ref: str, **changes: JsonObject | None) -> str:
    """Commits contents by key; a double underscore in a name stands for a slash."""
    wanted = {key.replace("__", "/"): content for key, content in changes.items()}
    with repo.store.transaction() as tx:
        edit = Edit(get_ref(tx, ref).commit, wanted, "ana", "work", "test")
        return publish(tx, repo, ref, edit).id


def contract(repo: Repository, text: str) -> dict[str, str]:
    return {"type": CONTRACT, "blob": repo.objects.put(text.encode())}


def new_table(repo: Repository) -> TableContent:
    return create_table(repo.root, "t", [Column(0, "id", "long")], at=repo.clock())


Rows = str | Sequence[int]
"""What is in a data file: retention never looks inside, so a text will do; or real rows."""


def file_in(repo: Repository, table: TableContent, rows: Rows) -> WrittenFile:
    """Writes a data file."""
    path = data_folder(repo.root, table) / f"{uuid.uuid4().hex}.parquet"
    data = rows.encode() if isinstance(rows, str) else _parquet(rows)
    path.write_bytes(data)
    count = 1 if isinstance(rows, str) else len(rows)
    return WrittenFile(str(path), count, len(data), hashlib.sha256(data).hexdigest(), ())


def grown(repo: Repository, table: TableContent, rows: Rows) -> TableContent:
    return append(repo.root, table, [file_in(repo, table, rows)], at=repo.clock())


def numbers(repo: Repository, table: TableContent) -> list[int]:
    """Returns the rows of a table whose files have real ones."""
    return numbers_in(repo.root / file.path for file in data_files(repo.root, table))


def numbers_in(files: Iterable[Path]) -> list[int]:
    import pyarrow.parquet as pq

    found = (pq.read_table(io.BytesIO(path.read_bytes()))["id"].to_pylist() for path in files)
    return sorted(int(number or 0) for some in found for number in some)


def _parquet(rows: Sequence[int]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    field = pa.field("id", pa.int64(), metadata={"PARQUET:field_id": "1"})
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": pa.array(rows, pa.int64())}, pa.schema([field])), sink)
    return sink.getvalue()


def rewritten(repo: Repository, table: TableContent, text: Rows) -> TableContent:
    """Returns the table with its first file replaced."""
    metadata = load_metadata(repo.root, table)
    folder = data_folder(repo.root, table).parent
    entries = [e for m in load_manifests(folder, metadata) for e in load_entries(folder, m)]
    old = [entries[0].file.path] if entries else []
    return replace_files(repo.root, table, [file_in(repo, table, text)], old, at=repo.clock())


def later(repo: Repository, clock: Callable[[], object], days: int) -> None:
    """Lets a day pass after another, with a little work on each."""
    for _ in range(days):
        clock.now += timedelta(days=1)  # type: ignore[attr-defined]
        gc(repo, Policy())


@dataclass(frozen=True, slots=True)
class Needs:
    """What the live history needs: paths below the lake's folder."""

    paths: frozenset[str]


def live_commits(tx: Transaction, repo: Repository) -> set[str]:
    """Every ref's commits, every commit that it was at, and of every change that stands."""
    waiting = [ref.commit for ref in list_refs(tx)]
    for ref in list_refs(tx):
        for row in tx.rows("select after_commit from operations where ref = ?", (ref.name,)):
            waiting += [row[0]] if row[0] else []
    for row in tx.rows("select base_commit, head_commit, state from changes"):
        waiting += list(row[:2]) if row[2] != "refused" else []
    found: set[str] = set()
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += repo.commit(one).parents
    return found


def needs(repo: Repository) -> Needs:
    """Reads every live commit's every content to the last file, and returns all their paths.

    Raises whatever reading raises: then something needed was lost.
    """
    paths: set[str] = set()
    with repo.store.reading() as tx:
        commits = live_commits(tx, repo)
    for one in commits:
        for content in repo.entries(one).values():
            if content["type"] == "instep.table.v1":
                paths |= _of_table(repo, TableContent.from_content(content))
                continue
            files = content.get("files")
            blobs = files.values() if isinstance(files, Mapping) else [content["blob"]]
            for digest in map(str, blobs):
                repo.objects.get(digest)
                paths |= {
                    path.relative_to(repo.root).as_posix() for path in repo.objects.files(digest)
                }
    for path in paths:
        assert (repo.root / path).exists(), f"{path} was lost"
    return Needs(frozenset(paths))


def on_disk(repo: Repository) -> frozenset[str]:
    """Returns the files there are, of objects and of tables."""
    return frozenset(
        f"{part}/{below}{entry.name}"
        for part in ("objects", "tables")
        for below, entry in files_below(repo.root / part)
    )


def _of_table(repo: Repository, table: TableContent) -> set[str]:
    metadata = load_metadata(repo.root, table)
    folder = data_folder(repo.root, table).parent
    below = f"tables/{table.uuid}"
    paths = {located(repo.root, table).metadata}
    if replacement_path(repo.root, table).exists():
        paths.add(f"{below}/replacements/{table.digest}.json")
    for snapshot in metadata["snapshots"]:
        as_of = {**metadata, "current-snapshot-id": snapshot["snapshot-id"]}
        current = current_snapshot(as_of)
        assert current is not None
        paths.add(f"{below}/metadata/{current['summary']['instep.listing']}")
        paths.add(f"{below}/metadata/{Path(current['manifest-list']).name}")
        for manifest in load_manifests(folder, as_of):
            paths |= {f"{below}/metadata/{manifest.path}", f"{below}/metadata/{manifest.entries}"}
            for entry in load_entries(folder, manifest):
                paths.add(f"{below}/data/{Path(entry.file.path).name}")
    return paths
