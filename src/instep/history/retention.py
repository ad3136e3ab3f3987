"""What may be deleted, and deleting it: only what no record names and no open writer could need.

Every commit in the database, and every record that a room tells of, names files; a file that is
named is never touched. A commit that no root reaches (a ref, what moved it, a change that is open,
held or merged, a run under way) is forgotten first, after `keep_days`; its files are garbage after.

Something is condemned when a collection finds it unreached. It is deleted by a later collection,
if it is unreached still, is the same file still, has been condemned for long enough, and every
writer now open began after it was condemned. Docs: `docs/decisions/`, "What garbage collection
may delete". Age counts the days on which the lake was at work, so a clock that jumps adds one.

What contents and records name is passed in, for only later rooms know.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar

from instep.canonical import Json, JsonObject, to_microseconds
from instep.errors import InstepError
from instep.faults import reached
from instep.history import tree
from instep.history.commits import load_commit
from instep.history.locks import blobs_locked, collecting, current_generation, oldest_writer
from instep.history.objects import ERASED
from instep.history.repository import Repository
from instep.history.store import Transaction

_DAY_US = 86_400_000_000
_PAGE = 2_000
"""Rows read and names condemned at a time: what is held in memory, or in one transaction."""
_DELETED_AT_ONCE = 500
"""Files deleted in one transaction, which others wait for: some 25 ms."""

KEEP_DAYS = 30
STAGING_DAYS = 14
"""Of a failed run: long enough to look at what it left."""

_COMMIT = "commit/"
_PREFIXES = re.compile(r"[0-9a-f]{2}")

Say = Callable[[str], None]
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Policy:
    """For how many days of the lake's work unreached things stay: history and files; staging."""

    keep_days: int = KEEP_DAYS
    staging_days: int = STAGING_DAYS

    def days_for(self, name: str) -> int:
        return self.staging_days if name.startswith("staging/") else self.keep_days


@dataclass(frozen=True, slots=True)
class Named:
    """What the records of one room name besides commits' own contents.

    `commits` are roots. `objects` are digests, `staging` names of folders of work under way.
    """

    commits: frozenset[str] = frozenset()
    objects: frozenset[str] = frozenset()
    contents: tuple[JsonObject, ...] = ()
    staging: frozenset[str] = frozenset()


class Reach(Protocol):
    """What contents name, as the rooms after this one know."""

    def folder(self, content: JsonObject) -> str | None:
        """Returns the folder in `tables/` that the content lies in; None where it has none."""
        ...

    def objects(self, content: JsonObject) -> Iterable[str]:
        """Returns the digests of the objects that the content names."""
        ...

    def files(self, folder: str, contents: Sequence[JsonObject]) -> Collection[str]:
        """Returns the paths, below `folder`, of every file that one of the contents needs.

        A path that ends with "*" stands for all that begin so.

        Raises:
            InstepError: a file that names others is missing or damaged, so nobody knows.
        """
        ...


Records = Callable[[Transaction], Sequence[Named]]


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the rooms after this one know of retention."""

    reach: Reach
    records: Records


@dataclass(frozen=True, slots=True)
class Found:
    """Something unreached; `mark` changes whenever somebody makes or wants it again."""

    name: str
    mark: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Condemned:
    """Something found unreached by an earlier collection, when the lake had lived `lived` days."""

    name: str
    generation: int
    lived: int
    mark: str
    size_bytes: int


class Verdict(StrEnum):
    """What is done with something that nothing reaches, and why."""

    CONDEMN = "first seen unreached: condemned"
    WAIT = "condemned, not for long enough"
    NEEDED = "condemned, and a writer is open that began before"
    DELETE = "unreached for long enough, and nobody could need it"


def decide(
    found: Found, before: Condemned | None, *, lived: int, keep_days: int, oldest: int | None
) -> Verdict:
    """Returns what is done with something that no record names now.

    `lived` is how many days the lake has lived, `oldest` the generation at which the oldest open
    writer began, looked up before the records were read. One more day than `keep_days` has to have
    passed, so that one false day does not count.
    """
    if before is None or before.mark != found.mark:
        return Verdict.CONDEMN
    if keep_days and lived - before.lived <= keep_days:
        return Verdict.WAIT
    if oldest is not None and oldest < before.generation:
        return Verdict.NEEDED
    return Verdict.DELETE


@dataclass(frozen=True, slots=True)
class Line:
    """How many things of one kind have met one verdict, and their bytes."""

    verdict: Verdict
    kind: str
    count: int
    size_bytes: int

    def to_json(self) -> dict[str, Json]:
        return {
            "verdict": self.verdict.name.lower(),
            "why": self.verdict.value,
            "kind": self.kind,
            "count": self.count,
            "bytes": self.size_bytes,
        }


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection found and did, or, dry, would have done."""

    generation: int
    is_dry: bool
    reached: int
    lines: tuple[Line, ...]
    spared: tuple[str, ...]
    """Why something was left alone altogether: a table that is damaged."""

    def count(self, verdict: Verdict) -> int:
        return sum(line.count for line in self.lines if line.verdict is verdict)


