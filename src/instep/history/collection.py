"""A garbage collection: it lists what is there, judges what nothing names, and deletes.

The order of its acts is what makes it safe (`docs/decisions/`, "What garbage collection may
delete"); what may be deleted is decided in `retention`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from instep.canonical import Json, to_microseconds
from instep.errors import InstepError
from instep.faults import reached
from instep.history.condemned import DOOMED, condemn, condemned_below, forget_condemned
from instep.history.forgetting import COMMIT, forget
from instep.history.listing import (
    Entry,
    copies_below,
    files_below,
    files_in,
    folders_in,
    mark_of,
)
from instep.history.locks import blobs_locked, collecting, current_generation, oldest_writer
from instep.history.naming import Later, Snapshot, take_snapshot
from instep.history.objects import ERASED, blob_of, remove_empty_folders
from instep.history.places import drop_copies, here, on_s3
from instep.history.repository import Repository
from instep.history.retention import Condemned, Found, Policy, Rooms, Verdict, decide
from instep.history.s3 import S3Path, remove_all
from instep.history.staging import clear_gone, remove_staged, staged, staging_prefix
from instep.history.tokens import PRUNED_AT_ONCE, TOKEN_DAYS, prune_tokens

_DAY_US = 86_400_000_000
_PAGE = 2_000
"""Names condemned in one transaction."""
_DELETED_AT_ONCE = 500
"""Files deleted in one transaction, which others wait for: some 25 ms."""

_PREFIXES = re.compile(r"[0-9a-f]{2}")

Say = Callable[[str], None]
Item = TypeVar("Item")


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
    with nullcontext() if is_dry else collecting(repo.root, repo.store):
        later = Later(repo, rooms.reach)
        return _Collection(repo, rooms, policy, is_dry, say, later).perform()


@dataclass(slots=True)
class _Collection:
    """One collection; `perform` is called once. The order of its acts is what makes it safe."""

    repo: Repository
    rooms: Rooms
    policy: Policy
    is_dry: bool
    say: Say
    later: Later
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
        self.oldest = oldest_writer(self.repo.root, self.repo.store)
        reached("gc.snapshot.before")
        with self.repo.store.reading() as tx:
            seen = take_snapshot(tx, self.rooms, self.say)
        self.say(f"{len(seen.objects):,} objects and {len(seen.tables):,} tables are named")
        self.later.commits.update(seen.commits)
        self._objects(seen)
        self._tables(seen)
        self._staging(seen)
        self._commits(seen)
        self._tokens()
        self._record()
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

    def _objects(self, seen: Snapshot) -> None:
        root = self.repo.objects.folder
        unfinished = [entry for entry in files_in(root) if entry.name.startswith(".")]
        self._area("objects/.", still_there(unfinished, "objects/"))
        for folder in filter(_PREFIXES.fullmatch, self._folders(root)):
            prefix = f"objects/{folder}/"
            copies, names, unnamed = copies_below(root / folder), [], []
            for entry in files_in(root / folder):
                names.append(entry.name)
                if blob_of(entry.name) in seen.objects:
                    self.reached += 1
                elif not entry.name.endswith(ERASED):
                    unnamed.append(entry)
            self._area(prefix, still_there(unnamed, prefix))
            self._forget(root / folder, copies.difference(names))

    def _tables(self, seen: Snapshot) -> None:
        root = self.repo.root / "tables"
        folders = self._folders(root)
        for number, folder in enumerate(folders, 1):
            if number % 100 == 0:
                self.say(f"{number:,} of {len(folders):,} tables looked at")
            prefix = f"tables/{folder}/"
            contents = seen.tables.get(folder, ())
            # Rows first: of a state that is named, each of them is then among what it needs.
            recorded = self.rooms.reach.recorded(folder)
            try:
                named = self.rooms.reach.files(folder, contents) if contents else ()
            except InstepError as error:
                self.spared.append(f"{prefix}: {error.message}")
                continue
            open_ended = tuple(name[:-1] for name in named if name.endswith("*"))
            copies, names, unnamed = copies_below(root / folder), [], []
            for below, entry in files_below(root / folder):
                name = below + entry.name
                names.append(name)
                if name in named or name.startswith(open_ended):
                    self.reached += 1
                else:
                    unnamed += still_there([entry], prefix + below)
            without = sorted(set(recorded).difference(named, names))
            self._area(prefix, [*(Found(prefix + name, "", 0) for name in without), *unnamed])
            self._forget(root / folder, copies.difference(names))
            if not self.is_dry:
                remove_empty_folders(root / folder / "data")

    def _folders(self, root: Path) -> list[str]:
        """Returns the folders in one; of those that it has no more, copies here are dropped."""
        copied = folders_in(here(root)) if on_s3(root) else []
        found = folders_in(root)
        for name in set(copied).difference(found):
            self._forget(root / name, ["**/*"])
        return found

    def _forget(self, folder: Path, gone: Collection[str]) -> None:
        """Drops copies that this machine had before the folder was listed, and it has no more."""
        if not self.is_dry:
            drop_copies(folder, gone)

    def _staging(self, seen: Snapshot) -> None:
        prefix = staging_prefix(self.repo, is_dry=self.is_dry)
        under_way, others = staged(self.repo, prefix, seen.staging)
        self.reached += under_way
        self._area(prefix, others)
        if not self.is_dry:
            clear_gone(self.repo)

    def _area(self, prefix: str, unnamed: Sequence[Found]) -> None:
        """Judges what is unnamed in one folder; what was condemned there and is named is spared."""
        with self.repo.store.reading() as tx:
            before = condemned_below(tx, prefix)
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
            self._delete(self._doomed(some, before) if prefix.startswith("tables/") else some)

    def _doomed(self, due: Sequence[Found], before: Mapping[str, Condemned]) -> list[Found]:
        """Dooms files of tables, and returns those that no open writer can be about to commit."""
        ready = [found for found in due if before[found.name].lived == DOOMED]
        new = [found for found in due if before[found.name].lived != DOOMED]
        if not new:
            return ready
        reached("gc.doom.before")
        with self.repo.store.transaction() as tx:
            generation = condemn(tx, new, DOOMED, self.repo.clock())
        reached("gc.doom.after")
        oldest = oldest_writer(self.repo.root, self.repo.store)
        if oldest is None or oldest >= generation:
            return [*ready, *new]
        for found in new:
            for verdict, step in ((Verdict.DELETE, -1), (Verdict.NEEDED, 1)):
                self.counts[verdict, _kind(found.name)] += step
                self.sizes[verdict, _kind(found.name)] += step * found.size_bytes
        return ready

    def _count(self, verdict: Verdict, found: Found) -> None:
        self.counts[verdict, _kind(found.name)] += 1
        self.sizes[verdict, _kind(found.name)] += found.size_bytes

    def _condemn(self, new: Sequence[Found], spared: Collection[str]) -> None:
        """Records what is condemned, under a generation that no writer has noted yet."""
        for names in _pages(sorted(spared)):
            with self.repo.store.transaction() as tx:
                forget_condemned(tx, names)
        for some in _pages(new):
            reached("gc.condemn.before")
            with self.repo.store.transaction() as tx:
                condemn(tx, some, self.lived, self.repo.clock())
            reached("gc.condemn.after")

    def _delete(self, some: Sequence[Found]) -> None:
        """Deletes files whose condemnation is on record, alone in the lake, looking once more."""
        with self.repo.store.reading() as tx:
            self.later.look(tx)
        with self.repo.store.transaction() as tx:
            named = self.later.look(tx)
            going = [found for found in some if _as_named(found.name) not in named]
            self._remove(going)
            self.rooms.reach.drop_rows(tx, (found.name for found in going))
            forget_condemned(tx, (found.name for found in going))

    def _remove(self, going: Sequence[Found]) -> None:
        """Removes files; those on S3 together, each under a name that nobody will use again."""
        far: list[S3Path] = []
        for found in going:
            path = self.repo.root / found.name
            if not found.name.startswith("staging/") and (remote := on_s3(path)):
                far.append(remote)
                continue
            reached("gc.delete.before")
            self._unlink(found, path)
            reached("gc.delete.after")
        reached("gc.remove.before")
        remove_all(far)
        reached("gc.remove.after")

    def _unlink(self, found: Found, path: Path) -> None:
        if found.name.startswith("staging/"):
            remove_staged(self.repo, found.name)
        elif found.name.startswith("objects/"):
            with blobs_locked(self.repo.objects.folder, alone=True):
                if path.exists() and mark_of(path.stat()) == found.mark:
                    path.unlink()
        else:
            path.unlink(missing_ok=True)

    def _tokens(self) -> None:
        """Removes the tokens that nobody remembers any more."""
        with self.repo.store.reading() as tx:
            row = tx.row(
                "select day from lived_days order by day desc limit 1 offset ?", (TOKEN_DAYS,)
            )
        if row is None or self.is_dry:
            return
        pruned = PRUNED_AT_ONCE
        while pruned == PRUNED_AT_ONCE:
            with self.repo.store.transaction() as tx:
                pruned = prune_tokens(tx, row[0] * _DAY_US)
            self.counts[Verdict.DELETE, "token"] += pruned
        self.counts += Counter()

    def _record(self) -> None:
        """Writes down by which policy this collection went."""
        if self.is_dry:
            return
        deleted = sum(n for (verdict, _), n in self.counts.items() if verdict is Verdict.DELETE)
        policy = self.policy
        with self.repo.store.transaction() as tx:
            row = tx.row("select coalesce(max(number), 0) + 1 from collected")
            assert row is not None, "an aggregate gives a row"
            tx.execute(
                "insert into collected (number, at, keep_days, staging_days, deleted) "
                "values (?, ?, ?, ?, ?)",
                (
                    row[0],
                    to_microseconds(self.repo.clock()),
                    policy.keep_days,
                    policy.staging_days,
                    deleted,
                ),
            )

    def _commits(self, seen: Snapshot) -> None:
        """Judges commits that no root reaches; forgets those whose time has come.

        It comes last: what they name was seen named, and spared, before the first is condemned.
        """
        with self.repo.store.reading() as tx:
            before = condemned_below(tx, COMMIT)
        judged: dict[Verdict, list[Found]] = {verdict: [] for verdict in Verdict}
        for identifier in sorted(seen.dead):
            found = Found(f"{COMMIT}{identifier}", "", 0)
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
        known = {f"{COMMIT}{identifier}" for identifier in seen.commits}
        alive = known - {f"{COMMIT}{identifier}" for identifier in seen.dead}
        self._condemn(judged[Verdict.CONDEMN], before.keys() & alive)
        # A forgetting that was cut short has left its condemnations, and perhaps the nodes.
        going = {found.name for found in judged[Verdict.DELETE]} | before.keys() - known
        if going:
            forget(self.repo, self.rooms, [name.removeprefix(COMMIT) for name in sorted(going)])


def still_there(entries: Iterable[Entry], prefix: str) -> list[Found]:
    """Returns the files that are there still: a writer gives its own their names, or removes them.

    Each is looked at on its own, so a file that went takes no other with it.
    """
    found = []
    for entry in entries:
        with suppress(FileNotFoundError):
            stat = entry.stat(follow_symlinks=False)
            found.append(Found(f"{prefix}{entry.name}", mark_of(stat), stat.st_size))
    return found


def _as_named(name: str) -> str:
    """Returns the path by which a record names a file: of a blob, its digest."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{blob_of(last)}" if name.startswith("objects/") else name


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