def collect(
    repo: Repository,
    rooms: Rooms,
    policy: Policy,
    *,
    is_dry: bool = False,
    say: Say = lambda text: None,
) -> Collected:
    """Deletes what may be deleted, condemns what is newly unreached, and tells of both.

    It can be killed and begun again at any moment.

    Raises:
        UnavailableError (kind "collecting"): another process does so.
    """
    with nullcontext() if is_dry else collecting(repo.root):
        return _Collection(repo, rooms, policy, is_dry, say).perform()


def forgotten_commits(tx: Transaction) -> frozenset[str]:
    """Returns the commits that were collected: records may name them still."""
    return frozenset(str(row[0]) for row in tx.rows("select id from forgotten_commits"))


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What the database named at one moment."""

    commits: frozenset[str]
    dead: frozenset[str]
    objects: frozenset[str]
    tables: Mapping[str, tuple[JsonObject, ...]]
    staging: frozenset[str]


@dataclass(slots=True)
class _Collection:
    """One collection; `perform` is called once. The order of its acts is what makes it safe."""

    repo: Repository
    rooms: Rooms
    policy: Policy
    is_dry: bool
    say: Say
    lived: int = 0
    oldest: int | None = None
    reached: int = 0
    counts: Counter[tuple[Verdict, str]] = field(default_factory=Counter)
    sizes: Counter[tuple[Verdict, str]] = field(default_factory=Counter)
    spared: list[str] = field(default_factory=list)

    def perform(self) -> Collected:
        self.lived = self._live_today()
        # Writers first, records after: whoever began earlier and has ended meanwhile has published
        # what these records show.
        self.oldest = oldest_writer(self.repo.root)
        reached("gc.snapshot.before")
        with self.repo.store.reading() as tx:
            seen = self._snapshot(tx)
        self.say(f"{len(seen.objects):,} objects and {len(seen.tables):,} tables are named")
        self._objects(seen)
        self._tables(seen)
        self._area("staging/", self._staging(seen), seen)
        self._commits(seen)
        with self.repo.store.reading() as tx:
            generation = current_generation(tx)
        lines = tuple(
            Line(verdict, kind, count, self.sizes[verdict, kind])
            for (verdict, kind), count in sorted(self.counts.items())
        )
        return Collected(generation, self.is_dry, self.reached, lines, tuple(self.spared))

    def _live_today(self) -> int:
        """Returns on how many days something was written; a dry one does not add today."""
        today = to_microseconds(self.repo.clock()) // _DAY_US
        with self.repo.store.reading() as tx:
            known = {row[0] for row in tx.rows("select day from lived_days")}
            worked = {row[0] for row in tx.rows(f"select distinct at / {_DAY_US} from operations")}
        new = ({today} | worked) - known
        if new and not self.is_dry:
            with self.repo.store.transaction() as tx:
                for day in sorted(new):
                    tx.execute(
                        "insert into lived_days (day) values (?) on conflict do nothing", (day,)
                    )
        return len(known | new)

    def _snapshot(self, tx: Transaction) -> _Snapshot:
        objects: set[str] = set()
        tables: dict[str, dict[str, JsonObject]] = {}
        for content in self._contents(tx):
            self._note(content, objects, tables)
        records = self.rooms.records(tx)
        for named in records:
            objects |= named.objects
            for content in named.contents:
                self._note(content, objects, tables)
        parents = _parents(tx)
        return _Snapshot(
            commits=frozenset(parents),
            dead=frozenset(parents.keys() - _reached(parents, _roots(tx, records))),
            objects=frozenset(objects),
            tables={folder: tuple(states.values()) for folder, states in tables.items()},
            staging=frozenset[str]().union(*(named.staging for named in records)),
        )

    def _contents(self, tx: Transaction) -> Iterator[JsonObject]:
        """Yields every content of every commit there is, most of them once."""
        seen: set[bytes] = set()
        for _, body in _node_rows(tx):
            for content in json.loads(body).get("leaf", {}).values():
                text = json.dumps(content, sort_keys=True).encode()
                key = hashlib.blake2b(text, digest_size=16).digest()
                if key not in seen:
                    seen.add(key)
                    yield content

    def _note(
        self, content: JsonObject, objects: set[str], tables: dict[str, dict[str, JsonObject]]
    ) -> None:
        objects.update(self.rooms.reach.objects(content))
        folder = self.rooms.reach.folder(content)
        if folder is not None:
            tables.setdefault(folder, {})[json.dumps(content, sort_keys=True)] = content

    def _objects(self, seen: _Snapshot) -> None:
        root = self.repo.objects.folder
        unfinished = [entry for entry in _files(root) if entry.name.startswith(".")]
        self._area("objects/.", [_found(entry, "objects/") for entry in unfinished], seen)
        for folder in sorted(root.iterdir()) if root.is_dir() else []:
            if not _PREFIXES.fullmatch(folder.name):
                continue
            prefix = f"objects/{folder.name}/"
            unnamed = []
            for entry in _files(folder):
                if entry.name in seen.objects:
                    self.reached += 1
                elif not entry.name.endswith(ERASED):
                    unnamed.append(_found(entry, prefix))
            self._area(prefix, unnamed, seen)

    def _tables(self, seen: _Snapshot) -> None:
        root = self.repo.root / "tables"
        folders = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
        for number, folder in enumerate(folders, 1):
            if number % 100 == 0:
                self.say(f"{number:,} of {len(folders):,} tables looked at")
            prefix = f"tables/{folder}/"
            contents = seen.tables.get(folder, ())
            try:
                named = self.rooms.reach.files(folder, contents) if contents else ()
            except InstepError as error:
                self.spared.append(f"{prefix}: {error.message}")
                continue
            self._area(prefix, self._unnamed(root / folder, prefix, named), seen)

    def _unnamed(self, folder: Path, prefix: str, named: Collection[str]) -> list[Found]:
        open_ended = tuple(name[:-1] for name in named if name.endswith("*"))
        found = []
        for part in sorted(path for path in folder.iterdir() if path.is_dir()):
            for entry in _files(part):
                name = f"{part.name}/{entry.name}"
                if name in named or (open_ended and name.startswith(open_ended)):
                    self.reached += 1
                else:
                    found.append(_found(entry, f"{prefix}{part.name}/"))
        return found

    def _staging(self, seen: _Snapshot) -> list[Found]:
        folder = self.repo.root / "staging"
        entries = sorted(os.scandir(folder), key=lambda e: e.name) if folder.is_dir() else []
        found = []
        for entry in entries:
            if entry.name in seen.staging:
                self.reached += 1
                continue
            with_size = _found(entry, "staging/")
            size = sum(file.stat().st_size for file in Path(entry.path).rglob("*"))
            # A folder's time moves while somebody works in it; its number does not.
            mark = str(entry.inode())
            found.append(Found(with_size.name, mark, size))
        return found

    def _area(self, prefix: str, unnamed: Sequence[Found], seen: _Snapshot) -> None:
        """Judges what is unnamed in one folder; what was condemned there and is named is spared."""
        with self.repo.store.reading() as tx:
            before = _condemned(tx, prefix)
        judged: dict[Verdict, list[Found]] = {verdict: [] for verdict in Verdict}
        for found in unnamed:
            verdict = decide(
                found,
                before.get(found.name),
                lived=self.lived,
                keep_days=self.policy.days_for(found.name),
                oldest=self.oldest,
            )
            judged[verdict].append(found)
            self._count(verdict, found)
        if self.is_dry:
            return
        spared = before.keys() - {found.name for found in unnamed}
        self._condemn(judged[Verdict.CONDEMN], spared)
        for some in _pages(judged[Verdict.DELETE], _DELETED_AT_ONCE):
            self._delete(some, seen)

    def _count(self, verdict: Verdict, found: Found) -> None:
        self.counts[verdict, _kind(found.name)] += 1
        self.sizes[verdict, _kind(found.name)] += found.size_bytes

    def _condemn(self, new: Sequence[Found], spared: Collection[str]) -> None:
        """Records what is condemned, under a generation that no writer has noted yet."""
        for names in _pages(sorted(spared)):
            with self.repo.store.transaction() as tx:
                for name in names:
                    tx.execute("delete from condemned where name = ?", (name,))
        for some in _pages(new):
            reached("gc.condemn.before")
            with self.repo.store.transaction() as tx:
                generation = current_generation(tx) + 1
                tx.execute(
                    "insert into collections (generation, at) values (?, ?)",
                    (generation, to_microseconds(self.repo.clock())),
                )
                for found in some:
                    tx.execute("delete from condemned where name = ?", (found.name,))
                    tx.execute(
                        "insert into condemned (name, generation, lived, mark, size_bytes) "
                        "values (?, ?, ?, ?, ?)",
                        (found.name, generation, self.lived, found.mark, found.size_bytes),
                    )
            reached("gc.condemn.after")

    def _delete(self, some: Sequence[Found], seen: _Snapshot) -> None:
        """Deletes files whose condemnation is on record, alone in the lake, looking once more."""
        with self.repo.store.transaction() as tx:
            named = self._named_since(tx, seen)
            for found in some:
                if found.name in named:
                    continue
                reached("gc.delete.before")
                self._unlink(found)
                reached("gc.delete.after")
                tx.execute("delete from condemned where name = ?", (found.name,))

    def _unlink(self, found: Found) -> None:
        path = self.repo.root / found.name
        if found.name.startswith("staging/") and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif found.name.startswith("objects/"):
            with blobs_locked(self.repo.objects.folder, alone=True):
                if path.exists() and _mark(path.stat()) == found.mark:
                    path.unlink()
        else:
            path.unlink(missing_ok=True)

    def _named_since(self, tx: Transaction, seen: _Snapshot) -> frozenset[str]:
        """Returns names that records have gained since the snapshot.

        Writers that hold their lock cannot name what is deleted here; this catches one that forgot.
        """
        objects: set[str] = set()
        tables: dict[str, dict[str, JsonObject]] = {}
        for content in self._contents_since(tx, seen):
            self._note(content, objects, tables)
        names = {f"objects/{digest[:2]}/{digest}" for digest in objects}
        for folder, states in tables.items():
            files = self.rooms.reach.files(folder, tuple(states.values()))
            names |= {f"tables/{folder}/{name}" for name in files}
        return frozenset(names)

    def _contents_since(self, tx: Transaction, seen: _Snapshot) -> Iterator[JsonObject]:
        """Yields what commits made since the snapshot have and their first parents have not."""
        for (identifier,) in tx.rows("select id from commits"):
            if identifier in seen.commits:
                continue
            commit = load_commit(tx, identifier)
            if not commit.parents:
                yield from tree.entries(self.repo.nodes, commit.tree).values()
                continue
            before = load_commit(tx, commit.parents[0]).tree
            for difference in tree.diff(self.repo.nodes, before, commit.tree):
                if difference.after is not None:
                    yield difference.after

    def _commits(self, seen: _Snapshot) -> None:
        """Judges commits that no root reaches; forgets those whose time has come.

        It comes last: what they name was seen named, and spared, before the first is condemned.
        """
        with self.repo.store.reading() as tx:
            before = _condemned(tx, _COMMIT)
        judged: dict[Verdict, list[Found]] = {verdict: [] for verdict in Verdict}
        for identifier in sorted(seen.dead):
            found = Found(f"{_COMMIT}{identifier}", "", 0)
            verdict = decide(
                found,
                before.get(found.name),
                lived=self.lived,
                keep_days=self.policy.keep_days,
                oldest=self.oldest,
            )
            judged[verdict].append(found)
            self._count(verdict, found)
        if self.is_dry:
            return
        spared = before.keys() - {f"{_COMMIT}{identifier}" for identifier in seen.dead}
        self._condemn(judged[Verdict.CONDEMN], spared)
        if judged[Verdict.DELETE]:
            self._forget([found.name.removeprefix(_COMMIT) for found in judged[Verdict.DELETE]])

    def _forget(self, wanted: Sequence[str]) -> None:
        """Removes commits that still no root reaches, with what only they hold of the tree."""
        with self.repo.store.reading() as tx:
            children = {digest: tree.children(json.loads(body)) for digest, body in _node_rows(tx)}
        with self.repo.store.transaction() as tx:
            parents = _parents(tx)
            staying = parents.keys() - set(wanted) | _roots(tx, self.rooms.records(tx))
            going = sorted(set(wanted) - _reached(parents, staying))
            if not going:
                return
            at, generation = to_microseconds(self.repo.clock()), current_generation(tx)
            for identifier in going:
                tx.execute("delete from commits where id = ?", (identifier,))
                tx.execute("delete from condemned where name = ?", (f"{_COMMIT}{identifier}",))
                tx.execute(
                    "insert into forgotten_commits (id, generation, at) values (?, ?, ?)",
                    (identifier, generation, at),
                )
            self._drop_unused_nodes(tx, children)
            reached("gc.forget.before")
        reached("gc.forget.after")

    def _drop_unused_nodes(self, tx: Transaction, children: dict[str, tuple[str, ...]]) -> None:
        """Removes the nodes that no commit reaches; `children` are those of every older node."""
        waiting, used = [str(row[0]) for row in tx.rows("select tree from commits")], set[str]()
        while waiting:
            digest = waiting.pop()
            if digest not in used:
                used.add(digest)
                below = children.get(digest)
                waiting += tree.children(self.repo.nodes.load(digest)) if below is None else below
        for digest in sorted(children.keys() - used):
            tx.execute("delete from nodes where digest = ?", (digest,))


def _roots(tx: Transaction, records: Sequence[Named]) -> set[str]:
    """Returns the commits that stay: what a ref is or was, and what the rooms' records need."""
    roots = {str(row[0]) for row in tx.rows("select commit_id from refs")}
    for row in tx.rows(
        "select o.before_commit, o.after_commit from operations o join refs r on r.name = o.ref"
    ):
        roots.update(str(one) for one in row if one is not None)
    return roots.union(*(named.commits for named in records))


def _parents(tx: Transaction) -> dict[str, tuple[str, ...]]:
    rows = tx.rows("select id, parents from commits")
    return {str(identifier): tuple(json.loads(text)) for identifier, text in rows}


def _reached(parents: Mapping[str, tuple[str, ...]], roots: Iterable[str]) -> set[str]:
    """Returns the roots and all their ancestors."""
    waiting, found = list(roots), set[str]()
    while waiting:
        identifier = waiting.pop()
        if identifier not in found:
            found.add(identifier)
            waiting.extend(parents.get(identifier, ()))
    return found


def _node_rows(tx: Transaction) -> Iterator[tuple[str, str]]:
    """Yields every node of the tree, a page at a time."""
    last = ""
    while rows := tx.rows(
        "select digest, body from nodes where digest > ? order by digest limit ?", (last, _PAGE)
    ):
        for digest, body in rows:
            yield str(digest), str(body)
        last = str(rows[-1][0])


def _condemned(tx: Transaction, prefix: str) -> dict[str, Condemned]:
    rows = tx.rows(
        "select name, generation, lived, mark, size_bytes from condemned "
        "where name >= ? and name < ?",
        (prefix, prefix + "\x7f"),
    )
    return {str(row[0]): Condemned(*row) for row in rows}


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    if folder.is_dir():
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.is_dir(follow_symlinks=False))


def _found(entry: os.DirEntry[str], prefix: str) -> Found:
    stat = entry.stat(follow_symlinks=False)
    return Found(f"{prefix}{entry.name}", _mark(stat), stat.st_size)


def _mark(stat: os.stat_result) -> str:
    return f"{stat.st_ino}:{stat.st_mtime_ns}:{stat.st_size}"


def _kind(name: str) -> str:
    match name.split("/"):
        case ["commit", *_]:
            return "commit"
        case ["objects", *_]:
            return "object"
        case ["staging", *_]:
            return "staging folder"
        case [_, _, "data", *_]:
            return "data file"
        case [_, _, "profiles", *_]:
            return "profile"
        case _:
            return "metadata file"


def _pages(values: Sequence[Item], size: int = _PAGE) -> Iterator[Sequence[Item]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
